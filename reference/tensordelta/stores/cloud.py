"""Chains in object stores, through obstore: S3 and its kin, Google Cloud Storage, Azure (SPEC.md section 12.3)."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import IntegrityError, StoreError
from ..format.names import is_path
from ..progress import Phase, phase
from ..threads import Process
from .base import NoSuchObject, Parts, StoredObject
from .retries import PASSING, Retries
from .spool import Waiting

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

SCHEMES = ("s3", "gs", "az")

#: Bytes of an object that come with its size, in one request.
_HEAD = 1 << 16
#: Bytes of a part of an upload, parts of one object on their way, and objects of a batch.
_PART = 8 << 20
_PARTS = 4
_OBJECTS = 4
#: Operations after which an object can turn out to be absent.
_READ, _LOOK, _DELETE = "read", "look", "delete"
#: For one request, whose bytes may share a slow link with those of others.
_TIMEOUT = timedelta(seconds=120)
_CLIENT = (
    "allow_http allow_invalid_certificates connect_timeout default_content_type http1_only http2_keep_alive_interval "
    "http2_keep_alive_timeout http2_keep_alive_while_idle http2_only pool_idle_timeout pool_max_idle_per_host "
    "proxy_url proxy_ca_certificate proxy_excludes randomize_addresses read_timeout timeout user_agent"
).split()
_BACKOFF = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
#: What servers say in an answer 404 of an object, and of a bucket.
_NO_OBJECT = re.compile(r"NoSuchKey|BlobNotFound")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified bucket does not exist")
_EXTRA = "chains in object stores need obstore: pip install 'tensordelta[cloud]'"


def open_cloud(address: str, *, options: Mapping[str, Any] | None = None, retries: Retries | None = None) -> CloudStore:
    """The store at an address `s3://BUCKET/PREFIX`, `gs://…` or `az://…`.

    Args:
        address: the root.
        options: keywords for obstore's `from_url`, such as `endpoint` and `client_options`; obstore takes the
            others from the environment.
        retries: how often to try again.

    Raises:
        ImportError: obstore is not installed.
        ValueError: an address or option that obstore refuses.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise ImportError(_EXTRA, name="obstore") from None
    # This module retries, not obstore, since it can find out what a lost answer was. Only the parts of an upload are
    # retried by obstore: otherwise one failed part would repeat all of them.
    given = dict(options or {})
    client = {"timeout": _TIMEOUT, **_client_of_environment(address), **given.pop("client_options", {})}
    limits = {"retry_timeout": timedelta(seconds=180), "backoff": _BACKOFF}

    def make(times: int) -> Any:
        settings: dict[str, Any] = {"retry_config": {"max_retries": times, **limits}, "client_options": client, **given}
        return from_url(address, **settings)

    try:
        store, uploads = make(0), make(4)
    except (BaseError, ValueError, TypeError) as error:
        raise ValueError(f"{address}: {_first_line(error)}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # obstore's answer to options of a client among those of a store
            raise
        raise ValueError(f"{address}: an option that belongs in `client_options`: {error}") from None
    opened = CloudStore(store, address, uploads=uploads, retries=retries)
    opened._from_environment = not options
    return opened


def _open_again(address: str, retries: Retries) -> CloudStore:
    return open_cloud(address, retries=retries)


def _client_of_environment(address: str) -> dict[str, str]:
    """The options of obstore's HTTP client that the environment sets; it ignores them if any is given."""
    prefix = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}[address.partition("://")[0]]
    named = {key: os.environ.get(f"{prefix}_{key.upper()}") for key in _CLIENT}
    return {key: value for key, value in named.items() if value is not None}


