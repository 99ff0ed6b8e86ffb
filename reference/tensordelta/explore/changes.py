"""How many words of each tensor change from one version to another, as cheaply as the chain tells.

An edge between the two tells by its chunk tables and positions, and several edges by their steps added up; no word of
either version is needed. Only where chunks need words of their base (order `exponent` over several tensors, values
`replace`), or where no route leads from one version to the other, one state is loaded and led from version to version.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..codecs.fingerprint import U64
from ..codecs.words import Words
from ..errors import StoreError, TensorDeltaError
from ..format.chunk_codec import Piece
from ..format.layout import Layout
from ..format.listed import count_changed, count_sums, decode_changes
from ..format.manifest import Manifest, PackEntry, check_features
from ..format.names import manifest_name
from ..format.pack import Blob, ChunkPack, Pack
from ..read import part
from ..read.reader import Reader
from ..read.routes import Edge
from ..state.state import State
from ..state.update import Update
from .version import in_any_order
from .walk import step

#: Counts of changed words, int64, one for each tensor of the newer layout.
Counts = NDArray[np.int64]

#: Steps are added up while they are at most this share of a state's words; else loading it is faster.
_SPARSE = 1 / 8


class Changes:
    """Counts changed words between versions of one chain. For one thread at a time.

    Args:
        reader: of the chain. Which versions it has held does not matter, since no weights are given out.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = in_any_order(reader)
        self._documents = self._reader.documents
        self._state: State | None = None
        self._known_sums: dict[int, U64 | None] = {}

    def manifest(self, version: int) -> Manifest:
        """A version's manifest."""
        return self._documents.manifest(version)

    def layout(self, version: int) -> Layout:
        """A version's layout."""
        return self._documents.layout(self.manifest(version).layout)

    def between(self, old: int, new: int, names: Collection[str] | None = None) -> Counts:
        """Count the words of each tensor of `new` that differ from those of `old`.

        Of a tensor that `old` does not have with the same dtype and shape, the words that are not zero are counted.

        Args:
            old, new: two versions, in any order.
            names: the tensors whose counts are needed; the others may have any. By default all.

        Raises:
            MissingError: no such version, or no route to one.
            TensorDeltaError, StoreError: a version cannot be read.
        """
        before, after = self.manifest(old), self.manifest(new)
        layout = self._documents.layout(after.layout)
        if (before.layout, before.fingerprint) == (after.layout, after.fingerprint):
            return np.zeros(len(layout), np.int64)
        if old > new and before.layout == after.layout:
            old, new, before, after = new, old, after, before
        wanted = None if names is None else {layout.index[name] for name in names if name in layout.index}
        if wanted is not None and not wanted:
            return np.zeros(len(layout), np.int64)
        # A damaged object is passed over here as by any read: it is named if no other way is left.
        with suppress(TensorDeltaError, StoreError):
            counts = self._by_edges(before, after, wanted)
            if counts is not None and self._agrees(before, after, counts, wanted):
                return counts
        if names is not None and after.base is None:
            return self._by_parts(before, after, names)
        return self._by_a_state(old, new)

    def _agrees(self, before: Manifest, after: Manifest, counts: Counts, wanted: Collection[int] | None) -> bool:
        """False where a tensor's fingerprints say that it changed and a count that it did not, or the reverse.

        No word was proven, so that a shortcut with other words than its version's would go unnoticed.
        """
        old, new = self._documents.layout(before.layout), self._documents.layout(after.layout)
        old_sums, new_sums = self._sums(before), self._sums(after)
        if old_sums is None or new_sums is None:
            return True
        for index in range(len(new)) if wanted is None else wanted:
            name = new.tensors[index].name
            if name in old.index and _same(old, new, name):
                differs = old_sums[old.index[name]] != new_sums[index]
                if differs != (counts[index] > 0):
                    return False
        return True

    def _sums(self, manifest: Manifest) -> U64 | None:
        """The fingerprints of a version's tensors, where its manifest names them."""
        if manifest.version not in self._known_sums:
            self._known_sums[manifest.version] = self._documents.tensor_fingerprints(manifest)
        return self._known_sums[manifest.version]

    # -- without words --------------------------------------------------------------------------------------------

    def _by_edges(self, before: Manifest, after: Manifest, wanted: Collection[int] | None) -> Counts | None:
        """By the edges from one version to a newer one; None where they do not tell."""
        if after.starts_from(before):
            return self._by_tables(Edge(manifest_name(after.version), after), before, wanted)
        if before.version > after.version:
            return None
        edges = self._reader.plan(after.version, before.version).edges
        if not _leads(before, edges, after):
            return None
        if len(edges) == 1:
            return self._by_tables(edges[0], before, wanted)
        layout = self._documents.layout(after.layout)
        if any(edge.manifest.layout != before.layout for edge in edges):
            return None
        if sum(edge.manifest.changed for edge in edges) > _SPARSE * layout.words:
            return None
        return self._by_steps(edges, layout, wanted)

    def _packs(self, edge: Edge, layout: Layout, wanted: Collection[int] | None) -> list[tuple[Pack, Blob]]:
        """An edge's packs, or those of them that may hold wanted tensors: proven, with their tables."""
        check_features(edge.manifest, object=edge.name)
        entries = _touching(edge, wanted)
        with self._reader.packs.ahead((edge.manifest.version, entry) for entry in entries):
            return self._reader.packs.of(edge.manifest, layout, self._reader.budget(), entries, object=edge.name)

    def _by_tables(self, edge: Edge, before: Manifest, wanted: Collection[int] | None) -> Counts | None:
        old, layout = self._documents.layout(before.layout), self._documents.layout(edge.manifest.layout)
        fresh = {index for name, index in layout.index.items() if name not in old.index or not _same(old, layout, name)}
        counts = np.zeros(len(layout), np.int64)
        for pack, blob in self._packs(edge, layout, wanted):
            if not isinstance(pack, ChunkPack):
                return None
            for index, chunk in enumerate(pack.chunks):
                if wanted is not None and not any(tensor in wanted for tensor, _, _ in chunk.slices):
                    continue
                read, label = pack.reader(index, blob), pack.chunk_label(index)
                found = count_changed(chunk, read, wanted=wanted, fresh=fresh, object=label)
                if found is None:
                    return None
                for tensor, changed in found.items():
                    counts[tensor] += changed
        return counts

    def _by_steps(self, edges: Sequence[Edge], layout: Layout, wanted: Collection[int] | None) -> Counts | None:
        pieces: dict[int, list[Piece]] = {}
        for edge in edges:
            for pack, blob in self._packs(edge, layout, wanted):
                if not isinstance(pack, ChunkPack):
                    return None
                for index, chunk in enumerate(pack.chunks):
                    found = decode_changes(chunk, pack.reader(index, blob), object=pack.chunk_label(index))
                    if found is None:
                        return None
                    for piece in found:
                        if wanted is None or piece.tensor in wanted:
                            pieces.setdefault(piece.tensor, []).append(piece)
        counts = np.zeros(len(layout), np.int64)
        for tensor, steps in pieces.items():
            counts[tensor] = count_sums(steps)
        return counts

    # -- with words -----------------------------------------------------------------------------------------------

    def _by_parts(self, before: Manifest, after: Manifest, names: Collection[str]) -> Counts:
        """By reading the wanted tensors of both versions, for a version that has no base."""
        old, new = self._documents.layout(before.layout), self._documents.layout(after.layout)
        there = [name for name in names if name in new.index]
        held = [name for name in there if name in old.index and _same(old, new, name)]
        words = part.read_tensors(self._reader, after.version, there)
        base = part.read_tensors(self._reader, before.version, held) if held else {}
        counts = np.zeros(len(new), np.int64)
        for name in there:
            counts[new.index[name]] = _differing(base.get(name), words[name])
        return counts

    def _by_a_state(self, old: int, new: int) -> Counts:
        """By leading a state from one version to the other; it stays at the other for the next question."""
        if self._state is None:
            self._state = self._reader.load(old)
        elif self._state.version != old:
            step(self._reader, self._state, old).apply()
        update = step(self._reader, self._state, new)
        counts = count_update(self._state, update)
        update.apply()
        return counts


