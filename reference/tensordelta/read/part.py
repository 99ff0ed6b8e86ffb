"""Reading some tensors of a version, from the packs that have words of them (SPEC.md section 9.4).

The edges of a route are read backwards first, since a chunk in order `exponent` needs the base words of all of its
tensors; then they are decoded forwards, by the same `Preparation` as those of a whole state. The fingerprints objects
of the versions prove each tensor before and after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from ..codecs.fingerprint import U64
from ..codecs.words import Words
from ..errors import IntegrityError, MissingError, TensorDeltaError, UnsupportedError, WrongBaseError
from ..format.chunk import Exponent
from ..format.layout import Layout
from ..format.manifest import Base, Manifest, PackEntry
from ..format.pack import Blob, ChunkPack, Pack, check_overlap
from ..state.state import State
from .budget import Budget
from .packs import SourceError, check_ranges
from .prepare import Preparation
from .reader import EdgeFault, Reader
from .routes import Edge, Held

#: The rule under which a version is refused of which no part can be proven.
_UNPROVEN = "TD-RDR-013"


def read_tensors(reader: Reader, version: int, names: Collection[str]) -> dict[str, Words]:
    """The words of some tensors of a version, proven by its tensor fingerprints.

    What a chunk in order `exponent` needs of other tensors is read as well. Where a version on the way names no
    fingerprints object, so that no tensor can be proven alone, the whole version is read.

    Raises:
        MissingError: no such version or tensor, or no route.
        LimitError: it would pass the memory budget.
        TensorDeltaError, SourceError: the error of the edge that failed first, when no route is left.
    """
    reader.documents.admit(version)
    layout = reader.documents.layout(reader.documents.manifest(version).layout)
    for name in names:
        if name not in layout.index:
            raise MissingError(
                f"version {version} has no tensor {name!r}",
                object=f"version {version}",
                rule="TD-OBJ-008",
                advice="`show` lists the tensors of a version.",
            )
    unproven = False

    def follow(route: Sequence[Edge]) -> dict[str, Words]:
        nonlocal unproven
        try:
            return _follow(reader, route, names, State.empty(), reader.budget(), alone=False)
        except EdgeFault as failed:
            unproven |= isinstance(failed.fault, UnsupportedError) and failed.fault.rule == _UNPROVEN
            raise

    try:
        words = reader.along(version, None, follow).result
    except (TensorDeltaError, SourceError):
        if not unproven:
            raise
        state = reader.load(version)
        return {name: state.words(state.layout.index[name]) for name in names}
    reader.documents.remember(version)
    return {name: words[name] for name in names}


def load_part(reader: Reader, version: int, names: Collection[str], held: State | None) -> State:
    """Those of some tensors that a version has, for a reader that holds nothing else.

    Args:
        reader: of the chain.
        version: the target.
        names: the tensors of the part.
        held: the part as the reader holds it, which stays as it is; None for nothing.

    Raises:
        MissingError: no such version, or no route.
        LimitError: it would pass the memory budget.
        UnsupportedError: a version names no fingerprints object, or a chunk in order `exponent` needs other tensors.
        WrongBaseError: the held tensors are not those of the base.
        TensorDeltaError, SourceError: the error of the edge that failed first, when no route is left.
    """
    documents = reader.documents
    documents.admit(version, held)
    manifest = documents.manifest(version)
    copied = reader.budget()
    own = State.empty() if held is None else _copy(held, names, copied)
    start = None if held is None else _held(reader, version, names, own)
    if start is not None and start.version == version:
        words = {name: own.words(index) for name, index in own.layout.index.items()}
    else:

        def follow(route: Sequence[Edge]) -> dict[str, Words]:
            budget = reader.budget()
            budget.used = copied.used
            return _follow(reader, route, names, own, budget, alone=True)

        words = reader.along(version, start, follow).result
    layout = Layout(tuple(each for each in documents.layout(manifest.layout).tensors if each.name in words))
    state = State(layout, [words[tensor.name] for tensor in layout.tensors])
    state.version, state.chain = version, reader.chain
    state.version_digests = manifest.layout, manifest.fingerprint
    documents.remember(version)
    return state


def _copy(state: State, names: Collection[str], budget: Budget) -> State:
    """The tensors of `names` that a state has, in memory of their own, under the version that it remembers."""
    layout = Layout(tuple(tensor for tensor in state.layout.tensors if tensor.name in names))
    budget.take(layout.nbytes, object="the tensors held")
    copy = State(layout, [state.words(state.layout.index[tensor.name]).copy() for tensor in layout.tensors])
    copy.version, copy.chain, copy.version_digests = state.version, state.chain, state.version_digests
    return copy


def _held(reader: Reader, target: int, names: Collection[str], held: State) -> Held | None:
    """The version that a held part is, by its tensors' fingerprints; None where the route has to start from nothing.

    Compared are, in this order: the target; where the part remembers no version, the newest 128 versions, newest first.
    A part that remembers a version is held as that version even if it differs, so that edges from it fail; but not
    where that version has a wanted tensor that is not held.
    """
    own = held.version if held.chain == reader.chain else None

    def is_version(version: int) -> Held | None:
        try:
            return Held(version) if _is_version(reader, reader.documents.manifest(version), names, held) else None
        except TensorDeltaError:
            return None

    found = is_version(target)
    if found is None and own is None:
        found = reader.first_of(reader.recent(), is_version)
    if found is not None or own is None or own == target or _is_wider(reader, own, names, held):
        return found
    return Held(own)


def _is_wider(reader: Reader, version: int, names: Collection[str], held: State) -> bool:
    """True where a version has a wanted tensor that is not held."""
    try:
        index = reader.documents.layout(reader.documents.manifest(version).layout).index
    except TensorDeltaError:
        return False
    return any(name in index and name not in held.layout.index for name in names)


def _is_version(reader: Reader, manifest: Manifest, names: Collection[str], held: State) -> bool:
    """True where the held part is that of a version: the same tensors of `names`, with the same fingerprints."""
    layout, sums = reader.documents.layout(manifest.layout), reader.documents.tensor_fingerprints(manifest)
    if sums is None or any((name in held.layout.index) != (name in layout.index) for name in names):
        return False
    return not _differing(layout, sums, names, held, reader.threads)


def _differing(layout: Layout, sums: U64, names: Collection[str], held: State, threads: int) -> list[str]:
    """The tensors of `names` in a version's layout that are not held as its fingerprints object says."""
    own, own_sums = held.layout, held.sums(threads=threads)
    return [
        name
        for name in names
        if name in layout.index
        and (
            name not in own.index
            or own.tensors[own.index[name]] != layout.tensors[layout.index[name]]
            or own_sums[own.index[name]] != sums[layout.index[name]]
        )
    ]


