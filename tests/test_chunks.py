"""Chunks and packs, SPEC.md sections 6 and 7: round trips of every legal combination, and every fault.

Each pack is put into a chain in memory and read twice, by the package and by the slow reader. Both have to come to the
same state, or refuse the chain with the same error.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
import slow_reader
from hypothesis import given
from hypothesis import strategies as st
from slow_reader import zstd
from strategies import CHAIN, MemoryStore, Pair, examples, generators, pairs, random_words, slow, states, stepped

import tensordelta as td
from tensordelta.codecs.words import DTYPES
from tensordelta.errors import TensorDeltaError
from tensordelta.format import chunk as chunks
from tensordelta.format import chunk_codec
from tensordelta.format.chunk import Chunk
from tensordelta.format.chunk_codec import Piece
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.state import State
from tensordelta.write import encoder as encoders
from tensordelta.write.encoder import Codecs, Comparison, Encoder

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
        store["chain.json"] = json.dumps({"tensordelta": "1.0", "chain": CHAIN, "created": TIME}).encode()
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
        table = {"tensordelta": "1.0", "layout": layouts[1], "chunks": self.entries, **self.table}
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
        tensors = [min(held), max(held) + 1]
        path = f"packs/{digest}.safetensors"
        found = {"sha256": digest, "size": len(data), "path": path, "content": content}
        return {**found, "tensors": tensors, "changed": changed}

    def _manifest(
        self, store: MemoryStore, version: int, layout: str, state: State, packs: list[Any], base: dict[str, Any] | None
    ) -> None:
        if base is not None:
            base = {**base, "fingerprint": slow_reader.state_fingerprint(slow(self.old))}
        manifest = {
            "tensordelta": "1.0",
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


# -- chunks of every legal form ------------------------------------------------------------------------------------


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
        slow_reader.change(new.layout.tensors[places[each][0]].name, places[each][1], before[each], after[each], w)
        for each in numbers
    )
    entry = {
        "dtype": dtype,
        "slices": [list(each) for each in slices],
        "changed": len(numbers),
        "order": {"codec": "exponent", "limit": form.limit} if form.order == "exponent" else {"codec": "natural"},
        "positions": form.positions,
        "values": {"codec": form.values},
        "compression": form.compression,
        "fingerprint": f"{total % 2**64:016x}",
    }
    if form.compression == "zstd":
        streams = {name: compress(stream, 1 + index % 5) for index, (name, stream) in enumerate(streams.items())}
    return entry, streams


@st.composite
def drafts(draw: st.DrawFn, order: str, positions: dict[str, Any], values: str, compression: str) -> Draft:
    """A delta of one chunk over one or more slices, of a legal form."""
    dtype = draw(st.sampled_from(FLOATS if order == "exponent" else sorted(DTYPES)))
    rng = draw(generators)
    per_word = 8 // min(8, DTYPES[dtype].bits) if dtype == "F4" else 1
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 9, 40, 300]), min_size=1, max_size=3))
    shapes = [(size * (4 if DTYPES[dtype].bits == 6 else per_word),) for size in sizes]
    layout = Layout(Tensor(f"t{index}", dtype, shape) for index, shape in enumerate(shapes))
    fresh = [draw(st.integers(0, 3)) == 0 for _ in layout.tensors]  # tensors that the base lacks start as zero words
    old = State(
        layout,
        [
            np.zeros(tensor.words, tensor.kind.word) if new else random_words(rng, dtype, tensor.words)
            for tensor, new in zip(layout.tensors, fresh, strict=True)
        ],
    )
    slices: SLICES = []
    for index, tensor in enumerate(layout.tensors):
        cuts = sorted(draw(st.sets(st.integers(0, tensor.words), min_size=2, max_size=4)))
        for start, stop in pairwise(cuts):
            if draw(st.integers(0, 3)):  # adjacent slices, and holes between slices
                slices.append((index, start, stop))
    if not slices:
        slices = [(0, 0, layout.tensors[0].words)]
    places = listed_places(old, slices)
    words = [old.words(index).copy() for index in range(len(layout))]
    everything = positions["codec"] == "all"
    density = 1.0 if everything else draw(st.sampled_from([0.02, 0.3, 1.0]))
    count = max(1, int(density * len(places)))
    numbers = sorted(rng.choice(len(places), count, replace=False).tolist())
    for number in numbers:
        tensor, index = places[number]
        part = words[tensor][index : index + 1]
        if values == "step" or rng.random() < 0.8:  # a word in `replace` may equal the base's
            part[:] = stepped(rng, part, 1.0)
    new = State(layout, words)
    limit = draw(st.integers(1, 2 ** DTYPES[dtype].exponent[1])) if order == "exponent" else 0
    entry, streams = encode(old, new, slices, numbers, Form(order, limit, positions, values, compression))
    kept = [index for index in range(len(layout)) if not fresh[index]]
    base = State(Layout(layout.tensors[index] for index in kept), [old.words(index) for index in kept])
    return Draft(base, new, [entry], [streams], ["exponent-order"] if order == "exponent" else [])


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize(
    ("order", "positions", "values"),
    LEGAL,
    ids=[f"{order}-{'-'.join(map(str, positions.values()))}-{values}" for order, positions, values in LEGAL],
)
@examples(12)
@given(data=st.data())
def test_every_legal_combination(
    order: str, positions: dict[str, Any], values: str, compression: str, data: st.DataObject
) -> None:
    draft = data.draw(drafts(order, positions, values, compression))
    check(draft.build(), draft.new)


def test_there_are_fourteen_legal_forms() -> None:
    assert len(LEGAL) == 14


# -- what the writer makes -----------------------------------------------------------------------------------------


def chain_of(*states_: State, values: str = "step", order: str = "natural") -> MemoryStore:
    """A chain of versions as the encoder makes them; every second edge starts from the version before."""
    store = MemoryStore()
    store["chain.json"] = json.dumps({"tensordelta": "1.0", "chain": CHAIN, "created": TIME}).encode()
    before: dict[str, Any] | None = None
    for version, state in enumerate(states_):
        layout = store.add("layouts/", state.layout.encode(), ".json")
        base = states_[version - 1] if version else None
        encoder = Encoder(
            Comparison.of_states(base, state, layout, None if base is None else base.sums()), Codecs(values, order)
        )
        entries = []
        for built in encoder.packs():
            data = b"".join(built.parts)
            assert store.add("packs/", data, ".safetensors") == built.entry.sha256
            entries.append(msgspec.to_builtins(built.entry))
        assert [int(each) for each in encoder.sums] == [
            slow_reader.tensor_fingerprint(name, each.words, slow_reader.DTYPES[each.dtype].w)
            for name, each in slow(state).items()
        ]
        assert encoder.changed == sum(entry["changed"] for entry in entries) == sum(encoder.changed_of)
        manifest = {
            "tensordelta": "1.0",
            "chain": CHAIN,
            "version": version,
            "layout": layout,
            "fingerprint": slow_reader.state_fingerprint(slow(state)),
            "base": before,
            "packs": entries,
            "features": encoder.features,
            "created": TIME,
        }
        store[f"manifests/{version:012d}.json"] = json.dumps(manifest).encode()
        before = {"version": version, "layout": layout, "fingerprint": manifest["fingerprint"]}
    return store


def written(store: MemoryStore, version: int) -> list[slow_reader.Chunk]:
    """The chunks of a version, as the slow reader reads them from its packs."""
    name = f"manifests/{version:012d}.json"
    manifest = slow_reader.parse_manifest(store[name], name)
    layout = slow_reader.layout_of(store, manifest.layout)
    return [
        chunk
        for pack in manifest.packs
        for chunk in slow_reader.read_chunk_pack(store[pack.path], layout, manifest.layout, manifest.features)
    ]


def content(chunk: slow_reader.Chunk) -> dict[str, bytes]:
    if chunk.compression == "none":
        return chunk.streams
    return {name: zstd.decompress(stream) for name, stream in chunk.streams.items()}


def check_written(store: MemoryStore, old: State, new: State, version: int) -> None:
    """The writer lists what changed and, in tensors that it knows, nothing else; its streams are those of the book."""
    base = slow_reader.fit(slow(old), [(each.name, each.dtype, each.shape) for each in new.layout.tensors])
    fitted = State(new.layout, [np.array(base[each.name].words, each.kind.word) for each in new.layout.tensors])
    listed: set[tuple[int, int]] = set()
    for chunk in written(store, version):
        words = slow_reader.decode_chunk(chunk, slow_layout(new), [each.words for each in base.values()])
        assert listed.isdisjoint(words)
        listed |= set(words)
        places = {place: number for number, place in enumerate(listed_places(new, chunk.slices))}
        form = Form(
            chunk.order,
            chunk.limit,
            {"codec": "gap", "shift": chunk.shift} if chunk.positions == "gap" else {"codec": chunk.positions},
            chunk.values,
            "none",
        )
        entry, streams = encode(fitted, new, chunk.slices, sorted(places[each] for each in words), form)
        assert streams == content(chunk)
        assert int(entry["fingerprint"], 16) == chunk.fingerprint
    for index, tensor in enumerate(new.layout.tensors):
        differ = {(index, each) for each in np.flatnonzero(fitted.words(index) != new.words(index)).tolist()}
        mine = {each for each in listed if each[0] == index}
        known = old.layout.index.get(tensor.name)
        if known is not None and old.layout.tensors[known] == tensor:
            assert mine == differ
        else:
            assert mine >= differ


def slow_layout(state: State) -> slow_reader.Layout:
    return [(each.name, each.dtype, each.shape) for each in state.layout.tensors]


WRITERS = [("step", "natural"), ("replace", "natural"), ("step", "exponent")]


@pytest.mark.parametrize(("values", "order"), WRITERS)
@examples(40)
@given(pair=pairs())
def test_written_deltas(values: str, order: str, pair: Pair) -> None:
    store = chain_of(pair.old, pair.new, values=values, order=order)
    check(store, pair.old, 0)
    check(store, pair.new, 1)
    check_written(store, pair.old, pair.new, 1)


@pytest.mark.parametrize(("values", "order"), WRITERS)
@examples(12)
@given(pair=pairs(), small=st.sampled_from([1, 7, 16]))
def test_written_deltas_in_many_small_chunks(values: str, order: str, pair: Pair, small: int) -> None:
    """The same with chunks of a few words and packs of a few chunks, so that tensors and packs are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_LISTED", small)
        patch.setattr(encoders, "_LISTED_DENSE", small * 2)
        patch.setattr(encoders, "_JOB", small * 5)
        patch.setattr(encoders, "_SPACE", small * 8)
        patch.setattr(encoders, "_PACK", 60)
        store = chain_of(pair.old, pair.new, values=values, order=order)
    check(store, pair.new, 1)
    check_written(store, pair.old, pair.new, 1)


