"""The suite for stores finds what it should: each of these stores is wrong in one point."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from memory import MemoryBlob, MemoryStore

from tensordelta.errors import MissingError
from tensordelta.stores import StoredObject
from tensordelta.stores.testing import NAMES, NO_NAMES, StoreTests


class AnyName(MemoryStore):
    def _name(self, name: str) -> str:
        return name


class Overwrites(MemoryStore):
    def create(self, name: str, data: bytes) -> bool:
        self._objects[self._name(name)] = data
        return True


class Repeats(MemoryStore):
    def create(self, name: str, data: bytes) -> bool:
        return super().create(name, data) or self.read(name) == data


class SaysNothing(MemoryStore):
    def create(self, name: str, data: bytes) -> bool:
        super().create(name, data)
        return True


class NoAfter(MemoryStore):
    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return super().names(prefix)


class AfterIncluded(MemoryStore):
    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return iter([n for n in list(self._objects) if n.startswith(prefix) and (after is None or n >= after)])


class Shallow(MemoryStore):
    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return iter([name for name in super().names(prefix, after) if name.count("/") <= prefix.count("/") + 1])


class LoosePrefix(MemoryStore):
    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return super().names(prefix.rstrip("/"), after)


class OnePage(MemoryStore):
    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return iter(sorted(super().names(prefix, after))[:1000])


class NoSizes(MemoryStore):
    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return (entry._replace(size=0) for entry in super().entries(prefix))


class OldTimes(MemoryStore):
    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return (entry._replace(modified=0.0) for entry in super().entries(prefix))


class ReadsEmpty(MemoryStore):
    def read(self, name: str) -> bytes:
        return self._objects.get(self._name(name), b"")


class SizesZero(MemoryStore):
    def size(self, name: str) -> int | None:
        return super().size(name) or None


class ShortBlob(MemoryBlob):
    def read(self, offset: int, length: int) -> memoryview:
        return memoryview(self._data)[offset : offset + length]


class ShortReads(MemoryStore):
    def open(self, name: str) -> MemoryBlob:
        return ShortBlob(name, self.read(name))


class FoldsCase(MemoryStore):
    def _name(self, name: str) -> str:
        return super()._name(name).lower()


class LastPart(MemoryStore):
    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        data = b""
        for part in parts:
            data = bytes(part)
        super().put(name, [data])


class HalfPut(MemoryStore):
    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._objects[self._name(name)] = b""
        for part in parts:
            self._objects[name] += bytes(part)


class Appends(MemoryStore):
    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._objects[self._name(name)] = self._objects.get(name, b"") + b"".join(parts)


class _Forgetful:
    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        pass

    def __enter__(self) -> _Forgetful:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class LosesBatches(MemoryStore):
    def batch(self) -> Any:
        return _Forgetful()


class KeepsDeleted(MemoryStore):
    def delete(self, name: str) -> None:
        pass


class StrictDelete(MemoryStore):
    def delete(self, name: str) -> None:
        del self._objects[self._name(name)]


class DeletesPrefix(MemoryStore):
    def delete(self, name: str) -> None:
        for each in list(self._objects):
            if each.startswith(name):
                del self._objects[each]


class NoName(MemoryStore):
    def read(self, name: str) -> bytes:
        try:
            return super().read(name)
        except MissingError as error:
            raise MissingError(error.reason, object="an object", rule=error.rule) from None


MUTANTS = [each for each in list(globals().values()) if isinstance(each, type) and issubclass(each, MemoryStore)]


def faults(kind: type[MemoryStore]) -> list[str]:
    """Names of the suite's tests that a store does not pass."""
    suite = StoreTests()
    suite.large = 3 << 20
    failed = []
    for name, test in inspect.getmembers(suite, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        arguments: Iterable[dict[str, Any]] = [{}]
        if name == "test_put_and_read":
            arguments = [{"name": each} for each in NAMES]
        elif name == "test_what_is_no_name":
            arguments = [{"name": each} for each in NO_NAMES]
        elif name == "test_ranges":
            arguments = [{"size": 10}]
        for each in arguments:
            try:
                test(kind(), **each)
            except (Exception, pytest.fail.Exception):
                failed.append(name)
    return failed


def test_the_store_in_memory_passes() -> None:
    assert faults(MemoryStore) == []


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each is not MemoryStore])
def test_a_mutant_is_found(mutant: type[MemoryStore]) -> None:
    assert faults(mutant)
