"""Chains in memory whose packs are made by hand, read by the package and by the slow reader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slow_reader
from slow_reader import zstd
from strategies import CHAIN, MemoryStore, random_words, slow

import tensordelta as td
from tensordelta.codecs.words import DTYPES
from tensordelta.errors import TensorDeltaError
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.state import State

TIME = "2026-11-20T12:00:40Z"
FLOATS = sorted(name for name, kind in DTYPES.items() if kind.exponent)
SLICES = list[tuple[int, int, int]]

POSITIONS = [
    {"codec": "gap", "shift": 0},
    {"codec": "gap", "shift": 4},
    {"codec": "gap", "shift": 8},
    {"codec": "bitmap"},
    {"codec": "all"},
]
#: The table of section 7.11.
LEGAL = [
    (order, positions, values)
    for order in ("natural", "exponent")
    for positions in POSITIONS
    for values in ("step", "replace")
    if order == "natural" or (positions["codec"] != "all" and values == "step")
]


# -- chains made by hand -------------------------------------------------------------------------------------------


def compress(stream: bytes, level: int = 3) -> bytes:
    options = {zstd.CompressionParameter.compression_level: level, zstd.CompressionParameter.checksum_flag: 1}
    return zstd.ZstdCompressor(options=options).compress(stream, mode=zstd.ZstdCompressor.FLUSH_FRAME)


def safetensors(header: dict[str, Any] | bytes, buffer: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + buffer


def laid_out(streams: Iterable[tuple[str, bytes]]) -> tuple[dict[str, Any], bytes]:
    entries: dict[str, Any] = {}
    buffer = b""
    for name, stream in streams:
        offsets = [len(buffer), len(buffer) + len(stream)]
        entries[name] = {"dtype": "U8", "shape": [len(stream)], "data_offsets": offsets}
        buffer += stream
    return entries, buffer


def plain_pack(state: State) -> bytes:
    header: dict[str, Any] = {}
    buffer = b""
    for index, tensor in enumerate(state.layout.tensors):
        data = state.words(index).tobytes()
        offsets = [len(buffer), len(buffer) + len(data)]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        buffer += data
    return safetensors(header, buffer)


@dataclass
class Draft:
    """A chain of two versions, the second a delta of one chunk pack; every part can be spoiled before it is built."""

    old: State
    new: State
    entries: list[dict[str, Any]]
    streams: list[dict[str, bytes]]
    features: list[str] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    header: Callable[[dict[str, Any]], dict[str, Any] | bytes] = lambda header: header
    pack: Callable[[bytes], bytes] = lambda data: data
    described: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    more: list[dict[str, Any]] = field(default_factory=list)

    def build(self) -> MemoryStore:
        store = MemoryStore()
        store["chain.json"] = json.dumps({"tensordelta": "1.0-rc.1", "chain": CHAIN, "created": TIME}).encode()
        layouts = [store.add("layouts/", each.layout.encode(), ".json") for each in (self.old, self.new)]
        packs = []
        if len(self.old.layout):
            packs = [
                self._entry(store, plain_pack(self.old), "tensors", range(len(self.old.layout)), self.old.layout.words)
            ]
        self._manifest(store, 0, layouts[0], self.old, packs, None)
        streams, buffer = laid_out(
            (f"{index}.{name}", stream) for index, each in enumerate(self.streams) for name, stream in each.items()
        )
        table = {"tensordelta": "1.0-rc.1", "layout": layouts[1], "chunks": self.entries, **self.table}
        header: dict[str, Any] = {"__metadata__": {"tensordelta": json.dumps(table), **self.metadata}, **streams}
        data = self.pack(safetensors(self.header(header), buffer))
        held = [
            each[0] for entry in self.entries for each in entry.get("slices", []) if isinstance(each, list) and each
        ]
        last = len(self.new.layout) - 1
        held = [min(each, last) for each in held if isinstance(each, int)] or [0]
        changed = sum(entry["changed"] for entry in self.entries if isinstance(entry.get("changed"), int))
        entry = self._entry(store, data, "chunks", held, max(changed, 0))
        packs = [{**entry, **self.described}, *self.more]
        self._manifest(store, 1, layouts[1], self.new, packs, {"version": 0, "layout": layouts[0]})
        return store

    def _entry(
        self, store: MemoryStore, data: bytes, content: str, held: Iterable[int], changed: int
    ) -> dict[str, Any]:
        digest = store.add("packs/", data, ".safetensors")
        tensors = [[min(held), max(held) + 1]]
        path = f"packs/{digest}.safetensors"
        found = {"sha256": digest, "size": len(data), "path": path, "content": content}
        return {**found, "tensors": tensors, "changed": changed}

    def _manifest(
        self, store: MemoryStore, version: int, layout: str, state: State, packs: list[Any], base: dict[str, Any] | None
    ) -> None:
        if base is not None:
            base = {**base, "fingerprint": slow_reader.state_fingerprint(slow(self.old))}
        manifest = {
            "tensordelta": "1.0-rc.1",
            "chain": CHAIN,
            "version": version,
            "layout": layout,
            "fingerprint": slow_reader.state_fingerprint(slow(state)),
            "base": base,
            "packs": packs,
            "features": self.features,
            "created": TIME,
        }
        store[f"manifests/{version:012d}.json"] = json.dumps(manifest).encode()


def outcomes(store: MemoryStore, version: int = 1) -> tuple[State | TensorDeltaError, slow_reader.State | str]:
    """What the package makes of a version, and what the slow reader does."""
    found: State | TensorDeltaError
    wanted: slow_reader.State | str
    try:
        found = td.open(store, threads=1).load(version)
    except TensorDeltaError as error:
        found = error
    try:
        wanted = slow_reader.read_version(store, version)
    except slow_reader.Fault as fault:
        wanted = fault.name
    return found, wanted


def check(store: MemoryStore, state: State, version: int = 1) -> None:
    found, wanted = outcomes(store, version)
    assert isinstance(found, State), found
    assert isinstance(wanted, dict), wanted
    assert wanted == slow(state)
    assert slow(found) == wanted
    assert found.equals(state)


@dataclass
class Form:
    """How a chunk is written."""

    order: str
    limit: int
    positions: dict[str, Any]
    values: str
    compression: str


def listed_places(state: State, slices: SLICES) -> list[tuple[int, int]]:
    return [(tensor, index) for tensor, start, stop in slices for index in range(start, stop)]


def encode(
    old: State, new: State, slices: SLICES, numbers: list[int], form: Form
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A chunk entry and its streams, encoded by the book.

    Args:
        numbers: natural numbers of the listed words, ascending.
    """
    dtype = new.layout.tensors[slices[0][0]].dtype
    w = DTYPES[dtype].word_bits
    places = listed_places(new, slices)
    before = [int(old.words(tensor)[index]) for tensor, index in places]
    after = [int(new.words(tensor)[index]) for tensor, index in places]
    positions = numbers
    if form.order == "exponent":
        permutation = slow_reader.exponent_permutation(before, dtype, form.limit)
        positions = [r for r, number in enumerate(permutation) if number in set(numbers)]
        numbers = [permutation[r] for r in positions]
    streams: dict[str, bytes] = {}
    if form.positions["codec"] == "gap":
        streams |= slow_reader.encode_gap(positions, form.positions["shift"])
    elif form.positions["codec"] == "bitmap":
        streams |= slow_reader.encode_bitmap(positions, len(places))
    words = [after[number] for number in numbers]
    if form.values == "step":
        streams |= slow_reader.encode_step([before[number] for number in numbers], words, w)
    else:
        streams |= slow_reader.encode_replace(words, w)
    total = sum(
        slow_reader.value(new.layout.tensors[places[each][0]].name, places[each][1], after[each], w) for each in numbers
    )
    entry = {
        "dtype": dtype,
        "slices": [list(each) for each in slices],
        "changed": len(numbers),
        "order": {"codec": "exponent", "limit": form.limit} if form.order == "exponent" else {"codec": "natural"},
        "positions": form.positions,
        "values": {"codec": form.values},
        "compression": form.compression,
        "result": f"{total % 2**64:016x}",
    }
    if form.compression == "zstd":
        streams = {name: compress(stream, 1 + index % 5) for index, (name, stream) in enumerate(streams.items())}
    return entry, streams