def _check_base(reader: Reader, edge: Edge, base: Base, names: Collection[str], held: State) -> State:
    """Prove that the held tensors are those of a delta's base; returns those of them that the base has."""
    try:
        own = reader.documents.manifest(base.version)
    except MissingError:
        raise _unproven(f"starts from version {base.version}, whose manifest is gone", edge) from None
    sums = reader.documents.tensor_fingerprints(own)
    if sums is None:
        raise _unproven(f"starts from version {base.version}, which names no fingerprints of its tensors", edge)
    layout = reader.documents.layout(base.layout)
    differing = _differing(layout, sums, names, held, reader.threads)
    if differing:
        raise WrongBaseError(
            f"tensor {differing[0]!r} is not held as version {base.version} has it", object=edge.name, rule="TD-RDR-011"
        )
    kept = [index for index, tensor in enumerate(held.layout.tensors) if tensor.name in layout.index]
    state = State(Layout(tuple(held.layout.tensors[index] for index in kept)), [held.words(index) for index in kept])
    state.assume(held.sums()[kept])
    return state


def _unproven(reason: str, edge: Edge) -> UnsupportedError:
    advice = "Load the whole version instead."
    return UnsupportedError(reason, object=edge.name, rule=_UNPROVEN, advice=advice)


class _Hop:
    """One edge of a route, with the packs that have words of the wanted tensors.

    Attributes:
        wanted: names of the tensors whose new words are needed.
        needed: names of the tensors whose base words are needed.
    """

    def __init__(self, reader: Reader, edge: Edge, wanted: Collection[str], budget: Budget, *, alone: bool) -> None:
        manifest = edge.manifest
        self.edge = edge
        self.layout = reader.documents.layout(manifest.layout)
        self.wanted = {name for name in wanted if name in self.layout.index}
        self.needed = set(wanted)
        check_ranges(manifest, self.layout, object=edge.name)
        self.packs: list[tuple[Pack, Blob]] = [
            reader.packs.part_of(entry, manifest, self.layout, budget)
            for entry in _touching(edge, self.layout, self.wanted)
        ]
        check_overlap([pack for pack, _ in self.packs], self.layout, object=edge.name)
        for pack in (pack for pack, _ in self.packs if isinstance(pack, ChunkPack)):
            for number, chunk in enumerate(pack.chunks):
                for group in chunk.groups if isinstance(chunk.order, Exponent) else ():
                    names = {self.layout.tensors[tensor].name for tensor, _, _ in group}
                    others = names - self.wanted
                    if not others or names.isdisjoint(self.wanted):
                        continue
                    if alone:
                        raise UnsupportedError(
                            f"is in order exponent over {min(others)!r}, which is not held",
                            object=pack.chunk_label(number),
                            rule="TD-RDR-017",
                            advice="Hold all tensors of the group, or load the whole version.",
                        )
                    self.needed |= others

    def follow(self, preparation: Preparation) -> None:
        """Fit the needed tensors, and decode the wanted ones."""
        preparation.fit(self.layout, full=self.edge.manifest.base is None, names=self.needed)
        preparation.decode(self.packs, names=self.wanted)

    def prove(self, reader: Reader, preparation: Preparation) -> None:
        """Prove that the wanted tensors have the fingerprints of the edge's version."""
        edge = self.edge.manifest
        sums = reader.documents.tensor_fingerprints(reader.documents.manifest(edge.version))
        if sums is None:  # the version's own manifest names none; a shortcut to it may
            sums = reader.documents.tensor_fingerprints(edge)
        if sums is None:
            raise _unproven("names no fingerprints of its tensors, so a part of it cannot be proven", self.edge)
        for name in sorted(self.wanted):
            index = self.layout.index[name]
            if preparation.sums[index] != sums[index]:
                raise IntegrityError(
                    f"tensor {name!r} does not have the fingerprint that the version names",
                    object=self.edge.name,
                    rule="TD-RDR-012",
                )


