"""Checkpoints that another user prepared: their links, pipes and holes neither publish files of this user nor take all
memory, disk or time."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import INDEX, save
from two_tensors import BOTH, FIRST, ONE, PAIR, SECOND, TWO, Meddling, lists, read, single

import tensordelta as td
from tensordelta.format.safetensors import parse_header
from tensordelta.state.checkpoint import open_checkpoint

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----"
LINK_OUT = "a link that leads out of the folder"
GIB = 1 << 30


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "id_rsa"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def objects(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def files(chain: td.Chain) -> list[str]:
    return [entry.name for entry in chain.manifest().files]


# -- links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_links_to_files_of_this_user_are_left_out(
    chain: td.Chain, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    folder = save(tmp_path / "model", single(BOTH), {"config.json": b"{}", "a/b.json": b"{}"})
    monkeypatch.chdir(secret.parent)
    links = {
        "special_tokens_map.json": str(secret),
        "relative.json": "../home/id_rsa",
        "vocab.txt": "/proc/self/cwd/id_rsa",
        "merges.txt": "/proc/self/environ",
        "memory.txt": "/proc/meminfo",
        "kernel.txt": "/sys/kernel/notes",
        "twice.json": "special_tokens_map.json",
        "a/deeper.json": "../../home/id_rsa",
    }
    for name, target in links.items():
        if Path(target).exists() or not target.startswith("/sys"):
            (folder / name).symlink_to(target)
    published = chain.publish(folder, plain=plain)
    assert {each.name: each.reason for each in published.left_out} == {
        name: LINK_OUT for name in links if (folder / name).is_symlink()
    }
    assert files(chain) == ["a/b.json", "config.json"] and read(chain) == lists(BOTH)
    assert not any(SECRET in data for data in objects(tmp_path / "chain"))


def test_links_within_the_folder_are_taken(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "real", single(BOTH), {"a/vocab.txt": b"v"})
    (folder / "vocab.txt").symlink_to("a/vocab.txt")
    (folder / "absolute.txt").symlink_to(folder / "a" / "vocab.txt")
    (tmp_path / "model").symlink_to(folder)  # the user names this link
    assert chain.publish(tmp_path / "model").left_out == ()
    assert files(chain) == ["a/vocab.txt", "absolute.txt", "vocab.txt"]


def linked(folder: Path, name: str, target: Path) -> None:
    (folder / name).rename(target)
    (folder / name).symlink_to(target)


def link_folder(folder: Path, target: Path) -> None:
    """The index names shards in a subfolder, which is a link."""
    for name in (FIRST, SECOND):
        (folder / name).rename(target / name)
    (folder / "sub").symlink_to(target)
    names = {"w": f"sub/{FIRST}", "b": f"sub/{SECOND}"}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


OUTSIDE: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "a shard": (SECOND, lambda folder, away: linked(folder, SECOND, away / "private.safetensors")),
    "the index": (INDEX, lambda folder, away: linked(folder, INDEX, away / "index.json")),
    "a subfolder": (f"sub/{FIRST}", link_folder),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_weights_that_are_links_out_of_the_folder_are_refused(tmp_path: Path, secret: Path, what: str) -> None:
    folder = save(tmp_path / "model", PAIR)
    name, link = OUTSIDE[what]
    link(folder, secret.parent)
    chain = td.open(tmp_path / "chain", create=True)
    for use in (
        lambda: chain.publish(folder),
        lambda: chain.publish(folder, plain=True),
        lambda: td.read_state(folder),
        lambda: td.diff(folder, BOTH),
    ):
        with pytest.raises(td.UntrustedError, match=LINK_OUT) as caught:
            use()
        assert caught.value.object.endswith(name) and "copy" in caught.value.advice
    assert chain.versions() == []


def test_a_link_to_weights_that_the_user_names_is_followed(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", single(BOTH))
    (tmp_path / "link.safetensors").symlink_to(folder / "model.safetensors")
    chain.publish(tmp_path / "link.safetensors")
    assert read(chain) == lists(BOTH)


def hub_snapshot(root: Path) -> Path:
    """A snapshot in a cache of the Hub with a pipeline's part, whose files are links to blobs."""
    part = save(root / "snapshots" / "0123abc" / "unet", single(BOTH), {"config.json": b"{}"})
    (root / "blobs").mkdir()
    for number, path in enumerate(sorted(part.iterdir())):
        path.rename(root / "blobs" / str(number))
        path.symlink_to(f"../../../blobs/{number}")
    return part


def test_a_part_of_a_pipeline_in_the_cache_of_the_hub_is_taken(chain: td.Chain, tmp_path: Path) -> None:
    part = hub_snapshot(tmp_path / "models--a--b")
    assert chain.publish(part).left_out == () and files(chain) == ["config.json"]
    (part / "other.json").symlink_to(hub_snapshot(tmp_path / "models--a--c") / "config.json")
    assert [(each.name, each.reason) for each in chain.publish(part).left_out] == [("other.json", LINK_OUT)]


def test_blobs_that_are_a_link_are_no_cache(chain: td.Chain, tmp_path: Path) -> None:
    part = hub_snapshot(tmp_path / "models--a--b")
    (part / "model.safetensors").unlink()
    (part / "model.safetensors").symlink_to("../../../blobs/1")
    (tmp_path / "models--a--b" / "blobs").rename(tmp_path / "home")
    (tmp_path / "models--a--b" / "blobs").symlink_to(tmp_path / "home")
    with pytest.raises(td.UntrustedError, match=LINK_OUT):
        chain.publish(part)


