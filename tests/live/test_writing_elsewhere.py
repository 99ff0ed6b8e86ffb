"""A follower that writes into an engine as well: the engine's parameters and the held state have the same version."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from following import POLL
from wrapped import Wrapped, same, weights

import tensordelta as td


class Engine:
    """Parameters of an engine's own.

    Attributes:
        parameters: by name, flat.
        versions: those that were written, whole or in part.
        fails: what the next write raises when it has written half of the first patch.
    """

    def __init__(self) -> None:
        self.parameters = {name: array.reshape(-1) for name, array in weights(0).items()}
        self.versions: list[int] = []
        self.fails: BaseException | None = None

    def write(self, update: td.Update) -> None:
        self.versions.append(update.version)
        for patch in update.patches():
            fails, self.fails = self.fails, None
            listed = len(patch.indices) // 2 if fails else len(patch.indices)
            self.parameters[patch.name][patch.indices[:listed]] = patch.values[:listed]
            if fails:
                raise fails

    def serves(self, step: int) -> bool:
        return all(np.array_equal(self.parameters[name], each.reshape(-1)) for name, each in weights(step).items())


def test_both_have_the_same_version(writer: td.Chain, chain: td.Chain) -> None:
    state, engine = chain.load(0), Engine()
    with td.Follower(chain, state, poll=POLL) as follower:
        while state.version != 1:
            follower.wait(30)
            follower.apply(write=engine.write)
        assert same(state, 1) and engine.serves(1)
        writer.publish(weights(2))
        assert follower.wait(30) and follower.apply(write=engine.write)
        assert same(state, 2) and engine.serves(2)
    assert engine.versions == [1, 2]


@pytest.mark.parametrize("error", [OSError("the device is gone"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_write_that_fails_is_done_again_before_anything_newer(
    writer: td.Chain, chain: td.Chain, error: BaseException
) -> None:
    """Version 2 is version 0 again: whoever goes there from 0 writes nothing, and leaves what version 1 half wrote."""
    state, engine = chain.load(0), Engine()
    prepared = threading.Event()
    with td.Follower(chain, state, poll=POLL, on_prepared=lambda update: prepared.set()) as follower:
        assert prepared.wait(30)
        update, engine.fails = follower.ready, error
        with pytest.raises(type(error)):
            follower.apply(write=engine.write)
        assert same(state, 0) and not engine.serves(0)
        assert follower.ready is update and follower.wait(30) is update
        writer.publish(weights(0))
        follower._again.set()  # it looks at the chain anew
        for _ in range(200):
            assert follower.wait(0.001) is update
        assert follower.apply(write=engine.write) is update
        assert same(state, 1) and engine.serves(1)
        later = follower.wait(30)
        assert later is not None and (later.base, later.version) == (1, 2)
        assert follower.apply(write=engine.write) is later
        assert same(state, 0) and engine.serves(0) and state.version == 2
    assert engine.versions == [1, 1, 2]


def test_nothing_is_written_where_the_state_cannot_take_it(chain: td.Chain) -> None:
    arrays = {name: array.copy() for name, array in chain.load(0).items()}
    engine = Engine()
    with td.Follower(chain, arrays, poll=POLL) as follower:
        assert follower.wait(30)
        arrays["a"].reshape(-1)[:] += 1
        with pytest.raises(td.WrongBaseError):
            follower.apply(write=engine.write)
    assert engine.versions == [] and engine.serves(0)


def test_plain_updates_can_be_written_elsewhere(chain: td.Chain) -> None:
    state, engine = chain.load(0), Engine()
    update = chain.prepare(state)
    engine.fails = OSError("the device is gone")
    with pytest.raises(OSError, match="gone"):
        update.apply(write=engine.write)
    assert same(state, 0) and state.version == 0
    update.apply(write=engine.write)
    assert same(state, 1) and engine.serves(1)
    with pytest.raises(td.WrongBaseError):  # applied already: nothing is taken back
        update.apply(write=engine.write)
    assert same(state, 1) and engine.versions == [1, 1]


def test_tensors_that_come_and_go_come_back(writer: td.Chain, chain: td.Chain) -> None:
    """A version of another layout is taken back as well, in a mapping of the user's own."""
    writer.publish({"a": weights(1)["a"], "c": np.arange(4, dtype=np.int8)}, layout_change=True)
    arrays = {name: array.copy() for name, array in chain.load(1).items()}
    update = chain.prepare(arrays, 2)

    def fail(update: td.Update) -> None:
        assert update.dropped == ("b",) and set(arrays) == {"a", "c"}
        raise OSError("the device is gone")

    with pytest.raises(OSError, match="gone"):
        update.apply(write=fail)
    assert set(arrays) == {"a", "b"}
    update.apply(write=lambda update: None)
    assert set(arrays) == {"a", "c"} and np.array_equal(arrays["c"], np.arange(4))


