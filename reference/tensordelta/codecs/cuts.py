"""Where blocks of compressed streams end in exponent order: where the exponent changes.

Words of one exponent change equally often and by steps of like sizes, so that the bytes of their streams have one
distribution; a block of zstd has a Huffman table of its own. To a reader all blocks are alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .order import exponents
from .words import DType, Words

Ranks = NDArray[np.intp]

#: Listed words of a block, and of what remains after the last cut, at least: fewer do not pay for a table.
_BLOCK = 2048
_REST = 1024


def cuts(base: Words, dtype: DType, limit: int) -> Ranks:
    """Ranks of the listed words before which a block ends, ascending.

    Args:
        base: the base words of a chunk's listed words, in exponent order.
        dtype: theirs.
        limit: the limit of the order; words with exponents from there on count as one kind.
    """
    kinds = np.minimum(exponents(base, dtype), limit)
    borders = np.flatnonzero(kinds[1:] != kinds[:-1]) + 1
    borders = borders[: np.searchsorted(borders, len(base) - _REST, side="right")]
    found: list[int] = []
    at = int(np.searchsorted(borders, _BLOCK))
    while at < len(borders):
        found.append(int(borders[at]))
        at = int(np.searchsorted(borders, found[-1] + _BLOCK))
    return np.array(found, np.intp)
