"""Real limits: of the files that a process may have open ("files"), of their size ("size"), of a disk ("tmpfs").

A file system in memory of a given size needs the right to mount. The driver gets it for itself, in a namespace of its
own, which takes all mounts with it when it ends; where the system refuses that, `can_mount` says so.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

#: The ways in which a limit is met.
LIMITS = ("files", "size", "tmpfs")

_PAGE = os.sysconf("SC_PAGE_SIZE")
_REMOUNT, _DETACH = 32, 2
_AMPLE = 1 << 28


@cache
def namespace() -> list[str] | None:
    """The command before another one that may mount then; None where the system refuses that."""
    for words in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        if shutil.which("unshare") is None:
            return None
        trial = [*words, "mount", "-t", "tmpfs", "-o", "size=4k", "none", "/mnt"]
        if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
            return words
    return None


def set_limit(how: str, number: int) -> None:
    """Limit this process: to `number` - 1 more open files, or to files of `number` bytes."""
    if how == "files":
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + number - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    elif how == "size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own in a folder, with ample room."""
    _mount(folder, _AMPLE, 0)
    try:
        yield
    finally:
        if _libc().umount2(os.fsencode(folder), _DETACH):
            raise _failed(folder)


def leave_room(folder: Path, pages: int) -> None:
    """Leave room for so many pages more in such a file system."""
    found = os.statvfs(folder)
    used = found.f_blocks - found.f_bfree
    _mount(folder, max(1, used + pages) * _PAGE, _REMOUNT)  # a size of 0 is no limit


def leave_ample_room(folder: Path) -> None:
    """Give it ample room again."""
    _mount(folder, _AMPLE, _REMOUNT)


def _mount(folder: Path, size: int, flags: int) -> None:
    if _libc().mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()):
        raise _failed(folder)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failed(folder: Path) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), str(folder))
