"""Chains in Hugging Face buckets, through huggingface_hub and hf-xet (SPEC.md section 12.4)."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from ..errors import IntegrityError, StoreError
from ..format.names import is_path
from ..progress import phase
from ..tables import bytes_text
from ..threads import Lock
from .base import NoSuchObject, Parts, StoredObject
from .download import LocalFile
from .folder import FileBlob
from .retries import PASSING, Retries
from .spool import Waiting, scratch

if TYPE_CHECKING:
    from huggingface_hub import BucketFile

T = TypeVar("T")

PREFIX = "hf://buckets/"

#: Bytes of an object that come with its size, in one request; larger objects come through hf-xet, whole.
_HEAD = 1 << 16
#: Files, and bytes on this machine's disk, of one call.
_FILES = 500
_BYTES = 8 << 30
#: Files with a descriptor open at once.
_OPEN = 200
_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")
_CLIENT_ERROR = re.compile(r"client error \((?!408|429)4\d\d")
#: How hf-xet writes an error of the system.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


def open_hub(address: str, *, options: Mapping[str, Any] | None = None, retries: Retries | None = None) -> HubStore:
    """The store at an address `hf://buckets/OWNER/NAME[/PREFIX]`.

    Args:
        address: the root.
        options: `token` and `endpoint`, as for `huggingface_hub.HfApi`, which has defaults for them.
        retries: how often to try again.

    Raises:
        ValueError: no such address.
    """
    owner, _, rest = address.removeprefix(PREFIX).partition("/")
    name, _, root = rest.partition("/")
    root = root.strip("/")
    if not address.startswith(PREFIX) or not all(map(_SEGMENT.fullmatch, (owner, name))):
        what = "is no bucket" if address.startswith(PREFIX) else "is a model, and chains live in buckets"
        raise ValueError(f"{address!r} {what}: write {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME/PREFIX")
    if root and not is_path(root):
        raise ValueError(f"{address!r}: a prefix has letters, digits, '.', '_' and '-' between slashes")
    unknown = set(options or {}) - {"token", "endpoint"}
    if unknown:
        raise ValueError(f"a bucket has no option {min(unknown)!r}")
    return HubStore(f"{owner}/{name}", root, retries=retries, **(options or {}))


def _open_again(address: str, retries: Retries) -> HubStore:
    return open_hub(address, retries=retries)


@cache
def _guard_forks() -> None:
    """Let processes fork while a thread of theirs makes requests, as trainers do for their data loaders.

    The client closes its session in a forked child. For that it needs a lock, and if a thread held it when the process
    forked, the child would wait for ever, because it has no such thread. So a child leaves the session to its parent.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_leave_session_to_parent)


def _leave_session_to_parent() -> None:
    from huggingface_hub import get_session

    session = get_session()
    if "close" in vars(session):
        return
    owner, close = os.getpid(), session.close
    session.close = lambda: close() if os.getpid() == owner else None  # type: ignore[method-assign]


