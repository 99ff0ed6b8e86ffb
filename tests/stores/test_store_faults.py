"""Real processes and real stores when all goes wrong: nothing that dies, races, stalls or lies loses a version."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import ALWAYS, Faults, Proxy
from hub_server import Hub
from places import QUICK, S3
from zygote import Zygote, state

import tensordelta as td
from tensordelta.format.names import CHAIN
from tensordelta.stores import FolderStore, Store, open_store

Machine = Callable[[str], Path]

STATES = [td.State.from_arrays(state(step)) for step in range(5)]


@dataclass
class Place:
    """A store with a way for things to go wrong.

    Attributes:
        root: an address, without slash at its end.
        faults: of the requests that come with `options`.
        options: options of those who suffer.
        direct: options of those who do not.
    """

    root: str
    faults: Faults
    options: dict[str, Any]
    direct: dict[str, Any]

    def store(self, run: str) -> Store:
        """The store of a run, for those who do not suffer."""
        return open_store(f"{self.root}/{run}", options=self.direct)


@pytest.fixture
def s3_place(s3: S3) -> Iterator[Place]:
    with Proxy(s3.endpoint) as proxy:
        options = dict(s3.options)
        yield Place(
            f"s3://{s3.bucket()}",
            proxy.faults,
            {**options, "endpoint": proxy.address},
            {**options, "retries": QUICK},
        )


@pytest.fixture
def hub_place(hub: Hub, bucket: str) -> Place:
    hub.processes = True
    options = {"endpoint": hub.address, "token": "token"}
    return Place(f"hf://buckets/{bucket}", hub.faults, options, {**options, "retries": QUICK})


@pytest.fixture(params=["s3", "hub"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote


def fill(store: Store, contents: dict[str, bytes]) -> None:
    with store.batch() as batch:
        for name, data in contents.items():
            batch.put(name, [data])


def check(store: Store, versions: list[int] | None = None) -> td.Chain:
    """A chain that a verifier finds whole, whose every version is what was published under its number."""
    chain = td.open(store, threads=1)
    if versions is not None:
        assert chain.versions() == versions
    assert chain.verify(deep=True).faults == []
    for version in chain.versions():
        assert chain.load(version).equals(STATES[version])
    return chain


# -- the writer is killed ----------------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Take the cache folder of a machine; gives its path."""

    def machine(name: str) -> Path:
        monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / name))
        return tmp_path / name

    return machine


@pytest.fixture
def written(tmp_path: Path, machine: Machine) -> dict[str, bytes]:
    """The objects of a chain of versions 0 to 2, written on the machine `template`."""
    machine("template")
    chain = td.open(tmp_path / "written", create=True)
    for step in range(3):
        chain.publish(STATES[step])
    machine("mine")
    store = FolderStore(tmp_path / "written")
    return {name: store.read(name) for name in store.names("")}


def kill_at_each(
    place: Place, zygote: Zygote, stride: int, job: dict[str, Any], start: dict[str, bytes], template: Path | None
) -> Iterator[tuple[Store, str, Path]]:
    """Have a job done again and again, each time killed at a later request; gives what is left of store and cache."""
    number = 0
    while True:
        run = f"run-{number}"
        store = place.store(run)
        fill(store, start)
        cache = Path(os.environ["TENSORDELTA_CACHE"]).parent / f"killed-{number}"
        if template is not None:
            shutil.copytree(template, cache)
        place.faults.clear()
        begun = threading.Event()
        pids: list[int] = []

        def kill(pids: list[int] = pids, begun: threading.Event = begun) -> None:
            begun.wait(10)
            os.kill(pids[0], signal.SIGKILL)

        fault = place.faults.add("", skip=number, drop="before", act=kill)
        pids.append(zygote.start(**job, address=f"{place.root}/{run}", options=place.options, cache=str(cache)))
        begun.set()
        status = zygote.wait()
        place.faults.clear()
        if fault.times:
            assert status == 0
            yield store, run, cache
            return
        assert status == -signal.SIGKILL
        yield store, run, cache
        number += stride


def deaths(quick: int, *slow: tuple[str, int]) -> pytest.MarkDecorator:
    """At every how many-th request of which store: a quick look at one, and slow ones."""
    ways = [pytest.param("s3", quick), *(pytest.param(*each, marks=pytest.mark.slow) for each in slow)]
    return pytest.mark.parametrize(("place", "stride"), ways, indirect=["place"])


