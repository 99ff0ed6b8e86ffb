"""Publishing checkpoints: which files make one, and versions of its files as they stand."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from folders import INDEX, all_tensors, changed, contents, flip, save, tensors
from safetensors.numpy import save_file
from two_tensors import BOTH, FIRST, ONE, PAIR, SECOND, TWO, Meddling, lists, read, single

import tensordelta as td

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


def index_of_single(root: Path) -> tuple[Path, set[str]]:
    return save(root, single(BOTH), {INDEX: index_of(single(BOTH))}), {"model.safetensors"}


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
    index_of_single,
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
        td.open(chain.address).publish({"w": ONE["w"]}, layout_change=True)
    assert chain.versions() == [0]
    assert td.open(chain.address, pack_folders=[folder]).publish({"w": ONE["w"]}, layout_change=True).version == 1


def test_the_folder_of_a_checkpoint_is_no_source_of_later_reads(
    chain: td.Chain, tmp_path: Path, _own_cache: Path
) -> None:
    """Only the snapshot that follows a publish may take the packs from the folder that was published."""
    folder = save(tmp_path / "checkpoint", PAIR)
    for version in range(2):
        assert chain.publish(folder, plain=True, source="hf://org/model@0123abc").version == version
    with pytest.raises(td.UntrustedError):
        chain.load()
    shutil.rmtree(_own_cache)
    with pytest.raises(td.UntrustedError):
        chain.publish({"w": ONE["w"]}, layout_change=True)
    assert chain.versions() == [0, 1]


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
