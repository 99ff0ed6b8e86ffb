"""Prepared updates, and the scatter that applies them (SPEC.md section 9.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codecs import fingerprint
from ..codecs.fingerprint import U64
from ..codecs.words import Words, same_bits, to_array
from ..errors import StoreError, TensorDeltaError, WrongBaseError
from ..format.chunk_codec import Indices, Piece
from ..format.layout import Layout, Tensor
from ..threads import ordered_map
from .frameworks import Mirror
from .state import State

#: What a state remembers to be: its version, chain, and the version's digests.
_Identity = tuple[int | None, str | None, tuple[str, str] | None]

#: Words that are exchanged at once.
_EXCHANGE = 1 << 16
#: Words from which on threads gain more than it costs to start them.
_MANY = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class Patch:
    """The listed words of one tensor, for an engine to write. Two are equal where all their bits are.

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

    def __repr__(self) -> str:
        return f"Patch({self.name!r}, {self.dtype} {list(self.shape)}, {len(self.indices):,} words)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Patch):
            return NotImplemented
        return (
            (self.name, self.shape, self.dtype) == (other.name, other.shape, other.dtype)
            and same_bits(self.indices, other.indices)
            and same_bits(self.values, other.values)
        )


@dataclass(frozen=True)
class Prepared:
    """What takes a state to a version, decoded and proven.

    Attributes:
        layout: the version's layout.
        origin: for each of its tensors the index in the state, or None where the tensor was built.
        built: the words of tensors that were built, by index.
        sparse: the changes of tensors that the state holds, by index.
        sums: the fingerprints of the version's tensors, uint64 in layout order.
        sums_before: those of the state's.
        version, chain, layout_digest: the version, its chain's id, and the digest of its layout.
        route: names of the manifests and shortcuts that were followed.
        size: bytes of their packs.
        seconds: how long preparing took.
        passed_over: the faults of edges that another route was taken for.
    """

    layout: Layout
    origin: Sequence[int | None]
    built: dict[int, Words]
    sparse: dict[int, list[Piece]]
    sums: U64
    sums_before: U64
    version: int
    chain: str
    layout_digest: str
    route: tuple[str, ...]
    size: int
    seconds: float
    passed_over: tuple[TensorDeltaError | StoreError, ...] = ()


