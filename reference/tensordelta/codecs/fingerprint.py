"""Fingerprints: a sum over all lanes of a state that moves with each change (SPEC.md section 8).

A lane is a little-endian 16-bit part of a tensor's bytes (one byte for dtypes of 8-bit words). Sums are kept tensor by
tensor, as unsigned 64-bit integers that wrap; a state's fingerprint is their sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .words import Words

U64 = NDArray[np.uint64]

_BLOCK_BITS = 16
_BLOCK = 1 << _BLOCK_BITS
_MASK = (1 << 64) - 1
#: Listed words of several lanes that are multiplied at a time, so that what is made for them stays in the caches.
_PART = 1 << 13


def mix(z: U64) -> U64:
    """SplitMix64, element by element."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@cache
def lane_coefficients() -> U64:
    """B(0) … B(65535) of SPEC.md section 8."""
    table = mix(np.arange(_BLOCK, dtype=np.uint64)) | np.uint64(1)
    table.flags.writeable = False
    return table


@cache
def _coefficients_of_lanes(lanes: int) -> tuple[U64, ...]:
    """B of the first lane of each word of a block, of the second, and so on; each in one piece of memory."""
    return tuple(np.ascontiguousarray(lane_coefficients()[lane::lanes]) for lane in range(lanes))


def seed(name: str) -> int:
    """seed(t): the first eight bytes of the SHA-256 of a tensor's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def block_coefficients(name: str, first: int, count: int) -> U64:
    """A(t, first) … A(t, first + count - 1) of SPEC.md section 8."""
    start = np.uint64((seed(name) + first) & _MASK)
    return mix(start + np.arange(count, dtype=np.uint64)) | np.uint64(1)


def lanes_per_word(words: Words) -> int:
    """Lanes of one word: 1 for 8 and 16 bits, 2 for 32, 4 for 64."""
    return max(words.dtype.itemsize // 2, 1)


def _lanes(words: Words) -> NDArray[np.unsignedinteger[Any]]:
    return words if words.dtype.itemsize <= 2 else words.view(np.uint16)


def scan(name: str, words: Words, *, start: int = 0) -> int:
    """Sum over all lanes of a tensor, or of a part of it: a full scan.

    Args:
        name: the tensor's name.
        words: its words, or those of a part that begins at word `start`.

    Returns:
        The sum, mod 2^64.
    """
    lanes = _lanes(words)
    first_lane = start * lanes_per_word(words)
    skip = first_lane & (_BLOCK - 1)  # lanes of the first block that lie before the part
    blocks = -(-(skip + len(lanes)) // _BLOCK)
    outer = block_coefficients(name, first_lane >> _BLOCK_BITS, blocks)
    inner = lane_coefficients()
    product = np.empty(_BLOCK, np.uint64)
    sums = np.empty(blocks, np.uint64)
    at = 0
    for block in range(blocks):
        part = lanes[at : at + _BLOCK - skip]
        out = product[: len(part)]
        np.multiply(part, inner[skip : skip + len(part)], out=out)
        sums[block] = np.add.reduce(out)
        at += len(part)
        skip = 0
    return int(np.add.reduce(sums * outer))


def values(name: str, indices: NDArray[np.int64], *rows: Words) -> list[int]:
    """Sums of lane * c over listed words of one tensor, of each row of words: value(...) of SPEC.md section 8.3.

    Args:
        name: the tensor's name.
        indices: word indices in the tensor, strictly increasing, int64 of shape (m,).
        rows: words at these indices, each of shape (m,), of one dtype.

    Returns:
        The sum of each row, mod 2^64.
    """
    if not len(indices):
        return [0] * len(rows)
    lanes = lanes_per_word(rows[0])
    block_bits = _BLOCK_BITS - (lanes.bit_length() - 1)  # a block of lanes, in words
    first, last = int(indices[0]) >> block_bits, int(indices[-1]) >> block_bits
    products = _products([_lanes(row) for row in rows], indices & ((1 << block_bits) - 1), lanes)
    if first == last:
        outer = int(block_coefficients(name, first, 1)[0])
        return [int(np.add.reduce(each)) * outer & _MASK for each in products]
    if last - first > len(indices):  # few words over a long stretch: one coefficient a word
        each_outer = mix((indices >> block_bits).view(np.uint64) + np.uint64(seed(name))) | np.uint64(1)
        return [int(np.add.reduce(each * each_outer)) for each in products]
    starts = np.searchsorted(indices, np.arange(first, last + 1, dtype=np.int64) << block_bits)
    ends = np.append(starts[1:], len(indices))
    filled = np.flatnonzero(ends > starts)  # reduceat needs blocks with a word
    outers = block_coefficients(name, first, last - first + 1)[filled]
    return [int(np.add.reduce(np.add.reduceat(each, starts[filled]) * outers)) for each in products]


def _products(rows: Sequence[NDArray[np.unsignedinteger[Any]]], within: NDArray[np.int64], lanes: int) -> list[U64]:
    """Lane * B for each word of each row, summed over its lanes; mod 2^64."""
    if lanes == 1:
        factors = lane_coefficients().take(within)
        return [np.multiply(row, factors, dtype=np.uint64) for row in rows]
    products = [np.empty(len(within), np.uint64) for _ in rows]
    for start in range(0, len(within), _PART):
        stop = start + _PART
        for lane, table in enumerate(_coefficients_of_lanes(lanes)):
            factors = table.take(within[start:stop])
            for product, row in zip(products, rows, strict=True):
                part = row[start * lanes + lane : stop * lanes : lanes]
                if lane:
                    product[start:stop] += np.multiply(part, factors, dtype=np.uint64)
                else:
                    np.multiply(part, factors, out=product[start:stop], dtype=np.uint64)
    return products


def add_to(sums: U64, tensor: int, change: int) -> None:
    """Add a change to a tensor's sum, in place, mod 2^64."""
    sums[tensor] = (int(sums[tensor]) + change) & _MASK


def combine(sums: U64) -> int:
    """Fingerprint of a state from the sums of its tensors, mod 2^64."""
    return int(np.add.reduce(sums, dtype=np.uint64))


def text(value: int) -> str:
    """A fingerprint as SPEC.md writes it: 16 lowercase hex digits."""
    return f"{value & _MASK:016x}"
