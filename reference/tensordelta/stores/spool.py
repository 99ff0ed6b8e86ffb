"""Objects on their way to a store: small ones are kept in memory, others in unnamed files."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from ..errors import StoreError, TensorDeltaError
from .base import Parts
from .own import CACHE, check_above, check_own

_LOG = logging.getLogger("tensordelta")

#: Largest object that is kept in memory, in bytes.
_SMALL = 1 << 18
#: Prefixes of temporary folders, and seconds after which they are abandoned.
SCRATCH, PRIVATE = ".scratch-", ".private-"
STALE = 86_400


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it, where `~` is the user's home.

    Raises:
        FileNotFoundError: this user has no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        reason = "this user has no home folder: $HOME is not set, and nobody has this user id"
        raise FileNotFoundError(errno.ENOENT, reason, os.fspath(path)) from None


@contextmanager
def in_cache(place: Path | str) -> Iterator[None]:
    """Have what fails on this machine in the block name a file, and say what to set."""
    try:
        yield
    except (TensorDeltaError, StoreError):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if CACHE not in reason:
            reason += f"; set ${CACHE} to a folder of your own, on a local disk with room"
        raise OSError(error.errno, reason, os.fsdecode(error.filename or place)) from None


def cache_root(*, make: bool = False) -> Path:
    """The cache folder of this user: $TENSORDELTA_CACHE, or `tensordelta` in the user's own cache folder.

    Args:
        make: make it if it is absent, for this user alone. If that fails, its first use will fail.

    Raises:
        FileNotFoundError: no folder is set, and this user has no home.
        UntrustedError: other users can write to it, or exchange it, but snapshots and records in it are trusted.
    """
    named = os.environ.get(CACHE)
    root = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tensordelta")
    with in_cache(root):
        root = user_path(root)
    if make:
        with suppress(OSError):
            root.mkdir(0o700, parents=True, exist_ok=True)
    if not root.is_dir():  # whatever needs it fails
        return root
    # With no link in it, and no folder above that others can write to, the path stays what it is.
    root = root.resolve()
    check_above(root)
    check_own(root, root.lstat())
    return root


def cache_folder(*names: str) -> Path:
    """A folder in the cache folder, made for this user alone; its parents, too.

    Raises:
        FileNotFoundError: as for `cache_root`.
        UntrustedError: one of them is a link, which could lead to folders that are no cache; or other users can write
            to it.
    """
    path = cache_root(make=True)
    for name in names:
        path /= name
        with suppress(OSError):
            path.mkdir(0o700)
        with suppress(FileNotFoundError, NotADirectoryError):
            check_own(path, path.lstat())
    return path


class Waiting:
    """The bytes of an object, which can be sent more than once; a context manager.

    A file has no name, so that nothing is left of it if the process dies. Where the cache folder cannot take it, the
    bytes are kept in memory.

    Args:
        parts: the bytes; read by the constructor.

    Attributes:
        size: their number.
    """

    def __init__(self, parts: Parts) -> None:
        self.size = 0
        self._small = bytearray()
        self._file: IO[bytes] | None = None
        self._may_spill = True
        try:
            for part in parts:
                self._take(part)
        except BaseException:
            self.close()
            raise

    def _take(self, part: bytes | memoryview) -> None:
        self.size += len(part)
        if self._file is None and self.size > _SMALL and self._may_spill:
            self._spill()
        if self._file is None:
            self._small += part
        else:
            self._write(part)

    def _spill(self) -> None:
        """Move the bytes into a file, if there can be one."""
        try:
            root = cache_root(make=True)
            with in_cache(root):
                self._file = tempfile.TemporaryFile(dir=root, buffering=0)  # noqa: SIM115 - closed by `close`
        except TensorDeltaError:
            raise
        except OSError as error:
            self._stay(error)
            return
        held, self._small = bytes(self._small), bytearray()
        self._write(held)

    def _write(self, part: bytes | memoryview) -> None:
        assert self._file is not None
        left = memoryview(part).cast("B")
        while left:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:  # take back what the file has
                self._file.seek(0)
                self._small += self._file.read()
                self._small += left
                self._file.close()
                self._file = None
                self._stay(error)
                return

    def _stay(self, error: OSError) -> None:
        _LOG.warning("an object is kept in memory until it is stored: %s", error)
        self._may_spill = False

    @property
    def content(self) -> bytes | Path:
        """The bytes, or the path of a file that has them, valid in this process until `close`."""
        return bytes(self._small) if self._file is None else Path(f"/proc/self/fd/{self._file.fileno()}")

    @property
    def on_disk(self) -> bool:
        """True if the bytes are in a file."""
        return self._file is not None

    def close(self) -> None:
        """Free the bytes."""
        self._small.clear()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep(root: Path) -> None:
    """Remove temporary folders that killed processes have left in the cache folder."""
    now = time.time()
    with suppress(OSError), os.scandir(root) as scan:
        for entry in scan:
            if entry.name.startswith((SCRATCH, PRIVATE)):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < now - STALE:
                        shutil.rmtree(entry.path, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in the cache folder, which is removed at the end.

    Raises:
        OSError: the disk refuses the cache folder, or the new one in it.
        UntrustedError: as for `cache_root`.
    """
    root = cache_root(make=True)
    if not root.is_dir():  # once more, which says why
        root.mkdir(0o700, parents=True, exist_ok=True)
        root = cache_root()
    sweep(root)
    with tempfile.TemporaryDirectory(dir=root, prefix=SCRATCH) as folder:
        yield Path(folder)


@contextmanager
def scratch(size: int) -> Iterator[Path]:
    """A path for a temporary file of a size, which is removed at the end; an open file stays readable.

    It lies in the cache folder, or where that cannot be used, or has no room, in the system's folder for such files.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder())
            if shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
        except TensorDeltaError:
            raise
        except OSError:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=SCRATCH)))
        yield folder / "object"
