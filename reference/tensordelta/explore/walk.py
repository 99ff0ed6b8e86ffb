"""From version to version: each state is made from the one before, so that n versions cost n deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ..errors import StoreError, TensorDeltaError
from ..read.reader import Reader
from ..state.state import State
from ..state.update import Update


def states(reader: Reader, versions: Iterable[int], *, in_place: bool) -> Iterator[State]:
    """The states of some versions, in their order; arguments and errors are those of `Chain.states`."""
    state: State | None = None
    for version in versions:
        if state is None:
            state = reader.load(version)
        else:
            state = state if in_place else state.copy()
            step(reader, state, version).apply()
        yield state


def step(reader: Reader, state: State, version: int) -> Update:
    """Prepare the update of a state to a version; for the next version without a listing, which a plan begins with.

    Raises:
        MissingError: no such version, or no route to it.
        TensorDeltaError, StoreError: every route failed; the error of the first one.
    """
    documents = reader.documents
    if state.version is not None:
        # What is at fault with the version's own delta is said where no other route is left.
        with suppress(TensorDeltaError, StoreError):
            if documents.manifest(version).starts_from(documents.manifest(state.version)):
                return reader.along_bases().prepare(state, version)
    return reader.prepare(state, version)
