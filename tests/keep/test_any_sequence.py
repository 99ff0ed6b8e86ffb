"""Any sequence of publishing, shortening, collecting and pinning leaves a chain whose versions can be rebuilt."""

from __future__ import annotations

import numpy as np
import pytest
from clocked_store import Crash
from collecting import DAY, Arrays, Run, equal, open_chain
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from strategies import DEEP

import tensordelta as td
from tensordelta.keep.collect import Collected

_MOST = 12
#: A fifteenth of the grace period, in seconds of the store's clock.
_TICK = DAY / 15


class Chains(RuleBasedStateMachine):
    """A chain that is written, shortened, collected and pinned, with processes that die; and what its versions are."""

    run: Run

    @initialize(versions=st.integers(1, 6), full=st.sets(st.integers(0, 5), max_size=2))
    def begin(self, versions: int, full: set[int]) -> None:
        self.run = Run(versions)
        for version in full & set(range(versions)):
            self.run.chain.shortcut(None, version)
        self.pinned: dict[str, int] = {}
        self.wanted = set(self.run.states)
        self.died = False  # a collector or writer died

    def attempt(self, work: str, crash: int | None, after: bool, **how: object) -> object:
        """Do something, in a process that may die at some operation; then do it again in another."""
        store = self.run.store
        if crash is not None:
            store.crash_at, store.after = crash, after
            try:
                done = getattr(self, work)(**how)
            except Crash:
                self.died = True
                self.run.chain = open_chain(store)
                store.crash_at = None
                self.check_from_nothing()
                done = getattr(self, work)(**how)
            store.crash_at = None
            return done
        return getattr(self, work)(**how)

    crashes = st.one_of(st.none(), st.integers(0, 12))

    def publish_once(self, version: int, full: bool, arrays: Arrays) -> None:
        if version not in self.run.chain.versions():
            self.run.states[version] = arrays
            done = self.run.chain.publish(arrays, full=full, version=version, layout_change=True)
            assert done.version == version

    @precondition(lambda self: len(self.run.chain.versions()) < _MOST)
    @rule(count=st.integers(1, 3))
    def publish_some(self, count: int) -> None:
        for _ in range(count):
            self.publish(full=False, refit=False, gap=0, crash=None, after=False)

    @precondition(lambda self: len(self.run.chain.versions()) < _MOST)
    @rule(full=st.booleans(), refit=st.booleans(), gap=st.integers(0, 2), crash=crashes, after=st.booleans())
    def publish(self, full: bool, refit: bool, gap: int, crash: int | None, after: bool) -> None:
        run = self.run
        run.store.now += 5 * _TICK
        arrays = {name: array.copy() for name, array in run.arrays.items()}
        arrays["w"][run.rng.choice(3000, 20, replace=False)] += np.uint16(1)
        if refit:
            arrays.pop("extra", None) if "extra" in arrays else arrays.update(extra=np.ones(7, np.uint8))
        run.arrays = arrays
        version = max(run.states) + 1 + gap
        self.attempt("publish_once", crash, after, version=version, full=full, arrays=arrays)
        self.wanted.add(version)

    def shortcut_once(self, base: int | None, version: int, order: str) -> None:
        self.run.chain.shortcut(base, version, order=order)  # type: ignore[arg-type]

    @rule(data=st.data(), order=st.sampled_from(["natural", "exponent"]), crash=crashes, after=st.booleans())
    def shortcut(self, data: st.DataObject, order: str, crash: int | None, after: bool) -> None:
        versions = self.run.chain.versions()
        version = data.draw(st.sampled_from(versions))
        base = data.draw(st.sampled_from([None, None, *(each for each in versions if each < version)]))
        self.attempt("shortcut_once", crash, after, base=base, version=version, order=order)

    def collect_once(self, keep_last: int, keep_every: int | None, grace: float) -> Collected:
        store = self.run.store
        times = {name: time for name, (_, time) in store.objects.items()}
        done = self.run.collect(keep_last, keep_every=keep_every, grace=grace)
        for name in store.deleted():
            dropped = name.startswith(("manifests/", "shortcuts/", "pins/"))
            assert dropped or store.now - times[name] >= grace, name
        return done

    @rule(
        keep_last=st.integers(1, 4),
        keep_every=st.sampled_from([None, 2, 3]),
        grace=st.sampled_from([0.0, 0.0, 0.0, DAY, 40 * _TICK]),
        crash=st.one_of(st.none(), st.integers(2, 8), st.integers(0, 25)),
        after=st.booleans(),
        advised=st.booleans(),
    )
    def collect(
        self, keep_last: int, keep_every: int | None, grace: float, crash: int | None, after: bool, advised: bool
    ) -> None:
        before = self.run.chain.versions()
        if advised:
            for version in self.run.collect(keep_last, keep_every=keep_every, grace=1e9, dry_run=True).leaning:
                self.run.chain.shortcut(None, version)
            self.run.chain.shortcut(None, before[-keep_last:][0])
        done = self.attempt("collect_once", crash, after, keep_last=keep_last, keep_every=keep_every, grace=grace)
        assert isinstance(done, Collected) and not done.lost
        versions = self.run.chain.versions()
        assert versions == sorted({*done.kept, *done.supporting})
        kept = set(before[-keep_last:]) | {version for version in before if keep_every and version % keep_every == 0}
        assert kept <= set(versions)
        self.wanted &= set(versions)
        verified = open_chain(self.run.store).verify(deep=True)
        assert all(self.is_left_by_the_dead(fault, grace) for fault in verified.faults), repr(verified)

    def is_left_by_the_dead(self, fault: Exception, grace: float) -> bool:
        """True for a shortcut to a version that a collector dropped when it died, which stays for the grace period."""
        if not isinstance(fault, td.MissingError) or fault.rule != "TD-MAN-024" or not self.died:
            return False
        return self.run.store.now - self.run.store.objects[fault.object][1] < grace

    @rule(data=st.data(), name=st.sampled_from("ab"), expires=st.sampled_from([None, int(25 * _TICK)]))
    def pin(self, data: st.DataObject, name: str, expires: int | None) -> None:
        version = data.draw(st.sampled_from(self.run.chain.versions()))
        self.run.chain.pin(version, name, expires)
        self.pinned.pop(name, None)
        if expires is None:
            self.pinned[name] = version

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pinned)))
        self.run.chain.unpin(name)
        del self.pinned[name]

    @rule(ticks=st.sampled_from([1, 10, 30]))
    def wait(self, ticks: int) -> None:
        self.run.store.now += ticks * _TICK

    @rule(data=st.data(), read=st.integers(0, 15), keep_last=st.integers(1, 3))
    def read_in_the_middle(self, data: st.DataObject, read: int, keep_last: int) -> None:
        """A reader is on its way to the newest version when a collector comes; it goes on and arrives."""
        run = self.run
        held = data.draw(st.sampled_from([None, *run.states]))
        target = max(run.chain.versions())
        state = td.State.empty() if held is None else run.held(held)
        reader = open_chain(run.store)
        left = [read]

        def collect(_: str) -> None:
            left[0] -= 1
            if left[0] == -1:
                run.collect(keep_last)

        run.store.before_open = collect
        try:
            update = reader.prepare(state, target)
            update.apply()
        finally:
            run.store.before_open = None
        assert equal(state, run.states[target])
        self.wanted &= set(run.chain.versions())

    def check_from_nothing(self) -> None:
        self.run.check()

    @invariant()
    def every_listed_version_loads_from_nothing(self) -> None:
        if hasattr(self, "run"):
            self.run.check()

    @rule(data=st.data())
    def every_listed_version_loads_from_any_held_one(self, data: st.DataObject) -> None:
        self.run.check(held=[data.draw(st.sampled_from(sorted(self.run.states)))])

    @invariant()
    def pinned_versions_stay(self) -> None:
        if hasattr(self, "run"):
            assert set(self.pinned.values()) <= set(self.run.chain.versions())
            assert set(self.run.chain.versions()) <= set(self.run.states)

    @invariant()
    def what_was_not_collected_is_there(self) -> None:
        if hasattr(self, "run"):
            assert self.wanted <= set(self.run.chain.versions())


@pytest.mark.slow
def test_any_sequence() -> None:
    run_state_machine_as_test(
        Chains,
        settings=settings(
            max_examples=1000 if DEEP else 60,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
