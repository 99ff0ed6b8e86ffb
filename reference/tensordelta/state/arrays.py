"""States over mappings of arrays or tensors that a user owns, for updates that write into these arrays."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from .state import State

#: Mappings that are remembered.
_MAPPINGS = 8


class ArrayStates:
    """Gives the same state for the same mapping, so that it remembers the version that the last update left.

    Several threads may use one object, with mappings of their own.
    """

    def __init__(self) -> None:
        self._states: deque[State] = deque(maxlen=_MAPPINGS)

    def over(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        """The state over these arrays or tensors.

        Raises:
            ValueError: an array is not C-contiguous and little-endian, or two share a part of their memory.
        """
        for state in list(self._states):
            if state.is_over(arrays):
                return state
        state = State.from_arrays(arrays)
        if state.copies:
            raise ValueError(
                f"array {min(state.copies)!r} is not C-contiguous and little-endian, "
                "so that an update could not write into it"
            )
        shared = state.overlap()
        if shared:
            raise ValueError(
                f"arrays {shared[0]!r} and {shared[1]!r} share memory, so that an update of one would change the "
                "other; give one of them memory of its own"
            )
        self._states.append(state)
        return state