# -- files that are exchanged ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipe", [False, True])
def test_a_file_that_is_exchanged_after_the_look_is_not_published(tmp_path: Path, secret: Path, pipe: bool) -> None:
    folder = save(tmp_path / "model", single(BOTH), {"config.json": b"{}"})
    config = folder / "config.json"
    store = Meddling(tmp_path / "chain")
    chain = td.open(store, create=True)
    writer = threading.Thread(target=config.write_bytes, args=[SECRET], daemon=True)

    def exchange() -> None:
        config.unlink()
        if pipe:
            os.mkfifo(config)
            writer.start()
        else:
            config.symlink_to(secret)

    store.once("layouts/", exchange)
    with pytest.raises(OSError, match="no regular file") as caught:
        chain.publish(folder)
    assert caught.value.filename == str(config) and chain.versions() == []
    if pipe:  # nothing has opened it: its writer still waits
        reader = os.open(config, os.O_RDONLY | os.O_NONBLOCK)
        writer.join()
        os.close(reader)
    assert not any(SECRET in data for data in objects(tmp_path / "chain"))


def test_plain_packs_are_of_the_files_that_were_opened(tmp_path: Path, secret: Path) -> None:
    folder = save(tmp_path / "model", single(BOTH))
    store = Meddling(tmp_path / "chain")
    chain = td.open(store, create=True)

    def exchange() -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(secret)

    store.once("layouts/", exchange)
    with pytest.raises(td.IntegrityError, match="changed"):
        chain.publish(folder, plain=True)
    assert chain.versions() == [] and not any(SECRET in data for data in objects(tmp_path / "chain"))


# -- holes, and many bytes ---------------------------------------------------------------------------------------------


def hollow(path: Path, size: int, words: int = 0) -> Path:
    """A file of holes; with `words` a safetensors file of one tensor of so many zero bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = b""
    if words:
        entry = {path.stem: {"dtype": "U8", "shape": [words], "data_offsets": [0, words]}}
        header = json.dumps(entry).encode()
        header = len(header).to_bytes(8, "little") + header
    path.write_bytes(header)
    os.truncate(path, len(header) + (words or size))
    return path


def test_an_index_of_holes_is_not_read(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", PAIR)
    hollow(folder / INDEX, 1 << 40)
    with pytest.raises(td.LimitError, match=r"1,099,511,627,776 bytes") as caught:
        chain.publish(folder)
    assert caught.value.object == str(folder / INDEX)


def test_files_of_holes_that_are_vast_all_together_are_refused(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", single(BOTH))
    for number in range(65):
        hollow(folder / f"{number}.txt", 64 << 20)
    for plain in (False, True):
        with pytest.raises(td.LimitError, match="beside the weights") as caught:
            chain.publish(folder, plain=plain)
        assert caught.value.object == str(folder) and "out of the folder" in caught.value.advice
    assert chain.versions() == []


def test_files_are_not_held_in_memory_together(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", single(BOTH))
    for number in range(16):
        hollow(folder / f"{number:02}.txt", (8 << 20) + number)
    tracemalloc.start()
    try:
        chain.publish(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20, peak
    assert [entry.size for entry in chain.manifest().files] == [(8 << 20) + number for number in range(16)]
    chain.pull(tmp_path / "out")
    assert all((tmp_path / "out" / path.name).read_bytes() == path.read_bytes() for path in folder.glob("*.txt"))


def test_weights_of_holes_are_refused(chain: td.Chain, tmp_path: Path) -> None:
    path = hollow(tmp_path / "vast" / "model.safetensors", 0, words=1 << 40)
    for use in (
        lambda: td.read_state(path),
        lambda: chain.publish(path),
        lambda: chain.publish(path.parent, plain=True),
        lambda: td.diff(path, path),
    ):
        with pytest.raises(td.MalformedError, match=r"only [0-9,]+ are on the disk"):
            use()
    for name in "abc":  # none of them is vast by itself
        hollow(tmp_path / "many" / f"{name}.safetensors", 0, words=2 * GIB)
    with pytest.raises(td.MalformedError, match="are on the disk") as caught:
        td.read_state(tmp_path / "many")
    assert caught.value.object == str(tmp_path / "many")


def test_weights_of_which_some_are_holes_are_taken(tmp_path: Path) -> None:
    path = hollow(tmp_path / "model.safetensors", 0, words=3 * GIB)
    assert open_checkpoint(path).layout.nbytes == 3 * GIB


def test_a_header_of_too_many_tensors_is_counted_before_it_is_parsed() -> None:
    header = b"{" + b'"data_offsets"' * ((1 << 20) + 1)  # no JSON: a parser would say so
    with pytest.raises(td.LimitError, match="tensors"):
        parse_header(header, size=8 + len(header), object="x")


# -- a manifest that names one object many times -----------------------------------------------------------------------


def test_files_for_which_the_disk_has_no_room_are_not_begun(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(ONE | TWO, files={"a.txt": bytes(1 << 16)})
    path = tmp_path / "chain" / "manifests" / "000000000000.json"
    manifest = json.loads(path.read_bytes())
    (entry,) = manifest["files"]
    manifest["files"] = [{**entry, "name": f"{number:03}.txt"} for number in range(320)]
    path.write_text(json.dumps(manifest))
    with pytest.raises(td.LimitError, match="20,971,") as caught:
        td.open(tmp_path / "chain", disk=16 << 20).pull(tmp_path / "out")
    assert caught.value.rule == "TD-LIM-007"
    assert not list((tmp_path / "out").rglob("*.txt")) and not list((tmp_path / "out").rglob("*.safetensors"))
    td.open(tmp_path / "chain").pull(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.txt"))) == 320