@examples(25)
@given(state=states())
def test_written_full_versions(state: State) -> None:
    store = chain_of(state)
    check(store, state, 0)
    check_written(store, State.empty(), state, 0)


@examples(15)
@given(pair=pairs(), rng=generators)
def test_written_chains(pair: Pair, rng: np.random.Generator) -> None:
    """Three steps: there, on, and back to the first state."""
    third = State(pair.new.layout, [stepped(rng, pair.new.words(each), 0.2) for each in range(len(pair.new.layout))])
    store = chain_of(pair.old, pair.new, third, pair.old)
    check(store, third, 2)
    check(store, pair.old, 3)


def test_an_empty_delta_has_no_packs() -> None:
    state = State.from_arrays({"w": np.arange(10, dtype=np.float32)})
    store = chain_of(state, state)
    assert json.loads(store["manifests/000000000001.json"])["packs"] == []
    check(store, state, 1)


@pytest.mark.parametrize("dtype", ["BF16", "F32", "U8"])
@pytest.mark.parametrize("count", [70_000, 300_000])
def test_longer_tensors(dtype: str, count: int) -> None:
    """Tensors of several blocks of every kind; the slow reader would take too long, so the states are compared."""
    rng = np.random.default_rng(count)
    layout = Layout.of([Tensor("a", dtype, (count,)), Tensor("b", dtype, (count // 3, 2))])
    old = State(layout, [random_words(rng, dtype, tensor.words) for tensor in layout.tensors])
    for density in (0.001, 0.2, 1.0):
        new = State(layout, [stepped(rng, old.words(index), density) for index in (0, 1)])
        for values, order in WRITERS:
            store = fast_chain(old, new, values, order)
            assert td.open(store, threads=1).load(1).equals(new)


def fast_chain(old: State, new: State, values: str, order: str) -> MemoryStore:
    store = MemoryStore()
    td.open(store, create=True, chain=CHAIN)
    publisher = td.open(store, threads=1)
    publisher.publish(old)
    publisher.publish(new, values=values, order=order)
    return store


# -- faults --------------------------------------------------------------------------------------------------------


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


ABSENT = object()


def entry(index: int, **members: Any) -> Callable[[Draft], None]:
    """Changes members of a chunk entry."""

    def spoil(draft: Draft) -> None:
        for name, value in members.items():
            if value is ABSENT:
                del draft.entries[index][name]
            else:
                draft.entries[index][name] = value

    return spoil


def stream(index: int, **streams: bytes | None) -> Callable[[Draft], None]:
    """Changes streams of a chunk; `escapes_0` is the stream `escapes.0`."""

    def spoil(draft: Draft) -> None:
        for name, value in streams.items():
            if value is None:
                del draft.streams[index][name.replace("_", ".")]
            else:
                draft.streams[index][name.replace("_", ".")] = value

    return spoil


def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Draft], None]:
    """Changes the pack's header."""

    def spoil(draft: Draft) -> None:
        def apply(value: dict[str, Any]) -> dict[str, Any] | bytes:
            result = change(value)
            return value if result is None else result

        draft.header = apply

    return spoil


def setting(**fields: Any) -> Callable[[Draft], None]:
    """Sets fields of the draft."""

    def spoil(draft: Draft) -> None:
        for name, value in fields.items():
            setattr(draft, name, value)

    return spoil


def moved(value: dict[str, Any], name: str, begin: int, end: int) -> None:
    value[name]["data_offsets"] = [value[name]["data_offsets"][0] + begin, value[name]["data_offsets"][1] + end]
    value[name]["shape"] = [value[name]["data_offsets"][1] - value[name]["data_offsets"][0]]


def again(draft: Draft) -> None:
    """A third chunk that lists a word of the first one's slices."""
    form = Form("natural", 0, {"codec": "gap", "shift": 0}, "replace", "none")
    made, streams = encode(draft.old, draft.new, [(0, 39, 40)], [0], form)
    draft.entries.append(made)
    draft.streams.append(streams)


GAP = {"codec": "gap", "shift": 4}
FAULTS: list[tuple[str, Callable[[], Draft], Callable[[Draft], None], str, str]] = [
    # Section 6.1: the file.
    ("short file", example, setting(pack=lambda data: data[:7]), "malformed", "TD-PCK-001"),
    ("empty file", example, setting(pack=lambda data: b""), "malformed", "TD-PCK-001"),
    ("header cut", example, setting(pack=lambda data: data[:100]), "malformed", "TD-PCK-001"),
    (
        "long header",
        example,
        setting(pack=lambda data: (10**8 + 1).to_bytes(8, "little") + data[8:]),
        "limit",
        "TD-PCK-002",
    ),
    ("header of all ones", example, setting(pack=lambda data: b"\xff" * 8 + data[8:]), "limit", "TD-PCK-002"),
    ("no brace", example, header(lambda value: b" " + json.dumps(value).encode()), "malformed", "TD-PCK-003"),
    ("no header", example, setting(pack=lambda data: bytes(8)), "malformed", "TD-PCK-003"),
    ("byte after", example, setting(pack=lambda data: data + b"\0"), "malformed", "TD-PCK-004"),
    ("byte missing", example, setting(pack=lambda data: data[:-1]), "malformed", "TD-PCK-004"),
    ("hole", example, header(lambda value: moved(value, "0.low", 1, 0)), "malformed", "TD-PCK-004"),
    ("overlap", example, header(lambda value: moved(value, "0.low", -1, 0)), "malformed", "TD-PCK-004"),
    ("begins late", example, header(lambda value: moved(value, "0.gaps", 1, 0)), "malformed", "TD-PCK-004"),
    (
        "zeros after the JSON",
        example,
        header(lambda value: json.dumps(value).encode() + b"\0"),
        "malformed",
        "TD-JSN-003",
    ),
    ("byte order mark", example, header(lambda value: b"{" + json.dumps(value).encode()), "malformed", "TD-JSN-003"),
    (
        "twice",
        example,
        header(lambda value: json.dumps(value).encode()[:-1] + b', "0.gaps": {}}'),
        "malformed",
        "TD-JSN-004",
    ),
    # Section 6.2: the container.
    ("dtype of a stream", example, header(lambda value: value["0.gaps"].update(dtype="I8")), "malformed", "TD-PCK-008"),
    ("unknown dtype", example, header(lambda value: value["0.gaps"].update(dtype="V8")), "malformed", "TD-PCK-008"),
    ("shape", example, header(lambda value: value["0.gaps"].update(shape=[2])), "malformed", "TD-PCK-008"),
    ("two dimensions", example, header(lambda value: value["0.gaps"].update(shape=[3, 1])), "malformed", "TD-PCK-008"),
    ("no shape", example, header(lambda value: value["0.gaps"].pop("shape") and None), "malformed", "TD-PCK-008"),
    (
        "real offset",
        example,
        header(lambda value: value["0.gaps"].update(data_offsets=[0.0, 3])),
        "malformed",
        "TD-PCK-008",
    ),
    ("one offset", example, header(lambda value: value["0.gaps"].update(data_offsets=[3])), "malformed", "TD-PCK-008"),
    ("an entry that is none", example, header(lambda value: value.update({"0.gaps": None})), "malformed", "TD-PCK-008"),
    ("unknown member", example, header(lambda value: value["0.gaps"].update(note=1)), "malformed", "TD-PCK-009"),
    ("no metadata", example, header(lambda value: value.pop("__metadata__") and None), "malformed", "TD-PCK-010"),
    ("null metadata", example, header(lambda value: value.update(__metadata__=None)), "malformed", "TD-PCK-010"),
    ("array as metadata", example, header(lambda value: value.update(__metadata__=[])), "malformed", "TD-PCK-010"),
    ("number in metadata", example, setting(metadata={"step": 1}), "malformed", "TD-PCK-010"),
    ("table that is no string", example, setting(metadata={"tensordelta": {}}), "malformed", "TD-PCK-010"),
    ("no table", example, header(lambda value: value.update(__metadata__={"format": "pt"})), "malformed", "TD-PCK-010"),
    ("stream of no chunk", example, lambda draft: draft.streams.append({"gaps": b"\0"}), "malformed", "TD-PCK-012"),
    ("stream of another codec", example, stream(0, bitmap=b"\0"), "malformed", "TD-PCK-012"),
    ("plane too many", example, stream(0, escapes_2=b"\0"), "malformed", "TD-PCK-012"),
    ("low with shift 0", example, entry(0, positions={"codec": "gap", "shift": 0}), "malformed", "TD-PCK-012"),
    ("escapes with replace", example, stream(1, escapes_0=b"\0"), "malformed", "TD-PCK-012"),
    ("name without chunk", example, lambda draft: draft.streams[1].update({"": b"\0"}), "malformed", "TD-PCK-012"),
    (
        "zero before a number",
        example,
        header(lambda v: v.update({"00.gaps": v.pop("0.gaps")})),
        "malformed",
        "TD-PCK-012",
    ),
    (
        "a name with a newline",
        example,
        header(lambda v: v.update({"0.gaps\n": v.pop("0.gaps")})),
        "malformed",
        "TD-PCK-012",
    ),
    ("no gaps", example, stream(0, gaps=None), "malformed", "TD-PCK-013"),
    ("no low", example, stream(0, low=None), "malformed", "TD-PCK-013"),
    ("no codes", example, stream(0, codes=None), "malformed", "TD-PCK-013"),
    ("no bitmap", example, stream(1, bitmap=None), "malformed", "TD-PCK-013"),
    ("one plane of escapes", example, stream(0, escapes_0=None), "malformed", "TD-PCK-013"),
    ("one plane of values", example, stream(1, values_3=None), "malformed", "TD-PCK-013"),
    # Section 6.3: the table.
    ("later format", example, setting(table={"tensordelta": "2.0"}), "unsupported", "TD-VER-002"),
    ("no format", example, setting(table={"tensordelta": None}), "malformed", "TD-JSN-012"),
    ("another layout", example, setting(table={"layout": "0" * 64}), "malformed", "TD-CHK-003"),
    ("chunks is no array", example, setting(table={"chunks": {}}), "malformed", "TD-JSN-012"),
    ("a chunk is no object", example, setting(table={"chunks": [1]}), "malformed", "TD-JSN-012"),
    ("no chunks", example, lambda draft: (draft.entries.clear(), draft.streams.clear()), "malformed", "TD-CHK-001"),
    ("no slices", example, entry(0, slices=[]), "malformed", "TD-CHK-002"),
    ("slice of two", example, entry(0, slices=[[0, 0]]), "malformed", "TD-JSN-012"),
    ("slice of four", example, entry(0, slices=[[0, 0, 40, 1]]), "malformed", "TD-JSN-012"),
    ("negative slice", example, entry(0, slices=[[0, -1, 40]]), "malformed", "TD-JSN-009"),
    ("real slice", example, entry(0, slices=[[0, 0.0, 40]]), "malformed", "TD-JSN-009"),
    ("unsorted tensors", example, entry(0, slices=[[1, 4, 20], [0, 0, 40]]), "malformed", "TD-CHK-004"),
    ("unsorted slices", example, entry(0, slices=[[0, 20, 40], [0, 0, 20]]), "malformed", "TD-CHK-004"),
    ("overlapping slices", example, entry(0, slices=[[0, 0, 20], [0, 19, 40]]), "malformed", "TD-CHK-005"),
    ("equal slices", example, entry(0, slices=[[0, 0, 40], [0, 0, 40]]), "malformed", "TD-CHK-005"),
    ("empty slice", example, entry(0, slices=[[0, 0, 40], [1, 4, 4]]), "malformed", "TD-CHK-007"),
    ("backward slice", example, entry(0, slices=[[0, 40, 0]]), "malformed", "TD-CHK-007"),
    ("no such tensor", example, entry(0, slices=[[0, 0, 40], [4, 0, 1]]), "malformed", "TD-CHK-008"),
    ("past the end", example, entry(0, slices=[[0, 0, 41]]), "malformed", "TD-CHK-008"),
    ("far past the end", example, entry(0, slices=[[0, 0, 2**53 - 1]]), "malformed", "TD-CHK-008"),
    ("another dtype", example, entry(0, dtype="F16"), "malformed", "TD-CHK-009"),
    ("mixed dtypes", example, entry(0, slices=[[0, 0, 40], [2, 0, 10]]), "malformed", "TD-CHK-009"),
    ("unknown dtype of a chunk", example, entry(0, dtype="F128"), "unsupported", "TD-CHK-010"),
    ("nothing listed", example, entry(0, changed=0), "malformed", "TD-CHK-011"),
    ("more than n", example, entry(0, changed=57), "malformed", "TD-CHK-011"),
    ("changed as text", example, entry(0, changed="3"), "malformed", "TD-JSN-012"),
    ("changed too great", example, entry(0, changed=2**53), "malformed", "TD-JSN-010"),
    ("unknown order", example, entry(0, order={"codec": "mantissa"}), "unsupported", "TD-CHK-012"),
    ("unknown positions", example, entry(0, positions={"codec": "elias-fano", "k": 1}), "unsupported", "TD-CHK-012"),
    ("unknown values", example, entry(0, values={"codec": "xor"}), "unsupported", "TD-CHK-012"),
    ("unknown codec, empty", example, entry(0, values={"codec": ""}), "unsupported", "TD-CHK-012"),
    ("shift 5", example, entry(0, positions={"codec": "gap", "shift": 5}), "malformed", "TD-CHK-013"),
    ("shift 12", example, entry(0, positions={"codec": "gap", "shift": 12}), "malformed", "TD-CHK-013"),
    ("no shift", example, entry(0, positions={"codec": "gap"}), "malformed", "TD-CHK-013"),
    ("shift as text", example, entry(0, positions={"codec": "gap", "shift": "4"}), "malformed", "TD-CHK-013"),
    ("real shift", example, entry(0, positions={"codec": "gap", "shift": 4.0}), "malformed", "TD-CHK-013"),
    ("shift false", example, entry(0, positions={"codec": "gap", "shift": False}), "malformed", "TD-CHK-013"),
    ("no codec", example, entry(0, positions={"shift": 4}), "malformed", "TD-CHK-013"),
    ("codec is a number", example, entry(0, positions={"codec": 4, "shift": 4}), "malformed", "TD-CHK-013"),
    ("codec object is a string", example, entry(0, values="step"), "malformed", "TD-CHK-013"),
    ("codec object is null", example, entry(0, order=None), "malformed", "TD-CHK-013"),
    ("limit of natural", example, entry(0, order={"codec": "natural", "limit": 3}), "malformed", "TD-CHK-014"),
    ("note in gap", example, entry(0, positions={**GAP, "note": None}), "malformed", "TD-CHK-014"),
    ("note in bitmap", example, entry(1, positions={"codec": "bitmap", "shift": 0}), "malformed", "TD-CHK-014"),
    ("note in step", example, entry(0, values={"codec": "step", "w": 16}), "malformed", "TD-CHK-014"),
    ("note in replace", example, entry(1, values={"codec": "replace", "": 0}), "malformed", "TD-CHK-014"),
    ("unknown compression", example, entry(0, compression="lz4"), "unsupported", "TD-CHK-015"),
    ("compression is null", example, entry(0, compression=None), "malformed", "TD-JSN-012"),
    ("fingerprint in capitals", example, entry(0, fingerprint="A" * 16), "malformed", "TD-JSN-015"),
    *(
        (f"no {name}", example, entry(0, **{name: ABSENT}), "malformed", "TD-JSN-011")
        for name in ("dtype", "slices", "changed", "order", "positions", "values", "compression", "fingerprint")
    ),
    # Sections 7.3 to 7.8: combinations and streams.
    (
        "no exponent field",
        example,
        entry(1, dtype="F32", order={"codec": "exponent", "limit": 1}),
        "malformed",
        "TD-VAL-006",
    ),
    ("limit 0", exponent_example, entry(0, order={"codec": "exponent", "limit": 0}), "malformed", "TD-CHK-013"),
    ("limit 257", exponent_example, entry(0, order={"codec": "exponent", "limit": 257}), "malformed", "TD-ORD-004"),
    ("limit 4096", exponent_example, entry(0, order={"codec": "exponent", "limit": 4096}), "malformed", "TD-CHK-013"),
    ("no limit", exponent_example, entry(0, order={"codec": "exponent"}), "malformed", "TD-CHK-013"),
    ("feature not listed", exponent_example, setting(features=[]), "malformed", "TD-MAN-006"),
    ("all, but m < n", example, entry(1, positions={"codec": "all"}), "malformed", "TD-POS-011"),
    ("gap ends", example, stream(0, gaps=b"\0\0\xff"), "malformed", "TD-POS-003"),
    ("gaps short", example, stream(0, gaps=b"\0\0"), "malformed", "TD-CHK-019"),
    ("gaps long", example, stream(0, gaps=bytes(4)), "malformed", "TD-CHK-019"),
    ("gaps empty", example, stream(0, gaps=b""), "malformed", "TD-CHK-019"),
    ("low long", example, stream(0, low=bytes(3)), "malformed", "TD-CHK-019"),
    ("position past the end", example, stream(0, gaps=b"\0\0\x03"), "malformed", "TD-POS-005"),
    (
        "padding of low",
        example,
        lambda d: stream(0, low=d.streams[0]["low"][:1] + b"\x1a")(d),
        "malformed",
        "TD-POS-006",
    ),
    ("bitmap long", example, stream(1, bitmap=bytes(3)), "malformed", "TD-CHK-019"),
    ("bitmap counts", example, stream(1, bitmap=b"\x01\x03"), "malformed", "TD-POS-009"),
    ("padding of bitmap", example, stream(1, bitmap=b"\x01\x06"), "malformed", "TD-POS-010"),
    ("codes long", example, stream(0, codes=b"\x35\0"), "malformed", "TD-CHK-019"),
    ("padding of codes", example, stream(0, codes=b"\xf5"), "malformed", "TD-VAL-003"),
    ("escapes, but no code 3", example, stream(0, codes=b"\x15"), "malformed", "TD-CHK-020"),
    ("no escapes", example, stream(0, escapes_0=None, escapes_1=None), "malformed", "TD-CHK-021"),
    ("more escapes", example, stream(0, codes=b"\x3d"), "malformed", "TD-CHK-019"),
    ("escapes long", example, stream(0, escapes_1=b"\0\0"), "malformed", "TD-CHK-019"),
    ("escapes uneven", example, stream(0, escapes_0=b"\0\0"), "malformed", "TD-CHK-019"),
    ("greatest escape", example, stream(0, escapes_0=b"\xfc", escapes_1=b"\xff"), "malformed", "TD-VAL-002"),
    ("values short", example, stream(1, values_0=b"\0"), "malformed", "TD-CHK-019"),
    # Section 7.10.
    (
        "stored as it is",
        zstd_example,
        lambda d: stream(0, gaps=zstd.decompress(d.streams[0]["gaps"]))(d),
        "malformed",
        "TD-ZST-001",
    ),
    ("of another size", zstd_example, stream(0, gaps=compress(bytes(4))), "malformed", "TD-ZST-003"),
    ("two frames", zstd_example, lambda d: stream(0, gaps=d.streams[0]["gaps"] * 2)(d), "malformed", "TD-ZST-006"),
    ("empty frame", zstd_example, stream(0, gaps=compress(b"")), "malformed", "TD-ZST-003"),
    ("no bytes", zstd_example, stream(0, gaps=b""), "malformed", "TD-ZST-001"),
    (
        "skippable",
        zstd_example,
        lambda d: stream(0, gaps=b"\x50\x2a\x4d\x18\0\0\0\0" + d.streams[0]["gaps"])(d),
        "malformed",
        "TD-ZST-007",
    ),
    # Section 8.3, 9.1.
    ("chunk fingerprint", example, entry(0, fingerprint="0" * 16), "integrity", "TD-RDR-006"),
    ("another step", example, stream(0, codes=b"\x34"), "integrity", "TD-RDR-006"),
    ("another word", example, stream(1, values_3=b"\0\0"), "integrity", "TD-RDR-006"),
    ("chunk left out", example, lambda draft: (draft.entries.pop(), draft.streams.pop()), "integrity", "TD-RDR-007"),
    # Section 4.8: what the manifest says of the pack.
    ("tensors begin", example, setting(described={"tensors": [1, 3]}), "malformed", "TD-MAN-010"),
    ("tensors too many", example, setting(described={"tensors": [0, 4]}), "malformed", "TD-MAN-010"),
    ("tensors out of the layout", example, setting(described={"tensors": [0, 5]}), "malformed", "TD-MAN-010"),
    ("changed differs", example, setting(described={"changed": 6}), "malformed", "TD-MAN-011"),
    ("size", example, setting(described={"size": 10}), "integrity", "TD-MAN-013"),
    ("digest", example, setting(described={"sha256": "0" * 64}), "integrity", "TD-MAN-013"),
    ("gone", example, setting(described={"path": "packs/gone"}), "missing", "TD-MAN-014"),
    ("named twice", example, again, "malformed", "TD-MAN-019"),
]


@pytest.mark.parametrize(
    ("make", "spoil", "error", "rule"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_faults(make: Callable[[], Draft], spoil: Callable[[Draft], None], error: str, rule: str) -> None:
    draft = make()
    spoil(draft)
    found, wanted = outcomes(draft.build())
    assert isinstance(found, TensorDeltaError), "accepted"
    assert (found.name, found.rule) == (error, rule), found
    assert wanted == error


@pytest.mark.parametrize("make", [example, exponent_example, zstd_example])
def test_the_unspoilt_examples(make: Callable[[], Draft]) -> None:
    draft = make()
    check(draft.build(), draft.new)


def reordered(value: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(value.items()))


@pytest.mark.parametrize(
    "spoil",
    [
        header(lambda value: json.dumps(value).encode() + b" \n\t\r  "),
        header(reordered),
        header(lambda value: json.dumps(value, indent=3).encode()),
        setting(metadata={"format": "pt", "é": "any string"}),
        setting(table={"tensordelta": "1.7", "note": {"a": [1.5, None]}}),
        setting(features=["exponent-order"]),  # listed, but not used
        entry(0, note={"codec": 3}),
        entry(1, slices=[[2, 0, 4], [2, 4, 10]]),  # adjacent slices
    ],
)
def test_what_means_nothing(spoil: Callable[[Draft], None]) -> None:
    draft = example()
    spoil(draft)
    check(draft.build(), draft.new)


def test_streams_in_any_order_in_the_buffer() -> None:
    draft = example()
    draft.streams = [dict(reversed(streams.items())) for streams in draft.streams]
    check(draft.build(), draft.new)


def test_a_table_may_be_nested_by_itself() -> None:
    """16 levels in the table, though its string lies two levels deep in the header."""
    draft = example()
    deep: Any = []
    for _ in range(14):
        deep = [deep]
    draft.table = {"note": deep}
    check(draft.build(), draft.new)
    draft.table = {"note": [deep]}
    found, wanted = outcomes(draft.build())
    assert isinstance(found, TensorDeltaError)
    assert (found.name, found.rule, wanted) == ("limit", "TD-JSN-008", "limit")


def test_limits_of_n() -> None:
    """2^27 words are accepted, 2^24 in order exponent; one more is beyond the limit."""
    layout = Layout([Tensor("w", "BF16", (2**28,)), Tensor("x", "U8", (9,))])
    good = {
        "dtype": "BF16",
        "slices": [[0, 0, 2**27]],
        "changed": 1,
        "order": {"codec": "natural"},
        "positions": {"codec": "bitmap"},
        "values": {"codec": "step"},
        "compression": "none",
        "fingerprint": "0" * 16,
    }
    exponent = {**good, "order": {"codec": "exponent", "limit": 256}, "slices": [[0, 0, 2**24]]}
    for table_entry in (good, exponent):
        chunks.check(chunks.parse(table_entry, object="chunk"), layout, object="chunk")
    beyond = [
        ({**good, "slices": [[0, 0, 2**27 + 1]]}, "limit", "TD-CHK-016"),
        ({**good, "slices": [[0, 0, 2**26], [0, 2**27, 2**27 + 2**26 + 1]]}, "limit", "TD-CHK-016"),
        ({**exponent, "slices": [[0, 0, 2**24 + 1]]}, "limit", "TD-ORD-005"),
        ({**exponent, "dtype": "U8", "slices": [[1, 0, 9]]}, "malformed", "TD-ORD-003"),
        ({**exponent, "positions": {"codec": "all"}, "changed": 2**24}, "malformed", "TD-POS-012"),
        ({**exponent, "values": {"codec": "replace"}}, "malformed", "TD-VAL-006"),
    ]
    for table_entry, error, rule in beyond:
        with pytest.raises(TensorDeltaError) as caught:
            chunks.check(chunks.parse(table_entry, object="chunk"), layout, object="chunk")
        assert (caught.value.name, caught.value.rule) == (error, rule)


def test_the_largest_gap_chunk_decodes() -> None:
    """One word at the end of 2^27: the stream of escapes is as long as it gets."""
    count = 2**27
    layout = Layout([Tensor("w", "U8", (count,))])
    old = np.zeros(count, np.uint8)
    piece = Piece(0, 0, count, np.array([count - 1]), old[-1:], np.array([200], np.uint8))
    encoded = chunk_codec.encode([piece], layout)
    chunks.check(encoded.chunk, layout, object="chunk")

    class Base:
        def is_zero(self, tensor: int) -> bool:
            return False

        def take(self, tensor: int, indices: np.ndarray) -> np.ndarray:
            return old[indices]

        def part(self, tensor: int, start: int, stop: int) -> np.ndarray:
            return old[start:stop]

    def read(name: str) -> memoryview | None:
        found = encoded.streams.get(name)
        return None if found is None else memoryview(found)

    (decoded,) = chunk_codec.decode(encoded.chunk, layout, read, Base(), object="chunk").pieces
    assert (decoded.indices.tolist(), decoded.new.tolist()) == ([count - 1], [200])


# -- plain packs (section 6.4) -------------------------------------------------------------------------------------

PLAIN = State.from_arrays(
    {"a": np.arange(3, dtype=np.float32), "b": np.array(7, np.int8), "z": np.zeros((2, 0), np.int8)}
)


def plain_chain(
    data: bytes, *, described: dict[str, Any] | None = None, state: State = PLAIN, times: int = 1
) -> MemoryStore:
    """A chain of one full version, whose plain pack is given."""
    store = MemoryStore()
    draft = Draft(State.empty(), state, [], [])
    store["chain.json"] = json.dumps({"tensordelta": "1.0", "chain": CHAIN, "created": TIME}).encode()
    layout = store.add("layouts/", state.layout.encode(), ".json")
    made = draft._entry(store, data, "tensors", range(len(state.layout)), state.layout.words)
    draft._manifest(store, 0, layout, state, [{**made, **(described or {})}] * times, None)
    return store


def plain_header(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    value, buffer = plain_header(plain_pack(PLAIN))
    result = change(value)
    return safetensors(value if result is None else result, buffer)


@pytest.mark.parametrize(
    "data",
    [
        plain_pack(PLAIN),
        with_header(lambda value: value.update(__metadata__={"tensordelta": "means nothing here"})),
        with_header(lambda value: value.update(__metadata__={})),
        with_header(lambda value: json.dumps(value).encode() + b"   \n"),
        with_header(reordered),
        with_header(lambda value: value["a"].update(note="unknown members are passed over")),
        with_header(lambda value: value.update(other={"dtype": "BOOL", "shape": [0], "data_offsets": [13, 13]})),
        with_header(
            lambda value: value.update(other={"dtype": "F4", "shape": [2**64 - 1, 0], "data_offsets": [13, 13]})
        ),
        with_header(lambda value: value["a"].update(note=[-1, -0.5, 10**400, [[[[]]]], {"dtype": None}])),
    ],
)
def test_plain_packs_that_are_accepted(data: bytes) -> None:
    check(plain_chain(data), PLAIN, 0)


def test_tensors_that_the_layout_lacks_are_passed_over() -> None:
    more = State.from_arrays({**PLAIN, "c": np.ones(5, np.uint16)})
    check(plain_chain(plain_pack(more)), PLAIN, 0)


@pytest.mark.parametrize(
    ("data", "error", "rule"),
    [
        (with_header(lambda value: b" " + json.dumps(value).encode()), "malformed", "TD-PCK-014"),
        (with_header(lambda value: json.dumps(value).encode()[:-1]), "malformed", "TD-PCK-014"),
        (with_header(lambda value: json.dumps(value).encode() + b"{}"), "malformed", "TD-PCK-014"),
        (with_header(lambda value: json.dumps(value).encode()[:-1] + b', "\xff": 1}'), "malformed", "TD-PCK-014"),
        (
            with_header(lambda value: json.dumps(value).replace('"dtype"', '"x": NaN, "dtype"').encode()),
            "malformed",
            "TD-PCK-014",
        ),
        (
            with_header(lambda value: json.dumps(value).replace('"dtype"', '"\\ud800": 1, "dtype"').encode()),
            "malformed",
            "TD-PCK-014",
        ),
        (with_header(lambda value: value["z"].update(shape=[2, 0, 2**64])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=[3.0])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: json.dumps(value).encode()[:-1] + b', "z": 1}'), "malformed", "TD-PCK-021"),
        (with_header(lambda value: value["a"].update(x=json.loads("[" * 15 + "]" * 15))), "limit", "TD-PCK-022"),
        (with_header(lambda value: value.update(__metadata__=None)), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value.update(__metadata__=[])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value.update(__metadata__="")), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value.update(__metadata__={"a": 1})), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=[4])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=["3"])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=[-3])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].pop("dtype") and None), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["z"].update(data_offsets=[14, 14])), "malformed", "TD-PCK-004"),
        (plain_pack(PLAIN) + b"\0", "malformed", "TD-PCK-004"),
        (with_header(lambda value: value["a"].update(dtype="I32")), "malformed", "TD-PCK-015"),
        (with_header(lambda value: value["a"].update(shape=[3, 1])), "malformed", "TD-PCK-015"),
        (with_header(lambda value: value["z"].update(shape=[0, 2])), "malformed", "TD-PCK-015"),
        (plain_pack(State.from_arrays({"A": np.zeros(3, np.float32)})), "malformed", "TD-PCK-016"),
        (safetensors({}, b""), "malformed", "TD-PCK-016"),
        (safetensors({"__metadata__": {}}, b""), "malformed", "TD-PCK-016"),
        (with_header(lambda value: value["b"].update(dtype="F8_E9M9")), "unsupported", "TD-PCK-018"),
    ],
)
def test_plain_pack_faults(data: bytes, error: str, rule: str) -> None:
    found, wanted = outcomes(plain_chain(data), 0)
    assert isinstance(found, TensorDeltaError), "accepted"
    assert (found.name, found.rule, wanted) == (error, rule, error), found


