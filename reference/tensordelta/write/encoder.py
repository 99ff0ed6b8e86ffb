"""The writer's encoder: from two states to packs (SPEC.md section 11).

Jobs compare stretches of a few million words, so that threads share the work and memory stays bounded. The changed
words that they find are gathered into chunks, and chunks into packs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, Self, get_args

import numpy as np

from ..codecs.compare import changed_words
from ..codecs.fingerprint import U64, add_to
from ..codecs.words import Words
from ..format.chunk import Exponent, Span
from ..format.chunk_codec import EncodedChunk, Piece, encode
from ..format.layout import Layout
from ..format.manifest import EXPONENT_ORDER
from ..format.pack import BuiltPack, build_pack
from ..progress import current
from ..state.shard_file import FileWords
from ..state.state import State
from ..threads import BusyTime, ordered_map
from .gathering import gather

Order = Literal["natural", "exponent"]
Values = Literal["step", "replace"]

#: Words that one job compares, and bytes.
_JOB = 1 << 22
_JOB_BYTES = 8 << 20
#: Bytes of a pack, at least and at most; and those that came before it, for each byte of it.
_PACK = 48 << 20
_PACK_MOST = 256 << 20
_PACK_SHARE = 256


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

    def __init__(self, stretches: Sequence[tuple[int, Words | FileWords]]) -> None:
        self._stretches = stretches
        self._starts = [start for start, _ in stretches]

    @classmethod
    def whole(cls, words: Words | FileWords) -> Self:
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
        """Words start … stop - 1, none of them missing: a view, or a copy if they lie in a file or in parts."""
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
            old[index] = Stretches.whole(base.source(held))
            if sums is not None:
                found[index] = sums[held]
        rows = [Stretches.whole(new.source(index)) for index in range(len(new.layout))]
        return cls(new.layout, layout_digest, old, rows, found)

    def is_fresh(self, tensor: int) -> bool:
        """True if a tensor starts as zero words."""
        return self.old[tensor] is None

    def base(self, part: Span) -> Words:
        """Words before, of a tensor that is not fresh."""
        words = self.old[part.tensor]
        assert words is not None
        return words.part(part.start, part.stop)

    def found(self, busy: BusyTime, *, threads: int, pool: ThreadPoolExecutor | None) -> Iterator[list[Piece]]:
        """The changed words, compared on so many threads of a pool; `busy` runs while they compare."""
        work = current()

        def compare_job(job: list[Span]) -> list[Piece]:
            with busy.running():
                found = self._compare(job)
            for tensor, start, stop in job:
                work.add((stop - start) * self.layout.tensors[tensor].kind.word.itemsize)
            return found

        return ordered_map(compare_job, self._jobs(), threads=threads, pool=pool)

    def _jobs(self) -> Iterator[list[Span]]:
        """Parts of about `_JOB` words or `_JOB_BYTES`; tensors of one dtype follow one another."""
        job: list[Span] = []
        left = 1.0
        for part in cut(self.layout, self.new):
            job.append(part)
            left -= (part.stop - part.start) / _job_words(self.layout, part.tensor)
            if left <= 0:
                yield job
                job, left = [], 1.0
        if job:
            yield job

    def _compare(self, job: list[Span]) -> list[Piece]:
        """The changed words of a job's parts; parts without any are left out."""
        pieces: list[Piece] = []
        for part in job:
            before = None if self.is_fresh(part.tensor) else self.base(part)
            piece = compare(part, before, self.new[part.tensor].part(part.start, part.stop))
            if piece is not None:
                pieces.append(piece)
        return pieces


