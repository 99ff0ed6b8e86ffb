"""A trillion weights, planned from measured parts: 64 writers, 8 engines of 16 ranks, and a chain of their versions.

    python reference/benchmarks/trillion.py [--tensors 70000] [--density 0.01,0.002] [--json FILE] [--quick]

No machine here holds such a model. Its metadata is real, and so is all that the package does with it: the layout of a
mixture of experts is made and parsed; one writer's changed words are encoded at their real number, with the positions
and steps of a simulated run, and the 63 others' packs are its own with their tensors; the coordinator commits the
descriptors of all; each rank finds its packs and parses their tables; routes are planned; a collector collects. The
store lies in memory, counts requests, and keeps of a pack nothing but its table.

What the bytes of the model would take is computed from costs that the same run measures on a small model. Each line of
the table says which of both it is. Seconds are of one thread's CPU, the best of several rounds where they are costs, so
that other work on the machine counts little; only what waits for requests is on the clock.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import argparse
import gc
import hashlib
import json
import secrets
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import ml_dtypes
import msgspec
import numpy as np
import simulate
from experts import Cut, Model, Share, place, shares
from options import parse_size
from ranks import holding, holding_rows, planned
from simulated import Blob, SimulatedStore
from timing import machine, note

import tensordelta as td
from tensordelta.codecs import fingerprint
from tensordelta.codecs.words import Words
from tensordelta.format import strict_json
from tensordelta.format.chunk import Chunk, Span
from tensordelta.format.chunk_codec import Piece
from tensordelta.format.documents import LatestDocument
from tensordelta.format.layout import Layout
from tensordelta.format.manifest import Base, Manifest, PackEntry, parse_manifest, ranges_of
from tensordelta.format.names import (
    LATEST,
    fingerprints_name,
    layout_name,
    manifest_name,
    new_salt,
    pack_name,
    parse_manifest_name,
    parse_shortcut_name,
    shortcut_name,
)
from tensordelta.format.pack import METADATA_KEY, ChunkPack, ChunkTable, Pack, check_overlap, read_pack
from tensordelta.format.safetensors import build_header, header_size, parse_header
from tensordelta.live.watch import Watch
from tensordelta.read.slices import needed
from tensordelta.state.blocks import Place
from tensordelta.state.holder import Holder
from tensordelta.stores.download import PARALLEL
from tensordelta.tables import Table, bytes_text, percent_text
from tensordelta.write.encoder import Codecs, Comparison, Encoder, Order, compare, cut

T = TypeVar("T")

PACKAGES = ("tensordelta", "numpy", "msgspec", "zstandard")
MASK = (1 << 64) - 1
CREATED = "2026-11-20T12:00:00Z"
#: Words of a stretch of which changed words are taken again and again, and how many of these there are.
STRETCH, STRETCHES = 1 << 22, 8
#: Bytes of a pack of a full version.
FULL_PACK = 256 << 20
#: Words that change over s versions, as a power of s: published traces of GRPO runs have 2.2 times as many over 32.
GROWTH = 0.23
SKIP = (8, 64)
FULL_EVERY = 32
BEHIND = (1, 8, 100)
DAY = 86_400.0

#: What others have published of their own systems, on their own hardware: model, a step, what else they say, source.
PUBLISHED = (
    (
        "stitch",
        "GLM-5.2 FP8, 756 GB",
        "11.7 GB",
        "pause 3.4 s from a CPU image; 27 to 300 s by disk",
        "modal-projects/stitch",
    ),
    ("Fireworks ARC2", "1,024 GiB", "20.3 GiB", "a full version every 20 to 30 steps", "Fireworks"),
    ("verl", "72B", "8.6 to 10.9 GB", "2.1 to 2.6 % changed, 46 bits a change; over NCCL", "verl #6974"),
    ("verl", "235B", "", "11 to 15 s a step, against 246 to 266 s in full", "verl #6974"),
)


class Setup(NamedTuple):
    """What is planned.

    Attributes:
        model: its sizes.
        writers: of each version.
        engines, ranks: how many follow, and of how many ranks each.
        versions: of the chain that is planned and collected.
        keep_last: versions that the collector keeps.
        latency: seconds of a request.
        gbit: rates of the link of each writer and of each rank, in Gbit/s.
    """

    model: Model
    writers: int
    engines: int
    ranks: int
    versions: int
    keep_last: int
    latency: float
    gbit: Sequence[float]


# -- measuring ---------------------------------------------------------------------------------------------------------


def best(work: Callable[[], T], rounds: int) -> tuple[float, T]:
    """The least seconds of CPU that work took, and what it gave last."""
    least = float("inf")
    for _ in range(rounds):
        gc.collect()
        started = time.process_time()
        result = work()
        least = min(least, time.process_time() - started)
    return least, result


def peak(work: Callable[[], object]) -> int:
    """The most bytes of memory that work took at once, Python's objects and arrays."""
    gc.collect()
    tracemalloc.start()
    try:
        result = work()
        most = tracemalloc.get_traced_memory()[1]
        del result
    finally:
        tracemalloc.stop()
    return most


@dataclass(frozen=True)
class Costs:
    """What the small model costs, at one density; seconds are the best of several, one thread.

    Attributes:
        nbytes, changed: of the small model, and of its words.
        encode: seconds of comparing, encoding and hashing all of it, natural order.
        bits: of packs, for each changed word, by order.
        prepare: seconds of a holder of all of it: packs fetched from memory, hashed, tables parsed, chunks decoded.
        prepare_rows: the same of a holder of a 16th of each tensor.
        apply: seconds of the scatter.
        memory, peak: bytes that the prepared update keeps, and that preparing took at most.
        sha256, scan: bytes a second.
        full: bytes of packs of a full version, for each word.
        full_table: bytes of its headers, for each word.
    """

    nbytes: int
    changed: int
    encode: float
    bits: dict[Order, float]
    prepare: float
    prepare_rows: float
    apply: float
    memory: int
    peak: int
    sha256: float
    scan: float
    full: float
    full_table: float


