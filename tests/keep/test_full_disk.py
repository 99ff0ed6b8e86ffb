"""Collecting on a disk that is full, which is when it is called for."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tensordelta as td
from tensordelta.cli import main


class FullStore(td.FolderStore):
    """A folder on a disk that has no room for another byte."""

    code = errno.ENOSPC

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        raise OSError(self.code, os.strerror(self.code), str(self.root / name))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A chain of four versions; the last two can be rebuilt without the others. The last one is two hours younger."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    words = np.arange(1000, dtype=np.uint16)
    for version in range(4):
        words[version] += 1
        chain.publish({"w": words}, full=version == 2)
    newest = (tmp_path / "chain" / "manifests").glob("*3.json")
    latest = max(path.stat().st_mtime for path in (tmp_path / "chain").rglob("*"))
    for path in newest:
        os.utime(path, (latest + 7200,) * 2)
    return tmp_path / "chain"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_collector_frees_room_where_there_is_none(root: Path, code: int) -> None:
    store = FullStore(root)
    store.code = code
    done = td.open(store, threads=1).collect(2, grace=0)
    assert done.dropped == [0, 1] and done.objects
    chain = td.open(root)
    assert chain.versions() == [2, 3] and chain.verify(deep=True).ok


def test_copies_for_readers_need_room(root: Path) -> None:
    before = sorted(path for path in root.rglob("*") if path.is_file())
    with pytest.raises(OSError) as caught:
        td.open(FullStore(root), threads=1).collect(2)
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before


def test_what_was_dropped_earlier_gives_room_to_copies(root: Path) -> None:
    """With a grace period, too: what nobody has needed for longer than that goes first."""

    class Filled(FullStore):
        """A disk that has room once a pack was deleted."""

        full = True

        def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
            super().put(name, parts) if self.full else td.FolderStore.put(self, name, parts)

        def delete(self, name: str) -> None:
            super().delete(name)
            self.full = self.full and not name.startswith("packs/")

    garbage = root / "packs" / f"{'0' * 64}-{'0' * 16}.safetensors"
    garbage.write_bytes(bytes(1000))
    long_ago = garbage.stat().st_mtime - 2 * 86_400
    os.utime(garbage, (long_ago, long_ago))
    done = td.open(Filled(root), threads=1).collect(2)
    assert done.dropped == [0, 1] and not garbage.exists()
    assert sorted(path.name for path in root.glob("retired/manifests/*")) == ["000000000000.json", "000000000001.json"]
    chain = td.open(root)
    assert chain.versions() == [2, 3] and chain.verify(deep=True).ok


def test_another_failure_is_said(root: Path) -> None:
    store = FullStore(root)
    store.code = errno.EIO
    with pytest.raises(OSError) as caught:
        td.open(store, threads=1).collect(2, grace=0)
    assert caught.value.errno == errno.EIO and td.open(root).versions() == [0, 1, 2, 3]


def test_a_full_disk_is_said_with_the_file_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    td.State.from_arrays({"w": np.arange(10, dtype=np.uint16)}).save(tmp_path / "model.safetensors")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = CliRunner().invoke(main, ["publish", str(tmp_path / "chain"), str(tmp_path / "model.safetensors")])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}")
    assert line.endswith("No space left on device. Free some room on that disk, then do it again.")
