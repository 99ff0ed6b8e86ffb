"""Pulled folders that were changed after the pull: their files, and the private ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkouts import FIRST, SECOND, refused
from folders import INDEX, PRIVATE, all_tensors, contents, flip

import tensordelta as td
from tensordelta.checkout.checkout import Checkout

# -- folders that someone else changed ---------------------------------------------------------------------------------


def same_size(path: Path) -> None:
    """Change a shard's header, but neither its tensors nor its size."""
    data = path.read_bytes()
    assert data.count(b'"format":"pt"') == 1
    path.write_bytes(data.replace(b'"format":"pt"', b'"format":"np"'))


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
    "word": (lambda folder: flip(folder / SECOND), "of model-00002-of-00002.safetensors have other words (head)"),
    "truncated": (lambda folder: os.truncate(folder / FIRST, 100), "has 100 bytes"),
    "longer": (lambda folder: os.truncate(folder / FIRST, 10_000), "has 10000 bytes"),
    "empty": (lambda folder: os.truncate(folder / FIRST, 0), "has 0 bytes"),
    "removed": (lambda folder: (folder / FIRST).unlink(), "is gone"),
    "replaced": (lambda folder: swapped(folder / SECOND), "other words"),
    "linked": (lambda folder: linked(folder / SECOND), "no longer a file of its own"),
    "folder": (lambda folder: (folder / FIRST).unlink() or (folder / FIRST).mkdir(), "no longer a file of its own"),
    "header": (lambda folder: same_size(folder / FIRST), f"the header of {FIRST}"),
    "header, length": (lambda folder: flip(folder / FIRST, 5), f"{FIRST}: a header of"),
    "header, and a word elsewhere": (
        lambda folder: flip(folder / FIRST, 9, restore_time=True) or flip(folder / SECOND),
        f"the header of {FIRST}",
    ),
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
        assert reason in fault.reason and "the folder was changed after the pull" in fault.reason
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


def test_a_touched_folder_is_scanned_once(chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensordelta.checkout.checkout._SETTLED", 0)
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    size = 30 * 4 * 2 + 6 * 4 + 4 * 30 * 4
    assert chain.pull(folder, 0).scanned == 0
    past = time.time_ns() - 10**10
    changes: list[Callable[[], object]] = [
        lambda: os.utime(folder / FIRST, ns=(past, past)),
        lambda: (folder / SECOND).chmod(0o600),  # another change time
        lambda: (shutil.copy2(folder / FIRST, folder / "new"), (folder / "new").replace(folder / FIRST)),
    ]
    for change in changes:
        change()
        assert [chain.pull(folder, 0).scanned for _ in range(2)] == [size, 0]
        change()
        pulled = chain.pull(folder, 1)
        assert (pulled.route, pulled.scanned) == (("manifests/000000000001.json",), size)
        assert [chain.pull(folder, version).scanned for version in (1, 0)] == [0, 0]
    # A file of this very moment might change again within its time, so it is scanned until it has aged.
    monkeypatch.setattr("tensordelta.checkout.checkout._SETTLED", 10**12)
    (folder / FIRST).touch()
    assert [chain.pull(folder, 0).scanned for _ in range(2)] == [size, size]


def test_a_folder_of_an_earlier_package(chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record has neither change times nor inodes: it is scanned, and they are noted."""
    monkeypatch.setattr("tensordelta.checkout.checkout._SETTLED", 0)
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    record = json.loads((folder / PRIVATE / "state.json").read_bytes())
    for file in record["files"].values():
        del file["ctime_ns"], file["inode"]
    data = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
    (folder / PRIVATE / "state.json").write_bytes(data)
    assert Checkout(folder).verify(threads=1) == (0, [])
    assert [chain.pull(folder, 0).scanned > 0 for _ in range(2)] == [True, False]


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
    write = Checkout._write_words

    def interrupted(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkout, "_write_words", interrupted)
        patch.setattr("tensordelta.checkout.checkout.write_back", lambda *_: None)  # as when the process is killed
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
