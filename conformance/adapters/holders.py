"""Groups of holders for the adapter of the reference implementation (SPEC.md section 9.5): a thread for each."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tensordelta as td
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.blocks import Place
from tensordelta.state.group import LostError
from tensordelta.state.holder import Holder, Part
from tensordelta.state.slice_update import agree_on_route

#: By tensor name what a holder has: [start, stop], or [start, stop, row] for these words of every row.
Share = Mapping[str, Sequence[Sequence[int]]]
#: A word in the memory of a holder: the holder, the tensor's name, the word's number and its value.
Word = tuple[int, str, int, int]


class Memory:
    """Words in an array."""

    def __init__(self, words: Any) -> None:
        self.words = words

    @property
    def key(self) -> object:
        return id(self)

    def take(self, places: Any) -> Any:
        return self.words.take(places)

    def view(self, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Any:
        steps = [stride * self.words.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(self.words[offset:], shape, steps).copy().reshape(-1)

    def write(self, places: Any, old: Any, new: Any) -> Scatter:
        return Scatter(self.words, places, old, new)


class Scatter:
    """The write of new words over old ones."""

    def __init__(self, words: Any, places: Any, old: Any, new: Any) -> None:
        self._words, self._places, self._old, self._new = words, places, old, new
        self.nbytes = 0

    def do(self) -> None:
        self._words[self._places] = self._new

    def take_back(self) -> None:
        self._words[self._places] = self._old


class Member:
    """One holder's end of a group of threads."""

    def __init__(self, rank: int, values: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(values)
        self._values, self._barrier = values, barrier

    def gather(self, value: Any) -> list[Any]:
        self._values[self.rank] = value
        self.wait()
        found = list(self._values)
        self.wait()
        return found

    def sum(self, values: Any) -> Any:
        return np.sum(self.gather(values), axis=0, dtype=np.uint64)

    def wait(self) -> None:
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            raise LostError("another holder is gone") from None


class Group:
    """Holders of a state, each with words of its own.

    Args:
        chain: the chain.
        state: the state of which they take their words, and the version that it remembers.
        shares: what each of them takes.
    """

    def __init__(self, chain: td.Chain, state: td.State, shares: Sequence[Share]) -> None:
        self._chain = chain
        self._version = state.version
        values: list[Any] = [None] * len(shares)
        barrier = threading.Barrier(len(shares), timeout=60)
        self.members = [Member(rank, values, barrier) for rank in range(len(shares))]
        self.holders = [
            Holder(state.layout, _parts(state, share), group=member)
            for member, share in zip(self.members, shares, strict=True)
        ]

    def read(self, unlike: Sequence[Word], altered: Sequence[Word], to: int | None) -> int:
        """Bring all holders to a version, or none; gives the version. Words change before and after their scan."""
        faults: list[BaseException] = []

        def one(rank: int) -> None:
            try:
                self._follow(rank, unlike, altered, to)
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(self.holders))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        causes = [error.__cause__ or error for error in faults]
        for error in sorted(causes, key=lambda error: not isinstance(error, td.TensorDeltaError)):
            raise error
        version = self.holders[0].version
        assert version is not None
        return version

    def _follow(self, rank: int, unlike: Sequence[Word], altered: Sequence[Word], to: int | None) -> None:
        holder, member = self.holders[rank], self.members[rank]
        self._alter(rank, unlike)
        holder.meet(member.gather(holder.blocks))
        remembered = self._version in self._chain.versions()
        if remembered and self._chain.layout(self._version) == holder.layout:
            own = self._chain.manifest(self._version)
            holder.hold(self._version, self._chain.id, (own.layout, own.fingerprint))
        self._chain.identify(holder)
        self._alter(rank, altered)
        agree_on_route(member, lambda without: self._chain.prepare(holder, to, without=without)).apply()

    def _alter(self, rank: int, words: Sequence[Word]) -> None:
        holder = self.holders[rank]
        for place, name, word, value in words:
            if place == rank:
                tensor = holder.layout.index[name]
                at = np.array([word])
                new = np.array([value], holder.layout.tensors[tensor].kind.word)
                for write in holder.writes(tensor, at, new, new):
                    write.do()

    def state(self) -> td.State:
        """What each holder has, as tensors of one dimension whose names begin with its number."""
        found: dict[str, tuple[Tensor, Any]] = {}
        for rank, holder in enumerate(self.holders):
            for index, tensor in enumerate(holder.layout.tensors):
                at = holder.indices(index)
                if len(at):
                    name = f"{rank}:{tensor.name}"
                    found[name] = Tensor(name, tensor.dtype, (len(at),)), holder.take(index, at)
        layout = Layout.of(tensor for tensor, _ in found.values())
        return td.State(layout, [found[tensor.name][1] for tensor in layout.tensors])


def _parts(state: td.State, share: Share) -> dict[str, list[Part]]:
    """Copies of words of a state."""
    parts: dict[str, list[Part]] = {}
    for name, pieces in share.items():
        words = state.words(state.layout.index[name])
        for start, stop, *row in pieces:
            width = row[0] if row else len(words)
            own = words.reshape(-1, width)[:, start:stop].copy()
            place = Place.of(own.shape, start, (width, 1), 0, (own.shape[1], 1))
            if place is not None:
                parts.setdefault(name, []).append(Part(place, Memory(own.reshape(-1))))
    return parts
