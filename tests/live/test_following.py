"""Following: which versions are gone to, and what happens when a store, a chain or a route goes wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from following import POLL, Clock, other_chain
from wrapped import Wrapped, same, weights

import tensordelta as td
from tensordelta.format.names import LATEST, PACKS


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


def test_a_state_of_the_newest_version_waits(chain: td.Chain, clock: Clock) -> None:
    with pytest.raises(TimeoutError, match="after 1 "):
        next(chain.follow(chain.load(), poll=1, timeout=20))
    assert clock.now == pytest.approx(20)


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
    class Stop(threading.Event):
        """Set by another thread during the first wait, which is long."""

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            assert timeout > 60
            threading.Thread(target=self.set).start()
            return super().wait(timeout)

    assert list(chain.follow(chain.load(), poll=1000, stop=Stop())) == []


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


def test_the_time_that_a_caller_takes_does_not_count(writer: td.Chain, chain: td.Chain, clock: Clock) -> None:
    following = chain.follow(chain.load(0), poll=1, timeout=10)
    next(following).apply()
    clock.now += 1000
    with pytest.raises(TimeoutError):
        next(following)
    assert sum(clock.waits) == pytest.approx(10)


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


@pytest.mark.parametrize("timeout", [0, 30])
def test_a_missing_object_is_reported_when_the_time_is_up(chain: td.Chain, store: Wrapped, timeout: float) -> None:
    pack = chain.manifest(1).packs[0].path
    assert pack is not None
    store.delete(pack)
    with pytest.raises(td.MissingError) as caught:
        next(chain.follow(chain.load(0), poll=POLL, timeout=timeout))
    assert caught.value.object == pack


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


def test_waiting_costs_what_looking_costs(chain: td.Chain, store: Wrapped, clock: Clock) -> None:
    chain.versions()
    store.counts.clear()
    with pytest.raises(TimeoutError, match="did not appear within 300 seconds"):
        chain.wait(2, timeout=300, poll=1)
    looks = len(clock.waits) + 1
    assert 300 / 4 <= looks <= 300 / (0.9 * 4) + 10  # most waits are four times `poll`, less a tenth at most
    listings = -(-looks // 10)
    assert store.counts["open"] == looks + listings  # latest.json, and chain.json where it lists
    assert store.counts["names"] == listings + 1  # and one for the message


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
