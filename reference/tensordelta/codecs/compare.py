"""Finding the changed words of two states (SPEC.md section 11).

Each byte of both states is read once, in blocks of a few megabytes: large ones, because threads compete for the
interpreter's lock at each numpy call. The cost of everything after the comparison depends on the changed words alone.
Where words are aligned to eight bytes they are compared in lanes of eight bytes; then only the few lanes that differ
are compared word by word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nonzero import places_where
from .words import Words

Indices = NDArray[np.int64]
Changed = tuple[Indices, Words | None, Words]

#: Bytes compared in one numpy call.
_BLOCK = 1 << 22
_LANE = np.dtype(np.uint64)


def changed_words(old: Words | None, new: Words) -> Changed:
    """Find where two rows of words differ.

    Args:
        old: words of shape (n,), or None for zero words.
        new: words of shape (n,), of the same dtype.

    Returns:
        (indices, old words, new words), each of shape (m,); the old words are None where `old` is.
    """
    word = new.dtype
    lane = _LANE if all(_is_aligned(words) for words in (old, new)) else word
    per_lane = lane.itemsize // word.itemsize
    step = _BLOCK // word.itemsize
    whole = len(new) // per_lane * per_lane
    found = [
        _changed(None if old is None else old[start:stop], new[start:stop], lane, start)
        for start, stop in ((start, min(start + step, whole)) for start in range(0, whole, step))
    ]
    if whole < len(new):
        found.append(_changed(None if old is None else old[whole:], new[whole:], word, whole))
    if len(found) == 1:
        return found[0]
    if not found:
        return np.empty(0, np.int64), old, new
    before = [each for _, each, _ in found if each is not None]
    return (
        np.concatenate([each for each, _, _ in found]),
        np.concatenate(before) if before else None,
        np.concatenate([each for _, _, each in found]),
    )


def _is_aligned(words: Words | None) -> bool:
    return words is None or not words.size or words.ctypes.data % _LANE.itemsize == 0


def _changed(old: Words | None, new: Words, lane: np.dtype[Any], start: int) -> Changed:
    """The changed words of one block, whose first word has the index `start`."""
    word = new.dtype
    after = new.view(lane)
    before = None if old is None else old.view(lane)
    hit = places_where(np.not_equal, after, 0 if before is None else before)
    new_lanes = after.take(hit)
    old_lanes = None if before is None else before.take(hit)
    per_lane = lane.itemsize // word.itemsize
    if per_lane == 1:
        hit += start
        return hit, old_lanes, new_lanes
    differ = new_lanes if old_lanes is None else new_lanes ^ old_lanes
    inner = np.flatnonzero(differ.view(word) != 0)
    shift = per_lane.bit_length() - 1
    indices: Indices = hit.take(inner >> shift)
    indices <<= shift
    indices += inner & (per_lane - 1)
    if start:
        indices += start
    return (
        indices,
        None if old_lanes is None else old_lanes.view(word).take(inner),
        new_lanes.view(word).take(inner),
    )
