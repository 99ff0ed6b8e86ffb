"""Reading some tensors of a version, from the packs that touch them alone (SPEC.md section 9.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from . import chunk as chunks
from . import fingerprint
from .chunk import Indices
from .errors import IntegrityError, MissingError, TensorDeltaError, UnsupportedError
from .layout import Layout, Tensor
from .manifest import Manifest
from .pack import Blob, ChunkPack, Pack
from .reader import EdgeFault, Reader
from .routes import Edge
from .words import Words


def read_tensors(reader: Reader, version: int, names: Iterable[str]) -> dict[str, Words]:
    """The words of some tensors of a version, proven by its tensor fingerprints.

    Raises:
        MissingError: no such version or tensor, or no route.
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
    _, words = reader.along(version, None, lambda route: _follow(reader, route, wanted))
    return {layout.tensors[index].name: words[index] for index in wanted}


class _Hop:
    """One member of a route, with the part of its packs that is needed."""

    def __init__(self, reader: Reader, edge: Edge) -> None:
        self.edge = edge
        self.layout = reader.layout(edge.manifest.layout)
        self.packs: list[tuple[Pack, Blob]] = []
        self.needed: set[int] = set()

    def need(self, reader: Reader, wanted: set[int]) -> None:
        """Fetch the packs that touch the wanted tensors, and want what their chunks are decoded against."""
        self.needed = set(wanted)
        manifest = self.edge.manifest
        for entry in manifest.packs:
            if any(entry.tensors[0] <= tensor < entry.tensors[1] for tensor in wanted):
                self.packs.append(reader.pack(entry, manifest, self.layout, keep=False))
        grown = True
        while grown:  # a chunk is decoded against all of its tensors
            before = len(self.needed)
            for pack, _ in self.packs:
                for chunk in pack.chunks if isinstance(pack, ChunkPack) else ():
                    tensors = {tensor for tensor, _, _ in chunk.slices}
                    if tensors & self.needed:
                        self.needed |= tensors
            grown = len(self.needed) > before


def _follow(reader: Reader, route: Sequence[Edge], wanted: set[int]) -> dict[int, Words]:
    hops: list[_Hop] = []
    needed = wanted
    for edge in reversed(route):
        try:
            hop = _Hop(reader, edge)
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
    """Fit, decode and prove the needed tensors."""
    words: dict[int, Words] = {}
    zero: set[int] = set()
    full = hop.edge.manifest.base is None
    for index in hop.needed:
        tensor = hop.layout.tensors[index]
        if not full and _same(before, tensor):
            words[index] = held[before.index[tensor.name]]
        else:
            words[index] = np.zeros(tensor.words, tensor.kind.word)
            zero.add(index)
    base = _Base(words, zero)
    for pack, blob in hop.packs:
        if isinstance(pack, ChunkPack):
            for number, chunk in enumerate(pack.chunks):
                if any(tensor in hop.needed for tensor, _, _ in chunk.slices):
                    read = pack.reader(number, blob)
                    decoded = chunks.decode(chunk, hop.layout, read, base, object=pack.chunk_label(number))
                    for piece in decoded.pieces:
                        target = words[piece.tensor]
                        at = slice(piece.start, piece.stop) if piece.indices is None else piece.indices
                        target[at] = piece.new
        else:
            for index in hop.needed & pack.tensors.keys():
                tensor = hop.layout.tensors[index]
                words[index] = np.frombuffer(blob.read(pack.tensors[index], tensor.nbytes), tensor.kind.word).copy()
    _prove(reader, hop.edge.manifest, hop, words)
    return words


def _prove(reader: Reader, manifest: Manifest, hop: _Hop, words: dict[int, Words]) -> None:
    sums = reader.tensor_fingerprints(manifest)
    if sums is None:
        raise UnsupportedError(
            "names no fingerprints of its tensors, so a part of it cannot be proven",
            object=hop.edge.name,
            rule="TD-RDR-013",
            advice="Load the whole version instead.",
        )
    for index in sorted(hop.needed):
        name = hop.layout.tensors[index].name
        if fingerprint.scan(name, words[index]) != int(sums[index]):
            raise IntegrityError(
                f"tensor {name!r} does not have the fingerprint that the version names",
                object=hop.edge.name,
                rule="TD-RDR-012",
            )
