"""Decoding and encoding a chunk's streams (SPEC.md section 7).

`decode` turns streams into pieces, each with the words of one tensor before and after; `encode` turns pieces into
streams. Neither changes a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from ..codecs import CodecFault, compression, fingerprint, positions, values
from ..codecs.cuts import Ranks, cuts
from ..codecs.order import ExponentOrder, choose_limit
from ..codecs.words import DType, Words, same_bits
from .chunk import (
    MAX_GROUP,
    All,
    Bitmap,
    Chunk,
    Exponent,
    Gap,
    Natural,
    Replace,
    Span,
    Step,
    count_words,
)
from .layout import Layout

Indices = NDArray[np.int64]
#: Which of some words are meant: a part of them, or the places of those.
Chosen = slice | NDArray[np.intp]
Bytes = NDArray[np.uint8]
Slice = tuple[int, int, int]

_PLACE_BITS = 27
#: Words of a group of tensors in exponent order. In larger ones readers of some tensors skip fewer words.
_GROUP = 1 << 23
#: Words of a tensor that shares its groups with no other, so that holders of it alone can read them.
_ALONE = 1 << 22


class Sums(NamedTuple):
    """Sums over listed words, mod 2^64.

    Attributes:
        change: the change of the state's fingerprint.
        result: the value of the new words.
    """

    change: int
    result: int


@dataclass(frozen=True, eq=False)
class Piece:
    """The listed words of one tensor in a chunk, before and after. Two are equal where all their bits are.

    Attributes:
        tensor: index in the layout.
        start, stop: the words of the tensor that the chunk covers.
        indices: the listed words' indices in the tensor, int64 of shape (m,), strictly increasing; None where all of
            them are listed.
        old, new: the listed words before and after, of shape (m,); `old` is None where all were zero.
    """

    tensor: int
    start: int
    stop: int
    indices: Indices | None
    old: Words | None
    new: Words

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Piece):
            return NotImplemented
        return (self.tensor, self.start, self.stop) == (other.tensor, other.start, other.stop) and all(
            same_bits(*rows) for rows in ((self.indices, other.indices), (self.old, other.old), (self.new, other.new))
        )

    @property
    def places(self) -> Indices:
        """The listed words' indices, made where `indices` is None."""
        return np.arange(self.start, self.stop) if self.indices is None else self.indices

    def sums(self, name: str) -> Sums:
        """What the listed words add to the sums of section 8."""
        rows = [self.new] if self.old is None else [self.new, self.old]
        if self.indices is None:
            values = [fingerprint.scan(name, row, start=self.start) for row in rows]
        else:
            values = fingerprint.values(name, self.indices, *rows)
        return Sums(values[0] - sum(values[1:]), values[0])


class BaseWords(Protocol):
    """What decoding a chunk asks of the fitted base."""

    def is_zero(self, tensor: int) -> bool:
        """True where a tensor starts as zero words."""

    def take(self, tensor: int, indices: Indices) -> Words:
        """Words at these indices."""

    def part(self, tensor: int, start: int, stop: int) -> Words:
        """Words start … stop - 1."""

    def wants(self, tensor: int, start: int, stop: int) -> bool:
        """True where words start … stop - 1 of a tensor are wanted, at least one of them."""

    def is_whole(self, tensor: int) -> bool:
        """True where a tensor's listed words are all wanted."""

    def held(self, tensor: int, indices: Indices) -> Chosen:
        """Which words of a tensor that is not whole are wanted, of those at these indices."""


@dataclass(frozen=True)
class Decoded:
    """A decoded chunk: its pieces, and for each the sums of its words.

    Attributes:
        pieces, sums: of each slice with listed words that are held.
        result: the sum of all new words, 16 hex digits; the chunk's own where all of them are those that were written.
    """

    pieces: list[Piece]
    sums: list[Sums]
    result: str


