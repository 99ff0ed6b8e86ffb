"""Rejections: sections 1.4 and 17."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Rejection(Exception):
    """An object, or a request, that a Reader has to reject.

    Attributes:
        name: the error of section 17.
        rule: the id of the requirement that asks for the rejection.
        reason: what is wrong, in words.
        object: the name of the object at fault; empty where it is not known.
    """

    def __init__(self, name: str, rule: str, reason: str, object: str = "") -> None:
        super().__init__(f"{name} ({rule}): {reason}")
        self.name, self.rule, self.reason, self.object = name, rule, reason, object


def require(condition: object, rule: str, reason: str, name: str = "malformed") -> None:
    """Reject under a rule unless the condition holds."""
    if not condition:
        raise Rejection(name, rule, reason)


@contextmanager
def about(object: str) -> Iterator[None]:
    """Name the object in a rejection that comes out of the block, unless the rejection names one already."""
    try:
        yield
    except Rejection as rejection:
        rejection.object = rejection.object or object
        raise
