"""Updates: everything slow is prepared, applying is the scatter alone (SPEC.md section 9).

`Preparation` carries a state through the hops of a route without touching it: tensors that the reader holds stay as
they are under a sparse overlay, tensors that start as zero words are built beside them. Each hop proves its base before
it is decoded and its fingerprint after. What comes out is an `Update`, bound to the state that it was made for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import chunk as chunks
from . import fingerprint
from .chunk import Indices, Piece
from .errors import IntegrityError, LimitError, WrongBaseError
from .fingerprint import U64
from .layout import Layout, Tensor
from .manifest import Base, Manifest
from .pack import Blob, ChunkPack, Pack, PlainPack
from .state import State
from .threads import ordered_map
from .words import Words, to_array

Allocate = Callable[[Tensor, "Budget"], Words]
#: Gives so many bytes of memory that the budget does not count, such as a mapped file's.
Arena = Callable[[int], NDArray[np.uint8]]

Number = TypeVar("Number", bound=np.generic)

_ALIGN = 8
#: Words of a plain tensor that are read at once.
_PLAIN = 1 << 22
#: Words that are exchanged at once.
_EXCHANGE = 1 << 16


@dataclass(frozen=True)
class Patch:
    """The listed words of one tensor: what an engine writes.

    Attributes:
        name: the tensor's name.
        shape: the whole tensor's shape.
        dtype: the dtype's name in the format, such as "BF16".
        indices: flat word indices, int64 of shape (m,), strictly increasing, C-contiguous.
        values: the new words as elements of the tensor's dtype, shape (m,), C-contiguous.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    indices: Indices
    values: NDArray[Any]


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
        self._overlay: dict[int, list[Piece]] = {}
        self._zero: frozenset[int] = frozenset()

    # -- one hop -------------------------------------------------------------------------------------------------

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
                if old in self._overlay:
                    overlay[index] = self._overlay[old]
            else:
                origin.append(None)
                built[index] = self._allocate(tensor, self._budget)
        self.layout, self._origin, self._built, self._overlay, self.sums = layout, origin, built, overlay, sums
        self._zero = frozenset(index for index in built if index not in kept)

    def _drop_all(self) -> None:
        self.layout, self._origin, self._built, self._overlay = Layout(()), [], {}, {}
        self.sums = np.zeros(0, np.uint64)

    def decode(self, packs: Sequence[tuple[Pack, Blob]], manifest: Manifest, *, object: str) -> None:
        """Decode a hop's packs over the fitted base, and prove the manifest's fingerprint.

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

    def _reserve(self, packs: Sequence[tuple[Pack, Blob]]) -> None:
        """Ask for the memory that the decoded words will take, and for that of the greatest chunk in flight."""
        total = 0
        for pack, _ in packs:
            if isinstance(pack, PlainPack):
                for tensor in pack.tensors.keys() - self._built.keys():
                    total += self._take(self.layout.tensors[tensor].nbytes, 1, object=pack.label)
                continue
            for index, chunk in enumerate(pack.chunks):
                object = pack.chunk_label(index)
                if any(tensor not in self._built for tensor, _, _ in chunk.slices):
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
        decoded = chunks.decode(
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
        built = self._built.get(piece.tensor)
        if built is None:
            if piece.indices is None:
                # A dense piece is exchanged with the words in use, so it needs no copy of them, but memory to write to.
                new = piece.new if piece.new.flags.writeable or self._room else piece.new.copy()
                piece = Piece(piece.tensor, piece.start, piece.stop, None, None, new)
            return self._room.move(piece) if self._room else piece
        part = built[piece.start : piece.stop]
        if piece.indices is None:
            part[:] = piece.new
        else:
            built[piece.indices] = piece.new
        return None

    def _merged(self, tensor: int, held: list[Piece], fresh: list[Piece]) -> Piece:
        """One run of what several hops did to a tensor; its old words are those of the state held."""
        at = np.concatenate([_indices(piece) for piece in (*held, *fresh)])
        new = np.concatenate([*(piece.new for piece in held), *(piece.new for piece in fresh)])
        order = np.argsort(at, kind="stable")
        at = at[order]
        last = np.ones(len(at), np.bool_)
        np.not_equal(at[1:], at[:-1], out=last[:-1])  # of two writes to a word, the later hop's counts
        at, new = at[last], new[order[last]]
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin)
        return Piece(tensor, 0, len(words), at, words[at], new)

    # -- what the hops read ---------------------------------------------------------------------------------------

    def take(self, tensor: int, indices: Indices) -> Words:
        """The present words at these indices."""
        if tensor in self._built:
            return self._built[tensor].take(indices)
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin).take(indices)
        for run in self._overlay.get(tensor, ()):
            at, new = _indices(run), run.new
            place = np.searchsorted(at, indices)
            hit = np.flatnonzero(place < len(at))
            hit = hit[at[place[hit]] == indices[hit]]
            words[hit] = new[place[hit]]
        return words

    def part(self, tensor: int, start: int, stop: int) -> Words:
        """The present words from `start` to `stop`; a copy where hops changed them."""
        if tensor in self._built:
            return self._built[tensor][start:stop]
        origin = self._origin[tensor]
        assert origin is not None
        words = self._state.words(origin)[start:stop]
        if tensor not in self._overlay:
            return words
        words = words.copy()
        for run in self._overlay[tensor]:
            at, new = _indices(run), run.new
            first, last = np.searchsorted(at, [start, stop])
            words[at[first:last] - start] = new[first:last]
        return words

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(
        self,
        *,
        version: int,
        chain: str,
        route: Sequence[str],
        size: int,
        seconds: float,
        on_applied: Callable[[Update, float], None] | None = None,
    ) -> Update:
        """The update that takes the state held to the last hop's version."""
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
            route=tuple(route),
            size=size,
            seconds=seconds,
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
    """The fitted base of one hop, as chunks see it."""

    def __init__(self, preparation: Preparation, zero: frozenset[int]) -> None:
        self.take = preparation.take
        self.part = preparation.part
        self._zero = zero

    def is_zero(self, tensor: int) -> bool:
        # Other chunks may have written their slices of such a tensor by now; a chunk's own slices are still zero.
        return tensor in self._zero


