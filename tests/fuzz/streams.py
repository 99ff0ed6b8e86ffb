"""Targets for the streams of a chunk: bytes say which codecs, how many words, and what the streams are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from tensordelta.codecs import CodecFault, positions, values
from tensordelta.codecs.words import DTYPES
from tensordelta.format import chunk as chunks
from tensordelta.format.chunk import Chunk
from tensordelta.format.chunk_codec import Indices, decode
from tensordelta.format.layout import Layout, Tensor
from tensordelta.read.prepare import Budget

from .targets import MEMORY, target

_KINDS = ["U8", "BF16", "F32", "F64", "F8_E5M2", "F4"]


class _Base:
    """A fitted base of small numbers, or of zeros."""

    def __init__(self, words: np.ndarray, *, zero: bool) -> None:
        self._words, self._zero = words, zero

    def is_zero(self, tensor: int) -> bool:
        return self._zero

    def take(self, tensor: int, indices: Indices) -> np.ndarray:
        return self._words.take(indices)

    def part(self, tensor: int, start: int, stop: int) -> np.ndarray:
        return self._words[start:stop]

    def wants(self, tensor: int, start: int, stop: int) -> bool:
        return True

    def is_whole(self, tensor: int) -> bool:
        return True

    def held(self, tensor: int, indices: Indices) -> slice:
        raise AssertionError


class _Input:
    """Takes numbers and streams from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self, size: int) -> int:
        """An integer of some bytes."""
        head, self._data = self._data[:size], self._data[size:]
        return int.from_bytes(head, "little")

    def stream(self) -> bytes:
        """A stream with its length before it."""
        length = self.number(2)
        head, self._data = self._data[:length], self._data[length:]
        return head


def _decoded(data: bytes, order: Callable[[int, int], object], value: object) -> None:
    """Decode a chunk with the slices, groups, positions codec, dtype and streams that the bytes name."""
    given = _Input(data)
    dtype = _KINDS[given.number(1) % len(_KINDS)]
    which, zero, compressed = given.number(1), given.number(1) % 2 == 1, given.number(1) % 4 == 1
    words, changed, limit = given.number(2) + 1, given.number(2), given.number(2)
    kind = DTYPES[dtype]
    count = words * 2 if dtype == "F4" else words
    layout = Layout([Tensor("a", dtype, (count,))])
    half = words // 2
    slices = [(0, 0, half), (0, half, words)] if half and which & 8 else [(0, 0, words)]
    where = [chunks.Gap(0), chunks.Gap(4), chunks.Gap(8), chunks.Bitmap(), chunks.All()][which % 5]
    chunk = Chunk(
        dtype,
        slices,
        changed,
        order(limit, len(slices) if which & 16 else 0),
        where,
        value,
        "zstd" if compressed else "none",
        "0" * 16,  # type: ignore[arg-type]
    )
    chunks.check(chunk, layout, object="chunk")
    Budget(MEMORY).take(chunk.memory, object="chunk")
    required, optional = chunks.stream_names(chunk)
    streams = {name: memoryview(given.stream()) for name in sorted(required)}
    if given.number(1) % 2:
        streams |= {name: memoryview(given.stream()) for name in sorted(optional)}
    base = np.arange(words).astype(kind.word)
    base[::7] <<= kind.word.type(3)
    before = base.copy()
    try:
        found = decode(chunk, layout, streams.get, _Base(base, zero=zero), object="chunk")
    finally:
        assert np.array_equal(base, before), "the base was written to"
    assert sum(len(piece.new) for piece in found.pieces) == changed
    for piece in found.pieces:
        assert piece.indices is None or (np.all(np.diff(piece.indices) > 0) and piece.start <= piece.indices[0])
        assert piece.indices is None or piece.indices[-1] < piece.stop <= words


@target
def step_streams(data: bytes) -> None:
    """Streams of a chunk of steps in natural order."""
    _decoded(data, lambda *_: chunks.Natural(), chunks.Step())


@target
def replace_streams(data: bytes) -> None:
    """Streams of a chunk of new words."""
    _decoded(data, lambda *_: chunks.Natural(), chunks.Replace())


def _exponent(limit: int, groups: int) -> object:
    return chunks.Exponent(max(limit, 1), [1] * groups) if groups else chunks.Exponent(max(limit, 1))


@target
def exponent_streams(data: bytes) -> None:
    """Streams of a chunk of steps in exponent order."""
    _decoded(data, _exponent, chunks.Step())


@target
def gaps(data: bytes) -> None:
    """The stream `gaps`, which says one thing in one way."""
    given = _Input(data)
    changed, extra = given.number(1) + 1, given.number(2)
    words = changed + extra
    stream = np.frombuffer(given.stream(), np.uint8)
    if not changed <= len(stream) <= positions.max_gaps(changed, words, 0):
        return
    with suppress(CodecFault):
        found = positions.decode_gaps(stream, None, 0, changed, words)
        again, _ = positions.encode_gaps(found, 0)
        assert np.array_equal(again, stream)


@target
def bitmap(data: bytes) -> None:
    """The stream `bitmap`, which says one thing in one way."""
    given = _Input(data)
    words, changed = given.number(2) + 1, given.number(2)
    stream = np.frombuffer(given.stream(), np.uint8)
    if len(stream) != (words + 7) // 8:
        return
    with suppress(CodecFault):
        assert np.array_equal(positions.encode_bitmap(positions.decode_bitmap(stream, changed, words), words), stream)


@target
def codes(data: bytes) -> None:
    """The stream `codes` and planes of escapes for words of 16 bits: steps that are not zero come back as they were."""
    given = _Input(data)
    changed = given.number(1) + 1
    stream = np.frombuffer(given.stream(), np.uint8)
    if len(stream) != values.codes_size(changed):
        return
    with suppress(CodecFault):
        count = values.check_codes(stream, changed)
        planes = [np.frombuffer(given.stream(), np.uint8) for _ in range(2)] if count else []
        if any(len(plane) != count for plane in planes):
            return
        old = np.arange(changed).astype(np.uint16)
        new = values.decode_step(stream, planes, old)
        assert np.all(new != old)
        again, escapes = values.encode_step(old, new)
        assert np.array_equal(again, stream) and all(map(np.array_equal, escapes, planes))