@dataclass(frozen=True, eq=False)
class Listed:
    """Changed words that were found elsewhere: what an encoder takes in place of a comparison. For natural order.

    An encoder makes the packs of a comparison if the pieces are those that it would find: of each part that `cut`
    gives, one piece, unless nothing changed there (`compare`).

    Attributes:
        layout, layout_digest: of the new state.
        pieces: the changed words, taken lazily; sorted by dtype, tensor and start, without overlap, each of at most 8
            MiB of its tensor.
        sums: fingerprints of the tensors before, uint64 in layout order; zeros if they do not matter.
        fresh: the tensors that start as zero words; their pieces have no old words.
    """

    layout: Layout
    layout_digest: str
    pieces: Iterable[Piece]
    sums: U64
    fresh: frozenset[int] = frozenset()

    @classmethod
    def full(cls, layout: Layout, layout_digest: str, pieces: Iterable[Piece]) -> Self:
        """The words of a full version."""
        return cls(layout, layout_digest, pieces, np.zeros(len(layout), np.uint64), frozenset(range(len(layout))))

    def is_fresh(self, tensor: int) -> bool:
        """True if a tensor starts as zero words."""
        return tensor in self.fresh

    def base(self, part: Span) -> Words:
        """No words: only exponent order needs them.

        Raises:
            ValueError: always.
        """
        raise ValueError("pieces are encoded in natural order")

    def found(self, busy: BusyTime, *, threads: int, pool: ThreadPoolExecutor | None) -> Iterator[list[Piece]]:
        """The pieces, checked; `busy` runs while they are made.

        Raises:
            ValueError: a piece that the layout cannot have, or out of order.
        """
        after = ("", 0, 0)
        pieces = iter(self.pieces)
        while True:
            with busy.running():
                piece = next(pieces, None)
            if piece is None:
                return
            if not 0 <= piece.tensor < len(self.layout):
                raise ValueError(f"a piece is of tensor {piece.tensor}, which the layout lacks")
            tensor = self.layout.tensors[piece.tensor]
            if (tensor.dtype, piece.tensor, piece.start) < after:
                raise ValueError(f"the piece of tensor {tensor.name!r} at word {piece.start} is out of order")
            self._check(piece)
            after = (tensor.dtype, piece.tensor, piece.stop)
            if len(piece.new) == piece.stop - piece.start:
                piece = replace(piece, indices=None)
            if len(piece.new):
                yield [piece]

    def _check(self, piece: Piece) -> None:
        tensor = self.layout.tensors[piece.tensor]
        listed = len(piece.new)
        what = f"the piece of tensor {tensor.name!r} at word {piece.start}"
        end = min(tensor.words, piece.start + _job_words(self.layout, piece.tensor))
        if not 0 <= piece.start <= piece.stop <= end:
            raise ValueError(f"{what} ends at word {piece.stop}: it is too long")
        if (piece.old is None) != self.is_fresh(piece.tensor):
            raise ValueError(f"{what} has {'no ' if piece.old is None else ''}old words")
        places = piece.places
        fits = len(places) == listed and not (
            listed and (places[0] < piece.start or places[-1] >= piece.stop or np.any(places[1:] <= places[:-1]))
        )
        rows = [piece.new] if piece.old is None else [piece.new, piece.old]
        if not fits or any(len(row) != listed or row.dtype != tensor.kind.word for row in rows):
            raise ValueError(f"{what} has other words or indices than its tensor has there")


def cut(layout: Layout, parts: Sequence[Iterable[tuple[int, int]]]) -> Iterator[Span]:
    """Words of a layout in the parts that an encoder compares, each of at most 8 MiB: by dtype, tensor and place.

    Args:
        layout: the layout.
        parts: for each tensor the beginnings and ends of the words that a writer has.
    """
    for _, index in sorted((tensor.dtype, index) for index, tensor in enumerate(layout.tensors)):
        most = _job_words(layout, index)
        for begin, end in parts[index]:
            for start in range(begin, end, most):
                yield Span(index, start, min(start + most, end))


def compare(part: Span, before: Words | None, new: Words) -> Piece | None:
    """The words of a part that changed; None if none did.

    Args:
        part: of `cut`.
        before, new: its words; `before` is None where the tensor starts as zero words.
    """
    if before is None and 2 * np.count_nonzero(new) >= len(new):
        return Piece(*part, None, None, new)
    indices, old, listed = changed_words(before, new)
    if len(listed) == 0:
        return None
    if len(listed) == len(new):
        return Piece(*part, None, old, listed)
    indices += part.start
    return Piece(*part, indices, old, listed)


