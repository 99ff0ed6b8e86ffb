"""Preparations: a state on its way to another version (SPEC.md section 9, steps 6 and 8 to 11).

A `Preparation` carries a state through the edges of a route without touching it: tensors that the reader holds stay as
they are under a sparse overlay, tensors that start as zero words are built beside them. Each edge proves its base
before it is decoded and its fingerprint after. What comes out is an `Update`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
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
from ..state.update import Update
from ..threads import ordered_map

Allocate = Callable[[Tensor, "Budget"], Words]
#: Gives so many bytes of memory that the budget does not count, such as a mapped file's.
Arena = Callable[[int], NDArray[np.uint8]]

Number = TypeVar("Number", bound=np.generic)

_ALIGN = 8
#: Words of a plain tensor that are read at once.
_PLAIN = 1 << 22
#: A listed word takes at least this much: its index, and the old and the new word behind it.
_BYTES_A_CHANGE = 16


class Budget:
    """A reader's memory budget, in bytes: asked before anything is allocated."""

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
        """Check that there is room for something passing.

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
    """A state under way to another version; the state itself stays as it is.

    Args:
        state: what the reader holds.
        sums: fingerprints of its tensors.
        allocate: gives memory for tensors that start as zero words.
        threads: how many chunks are decoded at once.
        budget: the memory budget.
        arena: gives memory for the decoded words; by default they stay where they were decoded.
        in_flight: bytes that chunks being decoded may need together; a single chunk may need more.
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
        # For each tensor: its index in the state held, or None where it was built here.
        self._origin: list[int | None] = list(range(len(state.layout)))
        self._built: dict[int, Words] = {}
        # Of tensors that the edges so far changed much: their present words, a copy.
        self._copied: dict[int, Words] = {}
        self._overlay: dict[int, list[Piece]] = {}
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

    def fit(self, layout: Layout, *, full: bool) -> None:
        """Fit the present state to a manifest's layout (SPEC.md section 5)."""
        self._zero = frozenset()
        self._overlay = {
            tensor: pieces if len(pieces) == 1 else [self._merged(tensor, pieces, [])]
            for tensor, pieces in self._overlay.items()
        }
        if full:
            self._drop_all()
        if layout == self.layout:
            return
        before = self.layout
        origin: list[int | None] = []
        built: dict[int, Words] = {}
        copied: dict[int, Words] = {}
        overlay: dict[int, list[Piece]] = {}
        sums = np.zeros(len(layout), np.uint64)
        kept: set[int] = set()
        for index, tensor in enumerate(layout.tensors):
            old = before.index.get(tensor.name)
            if old is not None and before.tensors[old] == tensor:
                origin.append(self._origin[old])
                sums[index] = self.sums[old]
                if old in self._built:
                    built[index] = self._built[old]
                    kept.add(index)
                if old in self._copied:
                    copied[index] = self._copied[old]
                if old in self._overlay:
                    overlay[index] = [replace(piece, tensor=index) for piece in self._overlay[old]]
            else:
                origin.append(None)
                built[index] = self._allocate(tensor, self._budget)
        self.layout, self._origin, self.sums = layout, origin, sums
        self._built, self._copied, self._overlay = built, copied, overlay
        self._zero = frozenset(index for index in built if index not in kept)

    def _drop_all(self) -> None:
        self.layout, self._origin, self._built, self._copied, self._overlay = Layout(()), [], {}, {}, {}
        self.sums = np.zeros(0, np.uint64)

    def decode(self, packs: Sequence[tuple[Pack, Blob]], manifest: Manifest, *, object: str) -> None:
        """Decode an edge's packs over the fitted base, and prove the manifest's fingerprint.

        Raises:
            MalformedError, IntegrityError, LimitError: see SPEC.md sections 7 and 9.
        """
        base = _Base(self, self._zero)
        fresh: dict[int, list[Piece]] = {}
        jobs: list[tuple[Pack, Blob, int]] = []
        for pack, blob in packs:
            if isinstance(pack, ChunkPack):
                jobs += ((pack, blob, index) for index in range(len(pack.chunks)))
            else:
                jobs += ((pack, blob, tensor) for tensor in pack.tensors)

        def cost(job: tuple[Pack, Blob, int]) -> int:
            pack, _, index = job
            return pack.chunks[index].memory if isinstance(pack, ChunkPack) else _PLAIN * 16

        def work(job: tuple[Pack, Blob, int]) -> list[tuple[int, int, Piece | None]]:
            pack, blob, index = job
            if isinstance(pack, ChunkPack):
                return self._decode_chunk(pack, blob, index, base)
            return self._read_plain(pack, blob, index, base)

        self._reserve(packs)
        sums = self.sums.copy()
        results = ordered_map(work, jobs, threads=self._threads, cost=cost, budget=self._in_flight)
        for result in results:
            for tensor, each, piece in result:
                fingerprint.add_to(sums, tensor, each)
                if piece is not None:
                    fresh.setdefault(tensor, []).append(piece)
        self.sums = sums
        got = fingerprint.text(fingerprint.combine(sums))
        if got != manifest.fingerprint:
            raise IntegrityError(
                f"the new state's fingerprint is {got}, not {manifest.fingerprint}",
                object=object,
                rule="TD-RDR-007",
                advice="The packs do not make the state that was published; have it published again.",
            )
        for tensor, pieces in fresh.items():
            pieces.sort(key=lambda piece: piece.start)
            held = self._overlay.get(tensor)
            self._overlay[tensor] = pieces if held is None else [self._merged(tensor, held, pieces)]
            if held is not None:
                self._copy(tensor)

    def _copy(self, tensor: int) -> None:
        """Give a tensor a copy of its own where several edges changed so much that this takes no more memory.

        Merging costs what all edges before have changed, again at each edge; writing into a copy what the edge changes.
        """
        (piece,) = self._overlay[tensor]
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin)
        if words.nbytes > _BYTES_A_CHANGE * len(piece.new):
            return
        try:
            self._budget.take(words.nbytes, object=f"tensor {self.layout.tensors[tensor].name!r}")
        except LimitError:  # merging goes on without
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

    def _reserve(self, packs: Sequence[tuple[Pack, Blob]]) -> None:
        """Ask for the memory that the decoded words will take, and for that of the greatest chunk in flight."""
        total = 0
        for pack, _ in packs:
            if isinstance(pack, PlainPack):
                for tensor in pack.tensors.keys() - self._built.keys() - self._copied.keys():
                    total += self._take(self.layout.tensors[tensor].nbytes, 1, object=pack.label)
                continue
            for index, chunk in enumerate(pack.chunks):
                object = pack.chunk_label(index)
                if any(self._own(tensor) is None for tensor, _, _ in chunk.slices):
                    held = chunk.changed * (8 + 2 * chunk.kind.word.itemsize)
                    total += self._take(held, len(chunk.slices), object=object)
                self._budget.check(chunk.memory, object=object)
        self._room = _Room(self._arena(total)) if self._arena and total else None

    def _take(self, held: int, pieces: int, *, object: str) -> int:
        """Memory for pieces: the budget's, unless there is an arena; gives what the arena needs for them."""
        if self._arena is None:
            self._budget.take(held, object=object)
        return held + 3 * _ALIGN * (pieces + held // _PLAIN)

    def _decode_chunk(
        self, pack: ChunkPack, blob: Blob, index: int, base: _Base
    ) -> list[tuple[int, int, Piece | None]]:
        decoded = decode(
            pack.chunks[index], self.layout, pack.reader(index, blob), base, object=pack.chunk_label(index)
        )
        return [
            (piece.tensor, each, self._kept(piece)) for piece, each in zip(decoded.pieces, decoded.sums, strict=True)
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
        """Write a piece at once where nobody uses the tensor yet; else keep it."""
        own = self._own(piece.tensor)
        if own is None:
            if piece.indices is None:
                # A dense piece is exchanged with the words in use, so it needs no copy of them, but memory to write to.
                new = piece.new if piece.new.flags.writeable or self._room else piece.new.copy()
                piece = Piece(piece.tensor, piece.start, piece.stop, None, None, new)
            return self._room.move(piece) if self._room else piece
        if piece.indices is None:
            own[piece.start : piece.stop] = piece.new
        else:
            own[piece.indices] = piece.new
        return None

    def _merged(self, tensor: int, held: list[Piece], fresh: list[Piece]) -> Piece:
        """One run of what several edges did to a tensor; its old words are those of the state held."""
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
        on_applied: Callable[[Update, float], None] | None = None,
    ) -> Update:
        """The update that takes the state held to the last edge's version."""
        for tensor in list(self._copied):
            words, origin = self._copied.pop(tensor), self._origin[tensor]
            assert origin is not None
            info = self.layout.tensors[tensor]
            held = self._state.words(origin)
            count = int(np.count_nonzero(held != words))
            self._budget.take(count * (8 + 2 * words.itemsize), object=f"tensor {info.name!r}")
            indices, old, new = changed_words(held, words)
            piece = Piece(tensor, 0, len(words), indices, old, new)
            # The copy holds words that no edge listed: the state must still be the one that it was made of.
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
        return Update(
            self._state,
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
            threads=self._threads,
            on_applied=on_applied,
        )


class _Room:
    """A stretch of an arena, filled from the front by several threads."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory
        self._used = 0
        self._lock = threading.Lock()

    def move(self, piece: Piece) -> Piece:
        """The same piece, its arrays in the arena."""
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
    """The fitted base of one edge, as chunks see it."""

    def __init__(self, preparation: Preparation, zero: frozenset[int]) -> None:
        self.take = preparation.take
        self.part = preparation.part
        self._zero = zero

    def is_zero(self, tensor: int) -> bool:
        # Other chunks may have written their slices of such a tensor by now; a chunk's own slices are still zero.
        return tensor in self._zero
