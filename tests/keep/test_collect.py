"""Retention: what collectors delete and what stays, and that each listed version can be rebuilt at any moment."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clocked_store import ClockedStore, Crash
from collecting import DAY, Run, equal, open_chain

import tensordelta as td
from tensordelta.cli import main
from tensordelta.format.names import manifest_name, parse_signature_name, retired_name, shortcut_name
from tensordelta.format.signature import Message
from tensordelta.write.clock import Clock
from tensordelta.write.keys import secret_key

# -- what stays, and what goes ---------------------------------------------------------------------------------------


def test_the_newest_stay_and_what_they_are_rebuilt_over() -> None:
    run = Run(10)
    done = run.collect(3)
    assert (done.kept, done.supporting, done.dropped) == ([7, 8, 9], list(range(7)), [])
    assert done.leaning == [7] and "full shortcut to version 7" in done.advice
    assert done.objects == [] and run.store.deleted() == []

    run.chain.shortcut(None, 7)
    done = run.collect(3)
    assert (done.kept, done.supporting, done.dropped) == ([7, 8, 9], [], list(range(7)))
    assert done.advice == "" and done.lost == []
    assert run.chain.versions() == [7, 8, 9]
    assert sorted(done.objects) == sorted(run.store.deleted())
    run.check(held=range(10))
    assert run.chain.verify(deep=True).ok

    left = set(run.store.objects)
    assert run.collect(3).objects == [] and set(run.store.objects) == left, "nothing is left for another"
    needed = {name for version in (7, 8, 9) for name in named(run.store, manifest_name(version), packs=version > 7)}
    needed |= named(run.store, shortcut_name(7, None))
    members = {manifest_name(version) for version in (7, 8, 9)} | {shortcut_name(7, None)}
    assert left == needed | members | {"chain.json", "latest.json"}


def named(store: ClockedStore, member: str, *, packs: bool = True) -> set[str]:
    value = json.loads(store.objects[member][0])
    names = {f"layouts/{value['layout']}.json", f"fingerprints/{value['tensor_fingerprints']}.bin"}
    return (
        names | {pack["path"] for pack in value["packs"] if packs} | {file["path"] for file in value.get("files", [])}
    )


def test_size_is_what_is_won() -> None:
    run = Run(6)
    run.chain.shortcut(None, 5)
    before = sum(len(data) for data, _ in run.store.objects.values())
    done = run.collect(1)
    assert done.size == before - sum(len(data) for data, _ in run.store.objects.values()) > 0


def test_every_so_many_and_named_versions_stay() -> None:
    run = Run(13)
    for version in (4, 5, 8, 12):
        run.chain.shortcut(None, version)
    done = run.collect(1, keep_every=4, keep=[5])
    assert done.kept == [0, 4, 5, 8, 12] == run.chain.versions()
    run.check(held=range(13))


def test_a_version_to_keep_that_does_not_exist() -> None:
    run = Run(3)
    run.chain.shortcut(None, 2)
    with pytest.raises(td.MissingError, match="no version 7"):
        run.collect(1, keep=[7])
    assert run.store.deleted() == []


@pytest.mark.parametrize(
    "how",
    [
        {"keep_last": 0},
        {"keep_last": 1, "keep_every": 0},
        {"keep_last": 1, "grace": -1.0},
        {"keep_last": 1, "grace": DAY - 1},
    ],
)
def test_wrong_use(how: dict[str, float]) -> None:
    run = Run(2)
    with pytest.raises(ValueError, match=r"keep|grace"):
        run.chain.collect(**how)  # type: ignore[arg-type]


def test_supporting_versions_go_when_a_skip_delta_passes_them() -> None:
    run = Run(9)
    run.chain.shortcut(0, 8)
    done = run.collect(1)
    assert (done.kept, done.supporting, done.leaning) == ([8], [0], [8])
    assert run.chain.versions() == [0, 8]
    run.check(held=range(9))


def test_edges_between_versions_that_stay_keep_their_packs() -> None:
    """Readers that are behind take the small way, although a full shortcut is there for those that hold nothing."""
    run = Run(8)
    run.chain.shortcut(None, 4)
    run.chain.shortcut(None, 6)
    run.chain.shortcut(4, 7)
    run.collect(4)
    assert run.chain.prepare(run.held(4), 6).route == (manifest_name(5), manifest_name(6))
    assert run.chain.prepare(run.held(4), 7).route in ((shortcut_name(7, 4),), tuple(map(manifest_name, (5, 6, 7))))
    assert run.chain.verify(deep=True).ok


def test_shortcuts_of_dropped_versions_go() -> None:
    run = Run(8)
    run.chain.shortcut(None, 6)
    run.chain.shortcut(0, 4)
    run.chain.shortcut(2, 7)
    run.collect(2)
    assert [name for name in run.store.objects if name.startswith("shortcuts/")] == [shortcut_name(6, None)]
    assert run.chain.verify(deep=True).ok


def test_objects_of_others_are_left_alone() -> None:
    run = Run(4)
    run.chain.shortcut(None, 3)
    strange = [
        "notes/x.txt",
        "packs/mine.safetensors",
        "files/readme",
        "layouts/x.json",
        "manifests/1.json",
        "signatures/x",
    ]
    strange += [f"packs/{'a' * 64}.bin", "shortcuts/latest.json", "pins/readme.txt"]
    for name in strange:
        run.store.objects[name] = b"{}", 0.0
    run.collect(1)
    assert run.chain.versions() == [3] and set(strange) <= set(run.store.objects)


def test_what_no_manifest_names_goes_in_the_end() -> None:
    """Packs of a writer that died before its commit, and a shortcut and a signature whose version is gone."""
    run = Run(2)
    named = f"{'a' * 64}-{'0' * 16}"
    litter = [f"packs/{named}.safetensors", f"files/{named}", f"fingerprints/{'d' * 64}.bin", "pins/clock-00"]
    litter += [f"signatures/{named}.json", shortcut_name(7, 0)]
    layout = f"layouts/{'b' * 64}.json"
    for name in (*litter, layout):
        run.store.objects[name] = b"{}", run.store.now
    run.store.now += DAY / 2
    assert run.collect(9, grace=DAY).objects == []
    run.store.now += DAY / 2
    assert set(run.collect(9, grace=DAY).objects) == set(litter)
    assert layout in run.store.objects, "layouts stay for ever"
    run.store.now += DAY  # the copy of the shortcut
    assert run.collect(9, grace=DAY).objects == [retired_name(shortcut_name(7, 0))]


def test_signatures_go_after_what_they_sign() -> None:
    run = Run(4)
    run.chain.shortcut(None, 3)
    run.chain.shortcut(0, 2)
    run.chain.sign("11" * 32)
    run.chain.sign("22" * 32, [3])
    run.collect(1)
    stay = {"chain.json", manifest_name(3), shortcut_name(3, None)}
    messages = {name: Message(name, run.store.read(name)).digest for name in stay}
    left = [parse_signature_name(name) for name in run.store.objects if name.startswith("signatures/")]
    assert sorted(left) == sorted([*messages.values()] * 2), "two keys have signed what stays"


def test_a_layout_and_files_that_are_still_named_stay(tmp_path: Path) -> None:
    run = Run(3)
    run.arrays["new"] = np.ones(5, np.float16)
    run.publish(files={"config.json": b"{}", "old.txt": b"old"})
    run.publish(files={"config.json": b"{}"})
    run.chain.shortcut(None, 4)
    run.collect(1)
    assert len([name for name in run.store.objects if name.startswith("layouts/")]) == 2, "layouts stay for ever"
    assert len([name for name in run.store.objects if name.startswith("files/")]) == 1
    open_chain(run.store).pull(tmp_path / "out")
    assert (tmp_path / "out/config.json").read_bytes() == b"{}"


def test_a_later_writer_goes_on() -> None:
    run = Run(6)
    run.chain.shortcut(None, 5)
    run.collect(1)
    assert run.publish() == 6 and run.publish() == 7
    run.chain = open_chain(run.store)
    assert run.publish() == 8
    run.check(held=range(9))


# -- ages ------------------------------------------------------------------------------------------------------------


def test_what_a_dropped_version_names_is_held_for_its_readers() -> None:
    """Ages are by the store's clock, which is nowhere near this machine's."""
    run = Run(6)
    run.store.now += 10 * DAY
    run.chain.shortcut(None, 5)
    before = dict(run.store.objects)
    reading = open_chain(run.store)
    reading.versions()
    done = run.collect(1, grace=DAY)
    assert done.dropped == [0, 1, 2, 3, 4] and run.chain.versions() == [5]
    gone = [manifest_name(version) for version in (4, 3, 2, 1, 0)]
    assert done.objects == gone == run.store.deleted()
    for name in gone:
        assert run.store.objects[retired_name(name)] == (before[name][0], run.store.now)
    run.store.now += DAY - 1
    assert run.collect(1, grace=DAY).objects == []
    run.store.now += 1
    done = run.collect(1, grace=DAY)
    assert sorted(map(retired_name, gone)) == sorted(name for name in done.objects if name.startswith("retired/"))
    packs = [json.loads(before[name][0])["packs"][0]["path"] for name in gone]
    assert set(packs) < set(done.objects) and not any(name.startswith("retired/") for name in run.store.objects)
    run.check(held=range(6))
    assert run.collect(1, grace=DAY).objects == []


@pytest.mark.parametrize("target", [None, 2])
def test_a_reader_on_its_way_loses_nothing(target: int | None) -> None:
    """Whatever object a reader is about to read, its versions were dropped just before, manifests included."""
    for read in range(40):
        run = Run(4)
        run.store.now += 10 * DAY
        reading = open_chain(run.store)
        left = [read]

        def collect(name: str, left: list[int] = left, run: Run = run) -> None:
            left[0] -= 1
            if left[0] == -1:
                run.store.before_open = None
                run.publish(full=True)
                run.publish()
                run.collect(1, grace=DAY)
                run.store.now += 0.7 * DAY  # and then it takes its time
                run.collect(1, grace=DAY)

        run.store.before_open = collect
        state = reading.load(target)
        assert equal(state, run.states[3 if target is None else target]), read
        if left[0] >= 0:
            break
    assert read > 5


def test_an_edge_from_a_version_that_is_gone_holds_no_pack() -> None:
    run = Run(4)
    run.store.now += 10 * DAY
    run.chain.shortcut(None, 2)
    run.collect(2, grace=DAY)
    pack = json.loads(run.store.objects[manifest_name(2)][0])["packs"][0]["path"]
    assert run.chain.versions() == [2, 3] and pack in run.store.objects, "1 has a young copy"
    run.store.now += DAY
    assert pack in run.collect(2, grace=DAY).objects and run.chain.verify(deep=True).ok


def test_a_young_pack_without_a_manifest_stays() -> None:
    run = Run(4)
    run.store.now += 10 * DAY
    run.store.put(f"packs/{'a' * 64}-{'0' * 16}.safetensors", [b"of a writer at work"])
    run.store.now += DAY - 1
    assert run.collect(9, grace=DAY).objects == []


def test_a_chain_names_its_grace_period() -> None:
    store = ClockedStore()
    chain = open_chain(store, create=True, grace=60)
    assert json.loads(store.objects["chain.json"][0])["grace"] == 60
    for _ in range(3):
        chain.publish({"w": np.arange(9)}, full=True)
    with pytest.raises(ValueError, match="60 of the chain"):
        open_chain(store).collect(1, grace=59)
    assert open_chain(store).collect(1).dropped == [0, 1]
    store.now += 60
    assert len(open_chain(store).collect(1).objects) == 6, "two copies, packs and fingerprints objects"
    for grace in (59, 2**32 + 1):
        with pytest.raises(ValueError, match="grace period"):
            open_chain(ClockedStore(), create=True, grace=grace)


def test_a_version_that_took_too_long_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ClockedStore()
    chain = open_chain(store, create=True, grace=60)
    chain.publish({"w": np.arange(9)})
    monkeypatch.setattr(Clock, "seconds", property(lambda clock: 48.5))
    with pytest.raises(TimeoutError, match="publish it again"):
        chain.publish({"w": np.arange(9) + 1})
    assert chain.versions() == [0]
    monkeypatch.setattr(Clock, "seconds", property(lambda clock: 47.5))
    assert chain.publish({"w": np.arange(9) + 1}).version == 1


def test_where_ages_are_not_told_nothing_goes() -> None:
    run = Run(4)
    run.chain.shortcut(None, 3)
    run.store.tells_ages = False
    run.store.now += 10 * DAY
    run.store.put("pins/broken.json", [b"{"])
    assert run.collect(1, grace=DAY).objects == []
    del run.store.objects["pins/broken.json"]
    run.chain.pin(0, "a", expires=0)
    assert run.collect(1, grace=0).kept == [0, 3], "nor does a pin expire"


@pytest.mark.parametrize("skew", [-30 * DAY, 30 * DAY])
def test_a_folder_whose_clock_is_wrong(tmp_path: Path, skew: float) -> None:
    """The folder's times are what counts, not those of this machine: as with a file server whose clock is off."""
    chain = td.open(tmp_path / "chain", create=True, threads=1, grace=3600)
    words = np.arange(100, dtype=np.uint16)
    for _ in range(3):
        words = words + np.uint16(1)
        chain.publish({"w": words})
    chain.shortcut(None, 2)

    class Skewed(td.FolderStore):
        def entries(self, prefix: str):  # type: ignore[no-untyped-def]
            return (each._replace(modified=each.modified + skew) for each in super().entries(prefix))

    store = Skewed(tmp_path / "chain")
    assert td.open(store, threads=1).collect(1).objects == [manifest_name(1), manifest_name(0)]
    assert td.open(store, threads=1).collect(1).objects == []
    for path in (tmp_path / "chain").rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 7200,) * 2)
    assert len(td.open(store, threads=1).collect(1).objects) >= 6
    assert td.open(store).load()["w"].tolist() == words.tolist()
    assert not (tmp_path / "chain/pins").exists() or not list((tmp_path / "chain/pins").iterdir())


