"""The cache of packs: what it saves, what it bounds, and that nothing in it is believed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from folders import flip
from memory import MemoryStore
from places import S3

import tensordelta as td
from tensordelta.stores import cache_root
from tensordelta.stores.cache import PackCache

VERSIONS = 4


@pytest.fixture
def states() -> list[td.State]:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 50_000, np.uint16)
    states = []
    for _ in range(VERSIONS):
        states.append(td.State.from_arrays({"w": words.copy()}))
        words[rng.integers(0, 50_000, 500)] += 1
    return states


@pytest.fixture
def store(states: list[td.State], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryStore:
    """A chain that is far away; its writer worked on another machine."""
    store = MemoryStore(remote=True)
    with monkeypatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "writer"))
        chain = td.open(store, create=True)
        for state in states:
            chain.publish(state)
    store.opened.clear()
    return store


@pytest.fixture
def folder(_own_cache: Path) -> Path:
    return _own_cache / "packs"


def packs(store: MemoryStore) -> list[str]:
    return [name for name in store.opened if name.startswith("packs/")]


def test_a_pack_comes_once(store: MemoryStore, states: list[td.State], folder: Path) -> None:
    """The second reader on a machine fetches no pack; what lies in the cache are the packs, by their digests."""
    assert td.open(store).load().equals(states[-1])
    assert sorted(packs(store)) == sorted(store.names("packs/"))
    store.opened.clear()
    assert td.open(store).load().equals(states[-1]) and td.open(store).load(1).equals(states[1])
    assert packs(store) == []
    for path in folder.glob("[!.]*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_writer_fetches_nothing_that_it_put(states: list[td.State]) -> None:
    """Its snapshot follows from what it has put, which need not come back over the network."""
    store = MemoryStore(remote=True)
    chain = td.open(store, create=True)
    for state in states:
        chain.publish(state)
    assert packs(store) == [] and chain.load().equals(states[-1])
    assert packs(store) == [] and chain.verify(deep=True).ok


def test_a_writer_whose_cache_cannot_be_written(states: list[td.State], folder: Path) -> None:
    """The cache is a help, and no condition."""
    folder.parent.mkdir(exist_ok=True)
    folder.write_bytes(b"in the way")
    chain = td.open(MemoryStore(remote=True), create=True)
    assert chain.publish(states[0]).version == 0 and chain.versions() == [0]


def test_a_store_that_is_near_needs_no_cache(states: list[td.State], folder: Path, tmp_path: Path) -> None:
    for address in (tmp_path / "chain", MemoryStore()):
        chain = td.open(address, create=True)
        chain.publish(states[0])
        assert td.open(address).load().equals(states[0])
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "folder"])
def test_a_damaged_file_is_fetched_anew(store: MemoryStore, states: list[td.State], folder: Path, damage: str) -> None:
    td.open(store).load()
    store.opened.clear()
    victims = list(folder.glob("[!.]*"))
    for path in victims:
        if damage == "flip":
            flip(path, 100)
        elif damage == "cut":
            os.truncate(path, path.stat().st_size - 1)
        elif damage == "empty":
            path.write_bytes(b"")
        else:
            path.unlink()
    assert td.open(store).load().equals(states[-1])
    assert sorted(packs(store)) == sorted(store.names("packs/"))
    for path in victims:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_verify_believes_no_cache(store: MemoryStore, states: list[td.State]) -> None:
    """A verifier looks at the store's objects, whatever good copies this machine has of them."""
    td.open(store).load()
    victim = next(store.names("packs/"))
    data = store.read(victim)
    store.put(victim, [data[:-1] + bytes([data[-1] ^ 1])])
    chain = td.open(store)
    assert chain.load().equals(states[-1])
    for deep in (False, True):
        assert [fault.object.partition(" ")[0] for fault in chain.verify(deep=deep).faults] == [victim]
    store.put(victim, [data])
    assert chain.verify(deep=True).ok
    assert not list(Path(os.environ["TENSORDELTA_CACHE"]).glob(".*"))


def test_a_pack_that_is_wrong_in_the_store(store: MemoryStore, folder: Path) -> None:
    """Fetched twice, then told; nothing wrong stays in the cache."""
    victim = max(store.names("packs/"), key=lambda name: store.size(name) or 0)
    data = store.read(victim)
    store.put(victim, [data[:-1] + bytes([data[-1] ^ 1])])
    with pytest.raises(td.IntegrityError) as caught:
        td.open(store).load()
    assert caught.value.object.startswith(victim)
    assert packs(store).count(victim) == 2
    assert not (folder / Path(victim).stem).exists()


# -- the bound ---------------------------------------------------------------------------------------------------------


