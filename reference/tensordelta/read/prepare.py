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
from ..errors import IntegrityError, LimitError, WrongBaseError
from ..format.chunk_codec import Indices, Piece, decode
from ..format.layout import Layout, Tensor
from ..format.manifest import Base, Manifest
from ..format.pack import Blob, ChunkPack, Pack, PlainPack
from ..state.state import State
from ..state.update import Prepared
from ..threads import ordered_map

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


class Budget:
    """A reader's memory budget, in bytes. It is asked before memory is allocated."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, amount: int, *, object: str) -> None:
        """Reserve memory.

        Raises:
            LimitError: it would pass the budget.
        """
        self.check(amount, object=object)
        self.used += amount

    def check(self, amount: int, *, object: str) -> None:
        """Check that there is room for a short time.

        Raises:
            LimitError: it would pass the budget.
        """
        if self.used + amount > self.limit:
            raise LimitError(
                f"needs {self.used + amount:,} bytes of memory, the budget is {self.limit:,}",
                object=object,
                rule="TD-LIM-002",
                advice="Raise the budget (memory=…), or take a route with smaller steps.",
            )


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
        self._state = state
        self._sums_before = sums
        self._threads = threads
        self._budget = budget
        self._allocate = allocate
        self._arena = arena
        self._room: _Room | None = None
        self._in_flight = in_flight
        self.layout = state.layout
        self.sums: U64 = sums.copy()
        # For each tensor its index in the state, or None where it was built here, or is not held.
        self._origin: list[int | None] = list(range(len(state.layout)))
        self._built: dict[int, Words] = {}
        # Copies of the present words of tensors that the edges so far changed much.
        self._copied: dict[int, Words] = {}
        self._overlay: dict[int, list[Piece]] = {}
        # Tensors that the last fitting made of zero words, and those that are not held.
        self._zero: frozenset[int] = frozenset()

    # -- one edge -------------------------------------------------------------------------------------------------

    def check_base(self, base: Base | None, layout: Layout | None, *, object: str) -> None:
        """Prove that the present state is the base that a manifest starts from.

        Args:
            base: the manifest's base; None for a full version, which starts from the empty state.
            layout: the base's layout, None where its digest is known to be that of the present one.

        Raises:
            WrongBaseError: it is not.
        """
        if base is None:
            return
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
        self._overlay = {
            tensor: pieces if len(pieces) == 1 else [self._merged(tensor, pieces, [])]
            for tensor, pieces in self._overlay.items()
        }
        if full:
            self.layout, self._origin, self._built, self._copied, self._overlay = Layout(()), [], {}, {}, {}
            self.sums = np.zeros(0, np.uint64)
        if layout == self.layout and names is None:
            return
        before = self.layout
        origin: list[int | None] = []
        built: dict[int, Words] = {}
        copied: dict[int, Words] = {}
        overlay: dict[int, list[Piece]] = {}
        sums = np.zeros(len(layout), np.uint64)
        zero: set[int] = set()
        for index, tensor in enumerate(layout.tensors):
            old = before.index.get(tensor.name)
            wanted = names is None or tensor.name in names
            if wanted and old is not None and before.tensors[old] == tensor and self._is_held(old):
                origin.append(self._origin[old])
                sums[index] = self.sums[old]
                if old in self._built:
                    built[index] = self._built[old]
                if old in self._copied:
                    copied[index] = self._copied[old]
                if old in self._overlay:
                    overlay[index] = [replace(piece, tensor=index) for piece in self._overlay[old]]
                continue
            origin.append(None)
            zero.add(index)
            if wanted:
                built[index] = self._allocate(tensor, self._budget)
        self.layout, self._origin, self.sums = layout, origin, sums
        self._built, self._copied, self._overlay = built, copied, overlay
        self._zero = frozenset(zero)

    def decode(self, packs: Sequence[tuple[Pack, Blob]], *, names: Collection[str] | None = None) -> None:
        """Decode an edge's packs over the fitted state.

        Args:
            packs: the edge's packs, or those of them that hold words of `names`.
            names: the tensors whose new words are needed, all of them held; by default all. Chunks without a word of
                them are skipped, and the fingerprint of a chunk is proven where all its tensors are held (TD-RDR-016).

        Raises:
            MalformedError, IntegrityError, LimitError: see SPEC.md sections 7 and 9.
        """
        base = _Base(self, self._zero)
        wanted = None if names is None else {self.layout.index[name] for name in names}
        jobs = list(_jobs(packs, wanted))
        self._reserve(jobs)

        def cost(job: _Job) -> int:
            pack, _, index = job
            return pack.chunks[index].memory if isinstance(pack, ChunkPack) else _PLAIN * 16

        def work(job: _Job) -> list[tuple[int, int, Piece | None]]:
            pack, blob, index = job
            if isinstance(pack, ChunkPack):
                return self._decode_chunk(pack, blob, index, base)
            return self._read_plain(pack, blob, index, base)

        fresh: dict[int, list[Piece]] = {}
        for result in ordered_map(work, jobs, threads=self._threads, cost=cost, budget=self._in_flight):
            for tensor, each, piece in result:
                fingerprint.add_to(self.sums, tensor, each)
                if piece is not None:
                    fresh.setdefault(tensor, []).append(piece)
        for tensor, pieces in fresh.items():
            pieces.sort(key=lambda piece: piece.start)
            held = self._overlay.get(tensor)
            self._overlay[tensor] = pieces if held is None else [self._merged(tensor, held, pieces)]
            if held is not None:
                self._copy(tensor)

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

    def _copy(self, tensor: int) -> None:
        """Replace a tensor's overlay by a copy of its words, where several edges changed so much that it is no larger.

        Merging an edge into an overlay takes time for the changes of all edges before; writing it into a copy does not.
        """
        (piece,) = self._overlay[tensor]
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin)
        if words.nbytes > _BYTES_A_CHANGE * len(piece.new):
            return
        try:
            self._budget.take(words.nbytes, object=f"tensor {self.layout.tensors[tensor].name!r}")
        except LimitError:  # then the overlay stays
            return
        copy = words.copy()
        copy[piece.places] = piece.new
        self._copied[tensor] = copy
        del self._overlay[tensor]
        if self._arena is None:
            self._budget.used -= len(piece.new) * (8 + 2 * words.itemsize)

    def _own(self, tensor: int) -> Words | None:
        """The tensor's present words, where they lie in memory of this preparation's own."""
        built = self._built.get(tensor)
        return self._copied.get(tensor) if built is None else built

    def _is_held(self, tensor: int) -> bool:
        return self._origin[tensor] is not None or tensor in self._built

    def _is_overlaid(self, tensor: int) -> bool:
        """True where changes of the tensor go to the overlay, since its words lie in the state."""
        return self._origin[tensor] is not None and tensor not in self._copied

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
            self._budget.check(chunk.memory, object=object)
        self._room = _Room(self._arena(total)) if self._arena and total else None

    def _take(self, held: int, pieces: int, *, object: str) -> int:
        """Reserve memory for pieces, unless there is an arena; returns the bytes that an arena needs for them."""
        if self._arena is None:
            self._budget.take(held, object=object)
        return held + 3 * _ALIGN * (pieces + held // _PLAIN)

    def _decode_chunk(
        self, pack: ChunkPack, blob: Blob, index: int, base: _Base
    ) -> list[tuple[int, int, Piece | None]]:
        chunk, object = pack.chunks[index], pack.chunk_label(index)
        whole = all(self._is_held(tensor) for tensor, _, _ in chunk.slices)
        decoded = decode(chunk, self.layout, pack.reader(index, blob), base, object=object, prove=whole)
        return [
            (piece.tensor, each, self._kept(piece))
            for piece, each in zip(decoded.pieces, decoded.sums, strict=True)
            if self._is_held(piece.tensor)
        ]

    def _read_plain(self, pack: PlainPack, blob: Blob, tensor: int, base: _Base) -> list[tuple[int, int, Piece | None]]:
        info = self.layout.tensors[tensor]
        itemsize = info.kind.word.itemsize
        results: list[tuple[int, int, Piece | None]] = []
        for start in range(0, info.words, _PLAIN):
            stop = min(start + _PLAIN, info.words)
            data = blob.read(pack.tensors[tensor] + start * itemsize, (stop - start) * itemsize)
            new = np.frombuffer(data, info.kind.word)
            old = None if base.is_zero(tensor) else base.part(tensor, start, stop)
            piece = Piece(tensor, start, stop, None, old, new)
            results.append((tensor, piece.sum(info.name), self._kept(piece)))
        return results

    def _kept(self, piece: Piece) -> Piece | None:
        """Write a piece at once where the tensor's words are this preparation's own; else return it for the overlay."""
        own = self._own(piece.tensor)
        if own is None:
            if piece.indices is None:
                # Applying exchanges a dense piece with the words in use: it needs memory to write to, and no old words.
                new = piece.new if piece.new.flags.writeable or self._room else piece.new.copy()
                piece = Piece(piece.tensor, piece.start, piece.stop, None, None, new)
            return self._room.move(piece) if self._room else piece
        own[slice(piece.start, piece.stop) if piece.indices is None else piece.indices] = piece.new
        return None

    def _merged(self, tensor: int, held: list[Piece], fresh: list[Piece]) -> Piece:
        """The changes of several edges to a tensor as one piece; its old words are those of the state."""
        at = np.concatenate([piece.places for piece in (*held, *fresh)])
        new = np.concatenate([*(piece.new for piece in held), *(piece.new for piece in fresh)])
        order = np.argsort(at, kind="stable")
        at = at[order]
        last = np.ones(len(at), np.bool_)
        np.not_equal(at[1:], at[:-1], out=last[:-1])  # of two writes to a word, the later edge's counts
        at, new = at[last], new[order[last]]
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin)
        return Piece(tensor, 0, len(words), at, words[at], new)

    # -- what the edges read ---------------------------------------------------------------------------------------

    def take(self, tensor: int, indices: Indices) -> Words:
        """The present words at these indices."""
        own = self._own(tensor)
        if own is not None:
            return own.take(indices)
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin).take(indices)
        for run in self._overlay.get(tensor, ()):
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

    def part(self, tensor: int, start: int, stop: int) -> Words:
        """The present words from `start` to `stop`; a copy where edges changed them."""
        own = self._own(tensor)
        if own is not None:
            return own[start:stop]
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin)[start:stop]
        if tensor not in self._overlay:
            return words
        words = words.copy()
        for run in self._overlay[tensor]:
            if run.indices is None:
                begin, end = max(start, run.start), min(stop, run.stop)
                if begin < end:
                    words[begin - start : end - start] = run.new[begin - run.start : end - run.start]
                continue
            at, new = run.indices, run.new
            first, last = np.searchsorted(at, [start, stop])
            words[at[first:last] - start] = new[first:last]
        return words

    def words(self, tensor: int) -> Words:
        """The present words of a tensor that is held; the state's own memory where no edge changed them."""
        return self.part(tensor, 0, self.layout.tensors[tensor].words)

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(
        self, *, version: int, chain: str, layout_digest: str, route: Sequence[str], size: int, seconds: float
    ) -> Prepared:
        """What takes the state to the version of the last edge; the arguments are those of `Prepared`.

        Raises:
            LimitError: it would pass the memory budget.
            WrongBaseError: the state was written to meanwhile.
        """
        for tensor in list(self._copied):
            words, origin = self._copied.pop(tensor), self._origin[tensor]
            assert origin is not None
            info = self.layout.tensors[tensor]
            held = self._state.words(origin)
            count = int(np.count_nonzero(held != words))
            self._budget.take(count * (8 + 2 * words.itemsize), object=f"tensor {info.name!r}")
            indices, old, new = changed_words(held, words)
            piece = Piece(tensor, 0, len(words), indices, old, new)
            # The copy has words that no edge listed: they must still be those of the state.
            proven = fingerprint.text(int(self._sums_before[origin]) + piece.sum(info.name))
            if proven != fingerprint.text(int(self.sums[tensor])):
                raise WrongBaseError(
                    f"tensor {info.name!r} was written to while the update was prepared",
                    object="the state",
                    rule="TD-APP-001",
                    advice="Prepare the update again.",
                )
            if len(indices):
                self._overlay[tensor] = [piece]
        return Prepared(
            layout=self.layout,
            origin=self._origin,
            built=self._built,
            sparse=self._overlay,
            sums=self.sums,
            sums_before=self._sums_before,
            version=version,
            chain=chain,
            layout_digest=layout_digest,
            route=tuple(route),
            size=size,
            seconds=seconds,
        )


def _jobs(packs: Sequence[tuple[Pack, Blob]], wanted: Collection[int] | None) -> Iterator[_Job]:
    """The chunks and plain tensors to decode: those with words of the wanted tensors."""
    for pack, blob in packs:
        if isinstance(pack, PlainPack):
            yield from ((pack, blob, tensor) for tensor in pack.tensors if wanted is None or tensor in wanted)
            continue
        for index, chunk in enumerate(pack.chunks):
            if wanted is None or any(tensor in wanted for tensor, _, _ in chunk.slices):
                yield pack, blob, index


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


class _Base:
    """The fitted base of one edge, for `decode` of a chunk."""

    def __init__(self, preparation: Preparation, zero: frozenset[int]) -> None:
        self.take = preparation.take
        self.part = preparation.part
        self._zero = zero

    def is_zero(self, tensor: int) -> bool:
        # Other chunks may have written their words of such a tensor already; those of the chunk being decoded are zero.
        return tensor in self._zero