@deaths(5, ("s3", 1), ("hub", 1))
@pytest.mark.parametrize("full", [False, True], ids=["delta", "full"])
def test_a_writer_is_killed(
    place: Place, zygote: Zygote, stride: int, written: dict[str, bytes], machine: Machine, tmp_path: Path, full: bool
) -> None:
    """Between any two requests of a publish. What is there is whole, and the next writer goes on."""
    job = {"do": "publish", "step": 3, "full": full}
    kills, seen = 0, set()
    for store, _, cache in kill_at_each(place, zygote, stride, job, written, tmp_path / "template"):
        machine(f"reader-{kills}")
        versions = check(store).versions()
        assert versions in ([0, 1, 2], [0, 1, 2, 3])
        seen.add(len(versions))
        # The next writer is on the same machine, or on another one.
        machine(cache.name if kills % 2 else f"writer-{kills}")
        chain = td.open(store, create=True, threads=1)
        assert chain.publish(STATES[3], version=3, full=full).version == 3
        assert chain.publish(STATES[4]).base == 3
        check(store, [0, 1, 2, 3, 4])
        kills += 1
    assert seen == {3, 4} and kills > 16 / (stride + 2)


@deaths(5, ("s3", 1), ("hub", 1))
def test_the_first_writer_is_killed(place: Place, zygote: Zygote, stride: int, machine: Machine) -> None:
    """While it makes the chain and its first version."""
    kills = 0
    for store, _, cache in kill_at_each(place, zygote, stride, {"do": "publish", "step": 0}, {}, None):
        machine(f"reader-{kills}")
        if store.size(CHAIN) is None:
            assert list(store.names("")) == []
        else:
            assert check(store).versions() in ([], [0])
        machine(cache.name if kills % 2 else f"writer-{kills}")
        chain = td.open(store, create=True, threads=1)
        assert chain.publish(STATES[0], version=0).version == 0
        assert chain.publish(STATES[1]).base == 0
        check(store, [0, 1])
        kills += 1
    assert kills > 12 / (stride + 2)


@pytest.mark.slow
def test_a_maker_of_shortcuts_is_killed(
    place: Place, zygote: Zygote, written: dict[str, bytes], machine: Machine, tmp_path: Path
) -> None:
    kills = 0
    job = {"do": "shortcut", "base": None, "step": 2}
    for store, _, _ in kill_at_each(place, zygote, 2, job, written, None):
        machine(f"reader-{kills}")
        chain = check(store, [0, 1, 2])
        chain.shortcut(None, 2)
        check(store, [0, 1, 2])
        kills += 1
    assert kills > 5


@pytest.mark.slow
def test_a_collector_is_killed(
    place: Place, zygote: Zygote, written: dict[str, bytes], machine: Machine, tmp_path: Path
) -> None:
    """Whatever instant it dies at, each version that is still listed can be rebuilt, and the next one ends the work."""
    td.open(tmp_path / "written").shortcut(None, 2)
    store = FolderStore(tmp_path / "written")
    start = {name: store.read(name) for name in store.names("")}
    seen = set()
    for kills, (left, _, _) in enumerate(kill_at_each(place, zygote, 2, {"do": "collect"}, start, None)):
        machine(f"reader-{kills}")
        versions = check(left).versions()
        seen.add(len(versions))
        assert versions[-1] == 2
        assert td.open(left).collect(1, grace=0).kept == [2]
        check(left, [2])
        assert sum(name.startswith("packs/") for name in left.names("")) == 1
    assert {1, 3} <= seen


@deaths(9, ("s3", 2), ("hub", 2))
def test_a_copy_is_killed(
    place: Place, zygote: Zygote, stride: int, written: dict[str, bytes], machine: Machine, tmp_path: Path
) -> None:
    """What has arrived is a chain, and the next call brings the rest."""
    kills = 0
    job = {"do": "copy", "source": str(tmp_path / "written")}
    for store, run, _ in kill_at_each(place, zygote, stride, job, {}, None):
        machine(f"reader-{kills}")
        if store.size(CHAIN) is not None:
            check(store)
        td.copy(tmp_path / "written", f"{place.root}/{run}", target_options=place.direct)
        assert {name: store.read(name) for name in store.names("")} == written
        kills += 1
    assert kills > 1


