"""Holders: what one process has of a state that several of them have together.

The ranks of an engine are such a group. Each holds blocks of the words of some tensors, wherever its model keeps them.
Each word has one owner, the first holder that has it; the others have replicas of it. Sums count a word at its owner,
and a sum of its own shows that the replicas are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..codecs import fingerprint
from ..codecs.fingerprint import U64
from ..codecs.words import Words
from ..errors import WrongBaseError
from ..format.layout import Layout, Tensor
from ..threads import Lock, ordered_map, thread_count
from .blocks import Block, Chosen, Indices, Place
from .group import Alone, Group

#: Words that are scanned at a time.
_SCAN = 1 << 22
#: A block that has fewer than one in so many of the words that it spans is scanned word by word.
_SPARSE = 12
_MASK = (1 << 64) - 1


class Memory(Protocol):
    """A one-dimensional row of words, on any device. Places in it are word offsets."""

    @property
    def key(self) -> object:
        """What two objects over the same memory have in common."""

    def take(self, places: Indices) -> Words:
        """The words at these places, of shape (m,)."""

    def view(self, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Words:
        """A copy of the words of a strided view, one-dimensional, in C order."""

    def write(self, places: Indices, old: Words, new: Words) -> Write:
        """What writes words at these places, and can write the old ones back; all arrays of shape (m,).

        All that takes time is done here, so that the write is short.
        """


class Write(Protocol):
    """The scatter of new words over old ones."""

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""

    def do(self) -> None:
        """Write the new words."""

    def take_back(self) -> None:
        """Write the old words, also where `do` was interrupted."""


class Part(NamedTuple):
    """A block of a tensor that a holder has, and the memory in which it lies."""

    place: Place
    memory: Memory


class Sums(NamedTuple):
    """What a holder adds to the group's sums for some words, mod 2^64.

    Attributes:
        owned: how many of the words it owns.
        result: the value of these, as they are after the update.
        change: the change of the state's fingerprint by these.
        replicas: for the words that others have as well: (k - 1) times the new word's value from the owner of a word
            that k holders have, and its value taken away by each other one. The group's sum is 0 where all are equal.
    """

    owned: int
    result: int
    change: int
    replicas: int


class Holder:
    """What one process holds of a state. Only updates of it may write to the words.

    Several threads may use one object; one update is applied at a time. A forked child has a copy, which holds no known
    version if it was forked while an update was applied.

    Args:
        layout: all tensors of the state.
        parts: by tensor name the blocks that this holder has. A word may lie in two places of one holder, as whole
            blocks.
        group: the holders of the state; by default this one has all of it.

    Attributes:
        layout, group: as given.
        version, chain: the version that the group is known to hold, and its chain's id; None before `hold`.
        fingerprint: that version's.
        version_digests: the digest of its layout, and its fingerprint.
        lock: held while an update is applied or undone.
        moves: the `generation`, for those who hold the lock.

    Raises:
        ValueError: two blocks of a tensor share a word and are not the same; a block passes its tensor's end; or two
            tensors share a part of their memory here, and are not one and the same.
    """

    def __init__(self, layout: Layout, parts: Mapping[str, Sequence[Part]], *, group: Group | None = None) -> None:
        self.layout = layout
        self.group: Group = group or Alone()
        self._parts = [tuple(parts.get(tensor.name, ())) for tensor in layout.tensors]
        for tensor, each in zip(layout.tensors, self._parts, strict=True):
            _check(tensor, [part.place.block for part in each])
        self._tied = _tied(layout, self._parts)
        self._blocks = [list(dict.fromkeys(part.place.block for part in each)) for each in self._parts]
        self._owners = [_Owners((), ())] * len(layout)
        self._first = [self.group.rank if each else None for each in self._blocks]
        self.version: int | None = None
        self.chain: str | None = None
        self.version_digests: tuple[str, str] | None = None
        self.lock = Lock(interrupted=self._forget)
        self.moves = self._changes = 0

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the version that the group holds, 16 hex digits."""
        return None if self.version_digests is None else self.version_digests[1]

    @property
    def known(self) -> bool:
        """Whether sums of its own prove the state: those of a holder do so only with the group's."""
        return False

    @property
    def generation(self) -> int:
        """A number for the present words, by which a prepared update is bound to them."""
        with self.lock:
            return self.moves

    @property
    def changes(self) -> int:
        """How many updates have been applied or undone."""
        with self.lock:
            return self._changes

    def move(self, back: int | None = None) -> int:
        """Count an update that was applied, or undone: then the generation is an old one again. The lock is held."""
        self._changes += 1
        self.moves = self._changes if back is None else back
        return self.moves

    def _forget(self) -> None:
        """Forget what the words are: a fork has copied them while another thread applied or undid an update."""
        self.version = self.chain = self.version_digests = None
        self.move()

    @property
    def nbytes(self) -> int:
        """Bytes of the words that it holds."""
        return sum(
            block.words * tensor.kind.word.itemsize
            for tensor, blocks in zip(self.layout.tensors, self._blocks, strict=True)
            for block in blocks
        )

    def parts(self, tensor: int) -> Sequence[Part]:
        """The parts of a tensor that it has, by the tensor's index in the layout."""
        return self._parts[tensor]

    @property
    def tied(self) -> Sequence[tuple[int, int]]:
        """Pairs of tensors of which both have the same memory here, by index in the layout."""
        return self._tied

    def has_all(self, tensor: int) -> bool:
        """True where it has every word of a tensor."""
        return sum(block.words for block in self._blocks[tensor]) == self.layout.tensors[tensor].words

    def has_range(self, tensor: int, start: int, stop: int) -> bool:
        """True where it has every word from `start` to `stop` of a tensor."""
        return sum(block.count(start, stop) for block in self._blocks[tensor]) == stop - start

    def has_some(self, tensor: int, start: int, stop: int) -> bool:
        """True where it has a word from `start` to `stop` of a tensor."""
        return any(block.count(start, stop) for block in self._blocks[tensor])

    def has_any_of(self, tensors: Iterable[int]) -> bool:
        """True where it has a word of one of these tensors."""
        return any(self._blocks[tensor] for tensor in tensors)

    def is_first_of(self, tensors: Iterable[int]) -> bool:
        """True where no holder of the group before this one has a word of any of these tensors, and this one has."""
        ranks = [rank for rank in (self._first[tensor] for tensor in tensors) if rank is not None]
        return bool(ranks) and min(ranks) == self.group.rank

    def meet(self, blocks: Sequence[Sequence[Sequence[Block]]]) -> None:
        """Learn what the other holders have.

        Args:
            blocks: by holder, the holders' own `blocks`.

        Raises:
            ValueError: another holder has blocks of another number of tensors.
        """
        rank = self.group.rank
        self._first = [
            next((each for each, other in enumerate(blocks) if other[tensor]), None)
            for tensor in range(len(self.layout))
        ]
        known: dict[tuple[tuple[Block, ...], ...], _Owners] = {}  # most tensors are cut as many others are
        for tensor, mine in enumerate(self._blocks):
            if mine:
                cut = tuple(tuple(each[tensor]) for each in blocks)
                if cut not in known:
                    others = [(each < rank, other) for each, other in enumerate(cut) if each != rank]
                    known[cut] = _Owners(mine, others)
                self._owners[tensor] = known[cut]

    @property
    def blocks(self) -> list[list[Block]]:
        """For each tensor of the layout the blocks that it has, each once."""
        return self._blocks

    def hold(self, version: int, chain: str, digests: tuple[str, str]) -> None:
        """Remember which version the group holds, as the group has proven.

        Args:
            version, chain: the version, and its chain's id.
            digests: of its layout, and its fingerprint.
        """
        self.version, self.chain, self.version_digests = version, chain, digests

    # -- words ----------------------------------------------------------------------------------------------------

    def held(self, tensor: int, indices: Indices) -> Chosen:
        """Which of some words of a tensor it has.

        Args:
            tensor: index in the layout.
            indices: word indices, strictly increasing, int64 of shape (m,).
        """
        blocks = self._blocks[tensor]
        if len(blocks) == 1:
            return blocks[0].find(indices)[0]
        found = np.zeros(len(indices), np.bool_)
        for block in blocks:
            found[block.find(indices)[0]] = True
        return np.flatnonzero(found)

    def indices(self, tensor: int) -> Indices:
        """The indices of all words of a tensor that it has, increasing, int64 of shape (m,)."""
        found = [block.indices() for block in self._blocks[tensor]]
        return np.sort(np.concatenate(found)) if len(found) > 1 else found[0] if found else np.zeros(0, np.int64)

    def take(self, tensor: int, indices: Indices) -> Words:
        """Words of a tensor, all of which it has; arguments as for `held`.

        Raises:
            WrongBaseError: a word lies in two places, and differs.
        """
        words = np.zeros(len(indices), self.layout.tensors[tensor].kind.word)
        taken: set[Block] = set()
        for place, memory in self._parts[tensor]:
            which, places = place.find(indices)
            found = memory.take(places)
            if place.block in taken:
                if not np.array_equal(words[which], found):
                    raise self._differs(tensor)
                continue
            words[which] = found
            taken.add(place.block)
        return words

    def writes(self, tensor: int, indices: Indices, old: Words, new: Words) -> list[Write]:
        """What writes words of a tensor, wherever it has them; `old` and `new` of shape (m,), others as for `held`."""
        writes = []
        for place, memory in self._parts[tensor]:
            which, places = place.find(indices)
            if len(places):
                writes.append(memory.write(places, old[which], new[which]))
        return writes

    def sums(self, tensor: int, indices: Indices, old: Words, new: Words) -> Sums:
        """What this holder adds to the group's sums for words of a tensor that it has; arguments as for `writes`."""
        name = self.layout.tensors[tensor].name
        owned = result = change = replicas = 0
        for which, holders, is_owner in self._owners[tensor].count(indices):
            at, words = indices[which], new[which]
            value, *before = fingerprint.values(name, at, words, *([old[which]] if is_owner else []))
            if is_owner:
                owned += len(words)
                result += value
                change += value - before[0]
            replicas += (holders - 1 if is_owner else -1) * value
        return Sums(owned, result & _MASK, change & _MASK, replicas & _MASK)

    def _differs(self, tensor: int) -> WrongBaseError:
        return WrongBaseError(
            f"tensor {self.layout.tensors[tensor].name!r} lies in two places, which differ",
            object="the state",
            rule="TD-RDR-003",
            advice="Load the version again.",
        )

    # -- all words ------------------------------------------------------------------------------------------------

    def scan(self, *, threads: int | None = None) -> U64:
        """Read every word that it has.

        Args:
            threads: how many scan at once; by default $TENSORDELTA_THREADS, or all cores.

        Returns:
            For each tensor of the layout, of shape (n, 3): the fingerprint of its owned words, how many these are, and
            the sum of its replicas (see `Sums`). The group's sums are the tensor's fingerprint, its words, and 0.
        """
        jobs = [
            (tensor, number, block)
            for tensor, parts in enumerate(self._parts)
            for number, part in enumerate(parts)
            for block in part.place.block.parts(_SCAN)
        ]
        totals = np.zeros((len(self.layout), 3), np.uint64)
        first: dict[tuple[int, Block], int] = {}

        def work(job: tuple[int, int, Block]) -> tuple[int, Block, int, Sums]:
            tensor, number, block = job
            return tensor, block, *self._scan_block(tensor, number, block)

        for tensor, block, value, sums in ordered_map(work, jobs, threads=thread_count(threads)):
            again = (tensor, block) in first
            known = first.setdefault((tensor, block), value)
            if again:  # in another place of this holder: as equal to the first as a replica must be
                sums = Sums(0, 0, 0, known - value)
            for column, each in enumerate((sums.change, sums.owned, sums.replicas)):
                totals[tensor, column] = (int(totals[tensor, column]) + each) & _MASK
        return totals

    def _scan_block(self, tensor: int, number: int, block: Block) -> tuple[int, Sums]:
        """A block's fingerprint, and what it adds to the sums."""
        place, memory = self._parts[tensor][number]
        name = self.layout.tensors[tensor].name
        words = memory.view(place.at(block), block.shape, place.strides[-len(block.shape) :])
        owners = self._owners[tensor]
        if owners.simple is None or block.span > _SPARSE * block.words:
            indices = block.indices()
            none = np.zeros_like(words)
            return fingerprint.values(name, indices, words)[0], self.sums(tensor, indices, none, words)
        if not block.is_run:
            spread = np.zeros(block.span, words.dtype)
            steps = [stride * words.itemsize for stride in block.strides]
            np.lib.stride_tricks.as_strided(spread, block.shape, steps)[...] = words.reshape(block.shape)
            words = spread
        value = fingerprint.scan(name, words, start=block.offset)
        holders, is_owner = owners.simple
        if is_owner:
            return value, Sums(block.words, value, value, (holders - 1) * value)
        return value, Sums(0, 0, 0, -value)


