"""Chunks and codecs: section 7."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .fingerprint import value
from .packs import Chunk, group_sizes, stream_sizes
from .rejection import Rejection, require
from .state import DTYPES, U64, WORD, Layout, Octets, State, Words

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW = 2**27

#: Positions, or natural numbers of words.
Numbers = NDArray[np.int64]


# -- section 7.1: the chunk -------------------------------------------------------------------------------------------


class Patch(NamedTuple):
    """New words of one tensor of the layout: its index, and the indices and the values of the words."""

    tensor: int
    at: Numbers
    words: Words


def decode_chunk(chunk: Chunk, layout: Layout, fitted: State, wrong: str) -> list[Patch]:
    """The listed words of a chunk, decoded against the fitted base; `wrong` is the error where they are others, and
    empty where holders of slices find out together."""
    old = np.concatenate([fitted[layout[tensor].name].words[start:stop] for tensor, start, stop in chunk.slices])
    numbers = _decode_positions(chunk)
    if chunk.order == "exponent":
        numbers = _exponent_order(chunk, old)[numbers]
    new = _decode_values(chunk, old[numbers])
    order = np.argsort(numbers, kind="stable")
    numbers, new = numbers[order], new[order]
    patches = []
    total = first = 0
    for tensor, start, stop in chunk.slices:
        mine = slice(*np.searchsorted(numbers, (first, first + stop - start)))
        patch = Patch(tensor, numbers[mine] - first + start, new[mine])
        total += value(layout[tensor].name, patch.at, patch.words)
        patches.append(patch)
        first += stop - start
    if wrong:
        require(total % 2**64 == chunk.result, "TD-CHK-024", "a chunk has another result", wrong)
    return patches


def _decode_positions(chunk: Chunk) -> Numbers:
    n, m, s = chunk.n, chunk.changed, chunk.shift
    if chunk.positions == "gap":
        low = _stream(chunk, "low") if s else np.zeros(0, np.uint8)
        return decode_gap(_stream(chunk, "gaps"), low, s, m, n)
    if chunk.positions == "bitmap":
        return decode_bitmap(_stream(chunk, "bitmap"), m, n)
    return np.arange(m)


def _decode_values(chunk: Chunk, base: Words) -> Words:
    if chunk.values == "replace":
        return join_planes([_stream(chunk, f"values.{j}") for j in range(chunk.w // 8)])
    codes = unpack_codes(_stream(chunk, "codes"), chunk.changed)
    x = int(np.count_nonzero(codes == 3))
    names = [f"escapes.{j}" for j in range(chunk.w // 8)]
    if x == 0:
        require("escapes.0" not in chunk.streams, "TD-CHK-020", "escapes, but no code is 3")
        return decode_step(base, codes, base[:0])
    require("escapes.0" in chunk.streams, "TD-CHK-021", "a code is 3, but there are no escapes")
    for name in names:
        _check_size(chunk, name, x, x)
    return decode_step(base, codes, join_planes([_stream(chunk, name) for name in names]))


# -- section 7.3: order exponent --------------------------------------------------------------------------------------


def _exponent_order(chunk: Chunk, base: Words) -> Numbers:
    """The natural number of the word at each position of a chunk: those of one group after those of the other."""
    perm, first = [], 0
    for size in group_sizes(chunk):
        perm.append(exponent_permutation(base[first : first + size], chunk.dtype, chunk.limit) + first)
        first += size
    return np.concatenate(perm)


def exponent_permutation(base: Words, dtype: str, limit: int) -> Numbers:
    """The number of the word at each position of a group."""
    kind = DTYPES[dtype]
    keys = (base.astype(np.uint64) & np.uint64(kind.mask)) >> np.uint64(kind.shift)
    first = np.flatnonzero(keys < limit)
    rest = np.flatnonzero(keys >= limit)
    return np.concatenate([first[np.argsort(keys[first], kind="stable")], rest])


# -- sections 7.4 to 7.6: positions -----------------------------------------------------------------------------------


def decode_gap(gaps: Octets, low: Octets, s: int, m: int, n: int) -> Numbers:
    """The positions of streams `gaps` and `low`. No sum passes 2^45, since no stream is longer than 2^27 bytes."""
    require(gaps[-1] < 255, "TD-POS-004", "`gaps` ends with 255")
    ends = np.flatnonzero(gaps < 255)
    require(len(ends) == m, "TD-POS-003", "`gaps` has not one number for each listed word")
    h = np.diff(np.cumsum(gaps.astype(np.int64))[ends], prepend=np.int64(0))
    lows = np.zeros(m, np.int64)
    if s == 8:
        lows = low.astype(np.int64)
    if s == 4:
        pairs = low.astype(np.int64)
        nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
        require(not nibbles[m:].any(), "TD-POS-006", "the unused nibble of `low` is not zero")
        lows = nibbles[:m]
    positions = np.cumsum((h << s | lows) + 1) - 1
    require(positions[-1] < n, "TD-POS-005", "a position is not less than n")
    return positions


def decode_bitmap(bitmap: Octets, m: int, n: int) -> Numbers:
    """The positions of a stream `bitmap`."""
    bits = np.unpackbits(bitmap, bitorder="little")
    require(not bits[n:].any(), "TD-POS-010", "a padding bit of `bitmap` is set")
    positions = np.flatnonzero(bits[:n])
    require(len(positions) == m, "TD-POS-009", "`bitmap` has another number of bits set")
    return positions


# -- sections 7.7 and 7.8: values -------------------------------------------------------------------------------------


def join_planes(planes: list[Octets]) -> Words:
    """The words of byte planes, the lowest first."""
    parts = [plane.astype(np.uint64) << np.uint64(8 * j) for j, plane in enumerate(planes)]
    words: Words = np.bitwise_or.reduce(parts, axis=0).astype(WORD[8 * len(planes)])
    return words


def unpack_codes(codes: Octets, m: int) -> Octets:
    """The m codes of a stream `codes`."""
    unpacked = np.stack([codes >> 2 * q & 3 for q in range(4)], axis=1).ravel()
    require(not unpacked[m:].any(), "TD-VAL-003", "a padding bit of `codes` is set")
    return unpacked[:m]


def decode_step(base: Words, codes: Octets, escapes: Words) -> Words:
    """The new words of base words; `escapes` has a number for each code 3."""
    w = 8 * base.dtype.itemsize
    y: U64 = codes.astype(np.uint64)
    if len(escapes):
        greatest = int(escapes.max())
        require(greatest <= 2**w - 5, "TD-VAL-002", f"an escape of 2^w - {2**w - greatest}")
        y[codes == 3] += escapes
    z = y + np.uint64(1)
    half = z >> np.uint64(1)
    d = np.where(z & np.uint64(1), ~half, half)
    return (base + d).astype(base.dtype)


# -- sections 7.9 and 7.10: streams -----------------------------------------------------------------------------------


def check_streams(chunk: Chunk) -> None:
    """The sizes of a chunk's streams, as far as its entry gives them, and their frames: all before decompression."""
    sizes = stream_sizes(chunk)
    for name in chunk.streams:
        _check_size(chunk, name, *sizes[name])
    escapes = sum(name.startswith("escapes.") for name in chunk.streams)
    require(escapes in (0, chunk.w // 8), "TD-CHK-021", "some of the streams escapes.j")


def _check_size(chunk: Chunk, name: str, lowest: int, highest: int) -> int:
    stored = chunk.streams[name]
    if chunk.compression == "zstd":
        return check_frame(stored, lowest, highest)
    require(lowest <= len(stored) <= highest, "TD-CHK-019", f"the size of stream {name}")
    return len(stored)


def _stream(chunk: Chunk, name: str) -> Octets:
    """A stream whose size was checked, decompressed."""
    stored = chunk.streams[name]
    if chunk.compression == "zstd":
        stored = _decompress(stored, check_frame(stored, 0, WINDOW))
    return np.frombuffer(stored, np.uint8)


def check_frame(stored: bytes, lowest: int, highest: int) -> int:
    """Check that the bytes are one frame whose content size is in [lowest, highest], and give that size."""

    def take(at: int, length: int) -> int:
        require(at + length <= len(stored), "TD-ZST-006", "the zstd frame is cut off")
        return int.from_bytes(stored[at : at + length], "little")

    require(take(0, 4) == 0xFD2FB528, "TD-ZST-001", "no zstd frame")
    descriptor = take(4, 1)
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    require(descriptor >> 3 & 1 == 0, "TD-ZST-001", "the reserved bit is set")
    require(descriptor & 3 == 0, "TD-ZST-005", "a dictionary id")
    require(flag or single, "TD-ZST-002", "no content size")
    at = 5 if single else 6
    size = take(at, 1 << flag) + (256 if flag == 1 else 0)
    window = size
    if not single:
        window = (1 << 10 + (take(5, 1) >> 3)) // 8 * (8 + (take(5, 1) & 7))
    require(lowest <= size <= highest, "TD-ZST-003", f"content size {size} is not in [{lowest}, {highest}]")
    require(window <= WINDOW, "TD-ZST-008", "a window over 2^27")
    at += 1 << flag
    last = False
    while not last:
        block = take(at, 3)
        last, kind = bool(block & 1), block >> 1 & 3
        require(kind != 3, "TD-ZST-001", "a reserved block type")
        at += 3 + (1 if kind == 1 else block >> 3)
    require(at + (descriptor & 4) == len(stored), "TD-ZST-006", "the stored bytes do not end where the frame ends")
    return size


def _decompress(stored: bytes, size: int) -> bytes:
    """The content of a checked frame; never more than `size` bytes are decoded."""
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})
    content, rest = b"", stored
    try:
        while len(content) < size and not decoder.eof:
            part = decoder.decompress(rest, max_length=size - len(content))
            require(part or decoder.eof, "TD-ZST-009", "the zstd frame has too little content")
            content, rest = content + part, b""
        require(decoder.eof or not decoder.decompress(rest, max_length=1), "TD-ZST-009", "too much content")
    except zstd.ZstdError as error:
        raise Rejection("malformed", "TD-ZST-009", str(error)) from None
    require(decoder.eof and len(content) == size, "TD-ZST-009", "the zstd frame has not its content size")
    return content
