"""Pulled folders: what they hold, and what they refuse."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from folders import INDEX, PRIVATE, all_tensors, changed, contents, flip, save, tensors
from safetensors import safe_open
from safetensors.numpy import load_file

import tensordelta as td
from tensordelta.checkout import staging
from tensordelta.checkout.checkout import Checkout
from tensordelta.checkout.record import Holding
from tensordelta.state.update import Update

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = {"config.json": b'{"a": 1}', "1_Pooling/config.json": b"{}"}


def shards() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {
        FIRST: {"embed": rng.normal(size=(30, 4)).astype(ml_dtypes.bfloat16), "norm": np.ones(6, np.float32)},
        SECOND: {"head": rng.normal(size=(4, 30)).astype(np.float32)},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chain and its `checkpoints/V`: version 1 changes a few words of version 0."""
    root = tmp_path_factory.mktemp("world")
    first = shards()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path_factory.mktemp("world-cache")))
        chain = td.open(root / "chain", create=True, threads=1)
        chain.publish(save(root / "checkpoints" / "0", first, FILES))
        chain.publish(save(root / "checkpoints" / "1", changed(first, np.random.default_rng(2), 0.05), FILES))
    return root


@pytest.fixture
def chain(world: Path, tmp_path: Path) -> td.Chain:
    """A copy of that chain, and of the checkpoints, in the test's own folder."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    return td.open(tmp_path / "chain", threads=1)


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.safetensors")}


def refused(
    kind: type[td.TensorDeltaError], chain: td.Chain, folder: Path, version: int | None = None
) -> td.TensorDeltaError:
    """Pull, and expect it to be refused without a change to the folder."""
    before = contents(folder, private=True)
    with pytest.raises(kind) as caught:
        chain.pull(folder, version)
    after = contents(folder, private=True)
    after.pop(f"{PRIVATE}/lock", None)
    before.pop(f"{PRIVATE}/lock", None)
    assert after == before
    assert str(folder) in caught.value.object
    return caught.value


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
    chain.publish(arrays)
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
    chain.publish({"w": np.ones(3, np.float32)})
    chain.publish({})
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
    chain.publish({"w": np.ones(3, np.float32)}, files={})
    chain.pull(tmp_path / "out")
    assert contents(tmp_path / "out").keys() == {"1_Pooling", "1_Pooling/notes.txt", "model.safetensors"}


# -- folders that someone else changed ---------------------------------------------------------------------------------


def same_size(path: Path, *, restore_time: bool) -> None:
    """Change a shard's header, but neither its tensors nor its size."""
    status = path.stat()
    data = path.read_bytes()
    assert data.count(b'"format":"pt"') == 1
    path.write_bytes(data.replace(b'"format":"pt"', b'"format":"np"'))
    if restore_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swapped(path: Path) -> None:
    """Put another file of the same size in a file's place."""
    data = path.read_bytes()
    path.with_name("new").write_bytes(data[:-8] + bytes(8))
    path.with_name("new").replace(path)


