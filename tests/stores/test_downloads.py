"""Packs on their way ahead of use: in which order, how far ahead, and what becomes of faults."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest
from memory import MemoryBlob, MemoryStore

import tensordelta as td
from tensordelta.stores import download as module
from tensordelta.stores.cache import PackCache
from tensordelta.stores.download import Downloads, Wanted


class Slow(MemoryStore):
    """A far store that may fail, or take its time."""

    def __init__(self) -> None:
        super().__init__(remote=True)
        self.failing = False
        self.gate = threading.Event()
        self.gate.set()

    def open(self, name: str) -> MemoryBlob:
        blob = super().open(name)
        self.gate.wait(60)
        if self.failing:
            raise td.StoreError("memory", "read", name, "out of order")
        return blob


@pytest.fixture
def store() -> Slow:
    return Slow()


@pytest.fixture
def cache(tmp_path: Path) -> PackCache:
    return PackCache(tmp_path / "packs", 1 << 30)


def put(store: MemoryStore, number: int, size: int = 1000) -> Wanted:
    data = bytes([number]) * size
    digest = hashlib.sha256(data).hexdigest()
    store.put(f"packs/{number:03d}", [data])
    return Wanted(f"packs/{number:03d}", digest, size, number)


def test_any_order(store: Slow, cache: PackCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken in the order given, backwards, or not among the announced ones."""
    monkeypatch.setattr(module, "_GROUP", 2500)
    monkeypatch.setattr(module, "_WAITING", 5000)
    wanted = [put(store, number) for number in range(20)]
    for order in (wanted, wanted[::-1], wanted[::2] + wanted[1::2]):
        cache.limit = 0
        cache.trim()
        with Downloads(store, cache, wanted[:15], part=300) as downloads:
            for each in order:
                blob = downloads.take(each)
                assert bytes(blob.read(0, blob.size)) == bytes([each.version]) * 1000
    assert not list(cache.folder.glob("[!.]*")) and not list(cache.folder.glob(".part-*"))


def test_how_far_ahead(store: Slow, cache: PackCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some groups wait to be taken, not the whole route: the disk need not hold more."""
    monkeypatch.setattr(module, "_GROUP", 2500)
    monkeypatch.setattr(module, "_WAITING", 5000)
    wanted = [put(store, number) for number in range(40)]
    with Downloads(store, cache, wanted) as downloads:
        for taken in range(1, 21):
            downloads.take(wanted[taken - 1])
            while len(set(store.opened)) < min(taken + 3, 40):
                time.sleep(0.001)
            assert len(set(store.opened)) <= taken + 6
    assert len(set(store.opened)) < 30


def test_one_that_is_missing(store: Slow, cache: PackCache) -> None:
    """Only whoever takes it is told; the others of its group come."""
    wanted = [put(store, number) for number in range(4)]
    store.delete(wanted[1].name)
    with Downloads(store, cache, wanted) as downloads:
        assert downloads.take(wanted[0]).size == 1000
        with pytest.raises(td.MissingError) as caught:
            downloads.take(wanted[1])
        assert caught.value.object == wanted[1].name
        assert downloads.take(wanted[3]).size == 1000


def test_one_of_another_size_is_not_fetched(store: Slow, cache: PackCache) -> None:
    """Seen before its bytes are: an object of any size may lie under the name."""
    wanted = put(store, 1)._replace(size=900)
    with Downloads(store, cache, [wanted]) as downloads, pytest.raises(td.IntegrityError) as caught:
        downloads.take(wanted)
    assert caught.value.rule == "TD-MAN-013" and "1000 bytes, not 900" in caught.value.reason
    assert not list(cache.folder.glob("[!.]*"))


def test_two_digests_under_one_name(store: Slow, cache: PackCache) -> None:
    first = put(store, 1)
    second = first._replace(sha256="0" * 64)
    with Downloads(store, cache, [first, second]) as downloads:
        for each in (first, second):
            assert bytes(downloads.take(each).read(0, 1000)) == b"\x01" * 1000


@pytest.mark.parametrize("group", [64 << 20, 1])
def test_a_store_that_fails(store: Slow, cache: PackCache, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """Each of them gets the error, those of a later group as well; the next time all is well."""
    monkeypatch.setattr(module, "_GROUP", group)
    wanted = [put(store, number) for number in range(3)]
    store.failing = True
    with Downloads(store, cache, wanted) as downloads:
        for each in wanted:
            with pytest.raises(td.StoreError, match="out of order"):
                downloads.take(each)
    store.failing = False
    with Downloads(store, cache, wanted) as downloads:
        assert [downloads.take(each).size for each in wanted] == [1000] * 3


def test_an_end_before_all_was_taken(store: Slow, cache: PackCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in progress is abandoned, and nothing is left of it."""
    monkeypatch.setattr(module, "_PATIENCE", 60.0)
    wanted = [put(store, number) for number in range(10)]
    before = threading.active_count()
    store.gate.clear()
    timer = threading.Timer(0.1, store.gate.set)
    timer.start()
    with Downloads(store, cache, wanted):
        pass
    timer.join()
    assert threading.active_count() <= before
    assert len(store.opened) <= module.PARALLEL
    assert not cache.folder.exists() or not list(cache.folder.glob(".part-*"))


def test_events(store: Slow, cache: PackCache) -> None:
    """Who waits is told how much has arrived, of how much."""
    events: list[td.Event] = []
    wanted = [put(store, number, 5000) for number in range(3)]
    store.gate.clear()

    def listen(event: td.Event) -> None:
        events.append(event)
        store.gate.set()

    with Downloads(store, cache, wanted, listener=listen) as downloads:
        downloads.take(wanted[2])
    assert events and {(event.kind, event.version, event.total) for event in events} == {("downloading", 2, 15_000)}
    assert all(0 <= event.size <= 15_000 for event in events)


def test_one_that_is_taken_before_the_thread_begins(
    store: Slow, cache: PackCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with much else to do: it waited for ever."""
    wanted, waiting = put(store, 1), threading.Event()
    run, wait = Downloads._run, Downloads._wait

    def late(self: Downloads, *given: object) -> None:
        waiting.wait(60)
        run(self, *given)

    def noted(self: Downloads, *given: object) -> None:
        waiting.set()
        wait(self, *given)

    monkeypatch.setattr(Downloads, "_run", late)
    monkeypatch.setattr(Downloads, "_wait", noted)
    taken: list[int] = []

    def take() -> None:
        with Downloads(store, cache, [wanted]) as downloads:
            taken.append(downloads.take(wanted).size)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(30)
    assert taken == [1000]
