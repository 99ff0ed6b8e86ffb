"""Pulled folders: what they hold, which folders a pull refuses, and pulls that fail."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkouts import FILES, FIRST, SECOND, inodes, packs, refused, shards
from folders import INDEX, PRIVATE, all_tensors, changed, contents, flip, save, tensors
from safetensors import safe_open
from safetensors.numpy import load_file

import tensordelta as td
from tensordelta.checkout import staging
from tensordelta.checkout.checkout import Checkout
from tensordelta.stores.anchored import Folder

# -- what a folder holds -----------------------------------------------------------------------------------------------


def test_a_pulled_folder_is_the_published_one(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    for version in (0, 1):
        pulled = chain.pull(folder, version)
        published = tmp_path / "checkpoints" / str(version)
        assert (pulled.version, len(pulled.route)) == (version, 1)
        assert contents(folder).keys() == contents(published).keys()
        assert all_tensors(folder) == all_tensors(published)
        for name in (*FILES, INDEX):
            assert (folder / name).read_bytes() == (published / name).read_bytes()
        with safe_open(folder / FIRST, "np") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert set(opened.keys()) == {"embed", "norm"}
        assert load_file(folder / SECOND)["head"].tobytes() == load_file(published / SECOND)["head"].tobytes()
        assert Checkout(folder).verify(threads=1) == (version, [])


def test_a_delta_is_patched_in_place_and_a_repeat_does_nothing(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    before = inodes(folder)
    assert chain.pull(folder).route == ("manifests/000000000001.json",)
    assert inodes(folder) == before
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != PRIVATE}
    again = chain.pull(folder)
    assert (again.version, again.route, again.size) == (1, (), 0)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_folder_goes_back_to_an_older_version(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "out")
    assert chain.pull(tmp_path / "out", 0).version == 0
    chain.pull(tmp_path / "other", 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_a_folder_may_be_moved(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "out", 0)
    (tmp_path / "out").rename(tmp_path / "moved")
    assert chain.pull(tmp_path / "moved").route == ("manifests/000000000001.json",)
    assert all_tensors(tmp_path / "moved") == all_tensors(tmp_path / "checkpoints" / "1")


def test_a_copy_by_hard_links_stays_as_it_is(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "out", 0)
    shutil.copytree(tmp_path / "out", tmp_path / "kept", copy_function=os.link)
    before = contents(tmp_path / "kept")
    chain.pull(tmp_path / "out")
    assert contents(tmp_path / "kept") == before
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "checkpoints" / "1")


def test_several_hops_over_layouts_at_once(tmp_path: Path) -> None:
    # "w" has index 1 in version 1 and index 2 in version 2, where "n" comes before it.
    chain = td.open(tmp_path / "chain", create=True)
    arrays = {"b": np.arange(3, dtype=np.float32), "w": np.arange(100, dtype=np.float32)}
    chain.publish(arrays)
    chain.pull(tmp_path / "out")
    arrays["w"][[5, 60]] += 1
    chain.publish(arrays)
    arrays["n"] = np.arange(3, dtype=np.float32)
    chain.publish(arrays, layout_change=True)
    assert len(chain.pull(tmp_path / "out").route) == 2
    loaded = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: array.tolist() for name, array in loaded.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    assert Checkout(tmp_path / "out").verify(threads=1) == (2, [])


def test_files_come_and_go_with_their_versions(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder)
    # What was a folder becomes a file and the other way round; folders that are empty then go.
    files = {"config.json": b'{"a": 2}', "1_Pooling": b"file", "2_Dense/a/b.json": b"b"}
    published = save(tmp_path / "checkpoints" / "2", shards(), files)
    chain.publish(published)
    chain.pull(folder)
    assert contents(folder).keys() == contents(published).keys()
    assert {name: (folder / name).read_bytes() for name in files} == files
    chain.pull(folder, 1)
    assert contents(folder).keys() == contents(tmp_path / "checkpoints" / "1").keys()


def test_a_state_without_tensors(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({})
    chain.publish({"w": np.ones(3, np.float32)}, layout_change=True)
    chain.publish({}, layout_change=True)
    for version, names in ((0, []), (1, ["w"]), (2, [])):
        chain.pull(tmp_path / "out", version)
        with safe_open(tmp_path / "out" / "model.safetensors", "np") as opened:
            assert list(opened.keys()) == names


def test_an_empty_chain_has_nothing_to_pull(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    with pytest.raises(td.MissingError):
        chain.pull(tmp_path / "out")
    with pytest.raises(td.MissingError, match="holds no version"):
        Checkout(tmp_path / "out").verify(threads=1)
    with pytest.raises(td.MissingError, match="no folder that a pull made"):
        Checkout(tmp_path / "elsewhere").verify(threads=1)
    assert not (tmp_path / "elsewhere").exists()
    chain.publish({"w": np.ones(3, np.float32)})
    assert chain.pull(tmp_path / "out").version == 0


# -- folders that are not its own --------------------------------------------------------------------------------------


def test_contents_that_no_pull_made(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert "no pull made" in refused(td.ConflictError, chain, folder).reason
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(td.ConflictError, match="is a file"):
        chain.pull(file)
    assert file.read_text() == "mine"


def test_a_folder_of_another_chain(chain: td.Chain, tmp_path: Path) -> None:
    other = td.open(tmp_path / "other", create=True)
    other.publish(tmp_path / "checkpoints" / "0")
    other.pull(tmp_path / "out")
    assert other.id in refused(td.ConflictError, chain, tmp_path / "out").reason


def test_a_chain_that_was_written_anew(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "out", 0)
    shutil.rmtree(tmp_path / "chain")
    again = td.open(tmp_path / "chain", create=True, chain=chain.id)
    again.publish(save(tmp_path / "checkpoints" / "x", changed(shards(), np.random.default_rng(3), 0.5), FILES))
    fault = refused(td.WrongBaseError, again, tmp_path / "out")
    assert fault.rule == "TD-RDR-003" and "holds version 0" in fault.reason


WAYS: dict[str, Callable[[Path], object]] = {
    "file": lambda folder: (folder / "extra").write_text("mine"),
    "folder": lambda folder: (folder / "extra").mkdir(),
    "folder with a file": lambda folder: (
        (folder / "merges.txt" / "sub").mkdir(parents=True) or (folder / "merges.txt" / "sub" / "x").write_text("mine")
    ),
    "dead link": lambda folder: (folder / "merges.txt").symlink_to("nowhere"),
    "link to a folder": lambda folder: (folder / "merges.txt").symlink_to("1_Pooling"),
    "shard": lambda folder: (folder / "model.safetensors").write_text("mine"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_in_the_way(chain: td.Chain, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "out"
    chain.pull(folder)
    single = {"model.safetensors": {name: array for each in shards().values() for name, array in each.items()}}
    chain.publish(save(tmp_path / "checkpoints" / "2", single, {"merges.txt": b"m", "extra/a.json": b"a"}))
    WAYS[way](folder)
    if way == "folder":  # an empty folder is no one's file
        chain.pull(folder)
    else:
        mine = contents(folder)
        assert "is in the way" in refused(td.ConflictError, chain, folder).reason
        assert contents(folder) == mine
        for name in ("extra", "merges.txt", "model.safetensors"):
            path = folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        chain.pull(folder)
    assert contents(folder).keys() == contents(tmp_path / "checkpoints" / "2").keys()


def test_files_that_are_not_in_the_way_are_left_alone(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "out", 0)
    (tmp_path / "out" / "1_Pooling" / "notes.txt").write_text("mine")
    chain.publish({"w": np.ones(3, np.float32)}, files={}, layout_change=True)
    chain.pull(tmp_path / "out")
    assert contents(tmp_path / "out").keys() == {"1_Pooling", "1_Pooling/notes.txt", "model.safetensors"}


# -- two at once -------------------------------------------------------------------------------------------------------


def test_a_folder_in_use(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    with (folder / PRIVATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in refused(td.ConflictError, chain, folder).reason
        with pytest.raises(td.ConflictError):
            Checkout(folder).verify(threads=1)
    assert chain.pull(folder).version == 1


PULLER = """
import sys
import tensordelta as td
chain = td.open(sys.argv[1], threads=1)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    for version in (0, 1):
        try:
            chain.pull(sys.argv[2], version)
        except td.ConflictError as fault:
            assert "another process" in fault.reason, fault
