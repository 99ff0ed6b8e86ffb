"""Publishing: which files make a checkpoint, versions and conflicts, and the writer's snapshot."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from folders import INDEX, PRIVATE, all_tensors, changed, contents, flip, save, tensors
from safetensors.numpy import save_file

import tensordelta as td
from tensordelta import State
from tensordelta.stores import FolderStore
from tensordelta.write.encoder import Comparison
from tensordelta.write.snapshot import snapshot_folder

ONE = {"w": np.arange(8, dtype=np.float32)}
TWO = {"b": np.ones(3, ml_dtypes.bfloat16)}
BOTH = {**ONE, **TWO}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
PAIR = {FIRST: ONE, SECOND: TWO}


def single(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    return {"model.safetensors": arrays}


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    return td.open(tmp_path / "chain", create=True, threads=1)


def read(chain: td.Chain, version: int | None = None) -> dict[str, list[float]]:
    """A version as another process loads it."""
    return {name: array.astype(np.float64).tolist() for name, array in td.open(chain.address).load(version).items()}


def lists(arrays: dict[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: array.astype(np.float64).tolist() for name, array in arrays.items()}


# -- which files make a checkpoint -------------------------------------------------------------------------------------


def one_file(root: Path) -> tuple[Path, set[str]]:
    root.mkdir()
    save_file(BOTH, root / "step_7.safetensors")
    (root / "config.json").write_text("not of a single file")
    return root / "step_7.safetensors", {"model.safetensors"}


def with_index(root: Path) -> tuple[Path, set[str]]:
    return save(root, PAIR, {"config.json": b"{}"}), {FIRST, SECOND, INDEX, "config.json"}


def without_index(root: Path) -> tuple[Path, set[str]]:
    return save(root, {"a.safetensors": ONE, "b.safetensors": TWO}, index=None), {
        "a.safetensors",
        "b.safetensors",
        INDEX,
    }


def single_file(root: Path) -> tuple[Path, set[str]]:
    return save(root, single(BOTH), {"config.json": b"{}"}), {"model.safetensors", "config.json"}


def oddly_named(root: Path) -> tuple[Path, set[str]]:
    return save(root, {"adapter_model.safetensors": BOTH}), {"adapter_model.safetensors", INDEX}


def index_beside_single(root: Path) -> tuple[Path, set[str]]:
    # Loaders take model.safetensors where there is one, whatever an index says.
    stale = {FIRST: {"w": ONE["w"] + 1}}
    save(root, {**single(BOTH), **stale}, {INDEX: json.dumps({"weight_map": {"w": FIRST}}).encode()})
    return root, {"model.safetensors"}


def consolidated_beside(root: Path) -> tuple[Path, set[str]]:
    return save(root, {**PAIR, "consolidated.safetensors": BOTH}, {INDEX: index_of(PAIR)}), {FIRST, SECOND, INDEX}


def index_of_other_name(root: Path) -> tuple[Path, set[str]]:
    name = "diffusion_pytorch_model.safetensors.index.json"
    return save(root, PAIR, index=name), {FIRST, SECOND, name}


def two_indices(root: Path) -> tuple[Path, set[str]]:
    stale = json.dumps({"weight_map": {"w": "gone.safetensors"}}).encode()
    return save(root, PAIR, {"a.safetensors.index.json": stale}), {FIRST, SECOND, INDEX}


def subfolders(root: Path) -> tuple[Path, set[str]]:
    files = {"1_Pooling/config.json": b"p", "modules.json": b"[]", "a/b/c.txt": b"c", "tokenizer.model": b"\0\1"}
    return save(root, single(BOTH), files), {"model.safetensors", "1_Pooling", "a", "a/b", *files}


def what_is_left_out(root: Path) -> tuple[Path, set[str]]:
    others = ["x.bin", "x.pt", "x.pth", "x.gguf", "x.h5", "x.onnx", "x.msgpack", "x.npz", "x.ckpt", "x.PT", "a.lock"]
    hidden = [".gitattributes", ".cache/huggingface/x.json", ".git/config"]
    unnamable = ["with space.json", "é.json", "-/../x", "a+b.json"]
    files = dict.fromkeys([*others, *hidden, *(name for name in unnamable if "/" not in name)], b"x")
    save(root, single(BOTH), {"config.json": b"{}", **files})
    os.mkfifo(root / "pipe.json")
    (root / "dead.json").symlink_to("nowhere")
    (root / "loop.json").symlink_to("loop.json")
    with (root / "huge.txt").open("wb") as file:
        file.truncate(65 << 20)
    return root, {"model.safetensors", "config.json"}


def hub_cache(root: Path) -> tuple[Path, set[str]]:
    """The layout of Hugging Face's cache: files are links to blobs outside the folder."""
    snapshot, blobs = root / "snapshots" / "0123abc", root / "blobs"
    save(snapshot, PAIR, {"config.json": b"{}", "1_Pooling/config.json": b"p"})
    blobs.mkdir()
    for path in [path for path in snapshot.rglob("*") if path.is_file()]:
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    return snapshot, {FIRST, SECOND, INDEX, "config.json", "1_Pooling", "1_Pooling/config.json"}


def index_of(shards: dict[str, dict[str, np.ndarray]], **more: str) -> bytes:
    weight_map = {name: shard for shard, arrays in shards.items() for name in arrays}
    return json.dumps({"metadata": {"total_size": 38}, "weight_map": {**weight_map, **more}}, indent=4).encode()