def test_other_threads_wait_and_the_writing_one_does_not(writer: td.Chain, chain: td.Chain) -> None:
    state, engine = chain.load(0), Engine()
    writing, go_on = threading.Event(), threading.Event()
    inner: list[td.Update | None] = []
    applied: list[td.Update | None] = []

    def slow(update: td.Update) -> None:
        inner.append(follower.apply(write=engine.write))
        writing.set()
        assert go_on.wait(30)
        engine.write(update)

    with td.Follower(chain, state, poll=POLL) as follower:
        assert follower.wait(30)
        first = threading.Thread(target=lambda: applied.append(follower.apply(write=slow)))
        first.start()
        assert writing.wait(30)
        writer.publish(weights(2))
        assert follower.wait(30)  # prepared from version 1, which is not written yet
        second = threading.Thread(target=lambda: applied.append(follower.apply(write=engine.write)))
        second.start()
        second.join(0.05)
        assert second.is_alive() and engine.versions == []
        go_on.set()
        first.join(30)
        second.join(30)
    assert inner == [None] and engine.versions == [1, 2] and engine.serves(2) and same(state, 2)
    assert [each.version for each in applied if each] == [1, 2]


def test_an_update_that_is_taken_back_while_another_is_prepared(
    writer: td.Chain, chain: td.Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read then may be of either version: it is prepared again."""
    state = chain.load(0)
    prepare = chain._reader.prepare
    other = chain.prepare(state, 1)
    writer.publish(weights(2))

    def disturbed(state: td.State, version: int) -> td.Update:
        monkeypatch.setattr(chain._reader, "prepare", prepare)
        with suppress(OSError):
            other.apply(write=failing)
        raise td.WrongBaseError("words of two versions", object="the state", rule="TD-APP-001")

    def failing(update: td.Update) -> None:
        raise OSError("the device is gone")

    monkeypatch.setattr(chain._reader, "prepare", disturbed)
    update = next(chain.follow(state, poll=POLL, timeout=30))
    update.apply()
    assert same(state, 2)


# -- one by one ------------------------------------------------------------------------------------------------------


def test_one_version_after_another(writer: td.Chain, chain: td.Chain) -> None:
    """However many are there already, and however long an update waits."""
    for step in (2, 3):
        writer.publish(weights(step))
    state, engine = chain.load(0), Engine()
    with td.Follower(chain, state, poll=POLL, one_by_one=True) as follower:
        assert follower.wait(30)
        writer.publish(weights(4))
        while state.version != 4:
            engine.fails = OSError("the device is gone") if engine.versions == [1] else None
            follower.wait(30)
            with suppress(OSError):
                follower.apply(write=engine.write)
            assert same(state, state.version or 0)
    assert engine.versions == [1, 2, 2, 3, 4] and engine.serves(4)


def test_one_by_one_in_a_plain_loop(writer: td.Chain, chain: td.Chain) -> None:
    for step in (2, 3):
        writer.publish(weights(step))
    state, seen = chain.load(0), []
    for update in chain.follow(state, poll=POLL, one_by_one=True, until=3):
        update.apply()
        seen.append((update.base, update.version))
    assert seen == [(0, 1), (1, 2), (2, 3)]


def test_one_by_one_begins_with_the_newest_where_nothing_is_held(writer: td.Chain, chain: td.Chain) -> None:
    state = td.State.empty()
    following = chain.follow(state, poll=POLL, one_by_one=True)
    next(following).apply()
    assert same(state, 1)
    for step in (2, 3):
        writer.publish(weights(step))
    next(following).apply()
    assert same(state, 2)


def test_one_by_one_passes_over_what_a_collector_deletes(writer: td.Chain, chain: td.Chain) -> None:
    for step in (2, 3):
        writer.publish(weights(step))
    writer.shortcut(0, 3)
    writer.shortcut(None, 3)
    state = chain.load(0)
    following = chain.follow(state, poll=POLL, one_by_one=True)
    next(following).apply()
    writer.collect(1, grace=0)
    update = next(following)
    update.apply()
    assert update.version == 3 and same(state, 3)


def test_one_by_one_waits_no_more_once_it_is_closed(chain: td.Chain) -> None:
    follower = td.Follower(chain, chain.load(0), poll=POLL, one_by_one=True)
    assert follower.wait(30)
    follower.close()
    assert not [each for each in threading.enumerate() if each.name == "tensordelta-follower"]


@pytest.mark.parametrize("listed", [[], [2]], ids=["nothing is listed", "some are listed"])
def test_one_by_one_with_a_listing_that_lags_behind(
    writer: td.Chain, chain: td.Chain, store: Wrapped, monkeypatch: pytest.MonkeyPatch, listed: list[int]
) -> None:
    """latest.json names version 4 before a look lists it, and those between."""
    state = chain.load(1)
    for step in (2, 3, 4):
        writer.publish(weights(step))
    versions: Callable[..., list[int]] = chain._reader.documents.versions
    monkeypatch.setattr(
        chain._reader.documents,
        "versions",
        lambda **how: [each for each in versions(**how) if "after" not in how or each in listed],
    )
    seen = []
    for update in chain.follow(state, poll=POLL, one_by_one=True, until=4):
        update.apply()
        seen.append(update.version)
    assert seen == [2, 3, 4]
