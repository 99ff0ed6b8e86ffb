"""Chains in a folder of a POSIX file system (SPEC.md section 12.2)."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from ..errors import IntegrityError, StoreError, TensorDeltaError, UntrustedError
from ..format.names import FOLDERS, is_path
from .base import DirectBatch, NoSuchObject, Parts, StoredObject
from .regular import IrregularError, open_regular

#: Names of temporary files: that of an object, with a dot before it, and a dot and eight digits behind it. With a
#: leading dot they are no names of objects: readers and listings skip them.
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}")


class FileBlob:
    """A file, read by position. It is not mapped, so that truncating it while it is read is an error and no crash."""

    def __init__(self, path: Path, *, object: str | None = None) -> None:
        try:
            descriptor = open_regular(path, follow=True)
        except IrregularError:  # only regular files are objects
            raise FileNotFoundError(str(path)) from None
        self._path = path
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._object = object or str(path)
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`."""
        data = bytearray(length)
        view = memoryview(data)
        self.read_into(offset, view)
        return view

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target` from `offset`."""
        got = 0
        while got < len(target):
            with naming(self._path):
                count = os.preadv(self._file.fileno(), [target[got:]], offset + got)
            if not count:
                raise IntegrityError(f"ends at byte {offset + got}", object=self._object, rule="TD-MAN-013")
            got += count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class FolderStore:
    """A chain in a folder of a POSIX file system.

    An object appears by an atomic rename or link of a whole, synced file. Links that lead out of the root are refused.
    A failure of the file system is the `OSError` that it gives.

    Args:
        root: the folder; made with the first object.
    """

    exclusive = True
    remote = False

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.root)

    def is_foreign(self) -> bool:
        """True if the folder has contents that are no objects of a chain."""
        if not self.root.is_dir():
            return self.root.exists()
        names = {entry.name for entry in self.root.iterdir()}
        # Hidden names are temporary files, except the private folder of a checkout.
        return any(name not in FOLDERS and not name.startswith(".") for name in names) or ".tensordelta" in names

    def _path(self, name: str) -> Path:
        if not is_path(name):
            raise ValueError(f"{name!r} is no name of an object")
        path = self.root / name
        real, root = os.path.realpath(path), os.path.realpath(self.root)
        if os.path.commonpath([real, root]) != root:
            raise UntrustedError(f"is a link out of {self.root}", object=name, rule="TD-STO-006")
        return path

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises NoSuchObject."""
        with self.open(name) as blob:
            return bytes(blob.read(0, blob.size))

    def open(self, name: str) -> FileBlob:
        """An object, to be read in parts. Raises NoSuchObject."""
        try:
            return FileBlob(self._path(name), object=name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NoSuchObject(name, self.address) from None

    def size(self, name: str) -> int | None:
        """An object's size, or None if there is no such object."""
        try:
            status = self._path(name).stat()
            return status.st_size if stat.S_ISREG(status.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """Names of the objects under a prefix: files only; links to folders are not followed."""
        for name, entry in self._walk(prefix):
            if (after is None or name > after) and is_path(name) and entry.is_file():
                yield name

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The objects under a prefix, with size and age."""
        for name, entry in self._walk(prefix):
            if not is_path(name):
                continue
            with suppress(FileNotFoundError, NotADirectoryError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield StoredObject(name, status.st_size, status.st_mtime)

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Everything under a prefix that is no folder, by name."""
        waiting = [prefix]
        while waiting:
            prefix = waiting.pop()
            try:
                with os.scandir(self.root / prefix) as scan:
                    found = list(scan)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{prefix}{entry.name}/")
                else:
                    yield prefix + entry.name, entry

    def put(self, name: str, parts: Parts) -> None:
        """Write an object durably, over one that is there."""
        path, temporary = self._write(name, parts)
        try:
            with self._there(temporary, "put", name):
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object durably if there is none of its name; returns False if there is."""
        path, temporary = self._write(name, [data])
        try:
            with self._there(temporary, "create", name):
                os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
        return True

    def batch(self) -> DirectBatch:
        """A batch; each object is durable once it was put."""
        return DirectBatch(self)

    def delete(self, name: str) -> None:
        """Remove an object, if there is one."""
        path = self._path(name)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        sync_folder(path.parent)

    def temporaries(self) -> Iterator[StoredObject]:
        """The temporary files of writers, with size and age; those of a writer that was killed stay for ever."""
        for name, entry in self._walk(""):
            folder, slash, last = name.rpartition("/")
            found = _TEMPORARY.fullmatch(last)
            if found is None or not is_path(folder + slash + found[1]):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield StoredObject(name, status.st_size, status.st_mtime)

    def remove_temporary(self, name: str) -> None:
        """Remove a temporary file, if it is still there."""
        (self.root / name).unlink(missing_ok=True)

    @contextmanager
    def _there(self, temporary: Path, operation: str, name: str) -> Iterator[None]:
        """Report a temporary file that a collector removed, since it was older than the grace period."""
        try:
            yield
        except FileNotFoundError:
            if temporary.exists():
                raise
            cause = "a collector removed it before it had its name"
            advice = "Do it again, and give collectors a longer grace period."
            raise StoreError(self.address, operation, name, cause, advice) from None

    def _write(self, name: str, parts: Parts) -> tuple[Path, Path]:
        path = self._path(name)
        if not path.parent.is_dir():
            made = [each for each in (path.parent, *path.parent.parents) if not each.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            for each in made:
                sync_folder(each.parent)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        try:
            with naming(path), temporary.open("xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path, temporary


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have what fails in the block name a file: a full disk does not, nor a file system without locks or maps."""
    try:
        yield
    except (TensorDeltaError, StoreError):
        raise
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
