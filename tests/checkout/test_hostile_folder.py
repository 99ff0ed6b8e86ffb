"""Folders that others prepared: whatever lies in one, nothing outside of it is read into it, written or removed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import PRIVATE, all_tensors, contents, flip, save

import tensordelta as td
from tensordelta.checkout import record
from tensordelta.checkout.checkout import Checkout
from tensordelta.format.layout import Tensor
from tensordelta.state.checkpoint import shard_header
from tensordelta.stores.anchored import Folder
from tensordelta.stores.cache import PackCache

SHARD = "model.safetensors"
SECRET = b"ssh-ed25519 AAAA the owner's key\n"

Hostile = Callable[[Path, Path], object]


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    """Version 1 changes words of version 0, version 2 has other files, version 3 is version 2 with other words."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    words = np.arange(64, dtype=np.uint16)
    chain.publish({"w": words}, files={"out/id_rsa": b"config"})
    chain.publish({"w": words + 1}, files={"out/id_rsa": b"config"})
    chain.publish({"w": words + 1, "v": words}, files={"out/authorized_keys": b"attacker's key"}, layout_change=True)
    chain.publish({"w": words, "v": words}, files={"out/authorized_keys": b"attacker's key"})
    return chain


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside, whose files nobody may touch."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("authorized_keys", "id_rsa", SHARD, "state.json", "next.json", "lock"):
        (folder / name).write_bytes(SECRET * 20)
    return folder


