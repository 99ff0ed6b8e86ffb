"""Followers: what a look costs, what they go to, and what they do when a store, a chain or a route goes wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from wrapped import Gate, Wrapped, same, weights

import tensordelta as td
from tensordelta.format.names import LATEST, PACKS, manifest_name
from tensordelta.live.follow import Pace, Watch

POLL = 0.002


@pytest.fixture
def store(tmp_path: Path) -> Wrapped:
    return Wrapped(tmp_path / "chain")


@pytest.fixture
def writer(tmp_path: Path) -> td.Chain:
    """The chain as its writer has it, with versions 0 and 1."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(2):
        chain.publish(weights(step))
    return chain


@pytest.fixture
def chain(writer: td.Chain, store: Wrapped) -> td.Chain:
    """The same, as a follower has it."""
    return td.open(store, threads=1)


def watch(chain: td.Chain, floor: int | None) -> Watch:
    return Watch(chain._reader, floor)


def latest(chain: td.Chain, version: object, chain_id: str | None = None) -> bytes:
    return json.dumps({"tensordelta": "1.0", "chain": chain_id or chain.id, "version": version}).encode()


def other_chain(root: Path) -> td.Chain:
    """Another run's chain in the place of the one that was there."""
    shutil.rmtree(root)
    chain = td.open(root, create=True)
    for step in range(3):
        chain.publish(weights(step + 5))
    return chain


# -- looking -----------------------------------------------------------------------------------------------------------