def measure_costs(size: int, density: float, rounds: int) -> tuple[Costs, list[Piece]]:
    """The costs of a small model; and changed words of it, for `pieces`."""
    note(f"costs of {bytes_text(size)} at {percent_text(density)}")
    pair = simulate.pair(size, density=density, regime="master_fp32")
    old, new = (
        td.State.from_arrays({name: each.view(ml_dtypes.bfloat16) for name, each in one.items()}) for one in pair
    )
    digest = hashlib.sha256(old.layout.encode()).hexdigest()
    sums = old.sums(threads=1)
    made: dict[Order, tuple[float, tuple[int, int]]] = {}

    def encode(base: td.State | None, order: Order) -> tuple[int, int, int]:
        encoder = Encoder(Comparison.of_states(base, new, digest, None if base is None else sums), Codecs(order=order))
        packs = [(each.entry.size, len(each.parts[0])) for each in encoder.packs()]
        return encoder.changed, sum(each for each, _ in packs), sum(each for _, each in packs)

    orders: tuple[Order, ...] = ("natural", "exponent")
    for order in orders:
        seconds, (changed, nbytes, _) = best(partial(encode, old, order), rounds if order == "natural" else 1)
        made[order] = seconds, (changed, nbytes)
    words = old.layout.words
    _, full, table = encode(None, "natural")

    store = SimulatedStore()
    chain = td.open(store, create=True, threads=1)
    for base, state in ((None, old), (old, new)):
        draft = chain.draft(state.layout)
        draft.commit([draft.encode(dict(state.items()), None if base is None else dict(base.items()))])
    rows = {name: each.reshape(-1).copy() for name, each in pair[0].items()}
    manifest = chain.manifest(0)
    holders = holding(old.layout, rows), holding_rows(old.layout, rows, 0, 16)
    for holder in holders:
        holder.hold(0, chain.id, (manifest.layout, manifest.fingerprint))
    prepare, update = best(lambda: chain.prepare(holders[0], 1), rounds)
    apply = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        update.apply()
        apply = min(apply, time.process_time() - started)
        update.undo()
    memory = update.memory
    del update
    prepare_rows, _ = best(lambda: chain.prepare(holders[1], 1), rounds)
    block = np.random.default_rng(0).integers(0, 1 << 16, 1 << 24, np.uint16)
    hashing, _ = best(lambda: hashlib.sha256(block.data).digest(), rounds)
    scanning, _ = best(lambda: fingerprint.scan("block", block), rounds)
    costs = Costs(
        nbytes=old.layout.nbytes,
        changed=made["natural"][1][0],
        encode=made["natural"][0],
        bits={order: 8 * each[1] / each[0] for order, (_, each) in made.items()},
        prepare=prepare,
        prepare_rows=prepare_rows,
        apply=apply,
        memory=memory,
        peak=peak(lambda: chain.prepare(holders[0], 1)),
        sha256=block.nbytes / hashing,
        scan=block.nbytes / scanning,
        full=full / words,
        full_table=table / words,
    )
    flat = [np.concatenate([each.reshape(-1) for each in one.values()]) for one in pair]
    return costs, templates(*flat)


# -- one writer --------------------------------------------------------------------------------------------------------


