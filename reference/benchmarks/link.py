"""A link throttled in this process, and a store at the other end of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tensordelta.stores import DirectBatch, FolderStore, StoredBlob, StoredObject

#: Bytes that a request sends at a time, so that several share a link fairly.
_SLICE = 1 << 16


class Way:
    """One direction of a link: bytes pass one after the other, whoever sends them.

    Args:
        rate: bytes a second; None for no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self.count = 0
        self._free = 0.0
        self._lock = threading.Lock()

    def send(self, count: int) -> None:
        """Take as long as so many bytes do."""
        until = 0.0
        for start in range(0, count, _SLICE):
            part = min(_SLICE, count - start)
            with self._lock:
                self.count += part
                if self.rate is not None:
                    until = self._free = max(time.perf_counter(), self._free) + part / self.rate
            _sleep(until, at_least=0.001)  # what is not worth a sleep is made up for by the next one
        _sleep(until)


def _sleep(until: float, *, at_least: float = 0.0) -> None:
    pause = until - time.perf_counter()
    if pause > at_least:
        time.sleep(pause)


class Link:
    """Both ways between this machine and a store.

    Attributes:
        up, down: the two ways.
        latency: seconds for a request to get there and back.
    """

    def __init__(self) -> None:
        self.up, self.down = Way(None), Way(None)
        self.latency = 0.0

    def throttle(self, mbit: float | None, latency: float) -> None:
        """Let so many Mbit/s through each way; None for no limit."""
        self.up.rate = self.down.rate = None if mbit is None else mbit * 1e6 / 8
        self.latency = latency

    def ask(self) -> None:
        """One request and its answer, but for its bytes."""
        time.sleep(self.latency)


class _Blob:
    def __init__(self, blob: StoredBlob, link: Link) -> None:
        self._blob = blob
        self._link = link
        self.size = blob.size

    def read(self, offset: int, length: int) -> memoryview:
        self._link.ask()
        self._link.down.send(length)
        return self._blob.read(offset, length)

    def __enter__(self) -> Self:
        self._blob.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blob.__exit__(kind, error, trace)


class FarStore:
    """A folder at the other end of a link.

    Attributes:
        created: when an object was created last.
    """

    exclusive = True
    lists = True
    remote = True

    def __init__(self, root: Path, link: Link) -> None:
        self._store = FolderStore(root)
        self._link = link
        self.created = 0.0

    @property
    def address(self) -> str:
        return self._store.address

    def read(self, name: str) -> bytes:
        self._link.ask()
        data = self._store.read(name)
        self._link.down.send(len(data))
        return data

    def open(self, name: str) -> _Blob:
        self._link.ask()
        return _Blob(self._store.open(name), self._link)

    def size(self, name: str) -> int | None:
        self._link.ask()
        return self._store.size(name)

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        self._link.ask()
        return self._store.names(prefix, after)

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        self._link.ask()
        return self._store.entries(prefix)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._link.ask()
        taken = list(parts)
        self._link.up.send(sum(map(len, taken)))
        self._store.put(name, taken)

    def create(self, name: str, data: bytes) -> bool:
        self._link.ask()
        self._link.up.send(len(data))
        done = self._store.create(name, data)
        self.created = time.perf_counter()
        return done

    def batch(self) -> DirectBatch:
        return DirectBatch(self)

    def delete(self, name: str) -> None:
        self._link.ask()
        self._store.delete(name)
