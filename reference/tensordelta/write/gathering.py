"""Gathering changed words into chunks (SPEC.md appendix B, advice on sizes).

Chunks grow with the change: each has about a 1,024th of the words that were listed before it, so that the tables of a
large version stay short. Small versions have chunks of a size that suits the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from ..format.chunk import MAX_WORDS
from ..format.chunk_codec import Piece
from ..format.layout import Layout

#: Listed words of a chunk, at least: in natural order, in exponent order, and where all words are listed.
_LISTED = 1 << 16
_LISTED_EXPONENT = 1 << 17
_LISTED_DENSE = 1 << 20
#: Those listed before a chunk, for each word of it.
_SHARE = 1 << 10
#: Listed words of a chunk, at most; decoding takes some 44 bytes for each.
_MOST = 1 << 21
#: Words of a chunk's space: more cost no reader anything, and save tables.
_SPACE = MAX_WORDS


class _Kind(NamedTuple):
    """What all words of a chunk have in common."""

    dtype: str
    fresh: bool
    dense: bool
    exponent: bool


@dataclass
class _Chunk:
    """Pieces of one kind."""

    kind: _Kind
    pieces: list[Piece] = field(default_factory=list)
    listed: int = 0
    words: int = 0

    def add(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self.pieces.append(piece)
            self.listed += len(piece.new)
            self.words += piece.stop - piece.start

    def fits(self, other: _Chunk, full: int) -> bool:
        """True where another one's words may lie in this chunk as well."""
        return (
            self.kind == other.kind
            and self.listed + other.listed <= full * 3 // 2
            and self.words + other.words <= _SPACE
        )


def gather(
    found: Iterable[Piece], layout: Layout, is_fresh: Callable[[int], bool], in_exponent_order: Callable[[int], bool]
) -> Iterator[list[Piece]]:
    """The pieces of each chunk.

    Args:
        found: the changed words, by dtype, tensor and place.
        layout: their layout.
        is_fresh: whether a tensor starts as zero words.
        in_exponent_order: whether its words are written in exponent order.
    """
    before: _Chunk | None = None
    for chunk, full in _filled(found, layout, is_fresh, in_exponent_order):
        if before is not None and before.fits(chunk, full):  # the last words of a kind, where they are few
            before.add(chunk.pieces)
            continue
        if before is not None:
            yield before.pieces
        before = chunk
    if before is not None:
        yield before.pieces


def _filled(
    found: Iterable[Piece], layout: Layout, is_fresh: Callable[[int], bool], in_exponent_order: Callable[[int], bool]
) -> Iterator[tuple[_Chunk, int]]:
    """Chunks, and the listed words that each was meant to have; the last of a kind has fewer."""
    total = full = 0
    chunk: _Chunk | None = None
    for whole in found:
        tensor = whole.tensor
        kind = _Kind(layout.tensors[tensor].dtype, is_fresh(tensor), whole.indices is None, in_exponent_order(tensor))
        if chunk is None or chunk.kind != kind:
            if chunk is not None:
                yield chunk, full
            chunk, full = _Chunk(kind), _full(kind, total)
        for piece in _split(whole, full):
            one = _Chunk(kind)
            one.add([piece])
            if chunk.listed >= full or (chunk.pieces and not chunk.fits(one, full)):
                yield chunk, full
                chunk, full = one, _full(kind, total)
            else:
                chunk.add([piece])
            total += one.listed
    if chunk is not None:
        yield chunk, full


def _full(kind: _Kind, total: int) -> int:
    """Listed words of a chunk that comes after so many."""
    least = _LISTED_DENSE if kind.dense else _LISTED_EXPONENT if kind.exponent else _LISTED
    return max(least, min(total // _SHARE, _MOST))


def _split(piece: Piece, full: int) -> Iterator[Piece]:
    """A piece, in parts of about so many listed words."""
    listed = len(piece.new)
    count = max(1, round(listed / full))
    if count == 1:
        yield piece
        return
    cuts = [listed * part // count for part in range(count + 1)]
    start = piece.start
    for first, last in pairwise(cuts):
        if piece.indices is None:
            stop = piece.start + last
        else:
            stop = piece.stop if last == listed else int(piece.indices[last])
        yield Piece(
            piece.tensor,
            start,
            stop,
            None if piece.indices is None else piece.indices[first:last],
            None if piece.old is None else piece.old[first:last],
            piece.new[first:last],
        )
        start = stop