def linked(path: Path) -> None:
    """Move a file elsewhere and leave a link to it."""
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "word": (lambda folder: flip(folder / SECOND), "other words (head)"),
    "truncated": (lambda folder: os.truncate(folder / FIRST, 100), "has 100 bytes"),
    "longer": (lambda folder: os.truncate(folder / FIRST, 10_000), "has 10000 bytes"),
    "empty": (lambda folder: os.truncate(folder / FIRST, 0), "has 0 bytes"),
    "removed": (lambda folder: (folder / FIRST).unlink(), "is gone"),
    "replaced": (lambda folder: swapped(folder / SECOND), "other words"),
    "linked": (lambda folder: linked(folder / SECOND), "no longer a file of its own"),
    "folder": (lambda folder: (folder / FIRST).unlink() or (folder / FIRST).mkdir(), "no longer a file of its own"),
    "header": (lambda folder: same_size(folder / FIRST, restore_time=False), f"the header of {FIRST}"),
    "header, same time": (lambda folder: same_size(folder / FIRST, restore_time=True), f"the header of {FIRST}"),
    "header, not JSON": (lambda folder: flip(folder / FIRST, 8, restore_time=True), f"{FIRST}: the header"),
    "header, length": (lambda folder: flip(folder / FIRST, 5, restore_time=True), f"{FIRST}: a header of"),
    "config": (lambda folder: flip(folder / "config.json"), "config.json is not as it was pulled"),
    "config removed": (lambda folder: shutil.rmtree(folder / "1_Pooling"), "1_Pooling/config.json is gone"),
    "index": (lambda folder: (folder / INDEX).write_text("{}"), "bytes, not"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_someone_else_changed(chain: td.Chain, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    act, reason = CHANGES[change]
    act(folder)
    for version in (0, 1):
        fault = refused(td.WrongBaseError, chain, folder, version)
        assert reason in fault.reason and "someone else changed the folder" in fault.reason
        assert fault.rule == "TD-RDR-003"
    version, faults = Checkout(folder).verify(threads=1)
    assert version == 0
    assert [(type(each), reason in each.reason) for each in faults] == [(td.WrongBaseError, True)]


@pytest.mark.parametrize("name", [SECOND, "config.json"])
def test_a_change_that_keeps_size_and_time_is_found_by_a_scan(chain: td.Chain, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    flip(folder / name, restore_time=True)
    version, faults = Checkout(folder).verify(threads=1)
    assert version == 0
    assert [type(fault) for fault in faults] == [td.WrongBaseError]
    assert ("head" if name == SECOND else name) in faults[0].reason


def test_a_changed_word_that_a_delta_reads_is_found(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    words = np.arange(100, dtype=np.int32)
    chain.publish({"w": words})
    words[-1] += 1
    chain.publish({"w": words}, values="replace")
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    flip(folder / "model.safetensors", -4, restore_time=True)
    before = contents(folder)
    with pytest.raises(td.IntegrityError):
        chain.pull(folder)
    assert contents(folder) == before
    assert not (folder / PRIVATE / "next").exists()


def test_a_touched_folder_is_scanned_once(chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    past = time.time_ns() - 10**10
    for name in (FIRST, SECOND, "config.json"):
        os.utime(folder / name, ns=(past, past))
    scans: list[int] = []
    scan = Holding.scan
    monkeypatch.setattr(Holding, "scan", lambda *args, **more: scans.append(1) or scan(*args, **more))
    assert chain.pull(folder, 0).route == ()
    assert len(scans) == 1
    assert chain.pull(folder, 0).route == ()
    assert chain.pull(folder, 1).route == ("manifests/000000000001.json",)
    assert len(scans) == 1
    assert all_tensors(folder) == all_tensors(tmp_path / "checkpoints" / "1")
    # A file of this very moment might change again within its time, so it is scanned until it has aged.
    (folder / FIRST).touch()
    chain.pull(folder)
    chain.pull(folder)
    assert len(scans) == 3


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
        each.communicate(timeout=60)
        assert each.returncode == 0
    chain.pull(tmp_path / "out")
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "checkpoints" / "1")


# -- private files -----------------------------------------------------------------------------------------------------


def edited(key: str, value: object) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        return json.dumps({**json.loads(data), key: value}).encode()

    return edit


FILE = {"size": 4, "mtime_ns": 0, "sha256": "0" * 64, "shard": False}

GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "no JSON": lambda data: b"x" + data,
    "no UTF-8": lambda data: data.replace(b"config", b"\xff\xfe"),
    "cut short": lambda data: data[:-20],
    "empty": lambda _: b"{}",
    "a list": lambda _: b"[1]",
    "a version below 0": edited("version", -1),
    "a version that is a string": edited("version", "0"),
    "no chain id": edited("chain", "../x"),
    "too few sums": edited("sums", "00" * 8),
    "no sums": edited("sums", "zz" * 24),
    "a dtype": edited("tensors", [{"name": "embed", "dtype": "F31", "shape": [1]}]),
    "a shape": edited("tensors", [{"name": "embed", "dtype": "F32", "shape": [-1]}]),
    "a path that leads out": edited("files", {"../victim": FILE}),
    "an absolute path": edited("files", {"/tmp/victim": FILE}),
    "a private path": edited("files", {".tensordelta/lock": FILE}),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", ["state.json", "next.json"])
def test_a_garbled_private_file(chain: td.Chain, tmp_path: Path, name: str, garbage: str) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    (tmp_path / "victim").write_text("mine")
    state = folder / PRIVATE / "state.json"
    good = state.read_bytes()
    (folder / PRIVATE / name).write_bytes(GARBAGE[garbage](good))
    fault = refused(td.IntegrityError, chain, folder)
    assert fault.object == str(folder / PRIVATE / name) and fault.rule == "TD-APP-005"
    with pytest.raises(td.IntegrityError):
        Checkout(folder).verify(threads=1)
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_lost_state_is_not_taken_for_an_empty_folder(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    (folder / PRIVATE / "state.json").unlink()
    before = contents(folder)
    with pytest.raises(td.ConflictError, match="is in the way"):
        chain.pull(folder)
    assert contents(folder) == before


@pytest.fixture
def broken(chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at version 0 of which a pull of version 1 was interrupted when the words were written."""
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    apply = Update.apply

    def interrupted(self: Update, **more: int) -> None:
        apply(self, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Update, "apply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            chain.pull(folder)
    assert (folder / PRIVATE / "undo").exists()
    assert all_tensors(folder) == all_tensors(tmp_path / "checkpoints" / "1")
    return folder


def test_the_undo_record_takes_back_an_interrupted_pull(chain: td.Chain, tmp_path: Path, broken: Path) -> None:
    state = Checkout(broken).open(chain._reader)
    assert state is not None and state.version == 0
    assert all_tensors(broken) == all_tensors(tmp_path / "checkpoints" / "0")
    assert not (broken / PRIVATE / "undo").exists()
    assert chain.pull(broken).route == ("manifests/000000000001.json",)
    assert all_tensors(broken) == all_tensors(tmp_path / "checkpoints" / "1")


def resealed(data: bytes, old: bytes, new: bytes) -> bytes:
    """Another record, whose digest is right."""
    assert old in data
    body = data[:-32].replace(old, new)
    return body + hashlib.sha256(body).digest()


RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "another format": lambda data: b"tensordelta undo 9\n" + data[19:],
    "no line": lambda data: data.replace(b"\n", b" "),
    "cut short": lambda data: data[:-1],
    "cut short by a word": lambda data: data[:-40] + data[-32:],
    "longer": lambda data: data + b"\0",
    "magic alone": lambda data: data[:19],
    "a head that is no JSON": lambda data: resealed(data, b'{"version"', b'["version"'),
    "a head without runs": lambda data: resealed(data, b'"runs"', b'"rums"'),
    "a path that leads out": lambda data: resealed(data, SECOND.encode(), b"../victim"),
    "a file of none": lambda data: resealed(data, SECOND.encode(), b"model.safetensors"),
}


@pytest.mark.parametrize("record", RECORDS)
def test_a_garbled_undo_record(chain: td.Chain, tmp_path: Path, broken: Path, record: str) -> None:
    (tmp_path / "victim").write_bytes(bytes(1000))
    undo = broken / PRIVATE / "undo"
    good = undo.read_bytes()
    undo.write_bytes(RECORDS[record](good))
    fault = refused(td.IntegrityError, chain, broken)
    assert fault.object == str(undo) and fault.rule == "TD-APP-005"
    assert (tmp_path / "victim").read_bytes() == bytes(1000)
    undo.write_bytes(good)
    assert chain.pull(broken).version == 1


def test_a_flipped_bit_of_the_undo_record(chain: td.Chain, broken: Path) -> None:
    undo = broken / PRIVATE / "undo"
    good = undo.read_bytes()
    before = contents(broken)
    for at in (0, 25, len(good) // 2, len(good) - 40, len(good) - 1):
        undo.write_bytes(good)
        flip(undo, at)
        with pytest.raises(td.IntegrityError):
            chain.pull(broken)
    assert contents(broken) == before


@pytest.mark.parametrize("change", ["truncated", "removed", "linked"])
def test_a_shard_changed_before_it_is_taken_back(chain: td.Chain, broken: Path, change: str) -> None:
    CHANGES[change][0](broken)
    refused(td.WrongBaseError, chain, broken)


# -- pulls that fail ---------------------------------------------------------------------------------------------------


def packs(chain: td.Chain, version: int) -> list[Path]:
    return [Path(chain.address, str(entry.path)) for entry in chain.manifest(version).packs]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("harm", ["removed", "flipped"])
def test_a_pull_that_fails_changes_nothing(chain: td.Chain, tmp_path: Path, version: int, harm: str) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    chain.publish({"w": np.ones(1000, np.float32)}, full=True)
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
