"""Folders that others prepared: whatever lies in one, nothing outside of it is read into it, written or removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from folders import PRIVATE, contents

import tensordelta as td
from tensordelta.checkout.anchored import Folder
from tensordelta.checkout.checkout import Checkout
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
    chain.publish({"w": words + 1, "v": words}, files={"out/authorized_keys": b"attacker's key"})
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
    assert td.open(chain.address).publish({"w": np.ones(64, np.uint16)}).version == 4
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
        td.open(chain.address).publish({"w": np.ones(64, np.uint16)})
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


def test_a_patch_of_a_sparse_file_takes_its_room_first(chain: td.Chain, tmp_path: Path) -> None:
    big = td.open(tmp_path / "big", create=True, threads=1)
    words = np.zeros(1 << 20, np.uint16)
    big.publish({"w": words})
    words[::1000] += 1
    big.publish({"w": words})
    big.pull(tmp_path / "out", 0)
    data = (tmp_path / "out" / SHARD).read_bytes()
    with (tmp_path / "out" / SHARD).open("r+b") as file:  # as `cp --sparse=always` makes it
        file.truncate(0)
        file.write(data[:512])
        file.truncate(len(data))
    assert (tmp_path / "out" / SHARD).stat().st_blocks * 512 < len(data)
    big.pull(tmp_path / "out", 1)
    status = (tmp_path / "out" / SHARD).stat()
    assert status.st_blocks * 512 >= status.st_size
    assert big.load(1).equals(td.read_state(tmp_path / "out"))