def seen(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    """Everything of a folder, with the time of its last change."""
    return {name: (data, (folder / name).lstat().st_mtime_ns) for name, data in contents(folder, private=True).items()}


def interrupted(chain: td.Chain, folder: Path, version: int, at: str) -> None:
    """Begin to pull a version, and die at a call."""
    with pytest.MonkeyPatch.context() as patch:
        target, name = {"move": (Checkout, "_move_over"), "patch": (Checkout, "_write_words")}[at]

        def dies(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(target, name, dies)
        with pytest.raises(KeyboardInterrupt):
            chain.pull(folder, version)


def moving(chain: td.Chain, folder: Path) -> Path:
    """A folder at version 0, in which the move to version 2 was decided and not begun."""
    chain.pull(folder, 0)
    interrupted(chain, folder, 2, "move")
    assert (folder / PRIVATE / "next.json").exists() and (folder / PRIVATE / "next" / SHARD).exists()
    return folder


def patching(chain: td.Chain, folder: Path) -> Path:
    """A folder at version 0, in which a patch to version 1 was recorded and not applied."""
    chain.pull(folder, 0)
    interrupted(chain, folder, 1, "patch")
    assert (folder / PRIVATE / "undo").exists()
    return folder


def link(name: str, target: str = "") -> Hostile:
    """What has the name becomes a link to the victim, or to something in it."""

    def act(folder: Path, victim: Path) -> None:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(victim / target if target else victim)

    return act


def second_name(name: str, target: str) -> Hostile:
    """What has the name becomes a second name of the victim's file."""

    def act(folder: Path, victim: Path) -> None:
        size = (folder / name).stat().st_size
        (folder / name).unlink()
        (victim / target).write_bytes(SECRET.ljust(size, b"x")[:size])
        os.link(victim / target, folder / name)

    return act


def pipe(name: str) -> Hostile:
    """What has the name becomes a pipe, at which a reader would wait for ever."""

    def act(folder: Path, _: Path) -> None:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return act


def decided(files: dict[str, bytes], *, change: Callable[[dict[str, object]], None] = lambda _: None) -> Hostile:
    """A decision to move to files that a pull did not build."""

    def act(folder: Path, _: Path) -> None:
        record = json.loads((folder / PRIVATE / "state.json").read_bytes())
        for name, data in files.items():
            (folder / PRIVATE / "next" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / PRIVATE / "next" / name).write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            record["files"][name] = {"size": len(data), "mtime_ns": 0, "sha256": sha256, "shard": False}
        change(record)
        (folder / PRIVATE / "next.json").write_bytes(compact(record))

    return act


def compact(record: object) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def both(*acts: Hostile) -> Hostile:
    def act(folder: Path, victim: Path) -> None:
        for each in acts:
            each(folder, victim)

    return act


def undo(**run: object) -> Hostile:
    """An undo record whose digest is right, of one run with these members; `old` are its words."""

    def act(folder: Path, _: Path) -> None:
        old = bytes(run.pop("old", b"\0" * 2))
        data = (folder / PRIVATE / "undo").read_bytes()
        magic, line, _ = data.split(b"\n", 2)
        head = json.loads(line)
        head["runs"] = [head["runs"][0] | run]
        body = magic + b"\n" + compact(head) + b"\n" + old
        (folder / PRIVATE / "undo").write_bytes(body + hashlib.sha256(body).digest())

    return act


STATE = f"{PRIVATE}/state.json"

#: A name, how the folder was left, and what was done to it.
FOLDERS: dict[str, tuple[Callable[[td.Chain, Path], Path], Hostile]] = {
    "a folder of the next files is a link": (moving, both(link("out"), link(f"{PRIVATE}/next/out"))),
    "a folder that files move to is a link": (moving, link("out")),
    "the folder of files to move is a link": (moving, link(f"{PRIVATE}/next")),
    "a file to move is a link": (moving, link(f"{PRIVATE}/next/out/authorized_keys", "authorized_keys")),
    "a shard to move is a pipe": (moving, pipe(f"{PRIVATE}/next/{SHARD}")),
    "a decision of one's own": (moving, both(link("out"), decided({"out/authorized_keys": b"attacker"}))),
    "a decision to remove": (moving, both(link("out"), decided({}, change=lambda record: record.update(files={})))),
    "a decision whose files are absent": (moving, lambda folder, _: shutil.rmtree(folder / PRIVATE / "next")),
    "a shard to patch is a link": (patching, link(SHARD, SHARD)),
    "a shard to patch has a second name": (patching, second_name(SHARD, SHARD)),
    "the record is a link": (patching, link(f"{PRIVATE}/undo", "id_rsa")),
    "the record is a pipe": (patching, pipe(f"{PRIVATE}/undo")),
    "the record writes before the words": (patching, undo(offset=0, words=64, range=[0, 1], count=1)),
    "the record writes past the words": (patching, undo(range=[63, 65], count=2, old=bytes(4))),
    "the record has an index past the words": (
        patching,
        undo(range=None, count=1, old=struct.pack("<qH", 64, 7)),
    ),
    "the record has a negative index": (patching, undo(range=None, count=1, old=struct.pack("<qH", -40, 7))),
    "the record has other words than it says": (patching, undo(range=[0, 1], count=1, old=bytes(9))),
    "the record has words of another size": (patching, undo(word="<u8", words=16, range=[0, 1], count=1, old=bytes(8))),
    "the record says a great number": (patching, undo(range=[0, 2**40], count=2**40)),
    "the state is a link": (moving, link(STATE, "state.json")),
    "the state is a pipe": (moving, pipe(STATE)),
    "the decision is a pipe": (moving, pipe(f"{PRIVATE}/next.json")),
    "the state's temporary file is a link": (moving, link(f"{STATE}.tmp", "authorized_keys")),
    "the record's temporary file is a link": (patching, link(f"{PRIVATE}/undo.tmp", "authorized_keys")),
    "the lock is a link": (moving, link(f"{PRIVATE}/lock", "lock")),
    "the private folder is a link": (moving, link(PRIVATE)),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_nothing_outside_a_folder_is_touched(chain: td.Chain, victim: Path, tmp_path: Path, case: str) -> None:
    make, act = FOLDERS[case]
    prepared = make(chain, tmp_path / "prepared")
    act(prepared, victim)
    before = seen(victim)
    folder = tmp_path / "out"
    actions: list[Callable[[], object]] = [
        lambda: Checkout(folder).verify(threads=1),
        lambda: Checkout(folder).open(chain._reader),
        lambda: chain.pull(folder, 1),
        lambda: chain.pull(folder, 3),
    ]
    for action in actions:
        shutil.rmtree(folder, ignore_errors=True)
        prepared.rename(folder)  # a copy would lose second names
        here = seen(folder)
        try:
            action()
        except td.TensorDeltaError as fault:
            assert str(folder) in fault.object
        else:
            if action is not actions[0]:
                assert not os.path.lexists(folder / PRIVATE / "next.json")
        assert seen(victim) == before
        if action is actions[0]:
            assert seen(folder) == here, "a check changes nothing"
        (folder).rename(prepared)


def test_verify_of_an_interrupted_pull_says_so_and_changes_nothing(chain: td.Chain, tmp_path: Path) -> None:
    for make, version in ((moving, 2), (patching, 0)):
        folder = make(chain, tmp_path / make.__name__)
        before = seen(folder)
        found, (fault,) = Checkout(folder).verify(threads=1)
        assert found == version and isinstance(fault, td.IntegrityError)
        assert "a pull was interrupted here" in fault.reason and "Pull again" in fault.advice
        assert seen(folder) == before
        chain.pull(folder, 3)
        assert Checkout(folder).verify(threads=1) == (3, [])


def test_verify_on_the_command_line_leaves_keys_alone(chain: td.Chain, victim: Path, tmp_path: Path) -> None:
    folder = moving(chain, tmp_path / "out")
    link("out")(folder, victim)
    before = seen(victim)
    command = [sys.executable, "-m", "tensordelta", "verify", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "a pull was interrupted here" in done.stdout + done.stderr
    assert seen(victim) == before


def test_verify_needs_no_permission_to_write(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    (folder / PRIVATE / "lock").unlink()  # as in a copy that someone made of the weights
    before = seen(folder)
    assert Checkout(folder).verify(threads=1) == (0, [])
    assert seen(folder) == before


def test_an_interrupted_pull_of_another_user_is_not_finished(chain: td.Chain, tmp_path: Path) -> None:
    for make in (moving, patching):
        folder = make(chain, tmp_path / make.__name__)
        before = seen(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
            with pytest.raises(td.ConflictError, match="another user's pull"):
                chain.pull(folder)
        (folder / PRIVATE).chmod(0o775)
        with pytest.raises(td.ConflictError, match="other users can write"):
            chain.pull(folder)
        assert {name: each for name, each in seen(folder).items() if "lock" not in name} == {
            name: each for name, each in before.items() if "lock" not in name
        }
        (folder / PRIVATE).chmod(0o755)
        assert chain.pull(folder).version == 3


def test_others_cannot_write_to_what_a_pull_makes(chain: td.Chain, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        chain.pull(tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out" / PRIVATE).stat().st_mode & 0o777 == 0o755


def test_the_cache_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "own" / "cache"
    monkeypatch.setenv("TENSORDELTA_CACHE", str(root))
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": np.zeros(4, np.uint16)})
    assert root.stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o777, 0o1777):
        root.chmod(mode)
        with pytest.raises(td.UntrustedError, match="other users can write") as caught:
            td.open(chain.address).publish({"w": np.ones(4, np.uint16)})
        assert caught.value.object == str(root) and "TENSORDELTA_CACHE" in caught.value.advice
    assert chain.versions() == [0]
    root.chmod(0o755)
    assert td.open(chain.address).publish({"w": np.ones(4, np.uint16)}).version == 1
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    if os.getuid():  # root's own files may be used by all
        with pytest.raises(td.UntrustedError):
            td.open(chain.address).publish({"w": np.ones(4, np.uint16)})


@pytest.mark.parametrize("case", ["a decision of one's own", "a shard to patch is a link", "the state is a pipe"])
def test_a_snapshot_that_another_user_prepared(chain: td.Chain, victim: Path, tmp_path: Path, case: str) -> None:
    make, act = FOLDERS[case]
    cache = Path(os.environ["TENSORDELTA_CACHE"])
    snapshot = cache / chain.id
    shutil.rmtree(snapshot)
    make(chain, snapshot)
    act(snapshot, victim)
    before = seen(victim)
    assert td.open(chain.address).publish({"w": np.ones(64, np.uint16)}, layout_change=True).version == 4
    assert seen(victim) == before
    assert chain.verify(deep=True).ok


def test_a_cache_folder_that_is_a_link_is_not_used(chain: td.Chain, victim: Path, tmp_path: Path) -> None:
    """Neither the snapshot nor the packs are looked for, or removed, in a folder that is no cache."""
    other = td.open(tmp_path / "other", create=True)
    other.publish({"w": np.zeros(4, np.uint16)})
    other.pull(tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    cache = Path(os.environ["TENSORDELTA_CACHE"])
    shutil.rmtree(cache / chain.id)
    (cache / chain.id).symlink_to(tmp_path / "mine")
    (cache / "packs").symlink_to(victim)
    before = seen(tmp_path / "mine"), seen(victim)
    with pytest.raises(td.UntrustedError, match="is a link in the place of a cache folder"):
        td.open(chain.address).publish({"w": np.ones(64, np.uint16)}, layout_change=True)
    with pytest.raises(td.UntrustedError, match="is a link in the place of a cache folder"):
        PackCache()
    assert (seen(tmp_path / "mine"), seen(victim)) == before


def test_an_undo_record_full_of_holes_is_refused_unread(chain: td.Chain, tmp_path: Path) -> None:
    folder = patching(chain, tmp_path / "out")
    os.truncate(folder / PRIVATE / "undo", 1 << 43)  # hashing that would take hours
    assert [type(each) for each in Checkout(folder).verify(threads=1)[1]] == [td.IntegrityError]
    with pytest.raises(td.IntegrityError):
        chain.pull(folder)


def test_a_deep_tree_in_the_way(chain: td.Chain, tmp_path: Path) -> None:
    """Deeper than Python recurses: the folder of files under way is removed, another one refused."""

    def deep(place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        held = os.open(place, os.O_RDONLY)
        for _ in range(1500):
            os.mkdir("d", dir_fd=held)
            held, before = os.open("d", os.O_RDONLY, dir_fd=held), held
            os.close(before)
        os.close(held)

    folder = tmp_path / "out"
    chain.pull(folder, 0)
    deep(folder / PRIVATE / "next")
    deep(folder / PRIVATE / "state.json.tmp")
    assert chain.pull(folder, 1).version == 1
    assert sorted(path.name for path in (folder / PRIVATE).iterdir()) == ["lock", "state.json"]
    deep(folder / "out" / "authorized_keys")
    with pytest.raises(OSError, match="deeper than any"):
        chain.pull(folder, 2)
    assert Checkout(folder).verify(threads=1) == (1, [])
    with Folder(folder) as opened:
        opened.remove("out")  # which pytest cannot
    assert not (folder / "out").exists()


def sparse(path: Path, kept: int) -> None:
    """A file keeps its first bytes and its size, as `cp --sparse=always` copies a file of zeros."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(data[:kept])
        file.truncate(len(data))
    assert path.stat().st_blocks * 512 < len(data)


@pytest.fixture
def big(tmp_path: Path) -> td.Chain:
    """Version 1 changes two words of two million, which are zero."""
    big = td.open(tmp_path / "big", create=True, threads=1)
    words = np.zeros(1 << 21, np.uint16)
    big.publish({"w": words})
    words[[5, 1_500_000]] += 1
    big.publish({"w": words})
    return big


def test_a_patch_of_a_sparse_file_takes_room_only_for_its_words(big: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    big.pull(folder, 0)
    sparse(folder / SHARD, 512)
    assert big.pull(folder, 1).scanned == 1 << 22
    assert (folder / SHARD).stat().st_blocks * 512 < 1 << 20
    assert big.load(1).equals(td.read_state(folder))
    assert Checkout(folder).verify(threads=1) == (1, [])


def test_a_patch_for_which_the_disk_has_no_room_is_taken_back(
    big: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    big.pull(folder, 0)
    sparse(folder / SHARD, 512)
    before = contents(folder)
    written, calls = os.pwrite, []

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 2:  # and what was written before can be written again
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            big.pull(folder, 1)
    assert len(calls) == 3, "only what was written is written back"
    assert contents(folder) == before
    assert big.pull(folder, 1).version == 1
    assert big.load(1).equals(td.read_state(folder))


# -- files that claim to be large -------------------------------------------------------------------------------------

VAST = 1 << 40


def recorded(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the record, as one who knows its form would."""
    record = json.loads((folder / STATE).read_bytes())
    change(record)
    (folder / STATE).write_bytes(compact(record))


def stamped(folder: Path, record: dict[str, Any], name: str) -> None:
    status = (folder / name).stat()
    record["files"][name].update(
        size=status.st_size, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, inode=status.st_ino
    )


def vast(folder: Path, words: int = VAST) -> None:
    """The only tensor has a vast number of words, all zero, in a file of holes; the record agrees."""
    header = shard_header([Tensor("w", "U8", (words,))], {"format": "pt"})
    with (folder / SHARD).open("wb") as file:
        file.write(header)
        file.truncate(len(header) + words)

    def change(record: dict[str, Any]) -> None:
        record["tensors"] = [{"name": "w", "dtype": "U8", "shape": [words]}]
        record["sums"] = "00" * 8
        stamped(folder, record, SHARD)
        record["files"][SHARD]["sha256"] = hashlib.sha256(header).hexdigest()

    recorded(folder, change)


@pytest.mark.parametrize("rest", [0, 1])
def test_a_shard_of_holes_takes_neither_time_nor_memory(chain: td.Chain, tmp_path: Path, rest: int) -> None:
    """Reading it, or mapping it in a file system in memory, would take hours and all memory."""
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    vast(folder, VAST + rest)
    assert Checkout(folder).verify(threads=2) == (0, [])
    assert chain.pull(folder, 1, scan=True).repaired == ("the folder's record is not that of version 0",)
    assert Checkout(folder).verify(threads=1) == (1, [])


def test_a_shard_of_holes_with_a_word_at_its_end(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    vast(folder)
    flip(folder / SHARD)
    (fault,) = Checkout(folder).verify(threads=2)[1]
    assert isinstance(fault, td.WrongBaseError) and "other words (w)" in fault.reason


def test_a_file_of_holes_is_not_hashed(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    os.truncate(folder / "out" / "id_rsa", VAST)
    recorded(folder, lambda record: stamped(folder, record, "out/id_rsa"))
    (fault,) = Checkout(folder).verify(threads=1)[1]
    assert isinstance(fault, td.WrongBaseError) and "out/id_rsa is not as it was pulled" in fault.reason
    assert chain.pull(folder, 1, scan=True).repaired
    assert Checkout(folder).verify(threads=1) == (1, [])


def test_an_undo_record_of_holes_is_not_hashed(chain: td.Chain, tmp_path: Path) -> None:
    folder = patching(chain, tmp_path / "out")
    undo(range=[0, 1], count=1, words=VAST)(folder, tmp_path)
    path = folder / PRIVATE / "undo"
    body = path.read_bytes().replace(b'"range":[0,1]', b'"range":[0,%d]' % (VAST // 4))
    body = body.replace(b'"count":1', b'"count":%d' % (VAST // 4))[: -2 - 32]
    path.write_bytes(body)
    os.truncate(path, len(body) + VAST // 2 + 32)
    (fault,) = Checkout(folder).verify(threads=1)[1]
    assert isinstance(fault, td.IntegrityError) and "mostly holes" in fault.reason
    with pytest.raises(td.IntegrityError, match="mostly holes"):
        chain.pull(folder)


def test_a_state_of_holes_is_not_read(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    os.truncate(folder / STATE, VAST)
    for action in (lambda: Checkout(folder).verify(threads=1), lambda: chain.pull(folder)):
        with pytest.raises(td.IntegrityError, match="longer than any"):
            action()


def test_a_state_for_which_the_machine_has_no_memory(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed, it takes several times its size; a pull writes none that cannot be read again."""
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    size = (folder / STATE).stat().st_size
    monkeypatch.setattr(record, "default_memory", lambda: 10 * size - 1)
    for action in (lambda: Checkout(folder).verify(threads=1), lambda: chain.pull(folder)):
        with pytest.raises(td.LimitError, match="too little memory") as caught:
            action()
        assert caught.value.object == str(folder / STATE)
    with pytest.raises(td.LimitError, match="too little memory"):
        chain.pull(tmp_path / "other", 0)
    assert not (tmp_path / "other" / SHARD).exists()
    monkeypatch.setattr(record, "default_memory", lambda: 10 * size)
    assert Checkout(folder).verify(threads=1) == (0, [])


ROWS: dict[str, Callable[[int], dict[str, object]]] = {
    "tensors": lambda number: {"name": f"{number:04x}", "dtype": "U8", "shape": [1]},
    "tensors of many dimensions": lambda number: {"name": f"{number:04x}", "dtype": "U8", "shape": [1] * 16},
    "files": lambda number: {f"{number:04x}": {"size": 0, "mtime_ns": 0, "sha256": "0" * 64, "shard": False}},
    "files in many folders": lambda number: {
        f"{number:04x}/" + "a/" * 90: {"size": 0, "mtime_ns": 0, "sha256": "0" * 64, "shard": False}
    },
}


@pytest.mark.parametrize("rows", ROWS)
def test_the_memory_that_a_state_takes_is_bounded_by_its_size(chain: td.Chain, tmp_path: Path, rows: str) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)

    def change(found: dict[str, Any]) -> None:
        many = [ROWS[rows](number) for number in range(3000)]
        if rows.startswith("files"):
            found.update(tensors=[], sums="")
            found["files"] = {name.rstrip("/"): file for each in many for name, file in each.items()}
        else:
            found.update(tensors=many, sums="00" * 8 * len(many))

    recorded(folder, change)
    size = (folder / STATE).stat().st_size
    with Folder(folder / PRIVATE) as private:
        tracemalloc.start()
        try:
            held = record.Holding.read(private, "state.json")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held is not None and size * 2 < peak < size * record._PARSED


def test_a_header_that_says_more_than_the_record_is_not_parsed(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    data = (folder / SHARD).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip().ljust(10_000)
    (folder / SHARD).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])

    def change(record: dict[str, Any]) -> None:
        stamped(folder, record, SHARD)
        digest = hashlib.sha256(len(header).to_bytes(8, "little") + header).hexdigest()
        record["files"][SHARD]["sha256"] = digest

    recorded(folder, change)
    monkeypatch.setattr("tensordelta.checkout.shards.parse_header", None)
    (fault,) = Checkout(folder).verify(threads=1)[1]
    assert isinstance(fault, td.WrongBaseError) and "longer than any that a pull writes" in fault.reason


# -- files that change while they are used ----------------------------------------------------------------------------

TRUNCATED = """
import os, sys
import numpy as np
import tensordelta as td
from tensordelta.checkout import checkout, examination, undo
from tensordelta.checkout.checkout import Checkout
from tensordelta.read.prepare import Preparation

where, address, folder = sys.argv[1:]
shard = folder + "/model.safetensors"
places = {
    "scan": (examination.fingerprint, "scan"),
    "prepare": (Preparation, "decode"),
    "undo": (checkout, "undo_record"),
    "words": (Checkout, "_write_words"),
}
target, name = places[where]
real = getattr(target, name)

def truncated(*arguments, **more):
    os.truncate(shard, 4096)  # another process; a read of a map would end this one
    return real(*arguments, **more)

setattr(target, name, truncated)
chain = td.open(address, threads=1)
if where == "scan":
    print([type(each).__name__ for each in Checkout(folder).verify(threads=1)[1]])
else:
    try:
        chain.pull(folder, 1, scan=False)
    except td.WrongBaseError as fault:
        print([type(fault).__name__])
"""


@pytest.mark.parametrize("where", ["scan", "prepare", "undo", "words"])
def test_a_shard_that_is_truncated_meanwhile(tmp_path: Path, where: str) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 5 << 20, np.uint16)
    chain.publish({"w": words})
    words[::4096] += 1
    chain.publish({"w": words})
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    command = [sys.executable, "-c", TRUNCATED, where, chain.address, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == "['WrongBaseError']\n"
    assert (folder / SHARD).stat().st_size == 4096
    with pytest.raises(td.WrongBaseError, match="has 4096 bytes"):
        chain.pull(folder, 1)


def test_a_shard_that_is_replaced_meanwhile(chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    write = Checkout._write_words

    def replaced(*arguments: Any) -> None:
        shutil.copy2(folder / SHARD, folder / "new")
        (folder / "new").replace(folder / SHARD)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkout, "_write_words", replaced)
        with pytest.raises(td.WrongBaseError, match=f"{SHARD} was changed meanwhile"):
            chain.pull(folder, 1)
    assert chain.pull(folder, 1).version == 1
    assert Checkout(folder).verify(threads=1) == (1, [])


# -- devices and descriptors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state.json", "undo", "lock"])
def test_what_is_no_file_is_not_opened(
    chain: td.Chain, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a device may do something, such as rewinding a tape."""
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    pipe(f"{PRIVATE}/{name}")(folder, tmp_path)
    opened: list[int] = []
    real = os.open

    def noted(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        if path == name:
            opened.append(flags & os.O_PATH)
        return real(path, flags, *arguments, **more)

    monkeypatch.setattr(os, "open", noted)
    with pytest.raises(td.IntegrityError, match="no regular file"):
        chain.pull(folder)
    assert opened and all(opened)


def test_an_object_that_is_no_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": np.ones(4, np.uint16)})
    (pack,) = (tmp_path / "chain" / "packs").iterdir()
    pack.unlink()
    os.mkfifo(pack)
    opened: list[int] = []
    real = os.open

    def noted(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        if str(path).endswith(pack.name):
            opened.append(flags & os.O_PATH)
        return real(path, flags, *arguments, **more)

    monkeypatch.setattr(os, "open", noted)
    with pytest.raises(td.MissingError):
        td.open(tmp_path / "chain").load()
    assert opened and all(opened)


FEW = """
import resource, sys
import tensordelta as td
chain = td.open(sys.argv[1], threads=1)
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
assert chain.pull(sys.argv[2], 1, scan=True).route == ("manifests/000000000001.json",)
assert td.Checkout(sys.argv[2]).verify(threads=1) == (1, [])
"""


def test_many_shards_take_few_descriptors(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for add in (0, 1):
        arrays = {f"{number:03}": np.arange(9, dtype=np.uint16) + add for number in range(100)}
        shards = {f"model-{name}.safetensors": {name: array} for name, array in arrays.items()}
        chain.publish(save(tmp_path / str(add), shards))
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    subprocess.run([sys.executable, "-c", FEW, chain.address, str(folder)], check=True)
    assert all_tensors(folder) == all_tensors(tmp_path / "1")