def test_a_dry_run_tells_and_does_nothing() -> None:
    run = Run(8)
    run.chain.shortcut(None, 6)
    run.store.now = time.time()
    before = dict(run.store.objects)
    told = run.collect(2, dry_run=True)
    assert run.store.done == [] and run.store.objects == before
    assert told.dry_run and "would" in repr(told)
    done = run.collect(2)
    for name in ("kept", "supporting", "dropped", "objects", "size"):
        assert getattr(told, name) == getattr(done, name), name
    assert done.facts() | {"seconds": 0, "dry_run": 0} == told.facts() | {"seconds": 0, "dry_run": 0}


# -- order, crashes, others at work ----------------------------------------------------------------------------------


def test_manifests_go_first_from_the_newest() -> None:
    run = Run(6)
    run.chain.shortcut(1, 4)
    run.chain.shortcut(None, 5)
    run.collect(1)
    order = run.store.deleted()
    members = [name for name in order if name.startswith(("manifests/", "shortcuts/"))]
    assert order[: len(members)] == members
    assert members == [manifest_name(4), shortcut_name(4, 1), *(manifest_name(version) for version in (3, 2, 1, 0))]


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_operation_leaves_a_whole_chain(after: bool) -> None:
    run = Run(7)
    run.chain.shortcut(0, 3)
    run.chain.shortcut(None, 5)
    run.chain.shortcut(3, 6)
    run.chain.pin(4, "old", expires=0)
    whole = run.store
    finished = False
    for number in range(100):
        run.store = whole.copy()
        run.store.crash_at, run.store.after = number, after
        try:
            run.collect(2)
            finished = True
        except Crash:
            pass
        run.store.crash_at = None
        run.check(held=(2, 4))
        versions = open_chain(run.store).versions()
        assert {5, 6} <= set(versions)
        again = run.collect(2)
        assert again.kept == [5, 6] == open_chain(run.store).versions()
        assert open_chain(run.store).verify(deep=True).ok
        left = set(run.store.objects)
        if number == 0:
            expected = left
        assert left - {name for name in left if "clock-" in name} == expected
        if finished:
            break
    assert finished and number > 15