KINDS: list[Callable[[Path], tuple[Path, set[str]]]] = [
    one_file,
    with_index,
    without_index,
    single_file,
    oddly_named,
    index_beside_single,
    consolidated_beside,
    index_of_other_name,
    two_indices,
    subfolders,
    what_is_left_out,
    hub_cache,
]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_pulled_folder_has_the_published_files(
    chain: td.Chain, tmp_path: Path, kind: Callable[[Path], tuple[Path, set[str]]], plain: bool
) -> None:
    published, names = kind(tmp_path / "checkpoint")
    chain.publish(published, plain=plain)
    chain.pull(tmp_path / "out")
    pulled = contents(tmp_path / "out")
    assert pulled.keys() == names
    assert read(chain) == lists(BOTH)
    if published.is_dir():
        for name in names:
            source = published / name
            if name.endswith(".safetensors"):
                assert tensors(tmp_path / "out" / name) == tensors(source)
            elif source.is_file():
                assert pulled[name] == source.read_bytes()
            elif name == INDEX:
                assert json.loads(pulled[name] or b"")["weight_map"] == {
                    tensor: path.name for path in sorted(published.glob("*.safetensors")) for tensor in tensors(path)
                }
    # The names stay over a delta.
    for path in published.glob("*.safetensors") if published.is_dir() else [published]:
        flip(path)
    assert chain.publish(published).base == 0
    assert chain.pull(tmp_path / "out").route == ("manifests/000000000001.json",)
    assert contents(tmp_path / "out").keys() == names
    if published.is_dir():
        assert all_tensors(tmp_path / "out") == {
            name: tensors(published / name) for name in names if name.endswith(".safetensors")
        }


@pytest.mark.parametrize("wrong", [index_of(single(ONE)), index_of({FIRST: BOTH}), index_of(PAIR, gone=SECOND)])
def test_an_index_that_does_not_agree_with_its_files(chain: td.Chain, tmp_path: Path, wrong: bytes) -> None:
    # A loader would look for tensors in files that do not have them, so the index is written anew.
    folder = save(tmp_path / "checkpoint", {FIRST: ONE, SECOND: TWO}, {INDEX: wrong})
    named = set(json.loads(wrong)["weight_map"].values())
    if "model.safetensors" in named:
        (folder / FIRST).rename(folder / "model.safetensors")
        expected = {"model.safetensors"}
    else:
        expected = named
    chain.publish(folder)
    chain.pull(tmp_path / "out")
    pulled = tmp_path / "out"
    assert {path.name for path in pulled.glob("*.safetensors")} == expected
    if (pulled / INDEX).exists():
        weight_map = json.loads((pulled / INDEX).read_bytes())["weight_map"]
        assert weight_map == {name: path.name for path in pulled.glob("*.safetensors") for name in tensors(path)}


def test_an_index_that_is_right_stays_as_it_is(chain: td.Chain, tmp_path: Path) -> None:
    index = index_of(PAIR)
    chain.publish(save(tmp_path / "checkpoint", PAIR, {INDEX: index}))
    chain.pull(tmp_path / "out")
    assert (tmp_path / "out" / INDEX).read_bytes() == index