class CloudStore:
    """A chain in an object store.

    obstore has one runtime in each process, whose threads a fork does not have: in a forked child of a process that has
    used any such store, each operation raises RuntimeError at once, also of a store that is opened there.

    Args:
        store: an obstore store, whose prefix is the root. Its own retries should be off.
        address: the root, as a user writes it.
        uploads: the same for uploads in parts, with retries of its own for a part; by default `store`.
        retries: how often to try again.
    """

    exclusive = True
    remote = True
    lists = True

    def __init__(
        self,
        store: ObjectStore,
        address: str,
        *,
        uploads: ObjectStore | None = None,
        retries: Retries | None = None,
    ) -> None:
        self._store: Any = store
        self._uploads: Any = uploads or store
        self.address = address
        self.retries = retries or Retries()
        self._from_environment = False

    def __reduce__(self) -> tuple[object, ...]:
        if not self._from_environment:
            raise TypeError(
                f"the store at {self.address} cannot be pickled, since its options may have credentials: give them in "
                "the environment, or open the chain in the other process"
            )
        return _open_again, (self.address, self.retries)

    def __repr__(self) -> str:
        return f"CloudStore({self.address!r})"

    # -- failures -------------------------------------------------------------------------------------------------

    def _try(self, operation: str, name: str, work: Callable[[], T]) -> T:
        """Do something, with retries if the failure may be temporary.

        Raises:
            NoSuchObject: there is no such object.
            StoreError: it failed.
            RuntimeError: this is a fork of a process that has used obstore.
        """
        _enter_runtime()
        try:
            return self.retries.call(work, passing=_passing, what=f"{self.address}: {operation} of {name}")
        except FileNotFoundError as error:
            if self._says_absent(operation, name, error):
                raise NoSuchObject(name, self.address) from None
            raise self._failed(operation, name, error) from None
        except (StoreError, NoSuchObject):
            raise
        except Exception as error:
            if not _is_obstore(error):
                raise
            raise self._failed(operation, name, error) from None

    def _says_absent(self, operation: str, name: str, error: FileNotFoundError) -> bool:
        """True if an answer 404 is about the object, and not from a wrong endpoint or a proxy."""
        text = str(error)
        if operation not in (_READ, _LOOK, _DELETE) or _NO_BUCKET.search(text):
            return False
        if _NO_OBJECT.search(text):
            return True
        # Not every server says what is absent. A wrong endpoint has no listing.
        folder = name.rpartition("/")[0]
        return all(entry.name != name for entry in self._list(folder and f"{folder}/", name[:-1]))

    def _failed(self, operation: str, name: str, error: Exception) -> StoreError:
        advice = None
        text = str(error)
        if _NO_BUCKET.search(text):
            advice = "Make the bucket first, or check its name."
        elif "169.254.169.254" in text or _status(error) in (401, 403):
            advice = "Check your credentials and what they allow; they come from the environment."
        elif type(error).__name__ == "InvalidPathError":
            advice = "Remove the object of this name: obstore cannot list it, and no chain has such a name."
        return StoreError(self.address, operation, name, _first_line(error), advice)

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises NoSuchObject, StoreError."""
        with self.open(name) as blob:
            return bytes(blob.read(0, blob.size))

    def open(self, name: str) -> CloudBlob:
        """An object, to be read in parts. Raises NoSuchObject, StoreError."""
        _check(name)
        size, head = self._try(_READ, name, lambda: self._head(name))
        return CloudBlob(self, name, size, head)

    def size(self, name: str) -> int | None:
        """An object's size, or None if there is no such object. Raises StoreError."""
        _check(name)
        try:
            return self._try(_LOOK, name, lambda: self._head(name, 1))[0]
        except NoSuchObject:
            return None

    def _head(self, name: str, length: int = _HEAD) -> tuple[int, memoryview]:
        """Size and first bytes, in one request. Only an answer with a body says whether the bucket is missing."""
        try:
            result = self._store.get(name, options={"range": (0, length)})
        except Exception as error:
            if _status(error) == 416:  # an empty object has no range
                return self._store.head(name)["size"], memoryview(b"")
            raise
        size = result.meta["size"]
        head = memoryview(bytes(result.bytes()))
        if len(head) != min(length, size):
            raise _ShortError(f"{len(head)} bytes came, not {min(length, size)}")
        return size, head

    def range(self, name: str, offset: int, length: int) -> memoryview:
        """Bytes of an object, fewer if it ends earlier. Raises NoSuchObject, StoreError."""
        return self._try(
            _READ, name, lambda: memoryview(self._store.get_range(name, start=offset, length=length)).cast("B")
        )

    # -- listing --------------------------------------------------------------------------------------------------

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """Names of the objects under a prefix, ascending. Raises StoreError."""
        return (entry.name for entry in self._list(prefix, after))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The objects under a prefix, with size and age. Raises StoreError."""
        return self._list(prefix, None)

    def _list(self, prefix: str, after: str | None) -> Iterator[StoredObject]:
        """The objects under a prefix; if a page fails, the listing resumes after the last name."""
        reached = after
        pages: Iterator[list[dict[str, Any]]] | None = None

        def page() -> list[dict[str, Any]]:
            nonlocal pages
            if pages is None:
                pages = iter(self._store.list(prefix.rstrip("/") or None, offset=reached, chunk_size=1000))
            try:
                return next(pages, [])
            except Exception:
                pages = None
                raise

        while True:
            metas = self._try("listing", prefix, page)
            if not metas:
                return
            for meta in metas:
                name = reached = meta["path"]
                # The marker of a folder has the folder's own name here.
                if name.startswith(prefix) and is_path(name) and (after is None or name > after):
                    yield StoredObject(name, meta["size"], meta["last_modified"].timestamp())

    # -- writing --------------------------------------------------------------------------------------------------

    def put(self, name: str, parts: Parts) -> None:
        """Write an object durably, over one that is there. Raises StoreError."""
        with Waiting(parts) as waiting:
            self._send(name, waiting)

    def _send(self, name: str, waiting: Waiting) -> None:
        _check(name)

        def send() -> None:
            multipart = waiting.size > _PART
            store = self._uploads if multipart else self._store
            store.put(name, waiting.content, use_multipart=multipart, chunk_size=_PART, max_concurrency=_PARTS)

        self._try("put", name, send)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object durably if there is none of its name; returns False if there is. Raises StoreError."""
        from obstore.exceptions import AlreadyExistsError

        _check(name)
        doubtful = False

        def create() -> bool:
            nonlocal doubtful
            try:
                self._store.put(name, data, mode="create", use_multipart=False)
                return True
            except AlreadyExistsError as error:
                # 409 of S3 means that another request is in progress, which may still fail.
                if not doubtful and _status(error) != 409:
                    return False
                same = self._has(name, data)
                if same is None:
                    raise
                return doubtful and same
            except Exception as error:
                doubtful = doubtful or _is_lost(error)
                raise

        try:
            return self._try("create", name, create)
        except StoreError:
            if not doubtful:
                raise
            same = self._has(name, data)  # the last try may have succeeded as well
            if same is None:
                raise
            return same

    def _has(self, name: str, data: bytes) -> bool | None:
        """True if an object has these bytes; None if there is none."""
        try:
            with self.open(name) as blob:
                return blob.size == len(data) and blob.read(0, blob.size) == data
        except NoSuchObject:
            return None

    def batch(self) -> CloudBatch:
        """A batch that puts a few objects at once."""
        return CloudBatch(self)

    def delete(self, name: str) -> None:
        """Remove an object, if there is one. Raises StoreError."""
        _check(name)
        with suppress(NoSuchObject):
            self._try(_DELETE, name, lambda: self._store.delete(name))


