"""What a Reader rejects, and under which rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Fault(Exception):
    """A rejection of a Reader.

    Attributes:
        name: the error of SPEC.md section 17.
        rule: id of the requirement that asks for the rejection.
        object: name of the object at fault, empty where it is not known yet.
        reason: what is wrong, in words.
    """

    def __init__(self, name: str, rule: str, reason: str) -> None:
        super().__init__(f"{name} ({rule}): {reason}")
        self.name = name
        self.rule = rule
        self.reason = reason
        self.object = ""


def need(condition: object, rule: str, reason: str, name: str = "malformed") -> None:
    """Raises a Fault unless the condition is true."""
    if not condition:
        raise Fault(name, rule, reason)


@contextmanager
def reading(object: str) -> Iterator[None]:
    """Names the object in the faults that come out of the block; the innermost name stays."""
    try:
        yield
    except Fault as fault:
        fault.object = fault.object or object
        raise
