"""The writer's encoder: from two states to packs (SPEC.md section 11).

Jobs compare stretches of a few million words, so that threads share the work and memory stays bounded. The changed
words that they find are gathered into chunks of about 2^16 listed words, and chunks into packs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self, get_args

import numpy as np

from ..codecs.compare import Indices, changed_words
from ..codecs.fingerprint import U64, add_to
from ..codecs.words import Words
from ..format.chunk import MAX_WORDS_EXPONENT, Exponent, Span
from ..format.chunk_codec import EncodedChunk, Piece, encode
from ..format.layout import Layout
from ..format.manifest import EXPONENT_ORDER
from ..format.pack import BuiltPack, build_pack
from ..state.state import State
from ..threads import ordered_map

Order = Literal["natural", "exponent"]
Values = Literal["step", "replace"]

#: Words that one job compares, and bytes.
_JOB = 1 << 22
_JOB_BYTES = 8 << 20
#: Listed words of a chunk, and of one that lists whole stretches.
_LISTED = 1 << 16
_LISTED_DENSE = 1 << 20
#: Words of a chunk's space: more cost no reader anything in natural order, and save tables.
_SPACE = 1 << 26
_SPACE_EXPONENT = MAX_WORDS_EXPONENT
#: Bytes of a pack.
_PACK = 48 << 20


@dataclass(frozen=True)
class Codecs:
    """How changed words are written.

    Attributes:
        values: "step" or "replace"; tensors that start as zero words are always written as "replace".
        order: how words are numbered where the dtype allows it, "natural" or "exponent"; the latter needs "step".

    Raises:
        ValueError: one is unknown, or they do not go together.
    """

    values: Values = "step"
    order: Order = "natural"

    def __post_init__(self) -> None:
        """Check both."""
        if self.values not in get_args(Values):
            raise ValueError(f"values is {self.values!r}, not one of {get_args(Values)}")
        if self.order not in get_args(Order):
            raise ValueError(f"order is {self.order!r}, not one of {get_args(Order)}")
        if self.order == "exponent" and self.values == "replace":
            raise ValueError("`replace` is for natural order only")


class Stretches:
    """Words of one tensor: all of them, or the parts that a writer has.

    Args:
        stretches: where each part begins in the tensor, and its words; ascending, without overlap, none empty.
    """

    def __init__(self, stretches: Sequence[tuple[int, Words]]) -> None:
        self._stretches = stretches
        self._starts = [start for start, _ in stretches]

    @classmethod
    def whole(cls, words: Words) -> Self:
        """All words of a tensor."""
        return cls([(0, words)] if len(words) else [])

    def __bool__(self) -> bool:
        return bool(self._stretches)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Where each begins and ends."""
        return ((start, start + len(words)) for start, words in self._stretches)

    def gap(self, start: int, stop: int) -> int | None:
        """The first of the words start … stop - 1 that is missing; None if all are there."""
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            begin, words = self._stretches[at] if 0 <= at < len(self._stretches) else (stop, ())
            if not begin <= start < begin + len(words):
                return start
            start, at = begin + len(words), at + 1
        return None

    def part(self, start: int, stop: int) -> Words:
        """Words start … stop - 1, none of them missing: a view, or a copy if they lie in several stretches."""
        first, after = bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop)
        parts = [words[max(start - begin, 0) : stop - begin] for begin, words in self._stretches[first:after]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The words that an encoder compares: two states, or a part of them.

    Attributes:
        layout: the new state's layout.
        layout_digest: its digest.
        old: for each tensor the words before, at least where there are new ones; None if all start as zero words.
        new: for each tensor the words after.
        sums: fingerprints of the tensors before, uint64 in the order of the new layout; zeros if they do not matter.
    """

    layout: Layout
    layout_digest: str
    old: Sequence[Stretches | None]
    new: Sequence[Stretches]
    sums: U64

    @classmethod
    def of_states(cls, base: State | None, new: State, layout_digest: str, sums: U64 | None = None) -> Self:
        """The comparison of two states.

        Args:
            base: the base's state; None for a full version.
            new: the new state.
            layout_digest: of the new state's layout.
            sums: fingerprints of the base's tensors in the order of its layout, so that the encoder's `sums` end as
                those of the new state; None for zeros.
        """
        old: list[Stretches | None] = [None] * len(new.layout)
        found = np.zeros(len(new.layout), np.uint64)
        for index, held in ({} if base is None else carried(base.layout, new.layout)).items():
            assert base is not None
            old[index] = Stretches.whole(base.words(held))
            if sums is not None:
                found[index] = sums[held]
        rows = [Stretches.whole(new.words(index)) for index in range(len(new.layout))]
        return cls(new.layout, layout_digest, old, rows, found)


def carried(base: Layout, new: Layout) -> dict[int, int]:
    """The tensors that fitting carries over from a base (SPEC.md section 5): index in `new` -> index in `base`."""
    found = ((index, base.index.get(tensor.name)) for index, tensor in enumerate(new.tensors))
    return {index: old for index, old in found if old is not None and base.tensors[old] == new.tensors[index]}


class Encoder:
    """Encodes the words that changed as packs. It serves one thread, once; its jobs run on threads of its own.

    Args:
        compared: the words before and after.
        codecs: how changed words are written.
        threads: how many jobs run at once.

    Attributes, complete when `packs` or `chunks` is exhausted:
        sums: `compared.sums` and what the listed words add to them: of whole states, with the base's sums, the new
            state's fingerprints; uint64 in layout order.
        changed: number of listed words.
        changed_of: the same, for each tensor.
        features: the features that the packs use.
    """

    def __init__(self, compared: Comparison, codecs: Codecs | None = None, *, threads: int = 1) -> None:
        self.compared = compared
        self._codecs = codecs or Codecs()
        self._threads = threads
        self.sums: U64 = compared.sums.copy()
        self.changed = 0
        self.changed_of = [0] * len(compared.layout)
        self.features: list[str] = []

    def packs(self, size: int = _PACK) -> Iterator[BuiltPack]:
        """The packs, made lazily, so that each can be put before the next one takes memory.

        Args:
            size: bytes of a pack, give or take a chunk.
        """
        gathered: list[EncodedChunk] = []
        room = size
        for encoded in self.chunks():
            gathered.append(encoded)
            room -= encoded.size
            if room <= 0:
                yield build_pack(gathered, layout=self.compared.layout_digest)
                gathered, room = [], size
        if gathered:
            yield build_pack(gathered, layout=self.compared.layout_digest)

    def chunks(self) -> Iterator[EncodedChunk]:
        """The chunks, made lazily."""
        workers = nullcontext() if self._threads == 1 else ThreadPoolExecutor(self._threads)
        with workers as pool:
            found = ordered_map(self._compare, self._jobs(), threads=self._threads, pool=pool)
            for encoded in ordered_map(self._encode, self._gather(found), threads=self._threads, pool=pool):
                for tensor, listed, each in encoded.sums:
                    self.changed_of[tensor] += listed
                    add_to(self.sums, tensor, each)
                self.changed += encoded.chunk.changed
                if isinstance(encoded.chunk.order, Exponent) and not self.features:
                    self.features = [EXPONENT_ORDER]
                yield encoded

    def _jobs(self) -> Iterator[list[Span]]:
        """Stretches of about `_JOB` words or `_JOB_BYTES`; tensors of one dtype follow one another."""
        tensors = self.compared.layout.tensors
        job: list[Span] = []
        left = 1.0
        for _, index in sorted((tensor.dtype, index) for index, tensor in enumerate(tensors)):
            most = min(_JOB, _JOB_BYTES // tensors[index].kind.word.itemsize)
            for begin, end in self.compared.new[index]:
                for start in range(begin, end, most):
                    part = Span(index, start, min(start + most, end))
                    job.append(part)
                    left -= (part.stop - part.start) / most
                    if left <= 0:
                        yield job
                        job, left = [], 1.0
        if job:
            yield job

    def _compare(self, job: list[Span]) -> list[Piece]:
        """The changed words of a job's stretches; stretches without any are left out."""
        pieces: list[Piece] = []
        for tensor, start, stop in job:
            base, new = self.compared.old[tensor], self.compared.new[tensor].part(start, stop)
            indices: Indices | None = None
            old_words: Words | None = None
            if base is not None or 2 * np.count_nonzero(new) < len(new):
                before = None if base is None else base.part(start, stop)
                indices, old_words, listed = changed_words(before, new)
                if len(listed) == 0:
                    continue
                if len(listed) == len(new):
                    indices = None
                else:
                    indices += start
                new = listed
            pieces.append(Piece(tensor, start, stop, indices, old_words, new))
        return pieces

    def _gather(self, found: Iterable[list[Piece]]) -> Iterator[list[Piece]]:
        """Pieces of one kind, as many as make a chunk."""
        space = _SPACE_EXPONENT if self._codecs.order == "exponent" else _SPACE
        waiting: list[Piece] = []
        kind: tuple[str, bool, bool] | None = None
        listed = words = 0
        for piece in (part for pieces in found for each in pieces for part in _split(each)):
            dtype, fresh = self.compared.layout.tensors[piece.tensor].dtype, self.compared.old[piece.tensor] is None
            mine = dtype, fresh, piece.indices is None
            size, count = piece.stop - piece.start, len(piece.new)
            full = _LISTED_DENSE if mine[2] else _LISTED
            if waiting and (mine != kind or words + size > space or listed + count > full * 3 // 2):
                yield waiting
                waiting, listed, words = [], 0, 0
            waiting.append(piece)
            kind = mine
            listed += count
            words += size
            if listed >= full:
                yield waiting
                waiting, listed, words = [], 0, 0
        if waiting:
            yield waiting

    def _encode(self, pieces: list[Piece]) -> EncodedChunk:
        fresh = self.compared.old[pieces[0].tensor] is None
        kind = self.compared.layout.tensors[pieces[0].tensor].kind
        return encode(
            pieces,
            self.compared.layout,
            order="natural" if fresh or kind.exponent is None else self._codecs.order,
            values_codec="replace" if fresh else self._codecs.values,
            base=self._base,
        )

    def _base(self, part: Span) -> Words:
        words = self.compared.old[part.tensor]
        assert words is not None
        return words.part(part.start, part.stop)


def _split(piece: Piece) -> Iterator[Piece]:
    """A piece, in parts of about a chunk's listed words."""
    listed = len(piece.new)
    full = _LISTED_DENSE if piece.indices is None else _LISTED
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