class CloudBlob:
    """An object, read by ranges; its first bytes came with its size."""

    def __init__(self, store: CloudStore, name: str, size: int, head: memoryview) -> None:
        self._store = store
        self._name = name
        self._head = head
        self.size = size

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`. Raises IntegrityError, StoreError."""
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        if offset + length > self.size:
            raise IntegrityError(f"ends at byte {self.size}", object=self._name, rule="TD-MAN-013")
        if not length:
            return memoryview(b"")
        data = self._store.range(self._name, offset, length)
        if len(data) != length:
            raise IntegrityError(f"ends at byte {offset + len(data)}", object=self._name, rule="TD-MAN-013")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class CloudBatch:
    """Puts several objects at once; a context manager. Threads may share it."""

    def __init__(self, store: CloudStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_OBJECTS, thread_name_prefix="tensordelta-put")
        self._room = threading.Semaphore(2 * _OBJECTS)
        self._failed: list[tuple[str, BaseException]] = []
        self._left = 0  # bytes that are on their way
        self._ending: Phase | None = None
        self._lock = threading.Lock()

    def put(self, name: str, parts: Parts) -> None:
        """Take an object and begin to put it. Raises StoreError if an earlier one has failed."""
        if self._failed:
            raise self._failed[0][1]
        waiting = Waiting(parts)
        self._room.acquire()
        with self._lock:
            self._left += waiting.size
        try:
            self._pool.submit(self._work, name, waiting)
        except BaseException:
            self._room.release()
            waiting.close()
            raise

    def _work(self, name: str, waiting: Waiting) -> None:
        try:
            with waiting:
                self._store._send(name, waiting)
        except BaseException as error:  # a panic of the client's is no Exception
            self._failed.append((name, error))
        finally:
            with self._lock:
                self._left -= waiting.size
                if self._ending is not None:
                    self._ending.add(waiting.size)
            self._room.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._lock:
            left = self._left
        with phase("uploading", left) as self._ending:
            self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is not None or not self._failed:
            return
        first = self._failed[0][1]
        if not isinstance(first, StoreError) or len(self._failed) == 1:
            raise first
        names = ", ".join(sorted(name for name, _ in self._failed))  # they fail in any order
        raise StoreError(self._store.address, "put", names, first.cause, first.advice)


_runtime: Process | None = None


def _enter_runtime() -> None:
    """Note that this process uses obstore's runtime, or notice that it is a fork of one that did."""
    global _runtime
    if _runtime is None:
        _runtime = Process("the runtime of obstore, which chains in object stores need,")
    _runtime.check()


class _ShortError(Exception):
    """The server sent fewer bytes than it announced."""


def _is_obstore(error: Exception) -> bool:
    return type(error).__module__.startswith("obstore") or isinstance(error, (OSError, _ShortError))


def _status(error: Exception) -> int | None:
    """The status of the answer, or None if there was none."""
    match = _STATUS.search(str(error))
    return int(match[1]) if match else None


def _passing(error: Exception) -> bool:
    if isinstance(error, _ShortError):
        return True
    status = _status(error)
    if status is not None:
        return status in PASSING
    return type(error).__name__ == "GenericError" and "169.254.169.254" not in str(error)


def _is_lost(error: Exception) -> bool:
    """True if the store may have done what it was asked, although the answer was lost."""
    status = _status(error)
    return status is None or status >= 500 or status == 408


def _first_line(error: Exception) -> str:
    return str(error).partition("\n\nDebug source")[0].replace("\n", " ")


def _check(name: str) -> None:
    if not is_path(name):
        raise ValueError(f"{name!r} is no name of an object")
