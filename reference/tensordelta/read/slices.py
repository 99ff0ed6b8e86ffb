"""Preparing an update for a holder of some of a state's words (SPEC.md section 9.5).

A holder decodes positions and values of whole chunks, and keeps the listed words that it has; old words are taken there
alone. No holder can prove an edge by itself: what `Preparation` proves for a whole state, the sums of all holders prove
once, for the whole route (`SliceUpdate.agree`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ..codecs.fingerprint import U64, combine, text
from ..codecs.words import Words
from ..errors import MissingError, TensorDeltaError, UnsupportedError, WrongBaseError
from ..events import Event, emit
from ..format.chunk import Exponent
from ..format.chunk_codec import Chosen, Indices, Piece, decode_pieces
from ..format.layout import Layout
from ..format.manifest import Base, Manifest, PackEntry
from ..format.pack import Blob, ChunkPack, Pack, PlainPack
from ..state.group import GroupError, together
from ..state.holder import Holder, Write
from ..state.slice_update import PreparedSlices, SliceUpdate, Totals
from ..threads import ordered_map
from .packs import SourceError
from .reader import EdgeFault, Followed, Reader
from .routes import Edge, Held

#: Words of a plain tensor that are read at once.
_PLAIN = 1 << 20
#: Bytes that the chunks being decoded may need together; a single chunk may need more.
_IN_FLIGHT = 192 << 20
_RELOAD = "Load the version as a whole, such as from a pulled folder, and start again from it."


def identify(reader: Reader, holder: Holder) -> int:
    """Find the version that a group of holders has, by reading every word; all of them call this.

    Compared is the version that the holder remembers; where it remembers none, the newest 128 versions. It remembers
    the version then.

    Returns:
        The version.

    Raises:
        WrongBaseError: words are missing, differ between holders, or are those of no such version; or the holders
            remember different versions. All of them raise it.
        GroupError: another holder failed; in a group of more than one, errors of this one as well.
    """
    group = holder.group
    totals = group.sum(together(group, lambda: holder.scan(threads=reader.threads)))
    _check_words(holder.layout, totals)
    sums = np.ascontiguousarray(totals[:, 0])
    fingerprint = text(combine(sums))
    remembered = group.gather(str((holder.version, holder.chain, holder.version_digests)))
    if len(set(remembered)) > 1:  # all of them raise, so that none waits for one that has raised alone
        raise WrongBaseError(
            "the holders remember different versions", object="the state", rule="TD-SLC-003", advice=_RELOAD
        )
    if holder.version is not None:
        if fingerprint != holder.fingerprint:
            raise _unknown(reader, fingerprint, f"version {holder.version} no more")
        return holder.version
    held = together(group, lambda: reader.held(holder, sums))
    if len(set(group.gather(str(held)))) > 1:
        raise GroupError("the holders found different versions: they must read the same chain")
    if held is None or held.layout_digest is None:
        raise _unknown(reader, fingerprint, "no version")
    holder.hold(held.version, reader.chain, (held.layout_digest, fingerprint))
    return held.version


def _unknown(reader: Reader, fingerprint: str, version: str) -> WrongBaseError:
    return WrongBaseError(
        f"the words held, with fingerprint {fingerprint}, are those of {version}",
        object=f"chain {reader.chain}",
        rule="TD-RDR-003",
        advice=_RELOAD,
    )


def _check_words(layout: Layout, totals: U64) -> None:
    for tensor, (_, owned, replicas) in zip(layout.tensors, totals.tolist(), strict=True):
        if owned != tensor.words or replicas:
            what = (
                "differs between those that have it"
                if replicas
                else f"has {owned:,} of its {tensor.words:,} words here"
            )
            raise WrongBaseError(
                f"tensor {tensor.name!r} {what}", object="the state", rule="TD-RDR-003", advice=_RELOAD
            )


def prepare(
    reader: Reader, holder: Holder, version: int | None = None, *, without: Collection[str] = ()
) -> SliceUpdate:
    """Prepare the update that takes a holder to a version; its words are only read, and nothing is said to the others.

    For a group of one the update is proven already.

    Args:
        reader: of the chain.
        holder: which remembers its version, see `identify`.
        version: the target, by default the newest.
        without: names of manifests and shortcuts that failed in another holder: no route has them.

    Raises:
        MissingError: no such version, or no route to it.
        UnsupportedError: every route has another layout, or a chunk in order `exponent` over words that the holder
            lacks.
        WrongBaseError: the holder has a version of another chain, or was updated meanwhile.
        TensorDeltaError, SourceError: the error of the edge that failed first, when no route is left.
        RuntimeError: the holder remembers no version.
        ValueError: two tensors are one tensor of the holder, and differ in the version.
    """
    started = time.perf_counter()
    if holder.version is None or holder.version_digests is None:
        raise RuntimeError("it is not known which version is held: `identify` it first")
    if holder.chain != reader.chain:
        raise WrongBaseError(
            f"the state held is of chain {holder.chain}", object=f"chain {reader.chain}", rule="TD-RDR-003"
        )
    with holder.lock:
        generation, own, digests = holder.moves, holder.version, holder.version_digests
    target = reader.target(version, holder.version)
    reader.documents.admit(target, holder)
    held = Held(own, digests[1], digests[0])

    def follow(route: Sequence[Edge]) -> _Preparation:
        preparation = _Preparation(reader, holder, digests)
        wanted = ((edge.manifest.version, entry) for edge in route for entry in needed(edge.manifest, holder))
        with reader.packs.ahead(wanted):
            for edge in route:
                try:
                    preparation.follow(edge)
                except (TensorDeltaError, SourceError) as fault:
                    raise EdgeFault(edge, fault) from None
        return preparation

    elsewhere = {
        name: MissingError("failed in another holder of the state", object=name, rule="TD-RTE-004") for name in without
    }
    followed = reader.along(target, held, follow, elsewhere)
    prepared = followed.result.finish(target, followed, started)
    emit(Event("prepared", target, prepared.size, prepared.seconds), reader.listener)

    def applied(update: SliceUpdate, took: float) -> None:
        reader.documents.remember(update.version)
        emit(Event("applied", update.version, update.size, took), reader.listener)

    update = SliceUpdate(holder, prepared, generation, on_applied=applied)
    if update.stale:
        raise WrongBaseError(
            "the state was updated while this update was prepared",
            object=f"version {target}",
            rule="TD-APP-001",
            advice="Prepare the update again from the state as it is now.",
        )
    if holder.group.size == 1:
        update.agree()
    return update


class _Preparation:
    """A holder's words on their way to another version; also the base of which `decode_pieces` asks.

    Args:
        reader: of the chain.
        holder: its words are only read.
        digests: of the layout and the fingerprint that are held.
    """

    def __init__(self, reader: Reader, holder: Holder, digests: tuple[str, str]) -> None:
        self._reader = reader
        self._holder = holder
        self._digest, self._fingerprint = digests
        self._budget = reader.budget()
        self._changes: dict[int, _Changes] = {}
        self._totals = Totals()
        self._from_zero = self._restarted = False
        self._packs: list[str] = []

    def follow(self, edge: Edge) -> None:
        """Decode one edge.

        Raises:
            TensorDeltaError, SourceError: the edge's error.
        """
        started = time.perf_counter()
        manifest = edge.manifest
        layout = self._holder.layout
        if self._reader.documents.layout(manifest.layout) != layout:
            raise UnsupportedError(
                "has another layout, which a holder of slices cannot take",
                object=edge.name,
                rule="TD-RDR-013",
                advice=_RELOAD,
            )
        self._from_zero = manifest.base is None
        if manifest.base is None:
            self._restart()
        else:
            self._check_base(manifest.base, object=edge.name)
        used = self._budget.used
        entries = needed(manifest, self._holder)
        packs = self._reader.packs.of(manifest, layout, self._budget, entries, object=edge.name)
        parsed = self._budget.used - used
        emit(Event("fetched", manifest.version, manifest.size, time.perf_counter() - started), self._reader.listener)
        jobs = [(pack, blob, index) for pack, blob in packs for index in self._parts(pack)]
        self._check_memory(jobs)
        fresh: dict[int, list[Piece]] = {}
        results = ordered_map(self._decode, jobs, threads=self._reader.threads, cost=_cost, budget=_IN_FLIGHT)
        for pieces, totals in results:
            self._totals = self._totals.plus(totals)
            for piece in pieces:
                fresh.setdefault(piece.tensor, []).append(piece)
        for tensor in range(len(layout)) if self._from_zero else sorted(fresh):
            self._take_over(tensor, sorted(fresh.get(tensor, ()), key=lambda piece: piece.start))
        for entry, (pack, _) in zip(entries, packs, strict=True):
            if isinstance(pack, ChunkPack) and self._holder.is_first_of(_tensors(entry)):  # it answers for these chunks
                results_of_chunks = sum(int(chunk.result, 16) for chunk in pack.chunks)
                self._totals = self._totals.plus(Totals(listed=-entry.changed, result=-results_of_chunks))
        self._packs += [entry.sha256 for entry in manifest.packs]
        self._fingerprint = manifest.fingerprint
        self._budget.used -= parsed

    def _parts(self, pack: Pack) -> Iterator[int]:
        """The chunks of a pack, or its tensors, of which words are held: other words add nothing to the sums."""
        if isinstance(pack, PlainPack):
            return (tensor for tensor in pack.tensors if self._holder.has_any_of([tensor]))
        return (index for index, chunk in enumerate(pack.chunks) if any(self.wants(*each) for each in chunk.slices))

    def _restart(self) -> None:
        """Start from zero words, as a full version does."""
        self._changes = {}
        self._totals = Totals()
        self._restarted = True

    def _check_base(self, base: Base, *, object: str) -> None:
        if base.fingerprint != self._fingerprint:
            raise WrongBaseError(
                f"the state held has fingerprint {self._fingerprint}, the base {base.fingerprint}",
                object=object,
                rule="TD-RDR-003",
            )
        if self._reader.documents.layout(base.layout) != self._holder.layout:
            raise WrongBaseError("the state held has another layout than the base", object=object, rule="TD-RDR-004")

    def _check_memory(self, jobs: Sequence[tuple[Pack, Blob, int]]) -> None:
        """Reserve memory for the changes, and check that the greatest chunk has room while it is decoded."""
        if self._from_zero:
            self._budget.take(
                sum(
                    block.words * (8 + 2 * tensor.kind.word.itemsize)
                    for tensor, blocks in zip(self._holder.layout.tensors, self._holder.blocks, strict=True)
                    for block in blocks
                ),
                object="a full version",
            )
        for pack, _, index in jobs:
            if isinstance(pack, ChunkPack):
                chunk, object = pack.chunks[index], pack.chunk_label(index)
                changed, kind, passing = chunk.changed, chunk.kind, chunk.memory
            else:
                info, object = self._holder.layout.tensors[index], pack.label
                changed, kind, passing = info.words, info.kind, _PLAIN * 32
            if not self._from_zero:
                self._budget.take(changed * (8 + 2 * kind.word.itemsize), object=object)
            self._budget.check(passing, object=object)

    def _decode(self, job: tuple[Pack, Blob, int]) -> tuple[list[Piece], Totals]:
        """The pieces of a chunk or plain tensor that are held, and what they add to the sums."""
        pack, blob, index = job
        if isinstance(pack, PlainPack):
            pieces = self._read_plain(pack, blob, index)
            sums = self._sums(pieces)
            return pieces, sums._replace(listed=0, result=0)
        pieces = self._decode_chunk(pack, blob, index)
        return pieces, self._sums(pieces)

    def _sums(self, pieces: Sequence[Piece]) -> Totals:
        totals = Totals()
        for piece in pieces:
            old = np.zeros_like(piece.new) if piece.old is None else piece.old
            sums = self._holder.sums(piece.tensor, piece.places, old, piece.new)
            totals = totals.plus(Totals(sums.owned, sums.change, sums.result, sums.replicas))
        return totals

    def _decode_chunk(self, pack: ChunkPack, blob: Blob, index: int) -> list[Piece]:
        chunk, object = pack.chunks[index], pack.chunk_label(index)
        if isinstance(chunk.order, Exponent) and not self._from_zero:
            for group in chunk.groups:
                lacking = [each for each in group if not self._holder.has_range(*each)]
                if lacking and any(self.wants(*each) for each in group):
                    raise UnsupportedError(
                        f"is in order exponent over {self._holder.layout.tensors[lacking[0][0]].name!r}, "
                        "of which words are lacking",
                        object=object,
                        rule="TD-RDR-017",
                        advice="Publish in order `natural` for several ranks, or load the version as a whole.",
                    )
        return decode_pieces(chunk, pack.reader(index, blob), self, object=object)

    def _read_plain(self, pack: PlainPack, blob: Blob, tensor: int) -> list[Piece]:
        info = self._holder.layout.tensors[tensor]
        size = info.kind.word.itemsize
        pieces = []
        for start in range(0, info.words, _PLAIN):
            stop = min(start + _PLAIN, info.words)
            indices = np.arange(start, stop)
            held = self.held(tensor, indices)
            indices = indices[held]
            if len(indices):
                words = np.frombuffer(
                    blob.read(pack.tensors[tensor] + start * size, (stop - start) * size), info.kind.word
                )
                old = None if self._from_zero else self.take(tensor, indices)
                pieces.append(Piece(tensor, start, stop, indices, old, words[held]))
        return pieces

    def _take_over(self, tensor: int, pieces: Sequence[Piece]) -> None:
        """Lay an edge's changes of a tensor over those of the edges before."""
        word = self._holder.layout.tensors[tensor].kind.word
        at = np.concatenate([np.zeros(0, np.int64), *(piece.places for piece in pieces)])
        new = np.concatenate([np.zeros(0, word), *(piece.new for piece in pieces)])
        old = np.concatenate([np.zeros(0, word), *(piece.old for piece in pieces if piece.old is not None)])
        if self._from_zero:  # words that are not listed are zero
            every = self._holder.indices(tensor)
            words = np.zeros(len(every), word)
            words[np.searchsorted(every, at)] = new
            at, old, new = every, np.zeros_like(words), words
        before = self._changes.get(tensor)
        self._changes[tensor] = _Changes(at, old, new) if before is None else before.then(at, old, new)

    # -- the base of a chunk ----------------------------------------------------------------------------------------

    def is_zero(self, tensor: int) -> bool:
        """True for a full version."""
        return self._from_zero

    def wants(self, tensor: int, start: int, stop: int) -> bool:
        """True where words of this range are held."""
        return self._holder.has_some(tensor, start, stop)

    def is_whole(self, tensor: int) -> bool:
        """True where all of the tensor is held."""
        return self._holder.has_all(tensor)

    def held(self, tensor: int, indices: Indices) -> Chosen:
        """Which words are held, of those at these indices."""
        return self._holder.held(tensor, indices)

    def take(self, tensor: int, indices: Indices) -> Words:
        """The present words of a tensor at these indices, all of them held."""
        words = self._holder.take(tensor, indices)
        changes = self._changes.get(tensor)
        if changes is not None:
            changes.lay_over(indices, words)
        return words

    def part(self, tensor: int, start: int, stop: int) -> Words:
        """The present words of a tensor from `start` to `stop`, all of them held."""
        if self._from_zero:
            return np.zeros(stop - start, self._holder.layout.tensors[tensor].kind.word)
        return self.take(tensor, np.arange(start, stop))

    def finish(self, version: int, followed: Followed[_Preparation], started: float) -> PreparedSlices:
        """What takes the holder to the version of the last edge."""
        self._check_tied(version)
        route = followed.route
        writes: list[Write] = []
        for tensor, each in sorted(self._changes.items()):
            # After a full version, the old words of the changes are zero, and not those that are held.
            old = self._holder.take(tensor, each.at) if self._restarted else each.old
            writes += self._holder.writes(tensor, each.at, old, each.new)
        digest = route[-1].manifest.layout if route else self._digest
        return PreparedSlices(
            writes=writes,
            changed=sum(len(each.at) for each in self._changes.values()),
            totals=self._totals,
            restarted=self._restarted,
            version=version,
            chain=self._reader.chain,
            digests=(digest, self._fingerprint),
            route=tuple(edge.name for edge in route),
            packs=tuple(self._packs),
            size=sum(edge.manifest.size for edge in route),
            seconds=time.perf_counter() - started,
            passed_over=followed.passed_over,
            dropped=followed.dropped,
        )

    def _check_tied(self, version: int) -> None:
        """Check that one tensor under two names gets the same words under both."""
        for pair in self._holder.tied:
            one, other = (self._changes.get(tensor) for tensor in pair)
            same = one is other if one is None or other is None else one.is_same(other)
            if not same:
                names = [self._holder.layout.tensors[tensor].name for tensor in pair]
                raise ValueError(
                    f"tensors {names[0]!r} and {names[1]!r} are one tensor here, and differ in version {version}; "
                    "nothing was written. Give each memory of its own."
                )