def decode(
    chunk: Chunk,
    layout: Layout,
    read: Callable[[str], memoryview | None],
    base: BaseWords,
    *,
    object: str,
) -> Decoded:
    """Decode a checked chunk, and sum its words; the caller compares `result` with the chunk's (TD-CHK-024).

    Args:
        chunk: the table entry, already checked against the layout.
        layout: the manifest's layout.
        read: returns a stream's stored bytes by the stream's name, or None where the pack has no such stream.
        base: the fitted base.
        object: how errors name the chunk.

    Raises:
        MalformedError: a stream is absent, superfluous, of the wrong size, or breaks a rule of its codec.
    """
    pieces = decode_pieces(chunk, read, base, object=object)
    sums = [piece.sums(layout.tensors[piece.tensor].name) for piece in pieces]
    return Decoded(pieces, sums, fingerprint.text(sum(each.result for each in sums)))


def decode_pieces(
    chunk: Chunk, read: Callable[[str], memoryview | None], base: BaseWords, *, object: str
) -> list[Piece]:
    """Decode a checked chunk without its sums; arguments and errors are those of `decode`."""
    try:
        return _decode(chunk, _Streams(chunk, read), base)
    except CodecFault as fault:
        raise fault.kind(fault.reason, object=object, rule=fault.rule) from None


def decode_numbers(chunk: Chunk, read: Callable[[str], memoryview | None], *, object: str) -> Indices | None:
    """Numbers of a checked chunk's listed words in its order, ascending, from its positions alone; None for all words.

    Raises:
        MalformedError: a stream of positions is absent, of the wrong size, or breaks a rule of its codec.
    """
    try:
        return _decode_positions(chunk, _Streams(chunk, read))
    except CodecFault as fault:
        raise fault.kind(fault.reason, object=object, rule=fault.rule) from None


class _Streams:
    """A chunk's streams, decompressed one by one within their bounds."""

    def __init__(self, chunk: Chunk, read: Callable[[str], memoryview | None]) -> None:
        self._read = read
        self._zstd = chunk.compression == compression.ZSTD

    def has(self, name: str) -> bool:
        return self._read(name) is not None

    def get(self, name: str, least: int, most: int | None = None) -> Bytes:
        stored = self._read(name)
        if stored is None:
            raise CodecFault(f"the stream `{name}` is absent", "TD-PCK-013")
        size = compression.content_size(stored) if self._zstd else len(stored)
        if not least <= size <= (least if most is None else most):
            rule = "TD-ZST-003" if self._zstd else "TD-CHK-019"
            raise CodecFault(f"the stream `{name}` has {size} bytes", rule)
        if self._zstd:
            return compression.decompress(stored, size)
        return np.frombuffer(stored, np.uint8)


def _decode(chunk: Chunk, streams: _Streams, base: BaseWords) -> list[Piece]:
    numbers = _decode_positions(chunk, streams)
    if isinstance(chunk.values, Replace):
        planes = [streams.get(f"values.{plane}", chunk.changed) for plane in range(chunk.kind.word.itemsize)]
        return _split(chunk, numbers, base, values.join_planes(planes, chunk.kind.word), None)
    steps = _decode_steps(chunk, streams)
    if isinstance(chunk.order, Exponent):
        assert numbers is not None
        numbers, steps = _natural(chunk, numbers, steps, base, chunk.order.limit)
    return _split(chunk, numbers, base, None, steps)


def _natural(chunk: Chunk, numbers: Indices, steps: Words, base: BaseWords, limit: int) -> tuple[Indices, Words]:
    """Places of the words with these numbers in exponent order, ascending, and their steps.

    Groups of which no word is wanted are left out: their base words may be lacking.
    """
    found: list[tuple[Indices, Words]] = [(numbers[:0], steps[:0])]
    first = offset = 0
    for slices in chunk.groups:
        end = offset + count_words(slices)
        last = int(np.searchsorted(numbers, end))
        if last > first and any(base.wants(*each) for each in slices):
            order = ExponentOrder.of([base.part(*each) for each in slices], chunk.kind, limit)
            places = order.places(numbers[first:last] - offset)
            places += offset
            found.append(_ascending(places, steps[first:last]))
        first, offset = last, end
    if len(found) == 2:
        return found[1]
    return np.concatenate([places for places, _ in found]), np.concatenate([words for _, words in found])


