"""Shortcuts: what they hold, that they are made once, and what making them costs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from clocked_store import ClockedStore
from numpy.typing import NDArray

import tensordelta as td
from tensordelta.format.names import LATEST, manifest_name, shortcut_name

Arrays = dict[str, NDArray[np.generic]]


def open_chain(store: ClockedStore) -> td.Chain:
    return td.open(store, threads=1, memory=1 << 28)


@pytest.fixture
def states() -> list[Arrays]:
    """Four states; tensors come, go, and change their shape between the second and the third."""
    rng = np.random.default_rng(0)
    found: list[Arrays] = []
    words = rng.standard_normal(5000).astype(ml_dtypes.bfloat16)
    for number in range(4):
        words = words.copy()
        words.view(np.uint16)[rng.choice(5000, 100, replace=False)] += np.uint16(1)
        found.append({"w": words, "old" if number < 2 else "new": np.full((2, number + 1), number, np.float32)})
    return found


@pytest.fixture
def store(states: list[Arrays]) -> ClockedStore:
    store = ClockedStore()
    chain = td.open(store, create=True, threads=1)
    for arrays in states:
        chain.publish(arrays, layout_change=True)
    store.done.clear()
    store.opened.clear()
    return store


def manifest(store: ClockedStore, name: str) -> dict[str, object]:
    return json.loads(store.objects[name][0])


def is_state(state: td.State, arrays: Arrays) -> bool:
    return state.equals(td.State.from_arrays(arrays))


@pytest.mark.parametrize("order", ["natural", "exponent"])
@pytest.mark.parametrize(("base", "version"), [(0, 1), (0, 3), (1, 2), (None, 0), (None, 3)])
def test_a_shortcut_leads_there(
    base: int | None, version: int, order: str, store: ClockedStore, states: list[Arrays]
) -> None:
    chain = open_chain(store)
    made = chain.shortcut(base, version, order=order, tag="x")  # type: ignore[arg-type]
    name = shortcut_name(version, base, "x")
    found, own = manifest(store, name), manifest(store, manifest_name(version))
    for field in ("tensordelta", "chain", "version", "layout", "fingerprint", "tensor_fingerprints"):
        assert found[field] == own[field]
    start = None
    if base is not None:
        before = manifest(store, manifest_name(base))
        start = {"version": base, "layout": before["layout"], "fingerprint": before["fingerprint"]}
    assert found["base"] == start
    assert (made.version, made.base, made.fingerprint) == (version, base, own["fingerprint"])
    assert store.done[-2:] == [("create", name), ("put", LATEST)], "the packs are there before it, the hint after it"
    put = {each for _, each in store.done} - {LATEST}
    assert made.size == sum(len(store.objects[each][0]) for each in put)

    # It is a way of its own: the manifest's packs are not needed.
    for pack in own["packs"]:  # type: ignore[attr-defined]
        if pack["path"] not in {each["path"] for each in found["packs"]}:  # type: ignore[attr-defined]
            store.objects.pop(pack["path"], None)
    state = td.State.empty() if base is None else td.State.from_arrays(states[base]).copy()
    update = open_chain(store).prepare(state, version)
    update.apply()
    assert update.route == (name,) or found["packs"] == own["packs"]
    assert is_state(state, states[version])


def test_all_of_them_are_proven(store: ClockedStore) -> None:
    chain = open_chain(store)
    for base in (None, 0, 1):
        chain.shortcut(base, 2)
        chain.shortcut(base, 3, order="exponent")
    assert chain.verify(deep=True).ok
    assert manifest(store, shortcut_name(3, 1))["features"] == ["exponent-order"]


def test_values_reach_the_pack(store: ClockedStore) -> None:
    open_chain(store).shortcut(0, 1, values="replace")
    (pack,) = manifest(store, shortcut_name(1, 0))["packs"]  # type: ignore[misc]
    assert b"replace" in store.objects[pack["path"]][0]


# -- once ----------------------------------------------------------------------------------------------------------


def test_made_again_it_is_a_success_at_once(store: ClockedStore) -> None:
    first = open_chain(store).shortcut(0, 3)
    store.done.clear()
    store.opened.clear()
    again = open_chain(store).shortcut(0, 3, order="exponent")
    assert store.done == [] and not any(name.startswith("packs/") for name in store.opened)
    assert (again.size, again.changed, again.created) == (0, first.changed, first.created)


def test_another_writer_makes_the_same_at_the_same_time(store: ClockedStore) -> None:
    name = shortcut_name(3, 0)

    class Raced(ClockedStore):
        def create(self, name: str, data: bytes) -> bool:
            other = json.loads(data) | {"created": "2001-01-01T00:00:00Z"}
            self.objects[name] = json.dumps(other).encode(), self.now
            return super().create(name, data)

    raced = Raced(store.objects)
    made = open_chain(raced).shortcut(0, 3)
    assert made.created == "2001-01-01T00:00:00Z" == manifest(raced, name)["created"]
    assert open_chain(raced).verify(deep=True).ok


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value | {"fingerprint": "0" * 16},
        lambda value: value | {"base": value["base"] | {"fingerprint": "0" * 16}},
        lambda value: value | {"base": value["base"] | {"layout": "0" * 64}},
    ],
)
def test_another_under_its_name_is_a_conflict(
    change: Callable[[dict[str, object]], dict[str, object]], store: ClockedStore
) -> None:
    open_chain(store).shortcut(0, 3)
    name = shortcut_name(3, 0)
    store.objects[name] = json.dumps(change(manifest(store, name))).encode(), 0.0  # type: ignore[arg-type]
    before = dict(store.objects)
    with pytest.raises(td.ConflictError) as caught:
        open_chain(store).shortcut(0, 3)
    assert caught.value.object == name and store.objects == before


def test_one_that_lost_its_packs_is_no_success(store: ClockedStore) -> None:
    open_chain(store).shortcut(0, 3)
    (pack,) = manifest(store, shortcut_name(3, 0))["packs"]  # type: ignore[misc]
    del store.objects[pack["path"]]
    with pytest.raises(td.MissingError, match="its pack"):
        open_chain(store).shortcut(0, 3)
    open_chain(store).shortcut(0, 3, tag="again")
    assert open_chain(store).verify(deep=True).ok


# -- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "version", "how"),
    [
        (3, 3, {}),
        (3, 2, {}),
        (0, 1, {"tag": "A"}),
        (0, 1, {"tag": "a" * 17}),
        (0, 1, {"order": "random"}),
        (0, 1, {"values": "all"}),
        (0, 1, {"order": "exponent", "values": "replace"}),
    ],
)
def test_wrong_use(base: int, version: int, how: dict[str, str], store: ClockedStore) -> None:
    with pytest.raises(ValueError, match=r"not older|tag|order|values|replace"):
        open_chain(store).shortcut(base, version, **how)  # type: ignore[arg-type]
    assert store.done == [] and not any(name.startswith("packs/") for name in store.opened)


@pytest.mark.parametrize(("base", "version"), [(None, 9), (0, 9), (7, 9)])
def test_versions_that_do_not_exist(base: int | None, version: int, store: ClockedStore) -> None:
    with pytest.raises(td.MissingError):
        open_chain(store).shortcut(base, version)
    assert store.done == []


def test_a_version_that_goes_meanwhile_gets_none(store: ClockedStore) -> None:
    class Dropping(ClockedStore):
        def put(self, name: str, parts: object) -> None:
            super().put(name, parts)  # type: ignore[arg-type]
            self.objects.pop(manifest_name(2), None)

    dropping = Dropping(store.objects)
    with pytest.raises(td.MissingError, match="dropped"):
        open_chain(dropping).shortcut(None, 2)
    assert shortcut_name(2, None) not in dropping.objects


# -- what it costs -------------------------------------------------------------------------------------------------


def test_nothing_is_left_on_this_machine(store: ClockedStore, _own_cache: Path) -> None:
    before = sorted(_own_cache.iterdir())
    open_chain(store).shortcut(0, 3)
    assert sorted(_own_cache.iterdir()) == before


def test_what_both_states_have_in_common_is_read_once(store: ClockedStore) -> None:
    store.opened.clear()
    open_chain(store).shortcut(0, 3)
    packs = [name for name in store.opened if name.startswith("packs/")]
    assert len(packs) == len(set(packs)) == 4


def test_a_work_folder_saves_the_next_one_the_way(store: ClockedStore, states: list[Arrays], tmp_path: Path) -> None:
    chain = open_chain(store)
    chain.shortcut(0, 2, work=tmp_path / "work")
    store.opened.clear()
    chain.shortcut(2, 3, work=tmp_path / "work")
    (full,) = manifest(store, manifest_name(0))["packs"]  # type: ignore[misc]
    assert full["path"] not in store.opened
    assert chain.verify(deep=True).ok

    file = tmp_path / "work/new/model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    chain.shortcut(1, 3, work=tmp_path / "work")
    assert chain.verify(deep=True).ok, "it was made anew"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells how much memory a process has")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """The states are on disk; of 256 MiB each, no more than a part is in memory at a time."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 1 << 27, np.uint16)
    chain.publish({"w": words})
    words[:: 1 << 10] += np.uint16(1)
    chain.publish({"w": words})
    script = f"""
import threading, time
import tensordelta as td
most = [0]
def watch():
    while True:
        with open("/proc/self/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        most[0] = max(most[0], int(lines["RssAnon"].split()[0]))
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
chain = td.open({str(tmp_path / "chain")!r}, threads=1)
time.sleep(0.05)
before = most[0]
chain.shortcut(0, 1, tag="x")
chain.shortcut(None, 1)
print((most[0] - before) >> 10)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200, "MiB"


def test_a_copy_that_fails_is_no_obstacle(
    store: ClockedStore, states: list[Arrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the first state only saves work: where it fails, the other state is pulled."""

    def fail(*_: object, **more: object) -> None:
        raise shutil.Error([("base", ".new", "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", fail)
    open_chain(store).shortcut(0, 1)
    chain = open_chain(store)
    state = chain.load(0)
    chain.prepare(state, 1).apply()
    assert is_state(state, states[1])


@pytest.mark.parametrize("lasts", [True, False])
def test_a_disk_that_fails_when_the_cache_folder_is_made(
    store: ClockedStore, states: list[Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasts: bool
) -> None:
    """It is said as that, with the folder's name; one that fails once is no obstacle."""
    cache = tmp_path / "new" / "cache"
    chain = open_chain(store)
    monkeypatch.setenv("TENSORDELTA_CACHE", str(cache))
    make, left = os.mkdir, [1000 if lasts else 1]

    def mkdir(path: str | os.PathLike[str], *args: int, **more: int) -> None:
        if Path(path) == cache and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(path))
        make(path, *args, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    if lasts:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
            chain.shortcut(0, 1)
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(cache))
        return
    chain.shortcut(0, 1)
    state = chain.load(0)
    chain.prepare(state, 1).apply()
    assert is_state(state, states[1])