class Update:
    """A prepared update: fetched, checked and decoded; `apply` is only the scatter.

    It belongs to the state that it was prepared for, as that was then: after another update it refuses to be applied.
    Several threads may use one object.

    Args:
        state: the state that it was prepared for.
        prepared: what takes the state to the version.
        threads: how many threads `apply` uses where many words change.
        on_applied: called after each `apply` with the update and the seconds that it took.

    Attributes:
        version: the version that the state will be.
        base: the version that it is, if known.
        route: names of the manifests and shortcuts that it takes.
        size: bytes of their packs.
        changed: number of words that `apply` writes.
        memory: bytes that the update holds, those for `undo` included.
        seconds: how long preparing took.
        passed_over: the faults of edges that failed, so that another route was taken; each names its object.
        dropped: names of tensors that the new version lacks.
        layout: the new version's layout.
        fingerprint: the new version's, 16 hex digits.
        sums: fingerprint of each of its tensors, uint64 in layout order.
        built: the words of its tensors that the state does not hold, by index in its layout.
    """

    def __init__(
        self,
        state: State,
        prepared: Prepared,
        *,
        threads: int = 1,
        on_applied: Callable[[Update, float], None] | None = None,
    ) -> None:
        self._state = state
        self._prepared = prepared
        self._sparse = prepared.sparse
        self._threads = threads
        self._on_applied = on_applied
        self._generation = self._generation_applied = state.generation
        self._applied = False
        self._before = (
            state.layout,
            [state.words(index) for index in range(len(state.layout))],
            (state.version, state.chain, state.version_digests),
        )
        self.layout, self.built, self.sums = prepared.layout, prepared.built, prepared.sums
        self.version = prepared.version
        self.base = state.version
        self.route = prepared.route
        self.size = prepared.size
        self.seconds = prepared.seconds
        self.passed_over = prepared.passed_over
        self.fingerprint = fingerprint.text(fingerprint.combine(prepared.sums))
        runs = [piece for pieces in self._sparse.values() for piece in pieces]
        self.changed = sum(len(piece.new) for piece in runs) + sum(map(len, self.built.values()))
        self.memory = sum(words.nbytes for words in self.built.values()) + sum(
            piece.new.nbytes
            + (0 if piece.indices is None else piece.indices.nbytes)
            + (0 if piece.old is None else piece.old.nbytes)
            for piece in runs
        )
        self.dropped = tuple(tensor.name for tensor in state.layout.tensors if tensor.name not in self.layout.index)

    @property
    def stale(self) -> bool:
        """True where this update, or another after it, was applied to the state, so that `apply` would refuse."""
        return self._applied or self._state._generation != self._generation

    def runs(self) -> Iterator[Piece]:
        """The pieces of tensors that the state holds; `tensor` counts in the new layout."""
        for tensor in sorted(self._sparse):
            yield from self._sparse[tensor]

    def source(self, tensor: int) -> Words | None:
        """The words that the state had for a tensor of the new layout, or None where it had none."""
        origin = self._prepared.origin[tensor]
        return None if origin is None else self._before[1][origin]

    def patches(self) -> Iterator[Patch]:
        """The update as patches in layout order, one for each tensor that changes.

        An engine takes all patches of an update together. Tensors in `dropped` have none.

        Raises:
            WrongBaseError: another update was applied after this one, so that not all of its words are known any more.
        """
        if self._applied:
            self._check_last()
        for tensor, info in enumerate(self.layout.tensors):
            built = self.built.get(tensor)
            if built is not None:
                # A copy: applying and undoing exchange these words with those of the state.
                words = (self._state.words(tensor) if self._applied else built).copy()
                yield self._patch(info, np.arange(len(words)), words)
            elif tensor in self._sparse:
                pieces = self._sparse[tensor]
                new = [
                    self._state.words(tensor)[piece.start : piece.stop]
                    if self._applied and piece.indices is None
                    else piece.new
                    for piece in pieces
                ]
                yield self._patch(info, np.concatenate([piece.places for piece in pieces]), np.concatenate(new))

    @staticmethod
    def _patch(info: Tensor, indices: Indices, words: Words) -> Patch:
        values = np.ascontiguousarray(words)
        if not info.kind.packed:
            values = values.view(info.kind.array)
        return Patch(info.name, info.shape, info.dtype, np.ascontiguousarray(indices), values)

    def apply(self, *, threads: int | None = None, write: Callable[[Update], object] | None = None) -> None:
        """Write the update into the state: only the scatter, in O(changes).

        Args:
            threads: how many write at once; by default as many as prepared the update, and one where few words change.
            write: writes the update elsewhere as well, such as into an engine's own parameters: its `patches`, and what
                is `dropped`. It is called when the state has the update, and not at all if the state cannot take it. If
                it raises, the state is taken back, and the update can be applied again. What `write` has done by then
                it has to take back itself, unless the same update is written next, whole. No other thread may apply an
                update meanwhile.

        Raises:
            WrongBaseError: another update has changed the state; or an array of the user's own was replaced, or written
                to where words are listed.
            ValueError: an array of the state is read-only; nothing was written.
            Exception: raised by `write`.
        """
        started = time.perf_counter()
        if write is None:
            with self._state._lock:
                self._apply(threads)
        else:
            self._apply_and_write(threads, write)
        # Called when the state is unlocked: the listener may undo, or apply the next update.
        if self._on_applied:
            self._on_applied(self, time.perf_counter() - started)

    def _apply_and_write(self, threads: int | None, write: Callable[[Update], object]) -> None:
        """Apply, then write elsewhere; or neither."""
        had = self._applied
        try:
            with self._state._lock:
                self._apply(threads)
            write(self)
        except BaseException:
            if self._applied and not had:
                self.undo(threads=threads)
            raise

    def _apply(self, threads: int | None) -> None:
        if self.stale:
            raise self._wrong_base(
                "the state was updated after this update was prepared",
                "Prepare the update again from the state as it is now.",
            )
        targets = self._targets()
        self._check_writable(targets)
        self._check_unaltered(targets)
        self._check_tied(targets)
        self._scatter(targets, threads, forward=True)
        words = [self.built[tensor] if target is None else target for tensor, target in enumerate(targets)]
        digests = (self._prepared.layout_digest, self.fingerprint)
        self._swap_in(self.layout, words, self.sums, (self.version, self._prepared.chain, digests))
        self._applied = True
        self._generation_applied = self._state._generation

    def undo(self, *, threads: int | None = None) -> None:
        """Take the state back to what it was before `apply`, in O(changes).

        Args:
            threads: as for `apply`.

        Raises:
            WrongBaseError: the update is not the last that was applied to the state.
        """
        with self._state._lock:
            self._check_last()
            self._scatter(self._targets(), threads, forward=False)
            layout, words, identity = self._before
            self._swap_in(layout, words, self._prepared.sums_before, identity)
            self._applied = False
            # The words are those of before: updates that were prepared for them can be applied again.
            self._state._generation = self._generation

    def _check_last(self) -> None:
        if not self._applied or self._state._generation != self._generation_applied:
            raise self._wrong_base(
                "this update is not the last that was applied to the state",
                "Undo updates in the reverse of the order in which they were applied.",
            )

    def _wrong_base(self, reason: str, advice: str) -> WrongBaseError:
        object = self.route[-1] if self.route else "update"
        return WrongBaseError(reason, object=object, rule="TD-APP-001", advice=advice)

    def _targets(self) -> list[Words | None]:
        """For each tensor of the new layout the state's memory for it, or None where it has none."""
        layout, words, _ = self._before
        targets: list[Words | None] = []
        for tensor, info in enumerate(self.layout.tensors):
            origin = self._prepared.origin[tensor]
            if origin is None:
                same = layout.index.get(info.name)
                origin = same if same is not None and layout.tensors[same] == info else None
            targets.append(None if origin is None else words[origin])
        return targets

    def _check_writable(self, targets: Sequence[Words | None]) -> None:
        for tensor, target in enumerate(targets):
            if target is not None and (tensor in self._sparse or tensor in self.built) and not target.flags.writeable:
                raise ValueError(
                    f"tensor {self.layout.tensors[tensor].name!r} is read-only; nothing was written. "
                    "Prepare the update for a writable state, such as state.copy()."
                )
            if tensor in self._sparse and self.layout.tensors[tensor].name in self._state.copies:
                raise ValueError(
                    f"array {self.layout.tensors[tensor].name!r} is not contiguous, so that an update cannot write "
                    "into it; nothing was written. Make the state of contiguous arrays."
                )

    def _check_unaltered(self, targets: Sequence[Words | None]) -> None:
        """Check that no array of the user's own was replaced, or written to where words are listed."""
        if self._state.owned:
            return
        for tensor, pieces in self._sparse.items():
            info, target = self.layout.tensors[tensor], targets[tensor]
            assert target is not None
            replaced = self._state.arrays is not None and not self._state._is_over(info)
            live = self._state._mirrors.get(info.name)
            if replaced or any(
                not np.array_equal(target.take(piece.indices) if live is None else live.read(piece.indices), piece.old)
                for piece in pieces
                if piece.indices is not None and piece.old is not None
            ):
                done = "replaced" if replaced else "written to"
                raise self._wrong_base(
                    f"array {info.name!r} was {done} after the update was prepared",
                    "Prepare the update again from the arrays as they are now.",
                )

    def _places(self, targets: Sequence[Words | None]) -> dict[tuple[object, ...], list[int]]:
        """The tensors by where they lie: several in one place are one tensor under several names."""
        places: dict[tuple[object, ...], list[int]] = {}
        for tensor, target in enumerate(targets):
            if target is not None and target.size:
                mirror = self._state._mirrors.get(self.layout.tensors[tensor].name)
                place = (target.ctypes.data, target.nbytes) if mirror is None else mirror.place
                places.setdefault(place, []).append(tensor)
        return places

    def _check_tied(self, targets: Sequence[Words | None]) -> None:
        """Check that one tensor under two names gets the same words under both."""
        for first, *others in self._places(targets).values():
            for other in others:
                if not self._same_change(first, other):
                    names = [self.layout.tensors[each].name for each in (first, other)]
                    raise ValueError(
                        f"tensors {names[0]!r} and {names[1]!r} are one tensor here, and differ in version "
                        f"{self.version}; nothing was written. Give each memory of its own."
                    )

    def _same_change(self, one: int, other: int) -> bool:
        if one in self.built or other in self.built:
            return one in self.built and other in self.built and np.array_equal(self.built[one], self.built[other])
        pieces, others = self._sparse.get(one, []), self._sparse.get(other, [])
        if not pieces or not others:
            return not pieces and not others
        places, other_places = (np.concatenate([piece.places for piece in each]) for each in (pieces, others))
        words, other_words = (np.concatenate([piece.new for piece in each]) for each in (pieces, others))
        return np.array_equal(places, other_places) and np.array_equal(words, other_words)

    def _scatter(self, targets: Sequence[Words | None], threads: int | None, *, forward: bool) -> None:
        """Write all pieces, or none: after an interruption, what was written is taken back."""
        if threads is None:
            threads = self._threads if self.changed >= _MANY else 1
        tied = {tensor for _, *others in self._places(targets).values() for tensor in others}
        writes: list[_Write | _Exchange | _Mirrored] = []
        for tensor, target in enumerate(targets):
            mirror = self._state._mirrors.get(self.layout.tensors[tensor].name)
            if target is None or (tensor in tied and mirror is None):
                continue
            made: list[tuple[_Write | _Exchange, slice | Indices]] = []
            if tensor in self.built:
                made.append((_Exchange(target, self.built[tensor]), slice(0, len(target))))
            for piece in self._sparse.get(tensor, ()):
                if piece.indices is None:
                    part = slice(piece.start, piece.stop)
                    made.append((_Exchange(target[part], piece.new), part))
                else:
                    old = np.zeros_like(piece.new) if piece.old is None else piece.old
                    before, after = (old, piece.new) if forward else (piece.new, old)
                    made.append((_Write(target, piece.indices, before, after), piece.indices))
            writes += [write if mirror is None else _Mirrored(write, mirror, target, where) for write, where in made]
        try:
            for _ in ordered_map(lambda write: write.do(), writes, threads=threads):
                pass
        except BaseException:
            for write in writes:
                write.take_back()
            raise

    def _swap_in(self, layout: Layout, words: Sequence[Words], sums: U64, identity: _Identity) -> None:
        arrays = self._state.arrays
        if arrays is not None and layout != self._state.layout:
            old, new = set(self._state.layout.tensors), set(layout.tensors)
            for tensor in old - new:
                arrays.pop(tensor.name, None)
                self._state._mirrors.pop(tensor.name, None)
            for index, tensor in enumerate(layout.tensors):
                if tensor not in old:
                    arrays[tensor.name] = to_array(words[index], tensor.kind, tensor.shape)
        self._state._replace(layout, words, sums)
        self._state.version, self._state.chain, self._state.version_digests = identity

    def __repr__(self) -> str:
        return (
            f"Update(to version {self.version}, {self.size:,} bytes, {self.changed:,} words, "
            f"{self.memory:,} bytes of memory{', applied' if self._applied else ''})"
        )


