"""A cache of packs of remote stores: files named by their digest, shared by the processes of this machine.

The reader proves what it takes from here; a damaged file is dropped and fetched again. A file that is evicted stays
readable while it is open.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import TensorDeltaError
from .base import Parts
from .file_lock import file_lock
from .folder import FileBlob
from .spool import PRIVATE, STALE, cache_folder, cache_root, sweep

_LOG = logging.getLogger("tensordelta")

VARIABLE = "TENSORDELTA_CACHE_BYTES"
DEFAULT_LIMIT = 10 << 30

_LOCK = ".lock"
_TEMPORARY = ".part-"


class CachedBlob(FileBlob):
    """A file of a cache, open for as long as it is referred to, evicted or not.

    Attributes:
        fresh: it has just been fetched from the store.
    """

    fresh = False

    def __exit__(self, *_: object) -> None:
        pass

    def __del__(self) -> None:
        with suppress(AttributeError):  # opening failed
            self._file.close()


def cache_limit() -> int:
    """Bytes that the cache may have: $TENSORDELTA_CACHE_BYTES, else 10 GiB.

    Raises:
        ValueError: no number of bytes.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return DEFAULT_LIMIT
    if not text.isdecimal():
        raise ValueError(f"{VARIABLE} is {text!r}, not a number of bytes")
    return int(text)


class PackCache:
    """Packs by digest in a folder. Threads may share it, and processes its folder.

    Args:
        folder: by default `packs` in the cache folder of this user; made when the first pack comes.
        limit: bytes that are kept, by default `cache_limit()`. With 0 none are, and a pack exists only while it is
            open.

    Attributes:
        folder: as given; None where this user has no cache folder. Then there is no pack, and none can come.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder: Path | None = folder
        if folder is None:
            try:
                self.folder = cache_folder("packs")
            except TensorDeltaError:
                raise
            except OSError as error:
                _LOG.info("no pack is kept on this machine: %s", error)
        self.limit = cache_limit() if limit is None else limit

    def open(self, sha256: str, size: int) -> CachedBlob | None:
        """The file of a digest, or None if there is none of this size. Its bytes are not proven yet."""
        if self.folder is None:
            return None
        path = self.folder / sha256
        try:
            blob = CachedBlob(path, object=str(path))
        except OSError:
            return None
        if blob.size != size:
            self.drop(sha256)
            return None
        with suppress(OSError):
            os.utime(path)  # the last use, for eviction
        return blob

    def temporary(self) -> Path:
        """A path in the folder for a file that is being fetched.

        Raises:
            OSError: the folder cannot be made.
        """
        if self.folder is None:
            raise FileNotFoundError(errno.ENOENT, "this user has no cache folder")
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        return self.folder / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"

    def adopt(self, path: Path, sha256: str) -> CachedBlob:
        """Take over a complete file and open it; call `trim` afterwards to keep the limit."""
        kept = path.with_name(sha256)
        blob = CachedBlob(path, object=str(kept))
        blob.fresh = True
        os.replace(path, kept)
        return blob

    def put(self, sha256: str, parts: Parts) -> None:
        """Keep a pack's bytes, if the disk has room for them."""
        if not self.limit:
            return
        path: Path | None = None
        try:
            path = self.temporary()
            with path.open("xb") as file:
                for part in parts:
                    file.write(part)
            os.replace(path, path.with_name(sha256))
            self.trim()
        except OSError as error:
            _LOG.info("a pack was not kept in %s: %s", self.folder, error)
            if path is not None:
                path.unlink(missing_ok=True)

    def drop(self, sha256: str) -> None:
        """Remove the file of a digest, if there is one."""
        if self.folder is not None:
            (self.folder / sha256).unlink(missing_ok=True)

    def trim(self) -> None:
        """Remove the least recently used files, until the rest is within the limit."""
        if self.folder is None:
            return
        try:
            descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:  # there is no pack, or none that could be removed
            return
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            try:
                stack.enter_context(file_lock(descriptor, exclusive=True))
            except BlockingIOError:
                return  # another process is trimming
            except OSError as error:  # without a lock two may trim at once, and remove too much
                _LOG.info("%s has no locks: %s", self.folder, error)
            self._trim(self.folder)

    def _trim(self, folder: Path) -> None:
        files: list[tuple[float, int, str]] = []
        now = time.time()
        with os.scandir(folder) as scan:
            for entry in scan:
                with suppress(OSError):  # removed meanwhile
                    status = entry.stat(follow_symlinks=False)
                    if not entry.name.startswith("."):
                        files.append((status.st_mtime, status.st_size, entry.path))
                    elif entry.name.startswith(_TEMPORARY) and status.st_mtime < now - STALE:
                        os.unlink(entry.path)
        total = sum(size for _, size, _ in files)
        # A file larger than the limit is removed first, so that it does not displace all others.
        for _, size, path in sorted(files, key=lambda file: (file[1] <= self.limit, file[0])):
            if total <= self.limit:
                return
            with suppress(OSError):
                os.unlink(path)
            total -= size

    @classmethod
    @contextmanager
    def private(cls) -> Iterator[PackCache]:
        """A cache of its own, empty at first and removed at the end."""
        root = cache_root(make=True)
        sweep(root)
        folder = root / f"{PRIVATE}{os.getpid()}-{secrets.token_hex(8)}"
        cache = cls(folder)
        try:
            yield cache
        finally:
            shutil.rmtree(folder, ignore_errors=True)