def _check(tensor: Tensor, blocks: Sequence[Block]) -> None:
    different = list(dict.fromkeys(blocks))
    for number, block in enumerate(different):
        if block.stop > tensor.words:
            raise ValueError(f"a block of tensor {tensor.name!r} passes its end")
        if any(_share(block, other) for other in different[:number]):
            raise ValueError(f"two blocks of tensor {tensor.name!r} share words, and are not the same")


def _tied(layout: Layout, parts: Sequence[Sequence[Part]]) -> list[tuple[int, int]]:
    """The pairs of tensors that have the same memory."""
    found: dict[tuple[int, int], None] = {}
    lies: dict[object, list[tuple[int, Place, Block]]] = {}
    for tensor, each in enumerate(parts):
        for place, memory in each:
            in_memory = Place.of(place.block.shape, place.offset, place.strides, 0, place.strides)
            assert in_memory is not None
            lies.setdefault((memory.key, layout.tensors[tensor].kind.word), []).append((tensor, place, in_memory.block))
    for together in lies.values():
        together.sort(key=lambda item: item[2].offset)
        for number, (tensor, place, block) in enumerate(together):
            for other, other_place, other_block in together[number + 1 :]:
                if other_block.offset >= block.stop:
                    break
                if other == tensor or block.is_apart(other_block):
                    continue
                if place != other_place:
                    names = [layout.tensors[index].name for index in (tensor, other)]
                    raise ValueError(f"tensors {names[0]!r} and {names[1]!r} share a part of their memory")
                found[min(tensor, other), max(tensor, other)] = None
    return list(found)


