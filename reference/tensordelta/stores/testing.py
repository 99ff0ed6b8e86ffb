"""A test suite for stores, for pytest.

    from tensordelta.stores.testing import StoreTests

    class TestMine(StoreTests):
        @pytest.fixture
        def store(self):
            return MyStore(...)        # empty, for each test a new one

If a second process would use another store object, override `again`, so that the tests see what is durable and not
what the store merely remembers.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..errors import MissingError
from .base import Store

__all__ = ["StoreTests"]

#: Names as a chain has them, and what else the grammar of names allows.
NAMES = (
    "chain.json",
    "manifests/000000000000.json",
    "manifests/999999999999.json",
    "shortcuts/000000000002-000000000001.nat.json",
    "shortcuts/000000000002-full.json",
    "chain.json.sig",
    f"files/{'0' * 64}",
    "packs/a/b/c.safetensors",
    "packs/_-.-",
    f"packs/{'x' * 194}",
)
#: Not names of objects, since they could leave the root or differ between stores.
NO_NAMES = ("", "/", "..", "../x", "packs/../x", "/x", "x/", "a//b", ".x", "packs/.x", "a b", "ü", "a\\b", "x" * 201)


class StoreTests:
    """What every store must do. Subclass it and define a `store` fixture."""

    #: Bytes of a large object: more than any store sends in one piece.
    large = 20 << 20
    #: Names of a listing that has several pages.
    many = 1200

    @pytest.fixture
    def store(self) -> Any:
        """The store under test, empty."""
        raise NotImplementedError("override the fixture `store`")

    def again(self, store: Any) -> Store:
        """The store as a second process opens it; by default the same object."""
        result: Store = store
        return result

    # -- what it says of itself -----------------------------------------------------------------------------------

    def test_what_it_says_of_itself(self, store: Any) -> None:
        """An address for people, and whether `create` is atomic and reads cross a network."""
        assert isinstance(store.address, str) and store.address
        assert isinstance(store.exclusive, bool) and isinstance(store.remote, bool)

    # -- put, read, size ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", NAMES)
    def test_put_and_read(self, store: Any, name: str) -> None:
        """What was put is read back, by this process and by others."""
        store.put(name, [b"one ", memoryview(b"two")])
        for each in (store, self.again(store)):
            assert each.read(name) == b"one two"
            assert each.size(name) == 7
            assert list(each.names("")) == [name]

    def test_names_are_told_apart(self, store: Any) -> None:
        """Names are case-sensitive, and no name hides one that begins like it."""
        contents = {name: name.encode() for name in (*NAMES, "packs/X", "packs/x", "packs/xx", "packs/a.b")}
        for name, data in contents.items():
            store.put(name, [data])
        assert {name: self.again(store).read(name) for name in contents} == contents

    @pytest.mark.parametrize("name", NO_NAMES)
    def test_what_is_no_name(self, store: Any, name: str) -> None:
        """A name that no object has is the caller's mistake, and nothing is written."""
        with pytest.raises(ValueError, match="name"):
            store.put(name, [b"x"])
        with pytest.raises(ValueError, match="name"):
            store.create(name, b"x")
        with pytest.raises(ValueError, match="name"):
            store.read(name)
        assert list(store.names("")) == []

    def test_put_over(self, store: Any) -> None:
        """A second put takes the first one's place, shorter or longer."""
        for data in (b"first", b"2", b"the third"):
            store.put("latest.json", [data])
            assert self.again(store).read("latest.json") == data
            assert self.again(store).size("latest.json") == len(data)

    def test_an_empty_object(self, store: Any) -> None:
        """An object without bytes exists."""
        store.put("files/empty", [])
        other = self.again(store)
        assert other.read("files/empty") == b"" and other.size("files/empty") == 0
        assert list(other.names("files/")) == ["files/empty"]
        with other.open("files/empty") as blob:
            assert blob.size == 0 and bytes(blob.read(0, 0)) == b""

    def test_a_missing_object(self, store: Any) -> None:
        """An absent object is `missing`, by name, also if an object's name begins like it."""
        store.put("packs/abc", [b"x"])
        for name in ("packs/ab", "packs/abcd", "packs", "none", "none/none"):
            assert store.size(name) is None
            with pytest.raises(MissingError) as caught:
                store.read(name)
            assert caught.value.object == name
            with pytest.raises(MissingError), store.open(name) as blob:
                blob.read(0, 1)

    def test_a_large_object_in_parts(self, store: Any) -> None:
        """Many parts of different lengths, taken from an iterator that cannot be read twice."""
        block = hashlib.sha256(b"block").digest() * 4096
        lengths = [1, len(block) - 1, 0, len(block)]

        def parts() -> Iterator[memoryview]:
            left, count = self.large, 0
            while left:
                length = min(lengths[count % 4], left)
                yield memoryview(block)[:length]
                left -= length
                count += 1

        expected = b"".join(parts())
        store.put("packs/large", parts())
        other = self.again(store)
        assert other.size("packs/large") == self.large
        with other.open("packs/large") as blob:
            assert blob.size == self.large
            assert hashlib.sha256(blob.read(0, blob.size)).digest() == hashlib.sha256(expected).digest()

    def test_parts_that_fail(self, store: Any) -> None:
        """If the parts end in an error, there is no object, nor a part of one."""

        def parts() -> Iterator[bytes]:
            yield b"x" * (1 << 20)
            raise RuntimeError("the source is gone")

        with pytest.raises(RuntimeError, match="gone"):
            store.put("packs/half", parts())
        assert store.size("packs/half") is None and list(store.names("")) == []

    # -- reading in parts -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [10, 200_000])
    def test_ranges(self, store: Any, size: int) -> None:
        """Any range is read, in any order, but none beyond the end."""
        data = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
        store.put("packs/some", [data])
        with self.again(store).open("packs/some") as blob:
            for offset, length in ((size - 1, 1), (0, size), (3, 5), (0, 0), (size, 0), (size // 2, size // 2)):
                assert bytes(blob.read(offset, length)) == data[offset : offset + length]
            for offset, length in ((0, size + 1), (size - 1, 2), (size, 1)):
                with pytest.raises(ValueError, match="integrity"):
                    blob.read(offset, length)

    def test_ranges_from_several_threads(self, store: Any) -> None:
        """An open object serves several threads at once."""
        data = hashlib.sha256(b"x").digest() * 20_000
        store.put("packs/some", [data])
        with self.again(store).open("packs/some") as blob, ThreadPoolExecutor(8) as pool:
            starts = range(0, len(data) - 1000, 40_961)
            parts = list(pool.map(lambda start: bytes(blob.read(start, 1000)), starts))
        assert parts == [data[start : start + 1000] for start in starts]

    # -- create ---------------------------------------------------------------------------------------------------

    def test_create(self, store: Any) -> None:
        """The first call creates the object; a second one does not change it, even with the same bytes."""
        assert store.create("manifests/000000000000.json", b"first") is True
        assert store.create("manifests/000000000000.json", b"second") is False
        assert store.create("manifests/000000000000.json", b"first") is False
        assert self.again(store).read("manifests/000000000000.json") == b"first"
        store.put("chain.json", [b"put"])
        assert store.create("chain.json", b"created") is False
        assert self.again(store).read("chain.json") == b"put"

    def test_a_race_to_create(self, store: Any) -> None:
        """Of eight calls for one name exactly one succeeds, if the store is exclusive; the bytes are the winner's."""
        start = threading.Barrier(8)

        def create(number: int) -> bool:
            start.wait()
            return bool(store.create("manifests/000000000007.json", b"writer %d" % number))

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        there = self.again(store).read("manifests/000000000007.json")
        assert there in {b"writer %d" % number for number in range(8)}
        if store.exclusive:
            assert sum(won) == 1
            assert there == b"writer %d" % won.index(True)

    # -- listing --------------------------------------------------------------------------------------------------

    def test_names(self, store: Any) -> None:
        """The names under a prefix, at any depth; a prefix ends at a slash."""
        for name in (*NAMES, "packs-other/x"):
            store.put(name, [b"x"])
        other = self.again(store)
        assert sorted(other.names("")) == sorted((*NAMES, "packs-other/x"))
        assert sorted(other.names("packs/")) == sorted(name for name in NAMES if name.startswith("packs/"))
        assert sorted(other.names("manifests/")) == ["manifests/000000000000.json", "manifests/999999999999.json"]
        assert list(other.names("layouts/")) == []

    def test_names_after(self, store: Any) -> None:
        """Only names greater than one that need not exist."""
        names = [f"manifests/{version:012d}.json" for version in (0, 5, 9, 10, 11)]
        for name in names:
            store.put(name, [b"{}"])
        other = self.again(store)
        for after, first in ((names[0], 1), (names[2], 3), ("manifests/000000000006.json", 2), ("manifests/", 0)):
            assert sorted(other.names("manifests/", after)) == names[first:]
        assert list(other.names("manifests/", names[-1])) == []

    def test_many_names(self, store: Any) -> None:
        """A listing of more than one page."""
        names = [f"manifests/{version:012d}.json" for version in range(self.many)]
        with store.batch() as batch:
            for name in names:
                batch.put(name, [b"{}"])
        assert sorted(self.again(store).names("manifests/")) == names
        assert sorted(self.again(store).names("manifests/", names[self.many // 2])) == names[self.many // 2 + 1 :]

    def test_entries(self, store: Any) -> None:
        """Size and age of each object; the age is from the store's clock, so a minute is allowed."""
        for length, name in enumerate(NAMES):
            store.put(name, [b"x" * length])
        entries = {entry.name: entry for entry in self.again(store).entries("")}
        assert {name: entry.size for name, entry in entries.items()} == {
            name: length for length, name in enumerate(NAMES)
        }
        for entry in entries.values():
            assert entry.modified is None or abs(entry.modified - time.time()) < 60
        assert {entry.name for entry in store.entries("packs/")} == {n for n in NAMES if n.startswith("packs/")}

    # -- batches --------------------------------------------------------------------------------------------------

    def test_a_batch(self, store: Any) -> None:
        """All objects of a batch are there when the block ends, small ones and large ones."""
        contents = {f"packs/{number}": bytes([number]) * (number * 70_000) for number in range(8)}
        with store.batch() as batch:
            for name, data in contents.items():
                batch.put(name, iter([data[:10], memoryview(data)[10:]]))
        other = self.again(store)
        assert {name: other.read(name) for name in contents} == contents

    def test_a_batch_from_several_threads(self, store: Any) -> None:
        """Several threads put into one batch."""
        with store.batch() as batch, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: batch.put(f"packs/{number}", [b"%d" % number]), range(20)))
        assert {name: self.again(store).read(name) for name in store.names("packs/")} == {
            f"packs/{number}": b"%d" % number for number in range(20)
        }

    def test_a_batch_without_objects(self, store: Any) -> None:
        """A batch may be empty."""
        with store.batch():
            pass
        assert list(store.names("")) == []

    def test_a_batch_that_is_abandoned(self, store: Any) -> None:
        """An error in the block is raised unchanged; an object that was put is there as a whole, or not at all."""
        with pytest.raises(RuntimeError, match="abandoned"), store.batch() as batch:
            batch.put("packs/1", [b"whole"])
            raise RuntimeError("abandoned")
        assert store.size("packs/1") in (None, 5)

    # -- delete ---------------------------------------------------------------------------------------------------

    def test_delete(self, store: Any) -> None:
        """A deleted object is gone, its neighbours stay, and its name is free."""
        for name in ("packs/a", "packs/a/b", "packs/ab") if store.remote else ("packs/a", "packs/ab"):
            store.put(name, [b"x"])
        store.delete("packs/a")
        store.delete("packs/a")
        store.delete("none/none")
        other = self.again(store)
        assert other.size("packs/a") is None and "packs/a" not in set(other.names(""))
        assert other.read("packs/ab") == b"x"
        assert store.create("packs/a", b"new") is True and other.read("packs/a") == b"new"

    # -- threads --------------------------------------------------------------------------------------------------

    def test_threads_share_a_store(self, store: Any) -> None:
        """All operations at the same time, each thread on objects of its own."""
        start = threading.Barrier(6)

        def work(number: int) -> None:
            start.wait()
            prefix, data = f"packs/{number}/", b"%d" % number
            for step in range(3):
                name = f"{prefix}{step}"
                if step % 2:
                    store.put(name, [data, b"-%d" % step])
                else:
                    assert store.create(name, data + b"-%d" % step)
                assert store.read(name) == data + b"-%d" % step and store.size(name) == len(data) + 2
            with store.batch() as batch:
                batch.put(f"{prefix}3", [data])
            assert {entry.name for entry in store.entries(prefix)} == {f"{prefix}{step}" for step in range(4)}
            store.delete(f"{prefix}0")
            assert sorted(store.names(prefix)) == [f"{prefix}{step}" for step in range(1, 4)]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert len(list(self.again(store).names("packs/"))) == 18
