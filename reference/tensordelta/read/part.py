"""Reading some tensors of a version, from the packs that touch them alone (SPEC.md section 9.4)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from ..codecs import fingerprint
from ..codecs.fingerprint import U64
from ..codecs.words import Words
from ..errors import IntegrityError, MissingError, TensorDeltaError, UnsupportedError, WrongBaseError
from ..format.chunk import Chunk, Exponent
from ..format.chunk_codec import Indices, decode
from ..format.layout import Layout
from ..format.manifest import Base, Manifest, PackEntry
from ..format.pack import Blob, ChunkPack, Pack, check_overlap
from ..state.state import State
from .prepare import Budget, zeros
from .reader import EdgeFault, Reader
from .routes import Edge, Held

#: The rule under which a version is refused of which no part can be proven.
_UNPROVEN = "TD-RDR-013"

#: The tensors of a part by name.
_Part = Mapping[str, Words]


def read_tensors(reader: Reader, version: int, names: Collection[str]) -> dict[str, Words]:
    """The words of some tensors of a version, proven by its tensor fingerprints.

    What a chunk in order `exponent` needs of other tensors is read as well.

    Raises:
        MissingError: no such version or tensor, or no route.
        LimitError: the memory budget would be passed.
        UnsupportedError: a version on the way names no fingerprints object, so that nothing can be proven.
        TensorDeltaError: the error of the route first chosen, when no other is left.
    """
    reader.admit(version)
    layout = reader.layout(reader.manifest(version).layout)
    for name in names:
        if name not in layout.index:
            raise MissingError(
                f"version {version} has no tensor {name!r}",
                object=f"version {version}",
                rule="TD-OBJ-008",
                advice="`show` lists the tensors of a version.",
            )
    unproven: list[TensorDeltaError] = []

    def follow(route: Sequence[Edge]) -> dict[str, Words]:
        try:
            return _follow(reader, route, names, None, alone=False)
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
    reader.remember(version)
    return {name: words[name] for name in names}


def load_part(reader: Reader, version: int, names: Collection[str], held: State | None) -> State:
    """Some tensors of a version, as far as it has them, for a reader that holds nothing else.

    Args:
        reader: of the chain.
        version: the target.
        names: the tensors of the part.
        held: the part as the reader holds it; it stays as it is. None for nothing.

    Raises:
        MissingError: no such version, or no route.
        LimitError: the memory budget would be passed.
        UnsupportedError: a version names no fingerprints object, or a chunk in order `exponent` needs other tensors.
        WrongBaseError: the held tensors are not those of the base.
        TensorDeltaError: the error of the route first chosen, when no other is left.
    """
    reader.admit(version, held)
    manifest = reader.manifest(version)
    start = _held(reader, version, names, held)
    words: dict[str, Words] = {}
    if held is not None and start is not None and start.version == version:
        words = {name: held.words(index).copy() for name, index in held.layout.index.items() if name in names}
    else:
        _, words = reader.along(version, start, lambda route: _follow(reader, route, names, held, alone=True))
    layout = Layout(tuple(each for each in reader.layout(manifest.layout).tensors if each.name in words))
    state = State(layout, [words[tensor.name] for tensor in layout.tensors])
    state.version, state.chain = version, reader.chain
    state.version_digests = manifest.layout, manifest.fingerprint
    reader.remember(version)
    return state


def _held(reader: Reader, target: int, names: Collection[str], held: State | None) -> Held | None:
    """The version that a held part is: the target, if it is that, else what it remembers, else what its sums tell.

    None where a wanted tensor of the version is not held: then the route leads from nothing.
    """
    if held is None:
        return None
    own = held.version if held.chain == reader.chain else None
    versions = [target] if own is not None else [target, *reversed(reader.versions())]
    for version in versions:
        try:
            if _is_version(reader, reader.manifest(version), names, held):
                return Held(version)
        except TensorDeltaError:
            continue
    if own is None or own == target or _is_wider(reader, own, names, held):
        return None
    return Held(own)


def _is_wider(reader: Reader, version: int, names: Collection[str], held: State) -> bool:
    """True where a version has a wanted tensor that is not held."""
    try:
        index = reader.layout(reader.manifest(version).layout).index
    except TensorDeltaError:
        return False
    return any(name in index and name not in held.layout.index for name in names)


def _is_version(reader: Reader, manifest: Manifest, names: Collection[str], held: State) -> bool:
    """True where the held part is that of a version: the same tensors of `names`, with the same fingerprints."""
    layout, sums = reader.layout(manifest.layout), reader.tensor_fingerprints(manifest)
    if sums is None or any((name in held.layout.index) != (name in layout.index) for name in names):
        return False
    return not _differing(layout, sums, names, held)


def _differing(layout: Layout, sums: U64, names: Collection[str], held: State) -> list[str]:
    """The tensors of `names` in a version's layout that are not held as its fingerprints object says."""
    return [
        name
        for name in names
        if name in layout.index
        and (
            name not in held.layout.index
            or held.layout.tensors[held.layout.index[name]] != layout.tensors[layout.index[name]]
            or held.sums()[held.layout.index[name]] != sums[layout.index[name]]
        )
    ]


