"""Counts of changed words from chunks: no value is decoded, and `None` where words of the base are needed."""

from __future__ import annotations

import numpy as np
import pytest

from tensordelta.format.chunk_codec import EncodedChunk, Piece, encode
from tensordelta.format.layout import Layout, Tensor
from tensordelta.format.listed import count_changed, count_sums, decode_changes

LAYOUT = Layout([Tensor("a", "BF16", (1000,)), Tensor("b", "BF16", (500,)), Tensor("c", "BF16", (800,))])
BASE = {index: np.arange(100, 100 + tensor.words, dtype=np.uint16) for index, tensor in enumerate(LAYOUT.tensors)}


class Streams:
    """The streams of a chunk, and the names of those that were read."""

    def __init__(self, encoded: EncodedChunk) -> None:
        self._streams = encoded.streams
        self.read: set[str] = set()

    def __call__(self, name: str) -> memoryview | None:
        self.read.add(name)
        return memoryview(self._streams[name]) if name in self._streams else None


def chunk_of(listed: dict[int, list[int]], **options: object) -> EncodedChunk:
    """A chunk in which these words of each tensor go up by their place."""
    pieces = []
    for tensor, places in listed.items():
        indices = np.array(places)
        old = BASE[tensor][indices]
        new = old + (indices + 1).astype(np.uint16)
        pieces.append(Piece(tensor, 0, LAYOUT.tensors[tensor].words, indices, old, new))
    return encode(pieces, LAYOUT, base=lambda span: BASE[span.tensor][span.start : span.stop], **options)  # type: ignore[arg-type]


LISTED = {0: [3, 500, 999], 1: [0, 1, 2, 400], 2: [799]}


def test_positions_alone_are_read() -> None:
    encoded = chunk_of(LISTED)
    streams = Streams(encoded)
    assert count_changed(encoded.chunk, streams, object="x") == {0: 3, 1: 4, 2: 1}
    assert streams.read <= {"gaps", "low", "bitmap"}


@pytest.mark.parametrize("order", ["natural", "exponent"])
def test_of_one_tensor_no_stream_is_read(order: str) -> None:
    encoded = chunk_of({1: [5, 6, 70]}, order=order)
    streams = Streams(encoded)
    assert count_changed(encoded.chunk, streams, object="x") == {1: 3}
    assert not streams.read


def test_words_sorted_together_with_those_of_others_need_the_base() -> None:
    encoded = chunk_of(LISTED, order="exponent")
    streams = Streams(encoded)
    assert count_changed(encoded.chunk, streams, object="x") is None
    assert decode_changes(encoded.chunk, streams, object="x") is None
    assert not streams.read


def test_values_in_place_of_steps_need_the_base_but_of_fresh_tensors() -> None:
    encoded = chunk_of(LISTED, values_codec="replace")
    assert count_changed(encoded.chunk, Streams(encoded), fresh={0, 1}, object="x") is None
    assert count_changed(encoded.chunk, Streams(encoded), fresh={0, 1, 2}, object="x") == {0: 3, 1: 4, 2: 1}
    assert decode_changes(encoded.chunk, Streams(encoded), object="x") is None


def test_steps_add_up() -> None:
    """A word that goes up and down again is as it was; others count once."""
    there = decode_changes((up := chunk_of(LISTED)).chunk, Streams(up), object="x")
    assert there is not None
    back = [Piece(each.tensor, each.start, each.stop, each.indices, None, np.negative(each.new)) for each in there]
    for piece, undone in zip(there, back, strict=True):
        assert count_sums([piece]) == len(LISTED[piece.tensor])
        assert count_sums([piece, undone]) == 0
        assert count_sums([piece, undone, piece]) == count_sums([piece, piece]) == len(LISTED[piece.tensor])