def test_checkpoints_that_are_refused(chain: td.Chain, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(td.MissingError, match="no safetensors file"):
        chain.publish(tmp_path / "none")
    with pytest.raises(td.MissingError):
        chain.publish(tmp_path / "nowhere.safetensors")
    twice = save(tmp_path / "twice", {"a.safetensors": ONE, "b.safetensors": ONE}, index=None)
    with pytest.raises(td.MalformedError, match=r"is in a\.safetensors and in b\.safetensors"):
        chain.publish(twice)
    with pytest.raises(td.MalformedError, match="characters"):
        chain.publish(save(tmp_path / "odd", {"model (1).safetensors": ONE}))
    outside = save(tmp_path / "outside", PAIR, {INDEX: index_of({"../a.safetensors": ONE})})
    with pytest.raises(td.MalformedError):
        chain.publish(outside)
    lost = save(tmp_path / "lost", PAIR)
    (lost / SECOND).unlink()
    with pytest.raises(td.MissingError):
        chain.publish(lost)
    short = save(tmp_path / "short", single(BOTH))
    os.truncate(short / "model.safetensors", 130)
    with pytest.raises(td.MalformedError):
        chain.publish(short)
    assert chain.versions() == []


#: Bits of an element of each dtype.
BITS = {"F64": 64, "C64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16}
BITS |= {"U16": 16, "F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2": 8, "F8_E5M2FNUZ": 8, "F8_E8M0": 8, "I8": 8, "U8": 8}
BITS |= {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def every_dtype(path: Path, rng: np.random.Generator, *, pad: int = 0) -> Path:
    """A file with a tensor of each dtype, and the odd shapes; `pad` bytes of spaces shift its words."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    parts = []
    rows = [(dtype, dtype, [4, 6]) for dtype in BITS] + [
        ("scalar", "F32", []),
        ("none", "F64", [0, 3]),
        ("é", "U8", [1]),
    ]
    for name, dtype, shape in rows:
        size = int(np.prod(shape)) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
        parts.append(rng.integers(0, 2 if dtype == "BOOL" else 256, size).astype(np.uint8).tobytes())
    text = json.dumps(header).encode() + b" " * pad
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return path


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_every_dtype_comes_back_bit_by_bit(chain: td.Chain, tmp_path: Path, plain: bool, pad: int) -> None:
    rng = np.random.default_rng(3)
    files = [every_dtype(tmp_path / str(version) / "model.safetensors", rng, pad=pad) for version in range(3)]
    for version, file in enumerate(files):
        chain.publish(file, plain=plain and version != 1, order="exponent" if version == 2 and not plain else "natural")
        chain.pull(tmp_path / "out")
        assert tensors(tmp_path / "out" / "model.safetensors") == tensors(file)
    assert chain.verify(deep=True).ok


# -- plain versions ----------------------------------------------------------------------------------------------------


def test_plain_packs_are_the_files_themselves(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR, {"config.json": b"{}"})
    published = chain.publish(folder, plain=True)
    entries = {entry.name: entry for entry in chain.manifest().packs}
    assert entries.keys() == {FIRST, SECOND}
    for name, entry in entries.items():
        assert Path(chain.address, str(entry.path)).read_bytes() == (folder / name).read_bytes()
        assert entry.sources is not None and entry.content == "tensors"
    assert (published.base, published.changed, published.packs) == (None, 11, 2)
    assert chain.verify(deep=True).ok


def test_a_plain_version_whose_weights_lie_elsewhere(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR, {"config.json": b"{}"})
    published = chain.publish(folder, plain=True, source="hf://org/model@0123abc")
    assert published.size < 4096 and not Path(chain.address, "packs").exists()
    assert [entry.sources for entry in chain.manifest().packs] == [
        [f"hf://org/model@0123abc/{name}"] for name in (FIRST, SECOND)
    ]
    reader = td.open(chain.address)
    for act in (lambda: reader.pull(tmp_path / "out"), lambda: reader.load()):
        with pytest.raises(td.UntrustedError) as caught:
            act()
        assert caught.value.rule == "TD-MAN-017" and "hf://org/model@0123abc" in caught.value.reason
    assert contents(tmp_path / "out") == {}
    # A folder with the same bytes does, under whatever name.
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, name in enumerate((FIRST, SECOND)):
        shutil.copy(folder / name, blobs / f"{number}.safetensors")
    for place in (folder, blobs):
        assert td.open(chain.address, pack_folders=[tmp_path / "nowhere", place]).pull(tmp_path / "out").version == 0
        assert all_tensors(tmp_path / "out") == all_tensors(folder)
        assert contents(tmp_path / "out").keys() == {FIRST, SECOND, INDEX, "config.json"}
        shutil.rmtree(tmp_path / "out")
    flip(blobs / "0.safetensors")
    with pytest.raises(td.UntrustedError):
        td.open(chain.address, pack_folders=[blobs]).pull(tmp_path / "out")
    # Deltas on it need no weights from elsewhere, neither here nor where version 0 is held.
    td.open(chain.address, pack_folders=[folder]).pull(tmp_path / "out")
    second = save(tmp_path / "second", changed(PAIR, np.random.default_rng(0), 0.2), {"config.json": b"{}"})
    assert td.open(chain.address).publish(second).base == 0
    assert td.open(chain.address).pull(tmp_path / "out").route == ("manifests/000000000001.json",)
    assert all_tensors(tmp_path / "out") == all_tensors(second)


def test_a_writer_without_the_weights_cannot_go_on(chain: td.Chain, tmp_path: Path, _own_cache: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR)
    chain.publish(folder, plain=True, source="hf://org/model@0123abc")
    shutil.rmtree(_own_cache)
    with pytest.raises(td.UntrustedError):
        td.open(chain.address).publish({"w": ONE["w"]})
    assert chain.versions() == [0]
    assert td.open(chain.address, pack_folders=[folder]).publish({"w": ONE["w"]}).version == 1


@pytest.mark.parametrize("source", ["org/model@0123abc", "hf://org/model", "", "model"])
def test_sources_without_a_commit(chain: td.Chain, tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match="commit"):
        chain.publish(save(tmp_path / "checkpoint", PAIR), plain=True, source=source)
    assert chain.versions() == []


def test_what_goes_together(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR)
    with pytest.raises(ValueError, match="plain"):
        chain.publish(ONE, plain=True)
    with pytest.raises(ValueError, match="plain"):
        chain.publish(folder, source="hf://org/model@0123abc")
    with pytest.raises(ValueError, match="natural order"):
        chain.publish(folder, values="replace", order="exponent")
    assert chain.versions() == []


class Meddling(FolderStore):
    """A store that does something before an object is written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: Callable[[str], None] = lambda _: None

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self.before(name)
        super().put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self.before(name)
        return super().create(name, data)

    def once(self, prefix: str, act: Callable[[], object]) -> None:
        """Act before the first object under a prefix."""

        def before(name: str) -> None:
            if name.startswith(prefix):
                self.before = lambda _: None
                act()

        self.before = before


@pytest.mark.parametrize("prefix", ["packs/", "fingerprints/", "files/"])
def test_a_checkpoint_that_changes_while_it_is_published(tmp_path: Path, prefix: str) -> None:
    store = Meddling(tmp_path / "chain")
    chain = td.open(store, create=True)
    folder = save(tmp_path / "checkpoint", single(BOTH), {"config.json": b"{}"})
    store.once(prefix, lambda: flip(folder / "model.safetensors"))
    with pytest.raises(ValueError, match="changed while"):
        chain.publish(folder, plain=True)
    assert chain.versions() == []
    for pack in (tmp_path / "chain").glob("packs/*"):
        assert pack.stem == hashlib.sha256(pack.read_bytes()).hexdigest()
    chain.publish(folder, plain=True)
    assert chain.verify(deep=True).ok


# -- versions ----------------------------------------------------------------------------------------------------------


def test_version_numbers_and_gaps(chain: td.Chain) -> None:
    assert chain.publish(ONE, version=3).version == 3
    assert chain.publish({"w": ONE["w"] + 1}).version == 4
    assert chain.publish({"w": ONE["w"] + 2}, version=10).base == 4
    for version in (9, 5, 0, -1):
        with pytest.raises(ValueError, match="not greater than the newest, 10"):
            chain.publish(ONE, version=version)
    for version in (10, 4):
        with pytest.raises(td.ConflictError):
            chain.publish(ONE, version=version)
    with pytest.raises(ValueError, match="out of range"):
        chain.publish(ONE, version=10**12)
    last = chain.publish({"w": ONE["w"] + 3}, version=10**12 - 1)
    assert (last.version, last.base) == (10**12 - 1, 10)
    assert chain.versions() == [3, 4, 10, 10**12 - 1]
    assert [read(chain, version)["w"][0] for version in chain.versions()] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="out of range"):
        chain.publish(ONE)
    with pytest.raises(ValueError, match="out of range"):
        td.open(Path(chain.address).with_name("other"), create=True).publish(ONE, version=-1)


def test_an_empty_delta(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(BOTH)
    chain.pull(tmp_path / "out")
    published = chain.publish(BOTH)
    assert (published.version, published.base, published.changed, published.packs) == (1, 0, 0, 0)
    assert published.size < 1024
    assert chain.manifest(1).fingerprint == chain.manifest(0).fingerprint
    assert chain.pull(tmp_path / "out").version == 1
    assert read(chain, 1) == lists(BOTH)
    assert chain.verify(deep=True).ok


def test_only_tensors_go_or_come(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(BOTH)
    for arrays in (ONE, BOTH, {**BOTH, "z": np.zeros(4, np.int8)}, {"w": ONE["w"].reshape(2, 4)}, {}, TWO):
        chain.publish(arrays)
        chain.pull(tmp_path / "out")
        assert read(chain) == lists(arrays)
        assert sum(map(len, all_tensors(tmp_path / "out").values())) == len(arrays)
    assert chain.verify(deep=True).ok


def test_full_versions(chain: td.Chain) -> None:
    chain.publish(ONE)
    full = chain.publish({"w": ONE["w"] + 1}, full=True)
    assert (full.base, full.changed) == (None, 8)
    assert chain.publish({"w": ONE["w"] + 2}).base == 1
    Path(chain.address, "manifests", "000000000000.json").unlink()
    assert read(chain) == {"w": [2, 3, 4, 5, 6, 7, 8, 9]}


def test_codecs(chain: td.Chain) -> None:
    rng = np.random.default_rng(5)
    words = rng.normal(size=5000).astype(ml_dtypes.bfloat16)
    states = [words]
    for _ in range(3):
        words = words.copy()
        at = rng.permutation(5000)[:60]
        words.view(np.uint16)[at] += 1
        states.append(words)
    chain.publish({"w": states[0]})
    step = chain.publish({"w": states[1]}, values="step")
    replace = chain.publish({"w": states[2]}, values="replace")
    exponent = chain.publish({"w": states[3]}, order="exponent")
    assert [each.changed for each in (step, replace, exponent)] == [60, 60, 60]
    assert [chain.manifest(version).features for version in range(4)] == [[], [], [], ["exponent-order"]]
    sizes = [chain.manifest(version).size for version in (1, 2)]
    assert sizes[0] < sizes[1]
    for version, each in enumerate(states):
        assert td.open(chain.address).load(version)["w"].tobytes() == each.tobytes()
    assert chain.verify(deep=True).ok


def test_files_are_carried_and_stored_once(chain: td.Chain, tmp_path: Path) -> None:
    files = {"config.json": b"{}" * 500, "tokenizer.json": b"t" * 5000, "copy.json": b"t" * 5000}
    chain.publish(save(tmp_path / "0", single(ONE), files))
    stored = {path: path.stat().st_ino for path in Path(chain.address, "files").iterdir()}
    assert len(stored) == 2
    second = chain.publish(save(tmp_path / "1", single({"w": ONE["w"] + 1}), files))
    assert second.size < 3000
    assert {path: path.stat().st_ino for path in Path(chain.address, "files").iterdir()} == stored
    assert {file.name for file in chain.manifest(1).files} == set(files)
    third = chain.publish(save(tmp_path / "2", single(ONE), {**files, "config.json": b"new", "tokenizer.json": b"{}"}))
    assert third.version == 2
    assert len(list(Path(chain.address, "files").iterdir())) == 4
    for version in (0, 1, 2, 1):
        chain.pull(tmp_path / "out", version)
        assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / str(version) / "config.json").read_bytes()


def test_states_without_files_keep_those_of_the_version_before(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR, {"config.json": b"{}"})
    chain.publish(folder, plain=True)
    chain.pull(tmp_path / "out")
    names = contents(folder).keys()
    save_file({**BOTH, "w": ONE["w"] + 1}, tmp_path / "step.safetensors")
    for state in ({**BOTH, "w": ONE["w"] + 2}, State.from_arrays(BOTH), tmp_path / "step.safetensors"):
        chain.publish(state)
        assert len(chain.pull(tmp_path / "out").route) == 1
        assert contents(tmp_path / "out").keys() == names
        assert (tmp_path / "out" / INDEX).read_bytes() == (folder / INDEX).read_bytes()
    # An index of other tensors would lead loaders astray.
    chain.publish({**BOTH, "new": ONE["w"]}, full=True)
    chain.pull(tmp_path / "out")
    assert contents(tmp_path / "out").keys() == {"config.json", "model.safetensors"}
    assert len(list(Path(chain.address, "files").iterdir())) == 2


# -- two writers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def meddled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Meddling, td.Chain, td.Chain]:
    """A store, a chain in it with one version, and the same chain as a writer on another machine has it."""
    store = Meddling(tmp_path / "chain")
    mine = td.open(store, create=True, threads=1)
    mine.publish(ONE)
    other = td.open(tmp_path / "chain", threads=1)
    with monkeypatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "cache of the other"))
        assert str(other._publisher._snapshot.checkout.folder).startswith(str(tmp_path / "cache of the other"))
    return store, mine, other


@pytest.mark.parametrize("full", [False, True])
def test_a_second_writer_of_a_version(meddled: tuple[Meddling, td.Chain, td.Chain], full: bool) -> None:
    store, mine, other = meddled
    store.once("manifests/", lambda: other.publish({"w": ONE["w"] + 5}))
    with pytest.raises(td.ConflictError) as caught:
        mine.publish({"w": ONE["w"] + 1}, full=full)
    assert (caught.value.rule, caught.value.object) == ("TD-WRT-006", "manifests/000000000001.json")
    assert read(mine, 1)["w"][0] == 5
    # Whoever lost goes on from what the other one published.
    again = mine.publish({"w": ONE["w"] + 1})
    assert (again.version, again.base) == (2, 1)
    assert read(mine, 2)["w"][0] == 1
    assert mine.verify(deep=True).ok


def test_another_manifest_with_other_files_or_base(
    meddled: tuple[Meddling, td.Chain, td.Chain], tmp_path: Path
) -> None:
    store, mine, other = meddled
    state = {"w": ONE["w"] + 1}
    store.once("manifests/", lambda: other.publish(state, full=True))
    with pytest.raises(td.ConflictError):
        mine.publish(state)
    with_file = save(tmp_path / "checkpoint", single({"w": ONE["w"] + 2}), {"config.json": b"{}"})
    store.once("manifests/", lambda: other.publish({"w": ONE["w"] + 2}))
    with pytest.raises(td.ConflictError):
        mine.publish(with_file)


def test_the_same_manifest_counts_as_success(meddled: tuple[Meddling, td.Chain, td.Chain]) -> None:
    store, mine, other = meddled
    state = {"w": ONE["w"] + 1}
    store.once("manifests/", lambda: other.publish(state, values="replace", annotations={"by": "other"}))
    published = mine.publish(state, annotations={"by": "me"})
    assert (published.version, published.annotations) == (1, {"by": "other"})
    assert mine.publish({"w": ONE["w"] + 2}).base == 1
    assert mine.verify(deep=True).ok


def test_a_version_is_published_again(tmp_path: Path, chain: td.Chain) -> None:
    """Who does not know whether a version was published publishes it again; nothing changes then."""
    chain.publish(ONE)
    two = {"w": ONE["w"] + 1}
    chain.publish(two, version=1, files={"config.json": b"{}"}, annotations={"by": "the first try"})
    chain.publish({"w": ONE["w"] + 2})
    before = {path: path.read_bytes() for path in Path(chain.address).rglob("*") if path.is_file()}
    again = td.open(chain.address)
    published = again.publish(two, version=1, files={"config.json": b"{}"}, annotations={"by": "the second"})
    assert (published.version, published.base, published.size) == (1, 0, 0)
    assert published.annotations == {"by": "the first try"}
    assert again.publish(ONE, version=0).version == 0
    others = (
        lambda: again.publish({"w": ONE["w"] + 3}, version=1, files={"config.json": b"{}"}),
        lambda: again.publish({"w": two["w"].reshape(2, -1)}, version=1, files={"config.json": b"{}"}),
        lambda: again.publish(two, version=1, files={"config.json": b"{ }"}),
        lambda: again.publish(two, version=1),
        lambda: again.publish(two, version=1, files={"config.json": b"{}"}, full=True),
    )
    for other in others:
        with pytest.raises(td.ConflictError) as caught:
            other()
        assert caught.value.rule == "TD-WRT-006" and caught.value.object == "manifests/000000000001.json"
    assert {path: path.read_bytes() for path in Path(chain.address).rglob("*") if path.is_file()} == before


WRITER = """
import sys
import numpy as np
import tensordelta as td
chain = td.open(sys.argv[1], threads=1)
add = float(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    version = int(line)
    try:
        chain.publish({"w": np.arange(8, dtype=np.float32) + add + version}, version=version)
        print("won", flush=True)
    except (td.ConflictError, ValueError) as fault:
        assert isinstance(fault, td.ConflictError) or "not greater" in str(fault)
        print("lost", flush=True)
"""


def test_two_processes_publish_one_version(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(ONE)
    both = []
    for add in (100, 200):
        env = {**os.environ, "TENSORDELTA_CACHE": str(tmp_path / f"cache {add}")}
        python = [sys.executable, "-c", WRITER, chain.address, str(add)]
        both.append(subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env))

    def say(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()

    def hear(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    assert [hear(process) for process in both] == ["ready", "ready"]
    for version in range(1, 9):
        for process in both:
            say(process, f"{version}\n")
        results = [hear(process) for process in both]
        assert sorted(results) == ["lost", "won"]
        assert read(chain, version)["w"][0] == version + (100 if results[0] == "won" else 200)
    for process in both:
        process.communicate()
        assert process.returncode == 0
    assert chain.versions() == list(range(9))
    assert chain.verify(deep=True).ok


# -- the snapshot ------------------------------------------------------------------------------------------------------


def rebuilt(caplog: pytest.LogCaptureFixture) -> bool:
    return any("is rebuilt" in record.getMessage() for record in caplog.records)


def snapshot(chain: td.Chain) -> Path:
    return snapshot_folder(chain.id)


def test_the_snapshot_is_the_newest_version(chain: td.Chain, tmp_path: Path) -> None:
    for add in range(3):
        chain.publish({"w": ONE["w"] + add})
        chain.pull(tmp_path / "out")
        assert contents(snapshot(chain)) == contents(tmp_path / "out")


HARM: dict[str, Callable[[Path], object]] = {
    "deleted": shutil.rmtree,
    "emptied": lambda folder: [shutil.rmtree(folder / PRIVATE), (folder / "model.safetensors").unlink()],
    "word": lambda folder: flip(folder / "model.safetensors"),
    "word, same time": lambda folder: flip(folder / "model.safetensors", restore_time=True),
    "header": lambda folder: flip(folder / "model.safetensors", 9, restore_time=True),
    "cut short": lambda folder: os.truncate(folder / "model.safetensors", 20),
    "file removed": lambda folder: (folder / "model.safetensors").unlink(),
    "state": lambda folder: (folder / PRIVATE / "state.json").write_text("x"),
    "state removed": lambda folder: (folder / PRIVATE / "state.json").unlink(),
    "undo": lambda folder: (folder / PRIVATE / "undo").write_text("x"),
    "decision": lambda folder: (folder / PRIVATE / "next.json").write_text("{}"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_snapshot_is_rebuilt(chain: td.Chain, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    chain.publish(ONE)
    chain.publish({"w": ONE["w"] + 1})
    HARM[harm](snapshot(chain))
    again = td.open(chain.address)
    published = again.publish({"w": ONE["w"] + 2})
    assert (published.version, published.base, published.changed) == (2, 1, 8)
    assert rebuilt(caplog) == (harm not in ("deleted", "emptied"))
    assert read(chain) == {"w": [2, 3, 4, 5, 6, 7, 8, 9]}
    assert chain.verify(deep=True).ok
    assert again.publish({"w": ONE["w"] + 3}).base == 2


@pytest.mark.parametrize("harm", ["word, same time", "header", "cut short"])
def test_a_snapshot_damaged_while_it_was_behind(
    chain: td.Chain, harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.publish(ONE)
    with monkeypatch.context() as patch:  # another machine publishes
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))
        td.open(chain.address).publish({"w": ONE["w"] + 1})
    HARM[harm](snapshot(chain))
    assert td.open(chain.address).publish({"w": ONE["w"] + 2}).base == 1
    assert read(chain) == {"w": [2, 3, 4, 5, 6, 7, 8, 9]}
    assert chain.verify(deep=True).ok


def test_two_processes_share_a_snapshot(chain: td.Chain) -> None:
    other = td.open(chain.address)
    chain.publish(ONE)
    for add in range(1, 7):
        writer = (chain, other)[add % 2]
        assert writer.publish({"w": ONE["w"] + add}).base == add - 1
        assert read(chain) == {"w": (ONE["w"] + add).tolist()}
    assert chain.verify(deep=True).ok


def test_a_snapshot_that_is_ahead_of_the_chain(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(ONE)
    shutil.copytree(chain.address, tmp_path / "backup")
    for add in (1, 2):
        chain.publish({"w": ONE["w"] + add})
    shutil.rmtree(chain.address)
    shutil.move(tmp_path / "backup", chain.address)
    again = td.open(chain.address)
    assert again.publish({"w": ONE["w"] + 7}).base == 0
    assert read(again) == {"w": (ONE["w"] + 7).tolist()}
    assert again.verify(deep=True).ok


@pytest.mark.parametrize("behind", [0, 1])
def test_copies_of_a_chain_that_go_separate_ways(chain: td.Chain, tmp_path: Path, behind: int) -> None:
    # Both have one id, so they share a snapshot folder, in which a version number says nothing.
    chain.publish(ONE)
    shutil.copytree(chain.address, tmp_path / "copy")
    copy = td.open(tmp_path / "copy")
    chain.publish({"w": ONE["w"] + 1})
    copy.publish({"w": ONE["w"] + 5})
    for _ in range(behind):
        copy.publish({"w": ONE["w"] + 6})
    for writer, add in ((td.open(chain.address), 10), (td.open(tmp_path / "copy"), 20), (td.open(chain.address), 30)):
        writer.publish({"w": ONE["w"] + add})
        assert read(writer) == {"w": (ONE["w"] + add).tolist()}
    for each in (chain, copy):
        assert td.open(each.address).verify(deep=True).ok


def test_a_snapshot_that_another_process_uses(chain: td.Chain) -> None:
    chain.publish(ONE)
    other = td.open(chain.address)
    with other._publisher._snapshot.checkout.locked(), pytest.raises(td.ConflictError, match="another process"):
        chain.publish({"w": ONE["w"] + 1})
    assert chain.versions() == [0]
    assert chain.publish({"w": ONE["w"] + 1}).version == 1


def test_no_one_moves_the_snapshot_while_it_is_compared(tmp_path: Path) -> None:
    store = Meddling(tmp_path / "chain")
    chain = td.open(store, create=True)
    chain.publish(ONE)
    other = td.open(tmp_path / "chain")
    faults: list[td.ConflictError] = []

    def publish() -> None:
        with pytest.raises(td.ConflictError) as caught:
            other.publish({"w": ONE["w"] + 5})
        faults.append(caught.value)

    store.once("packs/", publish)
    chain.publish({"w": ONE["w"] + 1}, version=7)
    assert "another process" in faults[0].reason
    assert other.publish({"w": ONE["w"] + 5}).base == 7
    assert chain.verify(deep=True).ok


def test_a_fault_of_the_chain_does_not_cost_the_snapshot(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chain.publish(ONE)
    with monkeypatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))
        td.open(chain.address).publish({"w": ONE["w"] + 1})
    (pack,) = [Path(chain.address, str(entry.path)) for entry in td.open(chain.address).manifest(1).packs]
    pack.rename(tmp_path / "pack")
    before = contents(snapshot(chain), private=True)
    with pytest.raises(td.MissingError):
        td.open(chain.address).publish({"w": ONE["w"] + 2})
    assert contents(snapshot(chain), private=True) == before and not rebuilt(caplog)
    (tmp_path / "pack").rename(pack)
    assert td.open(chain.address).publish({"w": ONE["w"] + 2}).base == 1


def test_a_version_is_published_where_the_snapshot_cannot_follow(
    chain: td.Chain, _own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(_own_cache)
    _own_cache.write_text("no folder")
    assert chain.publish(ONE).version == 0
    assert any("did not follow" in record.getMessage() for record in caplog.records)
    _own_cache.unlink()
    assert chain.publish({"w": ONE["w"] + 1}).base == 0
    assert chain.verify(deep=True).ok


def test_a_newest_version_that_cannot_be_read(chain: td.Chain) -> None:
    chain.publish(ONE)
    Path(chain.address, "manifests", "000000000001.json").write_text('{"tensordelta": "1.0"}')
    again = td.open(chain.address)
    with pytest.raises(td.MalformedError):
        again.publish({"w": ONE["w"] + 1})
    assert again.publish({"w": ONE["w"] + 1}, full=True).version == 2
    assert again.publish({"w": ONE["w"] + 2}).base == 2
    assert read(again, 3)["w"][0] == 2


def test_a_state_that_is_the_snapshot_itself(chain: td.Chain) -> None:
    chain.publish(save(snapshot(chain).with_name("first"), single(ONE)))
    published = chain.publish(snapshot(chain) / "model.safetensors")
    assert (published.version, published.changed) == (1, 0)


def test_many_words_are_applied_and_taken_back_by_several_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    old = {name: rng.integers(0, 256, 1 << 20, np.uint8) for name in "abc"}
    new = {name: array + np.uint8(1) if name == "a" else array.copy() for name, array in old.items()}
    new["b"][::3] += 1
    chain = td.open(tmp_path / "chain", create=True, threads=3)
    chain.publish(old)
    chain.publish(new)
    held = {name: array.copy() for name, array in old.items()}
    update = chain.prepare(held, 1)
    assert update.changed > 1 << 20
    update.apply()
    assert all(np.array_equal(held[name], new[name]) for name in "abc")
    update.undo()
    assert all(np.array_equal(held[name], old[name]) for name in "abc")


def test_threads_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**16, 3_000_000).astype(np.uint16)
    names = []
    for threads in (1, 4):
        chain = td.open(tmp_path / str(threads), create=True, threads=threads)
        chain.publish({"w": words})
        more = words.copy()
        more[::97] += 1
        chain.publish({"w": more})
        names.append(sorted(path.name for path in Path(chain.address, "packs").iterdir()))
        chain.pull(tmp_path / f"out {threads}")
    assert names[0] == names[1]
    assert all_tensors(tmp_path / "out 1") == all_tensors(tmp_path / "out 4")


def test_the_encoder_proves_what_is_published(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    # A snapshot that differs from the version that the manifest names would make a delta that no one can use.
    chain.publish(ONE)
    bases: list[str] = []
    made = Comparison.of_states

    def of_states(base: State | None, *arguments: Any) -> Comparison:
        bases.append("full" if base is None else base.fingerprint())
        return made(base, *arguments)

    monkeypatch.setattr(Comparison, "of_states", of_states)
    chain.publish({"w": ONE["w"] + 1})
    chain.publish({"w": ONE["w"] + 2})
    assert bases == [chain.manifest(version).fingerprint for version in (0, 1)]


# -- large checkpoints -------------------------------------------------------------------------------------------------

WATCHED = """
import sys, threading, time
import tensordelta as td
peak = 0
def watch():
    global peak
    while True:
        with open("/proc/self/status") as file:
            peak = max(peak, *(int(line.split()[1]) for line in file if line.startswith("RssAnon")))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
chain = td.open(sys.argv[2], create=True, threads=2)
result = chain.publish(sys.argv[3]) if sys.argv[1] == "publish" else chain.pull(sys.argv[3])
time.sleep(0.01)
print(result.version, peak * 1024)
"""


def anonymous_memory(*arguments: object) -> int:
    """Do something in a process of its own; gives the most memory that it had of its own, in bytes."""
    done = subprocess.run([sys.executable, "-c", WATCHED, *map(str, arguments)], capture_output=True, check=True)
    return int(done.stdout.split()[1])


def blank(path: Path, dtype: str, words: int, itemsize: int) -> tuple[Path, int]:
    """A file of one tensor of zero words that takes no room on the disk; gives also where the words begin."""
    entry = {"dtype": dtype, "shape": [words], "data_offsets": [0, words * itemsize]}
    header = json.dumps({"w": entry}).encode()
    header += b" " * (-len(header) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + words * itemsize)
    return path, 8 + len(header)


@pytest.mark.slow
def test_memory_stays_small_for_a_large_checkpoint(tmp_path: Path) -> None:
    mib = 1 << 20
    rng = np.random.default_rng(0)
    words = 64 * mib
    paths = [blank(tmp_path / "checkpoint" / f"{name}.safetensors", "BF16", words, 2) for name in "abcd"]
    for name, (path, _) in zip("abcd", paths, strict=True):
        path.write_bytes(path.read_bytes().replace(b'"w"', f'"{name}"'.encode(), 1))
    maps = [np.memmap(path, np.uint16, "r+", offset=start, shape=words) for path, start in paths]
    for each in maps:
        for start in range(0, words, 8 * mib):
            each[start : start + 8 * mib] = rng.integers(0, 1 << 16, 8 * mib, np.uint16)
        each.flush()
    used = {"publish, full": anonymous_memory("publish", tmp_path / "chain", tmp_path / "checkpoint")}
    used["pull, full"] = anonymous_memory("pull", tmp_path / "chain", tmp_path / "out")
    changes = 0
    for each in maps:
        at = np.unique(rng.integers(0, words, words // 100))
        each[at] += 1
        changes += len(at)
        each.flush()
    used["publish, delta"] = anonymous_memory("publish", tmp_path / "chain", tmp_path / "checkpoint")
    used["pull, delta"] = anonymous_memory("pull", tmp_path / "chain", tmp_path / "out")
    print({name: f"{size / mib:.0f} MiB" for name, size in used.items()})
    for what, size in used.items():
        assert size < 400 * mib + (16 * changes if what == "pull, delta" else 0), used
    for each, name in zip(maps, "abcd", strict=True):
        pulled = np.memmap(tmp_path / "out" / f"{name}.safetensors", np.uint8, "r")
        start = 8 + int.from_bytes(bytes(pulled[:8]), "little")
        for at in range(0, words, 8 * mib):
            end = start + 2 * (at + 8 * mib)
            assert np.array_equal(pulled[start + 2 * at : end].view(np.uint16), each[at : at + 8 * mib])


@pytest.mark.slow
def test_a_tensor_of_more_than_2_to_the_31_words(chain: td.Chain, tmp_path: Path) -> None:
    words = (1 << 31) + 5000
    path, start = blank(tmp_path / "huge" / "model.safetensors", "U8", words, 1)
    expected: dict[int, int] = {}
    for places in ([0, 70_000, (1 << 31) - 1, words - 1], [1, 1 << 31, (1 << 31) + 1, words - 1]):
        with path.open("r+b") as file:
            for place in places:
                expected[place] = expected.get(place, 0) + 3
                file.seek(start + place)
                file.write(bytes([expected[place]]))
        assert chain.publish(path).changed == 4
        chain.pull(tmp_path / "out")
        with (tmp_path / "out" / "model.safetensors").open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
            pulled = np.memmap(file, np.uint8, "r", offset=begin, shape=words)
            found = {int(at): int(pulled[at]) for at in np.flatnonzero(pulled)}
        assert found == expected


@pytest.mark.parametrize("wrong", [{"values": "steps"}, {"order": "exp"}, {"values": None}])
def test_unknown_codecs_are_refused_before_anything_is_put(chain: td.Chain, wrong: dict[str, str]) -> None:
    chain.publish(ONE)
    with pytest.raises(ValueError, match="not one of"):
        chain.publish({"w": ONE["w"] + 1}, **wrong)
    assert chain.versions() == [0]


def test_a_chain_gets_a_folder_of_its_own(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(ONE)
    chain.pull(tmp_path / "pulled")
    with pytest.raises(td.ConflictError, match="no chain"):
        td.open(tmp_path / "pulled", create=True)
    with pytest.raises(td.ConflictError, match="not a checkpoint"):
        chain.publish(chain.address)
    assert chain.verify(deep=True).ok


def test_a_chain_that_was_replaced_is_not_written_to(chain: td.Chain) -> None:
    chain.publish(ONE)
    shutil.rmtree(chain.address)
    other = td.open(chain.address, create=True)
    other.publish(ONE)
    with pytest.raises(td.ConflictError):
        chain.publish({"w": ONE["w"] + 1})
    assert other.versions() == [0]
    assert other.verify(deep=True).ok


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_no_object(chain: td.Chain, make: Callable[[Path], None]) -> None:
    chain.publish(ONE)
    make(Path(chain.address, "manifests", "000000000009.json"))
    assert td.open(chain.address).newest == 0
    with pytest.raises(td.MissingError):
        td.open(chain.address).load(9)


def test_links_in_a_pulled_folder_are_not_followed(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR, {"1_Pooling/config.json": b"{}"})
    chain.publish(folder)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "model.safetensors").write_bytes(b"mine")
    out = tmp_path / "out"
    (out / PRIVATE).mkdir(parents=True)
    (out / PRIVATE / "next").symlink_to(precious)
    (out / "1_Pooling").symlink_to(precious)
    with pytest.raises(td.ConflictError):
        chain.pull(out)
    (out / "1_Pooling").unlink()
    chain.pull(out)
    assert contents(precious) == {"model.safetensors": b"mine"}
