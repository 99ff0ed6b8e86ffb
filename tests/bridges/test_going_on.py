"""Imports and exports that break off go on, and refuse a place that has become another one's."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crossings import (
    CASES,
    EXPORTS,
    MODELS,
    PLAIN,
    export_id,
    exporter,
    importer,
    run_of,
    states,
    step,
    tensors_of,
    unpacked,
)
from strategies import MemoryStore

import tensordelta as td
from tensordelta.errors import StoreError


class Failing(MemoryStore):
    """A store that fails at a write, counted from 0."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.left = -1

    def _count(self, name: str) -> None:
        if self.left == 0:
            raise StoreError("memory", "put", name, "the test says so")
        self.left -= 1

    def put(self, name: str, parts: Any) -> None:
        self._count(name)
        super().put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self._count(name)
        return super().create(name, data)


@pytest.mark.parametrize(("format", "options"), EXPORTS, ids=map(export_id, EXPORTS))
def test_an_export_that_fails_at_any_write_goes_on(format: str, options: dict[str, Any]) -> None:
    run = states(21, 4, tensors_of(format))
    chain = run_of(MemoryStore(), run, {"config.json": b"{}"})
    whole = MemoryStore()
    list(exporter(format, chain, whole, **options).all())
    for fails in range(40):
        store = Failing()
        store.left = fails
        try:
            list(exporter(format, chain, store, **options).all())
            assert fails > 8
            break
        except StoreError:
            pass
        store.left = -1
        other = MemoryStore()
        with suppress(td.MissingError):  # the version that is not committed, or none
            list(importer(format, store, other).all())
        opened = [td.open(other).load(version) for version in td.open(other).versions()] if other else []
        assert all(mine.equals(theirs) for mine, theirs in zip(opened, run, strict=False))
        list(exporter(format, chain, store, **options).all())
        assert store == whole
    else:
        raise AssertionError("the store never came to its end")


@pytest.mark.parametrize("case", ["trl-5937-gaps", "slime-xor", "modelexpress", "skyrl-files"])
def test_an_import_that_fails_at_any_write_goes_on(case: str) -> None:
    row = CASES[case]
    base = None if row.base is None else MODELS / row.base[1]
    source = MemoryStore(dict(row.files))
    expected = [name for name, _ in [*([] if row.base is None else [row.base]), *row.versions]]
    for fails in range(0, 60, 3):
        chain = Failing()
        chain.left = fails
        try:
            list(importer(row.format, source, chain, base=base).all())
            break
        except StoreError:
            pass
        chain.left = -1
        list(importer(row.format, source, chain, base=base).all())
        opened = td.open(chain)
        assert [opened.manifest(each).annotations["foreign-version"] for each in opened.versions()] == expected
        assert opened.verify(deep=True).ok
    else:
        raise AssertionError("the store never came to its end")


def test_a_run_that_begins_again_is_refused(tmp_path: Path) -> None:
    """slime's trainer empties its folder when it starts, and counts from 1 again."""
    source = unpacked(CASES["slime-xor"], tmp_path / "source")
    base = MODELS / "models/mixed/000000.safetensors"
    list(importer("slime", source, tmp_path / "chain", base=base).all())
    other = unpacked(CASES["slime-adler"], tmp_path / "other")  # the same numbers
    with pytest.raises(td.ConflictError, match="another run has taken it"):
        importer("slime", other, tmp_path / "chain", base=base)
    for number in (2, 3):
        for path in (source / f"weight_v00000{number}").iterdir():
            path.unlink()
        (source / f"weight_v00000{number}").rmdir()
    with pytest.raises(td.ConflictError, match="ends with version 000001, and 000003 was imported"):
        list(importer("slime", source, tmp_path / "chain", base=base).all())


@pytest.mark.parametrize(("case", "format"), [("trl-5937-raw", "trl"), ("skyrl-files", "skyrl")])
def test_a_shorter_run_is_refused(case: str, format: str) -> None:
    row = CASES[case]
    base = None if row.base is None else MODELS / row.base[1]
    chain = MemoryStore()
    list(importer(format, MemoryStore(dict(row.files)), chain, base=base).all())
    fewer = {name: data for name, data in row.files.items() if "3" not in name and "4" not in name and "5" not in name}
    with pytest.raises(td.ConflictError, match="another run has taken"):
        list(importer(format, MemoryStore(fewer), chain, base=base).all())