def test_a_copy_from_far(place: Place, written: dict[str, bytes], machine: Machine, tmp_path: Path) -> None:
    """What comes altered is fetched again; what stays so is named, and no version of the copy is made from it."""
    fill(place.store("run"), written)
    options = {**place.options, "retries": QUICK}
    for kind in ("layouts/", "fingerprints/", "manifests/000000000001"):
        place.faults.add(f"run/{kind}", bend=lambda body: body[:-1] + b"x")
    td.copy(f"{place.root}/run", tmp_path / "first", source_options=options)
    assert {name: FolderStore(tmp_path / "first").read(name) for name in written} == written

    layout = next(name for name in written if name.startswith("layouts/"))
    place.faults.add(f"run/{layout}", bend=lambda body: body[:-1] + b"x", times=ALWAYS)
    with pytest.raises(td.IntegrityError) as caught:
        td.copy(f"{place.root}/run", tmp_path / "second", source_options=options)
    assert caught.value.object == layout
    place.faults.clear()
    place.faults.add("run/packs/", status=503, times=ALWAYS)
    with pytest.raises(td.StoreError):
        td.copy(f"{place.root}/run", tmp_path / "second", source_options=options)
    assert td.open(tmp_path / "second").versions() == []
    place.faults.clear()
    td.copy(f"{place.root}/run", tmp_path / "second", source_options=options)
    check(FolderStore(tmp_path / "second"), [0, 1, 2])


# -- everything at once ------------------------------------------------------------------------------------------------


