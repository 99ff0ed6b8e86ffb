"""Values: what the listed words become (SPEC.md sections 7.7 and 7.8)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import CodecFault
from .words import Words

Bytes = NDArray[np.uint8]

_ESCAPED = 3


def codes_size(changed: int) -> int:
    """Size of the stream `codes`."""
    return (changed + 3) // 4


def encode_step(old: Words, new: Words) -> tuple[Bytes, list[Bytes]]:
    """Encode the step from old to new words (nowhere equal) as `codes` and the planes of `escapes`, if any."""
    word = old.dtype.type
    step = new - old
    signed: NDArray[np.signedinteger[Any]] = step.view(f"i{step.dtype.itemsize}")
    folded = (step << word(1)) ^ (signed >> (step.dtype.itemsize * 8 - 1)).view(step.dtype)
    folded -= word(1)
    codes = np.zeros(codes_size(len(old)) * 4, np.uint8)
    np.minimum(folded, word(_ESCAPED), out=codes[: len(old)], casting="unsafe")
    four = codes.view(np.uint32)
    packed = (four | four >> 6 | four >> 12 | four >> 18).astype(np.uint8)
    escaped = np.flatnonzero(codes == _ESCAPED)
    return packed, split_planes(folded[escaped] - word(_ESCAPED)) if len(escaped) else []


@cache
def _code_steps(word: np.dtype[Any]) -> NDArray[Any]:
    """For each byte of `codes` its four steps, 0 where escaped, as one item: one look-up gives all four."""
    steps = np.array([-1, 1, -2, 0], np.int64).astype(word)[_codes()]
    return steps.view(f"u{4 * word.itemsize}" if word.itemsize <= 2 else f"V{4 * word.itemsize}").reshape(-1)


@cache
def _escaped_codes() -> NDArray[np.uint8]:
    """For each byte of `codes`, how many of its four are escaped."""
    counts: NDArray[np.uint8] = (_codes() == _ESCAPED).sum(axis=1, dtype=np.uint8)
    return counts


def _codes() -> NDArray[np.uint32]:
    return np.stack([np.arange(256, dtype=np.uint32) >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)


def check_codes(codes: Bytes, changed: int) -> int:
    """Check the padding of `codes` and count the escaped words."""
    spare = -changed % 4
    if spare and codes[-1] >> (8 - 2 * spare):
        raise CodecFault("padding bits of `codes` are not zero", "TD-VAL-003")
    return int(np.add.reduce(_escaped_codes().take(codes), dtype=np.int64))


def escapes_before(codes: Bytes, ranks: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many words are escaped before the words of these ranks, each rounded down to whole bytes of `codes`."""
    ends = np.cumsum(_escaped_codes().take(codes), dtype=np.intp)
    return np.where(ranks < 4, 0, ends[np.maximum(ranks >> 2, 1) - 1])


def decode_step(codes: Bytes, escapes: list[Bytes], old: Words) -> Words:
    """New words from `codes`, the planes of `escapes` (none where no code is 3) and the old words."""
    steps = decode_steps(codes, escapes, len(old), old.dtype)
    steps += old
    return steps


def decode_steps(codes: Bytes, escapes: list[Bytes], changed: int, word: np.dtype[Any]) -> Words:
    """The steps alone, as words: new = old + step, mod 2^w."""
    steps: Words = _code_steps(word).take(codes).view(word)[:changed]
    if escapes:
        rest = join_planes(escapes, word)
        kind = word.type
        if int(rest.max()) > (1 << (word.itemsize * 8)) - 5:
            raise CodecFault("an escape is greater than 2^w - 5", "TD-VAL-002")
        folded = rest + kind(_ESCAPED + 1)
        # Unfold: even z is z/2, odd z is -(z+1)/2.
        steps[np.flatnonzero(steps == 0)] = (folded >> kind(1)) ^ (kind(0) - (folded & kind(1)))
    return steps


def split_planes(words: Words) -> list[Bytes]:
    """The byte planes of words, lowest first."""
    if words.dtype.itemsize == 1:
        return [words.view(np.uint8)]
    columns = np.ascontiguousarray(words).view(np.uint8).reshape(-1, words.dtype.itemsize)
    return [np.ascontiguousarray(columns[:, plane]) for plane in range(words.dtype.itemsize)]


def join_planes(planes: list[Bytes], word: np.dtype[Any]) -> Words:
    """Words from their byte planes, lowest first."""
    if word.itemsize == 1:
        return planes[0].astype(word)
    joined: Words = planes[-1].astype(word)
    for plane in reversed(planes[:-1]):
        joined <<= word.type(8)
        joined |= plane
    return joined