def test_a_shape_of_a_million_dimensions_is_refused_at_once() -> None:
    """Their product would have fifty million bits; the slow reader would multiply them all."""
    other = {"dtype": "U8", "shape": [2**53 - 1] * 10**6, "data_offsets": [13, 13]}
    store = plain_chain(with_header(lambda value: value.update(other=other)))
    with pytest.raises(TensorDeltaError) as caught:
        td.open(store, threads=1).load(0)
    assert (caught.value.name, caught.value.rule) == ("malformed", "TD-PCK-014")


def test_plain_packs_in_a_delta() -> None:
    """A plain tensor replaces a tensor of the base, whole; a chunk of the same delta changes another."""
    draft = example()
    replaced = State(Layout([draft.new.layout.tensors[3]]), [np.arange(9, dtype=np.uint32)])
    words = [draft.new.words(index) for index in range(3)] + [replaced.words(0)]
    draft.new = State(draft.new.layout, words)
    data = plain_pack(replaced)
    store = MemoryStore()
    draft.more = [draft._entry(store, data, "tensors", [3], 9)]
    built = draft.build()
    built.update(store)
    check(built, draft.new)


@pytest.mark.parametrize("dtype", ["I32", "F32"])
def test_words_named_by_a_chunk_and_a_plain_tensor(dtype: str) -> None:
    draft = example()
    index = 2 if dtype == "F32" else 3
    tensor = draft.new.layout.tensors[index]
    store = MemoryStore()
    plain = State(Layout([tensor]), [draft.new.words(index)])
    entry_of = draft._entry(store, plain_pack(plain), "tensors", [index], tensor.words)
    draft.more = [entry_of, entry_of] if dtype == "I32" else [entry_of]
    built = draft.build()
    built.update(store)
    found, wanted = outcomes(built)
    assert isinstance(found, TensorDeltaError)
    assert (found.name, found.rule, wanted) == ("malformed", "TD-MAN-019", "malformed")