def count_update(state: State, update: Update) -> Counts:
    """Count the words of each tensor that an update, not yet applied to its state, changes."""
    old, new = state.layout, update.layout
    counts = np.zeros(len(new), np.int64)
    for tensor, words in update.built.items():
        name = new.tensors[tensor].name
        same = name in old.index and _same(old, new, name)
        counts[tensor] = _differing(state.words(old.index[name]) if same else None, words)
    for piece in update.runs():
        held = update.source(piece.tensor)
        assert held is not None
        before = held[piece.start : piece.stop] if piece.indices is None else held.take(piece.indices)
        counts[piece.tensor] += _differing(before, piece.new)
    return counts


def _same(old: Layout, new: Layout, name: str) -> bool:
    """True if a tensor that both layouts have is of one dtype and shape."""
    return old.tensors[old.index[name]] == new.tensors[new.index[name]]


def _differing(old: Words | None, new: Words) -> int:
    return int(np.count_nonzero(new if old is None else old != new))


def _leads(before: Manifest, edges: Sequence[Edge], after: Manifest) -> bool:
    """True if edges lead from one version to the other by what they say, which a shortcut may get wrong."""
    ends = [before, *(edge.manifest for edge in edges)]
    same = (ends[-1].layout, ends[-1].fingerprint) == (after.layout, after.fingerprint)
    return same and all(edge.starts_from(base) for base, edge in pairwise(ends))


def _touching(edge: Edge, wanted: Collection[int] | None) -> list[PackEntry]:
    return [
        entry for entry in edge.manifest.packs if wanted is None or any(entry.may_hold(tensor) for tensor in wanted)
    ]
