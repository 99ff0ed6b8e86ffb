"""Chains behind plain HTTPS, for readers: objects by GET, and no listing (SPEC.md section 12.5).

The standard library's client is used, with connections that are kept: it is there in every engine's environment, while
the client that huggingface_hub brings is another one in each of its major versions, and obstore's follows redirects by
rules of its own and calls a status of 410 a failure.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, RemoteDisconnected
from ipaddress import ip_address
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import IntegrityError, StoreError
from ..format.names import LATEST, is_path
from .base import NoSuchObject, Parts, StoredObject
from .retries import PASSING, Retries
from .spool import cache_root

T = TypeVar("T")

SCHEMES = ("https", "http")

#: Bytes of an object that come with its size, in one request.
_HEAD = 1 << 16
#: Bytes that are read at once, and the most of an object whose size no header tells.
_PIECE = 1 << 20
_UNTOLD = 256 << 20
#: Redirects that one request may take.
_REDIRECTS = 5
#: Seconds without a byte.
_TIMEOUT = 60.0
#: Answers that lead elsewhere, and that say that there is no object.
_ELSEWHERE = (301, 302, 303, 307, 308)
_ABSENT = (404, 410)


def open_web(address: str, *, options: Mapping[str, Any] | None = None, retries: Retries | None = None) -> WebStore:
    """The store at an address `https://HOST/PATH`, or `http://` of this machine.

    Args:
        address: the root.
        options: `headers`, a mapping that requests to the root's own host bear; `timeout`, seconds without a byte.
        retries: how often to try again.

    Raises:
        ValueError: an address that is none, plain HTTP to another machine, or an unknown option.
    """
    given = dict(options or {})
    headers, timeout = dict(given.pop("headers", {})), float(given.pop("timeout", _TIMEOUT))
    if given:
        raise ValueError(f"a chain behind HTTPS has no option {min(given)!r}")
    return WebStore(address, headers=headers, timeout=timeout, retries=retries)


class WebStore:
    """The objects below a URL, by GET alone. It cannot be written to, and lists nothing.

    Args:
        address: the root's URL.
        headers: requests to the root's own host bear them; those that are redirected elsewhere do not.
        timeout: seconds without a byte.
        retries: how often to try again.

    Raises:
        ValueError: an address that is none, or plain HTTP to another machine.
    """

    exclusive = False
    remote = True
    lists = False

    def __init__(
        self,
        address: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = _TIMEOUT,
        retries: Retries | None = None,
    ) -> None:
        url = urlsplit(address)
        if not url.hostname or url.query or url.fragment or url.username is not None:
            raise ValueError(f"{address!r} is no address of a chain; write https://HOST/PATH")
        if not _is_allowed(url, loopback=True):
            raise ValueError(f"{address!r}: plain HTTP is for servers of this machine; write https://")
        self._root = address if address.endswith("/") else f"{address}/"
        self._host = url.netloc
        self._headers = dict(headers or {})
        self._connections = _Connections(timeout)
        self._retries = retries or Retries()
        self._hint: tuple[str, bytes] | None = None  # the entity tag and bytes of latest.json

    @property
    def address(self) -> str:
        """The root's URL."""
        return self._root.rstrip("/")

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        """An object's bytes. Raises NoSuchObject, StoreError."""
        with self.open(name) as blob:
            return bytes(blob.read(0, blob.size))

    def open(self, name: str) -> WebBlob:
        """An object, to be read in parts. Raises NoSuchObject, StoreError."""
        return self._try("read", name, lambda: self._latest() if name == LATEST else self._open(name))

    def size(self, name: str) -> int | None:
        """An object's size, or None if there is no such object. Raises StoreError."""
        try:
            with self.open(name) as blob:
                return blob.size
        except NoSuchObject:
            return None

    def _open(self, name: str) -> WebBlob:
        answer = self._get(name, {"Range": f"bytes=0-{_HEAD - 1}"})
        if answer.status == 416:  # an empty object has no range
            answer.pass_over()
            return WebBlob(self, name, 0, b"")
        if answer.status == 206:
            size = answer.total()
            return WebBlob(self, name, size, answer.take(min(size, _HEAD)))
        size = answer.length()
        if size <= _HEAD:
            return WebBlob(self, name, size, answer.take(size))
        return WebBlob(self, name, size, b"", _Spool(answer))  # a server without ranges

    def _latest(self) -> WebBlob:
        """The hint, whose bytes need not be sent again while they are the same."""
        known = self._hint
        answer = self._get(LATEST, {} if known is None else {"If-None-Match": known[0]})
        if answer.status == 304 and known is not None:
            answer.pass_over()
            return WebBlob(self, LATEST, len(known[1]), known[1])
        size = answer.length(_HEAD)
        if size > _HEAD:
            return WebBlob(self, LATEST, size, b"", _Spool(answer))
        tag = answer.header("ETag")
        data = answer.take(size)
        # A time of change is no tag: two versions may appear in its second.
        self._hint = None if tag is None else (tag, data)
        return WebBlob(self, LATEST, size, data)

    def range(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of an object, fewer if it ends earlier. Raises NoSuchObject, StoreError."""

        def work() -> bytes:
            answer = self._get(name, {"Range": f"bytes={offset}-{offset + length - 1}"})
            if answer.status != 206:
                answer.drop()
                raise _BrokenError(f"status {answer.status} for a part of it")
            return answer.take(min(length, answer.total() - offset))

        return self._try("read", name, work)

    def _get(self, name: str, headers: Mapping[str, str]) -> _Answer:
        """The answer to a GET, redirects followed."""
        if not is_path(name):
            raise ValueError(f"{name!r} is no name of an object")
        url = self._url(name)
        for _ in range(_REDIRECTS + 1):
            parts = urlsplit(url)
            own = self._headers if parts.netloc == self._host else {}
            answer = self._connections.get(parts, {**own, **headers})
            if answer.status in _ELSEWHERE:
                url = urljoin(url, answer.header("Location") or "")
                answer.pass_over()
                if not _is_allowed(urlsplit(url), loopback=self._root.startswith("http:")):
                    raise _RefusedError(f"it leads to {url}, and redirects are followed to https alone")
                continue
            if answer.status in (200, 206, 304, 416):
                return answer
            answer.pass_over()
            if answer.status in _ABSENT:
                raise NoSuchObject(name, self.address)
            raise _StatusError(answer.status)
        raise _RefusedError(f"more than {_REDIRECTS} redirects")

    def _url(self, name: str) -> str:
        return self._root + name

    def _try(self, operation: str, name: str, work: Callable[[], T]) -> T:
        try:
            return self._retries.call(work, passing=_passing, what=f"{operation} of {name}")
        except (NoSuchObject, StoreError, ValueError):
            raise
        except (OSError, HTTPException) as error:
            cause = str(error) or type(error).__name__
            advice = None
            if isinstance(error, _StatusError) and error.status in (401, 403):
                advice = "The server refuses it: check the address, and what the server lets everyone read."
            raise StoreError(self.address, operation, name, cause, advice) from None

    # -- what plain HTTP cannot do --------------------------------------------------------------------------------

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """Raises StoreError: plain HTTP has no listing."""
        self._cannot("listing", prefix, "plain HTTP lists nothing")

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """Raises StoreError: plain HTTP has no listing."""
        self._cannot("listing", prefix, "plain HTTP lists nothing")

    def put(self, name: str, parts: Parts) -> None:
        """Raises StoreError: it is only read."""
        self._cannot("put", name, "a chain behind plain HTTP is only read")

    def create(self, name: str, data: bytes) -> bool:
        """Raises StoreError: it is only read."""
        self._cannot("create", name, "a chain behind plain HTTP is only read")

    def batch(self) -> Any:
        """Raises StoreError: it is only read."""
        self._cannot("put", "", "a chain behind plain HTTP is only read")

    def delete(self, name: str) -> None:
        """Raises StoreError: it is only read."""
        self._cannot("delete", name, "a chain behind plain HTTP is only read")

    def _cannot(self, operation: str, name: str, cause: str) -> NoReturn:
        advice = "Give the address of the folder or bucket that it is served from."
        raise StoreError(self.address, operation, name, cause, advice)


class WebSource(WebStore):
    """The file at one URL, as a store that has it under any name.

    Raises:
        ValueError: an address that is none, or plain HTTP to another machine.
    """

    def __init__(self, url: str) -> None:
        super().__init__(urljoin(url, "/"))
        self._source = url

    @property
    def address(self) -> str:
        """The URL."""
        return self._source

    def _url(self, name: str) -> str:
        return self._source


class WebBlob:
    """An object; its first bytes came with its size, the others come by ranges, or in a stream where there are none."""

    def __init__(self, store: WebStore, name: str, size: int, head: bytes, spool: _Spool | None = None) -> None:
        self._store = store
        self._name = name
        self._head = memoryview(head)
        self._spool = spool
        self.size = size

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`. Raises IntegrityError, StoreError."""
        if offset + length > self.size:
            raise IntegrityError(f"ends at byte {self.size}", object=self._name, rule="TD-MAN-013")
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        if self._spool is not None:
            spool = self._spool
            return self._store._try("read", self._name, lambda: spool.read(offset, length))
        head = self._head[offset:]
        data = self._store.range(self._name, offset + len(head), length - len(head))
        if len(head) + len(data) != length:
            raise IntegrityError(f"ends at byte {offset + len(data)}", object=self._name, rule="TD-MAN-013")
        return memoryview(b"".join((head, data))) if head else memoryview(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool is not None:
            self._spool.close()


class _Answer:
    """An answer to a GET. Its connection is kept once the body was taken, else closed by `drop`."""

    def __init__(
        self, response: HTTPResponse, connection: HTTPConnection, keep: Callable[[HTTPConnection], None]
    ) -> None:
        self._response, self._connection, self._keep = response, connection, keep
        self._body: bytes | None = None
        self.status = response.status

    def header(self, name: str) -> str | None:
        return self._response.getheader(name)

    def length(self, most: int = _UNTOLD) -> int:
        """The bytes of the body, from its header; of at most `most` where there is none."""
        if (self.header("Content-Encoding") or "identity") != "identity":
            raise self._broken("the server has compressed it")
        length = self.header("Content-Length")
        if length is None:
            self._body = self._response.read(most + 1)
            self._response.close()
            if len(self._body) > most:
                raise self._broken("the server does not say how long it is")
            return len(self._body)
        if not length.isdecimal():
            raise self._broken(f"Content-Length is {length!r}")
        return int(length)

    def total(self) -> int:
        """The bytes of the object, from the header of a part of it."""
        total = (self.header("Content-Range") or "").rpartition("/")[2]
        if not total.isdecimal():
            raise self._broken("an answer 206 does not say how long the object is")
        return int(total)

    def take(self, length: int) -> bytes:
        """The body, which has so many bytes."""
        data = self._response.read(length + 1) if self._body is None else self._body
        if len(data) != length:
            raise self._broken(f"{len(data)} bytes came, not {length}")
        self._end()
        return data

    def pass_over(self) -> None:
        """Leave the body, which does not matter."""
        self._response.read(_HEAD)
        self._end()

    def _end(self) -> None:
        if self._response.isclosed() and not self._response.will_close:
            self._keep(self._connection)
        else:
            self.drop()

    def read(self, length: int) -> bytes:
        """More of the body."""
        if self._body is not None:
            data, self._body = self._body[:length], self._body[length:]
            return data
        return self._response.read(length)

    def drop(self) -> None:
        """End the connection."""
        self._response.close()
        self._connection.close()

    def _broken(self, reason: str) -> _BrokenError:
        self.drop()
        return _BrokenError(reason)


class _Spool:
    """A body on its way into an unnamed file, so that it can be read by position."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(dir=cache_root(make=True))  # noqa: SIM115 - closed by `close`
        self._got = 0

    def read(self, offset: int, length: int) -> memoryview:
        """Bytes of the body; waits for them."""
        with self._lock:
            while self._got < offset + length:
                piece = self._answer.read(_PIECE)
                if not piece:
                    raise _RefusedError(f"the answer ended after {self._got} bytes")
                self._file.seek(self._got)
                self._file.write(piece)
                self._got += len(piece)
            self._file.flush()
        return memoryview(os.pread(self._file.fileno(), length, offset))

    def close(self) -> None:
        self._answer.drop()
        self._file.close()


class _Connections:
    """Connections to hosts, kept for the next request. Threads may share it."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._idle: dict[tuple[str, str], list[HTTPConnection]] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    def get(self, url: SplitResult, headers: Mapping[str, str]) -> _Answer:
        """Ask for a URL; a kept connection that the server has closed meanwhile is replaced."""
        key = (url.scheme, url.netloc)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        while True:
            kept = self._take(key)
            connection = kept or self._connect(url)
            try:
                connection.request("GET", path, headers=dict(headers))
                response = connection.getresponse()
            except BaseException as error:
                connection.close()
                if kept is None or not isinstance(error, (RemoteDisconnected, ConnectionError)):
                    raise
                continue
            return _Answer(response, connection, lambda each: self._keep(key, each))

    def __del__(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()

    def _take(self, key: tuple[str, str]) -> HTTPConnection | None:
        with self._lock:
            if self._process != os.getpid():  # a fork has copied the connections, which its parent uses
                self._idle, self._process = {}, os.getpid()
            idle = self._idle.get(key)
            return idle.pop() if idle else None

    def _keep(self, key: tuple[str, str], connection: HTTPConnection) -> None:
        with self._lock:
            self._idle.setdefault(key, []).append(connection)

    def _connect(self, url: SplitResult) -> HTTPConnection:
        host, port = url.hostname or "", url.port
        proxy = None if _is_loopback(host) or proxy_bypass(host) else getproxies().get(url.scheme)
        context = ssl.create_default_context() if url.scheme == "https" else None
        if proxy is None:
            if context is None:
                return HTTPConnection(host, port, timeout=self._timeout)
            return HTTPSConnection(host, port, timeout=self._timeout, context=context)
        through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        connection = HTTPSConnection(through.hostname or "", through.port or 80, timeout=self._timeout, context=context)
        user = f"{unquote(through.username or '')}:{unquote(through.password or '')}"
        login = {"Proxy-Authorization": f"Basic {b64encode(user.encode()).decode()}"} if through.username else {}
        connection.set_tunnel(host, port or 443, headers=login)
        return connection


class _StatusError(OSError):
    """An answer that is neither the object nor its absence."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class _BrokenError(OSError):
    """An answer that is not what was asked for; the next one may be."""


class _RefusedError(OSError):
    """An answer that this store does not follow."""


def _passing(error: Exception) -> bool:
    if isinstance(error, _StatusError):
        return error.status in PASSING
    return not isinstance(error, (_RefusedError, ssl.SSLCertVerificationError, NoSuchObject, ValueError))


def _is_allowed(url: SplitResult, *, loopback: bool) -> bool:
    """True for HTTPS, and for plain HTTP to this machine where that is allowed."""
    return url.scheme == "https" or (url.scheme == "http" and loopback and _is_loopback(url.hostname or ""))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return False