def _indices(piece: Piece) -> Indices:
    return np.arange(piece.start, piece.stop) if piece.indices is None else piece.indices


class Update:
    """A prepared update: fetched, checked and decoded; `apply` is only the scatter.

    It is bound to the state that it was made for, and to the moment: a state that another update changed since refuses.

    Attributes:
        version: the version that the state will be.
        base: the version that it is, if known.
        route: names of the manifests and shortcuts that it takes.
        size: bytes of their packs.
        changed: number of words that `apply` writes.
        memory: bytes that the update holds, those for `undo` included.
        seconds: how long preparing took.
        dropped: names of tensors that the new version lacks.
    """

    def __init__(
        self,
        state: State,
        *,
        layout: Layout,
        origin: Sequence[int | None],
        built: dict[int, Words],
        sparse: dict[int, list[Piece]],
        sums: U64,
        sums_before: U64,
        version: int,
        chain: str,
        route: tuple[str, ...],
        size: int,
        seconds: float,
        on_applied: Callable[[Update, float], None] | None = None,
    ) -> None:
        self._state = state
        self._layout = layout
        self._origin = origin
        self._built = built
        self._sparse = sparse
        self._sums = sums
        self._chain = chain
        self._generation = self._generation_applied = state.generation
        self._applied = False
        self._on_applied = on_applied
        self._before = (
            state.layout,
            [state.words(index) for index in range(len(state.layout))],
            state.version,
            state.chain,
        )
        self._sums_before = sums_before
        self.version = version
        self.base = state.version
        self.route = route
        self.size = size
        self.seconds = seconds
        self.fingerprint = fingerprint.text(fingerprint.combine(sums))
        runs = [piece for pieces in sparse.values() for piece in pieces]
        self.changed = sum(len(piece.new) for piece in runs) + sum(map(len, built.values()))
        self.memory = sum(words.nbytes for words in built.values()) + sum(
            piece.new.nbytes
            + (0 if piece.indices is None else piece.indices.nbytes)
            + (0 if piece.old is None else piece.old.nbytes)
            for piece in runs
        )
        self.dropped = tuple(tensor.name for tensor in state.layout.tensors if tensor.name not in layout.index)

    @property
    def layout(self) -> Layout:
        """The new version's layout."""
        return self._layout

    @property
    def sums(self) -> U64:
        """Fingerprint of each tensor of the new version, uint64 in layout order."""
        return self._sums

    def runs(self) -> Iterator[Piece]:
        """The pieces of tensors that the state holds; `tensor` counts in the new layout."""
        for tensor in sorted(self._sparse):
            yield from self._sparse[tensor]

    @property
    def built(self) -> dict[int, Words]:
        """Tensors that were built anew, by index in the new layout."""
        return self._built

    def source(self, tensor: int) -> Words | None:
        """The words that the state holds for a tensor of the new layout, or None where it was built anew."""
        origin = self._origin[tensor]
        return None if origin is None else self._before[1][origin]

    def patches(self) -> Iterator[Patch]:
        """The update as patches, one a tensor that changes, in layout order.

        All patches of one update belong together. Tensors in `dropped` have none.

        Raises:
            WrongBaseError: another update was applied since this one, so that its words are no longer all known.
        """
        if self._applied:
            self._check_last()
        for tensor, info in enumerate(self._layout.tensors):
            built = self._built.get(tensor)
            if built is not None:
                # A copy, since applying and undoing exchange these words with those of the state.
                words = (self._live(tensor) if self._applied else built).copy()
                yield self._patch(info, np.arange(len(words)), words)
            elif tensor in self._sparse:
                pieces = self._sparse[tensor]
                new = [
                    self._live(tensor)[piece.start : piece.stop]
                    if self._applied and piece.indices is None
                    else piece.new
                    for piece in pieces
                ]
                yield self._patch(info, np.concatenate([_indices(piece) for piece in pieces]), np.concatenate(new))

    @staticmethod
    def _patch(info: Tensor, indices: Indices, words: Words) -> Patch:
        values = np.ascontiguousarray(words)
        if not info.kind.packed:
            values = values.view(info.kind.array)
        return Patch(info.name, info.shape, info.dtype, np.ascontiguousarray(indices), values)

    def _live(self, tensor: int) -> Words:
        return self._state.words(tensor)

    def apply(self, *, threads: int = 1) -> None:
        """Write the update into the state: only the scatter, in O(changes).

        Raises:
            WrongBaseError: the state was changed by another update since.
            ValueError: an array of the state is read-only; nothing was written.
        """
        if self._applied or self._state.generation != self._generation:
            raise WrongBaseError(
                "the state was updated since this update was prepared",
                object=self.route[-1] if self.route else "update",
                rule="TD-APP-001",
                advice="Prepare the update again from the state as it is now.",
            )
        started = time.perf_counter()
        targets = self._targets()
        self._check_writable(targets)
        self._scatter(targets, threads, forward=True)
        words = [self._built[tensor] if target is None else target for tensor, target in enumerate(targets)]
        self._swap_in(self._layout, words, self._sums, self.version, self._chain)
        self._applied = True
        self._generation_applied = self._state.generation
        if self._on_applied:
            self._on_applied(self, time.perf_counter() - started)

    def undo(self, *, threads: int = 1) -> None:
        """Take the state back to what it was before `apply`, in O(changes).

        Raises:
            WrongBaseError: the update is not the last that was applied to the state.
        """
        self._check_last()
        self._scatter(self._targets(), threads, forward=False)
        layout, words, version, chain = self._before
        self._swap_in(layout, words, self._sums_before, version, chain)
        self._applied = False
        self._state.generation = self._generation  # the words are those of before, so what was made for them fits again

    def _check_last(self) -> None:
        if not self._applied or self._state.generation != self._generation_applied:
            raise WrongBaseError(
                "this update is not the last that was applied to the state",
                object=self.route[-1] if self.route else "update",
                rule="TD-APP-001",
                advice="Undo updates in the reverse of the order in which they were applied.",
            )

    def _targets(self) -> list[Words | None]:
        """For each tensor of the new layout the memory that the state has for it, or None where it has none."""
        layout, words, _, _ = self._before
        targets: list[Words | None] = []
        for tensor, info in enumerate(self._layout.tensors):
            origin = self._origin[tensor]
            if origin is None:
                same = layout.index.get(info.name)
                origin = same if same is not None and layout.tensors[same] == info else None
            targets.append(None if origin is None else words[origin])
        return targets

    def _check_writable(self, targets: Sequence[Words | None]) -> None:
        for tensor, target in enumerate(targets):
            if target is not None and (tensor in self._sparse or tensor in self._built) and not target.flags.writeable:
                raise ValueError(
                    f"tensor {self._layout.tensors[tensor].name!r} is read-only; nothing was written. "
                    "Prepare the update for a writable state, such as state.copy()."
                )

    def _scatter(self, targets: Sequence[Words | None], threads: int, *, forward: bool) -> None:
        def write(job: tuple[Words, Piece]) -> None:
            target, piece = job
            if piece.indices is None:
                _exchange(target[piece.start : piece.stop], piece.new)
            elif forward:
                target[piece.indices] = piece.new
            else:
                target[piece.indices] = 0 if piece.old is None else piece.old

        jobs = [
            (target, piece)
            for tensor, target in enumerate(targets)
            if target is not None
            for piece in self._sparse.get(tensor, ())
        ]
        for tensor, built in self._built.items():
            target = targets[tensor]
            if target is not None:
                jobs.append((target, Piece(tensor, 0, len(built), None, None, built)))
        for _ in ordered_map(write, jobs, threads=threads):
            pass

    def _swap_in(
        self, layout: Layout, words: Sequence[Words], sums: U64, version: int | None, chain: str | None
    ) -> None:
        arrays = self._state.arrays
        if arrays is not None and layout != self._state.layout:
            old, new = set(self._state.layout.tensors), set(layout.tensors)
            for tensor in old - new:
                del arrays[tensor.name]
            for index, tensor in enumerate(layout.tensors):
                if tensor not in old:
                    arrays[tensor.name] = to_array(words[index], tensor.kind, tensor.shape)
        self._state.remember(layout, words, sums)
        self._state.version, self._state.chain = version, chain

    def __repr__(self) -> str:
        return (
            f"Update(to version {self.version}, {self.size:,} bytes, {self.changed:,} words, "
            f"{self.memory:,} bytes of memory{', applied' if self._applied else ''})"
        )


def _exchange(one: Words, other: Words) -> None:
    """Exchange the words of two rows, block by block."""
    for start in range(0, len(one), _EXCHANGE):
        stop = start + _EXCHANGE
        kept = one[start:stop].copy()
        one[start:stop] = other[start:stop]
        other[start:stop] = kept