def test_a_tensor_without_words_is_named_by_two_packs() -> None:
    """No word of it is named twice, for it has none."""
    empty = State.from_arrays({"z": np.zeros((2, 0), np.int8)})
    check(plain_chain(plain_pack(empty), state=empty, times=2), empty, 0)


# -- changed at random ---------------------------------------------------------------------------------------------


def spoilt(draw: Callable[[st.SearchStrategy[Any]], Any], draft: Draft) -> None:
    """Changes one thing of a pack: a number or word of its table, or bytes of a stream."""
    numbers = st.sampled_from(
        [0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 20, 39, 40, 41, 56, 57, 256, 2**27, 2**53, -1, 1.0, "1", None]
    )
    chunk = draw(st.integers(0, len(draft.entries) - 1))
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(draft.streams[chunk])))
        data = bytearray(draft.streams[chunk][name])
        at = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(["change", "change", "cut", "add"]))
        if what == "change" and at < len(data):
            data[at] ^= draw(st.sampled_from([1, 2, 3, 4, 16, 64, 128, 255]))
        elif what == "cut":
            del data[at:]
        else:
            data[at:at] = bytes([draw(st.sampled_from([0, 1, 255]))])
        draft.streams[chunk][name] = bytes(data)
        return
    member = draw(st.sampled_from(sorted(draft.entries[chunk])))
    if member == "slices":
        slices = draft.entries[chunk]["slices"]
        which = slices[draw(st.integers(0, len(slices) - 1))]
        which[draw(st.integers(0, 2))] = draw(numbers)
    elif member == "changed":
        draft.entries[chunk]["changed"] = draw(numbers)
    elif member == "order":
        draft.entries[chunk]["order"] = draw(
            st.sampled_from([{"codec": "natural"}]) | numbers.map(lambda each: {"codec": "exponent", "limit": each})
        )
    elif member == "positions":
        draft.entries[chunk]["positions"] = draw(
            st.sampled_from([{"codec": "bitmap"}, {"codec": "all"}, {"codec": "natural"}])
            | numbers.map(lambda each: {"codec": "gap", "shift": each})
        )
    elif member == "values":
        draft.entries[chunk]["values"] = {"codec": draw(st.sampled_from(["step", "replace", "", "gap"]))}
    elif member == "compression":
        draft.entries[chunk]["compression"] = draw(st.sampled_from(["none", "zstd", "gzip"]))
    else:
        draft.entries[chunk][member] = draw(st.sampled_from(["BF16", "F32", "F16", "U8", "", "0" * 16]))