def test_versions_that_come_while_a_collector_works() -> None:
    """A writer publishes, and makes a shortcut, between any two deletions."""
    run = Run(6)
    run.chain.shortcut(None, 5)
    at_work = []

    class Busy(ClockedStore):
        def delete(self, name: str) -> None:
            super().delete(name)
            if not at_work:
                at_work.append(name)
                run.publish()
                run.chain.shortcut(None, max(run.states))
                at_work.clear()

    busy = Busy(run.store.objects, run.store.now)
    run.store = busy
    run.chain = open_chain(busy)
    busy.now += DAY
    assert open_chain(busy).collect(1, grace=DAY).dropped == [0, 1, 2, 3, 4, 5]
    assert len(run.states) > 10
    run.check()
    assert open_chain(busy).verify(deep=True).ok


def test_a_damaged_chain_is_no_reason_to_damage_more() -> None:
    run = Run(5)
    manifest = json.loads(run.store.objects[manifest_name(4)][0])
    run.store.objects[manifest_name(4)] = json.dumps(manifest | {"tensordelta": "2.0"}).encode(), run.store.now
    with pytest.raises(td.UnsupportedError):
        run.collect(1)
    assert run.store.deleted() == []
    run.store.objects[manifest_name(4)] = b"{", run.store.now
    with pytest.raises(td.MalformedError):
        run.collect(2)
    assert run.store.deleted() == []