def example() -> Draft:
    """Two chunks over four tensors: gap with nibbles and escapes, and bitmap with replace."""
    layout = Layout(
        [Tensor("a", "BF16", (40,)), Tensor("b", "BF16", (24,)), Tensor("c", "F32", (10,)), Tensor("d", "I32", (9,))]
    )
    rng = np.random.default_rng(7)
    old = State(layout, [random_words(rng, tensor.dtype, tensor.words) for tensor in layout.tensors])
    words = [old.words(index).copy() for index in range(4)]
    words[0][[3, 30]] += np.uint16(1)
    words[1][5] += np.uint16(300)
    words[2][[0, 9]] ^= np.uint32(1 << 31)
    new = State(layout, words)
    first = encode(
        old,
        new,
        [(0, 0, 40), (1, 4, 20)],
        [3, 30, 41],
        Form("natural", 0, {"codec": "gap", "shift": 4}, "step", "none"),
    )
    second = encode(old, new, [(2, 0, 10)], [0, 9], Form("natural", 0, {"codec": "bitmap"}, "replace", "none"))
    return Draft(old, new, [first[0], second[0]], [first[1], second[1]])


def exponent_example() -> Draft:
    draft = example()
    form = Form("exponent", 128, {"codec": "gap", "shift": 0}, "step", "none")
    draft.entries[0], draft.streams[0] = encode(draft.old, draft.new, [(0, 0, 40), (1, 4, 20)], [3, 30, 41], form)
    draft.features = ["exponent-order"]
    return draft


def zstd_example() -> Draft:
    draft = example()
    for index in (0, 1):
        draft.entries[index]["compression"] = "zstd"
        draft.streams[index] = {name: compress(stream) for name, stream in draft.streams[index].items()}
    return draft


def reordered(value: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(value.items()))