@examples(250)
@given(st.data())
def test_both_readers_agree_on_spoilt_packs(data: st.DataObject) -> None:
    make = data.draw(st.sampled_from([example, exponent_example, zstd_example]))
    draft = copy.deepcopy(make())
    draft.features = ["exponent-order"]
    changes = data.draw(st.integers(1, 2))
    for _ in range(changes):
        spoilt(data.draw, draft)
    found, wanted = outcomes(draft.build())
    if isinstance(found, State):
        assert slow(found) == wanted
    elif changes == 1:
        assert found.name == wanted, found
    else:  # which of two faults is reported is free
        assert isinstance(wanted, str), found


# -- a chunk's parts -----------------------------------------------------------------------------------------------


def test_encode_joins_stretches_that_touch() -> None:
    """Pieces of one tensor that touch become one slice; the words of two pieces stay in order."""
    layout = Layout([Tensor("w", "BF16", (100,))])
    old = np.zeros(100, np.uint16)
    new = old.copy()
    new[[5, 60, 99]] = [1, 2, 3]

    def piece(start: int, stop: int, *at: int) -> Piece:
        return Piece(0, start, stop, np.array(at), old[list(at)], new[list(at)])

    encoded = chunk_codec.encode([piece(0, 50, 5), piece(50, 70, 60), piece(80, 100, 99)], layout)
    assert encoded.chunk.slices == [(0, 0, 70), (0, 80, 100)]
    assert encoded.chunk.changed == 3
    assert isinstance(encoded.chunk, Chunk)