def templates(old: Words, new: Words) -> list[Piece]:
    """Changed words of stretches of a model, which is repeated where it is too small."""
    count = min(max(len(old) // STRETCH, 1), STRETCHES)
    old, new = (np.resize(each, count * STRETCH) for each in (old, new))
    found = []
    for number in range(count):
        part = slice(number * STRETCH, (number + 1) * STRETCH)
        piece = compare(Span(0, 0, STRETCH), old[part], new[part])
        assert piece is not None
        found.append(piece)
    return found


def pieces(layout: Layout, spans: Iterable[Span], changed: Sequence[Piece]) -> Iterator[Piece]:
    """The changed words of a writer's share, made one after the other."""
    owned: list[list[tuple[int, int]]] = [[] for _ in layout.tensors]
    for span in spans:
        owned[span.tensor].append((span.start, span.stop))
    for number, span in enumerate(cut(layout, owned)):
        piece = changed[number % len(changed)]
        assert piece.indices is not None and piece.old is not None
        count = int(np.searchsorted(piece.indices, span.stop - span.start))
        if count:
            yield Piece(*span, piece.indices[:count] + span.start, piece.old[:count], piece.new[:count])


class Part(NamedTuple):
    """One kind of words of a share, experts or rest, as writer 0 has put it.

    Attributes:
        descriptor: what its `encode_pieces` returned.
        tables: the chunks of each of its packs.
        entries: of each pack the streams: name and bytes.
        seconds: that encoding took.
    """

    descriptor: dict[str, Any]
    tables: list[list[Chunk]]
    streams: list[list[tuple[str, int]]]
    seconds: float


def encode_part(draft: td.Draft, store: SimulatedStore, spans: Sequence[Span], changed: Sequence[Piece]) -> Part:
    """Encode one kind of words of writer 0's share, with claims that say nothing yet."""
    started = time.process_time()
    descriptor = draft.encode_pieces(pieces(draft.layout, spans, changed), ())
    seconds = time.process_time() - started
    tables, streams = [], []
    for pack in descriptor["packs"]:
        head = store.objects[pack["path"]]
        length = header_size(head[:8], size=pack["size"], object=pack["path"])
        header = parse_header(head[8 : 8 + length], size=pack["size"], object=pack["path"], of_chunks=True)
        table = strict_json.parse(header.metadata[METADATA_KEY].encode(), object=pack["path"], limit=1 << 30)
        tables.append(msgspec.convert(table["chunks"], list[Chunk]))
        ordered = sorted(header.entries.items(), key=lambda item: item[1].data_offsets)
        streams.append([(name, entry.shape[0]) for name, entry in ordered])
    return Part(descriptor, tables, streams, seconds)


def as_writer(
    part: Part,
    mine: Sequence[Span],
    theirs: Sequence[Span],
    claims: Sequence[int],
    layout: Layout,
    store: SimulatedStore,
) -> dict[str, Any]:
    """The descriptor that another writer would return, whose packs are put: writer 0's, with the other's words.

    Args:
        part: of writer 0.
        mine, theirs: the words of writer 0 and of the other one.
        claims: of each of their spans the sum before.
    """
    moved = {one.tensor: (other.tensor, other.start - one.start) for one, other in zip(mine, theirs, strict=True)}
    packs = []
    for pack, table, streams in zip(part.descriptor["packs"], part.tables, part.streams, strict=True):
        chunks = []
        for chunk in table:
            slices = [
                (moved[tensor][0], start + moved[tensor][1], stop + moved[tensor][1])
                for tensor, start, stop in chunk.slices
            ]
            chunks.append(msgspec.structs.replace(chunk, slices=slices))
        digest = part.descriptor["layout"]
        head = build_header(
            ((name, "U8", (size,), size) for name, size in streams),
            {METADATA_KEY: strict_json.encode(ChunkTable(strict_json.VERSION, digest, chunks)).decode()},
        )
        sha256 = secrets.token_hex(32)
        entry = PackEntry(
            sha256=sha256,
            size=len(head) + sum(size for _, size in streams),
            path=pack_name(sha256, new_salt()),
            content="chunks",
            tensors=ranges_of(tensor for chunk in chunks for tensor, _, _ in chunk.slices),
            changed=pack["changed"],
        )
        assert entry.path is not None
        store.objects[entry.path], store.sizes[entry.path] = head, entry.size
        packs.append(msgspec.to_builtins(entry))
    changes = {tensor: (count, int(each, 16)) for tensor, count, each in part.descriptor["changes"]}
    owned = [
        (*other, fingerprint.text(before + changes.get(one.tensor, (0, 0))[1]))
        for one, other, before in zip(mine, theirs, claims, strict=True)
    ]
    listed = [(moved[tensor][0], count, fingerprint.text(each)) for tensor, (count, each) in changes.items()]
    return {**part.descriptor, "packs": packs, "slices": owned, "changes": listed}


# -- a version by all writers ------------------------------------------------------------------------------------------


@dataclass
class Version:
    """A full version and one delta after it, both in a store; and what making the delta took.

    Attributes:
        store, layout: where it lies, and its tensors.
        full, delta: the manifests.
        encode_pieces: seconds of one writer.
        draft: seconds of opening the draft, and bytes of what each writer gets.
        descriptors: bytes of what all writers return, as JSON.
        commit: seconds of the commit, without the requests' own.
        requests: of the coordinator, by kind.
        same_packs: packs of a descriptor for each writer.
    """

    store: SimulatedStore
    layout: Layout
    full: Manifest
    delta: Manifest
    encode_pieces: float
    draft: float
    draft_bytes: int
    descriptors: int
    commit: float
    requests: dict[str, int]


def make_version(
    setup: Setup, layout: Layout, shared: Sequence[Share], changed: Sequence[Piece], costs: Costs
) -> Version:
    """A chain of two versions: the first is planned, the second drafted and committed by the package."""
    rng = np.random.default_rng(1)
    store = SimulatedStore(hollow=True, remote=True)
    chain = td.open(store, create=True, threads=1)
    claims = [[rng.integers(0, MASK, len(spans), np.uint64).tolist() for spans in share] for share in shared]
    sums = np.zeros(len(layout), np.uint64)
    for share, each in zip(shared, claims, strict=True):
        for spans, values in zip(share, each, strict=True):
            np.add.at(sums, [span.tensor for span in spans], np.array(values, np.uint64))
    full = put_full(store, chain.id, layout, shared, sums, costs)
    store.put(LATEST, [strict_json.encode(LatestDocument(strict_json.VERSION, chain.id, 0))])

    note("one writer's changed words")
    store.reset()
    started = time.process_time()
    draft = chain.draft()
    opened = time.process_time() - started
    document = draft.to_json()
    before = dict(store.requests)
    joined = chain.join(document)
    parts = [encode_part(joined, store, spans, changed) for spans in shared[0]]
    note(f"packs of {len(shared)} writers")
    descriptors = []
    for share, each in zip(shared, claims, strict=True):
        for part, mine, theirs, values in zip(parts, shared[0], share, each, strict=True):
            descriptors.append(as_writer(part, mine, theirs, values, layout, store))
    for part in parts:  # writer 0's own packs, as those of the others, have been put anew
        for pack in part.descriptor["packs"]:
            store.delete(pack["path"])
    texts = [json.dumps(each) for each in descriptors]
    note("the commit")
    store.reset()
    gc.collect()
    started = time.process_time()
    draft.commit(texts)
    commit = time.process_time() - started
    requests = {
        kind: store.requests[kind] + before.get(kind, 0) for kind in {*store.requests, *before} - {"listed name"}
    }
    return Version(
        store,
        layout,
        full,
        chain.manifest(1),
        encode_pieces=sum(part.seconds for part in parts),
        draft=opened,
        draft_bytes=len(document),
        descriptors=sum(map(len, texts)),
        commit=commit,
        requests=requests,
    )


def put_full(
    store: SimulatedStore, chain: str, layout: Layout, shared: Sequence[Share], sums: Words, costs: Costs
) -> Manifest:
    """Put the manifest of a full version, with packs that have neither bytes nor tables."""
    data = layout.encode()
    digest = hashlib.sha256(data).hexdigest()
    store.put(layout_name(digest), [data])
    packs = []
    for share in shared:
        waiting: list[Span] = []
        for spans in share:
            for span in spans:
                waiting.append(span)
                if sum(each.stop - each.start for each in waiting) * costs.full >= FULL_PACK:
                    packs.append(full_pack(waiting, costs))
                    waiting = []
        if waiting:
            packs.append(full_pack(waiting, costs))
    for pack in packs:
        assert pack.path is not None
        store.objects[pack.path], store.sizes[pack.path] = b"", pack.size
    found = sums.astype("<u8").tobytes() + bytes.fromhex(new_salt())
    named = hashlib.sha256(found).hexdigest()
    store.put(fingerprints_name(named), [found])
    total = fingerprint.text(fingerprint.combine(sums))
    manifest = Manifest(
        strict_json.VERSION, chain, 0, digest, total, None, packs, [], CREATED, tensor_fingerprints=named
    )
    store.create(manifest_name(0), manifest.encode())
    return manifest


def full_pack(spans: Sequence[Span], costs: Costs) -> PackEntry:
    words = sum(span.stop - span.start for span in spans)
    sha256 = secrets.token_hex(32)
    ranges = ranges_of(span.tensor for span in spans)
    return PackEntry(sha256, int(words * costs.full), pack_name(sha256, new_salt()), "chunks", ranges, words)


# -- the ranks that read it --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What the ranks of an engine read of a delta.

    Attributes:
        cut: how they have the experts.
        words: of each rank, that it holds.
        packs, nbytes: of each rank, that it fetches; of the first alone where all ranks need the same.
        one_shard: bytes that each rank would fetch if a writer put experts and rest into the same packs.
        table: bytes of JSON that the first rank parses: the manifest, and its packs' headers.
        parse, parse_peak: seconds and bytes of memory of that.
        chunks, listed: that the first rank decodes, and listed words of these.
        holder, meet: seconds of making the first rank's holder, and of its learning what the others have.
        held: bytes of memory that both keep.
    """

    cut: Cut
    words: list[int]
    packs: list[int]
    nbytes: list[int]
    one_shard: list[int]
    table: int
    parse: float
    parse_peak: int
    chunks: int
    listed: int
    holder: float
    meet: float
    held: int


def read_version(setup: Setup, version: Version, shared: Sequence[Share], how: Cut, rounds: int) -> Reading:
    """Find what each rank of one engine needs, and parse that for the first."""
    note(f"{setup.ranks} ranks that cut experts by {how}")
    layout, manifest = version.layout, version.delta

    def places_of(rank: int) -> dict[str, Place]:
        found = ((each.name, place(each, setup.model.experts, how, rank, setup.ranks)) for each in layout.tensors)
        return {name: each for name, each in found if each is not None}

    placed = [places_of(rank) for rank in range(setup.ranks)]

    def holder_of(rank: int) -> Holder:
        return planned(layout, placed[rank], rank, setup.ranks)

    seconds, first = best(lambda: holder_of(0), 1)
    # Ranks with a part of each tensor need what the first one needs.
    holders = [first, *(holder_of(rank) for rank in range(1, setup.ranks) if how == "expert")]
    found = [needed(manifest, holder) for holder in holders]
    together = one_shard(manifest, shared)
    one = [sum(entry.size for entry in needed(together, holder)) for holder in holders]
    blocks = [[[each[name.name].block] if name.name in each else [] for name in layout.tensors] for each in placed]
    meet, _ = best(lambda: first.meet(blocks), 1)

    def own() -> Holder:
        made = holder_of(0)
        made.meet(blocks)
        return made

    held = peak(own)
    data = manifest.encode()
    packs = [(entry, Blob(version.store.objects[entry.label], entry.size)) for entry in found[0]]

    def parse() -> list[Pack]:
        parsed = parse_manifest(data, version=manifest.version)
        tables = [read_pack(blob, entry, layout, parsed) for entry, blob in packs]
        check_overlap(tables, layout, object="delta")
        return tables

    took, tables = best(parse, rounds)
    near = [
        chunk
        for table in tables
        if isinstance(table, ChunkPack)
        for chunk in table.chunks
        if any(first.has_some(*each) for each in chunk.slices)
    ]
    return Reading(
        how,
        words=[sum(part.block.words for part in each.values()) for each in placed],
        packs=[len(each) for each in found],
        nbytes=[sum(entry.size for entry in each) for each in found],
        one_shard=one,
        table=len(data) + sum(len(version.store.objects[entry.label]) for entry in found[0]),
        parse=took,
        parse_peak=peak(parse),
        chunks=len(near),
        listed=sum(chunk.changed for chunk in near),
        holder=seconds,
        meet=meet,
        held=held,
    )


def one_shard(manifest: Manifest, shared: Sequence[Share]) -> Manifest:
    """The delta as it would be if each writer had put all of its words into the same packs."""
    writer_of = {span.tensor: number for number, share in enumerate(shared) for span in share.experts}
    rest = [entry for entry in manifest.packs if entry.tensors[0][0] not in writer_of]
    own = [entry for entry in manifest.packs if entry.tensors[0][0] in writer_of]
    spread = ranges_of(span.tensor for span in shared[0].rest)
    more = sum(entry.size for entry in rest) // max(len(own), 1)
    return msgspec.structs.replace(
        manifest,
        packs=[
            msgspec.structs.replace(
                entry,
                size=entry.size + more,
                tensors=ranges_of(tensor for first, stop in (*entry.tensors, *spread) for tensor in range(first, stop)),
            )
            for entry in own
        ],
    )


# -- a chain of versions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planning:
    """What a reader does to know its way.

    Attributes:
        behind: versions that it is behind; 0 for a look that finds nothing.
        seconds: with the store's latency; `cpu` without.
        requests: by kind.
        nbytes: that it read.
        edges, size: of the route, and bytes of its packs.
    """

    behind: int
    seconds: float
    cpu: float
    requests: dict[str, int]
    nbytes: int
    edges: int
    size: int


class History:
    """A chain of many versions after the first two, with shortcuts and hollow packs."""

    def __init__(self, setup: Setup, version: Version) -> None:
        self.setup = setup
        self.store = version.store
        self.newest = setup.versions - 1
        self._delta, self._full = version.delta, version.full
        self._prints = {0: version.full.fingerprint, 1: version.delta.fingerprint}
        for number in range(2, setup.versions):
            self._prints[number] = secrets.token_hex(8)
            self._put(number, number - 1)
        for number in range(1, setup.versions):
            for span in SKIP:
                if number % span == 0:
                    self._put(number, number - span)
            if number % FULL_EVERY == 0:
                self._put(number, None)
        for name in self.store.objects:
            self.store.modified.setdefault(name, 0.0)
        names = [found for name in self.store.objects if (found := parse_shortcut_name(name)) is not None]
        self._shortcuts = names
        self.hint(self.newest)

    def _put(self, version: int, base: int | None) -> None:
        template = self._full if base is None else self._delta
        scale = 1.0 if base is None else (version - base) ** GROWTH
        packs = []
        for entry in template.packs:
            sha256 = secrets.token_hex(32)
            path, size = pack_name(sha256, new_salt()), int(entry.size * scale)
            packs.append(msgspec.structs.replace(entry, sha256=sha256, path=path, size=size))
            self.store.objects[path], self.store.sizes[path] = b"", size
        own = base is not None and version - base == 1
        manifest = msgspec.structs.replace(
            template,
            version=version,
            fingerprint=self._prints[version],
            base=None if base is None else Base(base, template.layout, self._prints[base]),
            packs=packs,
        )
        name = manifest_name(version) if own else shortcut_name(version, base)
        self.store.objects[name] = manifest.encode()

    def hint(self, version: int) -> None:
        """Have the hint name a version, and the shortcuts to versions until then."""
        stems = [each for each in self._shortcuts if each.version <= version][-64:]
        names = [shortcut_name(*each)[len("shortcuts/") : -len(".json")] for each in stems]
        document = LatestDocument(strict_json.VERSION, self._delta.chain, version, names)
        self.store.objects[LATEST] = strict_json.encode(document)

    def plan(self, behind: int) -> Planning:
        """A look, and the plan of the way, by a process that has begun to follow that many versions ago."""
        floor = self.newest - behind
        hidden = {name: data for name, data in self.store.objects.items() if _leads_beyond(name, floor)}
        timed = []
        for latency in (0.0, self.setup.latency):
            for name in hidden:
                del self.store.objects[name]
            self.hint(floor)
            chain = td.open(self.store, threads=1)
            watch = Watch(chain._reader, floor)
            watch.look()
            chain.plan(floor, floor - 1)
            self.store.objects |= hidden
            self.hint(self.newest)
            self.store.reset()
            self.store.latency = latency
            started, ran = time.perf_counter(), time.process_time()
            found = watch.look()
            route = chain.plan(found[-1], floor) if found else None
            timed.append((time.process_time() - ran, time.perf_counter() - started))
            self.store.latency = 0.0
        return Planning(
            behind,
            seconds=timed[1][1],
            cpu=timed[0][0],
            requests=dict(self.store.requests),
            nbytes=self.store.got,
            edges=0 if route is None else len(route.edges),
            size=0 if route is None else route.size,
        )


def _leads_beyond(name: str, version: int) -> bool:
    shortcut = parse_shortcut_name(name)
    found = parse_manifest_name(name) if shortcut is None else shortcut.version
    return found is not None and found > version


@dataclass(frozen=True)
class Collecting:
    """A collector's two runs: one that drops versions, and one after the grace period that deletes their packs.

    Attributes:
        listed: names in the chain.
        dropped: versions.
        deleted: objects.
        cpu: seconds of both, without the requests' own.
        requests: by kind, of both.
        nbytes: that both read.
        peak: bytes of memory at most.
    """

    listed: int
    dropped: int
    deleted: int
    cpu: float
    requests: dict[str, int]
    nbytes: int
    peak: int


def collect(history: History) -> Collecting:
    """Collect a chain's old versions."""
    store, keep_last = history.store, history.setup.keep_last
    listed = len(store.objects)
    chain = td.open(store, threads=1)
    most = peak(lambda: chain.collect(keep_last, dry_run=True))
    store.reset()
    started = time.process_time()
    store.now += 30 * DAY
    first = chain.collect(keep_last)
    store.now += 30 * DAY
    second = chain.collect(keep_last)
    seconds = time.process_time() - started
    return Collecting(
        listed,
        dropped=len(first.dropped) + len(second.dropped),
        deleted=len(first.objects) + len(second.objects),
        cpu=seconds,
        requests=dict(store.requests),
        nbytes=store.got,
        peak=most,
    )


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        line: what it is.
        values: one for each density.
        texts: the same, to be read.
        measured: True where it was, False where it was computed.
        source: on what, or from what.
    """

    line: str
    values: Sequence[float]
    texts: Sequence[str]
    measured: bool
    source: str


@dataclass
class Density:
    """All that was measured at one density."""

    density: float
    costs: Costs
    version: Version
    readings: dict[Cut, Reading]
    parse_all: tuple[int, float, int] = (0, 0.0, 0)
    chunks: int = 0


def measure_density(
    setup: Setup, layout: Layout, shared: Sequence[Share], density: float, size: int, rounds: int
) -> Density:
    """Everything at one density but planning and collecting."""
    costs, changed = measure_costs(size, density, rounds)
    version = make_version(setup, layout, shared, changed, costs)
    cuts: tuple[Cut, ...] = ("expert", "tensor")
    readings = {how: read_version(setup, version, shared, how, rounds) for how in cuts}
    data = version.delta.encode()
    heads = [version.store.objects[entry.label] for entry in version.delta.packs]

    def parse_all() -> int:
        """Parse each pack, and keep nothing of the ones before, as a verifier of a chain."""
        manifest = parse_manifest(data, version=1)
        chunks = 0
        for entry, head in zip(manifest.packs, heads, strict=True):
            table = read_pack(Blob(head, entry.size), entry, layout, manifest)
            assert isinstance(table, ChunkPack)
            chunks += len(table.chunks)
        return chunks

    note("all tables of the version")
    seconds, chunks = best(parse_all, 1)
    found = Density(density, costs, version, readings)
    found.parse_all = len(data) + sum(map(len, heads)), seconds, peak(parse_all)
    found.chunks = chunks
    return found


class Rows:
    """Makes the lines of the table, one value for each density."""

    def __init__(self, setup: Setup, each: Sequence[Density]) -> None:
        self.setup, self.each = setup, each
        self.rows: list[Row] = []

    def add(
        self, line: str, value: Callable[[Density], float], text: Callable[[float], str], measured: bool, source: str
    ) -> None:
        values = [float(value(one)) for one in self.each]
        self.rows.append(Row(line, values, [text(one) for one in values], measured, source))


def seconds_text(seconds: float) -> str:
    return (
        f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.1f} ms"
    )


def count_text(count: float) -> str:
    return f"{count:,.0f}"


def table_rows(setup: Setup, layout: Layout, each: Sequence[Density], layout_cost: tuple[int, float, int]) -> list[Row]:
    """Lines about a version, its writers and its readers."""
    rows = Rows(setup, each)
    share = layout.nbytes / setup.writers
    size, parse, most = layout_cost
    small = "the small model's"

    def changed(one: Density) -> float:
        return one.version.delta.changed

    rows.add("layout", lambda _: size, bytes_text, True, f"{len(layout):,} tensors, {layout.words:,} words")
    rows.add("  parsed in", lambda _: parse, seconds_text, True, "Layout.parse")
    rows.add("  memory of that", lambda _: most, bytes_text, True, "peak of Python's memory")
    rows.add("full version", lambda one: one.version.full.size, bytes_text, False, f"words x {small} bytes a word")
    rows.add("  packs", lambda one: len(one.version.full.packs), count_text, False, "at 256 MiB each")
    rows.add("  chunk tables", lambda one: one.costs.full_table * layout.words, bytes_text, False, f"words x {small}")
    rows.add(
        "delta",
        lambda one: one.version.delta.size,
        bytes_text,
        True,
        f"one writer's words encoded, natural order; x {setup.writers}",
    )
    rows.add("  words changed", changed, count_text, True, "the same")
    rows.add("  bits a change", lambda one: 8 * one.version.delta.size / changed(one), lambda x: f"{x:.2f}", True, "")
    rows.add(
        "  in exponent order",
        lambda one: one.costs.bits["exponent"] * changed(one) / 8,
        bytes_text,
        False,
        f"changes x {small} bits",
    )
    rows.add("  packs", lambda one: len(one.version.delta.packs), count_text, True, "")
    rows.add("  chunks", lambda one: one.chunks, count_text, True, "")
    rows.add("  manifest", lambda one: len(one.version.delta.encode()), bytes_text, True, "")
    rows.add("  manifest and tables", lambda one: one.parse_all[0], bytes_text, True, "all JSON of the version")
    rows.add("    parsed in", lambda one: one.parse_all[1], seconds_text, True, "parse_manifest, read_pack, one by one")
    rows.add("    memory of that", lambda one: one.parse_all[2], bytes_text, True, "peak")

    rows.add(
        "a writer compares and encodes",
        lambda one: encode_seconds(one, share),
        seconds_text,
        False,
        f"its {bytes_text(share)} at {small} rate, one thread",
    )
    encoded = "Draft.encode_pieces, one writer at full size"
    rows.add("  or encodes the changes it knows", lambda one: one.version.encode_pieces, seconds_text, True, encoded)
    rows.add("  sums of what it owns", lambda one: share / one.costs.scan, seconds_text, False, "scan rate")
    rows.add("  puts", lambda one: len(one.version.delta.packs) / setup.writers, count_text, True, "")
    rows.add("coordinator: draft", lambda one: one.version.draft, seconds_text, True, "Chain.draft")
    rows.add("  descriptors of all writers", lambda one: one.version.descriptors, bytes_text, True, "as JSON")
    rows.add("  commit", lambda one: one.version.commit, seconds_text, True, "Draft.commit, requests not counted")
    rows.add("  requests", lambda one: sum(one.version.requests.values()), count_text, True, "draft and commit")
    for rate in setup.gbit:
        rows.add(
            f"submit to visible, {rate:g} Gbit/s",
            partial(visible_seconds, setup, share, rate),
            seconds_text,
            False,
            "compare + put + sums + draft + commit, one after the other",
        )
    cut_rows(rows, "expert", "experts")
    cut_rows(rows, "tensor", "rows of each expert")
    return rows.rows


def cut_rows(rows: Rows, how: Cut, name: str) -> None:
    """Lines about ranks that have their experts in one way."""
    setup = rows.setup

    def reading(one: Density) -> Reading:
        return one.readings[how]

    def of_changes(each: Callable[[Costs], float]) -> Callable[[Density], float]:
        """What the small model takes for a changed word, times the rank's."""
        return lambda one: held_changes(one, how) * each(one.costs) / one.costs.changed

    rows.add(f"a rank with {name}: its words", lambda one: 2 * reading(one).words[0], bytes_text, True, "")
    most = "packs with a tensor that it has; the most of all ranks"
    rows.add("  fetches", lambda one: max(reading(one).nbytes), bytes_text, True, most)
    shared = "if a writer puts experts and the rest into the same packs"
    rows.add("    of one shard a writer", lambda one: max(reading(one).one_shard), bytes_text, True, shared)
    rows.add("  packs", lambda one: max(reading(one).packs), count_text, True, "")
    rows.add(
        f"  requests of all {setup.engines * setup.ranks}",
        lambda one: setup.engines * (sum(reading(one).packs) + 2 * setup.ranks),
        count_text,
        False,
        "packs, latest.json and the manifest of each rank",
    )
    rows.add("  manifest and its tables", lambda one: reading(one).table, bytes_text, True, "")
    rows.add("    parsed in", lambda one: reading(one).parse, seconds_text, True, "and checked for overlap")
    rows.add("    memory of that", lambda one: reading(one).parse_peak, bytes_text, True, "peak")
    decoded = "of chunks with words that it has"
    rows.add("  decodes listed words", lambda one: reading(one).listed, count_text, True, decoded)
    for rate in setup.gbit:
        rows.add(
            f"  visible to prepared, {rate:g} Gbit/s",
            partial(prepared_seconds, setup, how, rate),
            seconds_text,
            False,
            "2 requests + fetch + prepare, one after the other",
        )
    per_word = "its changed words x the small model's"
    included = "listed words x the small model's; SHA-256 and tables included"
    rows.add("    of that preparing", partial(prepare_seconds, how), seconds_text, False, included)
    scatter = f"{per_word} scatter, one thread, host memory"
    rows.add("  pause", of_changes(lambda costs: costs.apply), seconds_text, False, scatter)
    rows.add("  a prepared update", of_changes(lambda costs: costs.memory), bytes_text, False, f"memory: {per_word}")
    rows.add("    while it prepares", of_changes(lambda costs: costs.peak), bytes_text, False, f"peak: {per_word}")
    rows.add("  its places of all tensors", lambda one: reading(one).held, bytes_text, True, "peak: Holder, and meet")
    rows.add("    made in", lambda one: reading(one).holder, seconds_text, True, "Holder")
    rows.add("    meets the others in", lambda one: reading(one).meet, seconds_text, True, "Holder.meet")


def encode_seconds(one: Density, nbytes: float) -> float:
    return nbytes * one.costs.encode / one.costs.nbytes


def visible_seconds(setup: Setup, share: float, gbit: float, one: Density) -> float:
    """From `encode` on the writers to the manifest; requests of the coordinator go in rounds of `PARALLEL`."""
    put = one.version.delta.size / setup.writers / (gbit * 1e9 / 8)
    waits = coordinator_waits(one.version.requests) * setup.latency
    return encode_seconds(one, share) + put + share / one.costs.scan + one.version.draft + one.version.commit + waits


def coordinator_waits(requests: dict[str, int]) -> float:
    """Requests one after the other: sizes of packs are asked for several at once."""
    alone = sum(count for kind, count in requests.items() if kind != "size")
    return alone + requests.get("size", 0) / PARALLEL


def held_changes(one: Density, how: Cut) -> float:
    """Changed words that a rank has: as many of its words as of all."""
    return one.readings[how].words[0] * one.version.delta.changed / one.version.layout.words


def prepare_seconds(how: Cut, one: Density) -> float:
    """Of listed words that a rank has, and of those that it decodes for its chunks' sake."""
    costs, mine = one.costs, held_changes(one, how)
    # A holder of a 16th decodes all: what is left of its seconds without its own words are those of others' words.
    foreign = max(costs.prepare_rows - costs.prepare / 16, 0.0) / (costs.changed * 15 / 16)
    return mine * costs.prepare / costs.changed + max(one.readings[how].listed - mine, 0.0) * foreign


def prepared_seconds(setup: Setup, how: Cut, gbit: float, one: Density) -> float:
    fetch = max(one.readings[how].nbytes) / (gbit * 1e9 / 8)
    waits = 2 + -(-max(one.readings[how].packs) // PARALLEL)
    return waits * setup.latency + fetch + prepare_seconds(how, one)


def requests_text(requests: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(requests.items()) if kind != "listed name")


def planning_table(setup: Setup, plans: Sequence[Planning]) -> Table:
    cells = [
        [
            "nothing new" if not plan.behind else f"{plan.behind} behind",
            requests_text(plan.requests),
            bytes_text(plan.nbytes),
            seconds_text(plan.cpu),
            seconds_text(plan.seconds),
            str(plan.edges),
            bytes_text(plan.size),
        ]
        for plan in plans
    ]
    columns = ["<", "<requests", "read", "CPU", f"at {1e3 * setup.latency:g} ms", "edges", "packs of the route"]
    return Table(f"a look and the plan, {setup.versions} versions; measured", columns, cells)


def collecting_table(setup: Setup, found: Collecting) -> Table:
    waits = sum(found.requests.get(kind, 0) for kind in ("put", "list"))
    waits += sum(found.requests.get(kind, 0) for kind in ("read", "delete")) // PARALLEL
    cells = [
        ["objects in the chain", count_text(found.listed), "measured"],
        ["versions dropped", count_text(found.dropped), f"measured; the newest {setup.keep_last} are kept"],
        ["objects deleted", count_text(found.deleted), "measured"],
        ["requests", requests_text(found.requests), "measured; 1,000 names a listing"],
        ["read", bytes_text(found.nbytes), "measured; manifests"],
        ["CPU", seconds_text(found.cpu), "measured"],
        ["memory", bytes_text(found.peak), "measured; peak"],
        [
            f"at {1e3 * setup.latency:g} ms a request",
            seconds_text(found.cpu + waits * setup.latency),
            f"computed: CPU + requests, reads and deletes {PARALLEL} at once",
        ],
    ]
    return Table("a collection, in two runs", ["<", "", "<"], cells)


def costs_table(each: Sequence[Density]) -> Table:
    lines: list[tuple[str, Callable[[Costs], float]]] = [
        ("compare and encode", lambda costs: costs.nbytes / costs.encode),
        ("prepare, holder of all", lambda costs: costs.nbytes / costs.prepare),
        ("prepare, holder of a 16th", lambda costs: costs.nbytes / costs.prepare_rows),
        ("scatter", lambda costs: costs.nbytes / costs.apply),
        ("SHA-256", lambda costs: costs.sha256),
        ("scan", lambda costs: costs.scan),
    ]
    cells = [[name, *(f"{rate(one.costs) / 1e9:.2f}" for one in each)] for name, rate in lines]
    cells.append(["bits a change, natural", *(f"{one.costs.bits['natural']:.2f}" for one in each)])
    cells.append(["bits a change, exponent", *(f"{one.costs.bits['exponent']:.2f}" for one in each)])
    title = f"costs of {bytes_text(each[0].costs.nbytes)}, GB of model for a second of CPU, one thread, best of several"
    return Table(title, ["<", *(percent_text(one.density) for one in each)], cells)


def published_table() -> Table:
    columns = ["<whose", "<model", "<a step", "<what they say", "<source"]
    return Table(
        "published by others, of their own systems; not measured here", columns, [list(each) for each in PUBLISHED]
    )


# -- the program -------------------------------------------------------------------------------------------------------

FULL_SIZE = Model()
SMALL = Model(
    layers=4, experts=32, hidden=256, width=64, dense=512, latent=(64, 64), query=256, keys=256, attended=256,
    vocabulary=1024,
)  # fmt: skip


def numbers(text: str) -> list[float]:
    found = [float(each) for each in text.split(",")]
    if not all(each > 0 for each in found):
        raise argparse.ArgumentTypeError("give numbers greater than 0")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tensors", type=int, metavar="N", help="of the model, about; by default those of 384 experts")
    parser.add_argument("--density", type=numbers, default=[0.01, 0.002], metavar="A,B", help="shares that change")
    parser.add_argument("--latency", type=float, default=20.0, metavar="MS", help="of a request; default 20")
    parser.add_argument("--gbit", type=numbers, default=[1.0, 10.0, 25.0], metavar="A,B", help="links; default 1,10,25")
    parser.add_argument("--size", type=parse_size, default=None, metavar="BYTES", help="of the small model; 256MiB")
    parser.add_argument("--versions", type=int, default=None, metavar="N", help="of the chain; default 130")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which the best counts; default 3")
    parser.add_argument("--quick", action="store_true", help="a model of some million weights, to try the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    model, writers, ranks = (SMALL, 8, 4) if options.quick else (FULL_SIZE, 64, 16)
    if options.tensors is not None:
        model = model.of_tensors(options.tensors, writers)
    versions = options.versions or (110 if options.quick else 130)
    if versions <= max(BEHIND):
        parser.error(f"--versions must be greater than {max(BEHIND)}")
    setup = Setup(model, writers, 2 if options.quick else 8, ranks, versions, 32, options.latency / 1e3, options.gbit)
    size = options.size or parse_size("4MiB" if options.quick else "256MiB")

    with tempfile.TemporaryDirectory(prefix="tensordelta-trillion-") as scratch:
        os.environ["TENSORDELTA_CACHE"] = scratch
        note("the layout")
        layout = model.layout()
        data = layout.encode()
        digest = hashlib.sha256(data).hexdigest()
        seconds, _ = best(lambda: Layout.parse(data, sha256=digest), options.rounds)
        layout_cost = len(data), seconds, peak(lambda: Layout.parse(data, sha256=digest))
        shared = shares(layout, model.experts, writers)
        each = [measure_density(setup, layout, shared, density, size, options.rounds) for density in options.density]
        note(f"a chain of {versions} versions")
        history = History(setup, each[0].version)
        plans = []
        for behind in (0, *BEHIND):
            note(f"planning, {behind} behind")
            plans.append(history.plan(behind))
        note("collecting")
        collected = collect(history)

    rows = table_rows(setup, layout, each, layout_cost)
    columns = ["<", *(percent_text(density) for density in options.density), "<", "<of what"]
    cells = [[row.line, *row.texts, "measured" if row.measured else "computed", row.source] for row in rows]
    title = f"{layout.words:,} words in {len(layout):,} tensors, {writers} writers, {setup.engines} x {ranks} ranks"
    tables = [
        costs_table(each),
        Table(title, columns, cells),
        planning_table(setup, plans),
        collecting_table(setup, collected),
        published_table(),
    ]
    print("\n\n".join(table.text() for table in tables))
    if options.json:
        facts = {
            "machine": machine(PACKAGES),
            "settings": {**setup._asdict(), "model": asdict(model), "size": size, "rounds": options.rounds},
            "densities": options.density,
            "costs": [asdict(one.costs) for one in each],
            "rows": [asdict(row) for row in rows],
            "readings": [{how: asdict(reading) for how, reading in one.readings.items()} for one in each],
            "coordinator": [one.version.requests for one in each],
            "planning": [asdict(plan) for plan in plans],
            "collecting": asdict(collected),
            "published": PUBLISHED,
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
