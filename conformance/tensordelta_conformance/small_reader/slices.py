"""Holders of slices of one state, who prove their updates together: section 9.5.

All holders are of one process here and follow one route, so that t1 to t3, which find a holder that is
lost or on another route, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .chain import Parts
from .chunks import Patch, decode_chunk
from .documents import Base, Manifest, manifest_name
from .fingerprint import value
from .packs import Chunk, group_sizes
from .reader import Held, Reader
from .rejection import Rejection, about, require
from .state import Layout, State, Tensor, fit, layout_of

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
    """What a holder adds for an edge: t4, t5 and t7, and t6 by tensor."""

    listed: int
    results: int
    replicas: int
    change: dict[str, int]


class Slices:
    """Which words of a layout each holder has."""

    def __init__(self, layout: Layout, shares: Sequence[Share]) -> None:
        self.layout = layout
        self.has = [
            {each.name: _mask(share.get(each.name, []), each.words) for each in self.layout} for share in shares
        ]
        self._copies: dict[str, NDArray[np.int64]] = {}
        self._owner: dict[str, NDArray[np.int64]] = {}
        for name in (each.name for each in layout):
            held = np.array([has[name] for has in self.has])
            self._copies[name], self._owner[name] = held.sum(axis=0), held.argmax(axis=0)

    def group_has(self, tensor: int) -> bool:
        """True if a holder has words of a tensor; one without words is never lacking."""
        name = self.layout[tensor].name
        return self.layout[tensor].words == 0 or any(has[name].any() for has in self.has)

    @property
    def whole(self) -> bool:
        """True if the group lacks no tensor."""
        return all(self.group_has(tensor) for tensor in range(len(self.layout)))

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

    def scan(self, rank: int, words: State) -> dict[str, Sums]:
        """The sums over all words that a holder has, by tensor."""
        found = {}
        for index, each in enumerate(self.layout):
            whole = Patch(index, np.arange(each.words), words[each.name].words)
            found[each.name] = self.sums(rank, [self.held_of(rank, whole)])
        return found

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
            found += patches
            if not all(self.group_has(tensor) for tensor, _, _ in chunk.slices):
                continue
            owned, total, _ = self.sums(rank, patches)
            listed += owned
            results += total
            if self.answers(tensor for tensor, _, _ in chunk.slices) == rank:
                listed -= chunk.changed
                results -= chunk.result
        for index, tensor in parts.plain.items():
            found.append(self.held_of(rank, Patch(index, np.arange(len(tensor.words)), tensor.words)))
        change = {each.name: 0 for each in self.layout}
        for patch in found:
            name = self.layout[patch.tensor].name
            old = Patch(patch.tensor, patch.at, base[name].words[patch.at])
            change[name] += self.sums(rank, [patch]).value - self.sums(rank, [old]).value
        return Row(listed, results, self.sums(rank, found).replicas, change), found


class Group:
    """Holders of a state. Of each tensor a holder has an array of all words, in which those that it lacks are zero.

    `remembered` is what all of them remember of their version: nothing before their scan.
    """

    def __init__(self, shares: Sequence[Share], slices: Slices, words: list[State], remembered: Remembered | None):
        self.shares, self.slices, self.words, self.remembered = shares, slices, words, remembered

    @classmethod
    def of(cls, state: State, shares: Sequence[Share]) -> Group:
        """Each holder takes its words of a state."""
        slices = Slices(layout_of(state), shares)
        words = [
            {name: Tensor(each.dtype, each.shape, each.words * has[name]) for name, each in state.items()}
            for has in slices.has
        ]
        return cls(shares, slices, words, None)

    def gone(self, rank: int, layout: Layout) -> dict[str, int]:
        """The sums of words that a holder owns of tensors that fitting to a layout drops, or sets to zero."""
        names = {each.name for each in self.slices.layout if each not in layout}
        return {name: sums.value for name, sums in self.slices.scan(rank, self.words[rank]).items() if name in names}

    def alter(self, words: Iterable[tuple[int, str, int, int]]) -> None:
        """Change words in the memory of holders: the holder, the tensor's name, the word's number and its new value."""
        for rank, name, at, word in words:
            self.words[rank][name].words[at] = word

    def state(self) -> State:
        """What each holder has, as tensors of one dimension whose names begin with its number."""
        found: State = {}
        for rank, has in enumerate(self.slices.has):
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


def _total(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by tensor, without those that are 0."""
    total: dict[str, int] = {}
    for each in found:
        for name, number in each.items():
            total[name] = (total.get(name, 0) + number) % 2**64
    return {name: number for name, number in total.items() if number}


