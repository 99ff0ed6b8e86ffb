"""Folders of cases: how they are written and copied, and what changed in one."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

Contents = dict[str, str]
"""What lies below a folder: relative path -> what it is and holds."""


_IN_MEMORY = Path("/dev/shm")
_ROOM = 1 << 30
#: Bytes of a file that is read at once.
_SMALL = 1 << 20


def temporary_folder(huge: bool = False) -> tempfile.TemporaryDirectory[str]:
    """A folder of its own, to be cleaned up by the caller.

    It lies in memory where the system has room for that and the user has not said otherwise (TMPDIR): a run makes and
    removes ten thousand small folders, which some disks do slowly. A `huge` one lies on disk.
    """
    place = None
    if not huge and "TMPDIR" not in os.environ and os.access(_IN_MEMORY, os.W_OK):
        place = _IN_MEMORY if shutil.disk_usage(_IN_MEMORY).free > _ROOM else None
    return tempfile.TemporaryDirectory(prefix="tensordelta-", dir=place, ignore_cleanup_errors=True)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files, given by relative path, below a folder."""
    for parent in {(folder / name).parent for name in files}:
        parent.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder over another; times are those of now."""
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile, dirs_exist_ok=True)


def _digest(entry: os.DirEntry[str]) -> str:
    with open(entry.path, "rb", buffering=0) as file:  # noqa: PTH123 (tens of thousands of small files)
        if entry.stat(follow_symlinks=False).st_size > _SMALL:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(file.readall()).hexdigest()


def contents(root: Path, skip: Collection[str] = ()) -> Contents:
    """Everything below a folder, `skip` (relative paths, with all below them) left out. Links are not followed."""
    found: Contents = {}

    def walk(folder: str, prefix: str) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if name in skip:
                    continue
                if entry.is_symlink():
                    found[name] = f"link to {Path(entry.path).readlink()}"
                elif entry.is_dir(follow_symlinks=False):
                    found[name] = "folder"
                    walk(entry.path, name + "/")
                elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    found[name] = _digest(entry)
                else:
                    found[name] = "special"

    if root.is_dir():
        walk(str(root), "")
    return found


def changes(before: Contents, after: Contents) -> list[str]:
    """What happened between two looks at a folder, a few words for each path."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            found.append(f"{name} is gone")
        elif name not in before:
            found.append(f"{name} is new")
        elif before[name] != after[name]:
            found.append(f"{name} has changed")
    return found
