"""A store in memory that counts requests, with packs of which nothing but the tables is kept.

Chains of models that fit on no machine are planned, listed and collected in it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from tensordelta.errors import MissingError
from tensordelta.format.names import PACKS
from tensordelta.stores import DirectBatch, StoredObject

#: Names that one request lists, as object stores do.
PAGE = 1000


class Blob:
    """An object of which the beginning is there.

    Args:
        data: its first bytes, or all.
        size: how many it has.
    """

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self._data = data
        self.size = len(data) if size is None else size

    def read(self, offset: int, length: int) -> memoryview:
        return memoryview(self._data)[offset : offset + length]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class SimulatedStore:
    """Objects in memory; counts what is asked of it.

    Args:
        hollow: keep the header alone of a pack that is put.
        remote: behave as a store across a network, of which several objects are read at once.

    Attributes:
        objects: bytes by name.
        sizes: of the objects that are hollow, by name.
        modified: when objects were written, by name, in seconds; those without were always there.
        now: the store's clock.
        latency: seconds that each request takes.
        requests: how often each kind of request was made; a listing takes one for each `PAGE` names.
        got: bytes of the objects that were read.
        waited: seconds in which at least one request was under way.
    """

    address = "simulated"
    exclusive = True
    lists = True

    def __init__(self, *, hollow: bool = False, remote: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}
        self.modified: dict[str, float] = {}
        self.now = 0.0
        self.latency = 0.0
        self.remote = remote
        self.requests: Counter[str] = Counter()
        self.got = 0
        self.waited = 0.0
        self._flying = 0
        self._since = 0.0
        self._hollow = hollow
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Count from zero."""
        self.requests.clear()
        self.got = 0
        self.waited = 0.0

    def _request(self, kind: str) -> None:
        with self._lock:
            self.requests[kind] += 1
            if not self._flying:
                self._since = time.perf_counter()
            self._flying += 1
        if self.latency:
            time.sleep(self.latency)
        with self._lock:
            self._flying -= 1
            if not self._flying:
                self.waited += time.perf_counter() - self._since

    def read(self, name: str) -> bytes:
        self._request("read")
        if name not in self.objects:
            raise MissingError("is not there", object=name, rule="TD-MAN-014")
        data = self.objects[name]
        self.got += len(data)
        return data

    def open(self, name: str) -> Blob:
        return Blob(self.read(name), self.sizes.get(name))

    def size(self, name: str) -> int | None:
        self._request("size")
        return self._size(name) if name in self.objects else None

    def _size(self, name: str) -> int:
        return self.sizes.get(name, len(self.objects[name]))

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        self._request("list")
        count = 0
        for name in list(self.objects):
            if name.startswith(prefix) and (after is None or name > after):
                count += 1
                if count > 1 and count % PAGE == 1:
                    self._request("list")
                yield name
        self.requests["listed name"] += count

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return (StoredObject(name, self._size(name), self.modified.get(name)) for name in self.names(prefix))

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._request("put")
        self._keep(name, parts)

    def _keep(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        found = iter(parts)
        data = bytes(next(found, b""))
        if self._hollow and name.startswith(PACKS):
            self.sizes[name] = len(data) + sum(map(len, found))
        else:
            data = b"".join((data, *found))
        self.objects[name] = data
        self.modified[name] = self.now

    def create(self, name: str, data: bytes) -> bool:
        self._request("create")
        with self._lock:
            is_new = name not in self.objects
            if is_new:
                self._keep(name, [data])
        return is_new

    def batch(self) -> DirectBatch:
        return DirectBatch(self)

    def delete(self, name: str) -> None:
        self._request("delete")
        for kept in (self.objects, self.sizes, self.modified):
            kept.pop(name, None)
