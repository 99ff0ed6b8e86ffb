"""Positions, values and orders (SPEC.md sections 7.2 to 7.8), on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .faults import need
from .model import DTYPES, Words, word_type

Numbers = NDArray[np.int64]
"""Positions or natural numbers of words."""


def _octets(stream: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(stream, np.uint8)


def decode_gap(gaps: bytes, low: bytes, s: int, m: int, n: int) -> Numbers:
    """decode_gap of section 7.4. All sums are below 2^44: no stream is longer than 2^27 bytes."""
    octets = _octets(gaps).astype(np.int64)
    need(gaps[-1] != 255, "TD-POS-004", "`gaps` ends with 255")
    ends = np.flatnonzero(octets < 255)
    need(len(ends) == m, "TD-POS-003", f"`gaps` has {len(ends)} gaps, not {m}")
    until = np.cumsum(octets)[ends]
    h = np.diff(until, prepend=0)
    lows = np.zeros(m, np.int64)
    if s == 8:
        lows = _octets(low).astype(np.int64)
    if s == 4:
        both = _octets(low).astype(np.int64)
        nibbles = np.stack([both & 15, both >> 4], axis=1).reshape(-1)
        need(not nibbles[m:].any(), "TD-POS-006", "the unused nibble of `low` is not zero")
        lows = nibbles[:m]
    g = (h << s) | lows
    positions: Numbers = np.cumsum(g + 1) - 1
    need(positions[-1] < n, "TD-POS-005", f"position {positions[-1]} of {n}")
    return positions


def decode_bitmap(bitmap: bytes, m: int, n: int) -> Numbers:
    """decode_bitmap of section 7.5."""
    bits = np.unpackbits(_octets(bitmap), bitorder="little")
    need(not bits[n:].any(), "TD-POS-010", "a padding bit of `bitmap` is set")
    positions: Numbers = np.flatnonzero(bits[:n]).astype(np.int64)
    need(len(positions) == m, "TD-POS-009", f"`bitmap` has {len(positions)} bits set, not {m}")
    return positions


def unpack_codes(codes: bytes, m: int) -> NDArray[np.uint8]:
    """The m two-bit codes of a stream `codes`."""
    octets = _octets(codes)
    all_codes = np.stack([octets >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).reshape(-1)
    need(not all_codes[m:].any(), "TD-VAL-003", "a padding bit of `codes` is set")
    return all_codes[:m]


def join_planes(planes: list[bytes], w: int) -> Words:
    """The words of byte planes, the lowest first (section 7.8)."""
    words = np.stack([_octets(plane) for plane in planes], axis=1)
    return np.ascontiguousarray(words).reshape(-1).view(word_type(w).newbyteorder("<")).astype(word_type(w))


def decode_step(base: Words, codes: NDArray[np.uint8], escapes: Words, w: int) -> Words:
    """decode_step of section 7.7; `escapes` holds one number for each code 3."""
    kind = word_type(w)
    if len(escapes):
        most = int(escapes.max())
        # A word that does not change has the step 0, and that is the number 2^w - 4 where y would be 2^w - 1.
        need(most != 2**w - 4, "TD-VAL-002", "an escape of 2^w - 4, which is a step of 0")
        need(most <= 2**w - 5, "TD-VAL-002", f"an escape of {most}")
    y = codes.astype(kind)
    y[codes == 3] += escapes
    z = y + kind.type(1)
    d = np.where(z % 2 == 0, z >> kind.type(1), ~(z >> kind.type(1)))
    new: Words = base + d
    return new


def exponent_permutation(base: Words, dtype: str, limit: int) -> Numbers:
    """exponent_permutation of section 7.3."""
    kind = DTYPES[dtype]
    words = base.astype(np.uint64)
    key = (words & np.uint64(kind.mask)) >> np.uint64(kind.shift)
    first = np.flatnonzero(key < limit)
    rest = np.flatnonzero(key >= limit)
    by_key: NDArray[Any] = first[np.argsort(key[first], kind="stable")]
    return np.concatenate([by_key, rest]).astype(np.int64)
