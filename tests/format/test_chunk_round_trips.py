"""Chunks of every legal form, and those that the writer makes (SPEC.md section 7), through both readers."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
import slow_reader
from hypothesis import given
from hypothesis import strategies as st
from packs_by_hand import FLOATS, LEGAL, SLICES, TIME, Draft, Form, check, encode, listed_places
from slow_reader import zstd
from strategies import CHAIN, MemoryStore, Pair, examples, generators, pairs, random_words, slow, states, stepped

import tensordelta as td
from tensordelta.codecs.words import DTYPES
from tensordelta.format import chunk_codec
from tensordelta.format.chunk import Chunk
from tensordelta.format.chunk_codec import Piece
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.state import State
from tensordelta.write import encoder as encoders
from tensordelta.write import gathering
from tensordelta.write.encoder import Codecs, Comparison, Encoder

# -- chunks of every legal form ------------------------------------------------------------------------------------


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
    store["chain.json"] = json.dumps({"tensordelta": "1.0-rc.1", "chain": CHAIN, "created": TIME}).encode()
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
            assert (
                built.entry.path is not None
                and hashlib.sha256(data).hexdigest() == built.entry.sha256 in built.entry.path
            )
            store[built.entry.path] = data
            entries.append(msgspec.to_builtins(built.entry))
        assert [int(each) for each in encoder.sums] == [
            slow_reader.tensor_fingerprint(name, each.words, slow_reader.DTYPES[each.dtype].w)
            for name, each in slow(state).items()
        ]
        assert encoder.changed == sum(entry["changed"] for entry in entries) == sum(encoder.changed_of)
        manifest = {
            "tensordelta": "1.0-rc.1",
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
        assert int(entry["result"], 16) == chunk.result
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
        patch.setattr(gathering, "_LISTED", small)
        patch.setattr(gathering, "_LISTED_EXPONENT", small)
        patch.setattr(gathering, "_LISTED_DENSE", small * 2)
        patch.setattr(encoders, "_JOB", small * 5)
        patch.setattr(gathering, "_SPACE", small * 8)
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
