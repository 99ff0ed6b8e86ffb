"""Chain -> format -> chain: every version comes back bit for bit, or the export refuses it by name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crossings import (
    EXPORTS,
    MIXED,
    PLAIN,
    export_id,
    exporter,
    importer,
    random_state,
    run_of,
    states,
    step,
    tensors_of,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import MemoryStore, Pair, examples, pairs

import tensordelta as td
from tensordelta.format.layout import Layout, Tensor

_RECORD = "tensordelta-export.json"


def _export(format: str, options: dict[str, Any], chain: td.Chain, **more: Any) -> tuple[MemoryStore, list[Any]]:
    store = MemoryStore()
    return store, list(exporter(format, chain, store, **options, **more).all())


def _check(chain: td.Chain, other: td.Chain) -> None:
    versions, others = chain.versions(), other.versions()
    assert len(versions) == len(others)
    for mine, theirs in zip(versions, others, strict=True):
        assert chain.load(mine).equals(other.load(theirs))


@pytest.mark.parametrize(("format", "options"), EXPORTS, ids=map(export_id, EXPORTS))
def test_a_run_comes_back(format: str, options: dict[str, Any]) -> None:
    """Words of any kind, tensors that do not change, and a version in which nothing does."""
    run = states(1, 6, tensors_of(format))
    run.insert(3, td.State(run[2].layout, [run[2].words(number) for number in range(len(run[2].layout))]))
    chain = run_of(MemoryStore(), run, {"config.json": b"{}"})
    store, exported = _export(format, options, chain)
    assert [each.version for each in exported] == chain.versions()
    assert all(each.size == sum(map(len, _of_version(store, each.id).values())) for each in exported)
    other = MemoryStore()
    imported = list(importer(format, store, other).all())
    _check(chain, td.open(other))
    assert [each.id for each in imported] == [each.id for each in exported]
    if format != "trl":  # of which a version is one file
        files = td.open(other).manifest(td.open(other).versions()[0]).files
        assert sorted(entry.name for entry in files) == ["config.json", "model.safetensors.index.json"]
    # And back: the same names and the same bytes.
    again, _ = _export(format, options, td.open(other))
    assert {k: v for k, v in again.items() if k != _RECORD} == {k: v for k, v in store.items() if k != _RECORD}


def _of_version(store: MemoryStore, id: str) -> dict[str, bytes]:
    def belongs(name: str) -> bool:
        folder, _, file = name.partition("/")
        number = folder.removeprefix("weight_v").removeprefix("delta-")
        if folder in ("anchors", "deltas"):
            return file == f"step_{id}.safetensors"
        return (
            folder == id or (folder == "base" and id == "0") or (number.isdigit() and int(number) == int(id.strip("v")))
        )

    return {name: data for name, data in store.items() if belongs(name)}


def _refits() -> dict[str, td.State]:
    rng = np.random.default_rng(5)
    return {
        "added": random_state(rng, [*PLAIN, ("new", "BF16", (4, 4))]),
        "dropped": random_state(rng, PLAIN[:-1]),
        "retyped": random_state(rng, [*PLAIN[:-1], ("norm", "F32", (6,))]),
        "retyped-same-size": random_state(rng, [*PLAIN[:-1], ("norm", "F16", (6,))]),
        "reshaped": random_state(rng, [*PLAIN[:-1], ("norm", "BF16", (2, 3))]),
    }


#: What each format can say of tensors that come, go or change; slime by full versions, TRL by anchors.
_SAYS = {
    "slime": {"added", "dropped", "retyped", "retyped-same-size", "reshaped"},
    "trl": {"added", "reshaped"},
    "modelexpress": set(),
    "skyrl": set(),
}


@pytest.mark.parametrize("change", list(_refits()))
@pytest.mark.parametrize("format", list(_SAYS))
def test_tensors_that_come_go_and_change(format: str, change: str) -> None:
    rng = np.random.default_rng(6)
    first = random_state(rng, PLAIN)
    run = [first, step(rng, first), _refits()[change]]
    run.append(step(rng, run[-1]))
    chain = run_of(MemoryStore(), run)
    store = MemoryStore()
    if change in _SAYS[format]:
        list(exporter(format, chain, store).all())
        other = MemoryStore()
        list(importer(format, store, other).all())
        _check(chain, td.open(other))
        return
    one = exporter(format, chain, store)
    with pytest.raises(td.UnsupportedError):
        list(one.all())
    other = MemoryStore()
    assert len(list(importer(format, store, other).all())) == 2  # nothing of the third is there
    # From that version on it is a run of its own, where the format has its dtypes.
    if not (format == "trl" and change.startswith("retyped")):
        rest, _ = _export(format, {}, chain, begin=2)
        assert len(list(importer(format, rest, MemoryStore()).all())) == 2


@pytest.mark.parametrize("format", list(_SAYS))
@given(pair=pairs(refit=False, most=60), more=st.integers(0, 2**32 - 1))
@examples(15)
def test_any_states_of_one_layout(format: str, pair: Pair, more: int) -> None:
    third = step(np.random.default_rng(more), pair.new, 0.3)
    _holds(format, [pair.old, pair.new, third])


@pytest.mark.parametrize("format", list(_SAYS))
@given(pair=pairs(dtypes=["BF16"], refit=False, most=80), dense=st.booleans())
@examples(10)
def test_any_states_of_bf16(format: str, pair: Pair, dense: bool) -> None:
    _holds(format, [pair.old, pair.new], must=bool(pair.old.layout.tensors))


@pytest.mark.slow
@given(pair=pairs(most=60))
@examples(20)
def test_any_change_of_tensors(pair: Pair) -> None:
    for format in _SAYS:
        _holds(format, [pair.old, pair.new])


def _holds(format: str, run: list[td.State], must: bool = False) -> None:
    """An export and its import give every version, or the export stops before the first one it cannot hold."""
    chain = run_of(MemoryStore(), run)
    store, done = MemoryStore(), []
    try:
        for each in exporter(format, chain, store).all():
            done.append(each)
    except td.UnsupportedError:
        assert not must
    other = MemoryStore()
    if not done:
        with pytest.raises(td.MissingError):
            list(importer(format, store, other).all())
        return
    list(importer(format, store, other).all())
    opened = td.open(other)
    found = [opened.load(version) for version in opened.versions()]
    assert len(found) == len(done) and all(mine.equals(theirs) for mine, theirs in zip(found, run, strict=False))


@pytest.mark.slow
@given(how=st.sampled_from(EXPORTS), pair=pairs(most=60), more=st.integers(0, 2**32 - 1))
@examples(40)
def test_any_foreign_folder_comes_back_byte_for_byte(how: tuple[str, dict[str, Any]], pair: Pair, more: int) -> None:
    """A folder that is imported, and exported from that chain with the same options."""
    name, options = how
    source = run_of(MemoryStore(), [pair.old, pair.new, step(np.random.default_rng(more), pair.new, 0.3)])
    foreign = MemoryStore()
    with suppress(td.UnsupportedError):  # the versions before the one that the format cannot hold are there
        list(exporter(name, source, foreign, **options).all())
    assume(any(key != _RECORD for key in foreign))
    taken = MemoryStore()
    list(importer(name, foreign, taken).all())
    again = MemoryStore()
    list(exporter(name, td.open(taken), again, **options).all())
    assert {key: data for key, data in again.items() if key != _RECORD} == {
        key: data for key, data in foreign.items() if key != _RECORD
    }


@pytest.mark.parametrize("checksum", ["xxh3-128", "blake3", "adler32"])
@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_the_index_says_what_slime_says(encoding: str, checksum: str) -> None:
    chain = run_of(MemoryStore(), states(2, 2, MIXED))
    store, _ = _export("slime", {"encoding": encoding, "checksum": checksum}, chain)
    index = json.loads(store["weight_v000001/model.safetensors.index.json"])
    assert index["metadata"] == {
        "version": "000001",
        "base_version": "000000",
        "delta_encoding": encoding,
        "compression_format": "zstd",
        "checksum_format": checksum,
    }
    assert set(index["weight_map"].values()) == {"model-00000-of-00001.safetensors"}


def test_numbers_of_the_foreign_versions_are_kept() -> None:
    """A chain that was imported is exported under the names that its versions had."""
    run = states(3, 4, PLAIN)
    source = run_of(MemoryStore(), run)
    store, _ = _export("slime", {}, source, begin=1)
    moved = MemoryStore(
        {
            name.replace("weight_v00000", "weight_v00004"): data.replace(b'"00000', b'"00004')
            for name, data in store.items()
            if name != _RECORD
        }
    )
    other = MemoryStore()
    imported = list(importer("slime", moved, other).all())
    chain = td.open(other)
    assert [each.id for each in imported] == ["000040", "000041", "000042"]
    assert chain.versions() == [40, 41, 42]
    assert chain.at(**{"foreign-version": "000041"}) == 41
    again, exported = _export("slime", {}, chain)
    assert [each.id for each in exported] == ["000040", "000041", "000042"]
    assert json.loads(again[_RECORD])["versions"] == {"000040": 40, "000041": 41, "000042": 42}


def test_a_tensor_beyond_the_reach_of_positions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of 32 bits end at 4 GiB, and TRL's at 2^31 elements; slime and TRL would write others in silence."""
    from tensordelta.bridges import byte_deltas, trl

    run = states(4, 2, PLAIN)
    chain = run_of(MemoryStore(), run)
    sound, _ = _export("slime", {"encoding": "overwrite"}, chain)
    monkeypatch.setattr(byte_deltas, "REACH", 100)
    with pytest.raises(td.UnsupportedError, match="end at 4 GiB"):
        _export("slime", {"encoding": "overwrite"}, chain)
    with pytest.raises(td.UnsupportedError, match="end at 4 GiB"):
        list(importer("slime", sound, MemoryStore()).all())
    assert len(_export("slime", {"encoding": "xor"}, chain)[1]) == 2
    sound, _ = _export("trl", {}, chain)
    monkeypatch.setattr(trl, "_REACH", 100)
    with pytest.raises(td.UnsupportedError, match="2\\^31"):
        _export("trl", {}, chain)
    with pytest.raises(td.UnsupportedError, match="2\\^31"):
        list(importer("trl", sound, MemoryStore()).all())