def test_a_chain_of_something_else_is_refused(tmp_path: Path) -> None:
    run_of(tmp_path / "chain", states(1, 1, PLAIN))
    source = unpacked(CASES["trl-5417"], tmp_path / "source")
    with pytest.raises(td.ConflictError, match="not imported from trl") as caught:
        importer("trl", source, tmp_path / "chain")
    assert "foreign-version=NAME" in caught.value.advice


def test_a_version_that_was_published_by_hand_is_gone_on_from(tmp_path: Path) -> None:
    """As the refusal's advice says."""
    case = CASES["slime-xor"]
    assert case.base is not None
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(MODELS / case.base[1], annotations={"foreign-format": "slime", "foreign-version": "000000"})
    source = unpacked(case, tmp_path / "source")
    assert [each.id for each in importer("slime", source, tmp_path / "chain").all()] == ["000001", "000002", "000003"]


def test_an_export_to_a_place_with_other_contents_is_refused(tmp_path: Path) -> None:
    chain = run_of(tmp_path / "chain", states(1, 2, PLAIN))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(td.ConflictError, match="no export"):
        exporter("slime", chain, tmp_path / "out")
    list(exporter("slime", chain, tmp_path / "other").all())
    with pytest.raises(td.ConflictError, match="as slime"):
        exporter("trl", chain, tmp_path / "other")
    second = run_of(tmp_path / "second", states(2, 2, PLAIN))
    with pytest.raises(td.ConflictError, match="is an export of chain"):
        exporter("slime", second, tmp_path / "other")


def test_a_folder_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    chain = run_of(tmp_path / "chain", states(1, 2, PLAIN))
    list(exporter("slime", chain, tmp_path / "out").all())
    chain.publish(step(np.random.default_rng(1), chain.load()))
    (tmp_path / "out" / "weight_v000002").mkdir()
    with pytest.raises(td.ConflictError, match="did not make"):
        list(exporter("slime", chain, tmp_path / "out").all())
    assert list((tmp_path / "out" / "weight_v000002").iterdir()) == []
    (tmp_path / "out" / "weight_v000002").rmdir()
    assert [each.id for each in exporter("slime", chain, tmp_path / "out").all()] == ["000002"]


def test_versions_that_a_collector_dropped_are_passed_over(tmp_path: Path) -> None:
    chain = run_of(tmp_path / "chain", states(1, 3, PLAIN))
    list(exporter("slime", chain, tmp_path / "out").all())
    rng = np.random.default_rng(2)
    for _ in range(4):
        chain.publish(step(rng, chain.load()))
    chain.shortcut(2, 5)
    chain.shortcut(None, 5)
    chain.collect(2, grace=0, keep=[2])
    exported = list(exporter("slime", chain, tmp_path / "out").all())
    assert [(each.id, each.base, each.version) for each in exported][-1] == (
        "00000" + str(2 + len(exported)),
        f"00000{1 + len(exported)}",
        6,
    )
    list(importer("slime", tmp_path / "out", tmp_path / "back").all())
    back = td.open(tmp_path / "back")
    assert back.load().equals(chain.load())


def test_leftovers_of_an_export_are_removed(tmp_path: Path) -> None:
    """In a store without folders, files of a version that broke off could be taken for the new one's."""
    chain = run_of(MemoryStore(), states(3, 2, PLAIN))
    store = MemoryStore()
    one = exporter("slime", chain, store)
    one.write(0)
    store["weight_v000001/model-00001-of-00002.safetensors"] = b"left over"
    one.write(1)
    assert sorted(name for name in store if name.startswith("weight_v000001/")) == [
        "weight_v000001/model-00000-of-00001.safetensors",
        "weight_v000001/model.safetensors.index.json",
    ]


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    chain = run_of(MemoryStore(), states(3, 2, PLAIN))
    store = MemoryStore()
    list(exporter("slime", chain, store).all())
    record = json.loads(store["tensordelta-export.json"])
    store["tensordelta-export.json"] = json.dumps(record | {"versions": [1]}).encode()
    with pytest.raises(td.ConflictError, match="cannot be read"):
        exporter("slime", chain, store)