class _Hop:
    """One member of a route, with the part of its packs that is needed.

    Attributes:
        wanted: names of tensors of which the new words are needed.
        needed: names of tensors of which the base words are.
    """

    def __init__(self, reader: Reader, edge: Edge, wanted: Collection[str], *, alone: bool) -> None:
        self.edge = edge
        self.layout = reader.layout(edge.manifest.layout)
        self.wanted = {name for name in wanted if name in self.layout.index}
        self.needed = set(wanted)
        indices = {self.layout.index[name] for name in self.wanted}
        manifest = edge.manifest
        reader.check_ranges(manifest, self.layout, object=edge.name)
        self.packs: list[tuple[Pack, Blob]] = [
            reader.pack(entry, manifest, self.layout, keep=False)
            for entry in manifest.packs
            if any(entry.tensors[0] <= index < entry.tensors[1] for index in indices)
        ]
        check_overlap([pack for pack, _ in self.packs], self.layout, object=edge.name)
        for pack in (pack for pack, _ in self.packs if isinstance(pack, ChunkPack)):
            for number, chunk in enumerate(pack.chunks):
                others = self._names(chunk) - self.wanted
                if not others or not isinstance(chunk.order, Exponent) or not self.touches(chunk):
                    continue
                if alone:
                    raise UnsupportedError(
                        f"is in order exponent over {min(others)!r}, which is not held",
                        object=pack.chunk_label(number),
                        rule="TD-RDR-014",
                        advice="Hold all tensors of the chunk, or load the whole version.",
                    )
                self.needed |= others

    def _names(self, chunk: Chunk) -> set[str]:
        return {self.layout.tensors[tensor].name for tensor, _, _ in chunk.slices}

    def touches(self, chunk: Chunk) -> bool:
        """True where a chunk has words of a wanted tensor."""
        return not self.wanted.isdisjoint(self._names(chunk))

    def is_whole(self, chunk: Chunk, held: _Part) -> bool:
        """True where all tensors of a chunk are at hand."""
        return self._names(chunk) <= held.keys()


def _follow(
    reader: Reader, route: Sequence[Edge], names: Collection[str], held: State | None, *, alone: bool
) -> dict[str, Words]:
    hops: list[_Hop] = []
    needed = names
    with reader.ahead(_touching(reader, route, names)):
        for edge in reversed(route):
            with _failing(edge):
                hops.append(_Hop(reader, edge, needed, alone=alone))
            needed = hops[-1].needed
    layout = Layout(())
    words: dict[str, Words] = {}
    if held is not None and route[0].manifest.base is not None:
        layout = held.layout
        with _failing(route[0]):
            _check_base(reader, route[0], route[0].manifest.base, names, held)
            known = reader.layout(route[0].manifest.base.layout).index
        words = {name: held.words(layout.index[name]) for name in names if name in layout.index and name in known}
    for hop in reversed(hops):
        with _failing(hop.edge):
            words = _hop(reader, hop, layout, words)
        layout = hop.layout
    return words


def _touching(reader: Reader, route: Sequence[Edge], names: Collection[str]) -> Iterator[tuple[int, PackEntry]]:
    """The packs that touch some tensors, in the order in which hops are made; others may turn out to be needed."""
    for edge in reversed(route):
        with _failing(edge):
            layout = reader.layout(edge.manifest.layout)
        indices = [layout.index[name] for name in names if name in layout.index]
        for entry in edge.manifest.packs:
            if any(entry.tensors[0] <= index < entry.tensors[1] for index in indices):
                yield edge.manifest.version, entry


@contextmanager
def _failing(edge: Edge) -> Iterator[None]:
    try:
        yield
    except TensorDeltaError as fault:
        raise EdgeFault(edge, fault) from None


