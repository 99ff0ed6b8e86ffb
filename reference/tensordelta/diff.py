"""Finding the changed words of two states (SPEC.md section 11).

Each byte of both states is read once, in blocks that stay in cache; everything after the comparison costs only the
changed words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .words import Words

Indices = NDArray[np.int64]

#: Words compared in one numpy call.
_BLOCK = 1 << 18
_GROUP = 8


def changed_words(old: Words | None, new: Words) -> tuple[Indices, Words | None, Words]:
    """Find where two rows of words differ.

    Args:
        old: words of shape (n,), or None for zero words.
        new: words of shape (n,), of the same dtype.

    Returns:
        (indices, old words, new words), each of shape (m,); the old words are None where `old` is.
    """
    found: list[Indices] = []
    before: list[Words] = []
    after: list[Words] = []
    mask = np.empty(min(_BLOCK, -(-len(new) // _GROUP) * _GROUP), np.bool_)
    for start in range(0, len(new), _BLOCK):
        block = new[start : start + _BLOCK]
        out = mask[: len(block)]
        if old is None:
            np.not_equal(block, 0, out=out)
        else:
            np.not_equal(block, old[start : start + _BLOCK], out=out)
        indices = _set(mask, len(block))
        after.append(block[indices])
        if old is not None:
            before.append(old[start : start + _BLOCK][indices])
        indices += start
        found.append(indices)
    if not found:
        return np.empty(0, np.int64), None if old is None else new[:0], new[:0]
    if len(found) == 1:
        return found[0], before[0] if before else None, after[0]
    return np.concatenate(found), np.concatenate(before) if before else None, np.concatenate(after)


def _set(mask: NDArray[np.bool_], count: int) -> Indices:
    """Indices of the first `count` flags that are set; looks at eight flags at once, since few are."""
    groups = -(-count // _GROUP)
    mask[count : groups * _GROUP] = False
    eights = mask[: groups * _GROUP].view(np.uint64)
    hit = np.flatnonzero(eights != 0)
    inner = np.flatnonzero(eights[hit].view(np.bool_))
    indices: Indices = hit[inner >> 3]
    indices <<= 3
    inner &= 7
    indices |= inner
    return indices
