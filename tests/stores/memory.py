"""A store in memory, as a third party would write it: no class of the package is its parent."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from tensordelta.errors import IntegrityError, MissingError
from tensordelta.format.names import is_path
from tensordelta.stores import Batch, DirectBatch, StoredObject


class MemoryBlob:
    def __init__(self, name: str, data: bytes) -> None:
        self._name, self._data = name, data
        self.size = len(data)

    def read(self, offset: int, length: int) -> memoryview:
        if offset + length > self.size:
            raise IntegrityError(f"ends at byte {self.size}", object=self._name, rule="TD-MAN-013")
        return memoryview(self._data)[offset : offset + length]

    def __enter__(self) -> MemoryBlob:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class MemoryStore:
    """The protocol in its shortest form.

    Attributes:
        remote: whether readers take it for far away.
        opened: names of what was opened, in order.
    """

    address, exclusive, lists = "memory", True, True

    def __init__(self, *, remote: bool = False) -> None:
        self.remote = remote
        self.opened: list[str] = []
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def _name(self, name: str) -> str:
        if not is_path(name):
            raise ValueError(f"{name!r} is no name")
        return name

    def read(self, name: str) -> bytes:
        try:
            return self._objects[self._name(name)]
        except KeyError:
            raise MissingError("is not in memory", object=name, rule="TD-MAN-014") from None

    def open(self, name: str) -> MemoryBlob:
        self.opened.append(name)
        return MemoryBlob(name, self.read(name))

    def size(self, name: str) -> int | None:
        data = self._objects.get(name)
        return None if data is None else len(data)

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return iter([n for n in list(self._objects) if n.startswith(prefix) and (after is None or n > after)])

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return (StoredObject(name, len(self._objects[name]), None) for name in self.names(prefix))

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._objects[self._name(name)] = b"".join(parts)

    def create(self, name: str, data: bytes) -> bool:
        with self._lock:
            free = self._name(name) not in self._objects
            self._objects.setdefault(name, data)
            return free

    def batch(self) -> AbstractContextManager[Batch]:
        return DirectBatch(self)

    def delete(self, name: str) -> None:
        self._objects.pop(self._name(name), None)
