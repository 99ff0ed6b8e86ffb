"""Holders of slices of one state, who prove their updates together: section 9.5.

All holders are of one process here and follow one route, so that t1 to t3, which find a holder that is lost or on
another route, are left out. A group has every word of its layout, and keeps that layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .chain import Chain, Parts
from .chunks import Patch, decode_chunk
from .documents import Manifest, manifest_name
from .fingerprint import value
from .packs import Chunk, group_sizes
from .reader import Held, Reader
from .rejection import about, require
from .state import Layout, State, Tensor, layout_of

#: By tensor name what a holder has of its words: [start, stop], or [start, stop, row] for these words of every row.
Share = Mapping[str, Sequence[Sequence[int]]]


class Remembered(Held):
    """What all holders remember of their version; `state` has tensors of its layout, and no words."""

    def __init__(self, layout: Layout, version: int, fingerprint: int) -> None:
        none = {name: Tensor(dtype, shape, np.zeros(0, np.uint8)) for name, dtype, shape in layout}
        super().__init__(none, version)
        self.__dict__["fingerprint"] = fingerprint


class Sums(NamedTuple):
    """Of words that a holder has: how many it owns, value(…) over these, and its part of t7."""

    owned: int
    value: int
    replicas: int


class Row(NamedTuple):
    """What a holder adds for an edge: t4 to t7."""

    listed: int
    results: int
    change: int
    replicas: int


class Group:
    """Holders of a state. Of each tensor a holder has an array of all words, in which those that it lacks are zero."""

    def __init__(self, state: State, shares: Sequence[Share]) -> None:
        self.layout = layout_of(state)
        self.has = [
            {each.name: _mask(share.get(each.name, []), each.words) for each in self.layout} for share in shares
        ]
        self._copies: dict[str, NDArray[np.int64]] = {}
        self._owner: dict[str, NDArray[np.int64]] = {}
        for name in state:
            held = np.array([has[name] for has in self.has])
            self._copies[name], self._owner[name] = held.sum(axis=0), held.argmax(axis=0)
            if not held.any(axis=0).all():
                raise NotImplementedError("a group that lacks words of its state")
        self.words: list[State] = [
            {name: Tensor(each.dtype, each.shape, each.words * has[name]) for name, each in state.items()}
            for has in self.has
        ]
        self.remembered: Remembered | None = None

    # -- what a holder adds -------------------------------------------------------------------------------------------

    def sums(self, rank: int, patches: Iterable[Patch]) -> Sums:
        """The sums over words that a holder has."""
        owned = total = replicas = 0
        for tensor, at, words in patches:
            name = self.layout[tensor].name
            own, copies = self._owner[name][at] == rank, self._copies[name][at]
            owned += int(np.count_nonzero(own))
            total += value(name, at[own], words[own])
            for k in range(2, len(self.has) + 1):
                mine = own & (copies == k)
                replicas += (k - 1) * value(name, at[mine], words[mine])
            replicas -= value(name, at[~own], words[~own])
        return Sums(owned, total, replicas)

    def held_of(self, rank: int, patch: Patch) -> Patch:
        """The words of a patch that a holder has."""
        mine = self.has[rank][self.layout[patch.tensor].name][patch.at]
        return Patch(patch.tensor, patch.at[mine], patch.words[mine])

    def answers(self, tensors: Iterable[int]) -> int:
        """The holder that answers for a chunk: the first that has words of one of its tensors."""
        names = [self.layout[tensor].name for tensor in tensors]
        return next(rank for rank, has in enumerate(self.has) if any(has[name].any() for name in names))

    def _decode(self, rank: int, chunk: Chunk, base: State) -> list[Patch]:
        """The listed words of a chunk that a holder has: its own base words are all that it takes for them."""
        if chunk.order == "exponent":
            parts = [self.has[rank][self.layout[tensor].name][start:stop] for tensor, start, stop in chunk.slices]
            for group in np.split(np.concatenate(parts), np.cumsum(group_sizes(chunk))[:-1]):
                require(group.all() or not group.any(), "TD-RDR-017", "a group is held in parts", "unsupported")
        return [self.held_of(rank, patch) for patch in decode_chunk(chunk, self.layout, base, "")]

    def update(self, rank: int, parts: Parts, base: State) -> tuple[Row, list[Patch]]:
        """What a holder adds for an edge, and its new words."""
        listed = results = 0
        found: list[Patch] = []
        for chunk in parts.chunks:
            patches = self._decode(rank, chunk, base)
            owned, total, _ = self.sums(rank, patches)
            listed += owned
            results += total
            if self.answers(tensor for tensor, _, _ in chunk.slices) == rank:
                listed -= chunk.changed
                results -= chunk.result
            found += patches
        for index, tensor in parts.plain.items():
            found.append(self.held_of(rank, Patch(index, np.arange(len(tensor.words)), tensor.words)))
        old = [Patch(tensor, at, base[self.layout[tensor].name].words[at]) for tensor, at, _ in found]
        _, total, replicas = self.sums(rank, found)
        change = total - self.sums(rank, old).value
        return Row(listed, results, change, replicas), found

    # -- the group ----------------------------------------------------------------------------------------------------

    def scan(self) -> tuple[int, int]:
        """The fingerprint of all words, and t7 over all of them."""
        sums = []
        for rank, words in enumerate(self.words):
            whole = [
                Patch(index, np.arange(each.words), words[each.name].words) for index, each in enumerate(self.layout)
            ]
            sums.append(self.sums(rank, [self.held_of(rank, patch) for patch in whole]))
        return sum(each.value for each in sums) % 2**64, sum(each.replicas for each in sums) % 2**64

    def prove(self, chain: Chain, version: int) -> None:
        """Prove the words by a scan, and remember the version."""
        own = chain.manifest(manifest_name(version))
        with about(own.name):
            fingerprint, replicas = self.scan()
            require(chain.layout(own.layout) == self.layout, "TD-SLC-003", "another layout", "wrong-base")
            require(fingerprint == own.fingerprint, "TD-SLC-002", "other words than the version's", "wrong-base")
            require(replicas == 0, "TD-SLC-002", "a replica differs from its owner's word", "wrong-base")
        self.remembered = Remembered(self.layout, version, own.fingerprint)

    def alter(self, words: Iterable[tuple[int, str, int, int]]) -> None:
        """Change words in the memory of holders: the holder, the tensor's name, the word's number and its new value."""
        for rank, name, at, word in words:
            self.words[rank][name].words[at] = word

    def state(self) -> State:
        """What each holder has, as tensors of one dimension whose names begin with its number."""
        found: State = {}
        for rank, has in enumerate(self.has):
            for name, mask in has.items():
                if mask.any():
                    each = self.words[rank][name]
                    found[f"{rank}:{name}"] = Tensor(each.dtype, (int(mask.sum()),), each.words[mask])
        return found


def _mask(pieces: Iterable[Sequence[int]], words: int) -> NDArray[np.bool_]:
    """Which words of a tensor a holder has."""
    mask = np.zeros(words, np.bool_)
    for start, stop, *row in pieces:
        mask.reshape(-1, row[0] if row else words)[:, start:stop] = True
    return mask


class SliceReader(Reader):
    """A Reader that brings a group to a version."""

    def bring(self, wanted: int | None, group: Group) -> int:
        """Steps 1 to 12 over the cheapest route. No word is written before all edges are proven."""
        chain, held = self._chain, group.remembered
        assert held is not None
        chain.id()
        known = chain.versions if wanted is None else [each for each in chain.versions if each == wanted]
        require(known, "TD-OBJ-008", "no such version", "missing")
        version = known[-1]
        own = chain.manifest(manifest_name(version))
        words = group.words
        if not chain.describes(own, held.state, held.fingerprint):
            route = self._route(version, held, ())
            require(route is not None, "TD-RTE-006", "no route", "missing")
            assert route is not None
            fingerprint = held.fingerprint if route[1] else 0
            for edge in route[0]:
                chain.check_edge(edge)
                words = self._follow(edge, group, words, fingerprint)
                fingerprint = edge.fingerprint
        group.words = words
        group.remembered = Remembered(group.layout, version, own.fingerprint)
        return version

    def _follow(self, edge: Manifest, group: Group, words: list[State], fingerprint: int) -> list[State]:
        """The words of all holders after an edge; `fingerprint` is the one that they remember."""
        chain = self._chain
        with about(edge.name):
            if edge.base is not None:
                same = edge.base.fingerprint == fingerprint and chain.layout(edge.base.layout) == group.layout
                require(same, "TD-SLC-003", "the base is not what the holders remember", "wrong-base")
            parts = chain.parts(edge, sum(each.size for each in group.layout))
            if parts.layout != group.layout:
                raise NotImplementedError("a group that goes to another layout")
            after, rows = [], []
            for rank, held in enumerate(words):
                zeros = {name: Tensor.zeros(each.dtype, each.shape) for name, each in held.items()}
                base = held if edge.base is not None else zeros
                row, patches = group.update(rank, parts, base)
                rows.append(row)
                new = {name: Tensor(each.dtype, each.shape, np.array(each.words)) for name, each in base.items()}
                for tensor, at, changed in patches:
                    new[group.layout[tensor].name].words[at] = changed
                after.append(new)
            listed, results, change, replicas = (sum(row[i] for row in rows) % 2**64 for i in range(4))
            before = fingerprint if edge.base is not None else 0
            error = "integrity" if edge.base is None else "wrong-base"
            require(listed == 0, "TD-SLC-001", "listed words with several owners, or none", error)
            require((before + change) % 2**64 == edge.fingerprint, "TD-RDR-007", "t6 is wrong", "integrity")
            require(results == 0, "TD-CHK-024", "t5 is wrong", error)
            require(replicas == 0, "TD-SLC-001", "a replica differs from its owner's word", error)
            return after
