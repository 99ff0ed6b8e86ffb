"""Places where little is allowed: read-only folders, file systems without locks or maps, users without a home."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from forks import run

import tensordelta as td
from tensordelta.checkout.checkout import Checkout
from tensordelta.write.snapshot import snapshot_folder


def weights(step: int) -> td.State:
    return td.State.from_arrays({"w": np.arange(60_000, dtype=np.float32) + (np.arange(60_000) < step)})


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(2):
        chain.publish(weights(step))
    return chain


# -- read-only ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def read_only(chain: td.Chain, tmp_path: Path) -> Iterator[Path]:
    """A mount that holds a pulled folder `out` of version 1, and a copy of the chain."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here; test_a_folder_of_another_user needs none")
    try:
        chain.pull(disk / "out")
        shutil.copytree(chain.address, disk / "chain")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_what_only_reads_writes_nothing(read_only: Path, chain: td.Chain) -> None:
    folder = read_only / "out"
    assert Checkout(folder).verify(threads=1) == (1, [])
    for version in (None, 1):
        pulled = chain.pull(folder, version)
        assert (pulled.version, pulled.route) == (1, ())
    assert next(chain.follow_folder(folder, timeout=0)).version == 1
    inside = td.open(read_only / "chain", create=True, threads=1)
    assert inside.verify(deep=True).ok and inside.load().equals(weights(1)) and inside.plan().version == 1
    assert len(inside.log()) == 2 and inside.pull(folder).version == 1


def test_a_read_only_folder_that_lost_words_is_refused(read_only: Path, chain: td.Chain) -> None:
    """It cannot be repaired there."""
    file = read_only / "out/model.safetensors"
    status = file.stat()
    subprocess.run(["mount", "-o", "remount,rw", str(read_only)], check=True)
    with file.open("r+b") as opened:
        opened.seek(-5, os.SEEK_END)
        opened.write(b"\xff")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    subprocess.run(["mount", "-o", "remount,ro", str(read_only)], check=True)
    with pytest.raises(td.WrongBaseError, match="have other words"):
        td.open(chain.address).pull(read_only / "out", scan=True)


def test_what_has_to_write_names_the_file(read_only: Path, chain: td.Chain) -> None:
    for attempt in (
        lambda: chain.pull(read_only / "out", 0),
        lambda: chain.pull(read_only / "new"),
        lambda: td.open(read_only / "chain").publish(weights(2)),
        lambda: td.open(read_only / "chain").pin(1, "name"),
        lambda: weights(0).save(read_only / "out.safetensors"),
    ):
        with pytest.raises(OSError, match=str(read_only)) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS


def test_a_read_only_cache(read_only: Path, chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing goes on."""
    monkeypatch.setenv("TENSORDELTA_CACHE", str(read_only / "cache"))
    writer = td.open(chain.address, threads=1)
    assert [writer.publish(weights(step)).base for step in (2, 3)] == [1, 2]
    assert td.open(chain.address).verify(deep=True).ok


def test_a_folder_of_another_user(chain: td.Chain) -> None:
    """As a user without rights: a pull with nothing to do, and a check."""
    if os.geteuid():
        pytest.skip("only root becomes another user")
    program = """
from tensordelta.checkout.checkout import Checkout
os.environ["TENSORDELTA_CACHE"] = "/nowhere/cache"
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
print(Checkout(sys.argv[2]).verify(threads=1), td.open(sys.argv[1], threads=1).pull(sys.argv[2]).version)
try:
    td.open(sys.argv[1]).pull(sys.argv[2], 0)
except PermissionError as error:
    print(error.filename)
"""
    with tempfile.TemporaryDirectory() as place:  # those of pytest are closed to other users
        Path(place).chmod(0o755)
        folder = Path(place, "out")
        chain.pull(folder)
        shutil.copytree(chain.address, Path(place, "chain"))
        done = run(program, Path(place, "chain"), folder)
    assert done.stdout.splitlines() == ["(1, []) 1", str(folder / ".tensordelta" / "lock")], done.stderr


# -- without locks, maps, room, a home ---------------------------------------------------------------------------------


def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)


def _no_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_map(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", no_map)


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)


def _a_file_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Path(os.environ["TENSORDELTA_CACHE"])
    shutil.rmtree(cache)
    cache.write_bytes(b"")


SPOILT = [_no_locks, _no_maps, _no_room, _a_file_in_the_way]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_cache_that_cannot_be_used(
    chain: td.Chain, spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Publishing goes on, as deltas, and says which file could not be used, and what to set."""
    cache = os.environ["TENSORDELTA_CACHE"]
    shutil.rmtree(snapshot_folder(chain.id))
    spoil(monkeypatch)
    writer = td.open(chain.address, threads=1)
    assert [writer.publish(weights(step)).base for step in (2, 3)] == [1, 2]
    assert cache in caplog.text and "TENSORDELTA_CACHE" in caplog.text
    monkeypatch.undo()
    reader = td.open(chain.address, threads=1)
    assert reader.load().equals(weights(3)) and reader.load(2).equals(weights(2))


def test_neither_cache_nor_memory(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full version needs neither."""
    shutil.rmtree(snapshot_folder(chain.id))
    _no_room(monkeypatch)
    monkeypatch.setattr("tensordelta.write.snapshot.free_memory", lambda: 0)
    writer = td.open(chain.address, threads=1)
    assert writer.publish(weights(2)).base is None
    monkeypatch.undo()
    assert writer.publish(weights(3)).base == 2
    assert td.open(chain.address).verify(deep=True).ok


@pytest.mark.parametrize(("spoil", "says"), [(_no_locks, "no locks"), (_no_maps, "map"), (_no_room, "No space")])
def test_a_folder_that_cannot_be_used(
    chain: td.Chain, spoil: Callable[[pytest.MonkeyPatch], None], says: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    with monkeypatch.context() as spoilt:
        spoil(spoilt)
        with pytest.raises(OSError, match=says) as caught:
            chain.pull(tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value)
    chain.pull(tmp_path / "out")
    _no_locks(monkeypatch)
    assert Checkout(tmp_path / "out").verify(threads=1) == (1, [])


def test_a_user_without_a_home(chain: td.Chain, tmp_path: Path) -> None:
    program = """
import pwd
for name in ("HOME", "TENSORDELTA_CACHE", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)

def nobody(uid):
    raise KeyError(uid)

pwd.getpwuid = nobody
chain = td.open(sys.argv[1])
print([chain.publish({"w": chain.load()["w"] + 1}).base for _ in range(2)], chain.verify().ok)
for use in (lambda: td.open("~/chain"), lambda: td.open(sys.argv[1], key="~/key"), lambda: chain.shortcut(0, 3)):
    try:
        use()
    except OSError as error:
        print(error)
with chain.publisher(skip=(2,)) as publisher:
    print(publisher.submit({"w": chain.load()["w"] + 1}).result().version)
"""
    done = run(program, chain.address)
    assert not done.returncode, done.stderr
    published, *errors, version = done.stdout.splitlines()
    assert published.startswith("[1, 2] True") and version == "4"
    assert len(errors) == 3 and all("no home" in error for error in errors)
    assert "'~/chain'" in errors[0] and "'~/key'" in errors[1] and "TENSORDELTA_CACHE" in errors[2]
    assert "TENSORDELTA_CACHE" in done.stderr, "so it is said why a shortcut was not made"
