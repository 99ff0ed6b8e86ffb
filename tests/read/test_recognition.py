"""Which version a state is: what is read to find out, in which order, and where the search ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import numpy as np
import pytest
from clocked_store import ClockedStore

import tensordelta as td

BOUND = 8


class Counting(ClockedStore):
    """A remote store that counts how many reads run at once."""

    remote = True
    at_once = most = 0
    lock = threading.Lock()

    def read(self, name: str) -> bytes:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.002)
        try:
            return super().read(name)
        finally:
            with self.lock:
                self.at_once -= 1


def words(version: int) -> np.ndarray:
    return np.arange(50, dtype=np.uint16) + np.uint16(version)


def chain_of(count: int, store: ClockedStore) -> td.Chain:
    """A chain that was just opened, of `count` versions whose every fourth is full."""
    chain = td.open(store, create=True, threads=1)
    for version in range(count):
        chain.publish({"w": words(version), "v": words(version)}, full=version % 4 == 0)
    store.opened.clear()
    return td.open(store, threads=1)


def manifests(store: ClockedStore, kinds: Iterable[str] = ("manifests/",)) -> list[str]:
    return [name for name in store.opened if name.startswith(tuple(kinds))]


def test_300_versions_and_a_state_that_is_none() -> None:
    """As the guide does it: arrays that no version has cost a bounded number of requests, not one a version."""
    store = ClockedStore()
    chain = chain_of(300, store)
    arrays = {"w": np.zeros(50, np.uint16), "v": np.zeros(50, np.uint16)}
    update = chain.prepare(arrays, 299)
    assert len(store.opened) < 160
    update.apply()
    assert arrays["w"].tolist() == words(299).tolist()


@pytest.mark.parametrize("remote", [False, True])
def test_the_search_is_newest_first_and_ends_at_its_bound(monkeypatch: pytest.MonkeyPatch, remote: bool) -> None:
    monkeypatch.setattr("tensordelta.read.reader._MAX_RECOGNIZED", BOUND, raising=False)
    store = Counting() if remote else ClockedStore()
    chain = chain_of(30, store)
    assert chain.prepare({"w": words(26), "v": words(26)}, 27).route == ("manifests/000000000027.json",)
    newest = [f"manifests/{version:012d}.json" for version in range(29, 25, -1)]
    if remote:
        assert set(newest) <= set(store.opened)
    else:
        assert manifests(store)[:4] == newest, "newest first, and none after the one that it is"

    store.opened.clear()
    arrays = {"w": words(3), "v": words(3)}
    update = td.open(store, threads=1).prepare(arrays, 29)
    assert update.route[0] == "manifests/000000000028.json", "an old version counts as none, and is read from nothing"
    assert len(manifests(store)) <= BOUND + 2
    update.apply()
    assert arrays["w"].tolist() == words(29).tolist()


def test_far_away_several_are_read_at_once() -> None:
    store = Counting()
    chain = chain_of(12, store)
    store.most = 0
    chain.prepare({"w": np.zeros(50, np.uint16), "v": np.zeros(50, np.uint16)}, 0)
    assert store.most > 1


@pytest.mark.parametrize("remote", [False, True])
def test_a_part_of_no_version(monkeypatch: pytest.MonkeyPatch, remote: bool) -> None:
    """Its search reads a fingerprints object a version as well, and has the same bound."""
    monkeypatch.setattr("tensordelta.read.reader._MAX_RECOGNIZED", BOUND, raising=False)
    store = Counting() if remote else ClockedStore()
    chain = chain_of(30, store)
    held = td.State.from_arrays({"w": np.zeros(50, np.uint16)})
    part = chain.load_part(["w"], 29, held=held)
    assert part["w"].tolist() == words(29).tolist()
    assert len(manifests(store, ("manifests/", "fingerprints/"))) <= 2 * BOUND + 6


def test_a_part_is_scanned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of the user's own are scanned once for all versions and tensors that they are compared with."""
    chain = chain_of(6, ClockedStore())
    scans: list[int] = []
    sums = td.State.sums

    def counted(state: td.State, **options: bool) -> np.ndarray:
        scans.append(0 if state.known else state.layout.words)
        return sums(state, **options)

    monkeypatch.setattr(td.State, "sums", counted)
    held = td.State.from_arrays({"w": words(2), "v": words(2)})
    part = chain.load_part(["w", "v"], 5, held=held)
    assert part["v"].tolist() == words(5).tolist()
    assert sum(scans) == held.layout.words