def test_the_bound(store: MemoryStore, states: list[td.State], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sorted((entry.size for entry in store.entries("packs/")), reverse=True)
    monkeypatch.setenv("TENSORDELTA_CACHE_BYTES", str(sizes[0] - 1))  # the full version has no room, the deltas have
    assert td.open(store).load().equals(states[-1])
    assert sorted((path.stat().st_size for path in folder.glob("[!.]*")), reverse=True) == sizes[1:]
    monkeypatch.setenv("TENSORDELTA_CACHE_BYTES", "0")
    assert td.open(store).load().equals(states[-1])
    assert not list(folder.glob("[!.]*"))


@pytest.mark.parametrize("text", ["10 GiB", "-1", "1e9"])
def test_a_bound_that_is_no_number(store: MemoryStore, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORDELTA_CACHE_BYTES", text)
    with pytest.raises(ValueError, match="TENSORDELTA_CACHE_BYTES"):
        td.open(store)


def put(cache: PackCache, data: bytes, age: float = 0.0) -> str:
    """Have a file in a cache, last used some seconds ago; gives its digest."""
    digest = hashlib.sha256(data).hexdigest()
    path = cache.temporary()
    path.write_bytes(data)
    cache.adopt(path, digest)
    os.utime(cache.folder / digest, (time.time() - age, time.time() - age))
    return digest


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    cache = PackCache(tmp_path / "packs", limit=250)
    first, second, third = (put(cache, bytes([number]) * 100, 100 - number) for number in range(3))
    assert cache.open(first, 100) is not None  # used again
    cache.trim()
    assert cache.open(second, 100) is None
    assert cache.open(first, 100) is not None and cache.open(third, 100) is not None


def test_who_has_a_file_open_keeps_it(tmp_path: Path) -> None:
    cache = PackCache(tmp_path / "packs", limit=0)
    digest = put(cache, b"x" * 1000)
    blob = cache.open(digest, 1000)
    cache.trim()
    assert cache.open(digest, 1000) is None
    assert blob is not None and bytes(blob.read(990, 10)) == b"x" * 10
    with blob:
        pass
    assert bytes(blob.read(0, 1)) == b"x"


def test_what_dead_processes_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    """Files under way of a process that died go after a day; those of the living stay."""
    root = Path(os.environ["TENSORDELTA_CACHE"])
    cache = PackCache(limit=1 << 20)
    dead, living = cache.temporary(), cache.temporary()
    for path in (dead, living, root / ".private-1" / "x", root / ".scratch-1" / "x"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    long_ago = time.time() - 100_000
    for path in (dead, root / ".private-1", root / ".scratch-1"):
        os.utime(path, (long_ago, long_ago))
    assert td.open(store).load() and td.open(store).verify().ok
    assert not dead.exists() and living.exists()
    assert not (root / ".private-1").exists() and not (root / ".scratch-1").exists()


def test_a_folder_that_cannot_be_used(store: MemoryStore, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is read need not be kept: the reader says why it was not, and what to set."""
    wanted = td.open(store).load()
    shutil.rmtree(folder)
    folder.write_bytes(b"in the way")
    caplog.clear()
    assert td.open(store).load().equals(wanted)
    assert str(folder) in caplog.text and "TENSORDELTA_CACHE" in caplog.text
    assert folder.read_bytes() == b"in the way"


# -- several processes -------------------------------------------------------------------------------------------------

READER = """
import sys
import tensordelta as td
chain = td.open(sys.argv[1])
wanted = [chain.manifest(version).fingerprint for version in chain.versions()]
for round in range(4):
    for version in chain.versions():
        state = td.open(sys.argv[1]).load(version)
        from tensordelta.codecs.fingerprint import combine, text
        assert text(combine(state.sums(threads=1))) == wanted[version]
print("read")
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["60000", "10000000"])
def test_several_processes(
    s3: S3, states: list[td.State], tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processes read every version again and again; in a cache that holds a part of it, and in one for all."""
    address = f"s3://{s3.bucket()}/run"
    chain = td.open(address, create=True, store_options=s3.options)
    for state in states:
        chain.publish(state)
    cache = tmp_path / "shared"
    environment = os.environ | s3.environment | {"TENSORDELTA_CACHE": str(cache), "TENSORDELTA_CACHE_BYTES": limit}
    running = [
        subprocess.Popen([sys.executable, "-c", READER, address], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=600)[0] for process in running] == ["read\n"] * 4
    PackCache(cache / "packs", int(limit)).trim()
    assert sum(path.stat().st_size for path in (cache / "packs").glob("[!.]*")) <= int(limit)
    assert not list((cache / "packs").glob(".part-*"))


def test_where_the_cache_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user's machine has such folders, unless another one is set."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "set"))
    assert cache_root() == tmp_path / "set"
    monkeypatch.delenv("TENSORDELTA_CACHE")
    assert cache_root() == tmp_path / "caches" / "tensordelta"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "tensordelta"
