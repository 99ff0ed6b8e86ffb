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
from ..format.names import FOLDERS, MAX_PATH, is_path
from .base import DirectBatch, NoSuchObject, Parts, StoredObject
from .regular import IrregularError, open_regular
from .rooted import ABSENT, OutsideError, Rooted

#: Names of temporary files: that of an object, with a dot before it, and a dot and eight digits behind it. With a
#: leading dot they are no names of objects: readers and listings skip them.
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}")


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileBlob:
    """A file, read by position. It is not mapped, so that truncating it while it is read is an error and no crash."""

    def __init__(self, path: Path, *, object: str | None = None, descriptor: int | None = None) -> None:
        try:
            descriptor = open_regular(path, follow=True) if descriptor is None else descriptor
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
    lists = True

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

    @contextmanager
    def _at(self, name: str, *, make: bool = False, whole: bool = False) -> Iterator[Rooted]:
        """The place of an object, or of the folder of a prefix if `whole`; what fails in the block names it."""
        try:
            with Rooted(self.root, name, make=make, whole=whole) as place:
                yield place
        except OutsideError:
            raise UntrustedError(f"is a link out of {self.root}", object=name, rule="TD-STO-006") from None
        except (TensorDeltaError, StoreError):
            raise
        except OSError as error:
            last = name.rpartition("/")[2]
            known = error.filename  # by the system: a part of the name, or a descriptor
            own = not isinstance(known, str) or known in name.split("/") or known.startswith(f".{last}.")
            if error.errno is not None and own:
                error.filename = str(self.root / name)
                error.filename2 = None
            raise

    @staticmethod
    def _checked(name: str) -> str:
        if not is_path(name):
            raise ValueError(f"{name[:MAX_PATH]!r} is no name of an object")
        return name

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises NoSuchObject."""
        with self.open(name) as blob:
            return bytes(blob.read(0, blob.size))

    def open(self, name: str) -> FileBlob:
        """An object, to be read in parts. Raises NoSuchObject."""
        try:
            with self._at(self._checked(name)) as place:
                while True:
                    try:
                        descriptor = open_regular(place.last, dir_fd=place.folder)
                        return FileBlob(self.root / name, object=name, descriptor=descriptor)
                    except IrregularError:
                        place.follow()
        except ABSENT:
            raise NoSuchObject(name, self.address) from None

    def size(self, name: str) -> int | None:
        """An object's size, or None if there is no such object."""
        status = self._status(self._checked(name))
        return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None

    def _status(self, name: str) -> os.stat_result | None:
        """The status of what a name leads to, or None if that is nothing."""
        try:
            with self._at(name) as place:
                return place.status(follow=True)
        except ABSENT:
            return None

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """Names of the objects under a prefix: files only; links to folders are not followed.

        A link that leads out of the root is named as well: reading it raises `UntrustedError`.
        """
        for name, entry in self._walk(prefix):
            if (after is None or name > after) and is_path(name):
                if entry.is_symlink():
                    if self._linked(name, entry) is not None:
                        yield name
                elif entry.is_file(follow_symlinks=False):
                    yield name

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The objects under a prefix, with size and age; links as for `names`."""
        for name, entry in self._walk(prefix):
            if not is_path(name):
                continue
            with suppress(*ABSENT):
                status = entry.stat(follow_symlinks=False)
                found = self._linked(name, entry) if stat.S_ISLNK(status.st_mode) else status
                if found is not None and (found is not status or stat.S_ISREG(status.st_mode)):
                    yield StoredObject(name, found.st_size, found.st_mtime)

    def _linked(self, name: str, entry: os.DirEntry[str]) -> os.stat_result | None:
        """The status of the file that a link leads to, or of a link that leads out of the root; None for no object."""
        try:
            status = self._status(name)
        except UntrustedError:
            with suppress(*ABSENT):
                return entry.stat(follow_symlinks=False)
            return None
        return status if status is not None and stat.S_ISREG(status.st_mode) else None

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Everything under a prefix that is no folder, by name. Folders that can have no object are not entered."""
        waiting = [prefix]
        while waiting:
            prefix = waiting.pop()
            try:
                with self._at(prefix, whole=True) as place:  # entries are looked at while it is open
                    with os.scandir(place.folder) as scan:
                        found = list(scan)
                    for entry in found:
                        if not entry.is_dir(follow_symlinks=False):
                            yield prefix + entry.name, entry
                        elif is_path(prefix + entry.name):
                            waiting.append(f"{prefix}{entry.name}/")
            except ABSENT:
                continue

    def put(self, name: str, parts: Parts) -> None:
        """Write an object durably, over one that is there."""
        with self._written(name, parts) as (place, temporary):
            with self._there(place, temporary, "put", name):
                os.replace(temporary, place.last, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            os.fsync(place.folder)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object durably if there is none of its name; returns False if there is.

        Raises:
            StoreError: something that is no object has the name.
        """
        try:
            with self._written(name, [data]) as (place, temporary):
                with self._there(place, temporary, "create", name):
                    os.link(
                        temporary,
                        place.last,
                        src_dir_fd=place.folder,
                        dst_dir_fd=place.folder,
                        follow_symlinks=False,
                    )
                with suppress(FileNotFoundError):  # a collector removed it
                    os.unlink(temporary, dir_fd=place.folder)
                os.fsync(place.folder)
        except FileExistsError:
            self._check_taken(name)
            return False
        return True

    def _check_taken(self, name: str) -> None:
        """Check that it is an object, or nothing any more, that has a name: no reader sees anything else there.

        Raises:
            StoreError: it is something else.
            UntrustedError: it is a link out of the root.
        """
        try:
            with self._at(name) as place:
                there = place.status()
        except ABSENT:
            return
        reached = self._status(name)
        if reached is not None and stat.S_ISREG(reached.st_mode):
            return
        kind = "folder" if stat.S_ISDIR(there.st_mode) else "link" if stat.S_ISLNK(there.st_mode) else "pipe or device"
        advice = f"Look at {self.root / name}, remove it, and do this again."
        raise StoreError(self.address, "create", name, f"a {kind} that is no object has this name", advice)

    def batch(self) -> DirectBatch:
        """A batch; each object is durable once it was put."""
        return DirectBatch(self)

    def delete(self, name: str) -> None:
        """Remove an object, if there is one."""
        with suppress(*ABSENT), self._at(self._checked(name)) as place:
            os.unlink(place.last, dir_fd=place.folder)
            os.fsync(place.folder)

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
        with suppress(*ABSENT), self._at(name) as place:
            os.unlink(place.last, dir_fd=place.folder)

    @contextmanager
    def _there(self, place: Rooted, temporary: str, operation: str, name: str) -> Iterator[None]:
        """Report a temporary file that a collector removed, since it was older than the grace period."""
        try:
            yield
        except FileNotFoundError:
            if place.has(temporary):
                raise
            cause = "a collector removed it before it had its name"
            advice = "Do it again, and give collectors a longer grace period."
            raise StoreError(self.address, operation, name, cause, advice) from None

    @contextmanager
    def _written(self, name: str, parts: Parts) -> Iterator[tuple[Rooted, str]]:
        """A synced temporary file beside the name of an object; it is removed if the block fails."""
        self._checked(name)
        if not self.root.is_dir():
            made = [each for each in (self.root, *self.root.parents) if not each.exists()]
            self.root.mkdir(parents=True, exist_ok=True)
            for each in made:
                sync_folder(each.parent)
        with self._at(name, make=True) as place:
            temporary = f".{place.last}.{secrets.token_hex(4)}"
            try:
                with os.fdopen(os.open(temporary, _NEW, 0o666, dir_fd=place.folder), "wb") as file:
                    for part in parts:
                        file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
                yield place, temporary
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=place.folder)
                raise


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
