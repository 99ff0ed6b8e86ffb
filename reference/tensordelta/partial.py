"""Reading some tensors of a version, from the packs that touch them alone (SPEC.md section 9.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from . import chunk as chunks
from . import fingerprint
from .chunk import Chunk, Indices
from .errors import IntegrityError, MissingError, TensorDeltaError, UnsupportedError
from .layout import Layout, Tensor
from .pack import Blob, ChunkPack, Pack
from .preparation import Budget, zeros
from .reader import EdgeFault, Reader
from .routes import Edge
from .words import Words

#: The rule under which a version is refused of which no part can be proven.
_UNPROVEN = "TD-RDR-013"


def read_tensors(reader: Reader, version: int, names: Iterable[str]) -> dict[str, Words]:
    """The words of some tensors of a version, proven by its tensor fingerprints.

    Raises:
        MissingError: no such version or tensor, or no route.
        LimitError: the memory budget would be passed.
        UnsupportedError: a version on the way names no fingerprints object, so that nothing can be proven.
        TensorDeltaError: the error of the route first chosen, when no other is left.
    """
    layout = reader.layout(reader.manifest(version).layout)
    wanted: set[int] = set()
    for name in names:
        if name not in layout.index:
            raise MissingError(
                f"version {version} has no tensor {name!r}",
                object=f"version {version}",
                rule="TD-OBJ-008",
                advice="`show` lists the tensors of a version.",
            )
        wanted.add(layout.index[name])
    unproven: list[TensorDeltaError] = []

    def follow(route: Sequence[Edge]) -> dict[int, Words]:
        try:
            return _follow(reader, route, wanted)
        except EdgeFault as fault:
            if fault.fault.rule == _UNPROVEN:
                unproven.append(fault.fault)
            raise

    try:
        _, words = reader.along(version, None, follow)
    except TensorDeltaError:
        if unproven:  # whoever loads the whole version may still succeed, so this is what is told
            raise unproven[0] from None
        raise
    return {layout.tensors[index].name: words[index] for index in wanted}


class _Hop:
    """One member of a route, with the part of its packs that is needed."""

    def __init__(self, reader: Reader, edge: Edge, budget: Budget) -> None:
        self.edge = edge
        self.budget = budget
        self.layout = reader.layout(edge.manifest.layout)
        self.packs: list[tuple[Pack, Blob]] = []
        self.wanted: set[int] = set()
        self.needed: set[int] = set()

    def need(self, reader: Reader, wanted: set[int]) -> None:
        """Fetch the packs that touch wanted tensors; what their chunks are decoded against is needed of the base."""
        self.wanted, self.needed = wanted, set(wanted)
        manifest = self.edge.manifest
        for entry in manifest.packs:
            if any(entry.tensors[0] <= tensor < entry.tensors[1] for tensor in wanted):
                self.packs.append(reader.pack(entry, manifest, self.layout, keep=False))
        for pack, _ in self.packs:
            for chunk in pack.chunks if isinstance(pack, ChunkPack) else ():
                if self.touches(chunk):
                    self.needed |= {tensor for tensor, _, _ in chunk.slices}

    def touches(self, chunk: Chunk) -> bool:
        """True where a chunk has words of a wanted tensor."""
        return any(tensor in self.wanted for tensor, _, _ in chunk.slices)


def _follow(reader: Reader, route: Sequence[Edge], wanted: set[int]) -> dict[int, Words]:
    hops: list[_Hop] = []
    budget = Budget(reader.memory)
    needed = wanted
    for edge in reversed(route):
        try:
            hop = _Hop(reader, edge, budget)
            hop.need(reader, needed)
        except TensorDeltaError as fault:
            raise EdgeFault(edge, fault) from None
        hops.append(hop)
        if edge.manifest.base is not None:
            base = reader.layout(edge.manifest.base.layout)
            tensors = [hop.layout.tensors[index] for index in hop.needed]
            needed = {base.index[each.name] for each in tensors if _same(base, each)}
    words: dict[int, Words] = {}
    layout = Layout(())
    for hop in reversed(hops):
        try:
            words = _hop(reader, hop, layout, words)
        except TensorDeltaError as fault:
            raise EdgeFault(hop.edge, fault) from None
        layout = hop.layout
    return words


def _same(layout: Layout, tensor: Tensor) -> bool:
    index = layout.index.get(tensor.name)
    return index is not None and layout.tensors[index] == tensor


class _Base:
    """The fitted base, as far as it is needed."""

    def __init__(self, words: dict[int, Words], zero: set[int]) -> None:
        self._words = words
        self._zero = zero

    def is_zero(self, tensor: int) -> bool:
        return tensor in self._zero

    def take(self, tensor: int, indices: Indices) -> Words:
        return self._words[tensor].take(indices)

    def part(self, tensor: int, start: int, stop: int) -> Words:
        return self._words[tensor][start:stop].copy()


def _hop(reader: Reader, hop: _Hop, before: Layout, held: dict[int, Words]) -> dict[int, Words]:
    """Fit the needed tensors; decode and prove the wanted ones."""
    words: dict[int, Words] = {}
    zero: set[int] = set()
    full = hop.edge.manifest.base is None
    for index in hop.needed:
        tensor = hop.layout.tensors[index]
        if not full and _same(before, tensor):
            words[index] = held[before.index[tensor.name]]
        else:
            words[index] = zeros(tensor, hop.budget)
            zero.add(index)
    base = _Base(words, zero)
    for pack, blob in hop.packs:
        if isinstance(pack, ChunkPack):
            for number, chunk in enumerate(pack.chunks):
                if hop.touches(chunk):
                    label = pack.chunk_label(number)
                    hop.budget.check(chunk.memory, object=label)
                    decoded = chunks.decode(chunk, hop.layout, pack.reader(number, blob), base, object=label)
                    for piece in (each for each in decoded.pieces if each.tensor in hop.wanted):
                        target = words[piece.tensor]
                        at = slice(piece.start, piece.stop) if piece.indices is None else piece.indices
                        target[at] = piece.new
        else:
            for index in hop.wanted & pack.tensors.keys():
                tensor = hop.layout.tensors[index]
                hop.budget.check(2 * tensor.nbytes, object=pack.label)
                words[index] = np.frombuffer(blob.read(pack.tensors[index], tensor.nbytes), tensor.kind.word).copy()
    _prove(reader, hop, words)
    return {index: words[index] for index in hop.wanted}


def _prove(reader: Reader, hop: _Hop, words: dict[int, Words]) -> None:
    edge = hop.edge.manifest
    sums = reader.tensor_fingerprints(reader.manifest(edge.version))
    if sums is None:  # the version's own manifest names none; a shortcut to it may
        sums = reader.tensor_fingerprints(edge)
    if sums is None:
        raise UnsupportedError(
            "names no fingerprints of its tensors, so a part of it cannot be proven",
            object=hop.edge.name,
            rule=_UNPROVEN,
            advice="Load the whole version instead.",
        )
    for index in sorted(hop.wanted):
        name = hop.layout.tensors[index].name
        if fingerprint.scan(name, words[index]) != int(sums[index]):
            raise IntegrityError(
                f"tensor {name!r} does not have the fingerprint that the version names",
                object=hop.edge.name,
                rule="TD-RDR-012",
            )
