"""A folder held open by its descriptor: names are resolved below it, and no symbolic link is followed.

Other users may have made the files of a folder: it may come from an archive, a clone or a shared disk. A path is
resolved at each use, so a link could replace a part of it after it was checked; a descriptor cannot be redirected.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import Self

from .regular import IrregularError, open_regular

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: How names begin that folders have while they are removed.
REMOVED = ".removed-"
#: Parts of a name: paths of the format have at most 200 characters.
_MAX_DEPTH = 200


class Folder:
    """An open folder; a context manager that closes it. Names are relative, with `/` between their parts.

    A part of a name that is a link, or no folder, raises `NotADirectoryError`. Several threads may use one object.

    Args:
        path: of the folder; links in this path itself are followed, because the user chose it.
        descriptor: of the folder, if it is open already; it is closed with this object.

    Attributes:
        path: the same, for messages.
    """

    def __init__(self, path: str | os.PathLike[str], descriptor: int | None = None) -> None:
        self.path = Path(path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._descriptor = os.open(path, flags) if descriptor is None else descriptor

    def close(self) -> None:
        """Close the descriptor; opened files stay open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _parent(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that contains a name, and the last part of the name."""
        *folders, last = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in (*folders, last):
            raise ValueError(f"{name!r} leads out of {self.path}")
        held = os.dup(self._descriptor)
        try:
            for part in folders:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=held)
                descriptor = opened_folder(part, held)
                os.close(held)
                held = descriptor
            yield held, last
        except OSError as error:
            if error.filename in (last, *folders):  # the system knows only that part
                error.filename = str(self.path / name)
            raise
        finally:
            os.close(held)

    def folder(self, name: str) -> Folder:
        """A folder below this one, with a descriptor of its own.

        Raises:
            FileNotFoundError: it is absent.
            NotADirectoryError: it, or a parent, is a link or no folder.
        """
        with self._parent(name) as (parent, last):
            return Folder(self.path / name, opened_folder(last, parent))

    def status(self, name: str = "") -> os.stat_result:
        """The status of a name, or of this folder where no name is given; links are not followed.

        Raises:
            FileNotFoundError, NotADirectoryError: the name does not exist.
        """
        if not name:
            return os.fstat(self._descriptor)
        with self._parent(name) as (parent, last):
            return os.stat(last, dir_fd=parent, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """True where a name exists; a broken link exists as well."""
        try:
            self.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_folder(self, name: str) -> bool:
        """True for a folder; False for a link to one."""
        return self.has(name) and stat.S_ISDIR(self.status(name).st_mode)

    def is_file(self, name: str) -> bool:
        """True for a regular file; False for a link to one."""
        return self.has(name) and stat.S_ISREG(self.status(name).st_mode)

    def open(self, name: str, *, writable: bool = False) -> BufferedIOBase:
        """A regular file, opened for reading, or for reading and writing.

        Raises:
            FileNotFoundError, NotADirectoryError: it does not exist.
            IrregularError: it is a link, or no regular file; or it is opened for writing and has a second hard link.
        """
        with self._parent(name) as (parent, last):
            descriptor = open_regular(last, os.O_RDWR if writable else os.O_RDONLY, dir_fd=parent)
        file: BufferedIOBase = os.fdopen(descriptor, "r+b") if writable else os.fdopen(descriptor, "rb")
        if writable and os.fstat(file.fileno()).st_nlink > 1:
            file.close()
            raise IrregularError(errno.EMLINK, "has a second name", name)
        return file

    def open_or_create(self, name: str) -> BufferedIOBase:
        """A regular file opened for reading and writing, made empty where it is absent; errors as of `open`."""
        with self._parent(name) as (parent, last):
            try:
                descriptor = open_regular(last, os.O_RDWR, dir_fd=parent)
            except FileNotFoundError:
                with suppress(FileExistsError):  # another process has just made it
                    os.close(os.open(last, _NEW, 0o644, dir_fd=parent))
                descriptor = open_regular(last, os.O_RDWR, dir_fd=parent)
        return os.fdopen(descriptor, "r+b")

    def create(self, name: str) -> BufferedIOBase:
        """A new file, opened for reading and writing; it replaces an earlier one, and its parents are made.

        Raises:
            IsADirectoryError: a folder has the name.
            NotADirectoryError: a part of the name is a link, or no folder.
        """
        with self._parent(name, make=True) as (parent, last):
            with suppress(FileNotFoundError):
                os.unlink(last, dir_fd=parent)
            descriptor = os.open(last, _NEW, 0o644, dir_fd=parent)
        return os.fdopen(descriptor, "w+b")

    def make(self, name: str, *, mode: int) -> None:
        """Make a folder, unless one is there."""
        with self._parent(name) as (parent, last), suppress(FileExistsError):
            os.mkdir(last, mode, dir_fd=parent)

    def replace(self, source: str, target: str) -> None:
        """Rename a file, replacing the target; the parents of the target are made."""
        with self._parent(source) as (one, old), self._parent(target, make=True) as (other, new):
            os.replace(old, new, src_dir_fd=one, dst_dir_fd=other)

    def unlink(self, name: str) -> None:
        """Remove a file or a link, if it exists.

        Raises:
            IsADirectoryError: a folder has the name.
        """
        with suppress(FileNotFoundError, NotADirectoryError), self._parent(name) as (parent, last):
            os.unlink(last, dir_fd=parent)

    def rmdir(self, name: str) -> None:
        """Remove an empty folder. Raises OSError where it is not empty, or not a folder."""
        with self._parent(name) as (parent, last):
            os.rmdir(last, dir_fd=parent)

    def remove(self, name: str) -> None:
        """Remove a file, a link (which is not followed), or a folder with its contents, if it exists."""
        if not self.has(name):
            return
        if not self.is_folder(name):
            self.unlink(name)
            return
        with self._parent(name) as (parent, last):
            with suppress(RecursionError):
                shutil.rmtree(last, ignore_errors=True, dir_fd=parent)
            if self.has(name):
                _remove_deep(last, parent)

    def walk(self, name: str) -> Iterator[tuple[str, bool]]:
        """The names of everything below a folder, and whether each is a folder; a folder follows its contents.

        A link is no folder.

        Raises:
            OSError: the tree is deeper than any name of the format.
        """
        if name.count("/") > _MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, "is a tree deeper than any that a pull makes", str(self.path / name))
        with self.folder(name) as held, os.scandir(held._descriptor) as scan:
            found = [(each.name, each.is_dir(follow_symlinks=False)) for each in scan]
        for each, is_folder in sorted(found):
            if is_folder:
                yield from self.walk(f"{name}/{each}")
            yield f"{name}/{each}", is_folder

    def names(self) -> list[str]:
        """The names in this folder, sorted."""
        with os.scandir(self._descriptor) as scan:
            return sorted(each.name for each in scan)

    def sync(self, name: str = "") -> None:
        """Make the entries of a folder durable; of this one where no name is given."""
        if not name:
            os.fsync(self._descriptor)
            return
        with self.folder(name) as folder:
            folder.sync()


def opened_folder(name: str, parent: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise NotADirectoryError(errno.ENOTDIR, "is a link", name) from None


def _remove_deep(name: str, parent: int) -> None:
    """Remove a tree that is deeper than Python recurses: a folder in it moves up before it is emptied."""
    waiting = [name]
    while waiting:
        descriptor = opened_folder(waiting[-1], parent)
        try:
            with os.scandir(descriptor) as scan:
                found = [(each.name, each.is_dir(follow_symlinks=False)) for each in scan]
            for each, is_folder in found:
                if is_folder:
                    waiting.insert(0, f"{REMOVED}{secrets.token_hex(8)}")
                    os.rename(each, waiting[0], src_dir_fd=descriptor, dst_dir_fd=parent)
                else:
                    os.unlink(each, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(waiting.pop(), dir_fd=parent)