def _job_words(layout: Layout, tensor: int) -> int:
    return min(_JOB, _JOB_BYTES // layout.tensors[tensor].kind.word.itemsize)


def carried(base: Layout, new: Layout) -> dict[int, int]:
    """The tensors that fitting carries over from a base (SPEC.md section 5): index in `new` -> index in `base`."""
    found = ((index, base.index.get(tensor.name)) for index, tensor in enumerate(new.tensors))
    return {index: old for index, old in found if old is not None and base.tensors[old] == new.tensors[index]}


class Encoder:
    """Encodes the words that changed as packs. It serves one thread, once; its jobs run on threads of its own.

    Args:
        compared: the words before and after, or those that changed.
        codecs: how changed words are written.
        threads: how many jobs run at once.

    Attributes, complete when `packs` or `chunks` is exhausted:
        sums: `compared.sums` and what the listed words add to them: of whole states, with the base's sums, the new
            state's fingerprints; uint64 in layout order.
        changed: number of listed words.
        changed_of: the same, for each tensor.
        features: the features that the packs use.
    """

    def __init__(self, compared: Comparison | Listed, codecs: Codecs | None = None, *, threads: int = 1) -> None:
        self.compared = compared
        self._codecs = codecs or Codecs()
        self._threads = threads
        self.sums: U64 = compared.sums.copy()
        self.changed = 0
        self.changed_of = [0] * len(compared.layout)
        self.features: list[str] = []
        self._comparing, self._encoding = BusyTime(), BusyTime()

    @property
    def busy(self) -> tuple[float, float]:
        """Seconds that threads have been busy with comparing, and with encoding, until now."""
        return self._comparing.seconds, self._encoding.seconds

    def packs(self, size: int = _PACK) -> Iterator[BuiltPack]:
        """The packs, made lazily, so that each can be put before the next one takes memory.

        Args:
            size: bytes of a pack, give or take a chunk. Where there are hundreds, packs become larger.
        """
        gathered: list[EncodedChunk] = []
        made = waiting = 0
        for encoded in self.chunks():
            gathered.append(encoded)
            waiting += encoded.size
            if waiting >= max(size, min(made // _PACK_SHARE, _PACK_MOST)):
                yield build_pack(gathered, layout=self.compared.layout_digest)
                made += waiting
                gathered, waiting = [], 0
        if gathered:
            yield build_pack(gathered, layout=self.compared.layout_digest)

    def chunks(self) -> Iterator[EncodedChunk]:
        """The chunks, made lazily."""
        workers = nullcontext() if self._threads == 1 else ThreadPoolExecutor(self._threads)
        with workers as pool:
            found = self.compared.found(self._comparing, threads=self._threads, pool=pool)
            pieces = chain.from_iterable(found)
            chunks = gather(pieces, self.compared.layout, self.compared.is_fresh, self._in_exponent_order)
            for encoded in ordered_map(self._timed_encode, chunks, threads=self._threads, pool=pool):
                for tensor, listed, each in encoded.changes:
                    self.changed_of[tensor] += listed
                    add_to(self.sums, tensor, each)
                self.changed += encoded.chunk.changed
                if isinstance(encoded.chunk.order, Exponent) and not self.features:
                    self.features = [EXPONENT_ORDER]
                yield encoded

    def _timed_encode(self, pieces: list[Piece]) -> EncodedChunk:
        with self._encoding.running():
            return self._encode(pieces)

    def _encode(self, pieces: list[Piece]) -> EncodedChunk:
        tensor = pieces[0].tensor
        return encode(
            pieces,
            self.compared.layout,
            order="exponent" if self._in_exponent_order(tensor) else "natural",
            values_codec="replace" if self.compared.is_fresh(tensor) else self._codecs.values,
            base=self.compared.base,
        )

    def _in_exponent_order(self, tensor: int) -> bool:
        return (
            self._codecs.order == "exponent"
            and not self.compared.is_fresh(tensor)
            and self.compared.layout.tensors[tensor].kind.exponent is not None
        )