class SliceReader(Reader):
    """A Reader that brings a group to a version."""

    def prove(self, group: Group, version: int) -> None:
        """Prove the words by a scan, and remember the version."""
        chain, slices = self._chain, group.slices
        scans = [slices.scan(rank, words) for rank, words in enumerate(group.words)]
        found = _total({name: sums.value for name, sums in scan.items()} for scan in scans)
        replicas = sum(sums.replicas for scan in scans for sums in scan.values()) % 2**64
        with about(manifest_name(version)):
            require(replicas == 0, "TD-SLC-002", "a replica differs from its owner's word", "wrong-base")
            said = self._said(version)
            require(chain.layout(said.layout) == slices.layout, "TD-SLC-003", "another layout", "wrong-base")
            same = found == self._sums(slices, version) if not slices.whole else _same(found, said.fingerprint)
            require(same, "TD-SLC-002", "other words than the version's", "wrong-base")
        group.remembered = Remembered(slices.layout, version, said.fingerprint)

    def _said(self, version: int) -> Manifest | Base:
        """What the chain says of a version: its manifest, or else an edge that starts from it."""
        if self._chain.find(version):
            return self._chain.manifest(manifest_name(version))
        for edge in (edge for later in self._chain.versions for edge in self._edges_to(later)):
            if edge.base is not None and edge.base.version == version:
                return edge.base
        raise Rejection("missing", "TD-OBJ-008", "no such version")

    def bring(self, wanted: int | None, group: Group) -> Group:
        """Steps 1 to 12 over the cheapest route that holds. No word is written before all its edges are proven."""
        chain, held = self._chain, group.remembered
        chain.id()
        known = chain.versions if wanted is None else [each for each in chain.versions if each == wanted]
        require(known, "TD-OBJ-008", "no such version", "missing")
        version = known[-1]
        own = chain.manifest(manifest_name(version))
        if held and chain.describes(own, held.state, held.fingerprint):
            return Group(
                group.shares,
                group.slices,
                group.words,
                Remembered(group.slices.layout, version, own.fingerprint),
            )
        failed: dict[str, Rejection] = {}
        while True:
            route = self._route(version, held, failed)
            if route is None:
                raise next(iter(failed.values())) if failed else self._no_route(own)
            after = group if route[1] else Group.of({}, group.shares)
            for edge in route[0]:
                try:
                    chain.check_edge(edge)
                    after = self._follow(edge, after)
                except Rejection as fault:
                    failed |= {edge.name: fault}
                    break
            else:
                return after

    def _sums(self, slices: Slices, version: int) -> dict[str, int]:
        """Of a version the fingerprints of tensors that a group has."""
        own = self._chain.manifest(manifest_name(version)) if self._chain.find(version) else None
        numbers = None if own is None else self._chain.tensor_fingerprints(own)
        require(numbers is not None, "TD-RDR-013", f"version {version} has no fingerprints object", "unsupported")
        assert numbers is not None
        return _total([{each.name: numbers[i] for i, each in enumerate(slices.layout) if slices.group_has(i)}])

    def _changed_as_said(self, edge: Manifest, before: Slices, after: Slices, change: Mapping[str, int]) -> bool:
        """T6."""
        if before.whole and after.whole:
            start = edge.base.fingerprint if edge.base is not None else 0
            return _same(change, edge.fingerprint - start)
        old = self._sums(before, edge.base.version) if edge.base is not None else {}
        return change == _total([self._sums(after, edge.version), {name: -number for name, number in old.items()}])

    def _follow(self, edge: Manifest, group: Group) -> Group:
        """The group after an edge."""
        chain, held = self._chain, group.remembered
        with about(edge.name):
            if edge.base is None:
                group = Group.of({}, group.shares)
            else:
                same = held is not None and chain.describes(edge.base, held.state, held.fingerprint)
                require(same, "TD-SLC-003", "the base is not what the holders remember", "wrong-base")
            parts = chain.parts(edge, sum(each.size for each in group.slices.layout))
            slices = Slices(parts.layout, group.shares)
            rows, after = [], []
            for rank, words in enumerate(group.words or [{}] * len(group.shares)):
                base = fit(words, parts.layout)
                row, patches = slices.update(rank, parts, base)
                rows.append(row)
                new = {name: Tensor(each.dtype, each.shape, np.array(each.words)) for name, each in base.items()}
                for tensor, at, changed in patches:
                    new[parts.layout[tensor].name].words[at] = changed
                after.append(new)
            listed = sum(row.listed for row in rows) % 2**64
            results = sum(row.results for row in rows) % 2**64
            replicas = sum(row.replicas for row in rows) % 2**64
            gone = [group.gone(rank, parts.layout) for rank in range(len(group.shares))]
            lost = [{name: -number for name, number in each.items()} for each in gone]
            change = _total([*(row.change for row in rows), *lost])
            error = "integrity" if edge.base is None else "wrong-base"
            require(listed == 0, "TD-SLC-001", "listed words with several owners, or none", error)
            same = self._changed_as_said(edge, group.slices, slices, change)
            require(same, "TD-RDR-007", "t6 is wrong", "integrity")
            require(results == 0, "TD-CHK-024", "t5 is wrong", error)
            require(replicas == 0, "TD-SLC-001", "a replica differs from its owner's word", error)
        return Group(group.shares, slices, after, Remembered(parts.layout, edge.version, edge.fingerprint))


def _same(sums: Mapping[str, int], fingerprint: int) -> bool:
    return sum(sums.values()) % 2**64 == fingerprint % 2**64