def _ascending(places: Indices, words: Words) -> tuple[Indices, Words]:
    """Places and their words, sorted by place.

    Place and rank fit into one integer. The places are runs, one for each exponent, which the stable sort merges.
    """
    keys = places << _PLACE_BITS
    keys |= np.arange(len(places))
    keys.sort(kind="stable")
    return keys >> _PLACE_BITS, words.take(keys & ((1 << _PLACE_BITS) - 1))


def _decode_positions(chunk: Chunk, streams: _Streams) -> Indices | None:
    """Numbers of the listed words, or None for all."""
    changed, words = chunk.changed, chunk.words
    if isinstance(chunk.positions, Gap):
        shift = chunk.positions.shift
        gaps = streams.get("gaps", changed, positions.max_gaps(changed, words, shift))
        low = streams.get("low", positions.low_size(changed, shift)) if shift else None
        return positions.decode_gaps(gaps, low, shift, changed, words)
    if isinstance(chunk.positions, Bitmap):
        return positions.decode_bitmap(streams.get("bitmap", (words + 7) // 8), changed, words)
    return None


def _decode_steps(chunk: Chunk, streams: _Streams) -> Words:
    codes = streams.get("codes", values.codes_size(chunk.changed))
    escaped = values.check_codes(codes, chunk.changed)
    planes = range(chunk.kind.word.itemsize)
    if not escaped and any(streams.has(f"escapes.{plane}") for plane in planes):
        raise CodecFault("a stream `escapes`, but no code is 3", "TD-CHK-020")
    if escaped and not streams.has("escapes.0"):
        raise CodecFault("no streams `escapes`, but a code is 3", "TD-CHK-021")
    escapes = [streams.get(f"escapes.{plane}", escaped) for plane in planes] if escaped else []
    return values.decode_steps(codes, escapes, chunk.changed, chunk.kind.word)


def _split(
    chunk: Chunk, places: Indices | None, base: BaseWords, new: Words | None, steps: Words | None
) -> list[Piece]:
    """One piece for each slice with listed words that are held; the words of others are passed over."""
    pieces: list[Piece] = []
    ends = np.cumsum([stop - start for _, start, stop in chunk.slices])
    at = ends if places is None else np.searchsorted(places, ends)
    begin, offset = 0, 0
    for (tensor, start, stop), end, space_end in zip(chunk.slices, at.tolist(), ends.tolist(), strict=True):
        if end > begin and base.wants(tensor, start, stop):
            indices = None
            if places is not None:
                indices = places[begin:end]
                indices += start - offset  # in place: the array is ours, and its views do not overlap
            words = steps if new is None else new
            assert words is not None
            words = words[begin:end]
            if not base.is_whole(tensor):
                indices = np.arange(start, stop) if indices is None else indices
                held = base.held(tensor, indices)
                indices, words = indices[held], words[held]
            old: Words | None = None
            if not base.is_zero(tensor):
                old = base.part(tensor, start, stop) if indices is None else base.take(tensor, indices)
            if new is None and old is not None:
                words += old
            if len(words):
                pieces.append(Piece(tensor, start, stop, indices, old, words))
        begin, offset = end, space_end
    return pieces


@dataclass(frozen=True)
class EncodedChunk:
    """A chunk as a writer made it.

    Attributes:
        chunk: its table entry.
        streams: its streams as stored.
        changes: for each piece its tensor, its number of listed words, and the change of the tensor's fingerprint.
    """

    chunk: Chunk
    streams: Mapping[str, bytes]
    changes: Sequence[tuple[int, int, int]]

    @property
    def size(self) -> int:
        """Bytes of its streams."""
        return sum(len(stream) for stream in self.streams.values())


def encode(
    pieces: Sequence[Piece],
    layout: Layout,
    *,
    order: Literal["natural", "exponent"] = "natural",
    values_codec: Literal["step", "replace"] = "step",
    base: Callable[[Span], Words] | None = None,
) -> EncodedChunk:
    """Encode pieces of one dtype, sorted by (tensor, start), as one chunk.

    Args:
        pieces: the listed words; with `replace`, words may restate the base's.
        layout: the layout of the new state.
        order: `exponent` needs `base` and `step`.
        values_codec: how the words are written.
        base: returns the base's words of a span, for exponent order.
    """
    kind = layout.tensors[pieces[0].tensor].kind
    groups = _grouped(pieces, layout) if order == "exponent" else [_merged(pieces)]
    slices = [each for group in groups for each in group]
    words = count_words(slices)
    changed = sum(len(piece.new) for piece in pieces)
    new = _joined([piece.new for piece in pieces])
    old = None
    if values_codec == "step":
        old = _joined([np.zeros_like(piece.new) if piece.old is None else piece.old for piece in pieces])
    coded = _Coded()
    order_codec: Natural | Exponent = Natural()
    positions_codec: Gap | Bitmap | All = All()
    if changed < words:
        numbers = _places(pieces)
        if order == "exponent":
            assert base is not None and old is not None
            limit = choose_limit((base(Span(*each)) for each in slices), old, kind)
            order_codec = Exponent(limit, UNSET if len(groups) == 1 else [len(group) for group in groups])
            numbers, taken = _numbers(groups, numbers, base, kind, limit)
            old, new = old[taken], new[taken]
            coded = _Coded(cuts(old, kind, limit))
        positions_codec = _encode_positions(numbers, words, coded)
    if old is None:
        for plane, each in enumerate(values.split_planes(new)):
            coded.add(f"values.{plane}", each)
    else:
        codes, escapes = values.encode_step(old, new)
        coded.add("codes", codes, partial(_bytes_before, 2))
        for plane, each in enumerate(escapes):
            coded.add(f"escapes.{plane}", each, partial(values.escapes_before, codes))
    sums = [piece.sums(layout.tensors[piece.tensor].name) for piece in pieces]
    packed = coded.size < sum(map(len, coded.streams.values()))
    stored = coded.frames if packed else {name: stream.tobytes() for name, stream in coded.streams.items()}
    chunk = Chunk(
        dtype=kind.name,
        slices=slices,
        changed=changed,
        order=order_codec,
        positions=positions_codec,
        values=Replace() if values_codec == "replace" else Step(),
        compression=compression.ZSTD if packed else compression.NONE,
        result=fingerprint.text(sum(each.result for each in sums)),
    )
    changes = [(piece.tensor, len(piece.new), each.change) for piece, each in zip(pieces, sums, strict=True)]
    return EncodedChunk(chunk, stored, changes)


def _numbers(
    groups: Sequence[Sequence[Slice]], places: Indices, base: Callable[[Span], Words], kind: DType, limit: int
) -> tuple[Indices, NDArray[np.intp]]:
    """Numbers in exponent order of the words at these places, ascending, and the permutation that sorts them."""
    numbers: list[Indices] = []
    taken: list[NDArray[np.intp]] = []
    first = offset = 0
    for group in groups:
        end = offset + count_words(group)
        last = int(np.searchsorted(places, end))
        if last > first:
            order = ExponentOrder.of([base(Span(*each)) for each in group], kind, limit)
            mine, sorting = order.numbers(places[first:last] - offset)
            numbers.append(mine + offset)
            taken.append(sorting + first)
        first, offset = last, end
    return np.concatenate(numbers), np.concatenate(taken)


def _grouped(pieces: Sequence[Piece], layout: Layout) -> list[list[Slice]]:
    """The slices of pieces in exponent order, in groups.

    A large tensor has groups of its own; small ones share one, which ends with a tensor once it has `_GROUP` words.
    """
    groups: list[list[Piece]] = []
    words = 0
    tensor = -1
    for piece in pieces:
        size = piece.stop - piece.start
        alone = max(layout.tensors[each].words for each in (tensor, piece.tensor)) >= _ALONE
        if words + size > MAX_GROUP or (piece.tensor != tensor and (alone or words >= _GROUP)) or not groups:
            groups.append([])
            words = 0
        groups[-1].append(piece)
        words += size
        tensor = piece.tensor
    return [_merged(group) for group in groups]


def _merged(pieces: Sequence[Piece]) -> list[Slice]:
    slices: list[Slice] = []
    for piece in pieces:
        if slices and slices[-1][0] == piece.tensor and slices[-1][2] == piece.start:
            slices[-1] = (piece.tensor, slices[-1][1], piece.stop)
        else:
            slices.append((piece.tensor, piece.start, piece.stop))
    return slices


def _joined(parts: Sequence[Words]) -> Words:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _places(pieces: Sequence[Piece]) -> Indices:
    """Places in the chunk of the listed words."""
    if len(pieces) == 1 and pieces[0].indices is not None and pieces[0].start == 0:
        return pieces[0].indices
    places = np.empty(sum(len(piece.new) for piece in pieces), np.int64)
    at = offset = 0
    for piece in pieces:
        part = places[at : at + len(piece.new)]
        if piece.indices is None:
            part[:] = np.arange(offset, offset + len(part))
        else:
            np.add(piece.indices, offset - piece.start, out=part)
        at += len(part)
        offset += piece.stop - piece.start
    return places


class _Coded:
    """Streams that are being encoded, and each as it is compressed.

    Args:
        ranks: of the listed words before which blocks end; None for one distribution throughout.
    """

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks
        self.streams: dict[str, Bytes] = {}
        self.frames: dict[str, bytes] = {}

    @property
    def size(self) -> int:
        """Bytes of what is compressed."""
        return sum(map(len, self.frames.values()))

    def add(self, name: str, stream: Bytes, places: Callable[[Ranks], Ranks] | None = None) -> None:
        """Add a stream.

        Args:
            name: its name.
            stream: its bytes.
            places: where words of such ranks have their bytes.
        """
        self.streams[name] = stream
        if self.ranks is None or places is None:
            self.frames[name] = compression.compress(stream)
        else:
            cut = places(self.ranks) if len(self.ranks) else self.ranks
            self.frames[name] = compression.compress_cut(stream, cut.tolist())


def _bytes_before(bits: int, ranks: Ranks) -> Ranks:
    """How many whole bytes lie before the fields of these ranks, of so many bits each."""
    return ranks * bits >> 3


def _encode_positions(numbers: Indices, words: int, coded: _Coded) -> Gap | Bitmap:
    """Add the streams of the positions codec that needs the fewest bytes; returns the codec."""
    tried: list[tuple[Gap | Bitmap, _Coded]] = []
    for shift in positions.shifts(len(numbers), words, even=coded.ranks is None):
        streams = _Coded(coded.ranks)
        gaps, low = positions.encode_gaps(numbers, shift)
        streams.add("gaps", gaps, partial(positions.gaps_before, gaps))
        if low is not None:
            streams.add("low", low, partial(_bytes_before, shift))
        tried.append((Gap(shift), streams))
    if len(numbers) * 8 > words:  # only here a bitmap can be the smallest
        streams = _Coded(coded.ranks)
        streams.add("bitmap", positions.encode_bitmap(numbers, words), lambda ranks: numbers[ranks] >> 3)
        tried.append((Bitmap(), streams))
    codec, best = min(tried, key=lambda each: each[1].size)
    coded.streams, coded.frames = best.streams, best.frames
    return codec
