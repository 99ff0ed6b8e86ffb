"""A store in memory with a clock of its own, which notes what is done to it and can break off at any operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tensordelta.errors import MissingError
from tensordelta.read.proven import MemoryBlob
from tensordelta.stores import DirectBatch, StoredObject


class Crash(BaseException):
    """The process that uses the store dies here."""


class _Blob(MemoryBlob):
    def __enter__(self) -> _Blob:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass
class ClockedStore:
    """Objects by name, each with the time at which it was written.

    Attributes:
        now: the store's clock; a test moves it.
        tells_ages: listings have times.
        done: what was done, in order: ("put" | "create" | "delete", name).
        opened: names of objects that were read.
        crash_at: changes until the process dies; None for never. `after`: the last one still happens.
        before_open: called with the name of each object that is about to be read.
    """

    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    now: float = 1000.0
    tells_ages: bool = True
    done: list[tuple[str, str]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    crash_at: int | None = None
    after: bool = False
    before_open: Callable[[str], object] | None = None

    address = "clocked"
    exclusive = True
    remote = False
    lists = True

    def _change(self, kind: str, name: str, change: Callable[[], object]) -> None:
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at < 0:
                if self.after:
                    change()
                raise Crash
        self.done.append((kind, name))
        change()

    def _write(self, kind: str, name: str, data: bytes) -> None:
        self._change(kind, name, lambda: self.objects.__setitem__(name, (data, self.now)))

    def read(self, name: str) -> bytes:
        if self.before_open is not None:
            self.before_open(name)
        self.opened.append(name)
        if name not in self.objects:
            raise MissingError("is not there", object=name, rule="TD-MAN-014")
        return self.objects[name][0]

    def open(self, name: str) -> _Blob:
        return _Blob(memoryview(self.read(name)))

    def size(self, name: str) -> int | None:
        return len(self.objects[name][0]) if name in self.objects else None

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return (name for name in list(self.objects) if name.startswith(prefix) and (after is None or name > after))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        found = [(name, *self.objects[name]) for name in self.names(prefix)]
        return (StoredObject(name, len(data), time if self.tells_ages else None) for name, data, time in found)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._write("put", name, b"".join(parts))

    def create(self, name: str, data: bytes) -> bool:
        if name in self.objects:
            return False
        self._write("create", name, data)
        return True

    def batch(self) -> DirectBatch:
        return DirectBatch(self)

    def delete(self, name: str) -> None:
        self._change("delete", name, lambda: self.objects.pop(name, None))

    # -- for tests ------------------------------------------------------------------------------------------------

    def copy(self) -> ClockedStore:
        """The same objects in another store."""
        return ClockedStore(dict(self.objects), self.now, self.tells_ages)

    def deleted(self) -> list[str]:
        """What was deleted, but for clocks, in order."""
        return [name for kind, name in self.done if kind == "delete" and not name.startswith("pins/clock-")]