class HubStore:
    """A chain in a Hugging Face bucket. One writer at a time: a bucket has no create-if-absent.

    Args:
        bucket: OWNER/NAME.
        root: the prefix in it, without slashes at its ends; empty for all of it.
        token, endpoint: as for `huggingface_hub.HfApi`.
        retries: how often to retry what the client itself does not.
    """

    exclusive = False
    remote = True
    lists = True

    def __init__(
        self,
        bucket: str,
        root: str = "",
        *,
        token: str | bool | None = None,
        endpoint: str | None = None,
        retries: Retries | None = None,
    ) -> None:
        from huggingface_hub import HfApi

        _guard_forks()
        self._from_environment = token is None and endpoint is None
        self._api = HfApi(endpoint=endpoint, token=token, library_name="tensordelta")
        self._bucket = bucket
        self._root = f"{root}/" if root else ""
        self.retries = retries or Retries()
        self.address = f"{PREFIX}{bucket}" + (f"/{root}" if root else "")

    def __reduce__(self) -> tuple[object, ...]:
        if not self._from_environment:
            raise TypeError(
                f"the store at {self.address} cannot be pickled, since its options may have a token: give them in the "
                "environment, or open the chain in the other process"
            )
        return _open_again, (self.address, self.retries)

    def __repr__(self) -> str:
        return f"HubStore({self.address!r})"

    # -- failures -------------------------------------------------------------------------------------------------

    def _try(
        self, operation: str, name: str, work: Callable[[], T], passing: Callable[[Exception], bool] | None = None
    ) -> T:
        """Do something, with retries if the failure may be temporary: `passing` decides, by default `_passing`.

        Raises:
            NoSuchObject: the hub says that there is no such file.
            StoreError: it failed.
        """
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return self.retries.call(work, passing=passing or _passing, what=f"{self.address}: {operation} of {name}")
        except EntryNotFoundError:
            raise NoSuchObject(name, self.address) from None
        except (StoreError, NoSuchObject):
            raise
        except Exception as error:
            if not is_client_error(error):
                raise
            full = _full_disk(error)
            if full is not None:
                raise full from None
            raise self._failed(operation, name, error) from None

    def _failed(self, operation: str, name: str, error: Exception) -> StoreError:
        from huggingface_hub.errors import BucketNotFoundError, RepositoryNotFoundError

        advice = None
        text = " ".join(str(error).split())
        if isinstance(error, (BucketNotFoundError, RepositoryNotFoundError)) or _status(error) == 404:
            advice = "Make the bucket first (`hf buckets create`), or check its name and your token."
        elif _status(error) in (401, 403) or type(error).__name__ == "XetAuthenticationError":
            advice = "Check your token and what it allows (`hf auth login`)."
        return StoreError(self.address, operation, name, text or type(error).__name__, advice)

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises NoSuchObject, StoreError."""
        with self.open(name) as blob:
            return bytes(blob.read(0, blob.size))

    def open(self, name: str) -> HubBlob:
        """An object, to be read in parts. Raises NoSuchObject, StoreError."""
        path = self._path(name)
        size, head = self._try("read", name, lambda: self._head(path))
        return HubBlob(self, name, size, head)

    def _head(self, path: str) -> tuple[int, memoryview]:
        """Size and first bytes of a file, in one request."""
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        headers = build_hf_headers(token=self._api.token, library_name="tensordelta")
        headers |= {"Range": f"bytes=0-{_HEAD - 1}", "Accept-Encoding": "identity"}
        url = f"{self._api.endpoint}/buckets/{self._bucket}/resolve/{quote(path, safe='')}"
        answer = http_backoff("GET", url, headers=headers, follow_redirects=True)
        total = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status_code == 416 and total is not None and not int(total[1]):
            return 0, memoryview(b"")  # an empty file has no range
        hf_raise_for_status(answer)
        size = len(answer.content) if answer.status_code == 200 or total is None else int(total[1])
        if len(answer.content) < min(size, _HEAD):
            raise _ShortError(f"{len(answer.content)} bytes came, not {min(size, _HEAD)}")
        return size, memoryview(answer.content)

    def size(self, name: str) -> int | None:
        """An object's size, or None if there is no such object. Raises StoreError."""
        found = self._info([self._path(name)])
        return found[0].size if found else None

    def _info(self, paths: list[str]) -> list[BucketFile]:
        names = ", ".join(map(self._name, paths))
        return self._try("look", names, lambda: list(self._api.get_bucket_paths_info(self._bucket, paths)))

    def download(self, files: Mapping[str, LocalFile]) -> dict[str, int]:
        """Bring objects into files of this machine, several at once. Those of another size than expected are left out.

        Args:
            files: where each object goes, by its name.

        Returns:
            The size of each object that exists.

        Raises:
            StoreError: the hub failed, or hf-xet.
        """
        where = {self._path(name): file for name, file in files.items()}
        found = [file for file in self._info(list(where)) if file.path in where]
        needed: list[tuple[str | BucketFile, str | Path]] = [
            (file, where[file.path].path) for file in found if where[file.path].size == file.size
        ]

        def download() -> None:
            with quiet():
                self._api.download_bucket_files(self._bucket, needed)

        try:
            self._try("download", ", ".join(files), download)
        except NoSuchObject as error:  # gone in between
            raise StoreError(self.address, "download", error.object, error.reason) from None
        return {self._name(file.path): file.size for file in found}

    # -- listing --------------------------------------------------------------------------------------------------

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """Names of the objects under a prefix. Raises StoreError."""
        return (entry.name for entry in self.entries(prefix) if after is None or entry.name > after)

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The objects under a prefix, with size and age. Raises StoreError."""
        from huggingface_hub import BucketFile

        path = f"{self._root}{prefix}"

        def collect() -> list[StoredObject]:
            listed = self._api.list_bucket_tree(self._bucket, path.rstrip("/") or None, recursive=True)
            entries = []
            for file in listed:
                if not isinstance(file, BucketFile) or not file.path.startswith(path):
                    continue
                name = self._name(file.path)
                if is_path(name):
                    # The time of upload is by the hub's clock, `mtime` by the writer's.
                    time = file.uploaded_at or file.mtime
                    entries.append(StoredObject(name, file.size, None if time is None else time.timestamp()))
            return entries

        try:
            return iter(self._try("listing", prefix, collect, _listing_passing))
        except NoSuchObject:  # the hub's answer for a folder without files
            return iter(())

    # -- writing --------------------------------------------------------------------------------------------------

    def put(self, name: str, parts: Parts) -> None:
        """Write an object durably, over one that is there. Raises StoreError."""
        with Waiting(parts) as waiting:
            self._send({name: waiting})

    def _send(self, objects: Mapping[str, Waiting]) -> None:
        """Put objects in one call, and those that the hub refused in further calls."""
        from huggingface_hub.errors import BucketBatchError

        left = {self._path(name): waiting for name, waiting in objects.items()}

        def send() -> None:
            adding: list[tuple[str | Path | bytes, str]] = [(waiting.content, path) for path, waiting in left.items()]
            try:
                with quiet():
                    self._api.batch_bucket_files(self._bucket, add=adding)
            except BucketBatchError as error:
                refused = {failure["path"] for failure in error.failures}
                for path in left.keys() - refused:
                    del left[path]
                raise

        try:
            with phase(f"uploading {bytes_text(sum(each.size for each in left.values()))}"):
                self._try("put", ", ".join(objects), send)
        except StoreError as error:
            names = ", ".join(map(self._name, left))
            raise StoreError(self.address, "put", names, error.cause, error.advice) from None
        except NoSuchObject as error:
            raise StoreError(self.address, "put", error.object, error.reason) from None

    def create(self, name: str, data: bytes) -> bool:
        """Look whether the name is free, put, and read back; returns False if it is taken. Raises StoreError.

        Of two writers that do this at the same time, the one whose bytes were overwritten gets False.
        """
        if self.size(name) is not None:
            return False
        failed: StoreError | None = None
        try:
            self.put(name, [data])
        except StoreError as error:  # perhaps only the answer was lost
            failed = error
        for attempt in range(1, self.retries.attempts + 1):
            try:
                with self.open(name) as blob:
                    return blob.size == len(data) and blob.read(0, blob.size) == data
            except NoSuchObject:  # put, but not yet visible
                if failed is not None:
                    raise failed from None
                if attempt < self.retries.attempts:
                    self.retries.wait(attempt)
        raise StoreError(self.address, "create", name, "was put, and cannot be read back")

    def batch(self) -> HubBatch:
        """A batch that stores objects on this machine's disk, and puts them in one call when it ends."""
        return HubBatch(self)

    def delete(self, name: str) -> None:
        """Remove an object, if there is one. Raises StoreError."""
        path = self._path(name)
        try:
            self._try("delete", name, lambda: self._api.batch_bucket_files(self._bucket, delete=[path]))
        except NoSuchObject:
            pass
        except StoreError:
            if self.size(name) is not None:
                raise

    # -- names ----------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        if not is_path(name):
            raise ValueError(f"{name!r} is no name of an object")
        return f"{self._root}{name}"

    def _name(self, path: str) -> str:
        return path.removeprefix(self._root)


