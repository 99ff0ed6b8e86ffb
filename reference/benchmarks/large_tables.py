"""The JSON of one version of a trillion words: manifest and chunk tables, made with the encoder's own chunks and packs.

    python reference/benchmarks/large_tables.py --density 0.01

The layout is that of a large mixture of experts. Chunks and packs are gathered as the encoder gathers them, from pieces
whose words are all alike. Entries are real, but for the lengths of streams, which follow from the bits that a change
takes. The reader's own code parses and checks the tables. Beside it: chunks of 2^16 listed words, whatever the change.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import random
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from speed import figures_table
from timing import Figure, note

from tensordelta.format import strict_json
from tensordelta.format.chunk import Chunk, Exponent, Gap, Natural, Step
from tensordelta.format.chunk_codec import Piece, _grouped, _merged
from tensordelta.format.layout import Layout, Tensor
from tensordelta.format.manifest import Base, Manifest, PackEntry, ranges_of
from tensordelta.format.pack import METADATA_KEY, ChunkTable, Pack, check_overlap, read_pack
from tensordelta.format.safetensors import build_header
from tensordelta.tables import Table, bytes_text
from tensordelta.write import gathering
from tensordelta.write.encoder import _JOB, _PACK, _PACK_MOST, _PACK_SHARE, Order, cut

EXPERTS, WIDTH, INNER = 384, 7168, 2048
#: Bits that each stream takes of a listed word.
STREAMS = {"gaps": 5.6, "codes": 1.2, "escapes.0": 0.4, "escapes.1": 0.02}
DIGEST = "1" * 64
#: What a version's JSON may take, and the reader's memory for it by its own count.
TARGET = 20e6


def layout(words: int) -> Layout:
    """A mixture of experts of about so many words."""
    experts = {"down_proj": (WIDTH, INNER), "gate_proj": (INNER, WIDTH), "up_proj": (INNER, WIDTH)}
    others = {
        "input_layernorm": (WIDTH,),
        "mlp.gate": (EXPERTS, WIDTH),
        "post_attention_layernorm": (WIDTH,),
        "self_attn.kv_a_proj": (576, WIDTH),
        "self_attn.kv_b_proj": (16384, 512),
        "self_attn.o_proj": (WIDTH, 8192),
        "self_attn.q_a_proj": (1536, WIDTH),
        "self_attn.q_b_proj": (12288, 1536),
    }
    in_layer = [(f"{name}.weight", shape) for name, shape in others.items()] + [
        (f"mlp.experts.{expert}.{name}.weight", shape) for expert in range(EXPERTS) for name, shape in experts.items()
    ]
    tensors: list[Tensor] = []
    left, layer = words, 0
    while left > 0:
        for name, shape in in_layer:
            tensor = Tensor(f"model.layers.{layer}.{name}", "BF16", shape)
            tensors.append(tensor)
            left -= tensor.words
            if left <= 0:
                break
        layer += 1
    return Layout.of(tensors)


def pieces(layout: Layout, density: float) -> Iterator[Piece]:
    """The changed words of each part that the encoder compares; their arrays take no memory."""
    words = np.broadcast_to(np.zeros(1, np.uint16), _JOB)
    places = np.broadcast_to(np.zeros(1, np.int64), _JOB)
    for part in cut(layout, [[(0, tensor.words)] for tensor in layout.tensors]):
        listed = round((part.stop - part.start) * density)
        if listed:
            yield Piece(*part, places[:listed], words[:listed], words[:listed])


def chunk_of(pieces: list[Piece], layout: Layout, order: Order) -> Chunk:
    """The table entry that the encoder writes for a chunk."""
    groups = _grouped(pieces, layout) if order == "exponent" else [_merged(pieces)]
    return Chunk(
        dtype="BF16",
        slices=[each for group in groups for each in group],
        changed=sum(len(piece.new) for piece in pieces),
        order=Exponent(118, [len(group) for group in groups]) if order == "exponent" else Natural(),
        positions=Gap(0),
        values=Step(),
        compression="zstd",
        result="0123456789abcdef",
    )


class Blob:
    """A pack of which there is the header alone.

    Attributes:
        size: bytes of the whole pack.
    """

    def __init__(self, header: bytes, size: int) -> None:
        self._header = header
        self.size = size

    def read(self, offset: int, length: int) -> memoryview:
        """Bytes of the header."""
        assert offset + length <= len(self._header)
        return memoryview(self._header)[offset : offset + length]


def built(chunks: Sequence[Chunk], rng: random.Random) -> tuple[PackEntry, Blob]:
    """A pack: its entry, and its header."""
    streams = [
        (f"{index}.{name}", max(1, round(chunk.changed * bits / 8)))
        for index, chunk in enumerate(chunks)
        for name, bits in STREAMS.items()
    ]
    table = ChunkTable(strict_json.VERSION, DIGEST, list(chunks))
    header = build_header(
        ((name, "U8", (size,), size) for name, size in streams), {METADATA_KEY: strict_json.encode(table).decode()}
    )
    size = len(header) + sum(size for _, size in streams)
    digest = f"{rng.getrandbits(256):064x}"
    entry = PackEntry(
        sha256=digest,
        size=size,
        path=f"packs/{digest}-{rng.getrandbits(64):016x}.safetensors",
        content="chunks",
        tensors=ranges_of(tensor for chunk in chunks for tensor, _, _ in chunk.slices),
        changed=sum(chunk.changed for chunk in chunks),
    )
    return entry, Blob(header, size)


@dataclass(frozen=True)
class Version:
    """A version's JSON.

    Attributes:
        manifest: the manifest.
        blobs: the headers of its packs.
        chunks: number of chunks.
    """

    manifest: Manifest
    blobs: Sequence[Blob]
    chunks: int

    @property
    def headers(self) -> int:
        """Bytes of the packs' headers."""
        return sum(int.from_bytes(blob.read(0, 8), "little") for blob in self.blobs)

    @property
    def size(self) -> int:
        """Bytes of JSON, the layout left out, which is written once."""
        return len(self.manifest.encode()) + self.headers