"""


def test_two_processes_pull_into_one_folder(chain: td.Chain, tmp_path: Path) -> None:
    python = [sys.executable, "-c", PULLER, chain.address, str(tmp_path / "out")]
    both = [subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    for each in both:
        assert each.stdout is not None and each.stdout.readline() == b"ready\n"
    for each in both:
        assert each.stdin is not None
        each.stdin.write(b"go\n")
        each.stdin.flush()
    for each in both:
        each.communicate(timeout=600)
        assert each.returncode == 0
    chain.pull(tmp_path / "out")
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "checkpoints" / "1")


def test_the_folder_is_made_by_another_process_at_the_same_moment(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = Folder.has

    def then_made(folder: Folder, name: str) -> bool:
        found = has(folder, name)
        if name == PRIVATE and not found:
            (folder.path / name).mkdir()
        return found

    monkeypatch.setattr(Folder, "has", then_made)
    assert chain.pull(tmp_path / "out").version == 1


# -- pulls that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("harm", ["removed", "flipped"])
def test_a_pull_that_fails_changes_nothing(chain: td.Chain, tmp_path: Path, version: int, harm: str) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    chain.publish({"w": np.ones(1000, np.float32)}, full=True, layout_change=True)
    for pack in packs(chain, version):
        pack.unlink() if harm == "removed" else flip(pack)
    before = contents(folder, private=True)
    with pytest.raises(td.MissingError if harm == "removed" else td.IntegrityError):
        td.open(tmp_path / "chain").pull(folder, version)
    assert contents(folder, private=True) == before


def test_a_full_disk_is_seen_before_anything_is_written(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 1)
    before = contents(folder, private=True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            chain.pull(folder, 0)
    assert contents(folder, private=True) == before
    assert chain.pull(folder, 0).version == 0


def test_a_pull_takes_room_on_the_disk_for_all_of_a_shard(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": np.zeros(1 << 22, np.uint8)})
    chain.pull(tmp_path / "out")
    status = (tmp_path / "out" / "model.safetensors").stat()
    assert status.st_blocks * 512 >= status.st_size > 1 << 22


def test_decoded_words_may_lie_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As for states of many gigabytes; the names are those that might meet the file that holds them.
    monkeypatch.setattr(staging, "_ARENA", 1)
    chain = td.open(tmp_path / "chain", create=True)
    rng = np.random.default_rng(0)
    weights = {"words": shards()[SECOND], "arena": shards()[FIRST]}
    for version in range(3):
        index = {name: f"{shard}/a.safetensors" for shard, arrays in weights.items() for name in arrays}
        files = {INDEX: json.dumps({"weight_map": index}).encode(), "words.json": b"w", ".words": b"hidden"}
        folder = save(tmp_path / str(version), {}, files)
        for shard, arrays in weights.items():
            save(folder / shard, {"a.safetensors": arrays})
        chain.publish(folder)
        chain.pull(tmp_path / "out")
        for shard in weights:
            assert all_tensors(tmp_path / "out" / shard) == all_tensors(folder / shard)
        weights = changed(weights, rng, 1.0 if version else 0.1)
    assert contents(tmp_path / "out").keys() == {*weights, *(f"{each}/a.safetensors" for each in weights), *files} - {
        ".words"
    }
    assert Checkout(tmp_path / "out").verify(threads=1) == (2, [])


def test_the_lock_is_free_after_an_error(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(td.MissingError):
        chain.pull(folder, 7)
    assert chain.pull(folder).version == 1
    assert tensors(folder / SECOND) == tensors(tmp_path / "checkpoints" / "1" / SECOND)