class HubBlob:
    """A file of a bucket. Its first bytes came with its size; the others are downloaded at once, on first use."""

    def __init__(self, store: HubStore, name: str, size: int, head: memoryview) -> None:
        self._store = store
        self._name = name
        self._head = head
        self._lock = threading.Lock()
        self._file: FileBlob | None = None
        self.size = size

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`. Raises IntegrityError, NoSuchObject, StoreError."""
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        if offset + length > self.size:
            raise IntegrityError(f"ends at byte {self.size}", object=self._name, rule="TD-MAN-013")
        if not length:
            return memoryview(b"")
        with self._lock:
            if self._file is None:
                with scratch(self.size) as path:
                    size = self._store.download({self._name: LocalFile(path, self.size)}).get(self._name)
                    if size != self.size:
                        raise IntegrityError("changed while it was read", object=self._name, rule="TD-SEC-002")
                    self._file = FileBlob(path, object=self._name)
        return self._file.read(offset, length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.__exit__()


class HubBatch:
    """Gathers objects for one call; a context manager. Threads may share it.

    When they become too many, or too much for this machine's disk, those that wait are put in an earlier call.
    """

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._waiting: dict[str, Waiting] = {}
        self._bytes = self._files = 0
        self._lock = threading.Lock()

    def put(self, name: str, parts: Parts) -> None:
        """Take an object. Raises StoreError."""
        waiting = Waiting(parts)
        with self._lock:
            if name in self._waiting:
                self._count(self._waiting[name], -1)
                self._waiting.pop(name).close()
            self._waiting[name] = waiting
            self._count(waiting, 1)
            if len(self._waiting) >= _FILES or self._bytes >= _BYTES or self._files >= _OPEN:
                self._end(send=True)

    def _count(self, waiting: Waiting, sign: int) -> None:
        self._bytes += sign * waiting.size
        self._files += sign * waiting.on_disk

    def _end(self, *, send: bool) -> None:
        try:
            if self._waiting and send:
                self._store._send(self._waiting)
        finally:
            for waiting in self._waiting.values():
                waiting.close()
            self._waiting, self._bytes, self._files = {}, 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._lock:
            self._end(send=error is None)


class _ShortError(Exception):
    """The hub sent fewer bytes than it announced."""


_quiet_lock = Lock()
_quiet_users = 0
_quiet_restore = False


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the client's progress bars: the terminal is the caller's."""
    global _quiet_users, _quiet_restore
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with _quiet_lock:
        if not _quiet_users:
            _quiet_restore = not are_progress_bars_disabled()
            if _quiet_restore:
                disable_progress_bars()
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if not _quiet_users and _quiet_restore:
                enable_progress_bars()


def is_client_error(error: Exception) -> bool:
    """True for errors of the client, its transport or hf-xet."""
    # hf-xet raises RuntimeError for failures without a type of their own.
    return isinstance(error, (OSError, RuntimeError, _ShortError)) or any(
        kind.__module__.startswith(("huggingface_hub", "hf_xet", "httpx")) for kind in type(error).__mro__
    )


def _full_disk(error: Exception) -> OSError | None:
    """The error of this machine's disk that made the client fail, as the system gives it; None if that is not why."""
    found = error.errno if isinstance(error, OSError) else None
    if found is None and (match := _OS_ERROR.search(str(error))):
        found = int(match[1])
    return OSError(found, os.strerror(found)) if found in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else None


def _status(error: Exception) -> int | None:
    """The status of the answer, or None if there was none."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _passing(error: Exception) -> bool:
    """True if a retry makes sense that the client has not made itself."""
    from huggingface_hub.errors import BucketBatchError, HfHubHTTPError

    if isinstance(error, BucketBatchError):
        return bool(error.failures) or _status(error) in PASSING
    if isinstance(error, HfHubHTTPError):
        return False  # the client has retried already
    if type(error).__name__ in ("XetAuthenticationError", "XetObjectNotFoundError") or _full_disk(error) is not None:
        return False
    return isinstance(error, (ConnectionError, TimeoutError, RuntimeError, _ShortError)) and not _CLIENT_ERROR.search(
        str(error)
    )


def public_file(source: str, *, anew: bool) -> Path | None:
    """A file of a public repository (SPEC.md section 4.8), in the Hub client's own cache; None where there is none.

    Args:
        source: such as "hf://org/model@commit/file"; one of another form names no file.
        anew: download it again, even if it is in the cache.

    Raises:
        StoreError: the Hub did not answer, or refused.
    """
    scheme, _, rest = source.partition("://")
    if scheme != "hf":
        return None
    repository, _, tail = rest.partition("@")
    revision, _, filename = tail.partition("/")
    if not (repository and revision) or any(part in ("", ".", "..") for part in filename.split("/")):
        return None
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename, revision=revision, force_download=anew))
    except (LocalEntryNotFoundError, RepositoryNotFoundError) as error:
        # No answer; or the Hub's answer about a private repository to a user who may not see it.
        cause: Exception = error
    except (EntryNotFoundError, RevisionNotFoundError, HFValidationError):
        return None
    except Exception as error:
        if not is_client_error(error) and not isinstance(error, ValueError):
            raise
        cause = error
    advice = "Check the network, HF_ENDPOINT and your token, or name a folder that holds the file (--packs-from)."
    text = " ".join(str(cause).split()) or type(cause).__name__
    raise StoreError(source, "read", filename, text, advice) from None


def _listing_passing(error: Exception) -> bool:
    """The same for a listing, whose first page clients before 2.1 ask for only once."""
    import huggingface_hub

    major, minor = map(int, huggingface_hub.__version__.split(".")[:2])
    once = (major, minor) < (2, 1) and (
        _status(error) in PASSING or any(kind.__module__.startswith("httpx") for kind in type(error).__mro__)
    )
    return once or _passing(error)