def test_an_export_that_is_altered_on_its_way_is_not_visible() -> None:
    """The store loses a bit of a payload: the proof notices before the marker is put."""

    class Lossy(MemoryStore):
        def put(self, name: str, parts: Any) -> None:
            data = bytearray(b"".join(parts))
            if name.startswith("weight_v000001/") and name.endswith(".safetensors"):
                data[-1] ^= 1
            self[name] = bytes(data)

    chain = run_of(MemoryStore(), states(7, 2, PLAIN))
    store = Lossy()
    with pytest.raises((td.IntegrityError, td.MalformedError)):
        list(exporter("slime", chain, store).all())
    assert "weight_v000001/model.safetensors.index.json" not in store
    assert "weight_v000000/model.safetensors.index.json" in store


def test_deltas_of_a_wide_gap_and_of_a_narrow_one() -> None:
    """TRL's gaps are 16 bits, and 32 where one gap of the tensor needs it: byte for byte."""
    words = 70_000
    layout = Layout.of([Tensor("a", "BF16", (words,)), Tensor("b", "BF16", (words,))])
    old = td.State(layout, [np.zeros(words, np.uint16), np.zeros(words, np.uint16)])
    new = [np.zeros(words, np.uint16), np.zeros(words, np.uint16)]
    new[0][[0, 65536]] = 0x3F80
    new[1][[1, 65538]] = 0x8000
    chain = run_of(MemoryStore(), [old, td.State(layout, new)])
    store, _ = _export("trl", {}, chain)
    data = store["deltas/step_000002.safetensors"]
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert header["__metadata__"] == {
        "format": "sparse_weight_patch",
        "version": "1",
        "sparse": "True",
        "model_version": "2",
        "num_changed_params": "2",
        "total_changed_elements": "4",
        "total_elements": "140000",
        "sparsity": "0.9999714285714286",
        "encoding": "gap_delta",
    }

    def entry(name: str) -> tuple[str, bytes]:
        begin, end = header[name]["data_offsets"]
        return header[name]["dtype"], data[8 + size + begin : 8 + size + end]

    assert entry("a.idx") == ("U16", bytes.fromhex("0000ffff"))
    assert entry("b.idx") == ("U32", bytes.fromhex("01000000 00000100"))
    assert entry("a.val") == ("BF16", bytes.fromhex("803f803f"))
    assert entry("b.val") == ("BF16", bytes.fromhex("00800080"))


def test_what_comes_of_a_folder_on_disk(tmp_path: Path) -> None:
    """The files that an export of a tiny run makes, and nothing else; an export that goes on adds to them."""
    chain = run_of(tmp_path / "chain", states(8, 2, PLAIN), {"config.json": b"{}", "tokenizer.json": b"[]"})
    target = tmp_path / "out"
    list(exporter("slime", chain, target).all())

    def held() -> list[str]:
        return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())

    first = [
        _RECORD,
        "weight_v000000/config.json",
        "weight_v000000/model-00001-of-00001.safetensors",
        "weight_v000000/model.safetensors.index.json",
        "weight_v000000/tokenizer.json",
        "weight_v000001/model-00000-of-00001.safetensors",
        "weight_v000001/model.safetensors.index.json",
    ]
    assert held() == first
    assert td.read_state(target / "weight_v000000").equals(chain.load(0))
    chain.publish(step(np.random.default_rng(9), chain.load()))
    assert [each.id for each in exporter("slime", chain, target).all()] == ["000002"]
    assert held() == [
        *first,
        "weight_v000002/model-00000-of-00001.safetensors",
        "weight_v000002/model.safetensors.index.json",
    ]
    assert list(exporter("slime", chain, target).all()) == []
