"""A version of a vast model that many writers make and many ranks read, with its real metadata.

One writer's changed words are encoded at their real number; the packs of the others are its own, with their tensors.
The package drafts and commits; each rank finds its packs, and parses their tables.
"""

from __future__ import annotations

import gc
import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from costs import Costs, best, peak
from experts import Cut, Model, Share, place
from ranks import planned
from simulated import Blob, SimulatedStore
from timing import note

import tensordelta as td
from tensordelta.codecs import fingerprint
from tensordelta.codecs.words import Words
from tensordelta.format import strict_json
from tensordelta.format.chunk import Chunk, Span
from tensordelta.format.chunk_codec import Piece
from tensordelta.format.documents import LatestDocument
from tensordelta.format.layout import Layout
from tensordelta.format.manifest import Manifest, PackEntry, parse_manifest, ranges_of
from tensordelta.format.names import (
    LATEST,
    fingerprints_name,
    layout_name,
    manifest_name,
    new_salt,
    pack_name,
)
from tensordelta.format.pack import METADATA_KEY, ChunkPack, ChunkTable, Pack, check_overlap, read_pack
from tensordelta.format.safetensors import build_header, header_size, parse_header
from tensordelta.read.slices import needed
from tensordelta.state.blocks import Place
from tensordelta.state.holder import Holder
from tensordelta.write.encoder import cut

MASK = (1 << 64) - 1
CREATED = "2026-11-20T12:00:00Z"
#: Bytes of a pack of a full version.
FULL_PACK = 256 << 20


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


# -- one writer --------------------------------------------------------------------------------------------------------


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
        packs, nbytes: of each rank, that it fetches.
        one_shard: bytes that each rank would fetch if a writer put experts and rest into the same packs.
        table: bytes of JSON that the first rank parses: the manifest, and its packs' headers.
        parse, parse_peak: seconds and bytes of memory of that.
        table_chunks: in these tables.
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
    table_chunks: int
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
    holders = [first] * setup.ranks if how == "tensor" else [first, *map(holder_of, range(1, setup.ranks))]
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

    took, tables = best(parse, rounds if how == "expert" else 1)
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
        table_chunks=sum(len(table.chunks) for table in tables if isinstance(table, ChunkPack)),
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