def _follow(
    reader: Reader, route: Sequence[Edge], names: Collection[str], held: State, budget: Budget, *, alone: bool
) -> dict[str, Words]:
    """The words of some tensors after a route: those of `names` that its last layout has.

    Args:
        reader: of the chain.
        route: at least one edge.
        names: the tensors.
        held: those that are held; the words of tensors that do not change stay its own.
        budget: the memory budget.
        alone: whether tensors that are not in `names` cannot be read as well.
    """
    hops: list[_Hop] = []
    needed = names
    with reader.packs.ahead(_ahead(reader, route, names)):
        for edge in reversed(route):
            with _failing(edge):
                hops.append(_Hop(reader, edge, needed, budget, alone=alone))
            needed = hops[-1].needed
    first = route[0]
    if first.manifest.base is not None:
        with _failing(first):
            held = _check_base(reader, first, first.manifest.base, names, held)
    preparation = Preparation(held, held.sums(threads=reader.threads), threads=reader.threads, budget=budget)
    for hop in reversed(hops):
        with _failing(hop.edge):
            hop.follow(preparation)
            hop.prove(reader, preparation)
    index, tensors = hops[0].layout.index, hops[0].layout.tensors
    return {name: preparation.part(index[name], 0, tensors[index[name]].words) for name in hops[0].wanted}


def _touching(edge: Edge, layout: Layout, names: Collection[str]) -> Iterator[PackEntry]:
    """The packs of an edge that may have words of some tensors (TD-RDR-015)."""
    indices = [layout.index[name] for name in names if name in layout.index]
    for entry in edge.manifest.packs:
        if any(entry.may_hold(index) for index in indices):
            yield entry


def _ahead(reader: Reader, route: Sequence[Edge], names: Collection[str]) -> Iterator[tuple[int, PackEntry]]:
    """The packs to download in the background, in the order of use; others may turn out to be needed as well."""
    for edge in reversed(route):
        with _failing(edge):
            layout = reader.documents.layout(edge.manifest.layout)
        for entry in _touching(edge, layout, names):
            yield edge.manifest.version, entry


@contextmanager
def _failing(edge: Edge) -> Iterator[None]:
    """Turn an error into the fault of an edge."""
    try:
        yield
    except (TensorDeltaError, SourceError) as fault:
        raise EdgeFault(edge, fault) from None
