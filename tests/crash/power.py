"""A disk that loses power: what it would hold then, for names and bytes that were not synced may be there, or not."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path


class Disk:
    """What is durable under a folder: bytes since the last sync of a file, names since the last sync of a folder.

    A rename is one change of the file system, so the names of an image are all durable ones, or all present ones.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[int, int] = {}  # inode -> descriptor, which keeps the inode from being used again
        self._bytes: dict[int, tuple[bytes, int]] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._folders: dict[int, str] = {}
        for folder, _, names in os.walk(root):
            inode = self._see(Path(folder))
            self._names[inode] = self._listing(Path(folder))
            for name in names:
                inode = self._see(Path(folder, name))
                self._bytes[inode] = self._now(inode)

    def _see(self, path: Path) -> int:
        status = path.lstat()
        if status.st_ino not in self._files:
            self._files[status.st_ino] = os.open(path, os.O_RDONLY)
        return status.st_ino

    def _listing(self, folder: Path) -> dict[str, int]:
        return {each.name: self._see(each) for each in folder.iterdir()}

    def _now(self, inode: int) -> tuple[bytes, int]:
        status = os.fstat(self._files[inode])
        return os.pread(self._files[inode], status.st_size, 0), status.st_mtime_ns

    def synced(self, descriptor: int) -> None:
        """A file or folder was synced."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self.root):
            return
        inode = self._see(path)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._names[inode] = self._listing(path)
        else:
            self._bytes[inode] = self._now(inode)

    def images(self, target: Path, seed: int) -> dict[str, Path]:
        """Folders as they might be after the power is back."""
        rng = random.Random(seed)
        made: dict[str, Path] = {}
        for kind in ("synced only", "names first", "bytes first", "torn", "torn, names first"):
            folder = made[kind] = target / kind.replace(" ", "-")
            self._build(self.root, self.root.stat().st_ino, folder, kind, rng)
        return made

    def _build(self, path: Path | None, inode: int, target: Path, kind: str, rng: random.Random) -> None:
        target.mkdir()
        present = kind in ("names first", "torn, names first")
        if present:
            assert path is not None
            names = self._listing(path)
        else:
            names = self._names.get(inode, {})
        for name, each in names.items():
            if stat.S_ISDIR(os.fstat(self._files[each]).st_mode):
                self._build(path / name if present else None, each, target / name, kind, rng)
                continue
            durable, now = self._bytes.get(each, (b"", 0)), self._now(each)
            data, time = durable
            if kind == "bytes first":
                data, time = now
            elif kind.startswith("torn"):
                data, time = self._torn(durable[0], now[0], rng), rng.choice((durable, now))[1]
            (target / name).write_bytes(data)
            os.utime(target / name, ns=(time, time))

    @staticmethod
    def _torn(durable: bytes, now: bytes, rng: random.Random) -> bytes:
        """Bytes of which some parts reached the disk."""
        size = rng.choice((len(durable), len(now)))
        parts = [bytearray(each.ljust(size, b"\0")[:size]) for each in (durable, now)]
        return b"".join(rng.choice(parts)[at : at + 4] for at in range(0, size, 4))

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