def test_what_another_reader_may_need_is_not_dropped() -> None:
    """The way to the newest version leads over a feature that this collector does not know."""
    run = Run(5)
    manifest = json.loads(run.store.objects[manifest_name(3)][0])
    run.store.objects[manifest_name(3)] = json.dumps(manifest | {"features": ["later"]}).encode(), run.store.now
    with pytest.raises(td.UnsupportedError):
        run.collect(1)
    assert run.store.deleted() == []


def test_a_version_that_could_not_be_rebuilt_before() -> None:
    run = Run(6)
    run.chain.shortcut(None, 5)
    lost = json.loads(run.store.objects[manifest_name(4)][0])["packs"][0]["path"]
    del run.store.objects[lost]
    done = run.collect(2)
    assert done.lost == [4] and done.kept == [4, 5] and done.dropped == [] == run.store.deleted()
    for version in (0, 1, 2, 3, 5):
        assert open_chain(run.store).load(version)["w"].tolist() == run.states[version]["w"].tolist()


def test_an_unsigned_way_is_none_in_a_signed_chain() -> None:
    """A collector without keys counts no edge that a reader with keys would pass over."""
    run = Run(4)
    run.chain.shortcut(None, 3)
    run.chain.sign("11" * 32)
    name = shortcut_name(3, None)
    del run.store.objects[Message(name, run.store.read(name)).signature_name(secret_key("11" * 32).public)]
    assert run.collect(1).dropped == []
    run.chain.sign("11" * 32)
    assert run.collect(1).dropped == [0, 1, 2]