def storm(faults: Faults, rng: random.Random, requests: int) -> None:
    """Have every fifth request fail, in every way that passes."""
    ways: list[dict[str, Any]] = [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 500},
        {"status": 503},
        {"drop": "before"},
        {"drop": "after"},
        {"cut": 10},
    ]
    for number in sorted(rng.sample(range(requests), requests // 5)):
        # Faults that were added before this one see, and count, all but the requests that they take themselves.
        faults.add("", skip=number, **rng.choice(ways))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_storm(place: Place, seed: int, machine: Machine) -> None:
    """Every fifth request fails. Somebody who tries again gets on; whatever fails is told as the store's failure."""
    rng = random.Random(seed)
    options = {**place.options, "retries": QUICK}
    address = f"{place.root}/run"

    def insist(work: Callable[[], Any]) -> Any:
        for _ in range(40):
            with suppress(td.StoreError):
                return work()
        raise AssertionError("the store never lets anybody through")

    place.faults.clear()
    storm(place.faults, rng, 1000)
    held = td.State.from_arrays(state(0))
    for step, wanted in enumerate(STATES):
        machine("writer")

        def publish(step: int = step, wanted: td.State = wanted) -> None:
            td.open(address, create=True, store_options=options, threads=1).publish(wanted, version=step)

        insist(publish)
        machine(f"reader-{step}")
        insist(lambda: td.open(address, store_options=options, threads=1).prepare(held)).apply()
        assert held.equals(wanted)
    asked = len(place.faults.requests)
    place.faults.clear()
    check(place.store("run"), [0, 1, 2, 3, 4])
    assert asked > 100


def test_two_reads_that_see_different_listings(hub: Hub, hub_place: Place, written: dict[str, bytes]) -> None:
    """A shortcut is visible before its version, a version before the one before it: nothing but routes are lost."""
    store = hub_place.store("run")
    fill(store, written)
    td.open(store).shortcut(None, 2)
    hub.page, hub.backwards = 1, True
    for hidden in ("manifests/000000000002", "manifests/000000000000", "shortcuts/"):
        hub.faults.add("tree", hide=hidden, times=ALWAYS)
        chain = td.open(store, threads=1)
        for version in chain.versions():
            if hidden == "manifests/000000000000" and version == 1:
                with pytest.raises(td.MissingError):
                    chain.load(1)
            else:
                assert chain.load(version).equals(STATES[version])
        hub.faults.clear()
    check(store, [0, 1, 2])


# -- two writers -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_writers_race(s3_place: Place, zygote: Zygote, machine: Machine, tmp_path: Path) -> None:
    """Two processes publish as fast as they can. Each success is a version of its own, and the chain is whole."""
    address = f"{s3_place.root}/run"
    with Zygote() as other:
        for number, each in enumerate((zygote, other)):
            each.start(
                "race",
                address=address,
                options=s3_place.options,
                cache=str(tmp_path / f"racer-{number}"),
                run=number,
                count=5,
                result=str(tmp_path / f"result-{number}"),
            )
        assert [zygote.wait(), other.wait()] == [0, 0]
    claims: dict[int, tuple[int, int]] = {}
    for number in range(2):
        for version, step in json.loads((tmp_path / f"result-{number}").read_text()):
            assert version not in claims
            claims[version] = step, number
    machine("reader")
    chain = td.open(s3_place.store("run"), threads=1)
    assert chain.versions() == list(range(10)) == sorted(claims)
    assert chain.verify(deep=True).faults == []
    for version, claim in claims.items():
        assert chain.load(version).equals(td.State.from_arrays(state(*claim)))


def test_a_writer_that_was_overtaken(hub: Hub, hub_place: Place, written: dict[str, bytes], machine: Machine) -> None:
    """A bucket has no create-if-absent: two writers may find a name free, and the later one wins.

    The other one makes no version from what is no longer there, whether it reports a conflict or goes on.
    """
    hub.processes = False
    store = hub_place.store("run")
    fill(store, written)
    machine("first")
    first = td.open(store, threads=1)
    first.publish(state(0, 1))
    machine("second")
    second = td.open(hub_place.store("run"), threads=1)
    second.publish(state(1, 1))
    hub.faults.add("batch", skip=1, act=lambda: (machine("first"), first.publish(state(2, 1)), machine("second")))
    second.publish(state(3, 1))
    machine("first")
    with suppress(td.ConflictError):
        first.publish(state(4, 1))
    machine("reader")
    chain = td.open(store, threads=1)
    assert chain.load(5).equals(td.State.from_arrays(state(3, 1)))
    assert chain.verify(deep=True).faults == []


# -- another run under the same address --------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "s3", "hub"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path / "anywhere")
    place: Place = request.getfixturevalue(f"{request.param}_place")
    return place.store("run")


def test_a_chain_is_replaced(anywhere: Store, written: dict[str, bytes], machine: Machine) -> None:
    """Another run takes the address. Nobody who knows the first one goes on with the second as if it were the first."""
    machine("template")
    fill(anywhere, written)
    writer, reader = td.open(anywhere, threads=1), td.open(anywhere, threads=1)
    writer.publish(STATES[3])
    held = reader.load(2)
    assert reader.newest() == 3
    for name in list(anywhere.names("")):
        anywhere.delete(name)

    with pytest.raises(td.MissingError):
        writer.publish(STATES[4])
    machine("another")
    second = td.open(anywhere, create=True, threads=1)
    for step in range(5):
        second.publish(state(step, 1))
    machine("template")
    with pytest.raises(td.ConflictError) as caught:
        writer.publish(STATES[4])
    assert caught.value.rule == "TD-OBJ-010"
    with pytest.raises(td.ConflictError) as caught:
        reader.prepare(held)
    assert held.equals(STATES[2])
    with pytest.raises(td.ConflictError):
        td.open(anywhere, chain=reader.id)
    assert second.versions() == list(range(5)) and second.verify(deep=True).ok

    # A reader that starts anew, with weights of the first run, gets the second run's, from nothing.
    update = td.open(anywhere, threads=1).prepare(held)
    update.apply()
    assert held.equals(td.State.from_arrays(state(4, 1)))


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-(10**9), -3 * 86_400, 3 * 86_400, 10**9])
def test_a_clock_that_is_wrong(
    anywhere: Store, written: dict[str, bytes], skew: int, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of this machine decides nothing: neither which version is newest, nor what a collector may take."""
    fill(anywhere, written)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew)
    monkeypatch.setattr(
        "tensordelta.format.names.now", lambda: "1999-01-01T00:00:00Z" if skew < 0 else "2099-01-01T00:00:00Z"
    )
    machine("skewed")
    chain = td.open(anywhere, threads=1)
    chain.publish(STATES[3], full=True)
    assert chain.newest() == 3 and chain.versions() == [0, 1, 2, 3]
    monkeypatch.setattr(time, "time", real)
    if isinstance(anywhere, FolderStore):
        monkeypatch.setattr(time, "time", lambda: real() + skew)
    done = chain.collect(1)
    assert done.dropped == [0, 1, 2]
    assert all(name.startswith(("manifests/", "shortcuts/")) for name in done.objects), "copies hold the rest"
    assert any(name.startswith("packs/") for name in chain.collect(1, grace=0).objects)
    check(anywhere, [3])


# -- no room -----------------------------------------------------------------------------------------------------------


def test_files_may_not_be_large(zygote: Zygote, written: dict[str, bytes], tmp_path: Path, machine: Machine) -> None:
    """A quota ends a publish: told as it is, no version is half there, and without the quota the same call goes on."""
    store = FolderStore(tmp_path / "chain")
    fill(store, written)
    job = {"address": store.address, "options": None, "cache": str(tmp_path / "cache"), "step": 3, "full": True}
    zygote.start("small_files", **job, limit=50_000)
    assert zygote.wait() == 3
    machine("reader")
    check(store, [0, 1, 2])
    assert not [path for path in store.root.rglob(".*") if path.is_file()]
    zygote.start("publish", **job)
    assert zygote.wait() == 0
    check(store, [0, 1, 2, 3])


def test_the_cache_may_not_have_large_files(
    s3_place: Place, zygote: Zygote, written: dict[str, bytes], tmp_path: Path, machine: Machine
) -> None:
    """The snapshot of a writer has no room: deltas are published all the same, from what memory holds."""
    store = s3_place.store("run")
    fill(store, written)
    job = {"address": f"{s3_place.root}/run", "options": s3_place.options, "cache": str(tmp_path / "cache")}
    zygote.start("small_files", **job, step=3, full=True, limit=50_000)
    assert zygote.wait() == 0
    zygote.start("small_files", **job, step=4, limit=50_000)
    assert zygote.wait() == 0
    machine("reader")
    assert check(store, [0, 1, 2, 3, 4]).manifest(4).base.version == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here; test_files_may_not_be_large has a quota instead")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_the_disk_is_full(small_disk: Path, machine: Machine) -> None:
    """The chain's own: what does not fit is not there, what was there is whole, and with room the same call goes on."""
    machine("writer")
    chain = td.open(small_disk / "chain", create=True, threads=1)
    chain.publish(STATES[0])
    filler = small_disk / "filler"
    filler.write_bytes(bytes(200_000))
    with pytest.raises(OSError, match="No space") as caught:
        chain.publish(STATES[1], full=True)
    assert not isinstance(caught.value, td.TensorDeltaError)
    assert not [path for path in (small_disk / "chain").rglob(".*") if path.is_file()]
    check(chain._reader.store, [0])
    filler.unlink()
    chain.publish(STATES[1], full=True)
    check(chain._reader.store, [0, 1])


def test_the_cache_is_full(
    place: Place, small_disk: Path, written: dict[str, bytes], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's: reading and publishing go on without it."""
    store = place.store("run")
    fill(store, written)
    monkeypatch.setenv("TENSORDELTA_CACHE", str(small_disk / "cache"))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(360_000))
    chain = td.open(store, threads=1)
    held = td.State.from_arrays({"w": STATES[1]["w"] * 2, "step": STATES[1]["step"] * 2})
    large = {"w": np.random.default_rng(0).integers(0, 1 << 32, 100_000, np.uint32)}
    chain.prepare(held).apply()
    assert held.equals(STATES[2])
    for step in range(2):
        large["w"][step] += 1
        assert chain.publish(large, full=not step, layout_change=True).base == (3 if step else None)
    assert td.open(place.store("run"), threads=1).load().equals(td.State.from_arrays(large))
    assert sum(path.stat().st_size for path in small_disk.rglob("*") if path.is_file()) < 400_000


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_that_no_chain_has(tmp_path: Path, written: dict[str, bytes], machine: Machine) -> None:
    """In a folder: whatever the file system can name is passed over, by readers, collectors and copies."""
    root = tmp_path / "chain"
    fill(FolderStore(root), written)
    for folder in ("manifests", "shortcuts", "packs", "."):
        (root / folder).mkdir(exist_ok=True)
        for name in (b"\xff\xfe.json", b"x" * 255, b"000000000009.json ", b"000000000009.json\n", b" ", b"..."):
            Path(os.fsdecode(os.fsencode(root / folder) + b"/" + name)).write_bytes(b"x")
    (root / "manifests" / "000000000009.json").mkdir()
    (root / "manifests" / "000000000008.json").symlink_to("nowhere")
    machine("reader")
    chain = check(FolderStore(root), [0, 1, 2])
    assert len(chain.log()) == 3
    td.copy(root, tmp_path / "copy")
    assert set(FolderStore(tmp_path / "copy").names("")) == set(written)
    assert chain.collect(1, grace=0, dry_run=True).kept == [2]