class _Changes:
    """The words of a tensor that edges changed.

    Attributes:
        at: their indices, strictly increasing, int64 of shape (m,).
        old, new: the words as they are held, and after the last edge, of shape (m,).
    """

    def __init__(self, at: Indices, old: Words, new: Words) -> None:
        self.at, self.old, self.new = at, old, new

    def then(self, at: Indices, old: Words, new: Words) -> _Changes:
        """These changes and those of a later edge, whose old words come after these."""
        together = np.concatenate((self.at, at))
        order = np.argsort(together, kind="stable")
        together = together[order]
        first = np.ones(len(together), np.bool_)
        np.not_equal(together[1:], together[:-1], out=first[1:])
        last = np.append(first[1:], True)
        olds, news = np.concatenate((self.old, old))[order], np.concatenate((self.new, new))[order]
        return _Changes(together[first], olds[first], news[last])

    def is_same(self, other: _Changes) -> bool:
        """True where another tensor has the same changes."""
        return np.array_equal(self.at, other.at) and np.array_equal(self.new, other.new)

    def lay_over(self, indices: Indices, words: Words) -> None:
        """Write the new words over those at some indices, in place."""
        place = np.searchsorted(self.at, indices)
        hit = np.flatnonzero(place < len(self.at))
        hit = hit[self.at[place[hit]] == indices[hit]]
        words[hit] = self.new[place[hit]]


def _tensors(entry: PackEntry) -> Iterator[int]:
    """The tensors that a pack may hold."""
    return (tensor for first, stop in entry.tensors for tensor in range(first, stop))


def needed(manifest: Manifest, holder: Holder) -> list[PackEntry]:
    """The packs of an edge that may have words of a holder; it leaves all others where they are (TD-RDR-015)."""
    end = len(holder.layout)
    return [
        entry
        for entry in manifest.packs
        if entry.tensors[-1][1] > end or holder.has_any_of(_tensors(entry))  # one beyond the layout is refused later
    ]


def _cost(job: tuple[Pack, Blob, int]) -> int:
    pack, _, index = job
    return pack.chunks[index].memory if isinstance(pack, ChunkPack) else _PLAIN * 32