def test_full_versions_amid_deltas_are_imported(tmp_path: Path) -> None:
    """slime's full checkpoints replace what an engine holds; files beside them come too."""
    chain = run_of(tmp_path / "chain", states(5, 6, PLAIN), {"config.json": b"{}"})
    list(exporter("slime", chain, tmp_path / "out", full_every=3).all())
    for number in (0, 1, 2):  # as a trainer may that prunes
        for path in (tmp_path / "out" / f"weight_v00000{number}").iterdir():
            path.unlink()
        (tmp_path / "out" / f"weight_v00000{number}").rmdir()
    (tmp_path / "out" / "tensordelta-export.json").unlink()
    imported = list(importer("slime", tmp_path / "out", tmp_path / "back").all())
    assert [(each.id, each.base) for each in imported] == [("000003", None), ("000004", "000003"), ("000005", "000004")]
    back = td.open(tmp_path / "back")
    assert back.load(5).equals(chain.load(5))
    back.pull(tmp_path / "engine")
    names = sorted(path.name for path in (tmp_path / "engine").iterdir() if not path.name.startswith("."))
    assert names == ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert td.read_state(tmp_path / "engine").equals(chain.load(5))


def test_a_base_of_several_files_keeps_them(tmp_path: Path) -> None:
    """As its engine has them."""
    chain = run_of(tmp_path / "chain", states(5, 2, PLAIN), {"config.json": b"{}"})
    list(exporter("skyrl", chain, tmp_path / "out").all())
    base = tmp_path / "model"
    base.mkdir()
    (base / "config.json").write_text("{}")
    state, index = chain.load(0), {}
    for number, name in enumerate(state, 1):
        index[name] = f"model-{number:05d}-of-00003.safetensors"
        td.State.from_arrays({name: state[name]}).save(base / index[name])
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shutil.rmtree(tmp_path / "out" / "base")
    list(importer("skyrl", tmp_path / "out", tmp_path / "back", base=base).all())
    back = td.open(tmp_path / "back")
    back.pull(tmp_path / "engine")
    assert sorted(path.name for path in (tmp_path / "engine").glob("*.safetensors")) == sorted(index.values())
    assert td.read_state(tmp_path / "engine").equals(chain.load(1))


def test_full_versions_of_unordered_names_need_a_word(tmp_path: Path) -> None:
    run = states(6, 2, PLAIN)
    store = MemoryStore()
    for name, state in zip(("spring", "autumn"), run, strict=True):
        one = MemoryStore()
        list(exporter("modelexpress", run_of(MemoryStore(), [state]), one).all())
        store |= {key.replace("v0/", f"{name}/"): data for key, data in one.items() if key.startswith("v0/")}
    with pytest.raises(td.ConflictError, match="order"):
        list(importer("modelexpress", store, MemoryStore()).all())
    notes: list[str] = []
    chain = MemoryStore()
    imported = list(importer("modelexpress", store, chain, begin="autumn", say=notes.append).all())
    assert [each.id for each in imported] == ["autumn"] and "spring is left out" in notes[0]
    assert td.open(chain).load().equals(run[1])


def test_a_base_of_modelexpress_needs_its_name(tmp_path: Path) -> None:
    case = CASES["modelexpress"]
    files = {name: data for name, data in case.files.items() if name.startswith(("rel-1/", "rel-2/"))}
    base = MODELS / "models/mixed/000000.safetensors"
    with pytest.raises(ValueError, match="name"):
        list(importer("modelexpress", MemoryStore(files), MemoryStore(), base=base).all())
    chain = MemoryStore()
    imported = list(importer("modelexpress", MemoryStore(files), chain, base=base, begin="rel-0").all())
    assert [each.id for each in imported] == ["rel-0", "rel-1", "rel-2"]
