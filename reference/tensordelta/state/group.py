"""Groups: holders that have a state together, and what they do together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from ..codecs.fingerprint import U64

T = TypeVar("T")


class Group(Protocol):
    """Holders that have a state together. All of them call the same methods in the same order, from one thread each.

    Where another holder has died, or does not answer in time, the methods raise LostError.
    """

    @property
    def rank(self) -> int:
        """Which holder this is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def gather(self, value: str) -> list[str]:
        """The values of all holders, by rank."""

    def sum(self, values: U64) -> U64:
        """The sums of all holders' values, uint64 of any shape, element by element, mod 2^64."""


class Alone:
    """A group of one."""

    rank, size = 0, 1

    def gather(self, value: str) -> list[str]:
        """The value."""
        return [value]

    def sum(self, values: U64) -> U64:
        """The values."""
        return values


class LostError(RuntimeError):
    """Another holder of the group has died, or did not answer in time."""


class GroupError(RuntimeError):
    """Raised by every holder of a group where one of them failed; it says which, and of what."""


def together(group: Group, work: Callable[[], T]) -> T:
    """Do something in every holder of a group; all call this.

    Args:
        group: the holders.
        work: done by this one, without asking another.

    Returns:
        What `work` returned.

    Raises:
        GroupError: it failed in one of them. In a group of one the error itself is raised.
        LostError: another one did not answer.
    """
    fault: Exception | None = None
    result: T | None = None
    try:
        result = work()
    except Exception as error:
        if group.size == 1:
            raise
        fault = error
    faults = group.gather("" if fault is None else f"{type(fault).__name__}: {fault}")
    if any(faults):
        failed = "; ".join(f"rank {rank}: {each}" for rank, each in enumerate(faults) if each)
        raise GroupError(failed) from fault
    return result  # type: ignore[return-value]  # there is a result where there is no fault