def test_a_look_that_finds_nothing_is_one_small_read(chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    looks = []
    for _ in range(21):
        store.counts.clear()
        assert looking.look() == []
        looks.append((store.counts["open"], store.counts["names"], store.counts.total()))
    listing = (2, 1, 3)  # latest.json, chain.json, and the manifests
    assert looks == [listing, *[(1, 0, 1)] * 9, listing, *[(1, 0, 1)] * 9, listing]


def test_a_listing_leaves_out_what_is_known(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    names: list[str] = []
    listed = store.names

    def spy(prefix: str, after: str | None = None) -> Iterator[str]:
        found = list(listed(prefix, after))
        names.extend(found)
        return iter(found)

    store.names = spy  # type: ignore[method-assign]
    writer.publish(weights(2))
    assert watch(chain, 1).look() == [2]
    assert names == [manifest_name(2)]


def test_news_is_found_at_once(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    assert looking.look() == []
    writer.publish(weights(2))
    writer.publish(weights(3))
    assert looking.look() == [2, 3]
    looking.floor = 3
    store.counts.clear()
    assert looking.look() == []
    assert store.counts.total() == 1


HINTS: dict[str, Callable[[td.Chain], bytes | None]] = {
    "absent": lambda chain: None,
    "no JSON": lambda chain: b'{"tensordelta": "1.0", "chain',
    "empty": lambda chain: b"",
    "not UTF-8": lambda chain: b"\xff\xfe",
    "huge": lambda chain: latest(chain, 1) + b" " * (1 << 17),
    "text for a version": lambda chain: latest(chain, "2"),
    "of another chain": lambda chain: latest(chain, 2, "00000000-0000-0000-0000-000000000000"),
    "of a later format": lambda chain: latest(chain, 2).replace(b"1.0", b"2.0"),
    "behind": lambda chain: latest(chain, 0),
    "far ahead": lambda chain: latest(chain, 10**11),
}


@pytest.mark.parametrize("hint", HINTS.values(), ids=HINTS)
def test_whatever_latest_json_says_changes_nothing(
    writer: td.Chain, chain: td.Chain, store: Wrapped, hint: Callable[[td.Chain], bytes | None]
) -> None:
    def spoil() -> None:
        data = hint(chain)
        store.delete(LATEST) if data is None else store.put(LATEST, [data])

    looking = watch(chain, 1)
    spoil()
    for _ in range(3):  # the first of which lists anyway
        assert looking.look() == []
    writer.publish(weights(2))
    spoil()
    assert looking.look() == [2]
    state = chain.load(0)
    for update in chain.follow(state, poll=POLL, until=2):
        assert update.version == 2
        update.apply()
    assert same(state, 2)


def test_a_stuck_hint_is_found_out_by_a_listing(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    stuck = store.read(LATEST)
    assert looking.look() == []
    writer.publish(weights(2))
    store.put(LATEST, [stuck])
    assert [looking.look() for _ in range(10)] == [[]] * 9 + [[2]]


def test_a_hint_before_the_listing_is_believed_if_the_manifest_is_there(
    writer: td.Chain, chain: td.Chain, store: Wrapped
) -> None:
    writer.publish(weights(2))
    listed = store.names
    store.names = lambda prefix, after=None: (n for n in listed(prefix, after) if n != manifest_name(2))  # type: ignore[method-assign]
    assert watch(chain, 1).look() == [2]


def test_another_chain_in_its_place_is_a_conflict(chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    assert looking.look() == []
    other_chain(store.root)
    with pytest.raises(td.ConflictError):  # at once, because of latest.json
        looking.look()


def test_another_chain_without_a_version_is_a_conflict_before_long(chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    looking.look()
    hint = store.read(LATEST)
    shutil.rmtree(store.root)
    td.open(store.root, create=True)
    store.put(LATEST, [hint])
    with pytest.raises(td.ConflictError):
        for _ in range(10):
            assert looking.look() == []


def test_a_chain_that_was_removed_is_missing(chain: td.Chain, store: Wrapped) -> None:
    shutil.rmtree(store.root)
    with pytest.raises(td.MissingError):
        next(chain.follow(chain_state(), poll=POLL))


def chain_state() -> td.State:
    return td.State.from_arrays({name: np.zeros_like(array) for name, array in weights(0).items()})


def test_waits_grow_while_nothing_comes_and_more_while_the_store_fails() -> None:
    pace = Pace(1.0)
    idle = [pace.idle() for _ in range(12)]
    assert 0.9 <= idle[0] <= 1.0
    assert all(3.6 <= wait <= 4.0 for wait in idle[8:])
    pace.news()
    assert pace.idle() <= 1.0
    failed = [pace.failed() for _ in range(9)]
    assert failed[0] <= 1.0
    assert 15.0 <= failed[-1] <= 30.0
    assert pace.idle() <= 4.0
    assert pace.failed() <= 1.0  # an answer ended the row of failures
    rare = Pace(100.0)
    assert [50.0 <= rare.failed() <= 100.0 for _ in range(3)] == [True] * 3


# -- following ---------------------------------------------------------------------------------------------------------


def test_following_goes_to_each_newest_version(writer: td.Chain, chain: td.Chain) -> None:
    state = chain.load(0)
    following = chain.follow(state, poll=POLL)
    steps = []
    for published in ([], [2, 3, 4], [5]):
        for step in published:
            writer.publish(weights(step))
        update = next(following)
        steps.append((update.base, update.version))
        update.apply()
        assert same(state, update.version)
    assert steps == [(0, 1), (1, 4), (4, 5)]


def test_arrays_of_the_users_own_follow(writer: td.Chain, chain: td.Chain) -> None:
    arrays = {name: np.zeros_like(array) for name, array in weights(0).items()}
    for update in chain.follow(arrays, poll=POLL, until=2):
        update.apply()
        if update.version == 1:
            writer.publish(weights(2))
    assert all(np.array_equal(arrays[name], array) for name, array in weights(2).items())


def test_a_state_of_the_newest_version_waits(chain: td.Chain) -> None:
    with pytest.raises(TimeoutError, match="after 1 "):
        next(chain.follow(chain.load(), poll=POLL, timeout=0.02))


def test_an_update_that_is_not_applied_is_not_offered_again(writer: td.Chain, chain: td.Chain) -> None:
    state = chain.load(0)
    following = chain.follow(state, poll=POLL, timeout=5)
    assert next(following).version == 1
    writer.publish(weights(2))
    update = next(following)
    assert (update.base, update.version) == (0, 2)
    update.apply()
    assert same(state, 2)


def test_an_update_that_another_one_made_stale_is_offered_again(writer: td.Chain, chain: td.Chain) -> None:
    writer.publish(weights(2))
    state = chain.load(0)
    other = chain.prepare(state, 1)
    following = chain.follow(state, poll=POLL, timeout=5)
    stale = next(following)
    assert not stale.stale
    other.apply()
    assert stale.stale
    with pytest.raises(td.WrongBaseError):
        stale.apply()
    update = next(following)
    assert (update.base, update.version) == (1, 2)
    update.apply()
    assert same(state, 2)


@pytest.mark.parametrize(("until", "reached"), [(1, [1]), (2, [2]), (3, [2]), (0, [])])
def test_following_ends_at_a_version(chain: td.Chain, writer: td.Chain, until: int, reached: list[int]) -> None:
    writer.publish(weights(2))
    writer.publish(weights(4), version=4)  # there is no version 3
    state = chain.load(0)
    seen = []
    for update in chain.follow(state, poll=POLL, until=until):
        update.apply()
        seen.append(update.version)
    assert seen == reached
    assert state.version == (reached or [0])[-1]


def test_following_ends_when_it_is_told_to(chain: td.Chain) -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    assert list(chain.follow(chain.load(), poll=60, stop=stop)) == []
    assert time.monotonic() - started < 30


def test_a_store_that_fails_is_tried_until_the_time_is_up(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    state = chain.load(0)
    failed = store.fail("open", LATEST, times=3)
    update = next(chain.follow(state, poll=POLL, timeout=30))
    assert failed() == 3
    update.apply()
    writer.publish(weights(2))
    failed = store.fail("open", PACKS, times=3)  # in the middle of preparing
    following = chain.follow(state, poll=POLL, timeout=30)
    next(following).apply()
    assert failed() == 3
    assert same(state, 2)
    store.fail("open", LATEST)
    with pytest.raises(td.StoreError, match="unreachable"):
        next(chain.follow(state, poll=POLL, timeout=0.05))


def test_the_time_that_a_caller_takes_does_not_count(writer: td.Chain, chain: td.Chain) -> None:
    following = chain.follow(chain.load(0), poll=POLL, timeout=0.3)
    next(following).apply()
    time.sleep(0.4)
    writer.publish(weights(2))
    assert next(following).version == 2


def test_a_reader_whose_route_vanished_plans_again(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    writer.publish(weights(2))
    state = chain.load(0)
    first = [True]

    def collect(operation: str, name: str) -> None:
        if operation == "open" and name.startswith(PACKS) and first:
            first.clear()
            writer.publish(weights(3))
            writer.shortcut(None, 3)
            writer.collect(1, grace=0)
            assert writer.versions() == [3]

    store.before = collect
    update = next(chain.follow(state, poll=POLL, timeout=30))
    assert not first
    assert update.version == 3
    update.apply()
    assert same(state, 3)


def test_a_version_that_stays_out_of_reach_is_missing(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    pack = chain.manifest(1).packs[0].path
    assert pack is not None
    store.delete(pack)
    with pytest.raises(td.MissingError) as caught:
        next(chain.follow(chain.load(0), poll=POLL, timeout=30))
    assert caught.value.object == pack
    # Once there is something newer that can be had, it is gone to.
    writer.publish(weights(2), full=True)
    assert next(chain.follow(chain.load(0), poll=POLL, timeout=30)).version == 2


def test_following_a_chain_that_was_replaced_is_a_conflict(chain: td.Chain, store: Wrapped) -> None:
    state = chain.load()
    other_chain(store.root)
    with pytest.raises(td.ConflictError):
        next(chain.follow(state, poll=POLL, timeout=30))
    assert same(state, 1)


@pytest.mark.parametrize("times", [{"poll": -1.0}, {"timeout": -1.0}])
def test_negative_times(chain: td.Chain, times: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="seconds"):
        next(chain.follow(chain.load(0), **times))  # type: ignore[arg-type]


def test_a_state_that_was_updated_while_an_update_was_prepared_is_refused(
    writer: td.Chain, chain: td.Chain, store: Wrapped
) -> None:
    """Nor is another route taken for it: that would read the whole model."""
    writer.publish(weights(2))
    state = chain.load(0)
    other = td.open(store.root).prepare(state, 1)
    opened: list[str] = []

    def apply(operation: str, name: str) -> None:
        if operation == "open" and name.startswith(PACKS):
            opened.append(name)
            if not state.version:
                other.apply()

    store.before = apply
    with pytest.raises(td.WrongBaseError) as caught:
        chain.prepare(state, 2)
    assert caught.value.rule == "TD-APP-001"
    assert same(state, 1)
    assert {pack.path for pack in chain.manifest(0).packs}.isdisjoint(opened)
    store.before = lambda operation, name: None
    chain.prepare(state, 2).apply()
    assert same(state, 2)


def test_waiting_costs_what_looking_costs(chain: td.Chain, store: Wrapped) -> None:
    store.counts.clear()
    with pytest.raises(TimeoutError):
        chain.wait(2, timeout=0.3, poll=0.005)
    assert store.counts["open"] >= 2
    assert store.counts["names"] <= 1 + store.counts["open"] // 10


# -- beside an engine --------------------------------------------------------------------------------------------------


def test_an_engine_applies_in_its_pause(writer: td.Chain, chain: td.Chain) -> None:
    state = chain.load(0)
    told: list[int] = []
    with td.Follower(chain, state, poll=POLL, on_prepared=lambda update: told.append(update.version)) as follower:
        update = follower.wait(30)
        assert update is follower.ready is not None
        assert state.version == 0
        assert follower.apply() is update
        assert same(state, 1)
        assert follower.apply() is None
        writer.publish(weights(2))
        assert follower.wait(30)
        assert follower.apply()
        assert same(state, 2)
    assert told == [1, 2]


def test_a_newer_update_takes_the_place_of_one_that_waits(writer: td.Chain, chain: td.Chain) -> None:
    state = chain.load(0)
    newest = threading.Event()
    with td.Follower(
        chain, state, poll=POLL, on_prepared=lambda update: update.version == 3 and newest.set()
    ) as follower:
        assert follower.wait(30)
        writer.publish(weights(2))
        writer.publish(weights(3))
        assert newest.wait(30)
        update = follower.apply()
        assert update is not None
        assert update.version == 3
        assert same(state, 3)


def test_an_update_is_prepared_again_where_another_was_applied_meanwhile(
    writer: td.Chain, chain: td.Chain, store: Wrapped
) -> None:
    state = chain.load(0)
    with td.Follower(chain, state, poll=POLL) as follower:
        assert follower.wait(30)
        gate = Gate(store, "open", PACKS)
        writer.publish(weights(2))
        gate.reached()  # the next update is on its way, from version 0
        applied = follower.apply()  # and the pause does not wait for it
        assert applied is not None
        assert applied.version == 1
        assert same(state, 1)
        gate.open()
        update = follower.wait(30)
        assert update is not None
        assert (update.base, update.version) == (1, 2)
        assert follower.apply()
        assert same(state, 2)


def test_an_update_that_could_not_be_applied_is_prepared_again(
    chain: td.Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise OSError("the engine's memory is gone")

    state = chain.load(0)
    with td.Follower(chain, state, poll=POLL) as follower:
        update = follower.wait(30)
        assert update is not None
        monkeypatch.setattr(update, "apply", fail)
        with pytest.raises(OSError, match="gone"):
            follower.apply()
        assert follower.wait(30)
        assert follower.apply()
        assert same(state, 1)


def test_an_engine_may_decide_when_to_apply(chain: td.Chain) -> None:
    state = chain.load(0)
    willing = [False]
    with td.Follower(chain, state, poll=POLL, apply_when=lambda update: willing[0] and update.version == 1) as follower:
        assert follower.wait(30)
        assert follower.apply() is None
        assert state.version == 0
        willing[0] = True
        assert follower.apply()
        assert state.version == 1


def test_an_engine_hears_of_a_failure_once_and_is_followed_on(
    writer: td.Chain, chain: td.Chain, store: Wrapped
) -> None:
    state = chain.load(0)
    pack = chain.manifest(1).packs[0].path
    assert pack is not None
    data = store.read(pack)
    store.put(pack, [data[:-1] + bytes([data[-1] ^ 1])])
    with td.Follower(chain, state, poll=POLL) as follower:
        assert follower.wait(30) is None
        with pytest.raises(td.IntegrityError):
            follower.apply()
        store.put(pack, [data])
        while follower.wait(0.05) is None:  # it may have tried again before the pack was mended
            with suppress(td.IntegrityError):
                follower.apply()
        assert follower.apply()
        assert same(state, 1)


def test_closing_a_follower_ends_its_thread(chain: td.Chain) -> None:
    follower = td.Follower(chain, chain.load(), poll=60)
    started = time.monotonic()
    follower.close()
    follower.close()
    assert time.monotonic() - started < 30
    assert not [each for each in threading.enumerate() if each.name == "tensordelta-follower"]


# -- signed chains -----------------------------------------------------------------------------------------------------


def test_a_follower_with_keys_passes_over_what_nobody_signed(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key, root = "11" * 32, tmp_path / "signed"
    signed = td.open(root, create=True, key=key)
    for step in range(2):
        signed.publish(weights(step))
    from tensordelta.write.keys import secret_key

    public = secret_key(key).public.raw.hex()
    chain = td.open(root, trusted_keys=[public])
    state = chain.load(0)
    td.open(root).publish(weights(2))  # not signed
    following = chain.follow(state, poll=POLL, timeout=0.1)
    next(following).apply()
    assert same(state, 1)
    with pytest.raises(TimeoutError):
        next(following)
    td.open(root).sign(key)
    assert next(chain.follow(state, poll=POLL, timeout=30)).version == 2
    old = td.open(root, trusted_keys=[public], max_age=0.0)
    with pytest.raises(td.UntrustedError):
        next(old.follow(td.open(root).load(2), poll=POLL, timeout=5))


# -- folders and the command line --------------------------------------------------------------------------------------


def held(folder: Path, step: int) -> bool:
    found = load_file(folder / "model.safetensors")
    return all(np.array_equal(found[name], array) for name, array in weights(step).items())


def test_a_folder_is_kept_at_the_newest_version(writer: td.Chain, chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    chain.pull(folder)
    seen = []
    for pulled in chain.follow_folder(folder, poll=POLL, until=3):
        seen.append((pulled.version, bool(pulled.route)))
        assert held(folder, pulled.version)
        if pulled.version < 3:
            writer.publish(weights(pulled.version + 1))
    assert seen == [(1, False), (2, True), (3, True)]


def command(*arguments: object, **more: object) -> subprocess.Popen[str]:
    package = str(Path(td.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "tensordelta", "pull", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": package, "TENSORDELTA_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_follows_until_it_is_told_to_end(writer: td.Chain, tmp_path: Path, number: int) -> None:
    folder, log = tmp_path / "engine", tmp_path / "log"
    hook = f"echo $TENSORDELTA_VERSION $TENSORDELTA_FOLDER >> {log}; test $TENSORDELTA_VERSION != 1"
    with command(writer.address, folder, "--follow", "--poll", "0.02", "--exec", hook) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("version 1: ")
        writer.publish(weights(2))
        assert process.stdout.readline().startswith("version 2: ")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == ""
    assert err == "the command for version 1 ended with exit code 1\n"
    assert held(folder, 2)
    assert log.read_text() == f"1 {folder}\n2 {folder}\n"


def test_the_command_ends_at_a_version_or_when_nothing_comes(writer: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    with command(writer.address, folder, "--follow", "--to", "0", "--json", "--exec", "echo reloaded") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["version"] == 0
    assert held(folder, 0)
    with command(writer.address, folder, "--follow", "--timeout", "0.2", "--poll", "0.05") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.startswith("version 1: ")
    assert "no version after 1 appeared within 0.2 seconds" in err
    with command(writer.address, folder, "--timeout", "5") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--follow" in err


# -- many of them ------------------------------------------------------------------------------------------------------

_MEMORY = """
import sys
from pathlib import Path
import tensordelta as td
root, target, until = sys.argv[1:]
chain = td.open(root, threads=1)
state = td.State.empty()
for update in chain.follow(state, poll=0.05, until=int(until)):
    update.apply()
state.save(target)
"""


@pytest.mark.slow
def test_sixteen_followers_of_a_chain_that_is_written_and_collected(tmp_path: Path) -> None:
    """They are killed at random and started again; half of them keep a folder, half hold the state in memory."""
    root, last, rng = tmp_path / "chain", 40, random.Random(4)
    writer = td.open(root, create=True, threads=1)
    writer.publish(weights(0))
    package = str(Path(td.__file__).parents[1])

    def start(number: int) -> subprocess.Popen[bytes]:
        if number % 2:
            arguments = ["-m", "tensordelta", "pull", root, folder(number), "--follow", "--poll", "0.05", "--to", last]
        else:
            arguments = ["-c", _MEMORY, root, tmp_path / f"state-{number}.safetensors", last]
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": package, "TENSORDELTA_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def folder(number: int) -> Path:
        return tmp_path / f"engine-{number}"

    followers = {number: start(number) for number in range(16)}
    kills = 0
    try:
        with writer.publisher(keep=3, grace=0.0, skip=(4,), full_every=4) as publisher:
            for step in range(1, last + 1):
                publisher.submit(weights(step)).result(60)
                time.sleep(0.5)
                number = rng.randrange(16)
                if rng.random() < 0.4 and followers[number].poll() is None:
                    followers[number].kill()
                    followers[number].communicate()
                    followers[number] = start(number)
                    kills += 1
        assert publisher.trouble is None
        assert writer.versions()[0] > 0  # much was collected while they read
        for number, process in followers.items():
            _, err = process.communicate(timeout=240)
            assert process.returncode == 0, (number, err.decode())
    finally:
        for process in followers.values():
            process.kill()
            process.wait()
    assert kills >= 5
    wanted = weights(last)
    for number in range(16):
        path = folder(number) / "model.safetensors" if number % 2 else tmp_path / f"state-{number}.safetensors"
        found = load_file(path)
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in wanted.items()
        }
