"""Flags: finding the few that are set among many.

numpy's `flatnonzero` takes the same time for every flag, set or not. Where few are set it is faster to look at eight at
a time and to unfold only the groups with a flag set.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

_GROUP = 8
_SCRATCH = threading.local()


def scratch(count: int) -> NDArray[np.bool_]:
    """This thread's room for `count` flags, to be filled; reused, because fresh memory costs more than a comparison."""
    flags: NDArray[np.bool_] | None = getattr(_SCRATCH, "flags", None)
    if flags is None or len(flags) < count + _GROUP:
        flags = _SCRATCH.flags = np.empty(-(-count // _GROUP) * _GROUP + _GROUP, np.bool_)
    return flags[:count]


def places(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of the flags that are set, ascending.

    Args:
        flags: from `scratch`, filled.
    """
    count = len(flags)
    groups = -(-count // _GROUP)
    whole: NDArray[np.bool_] = _SCRATCH.flags[: groups * _GROUP]
    whole[count:] = False
    grouped = whole.view(np.uint64)
    group = np.flatnonzero(grouped != 0)
    inner = np.flatnonzero(grouped.take(group).view(np.bool_))
    found: NDArray[np.int64] = group.take(inner >> 3)
    found <<= 3
    inner &= _GROUP - 1
    found += inner
    return found
