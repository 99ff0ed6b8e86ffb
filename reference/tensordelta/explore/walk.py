"""From version to version: each state is made from the one before, so that n versions cost n deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..read.reader import Reader
from ..state.state import State


def states(reader: Reader, versions: Iterable[int], *, in_place: bool) -> Iterator[State]:
    """The states of some versions, in their order; arguments and errors are those of `Chain.states`."""
    state: State | None = None
    for version in versions:
        if state is None:
            state = reader.load(version)
        else:
            state = state if in_place else state.copy()
            reader.prepare(state, version).apply()
        yield state
