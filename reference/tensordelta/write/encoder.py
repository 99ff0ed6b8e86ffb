"""The writer's encoder: from two states to packs (SPEC.md section 11).

Jobs compare stretches of a few million words, so that threads share the work and memory stays bounded; what they find
is gathered into chunks of about 2^16 listed words, and chunks into packs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from typing import Literal, Self, get_args

import numpy as np

from ..codecs.compare import changed_words
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


class Stretches:
    """Words of one tensor, as far as somebody has them.

    Args:
        stretches: where each begins in the tensor, and its words; ascending, apart, and none of them empty.
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

    def part(self, start: int, stop: int) -> Words:
        """Words start … stop - 1: a view, or a copy where they lie in several stretches.

        Raises:
            ValueError: some of them are not there.
        """
        parts: list[Words] = []
        at = bisect_right(self._starts, start) - 1
        while start < stop:
            begin, words = self._stretches[at] if 0 <= at < len(self._stretches) else (stop, None)
            if words is None or not begin <= start < begin + len(words):
                raise ValueError(f"word {start} is not there")
            parts.append(words[start - begin : stop - begin])
            start += len(parts[-1])
            at += 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Encoder:
    """Encodes the step from a base to a new state, or a part of it.

    Args:
        base: the base's state; None for a full version.
        new: the new state.
        layout: digest of the new state's layout.
        values: how changed words are written; tensors that start as zero words are always `replace`.
        order: how words are numbered where the dtype allows it; `exponent` goes with `step`.
        threads: how many jobs run at once.
        prove: start from the base's fingerprints, so that `sums` ends as the new state's; may scan the base.

    After `packs` is exhausted:

    Attributes:
        layout: the new state's layout.
        sums: fingerprint of each tensor of the new state, uint64 in layout order; of a part of it, what the
            listed words add to it.
        changed: number of listed words.
        changed_of: the same, for each tensor.
        features: the features that the packs use.
    """

    def __init__(
        self,
        base: State | None,
        new: State,
        *,
        layout: str,
        values: Values = "step",
        order: Order = "natural",
        threads: int = 1,
        prove: bool = True,
    ) -> None:
        rows = [Stretches.whole(new.words(index)) for index in range(len(new.layout))]
        self._start(new.layout, [None] * len(rows), rows, layout, values, order, threads)
        if base is not None:
            sums = base.sums(threads=threads) if prove else np.zeros(len(base.layout), np.uint64)
            for index, tensor in enumerate(new.layout.tensors):
                old = base.layout.index.get(tensor.name)
                if old is not None and base.layout.tensors[old] == tensor:
                    self._old[index] = Stretches.whole(base.words(old))
                    self.sums[index] = sums[old]

    @classmethod
    def of_part(
        cls,
        tensors: Layout,
        base: Sequence[Stretches | None],
        new: Sequence[Stretches],
        *,
        layout: str,
        values: Values = "step",
        order: Order = "natural",
        threads: int = 1,
    ) -> Self:
        """An encoder of some words only, for one of several writers (SPEC.md section 11.3).

        Args:
            tensors: the new state's layout.
            base: for each of its tensors the words before, wherever there are new ones; None where all start as zero.
            new: for each of its tensors the words after.
            layout, values, order, threads: as for a whole state.
        """
        encoder = cls.__new__(cls)
        encoder._start(tensors, list(base), new, layout, values, order, threads)
        return encoder

    def _start(
        self,
        tensors: Layout,
        old: list[Stretches | None],
        new: Sequence[Stretches],
        digest: str,
        values: Values,
        order: Order,
        threads: int,
    ) -> None:
        check_codecs(values, order)
        self.layout = tensors
        self._old = old
        self._new = new
        self._digest = digest
        self._values: Values = values
        self._order: Order = order
        self._threads = threads
        self.sums: U64 = np.zeros(len(tensors), np.uint64)
        self.changed = 0
        self.changed_of = [0] * len(tensors)
        self.features: list[str] = []

    def packs(self, size: int = _PACK) -> Iterator[BuiltPack]:
        """The packs, one by one, so that each can be put away before the next is made.

        Args:
            size: bytes of a pack; a chunk more or less.
        """
        gathered: list[EncodedChunk] = []
        room = size
        for encoded in self.chunks():
            gathered.append(encoded)
            room -= encoded.size
            if room <= 0:
                yield build_pack(gathered, layout=self._digest)
                gathered, room = [], size
        if gathered:
            yield build_pack(gathered, layout=self._digest)

    def chunks(self) -> Iterator[EncodedChunk]:
        """The chunks, one by one."""
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
        tensors = self.layout.tensors
        job: list[Span] = []
        left = 1.0
        for _, index in sorted((tensor.dtype, index) for index, tensor in enumerate(tensors)):
            most = min(_JOB, _JOB_BYTES // tensors[index].kind.word.itemsize)
            for begin, end in self._new[index]:
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
            base = self._old[tensor]
            new = self._new[tensor].part(start, stop)
            if base is None and 2 * np.count_nonzero(new) >= len(new):
                pieces.append(Piece(tensor, start, stop, None, None, new))
                continue
            indices, old_words, new_words = changed_words(None if base is None else base.part(start, stop), new)
            if len(indices) == 0:
                continue
            if len(indices) == len(new):
                pieces.append(Piece(tensor, start, stop, None, old_words, new_words))
                continue
            indices += start
            pieces.append(Piece(tensor, start, stop, indices, old_words, new_words))
        return pieces

    def _gather(self, found: Iterable[list[Piece]]) -> Iterator[list[Piece]]:
        """Pieces of one kind, as many as make a chunk."""
        space = _SPACE_EXPONENT if self._order == "exponent" else _SPACE
        waiting: list[Piece] = []
        kind: tuple[str, bool, bool] | None = None
        listed = words = 0
        for piece in (part for pieces in found for each in pieces for part in _split(each)):
            mine = (self.layout.tensors[piece.tensor].dtype, self._old[piece.tensor] is None, piece.indices is None)
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
        fresh = self._old[pieces[0].tensor] is None
        kind = self.layout.tensors[pieces[0].tensor].kind
        return encode(
            pieces,
            self.layout,
            order="natural" if fresh or kind.exponent is None else self._order,
            values_codec="replace" if fresh else self._values,
            base=self._base,
        )

    def _base(self, part: Span) -> Words:
        words = self._old[part.tensor]
        assert words is not None
        return words.part(part.start, part.stop)


def check_codecs(values: Values, order: Order) -> None:
    """Check that values and order are known, and go together.

    Raises:
        ValueError: they are not, or do not.
    """
    if values not in get_args(Values):
        raise ValueError(f"values is {values!r}, not one of {get_args(Values)}")
    if order not in get_args(Order):
        raise ValueError(f"order is {order!r}, not one of {get_args(Order)}")
    if order == "exponent" and values == "replace":
        raise ValueError("`replace` is for natural order only")


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