def _share(one: Block, other: Block) -> bool:
    """True where two blocks share a word."""
    if one.is_apart(other):
        return False
    small, large = sorted((one, other), key=lambda block: block.words)
    return any(len(large.find(part.indices())[1][0]) for part in small.parts(_SCAN))


class _Owners:
    """Who owns the words of a tensor that a holder has.

    Args:
        mine: the holder's blocks.
        others: for each other holder whether it comes before this one, and its blocks.
    """

    def __init__(self, mine: Sequence[Block], others: Iterable[tuple[bool, Sequence[Block]]]) -> None:
        same: list[bool] = []
        self._mixed: list[tuple[bool, Sequence[Block]]] = []
        for before, blocks in others:
            if set(blocks) == set(mine):
                same.append(before)
            elif not all(one.is_apart(other) for one in mine for other in blocks):
                self._mixed.append((before, blocks))
        self._same = len(same) + 1, not any(same)

    @property
    def simple(self) -> tuple[int, bool] | None:
        """How many holders have its words, and whether this one owns them; None where words differ in that."""
        return None if self._mixed else self._same

    def count(self, indices: Indices) -> list[tuple[Chosen, int, bool]]:
        """Sort words by their holders.

        Args:
            indices: word indices, strictly increasing, all of which the holder has.

        Returns:
            Which words, how many holders have them, and whether this one owns them.
        """
        holders, is_owner = self._same
        if not self._mixed:
            return [(slice(0, len(indices)), holders, is_owner)]
        counts = np.full(len(indices), holders, np.int64)
        owned = np.full(len(indices), is_owner, np.bool_)
        for before, blocks in self._mixed:
            for block in blocks:
                which, _ = block.find(indices)
                counts[which] += 1
                if before:
                    owned[which] = False
        kinds: NDArray[np.int64] = counts * 2 + owned
        return [(np.flatnonzero(kinds == kind), int(kind) // 2, bool(kind % 2)) for kind in np.unique(kinds).tolist()]