def test_a_pin_that_is_renewed_while_versions_go(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(6)
    run.chain.shortcut(None, 5)
    run.chain.pin(5, "replica", expires=0)
    run.store.now += 1
    delete, renewed = run.store.delete, []

    def delete_and_renew(name: str) -> None:
        delete(name)
        if not renewed and name.startswith("packs/"):
            renewed.append(run.chain.pin(5, "replica", expires=10**6))

    monkeypatch.setattr(run.store, "delete", delete_and_renew)
    run.collect(1)
    assert renewed and [pin.name for pin in run.chain.pins()] == ["replica"]


def test_a_route_is_kept_whose_packs_are_there() -> None:
    """The cheapest way is not taken for one that can be gone: its packs are lost already."""
    run = Run(5)
    run.chain.shortcut(2, 4)
    run.chain.shortcut(None, 2)
    lost = json.loads(run.store.objects[shortcut_name(4, 2)][0])["packs"][0]["path"]
    del run.store.objects[lost]
    done = run.collect(1)
    assert done.supporting == [2, 3] and run.chain.versions() == [2, 3, 4]
    run.check()


def test_an_edge_that_lost_its_packs_is_no_way() -> None:
    run = Run(4)
    run.chain.shortcut(None, 2)
    run.chain.shortcut(0, 3)
    del run.store.objects[json.loads(run.store.objects[manifest_name(3)][0])["packs"][0]["path"]]
    done = run.collect(2)
    assert done.supporting == [0] and run.chain.versions() == [0, 2, 3]
    run.check()


def test_verify_says_nothing_of_collected_packs() -> None:
    """The first version that is kept has lost the packs of its own manifest; the full shortcut leads there."""
    run = Run(6)
    run.chain.shortcut(None, 4)
    run.collect(2)
    pack = json.loads(run.store.objects[manifest_name(4)][0])["packs"][0]["path"]
    assert pack not in run.store.objects
    assert run.chain.verify().faults == [] == run.chain.verify(deep=True).faults


def test_a_reader_in_the_middle_of_its_way_goes_on() -> None:
    """Whatever object a reader is about to read, a collector may have been there just before."""
    for read in range(40):
        run = Run(6)
        run.chain.shortcut(None, 5)
        reading = open_chain(run.store)
        state = run.held(1)
        left = [read]

        def collect(name: str, left: list[int] = left, run: Run = run) -> None:
            left[0] -= 1
            if left[0] == -1:
                run.collect(1)

        run.store.before_open = collect
        reading.prepare(state, 5).apply()
        run.store.before_open = None
        assert equal(state, run.states[5]), read
        if left[0] >= 0:
            break
    assert read > 5


@pytest.mark.parametrize("moment", ["packs/", manifest_name(3)])
def test_a_new_way_is_seen_in_the_middle_of_an_old_one(moment: str) -> None:
    """The only way from nothing vanishes, and one comes that was not listed when the reader began."""
    run = Run(5)
    reading = open_chain(run.store)
    moved = []

    def replace(name: str) -> None:
        if name.startswith(moment) and not moved:
            moved.append(name)
            run.chain.shortcut(None, 4)
            run.collect(1)

    run.store.before_open = replace
    state = reading.load(4)
    assert moved and equal(state, run.states[4]) and reading.versions() == [4]


def test_ways_that_a_collector_took_are_not_tried_one_by_one() -> None:
    run = Run(6)
    for base, version in ((0, 2), (0, 3), (1, 4), (2, 5), (3, 5)):
        run.chain.shortcut(base, version)
    run.chain.shortcut(None, 5)
    reading = open_chain(run.store)
    missed = []

    def collect(name: str) -> None:
        if name.startswith("packs/") and not missed:
            missed.append(name)
            run.collect(1)
        elif name not in run.store.objects:
            missed.append(name)

    run.store.before_open = collect
    state = run.held(0)
    reading.prepare(state, 5).apply()
    assert equal(state, run.states[5]) and len(missed) == 1, "the pack that it was about to read"


# -- the command line ------------------------------------------------------------------------------------------------


def test_commands(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    words = np.arange(1000, dtype=np.uint16)
    for _ in range(6):
        words = words + np.uint16(1)
        chain.publish({"w": words})

    def run(*arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(main, [str(each) for each in arguments])
        assert done.exit_code == code, done.output
        return done.output

    address = tmp_path / "chain"
    made = json.loads(run("shortcut", address, "full", 4, "--json"))
    assert (made["object"], made["base"], made["version"]) == (shortcut_name(4, None), None, 4) and made["size"] > 0
    assert "it was there already" in run("shortcut", address, "full", 4)
    run("shortcut", address, 0, 3, "--tag", "exp", "--order", "exponent")
    assert (address / shortcut_name(3, 0, "exp")).exists()
    assert json.loads(run("pin", address, 2, "eval", "--expires", 600, "--json"))["seconds"] == 600
    told = json.loads(run("gc", address, "--keep-last", 2, "--dry-run", "--json"))
    assert told["dropped"] == [3] and set(told["objects"]) == {manifest_name(3), shortcut_name(3, 0, "exp")}
    told = json.loads(run("gc", address, "--keep-last", 2, "--json"))
    assert told["kept"] == [2, 4, 5] and told["supporting"] == [0, 1] and told["dropped"] == [3]
    assert [pin["name"] for pin in told["pins"]] == ["eval"] and (address / retired_name(manifest_name(3))).exists()
    (address / "pins/broken.json").write_bytes(b"")
    shown = run("gc", address, "--keep-last", 1)
    assert "pin eval" in shown and "pins/broken.json" in shown and "no version" in shown
    (address / "pins/broken.json").unlink()
    run("gc", address, "--keep-last", 2, "--grace", 3600, code=2)
    run("unpin", address, "eval")
    run("unpin", address, "eval", code=1)
    assert "3 versions (0 to 2) went" in run("gc", address, "--keep-last", 2, "--grace", 0)
    assert td.open(address).load(5)["w"].tolist() == words.tolist()
    run("gc", address, code=2)
    run("gc", address, "--keep-last", 1, "--keep", 77, code=1)
    run("pin", address, 5, "a/b", code=2)
    assert run("verify", address, "--deep")
