"""A follower next to an engine: it prepares in a thread, and applies in the engine's pause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from following import POLL
from wrapped import Gate, Wrapped, same, weights

import tensordelta as td
from tensordelta.format.names import PACKS


def in_another_thread(work: Callable[[], object]) -> None:
    """Do something in another thread; fails where it has to wait for this one."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for what this thread holds"


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
    follower = td.Follower(chain, chain.load(), poll=1000)
    in_another_thread(follower.close)
    follower.close()
    assert not [each for each in threading.enumerate() if each.name == "tensordelta-follower"]


# -- callbacks and threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callback", ["prepared", "on_prepared", "apply_when", "applied"])
def test_callbacks_are_called_without_a_lock(writer: td.Chain, callback: str) -> None:
    called: list[str] = []

    def call(name: str) -> bool:
        if name == callback and begun.wait(20):
            in_another_thread(lambda: (follower.ready, follower.wait(0), follower.wait(0)))
            called.append(name)
        return True

    begun = threading.Event()
    chain = td.open(writer.address, on_event=lambda event: call(event.kind))
    with td.Follower(
        chain,
        writer.load(0),
        poll=POLL,
        on_prepared=lambda _: call("on_prepared"),
        apply_when=lambda _: call("apply_when"),
    ) as follower:
        begun.set()
        assert follower.wait(60)
        assert follower.apply()
    assert called


@pytest.mark.parametrize("callback", ["prepared", "on_prepared", "apply_when", "applied"])
def test_a_callback_may_close_the_follower(writer: td.Chain, callback: str) -> None:
    begun = threading.Event()

    def call(name: str) -> bool:
        if name == callback and begun.wait(20):
            follower.close()
        return True

    chain = td.open(writer.address, on_event=lambda event: call(event.kind))
    follower = td.Follower(
        chain,
        writer.load(0),
        poll=POLL,
        on_prepared=lambda _: call("on_prepared"),
        apply_when=lambda _: call("apply_when"),
    )
    begun.set()
    follower.wait(60)
    in_another_thread(follower.apply)
    follower.close()
    assert not [each for each in threading.enumerate() if each.name == "tensordelta-follower"]


def test_an_update_that_comes_while_another_is_applied_is_prepared_again(
    writer: td.Chain, chain: td.Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = chain.load(0)
    prepared = threading.Event()
    with td.Follower(
        chain, state, poll=POLL, on_prepared=lambda update: update.version == 2 and prepared.set()
    ) as follower:
        first = follower.wait(60)
        assert first is not None
        apply = first.apply

        def apply_late(**how: object) -> None:
            writer.publish(weights(2))
            assert prepared.wait(20), "the follower waits for a lock that the caller of `apply` holds"
            apply()

        monkeypatch.setattr(first, "apply", apply_late)
        assert follower.apply() is first
        second = follower.wait(60)
        assert second is not None
        assert (second.base, second.version) == (1, 2)
        assert follower.apply() is second
    assert same(state, 2)


def test_threads_share_a_follower(writer: td.Chain, chain: td.Chain) -> None:
    """Each update is applied by one of them, and none gets an error."""
    state, last = chain.load(0), 6
    applied: list[int] = []

    def engine() -> None:
        while state.version != last:
            follower.wait(0.01)
            update = follower.apply()
            if update is not None:
                applied.append(update.version)

    with td.Follower(chain, state, poll=POLL) as follower, ThreadPoolExecutor(4) as pool:
        engines = [pool.submit(engine) for _ in range(4)]
        for step in range(2, last + 1):
            writer.publish(weights(step))
        for each in engines:
            each.result(60)
    assert applied == sorted(set(applied))
    assert applied[-1] == last
    assert same(state, last)