def version(layout: Layout, density: float, order: Order) -> Version:
    """A delta, in the chunks and packs of the encoder."""
    rng = random.Random(0)
    entries: list[tuple[PackEntry, Blob]] = []
    waiting: list[Chunk] = []
    made = size = count = 0
    found = gathering.gather(pieces(layout, density), layout, lambda _: False, lambda _: order == "exponent")
    for each in found:
        waiting.append(chunk_of(each, layout, order))
        count += 1
        size += round(waiting[-1].changed * sum(STREAMS.values()) / 8)
        if size >= max(_PACK, min(made // _PACK_SHARE, _PACK_MOST)):
            entries.append(built(waiting, rng))
            made += size
            waiting, size = [], 0
    if waiting:
        entries.append(built(waiting, rng))
    manifest = Manifest(
        tensordelta=strict_json.VERSION,
        chain="0" * 32,
        version=1,
        layout=DIGEST,
        fingerprint="0123456789abcdef",
        base=Base(0, DIGEST, "0123456789abcdef"),
        packs=[entry for entry, _ in entries],
        features=["exponent-order"] if order == "exponent" else [],
        created="2026-01-01T00:00:00Z",
        tensor_fingerprints=DIGEST,
    )
    return Version(manifest, [blob for _, blob in entries], count)


def parse(version: Version, layout: Layout) -> list[Pack]:
    """Parse and check all tables, as a reader of the whole state does before it decodes."""
    packs = [
        read_pack(blob, entry, layout, version.manifest)
        for entry, blob in zip(version.manifest.packs, version.blobs, strict=True)
    ]
    check_overlap(packs, layout, object="the manifest")
    return packs


def measured(version: Version, layout: Layout) -> tuple[float, int, int]:
    """Seconds of a parse, and the bytes of memory that it takes at its peak, and that stay."""
    began = time.perf_counter()
    parse(version, layout)
    took = time.perf_counter() - began
    tracemalloc.start()
    kept = parse(version, layout)
    stays, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept
    return took, peak, stays


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--words", type=lambda text: round(float(text)), default=10**12, metavar="N", help="(1e12)")
    parser.add_argument("--density", type=float, default=0.01, help="share of the words that change (0.01)")
    parser.add_argument("--order", choices=["natural", "exponent"], default="exponent", help="(exponent)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    note("layout")
    whole = layout(options.words)
    rows: list[dict[str, Any]] = []
    sizes = gathering._SHARE, gathering._LISTED_EXPONENT
    try:
        for what, chosen in (("grow with the change", sizes), ("2^16 listed words", (1 << 62, gathering._LISTED))):
            note(f"chunks: {what}")
            gathering._SHARE, gathering._LISTED_EXPONENT = chosen
            made = version(whole, options.density, options.order)
            took, peak, stays = measured(made, whole)
            counted = strict_json.PARSING * max(int.from_bytes(blob.read(0, 8), "little") for blob in made.blobs)
            rows.append(
                {
                    "chunks": what,
                    "number": made.chunks,
                    "packs": len(made.blobs),
                    "bytes": made.manifest.size,
                    "json": made.size,
                    "manifest": len(made.manifest.encode()),
                    "seconds": took,
                    "peak": peak,
                    "stays": stays,
                    "counted": counted + strict_json.KEPT * made.headers,
                }
            )
    finally:
        gathering._SHARE, gathering._LISTED_EXPONENT = sizes
    title = (
        f"{whole.words:,} words in {len(whole):,} tensors, {100 * options.density:g} % changed, {options.order} order"
    )
    table = Table(
        title.upper(),
        ["<chunks", "number", "packs", "delta", "JSON", "parse", "peak", "by the reader's count"],
        [
            [
                row["chunks"],
                f"{row['number']:,}",
                f"{row['packs']:,}",
                bytes_text(row["bytes"]),
                bytes_text(row["json"]),
                f"{row['seconds']:.2f} s",
                bytes_text(row["peak"]),
                bytes_text(row["counted"]),
            ]
            for row in rows
        ],
    )
    figures = [
        Figure("JSON of the version", rows[0]["json"] / 1e6, "MB", most=TARGET / 1e6),
        Figure(
            "memory of the parse at its peak, of what the reader counts",
            rows[0]["peak"] / rows[0]["counted"],
            "x",
            most=1,
        ),
        Figure("JSON, times smaller than with chunks of 2^16 listed words", rows[1]["json"] / rows[0]["json"], "x"),
    ]
    print(table.text(), figures_table("FIGURES", figures).text(), sep="\n\n")
    if options.json:
        facts = {
            "words": whole.words,
            "tensors": len(whole),
            "rows": rows,
            "figures": [each.facts() for each in figures],
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
