"""Processes that use one store in turns: one operation at a time, in any order, each of which may stop or die there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from clocked_store import Crash

from tensordelta.errors import MissingError
from tensordelta.read.proven import MemoryBlob
from tensordelta.stores import DirectBatch, StoredObject


class SharedStore:
    """Objects by name, their history, and a clock that a test moves.

    Attributes:
        now: the clock.
        lag: a listing does not show what others did since so many seconds.
        log: what was done: when, by whom, the name, and the bytes or None for a deletion.
    """

    def __init__(self, lag: float = 0.0) -> None:
        self.now = 1000.0
        self.lag = lag
        self.log: list[tuple[float, object, str, bytes | None]] = []
        self.objects: dict[str, bytes] = {}

    def write(self, who: object, name: str, data: bytes | None) -> None:
        self.log.append((self.now, who, name, data))
        if data is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = data

    def listing(self, who: object, prefix: str) -> list[StoredObject]:
        found: dict[str, StoredObject] = {}
        for when, by, name, data in self.log:
            if name.startswith(prefix) and (by is who or when <= self.now - self.lag):
                if data is None:
                    found.pop(name, None)
                else:
                    found[name] = StoredObject(name, len(data), when)
        return list(found.values())


class _Blob(MemoryBlob):
    def __enter__(self) -> _Blob:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Process:
    """A thread that waits for its turn before each operation on the store.

    Args:
        store: the store.
        work: what it does, with itself as a store.

    Attributes:
        began: when it was started, by the store's clock.
        done: whether it has ended; then `result`, or `error`, says how.
    """

    address = "shared"
    exclusive = True
    remote = False
    lists = True

    def __init__(self, store: SharedStore, work: Callable[[Process], object]) -> None:
        self.store = store
        self.began = store.now
        self.done = self.dead = False
        self.result: object = None
        self.error: BaseException | None = None
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        self._waits.acquire()

    def _run(self, work: Callable[[Process], object]) -> None:
        try:
            self.result = work(self)
        except BaseException as error:
            self.error = error
        self.done = True
        self._waits.release()

    def pause(self) -> None:
        """Wait for a turn."""
        if self.dead:
            raise Crash
        self._waits.release()
        self._go.acquire()
        if self.dead:
            raise Crash

    def step(self) -> None:
        """Give it a turn: one operation, and what follows until the next."""
        if not self.done:
            self._go.release()
            self._waits.acquire()

    def kill(self) -> None:
        """End it where it is."""
        self.dead = True
        while not self.done:
            self.step()
        self._thread.join()

    # -- as a store -----------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes:
        self.pause()
        if name not in self.store.objects:
            raise MissingError("is not there", object=name, rule="TD-MAN-014")
        return self.store.objects[name]

    def open(self, name: str) -> _Blob:
        return _Blob(memoryview(self.read(name)))

    def size(self, name: str) -> int | None:
        self.pause()
        return len(self.store.objects[name]) if name in self.store.objects else None

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        self.pause()
        return iter(self.store.listing(self, prefix))

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return (each.name for each in self.entries(prefix) if after is None or each.name > after)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        data = b"".join(parts)
        self.pause()
        self.store.write(self, name, data)

    def create(self, name: str, data: bytes) -> bool:
        self.pause()
        if name in self.store.objects:
            return False
        self.store.write(self, name, data)
        return True

    def delete(self, name: str) -> None:
        self.pause()
        self.store.write(self, name, None)

    def batch(self) -> DirectBatch:
        return DirectBatch(self)
