"""The registry of good chains, which cases and the tests of the reference read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from generate.builder import Builder


@dataclass(frozen=True)
class Good:
    """A chain that a reader accepts.

    Attributes:
        name: the name of its folder.
        build: makes the chain.
        clean: whether a verifier finds no fault in it.
    """

    name: str
    build: Callable[[], Builder]
    clean: bool = True

    @cached_property
    def builder(self) -> Builder:
        """The chain, made once; take a copy of its objects to change them."""
        return self.build()


GOOD: list[Good] = []


def good(build: Callable[[], Builder]) -> Callable[[], Builder]:
    """Register a chain under its function's own name."""
    GOOD.append(Good(build.__name__.replace("_", "-"), build))
    return build


def unclean(build: Callable[[], Builder]) -> Callable[[], Builder]:
    """Register a chain that a reader accepts, and in which a verifier finds faults."""
    GOOD.append(Good(build.__name__.replace("_", "-"), build, clean=False))
    return build


def good_chain(name: str) -> Builder:
    """A good chain by its name; not to be changed."""
    return next(each for each in GOOD if each.name == name).builder
