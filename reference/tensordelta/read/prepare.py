"""Preparations: a route's edges, decoded over a state that is not changed (SPEC.md section 9, steps 6 and 8 to 11).

Tensors that the reader holds stay as they are under a sparse overlay of the words that the edges changed; tensors that
start as zero words are built in memory of their own. For each edge the caller proves the base, fits the state to the
edge's layout, decodes its packs and proves the result. A reader of some tensors does the same with these tensors only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..codecs import fingerprint
from ..codecs.compare import changed_words
from ..codecs.fingerprint import U64
from ..codecs.words import Words
from ..errors import IntegrityError, LimitError, StoreError, TensorDeltaError, WrongBaseError
from ..format.chunk_codec import Indices, Piece, decode
from ..format.layout import Layout, Tensor
from ..format.manifest import Base, Manifest
from ..format.pack import Blob, ChunkPack, Pack, PlainPack
from ..progress import current
from ..state.state import State
from ..state.update import Prepared
from ..threads import ordered_map
from .budget import Budget

#: Gives zero words for a tensor, after it has asked the budget.
Allocate = Callable[[Tensor, "Budget"], Words]
#: Gives that many bytes of memory that the budget does not count, such as a mapped file's.
Arena = Callable[[int], NDArray[np.uint8]]

Number = TypeVar("Number", bound=np.generic)
#: A chunk of a pack, or a tensor of a plain pack, by its index.
_Job = tuple[Pack, Blob, int]

_ALIGN = 8
#: Words of a plain tensor that are read at once.
_PLAIN = 1 << 22
#: Bytes that a listed word takes at least: its index, its old word and its new word.
_BYTES_A_CHANGE = 16


def zeros(tensor: Tensor, budget: Budget) -> Words:
    """Memory for a tensor that starts as zero words."""
    budget.take(tensor.nbytes, object=f"tensor {tensor.name!r}")
    return np.zeros(tensor.words, tensor.kind.word)


class Preparation:
    """A state on its way to another version; the state itself is only read.

    For one thread at a time; `decode` uses threads of its own.

    Args:
        state: what the reader holds.
        sums: fingerprints of its tensors, uint64 in layout order.
        threads: how many chunks are decoded at once.
        budget: the memory budget.
        allocate: gives memory for tensors that start as zero words.
        arena: gives memory for the decoded words; by default they stay where they were decoded.
        in_flight: bytes that the chunks being decoded may need together; a single chunk may need more.

    Attributes:
        budget: the memory budget.
        layout: the present layout: that of the edge that was fitted last.
        sums: the present fingerprints of its tensors; 0 for a tensor that is not held.
    """

    def __init__(
        self,
        state: State,
        sums: U64,
        *,
        threads: int,
        budget: Budget,
        allocate: Allocate = zeros,
        arena: Arena | None = None,
        in_flight: int = 192 << 20,
    ) -> None:
        self._words = [state.words(index) for index in range(len(state.layout))]
        self._sums_before = sums
        self._threads = threads
        self.budget = budget
        self._allocate = allocate
        self._arena = arena
        self._room: _Room | None = None
        self._in_flight = in_flight
        self.layout = state.layout
        self.sums: U64 = sums.copy()
        self._tensors: list[_Tensor | None] = [_Tensor(index, words) for index, words in enumerate(self._words)]
        # Tensors that the last fitting made of zero words, and those that are not held.
        self._zero: frozenset[int] = frozenset()
        self._full = True

    # -- one edge -------------------------------------------------------------------------------------------------

    def check_base(self, base: Base, layout: Layout | None, *, object: str) -> None:
        """Prove that the present state is the base of a delta.

        Args:
            base: the base.
            layout: its layout; None where its digest is known to be that of the present one.

        Raises:
            WrongBaseError: it is not.
        """
        if layout is not None and layout != self.layout:
            raise WrongBaseError("the state held has another layout than the base", object=object, rule="TD-RDR-004")
        held = fingerprint.text(fingerprint.combine(self.sums))
        if held != base.fingerprint:
            raise WrongBaseError(
                f"the state held has fingerprint {held}, the base {base.fingerprint}",
                object=object,
                rule="TD-RDR-003",
            )

    def fit(self, layout: Layout, *, full: bool, names: Collection[str] | None = None) -> None:
        """Fit the present state to a manifest's layout (SPEC.md section 5).

        Args:
            layout: the manifest's.
            full: True for a full version, which starts from the empty state.
            names: the tensors to hold; by default all. The words of another tensor count as zero, and what an edge
                makes of them is dropped.

        Raises:
            LimitError: new tensors would pass the memory budget.
        """
        self._zero = frozenset()
        self._full = full
        for each in self._tensors:
            if each is not None and len(each.overlay) > 1:
                each.merge([])
        if full:
            self.layout, self._tensors, self.sums = Layout(()), [], np.zeros(0, np.uint64)
        if layout == self.layout and names is None:
            return
        before = self.layout
        every = range(len(layout))
        held = every if names is None else sorted(layout.index[name] for name in names if name in layout.index)
        tensors: list[_Tensor | None] = [None] * len(layout)
        sums = np.zeros(len(layout), np.uint64)
        zero = set(every)
        for index in held:
            tensor = layout.tensors[index]
            old = before.index.get(tensor.name)
            found = self._tensors[old] if old is not None and before.tensors[old] == tensor else None
            if found is not None and old is not None:
                sums[index] = self.sums[old]
                zero.remove(index)
            tensors[index] = found or _Tensor(None, self._allocate(tensor, self.budget))
        self.layout, self._tensors, self.sums = layout, tensors, sums
        self._zero = frozenset(zero)

    def decode(self, packs: Sequence[tuple[Pack, Blob]], *, names: Collection[str] | None = None) -> None:
        """Decode an edge's packs over the fitted state.

        Args:
            packs: the edge's packs, or those of them that hold words of `names`.
            names: the tensors whose new words are needed, all of them held; by default all. Chunks without a word of
                them are skipped, and the result of a chunk is proven where all its tensors are held (TD-RDR-016).

        Raises:
            MalformedError, LimitError: see SPEC.md sections 7 and 9.
            WrongBaseError, IntegrityError: a chunk has another result (SPEC.md section 8.3).
        """
        wanted = None if names is None else {self.layout.index[name] for name in names}
        jobs = list(_jobs(packs, wanted))
        self._reserve(jobs)

        def cost(job: _Job) -> int:
            pack, _, index = job
            return pack.chunks[index].memory if isinstance(pack, ChunkPack) else _PLAIN * 16

        def work(job: _Job) -> list[tuple[int, int, Piece | None]]:
            pack, blob, index = job
            if isinstance(pack, ChunkPack):
                return self._decode_chunk(pack, blob, index)
            return self._read_plain(pack, blob, index)

        fresh: dict[int, list[Piece]] = {}
        phase, shares = current(), map(_share, jobs)
        for result, share in zip(
            ordered_map(work, jobs, threads=self._threads, cost=cost, budget=self._in_flight), shares, strict=True
        ):
            phase.add(share)
            for tensor, each, piece in result:
                fingerprint.add_to(self.sums, tensor, each)
                if piece is not None:
                    fresh.setdefault(tensor, []).append(piece)
        for tensor, pieces in fresh.items():
            pieces.sort(key=lambda piece: piece.start)
            held = self._tensor(tensor)
            if not held.overlay:
                held.overlay = pieces
                continue
            held.merge(pieces)
            self._copy(held, object=f"tensor {self.layout.tensors[tensor].name!r}")

    def prove(self, manifest: Manifest, *, object: str) -> None:
        """Prove that the present state, held as a whole, has a manifest's fingerprint.

        Raises:
            IntegrityError: it has another.
        """
        got = fingerprint.text(fingerprint.combine(self.sums))
        if got != manifest.fingerprint:
            raise IntegrityError(
                f"the new state's fingerprint is {got}, not {manifest.fingerprint}",
                object=object,
                rule="TD-RDR-007",
                advice="The packs do not make the state that was published; have it published again.",
            )

    def _copy(self, tensor: _Tensor, *, object: str) -> None:
        """Replace an overlay by a copy of the tensor's words, where several edges changed so much that it is no larger.

        Merging an edge into an overlay takes time for the changes of all edges before; writing it into a copy does not.
        """
        (piece,) = tensor.overlay
        if tensor.words.nbytes > _BYTES_A_CHANGE * len(piece.new):
            return
        try:
            self.budget.take(tensor.words.nbytes, object=object)
        except LimitError:  # then the overlay stays
            return
        tensor.words = tensor.part(0, len(tensor.words))
        tensor.own, tensor.overlay = True, []
        if self._arena is None:
            self.budget.used -= len(piece.new) * (8 + 2 * tensor.words.itemsize)

    def _tensor(self, tensor: int) -> _Tensor:
        """A tensor that is held."""
        held = self._tensors[tensor]
        assert held is not None
        return held

    def _is_overlaid(self, tensor: int) -> bool:
        """True where changes of a tensor go to its overlay, since its words lie in the state."""
        held = self._tensors[tensor]
        return held is not None and not held.own

    def _reserve(self, jobs: Sequence[_Job]) -> None:
        """Reserve memory for the decoded words, and check that the greatest chunk has room while it is decoded."""
        total = 0
        for pack, _, index in jobs:
            if isinstance(pack, PlainPack):
                if self._is_overlaid(index):
                    total += self._take(self.layout.tensors[index].nbytes, 1, object=pack.label)
                continue
            chunk, object = pack.chunks[index], pack.chunk_label(index)
            if any(self._is_overlaid(tensor) for tensor, _, _ in chunk.slices):
                held = chunk.changed * (8 + 2 * chunk.kind.word.itemsize)
                total += self._take(held, len(chunk.slices), object=object)
            self.budget.check(chunk.memory, object=object)
        self._room = _Room(self._arena(total)) if self._arena and total else None

    def _take(self, held: int, pieces: int, *, object: str) -> int:
        """Reserve memory for pieces, unless there is an arena; returns the bytes that an arena needs for them."""
        if self._arena is None:
            self.budget.take(held, object=object)
        return held + 3 * _ALIGN * (pieces + held // _PLAIN)

    def _decode_chunk(self, pack: ChunkPack, blob: Blob, index: int) -> list[tuple[int, int, Piece | None]]:
        chunk, object = pack.chunks[index], pack.chunk_label(index)
        whole = all(self._tensors[tensor] is not None for tensor, _, _ in chunk.slices)
        decoded = decode(chunk, self.layout, pack.reader_of_all(index, blob), self, object=object)
        if whole and decoded.result != chunk.result:
            raise self._wrong_result(object)
        return [
            (piece.tensor, each.change, self._kept(piece))
            for piece, each in zip(decoded.pieces, decoded.sums, strict=True)
            if self._tensors[piece.tensor] is not None
        ]

    def _wrong_result(self, object: str) -> TensorDeltaError:
        reason = "its new words are not those that were written"
        if self._full:
            advice = "The chunk says something else than its streams; have the version published again."
            return IntegrityError(reason, object=object, rule="TD-CHK-024", advice=advice)
        advice = "Words that are held were altered in memory: drop the state, and load the version again."
        return WrongBaseError(reason, object=object, rule="TD-CHK-024", advice=advice)

    def _read_plain(self, pack: PlainPack, blob: Blob, tensor: int) -> list[tuple[int, int, Piece | None]]:
        info = self.layout.tensors[tensor]
        itemsize = info.kind.word.itemsize
        results: list[tuple[int, int, Piece | None]] = []
        for start in range(0, info.words, _PLAIN):
            stop = min(start + _PLAIN, info.words)
            data = blob.read(pack.tensors[tensor] + start * itemsize, (stop - start) * itemsize)
            new = np.frombuffer(data, info.kind.word)
            old = None if self.is_zero(tensor) else self.part(tensor, start, stop)
            piece = Piece(tensor, start, stop, None, old, new)
            results.append((tensor, piece.sums(info.name).change, self._kept(piece)))
        return results

    def _kept(self, piece: Piece) -> Piece | None:
        """Write a piece at once where the tensor's words are this preparation's own; else return it for the overlay."""
        tensor = self._tensor(piece.tensor)
        if tensor.own:
            tensor.words[slice(piece.start, piece.stop) if piece.indices is None else piece.indices] = piece.new
            return None
        if piece.indices is None:
            # Applying exchanges a dense piece with the words in use: it needs memory to write to, and no old words.
            new = piece.new if piece.new.flags.writeable or self._room else piece.new.copy()
            piece = Piece(piece.tensor, piece.start, piece.stop, None, None, new)
        return self._room.move(piece) if self._room else piece

    # -- the fitted base, for `decode` of a chunk -------------------------------------------------------------------

    def is_zero(self, tensor: int) -> bool:
        """True where a tensor started the present edge as zero words, or is not held."""
        # Other chunks may have written their words of it already; those of the chunk being decoded are zero.
        return tensor in self._zero

    def wants(self, tensor: int, start: int, stop: int) -> bool:
        """True where a tensor is held."""
        return self._tensors[tensor] is not None

    def is_whole(self, tensor: int) -> bool:
        """True: whole tensors are held, or none of their words."""
        return True

    def held(self, tensor: int, indices: Indices) -> slice:
        """All of them; see `is_whole`."""
        return slice(None)

    def take(self, tensor: int, indices: Indices) -> Words:
        """The present words of a tensor that is held, at these indices."""
        return self._tensor(tensor).take(indices)

    def part(self, tensor: int, start: int, stop: int) -> Words:
        """The present words of a tensor that is held, from `start` to `stop`; a copy only where edges changed them."""
        return self._tensor(tensor).part(start, stop)

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(
        self,
        *,
        version: int,
        chain: str,
        layout_digest: str,
        route: Sequence[str],
        size: int,
        seconds: float,
        passed_over: tuple[TensorDeltaError | StoreError, ...],
    ) -> Prepared:
        """What takes the state to the version of the last edge; the arguments are those of `Prepared`.

        Raises:
            LimitError: it would pass the memory budget.
            WrongBaseError: the state was written to meanwhile.
        """
        built: dict[int, Words] = {}
        sparse: dict[int, list[Piece]] = {}
        for index, info in enumerate(self.layout.tensors):
            tensor = self._tensor(index)
            if tensor.origin is None:
                built[index] = tensor.words
                continue
            if tensor.own:
                held = self._words[tensor.origin][:]
                tensor.overlay = self._changes(index, held, tensor, object=info.name)
                tensor.words, tensor.own = self._words[tensor.origin], False  # the copy's memory is free now
            if tensor.overlay:
                sparse[index] = [replace(piece, tensor=index) for piece in tensor.overlay]
        return Prepared(
            layout=self.layout,
            origin=[self._tensor(index).origin for index in range(len(self.layout))],
            built=built,
            sparse=sparse,
            sums=self.sums,
            sums_before=self._sums_before,
            version=version,
            chain=chain,
            layout_digest=layout_digest,
            route=tuple(route),
            size=size,
            seconds=seconds,
            passed_over=passed_over,
        )

    def _changes(self, index: int, held: Words, tensor: _Tensor, *, object: str) -> list[Piece]:
        """The changes of a tensor of which there is a copy."""
        count = int(np.count_nonzero(held != tensor.words))
        self.budget.take(count * (8 + 2 * held.itemsize), object=f"tensor {object!r}")
        piece = Piece(index, 0, len(held), *changed_words(held, tensor.words))
        # The copy has words that no edge listed: they must still be those of the state.
        assert tensor.origin is not None
        proven = fingerprint.text(int(self._sums_before[tensor.origin]) + piece.sums(object).change)
        if proven != fingerprint.text(int(self.sums[index])):
            raise WrongBaseError(
                f"tensor {object!r} was written to while the update was prepared",
                object="the state",
                rule="TD-APP-001",
                advice="Prepare the update again.",
            )
        return [piece] if count else []


class _Tensor:
    """The present words of a tensor.

    Attributes:
        origin: its index in the state; None where it was built here.
        words: its words; those of the state, unless `own`.
        own: True where the words are the preparation's: the tensor was built here, or is a copy that edges write to.
        overlay: what the edges changed in the state's words, without overlap.
    """

    def __init__(self, origin: int | None, words: Words) -> None:
        self.origin = origin
        self.words = words
        self.own = origin is None
        self.overlay: list[Piece] = []

    def take(self, indices: Indices) -> Words:
        """The present words at these indices."""
        words = self.words.take(indices)
        for run in self.overlay:
            if run.indices is None:
                hit = np.flatnonzero((indices >= run.start) & (indices < run.stop))
                words[hit] = run.new[indices[hit] - run.start]
                continue
            at, new = run.indices, run.new
            place = np.searchsorted(at, indices)
            hit = np.flatnonzero(place < len(at))
            hit = hit[at[place[hit]] == indices[hit]]
            words[hit] = new[place[hit]]
        return words

    def part(self, start: int, stop: int) -> Words:
        """The present words from `start` to `stop`; a copy where there is an overlay."""
        words = self.words[start:stop]
        if not self.overlay:
            return words
        words = words.copy()
        for run in self.overlay:
            if run.indices is None:
                begin, end = max(start, run.start), min(stop, run.stop)
                if begin < end:
                    words[begin - start : end - start] = run.new[begin - run.start : end - run.start]
                continue
            at, new = run.indices, run.new
            first, last = np.searchsorted(at, [start, stop])
            words[at[first:last] - start] = new[first:last]
        return words

    def merge(self, fresh: Sequence[Piece]) -> None:
        """Merge the overlay and the changes of a later edge into one piece; its old words are those of the state."""
        pieces = [*self.overlay, *fresh]
        at = np.concatenate([piece.places for piece in pieces])
        new = np.concatenate([piece.new for piece in pieces])
        order = np.argsort(at, kind="stable")
        at = at[order]
        last = np.ones(len(at), np.bool_)
        np.not_equal(at[1:], at[:-1], out=last[:-1])  # of two writes to a word, the later edge's counts
        at, new = at[last], new[order[last]]
        self.overlay = [Piece(pieces[0].tensor, 0, len(self.words), at, self.words.take(at), new)]


def _jobs(packs: Sequence[tuple[Pack, Blob]], wanted: Collection[int] | None) -> Iterator[_Job]:
    """The chunks and plain tensors to decode: those with words of the wanted tensors."""
    for pack, blob in packs:
        if isinstance(pack, PlainPack):
            yield from ((pack, blob, tensor) for tensor in pack.tensors if wanted is None or tensor in wanted)
            continue
        for index, chunk in enumerate(pack.chunks):
            if wanted is None or any(tensor in wanted for tensor, _, _ in chunk.slices):
                yield pack, blob, index


def _share(job: _Job) -> float:
    """The bytes of a pack that a job decodes, about."""
    pack, blob, _ = job
    return blob.size / (len(pack.chunks) if isinstance(pack, ChunkPack) else len(pack.tensors))


class _Room:
    """A range of an arena's memory that several threads fill from the front."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self._used = 0
        self._lock = threading.Lock()

    def move(self, piece: Piece) -> Piece:
        """The same piece with its arrays in the arena."""
        indices = None if piece.indices is None else self._place(piece.indices)
        old = None if piece.old is None else self._place(piece.old)
        return Piece(piece.tensor, piece.start, piece.stop, indices, old, self._place(piece.new))

    def _place(self, array: NDArray[Number]) -> NDArray[Number]:
        with self._lock:
            start = self._used
            self._used += -(-array.nbytes // _ALIGN) * _ALIGN
        placed = self._memory[start : start + array.nbytes].view(array.dtype)
        placed[:] = array
        return placed