class _Write:
    """The scatter of a piece's words."""

    def __init__(self, target: Words, indices: Indices, before: Words, after: Words) -> None:
        self._target, self._indices, self._before, self._after = target, indices, before, after

    def do(self) -> None:
        self._target[self._indices] = self._after

    def take_back(self) -> None:
        self._target[self._indices] = self._before


class _Exchange:
    """The exchange of two rows of words, block by block; an interrupted one can be taken back."""

    def __init__(self, one: Words, other: Words) -> None:
        self._one, self._other = one, other
        self._done = 0
        self._kept: Words | None = None

    def do(self) -> None:
        while self._done < len(self._one):
            block = slice(self._done, self._done + _EXCHANGE)
            self._kept = self._one[block].copy()
            self._one[block] = self._other[block]
            self._other[block] = self._kept
            self._done += _EXCHANGE
            self._kept = None

    def take_back(self) -> None:
        block = slice(self._done, self._done + _EXCHANGE)
        if self._kept is not None and len(self._kept) == len(self._one[block]):
            if np.array_equal(self._other[block], self._kept):  # written already; the other words are in `one`
                self._other[block] = self._one[block]
            self._one[block] = self._kept
        for start in range(0, min(self._done, len(self._one)), _EXCHANGE):
            block = slice(start, start + _EXCHANGE)
            kept = self._one[block].copy()
            self._one[block] = self._other[block]
            self._other[block] = kept


class _Mirrored:
    """A write into words that are the copy of a tensor elsewhere, and then into the tensor."""

    def __init__(self, write: _Write | _Exchange, mirror: Mirror, words: Words, where: slice | Indices) -> None:
        self._write, self._mirror, self._words, self._where = write, mirror, words, where

    def do(self) -> None:
        self._write.do()
        self._mirror.write(self._where, self._words[self._where])

    def take_back(self) -> None:
        self._write.take_back()
        self._mirror.write(self._where, self._words[self._where])