def _check_base(reader: Reader, edge: Edge, base: Base, names: Collection[str], held: State) -> None:
    """Prove that the held tensors are those of a delta's base."""
    try:
        own = reader.manifest(base.version)
    except MissingError:
        raise _unproven(f"starts from version {base.version}, of which no manifest tells the sums", edge) from None
    sums = reader.tensor_fingerprints(own)
    if sums is None:
        raise _unproven(f"starts from version {base.version}, which names no fingerprints of its tensors", edge)
    differing = _differing(reader.layout(base.layout), sums, names, held)
    if differing:
        raise WrongBaseError(
            f"tensor {differing[0]!r} is not held as version {base.version} has it", object=edge.name, rule="TD-RDR-011"
        )


def _unproven(reason: str, edge: Edge) -> UnsupportedError:
    advice = "Load the whole version instead."
    return UnsupportedError(reason, object=edge.name, rule=_UNPROVEN, advice=advice)


class _Base:
    """The fitted base, as far as it is held; the rest counts as zero, and what comes of it is not used."""

    def __init__(self, layout: Layout, words: _Part, zero: Collection[str]) -> None:
        self._names = [tensor.name for tensor in layout.tensors]
        self._words = words
        self._zero = zero

    def is_zero(self, tensor: int) -> bool:
        name = self._names[tensor]
        return name in self._zero or name not in self._words

    def take(self, tensor: int, indices: Indices) -> Words:
        return self._words[self._names[tensor]].take(indices)

    def part(self, tensor: int, start: int, stop: int) -> Words:
        name = self._names[tensor]
        return self._words[name][start:stop].copy()


def _hop(reader: Reader, hop: _Hop, before: Layout, held: _Part) -> dict[str, Words]:
    """Fit the needed tensors; decode and prove the wanted ones."""
    budget = Budget(reader.memory)
    base_words: dict[str, Words] = {}
    zero: set[str] = set()
    full = hop.edge.manifest.base is None
    for tensor in (each for each in hop.layout.tensors if each.name in hop.needed):
        name = tensor.name
        if not full and name in held and before.tensors[before.index[name]] == tensor:
            budget.take(tensor.nbytes, object=f"tensor {name!r}")
            base_words[name] = held[name]
        else:
            base_words[name] = zeros(tensor, budget)
            zero.add(name)
    base = _Base(hop.layout, base_words, zero)
    words: dict[str, Words] = {}
    for name in hop.wanted:
        budget.take(base_words[name].nbytes, object=f"tensor {name!r}")
        words[name] = base_words[name].copy()
    for pack, blob in hop.packs:
        if isinstance(pack, ChunkPack):
            for number, chunk in enumerate(pack.chunks):
                if hop.touches(chunk):
                    label = pack.chunk_label(number)
                    budget.check(chunk.memory, object=label)
                    whole = hop.is_whole(chunk, base_words)
                    streams = pack.reader(number, blob)
                    decoded = decode(chunk, hop.layout, streams, base, object=label, prove=whole)
                    for piece in decoded.pieces:
                        target = words.get(hop.layout.tensors[piece.tensor].name)
                        if target is not None:
                            target[slice(piece.start, piece.stop) if piece.indices is None else piece.indices] = (
                                piece.new
                            )
        else:
            for index in pack.tensors:
                tensor = hop.layout.tensors[index]
                if tensor.name in words:
                    budget.check(2 * tensor.nbytes, object=pack.label)
                    data = blob.read(pack.tensors[index], tensor.nbytes)
                    words[tensor.name] = np.frombuffer(data, tensor.kind.word).copy()
    _prove(reader, hop, words)
    return words


def _prove(reader: Reader, hop: _Hop, words: _Part) -> None:
    edge = hop.edge.manifest
    sums = reader.tensor_fingerprints(reader.manifest(edge.version))
    if sums is None:  # the version's own manifest names none; a shortcut to it may
        sums = reader.tensor_fingerprints(edge)
    if sums is None:
        raise _unproven("names no fingerprints of its tensors, so a part of it cannot be proven", hop.edge)
    for name in sorted(words):
        if fingerprint.scan(name, words[name]) != int(sums[hop.layout.index[name]]):
            raise IntegrityError(
                f"tensor {name!r} does not have the fingerprint that the version names",
                object=hop.edge.name,
                rule="TD-RDR-012",
            )
