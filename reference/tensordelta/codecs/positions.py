"""Positions: which of a chunk's words are listed (SPEC.md sections 7.4 to 7.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import CodecFault

Positions = NDArray[np.int64]
Bytes = NDArray[np.uint8]

Shift = Literal[0, 4, 8]

#: The shifts that the gap codec knows.
SHIFTS: tuple[Shift, ...] = (0, 4, 8)
_ESCAPE = 255


def choose_shift(changed: int, words: int) -> Shift:
    """The shift that suits the mean gap."""
    mean = words / changed
    return 0 if mean < 256 else 4 if mean < 4096 else 8


def shifts(changed: int, words: int, *, even: bool) -> Sequence[Shift]:
    """The shifts of which one needs the fewest bytes.

    Args:
        changed, words: listed words, and all.
        even: True where gaps have one distribution throughout, so that their mean determines the shift.
    """
    shift = choose_shift(changed, words)
    if even or words < changed * 128:
        return (shift,)
    return SHIFTS[:2] if shift < 8 else SHIFTS[1:]


def max_gaps(changed: int, words: int, shift: int) -> int:
    """Greatest size of the stream `gaps`."""
    return changed + (words - changed) // (_ESCAPE << shift)


def low_size(changed: int, shift: int) -> int:
    """Size of the stream `low`."""
    return (changed + 1) // 2 if shift == 4 else changed


def encode_gaps(numbers: Positions, shift: int) -> tuple[Bytes, Bytes | None]:
    """Encode numbers (strictly increasing, not empty) as the streams `gaps` and `low`."""
    gaps = np.empty(len(numbers), np.int64)
    gaps[0] = numbers[0]
    np.subtract(numbers[1:], numbers[:-1], out=gaps[1:])
    gaps[1:] -= 1
    low = None
    if shift == 8:
        low = gaps.astype(np.uint8)
    elif shift == 4:
        nibbles = np.zeros(len(gaps) + len(gaps) % 2, np.uint8)
        np.bitwise_and(gaps, 15, out=nibbles[: len(gaps)], casting="unsafe")
        low = nibbles[0::2] | nibbles[1::2] << np.uint8(4)
    if shift:
        gaps >>= shift
    small = gaps.astype(np.uint8)
    long = np.flatnonzero(gaps >= _ESCAPE)
    if not len(long):
        return small, low
    escapes, small[long] = np.divmod(gaps[long], _ESCAPE)
    before = np.cumsum(escapes)  # escapes up to and with each long gap
    stream = np.full(len(gaps) + int(before[-1]), _ESCAPE, np.uint8)
    keep = np.ones(len(stream), np.bool_)
    keep[np.repeat(long + before - escapes, escapes) + _ranks(escapes)] = False
    stream[keep] = small
    return stream, low


def _ranks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … c-1 for each count c, one after another."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1])) - np.repeat(ends - counts, counts)


def decode_gaps(gaps: Bytes, low: Bytes | None, shift: int, changed: int, words: int) -> Positions:
    """Decode the streams `gaps` and `low`, already of a legal size, to `changed` numbers below `words`."""
    listed = gaps < _ESCAPE
    if int(np.count_nonzero(listed)) != changed:
        raise CodecFault(f"`gaps` ends {np.count_nonzero(listed)} gaps, not {changed}", "TD-POS-003")
    if gaps[-1] == _ESCAPE:
        raise CodecFault("`gaps` ends with 255", "TD-POS-004")
    numbers = np.cumsum(gaps, dtype=np.int64)
    if len(gaps) != changed:
        numbers = numbers[listed]
    if shift:
        assert low is not None
        if shift == 4:
            nibbles = np.empty((len(low), 2), np.uint8)
            np.bitwise_and(low, 15, out=nibbles[:, 0])
            np.right_shift(low, 4, out=nibbles[:, 1])
            if changed % 2 and nibbles[-1, 1]:
                raise CodecFault("the last nibble of `low` is padding and not zero", "TD-POS-006")
            low = nibbles.reshape(-1)[:changed]
        numbers <<= shift
        numbers += np.cumsum(low, dtype=np.int64)
    numbers += np.arange(changed)
    if int(numbers[-1]) >= words:
        raise CodecFault(f"position {numbers[-1]} is past the last of {words} words", "TD-POS-005")
    return numbers


def gaps_before(gaps: Bytes, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many bytes of `gaps` lie before the gaps of these ranks, none of them 0."""
    ends = np.flatnonzero(gaps != _ESCAPE) + 1
    return ends[ranks - 1]


def encode_bitmap(numbers: Positions, words: int) -> Bytes:
    """Encode numbers as the stream `bitmap`."""
    bits = np.zeros(words, np.bool_)
    bits[numbers] = True
    return np.packbits(bits, bitorder="little")


def decode_bitmap(bitmap: Bytes, changed: int, words: int) -> Positions:
    """Decode the stream `bitmap`, already of a legal size."""
    bits = np.unpackbits(bitmap, bitorder="little").view(np.bool_)
    if bits[words:].any():
        raise CodecFault("padding bits of `bitmap` are not zero", "TD-POS-010")
    numbers = np.flatnonzero(bits[:words])
    if len(numbers) != changed:
        raise CodecFault(f"`bitmap` has {len(numbers)} bits set, not {changed}", "TD-POS-009")
    return numbers
