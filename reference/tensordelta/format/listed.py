"""How many words of each tensor a chunk changes, and by how much: what its streams tell without a base word.

Under values `step` a listed word is a changed one (TD-VAL-004), and new = old + step, so that the steps of several
chunks add up. Under `replace` a listed word may be the base's, and in order `exponent` the base's words say which word
a number means; there `None` says that the base is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import SupportsInt

import numpy as np

from ..codecs.words import Words
from .chunk import Chunk, Exponent, Replace, count_words
from .chunk_codec import Indices, Piece, decode_numbers, decode_pieces

#: Returns the stored bytes of a stream by its name.
Read = Callable[[str], "memoryview | None"]


def count_changed(
    chunk: Chunk,
    read: Read,
    *,
    wanted: Collection[int] | None = None,
    fresh: Collection[int] = (),
    object: str,
) -> dict[int, int] | None:
    """How many words of each tensor a checked chunk changes; values are decoded only of fresh tensors under `replace`.

    Args:
        chunk: its table entry.
        read: returns a stream's stored bytes by the stream's name.
        wanted: the tensors whose counts are needed, by index in the layout; by default all.
        fresh: the tensors that start as zero words.
        object: how errors name the chunk.

    Returns:
        Counts by tensor, of at least the wanted ones; None where that takes words of the base.

    Raises:
        MalformedError: a stream breaks a rule of its codec.
    """
    tensors = {tensor for tensor, _, _ in chunk.slices}
    if isinstance(chunk.values, Replace):
        if not all(tensor in fresh for tensor in tensors):
            return None
        return _totals((piece.tensor, np.count_nonzero(piece.new)) for piece in _over_zeros(chunk, read, object))
    if len(tensors) == 1:
        return dict.fromkeys(tensors, chunk.changed)
    exponent = isinstance(chunk.order, Exponent)
    spans = chunk.groups if exponent else [[each] for each in chunk.slices]
    if exponent and any(_is_mixed([tensor for tensor, _, _ in span], wanted) for span in spans):
        return None
    ends = np.cumsum([count_words(span) for span in spans])
    numbers = decode_numbers(chunk, read, object=object)
    at = ends if numbers is None else np.searchsorted(numbers, ends)
    return _totals((span[0][0], changed) for span, changed in zip(spans, np.diff(at, prepend=0), strict=True))


def _totals(counts: Iterable[tuple[int, SupportsInt]]) -> dict[int, int]:
    totals: dict[int, int] = {}
    for tensor, count in counts:
        totals[tensor] = totals.get(tensor, 0) + int(count)
    return totals


def _is_mixed(tensors: Collection[int], wanted: Collection[int] | None) -> bool:
    """True where words that are sorted together are of several tensors, of which one is wanted."""
    return len(set(tensors)) > 1 and (wanted is None or any(tensor in wanted for tensor in tensors))


def decode_changes(chunk: Chunk, read: Read, *, object: str) -> list[Piece] | None:
    """The steps of a checked chunk: pieces whose `new` is the step to a word, not the word; None if it takes the base.

    Raises:
        MalformedError: a stream breaks a rule of its codec.
    """
    if isinstance(chunk.values, Replace) or isinstance(chunk.order, Exponent):
        return None
    return _over_zeros(chunk, read, object)


def _over_zeros(chunk: Chunk, read: Read, object: str) -> list[Piece]:
    return decode_pieces(chunk, read, _Zeros(), object=object)


class _Zeros:
    """A base of zero words, over which a step is the new word."""

    def is_zero(self, tensor: int) -> bool:
        return True

    def wants(self, tensor: int, start: int, stop: int) -> bool:
        return True

    def is_whole(self, tensor: int) -> bool:
        return True

    def held(self, tensor: int, indices: Indices) -> slice:
        return slice(None)

    def take(self, tensor: int, indices: Indices) -> Words:
        raise AssertionError("zero words are not taken")

    def part(self, tensor: int, start: int, stop: int) -> Words:
        raise AssertionError("zero words are not taken")


def count_sums(pieces: Collection[Piece]) -> int:
    """How many words of one tensor differ after all steps of `decode_changes` have been added up."""
    places = np.concatenate([piece.places for piece in pieces])
    steps = np.concatenate([piece.new for piece in pieces])
    order = np.argsort(places, kind="stable")
    places, steps = places[order], steps[order]
    first = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
    return int(np.count_nonzero(np.add.reduceat(steps, first, dtype=steps.dtype)))
