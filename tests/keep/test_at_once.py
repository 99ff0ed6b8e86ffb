"""Retention with everybody at work at once (SPEC.md section 13).

Writers, readers, collectors and programs that pin share a store; each operation of each is a turn, taken in any order,
and each process may stop for any time or die at any turn. Listings may lag. What must hold:

- every version that stands there is read, from nothing;
- a reader that began less than four fifths of the grace period ago arrives;
- a version that was pinned in time stays, and so does the newest.

The rules are tried as well: where one is broken, this must find a fault.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
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
from turns import Process, SharedStore

import tensordelta as td
from tensordelta.format.chunk_codec import Piece
from tensordelta.format.layout import Layout, Tensor
from tensordelta.format.names import manifest_name, parse_manifest_name
from tensordelta.keep import collect as collecting
from tensordelta.keep.policy import Policy
from tensordelta.read.documents import Documents
from tensordelta.stores import Store
from tensordelta.write import clock as writing
from tensordelta.write import commit as committing

GRACE = 60
WORDS = 4
LAYOUT = Layout((Tensor("w", "U32", (WORDS,)),))


def words_of(number: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The words that the writer of this number publishes."""
    return np.arange(1, WORDS + 1, dtype=np.uint32) * np.uint32(1000 + 7 * number)


class AtOnce(RuleBasedStateMachine):
    """A chain of which everybody makes use at once."""

    @initialize(lag=st.sampled_from([0.0, 0.0, 3.0]))
    def begin(self, lag: float) -> None:
        self.store = SharedStore(lag)
        self.numbers = itertools.count()
        self.processes: list[Process] = []
        self.pinned: set[int] = set()
        _CLOCK.now = lambda: self.store.now
        self.finish(Process(self.store, lambda seat: self.open(seat, create=True, grace=GRACE).id))
        for full in (True, False, False):
            self.finish(Process(self.store, self.writer(full)))
            self.store.now += GRACE
        self.store.now += 10 * GRACE

    def open(self, seat: Store, **options: Any) -> td.Chain:
        return td.open(seat, threads=1, memory=1 << 26, **options)

    # -- what processes do ----------------------------------------------------------------------------------------

    def writer(self, full: bool) -> Callable[[Process], object]:
        number = next(self.numbers)

        def work(seat: Process) -> object:
            chain = self.open(seat)
            tip = None if full else chain.tip()
            new, old = words_of(number), None
            if tip is not None:
                old = words_of(int(tip.manifest.annotations["number"]))
            piece = Piece(0, 0, WORDS, None, old, new)
            annotations = {"number": str(number)}
            layout = LAYOUT if tip is None else None
            files = {"config.json": b"{}"}  # of which each writer shares the one before
            return chain.publish_pieces([piece], tip, layout, annotations=annotations, files=files)[0].version

        return work

    def reader(self, seat: Process) -> object:
        chain = self.open(seat)
        state = chain.load()
        return state.version, state["w"].copy()

    def collector(self, keep: int) -> Callable[[Process], object]:
        def work(seat: Process) -> object:
            reader = self.open(seat)._fresh()
            return collecting.collect(reader, Policy(keep), dry_run=False, clock=lambda: self.store.now)

        return work

    # -- rules ----------------------------------------------------------------------------------------------------

    def finish(self, process: Process) -> None:
        while not process.done:
            process.step()
        if process.error is not None:
            raise process.error

    def alive(self, kind: str) -> int:
        return sum(getattr(each, "kind", "") == kind for each in self.processes)

    def start(self, kind: str, work: Callable[[Process], object], **more: Any) -> None:
        process = Process(self.store, work)
        vars(process).update(kind=kind, **more)
        self.processes.append(process)

    @precondition(lambda self: self.alive("writer") < 2)
    @rule(full=st.booleans())
    def write(self, full: bool) -> None:
        self.start("writer", self.writer(full))

    @precondition(lambda self: self.alive("reader") < 2)
    @rule()
    def read(self) -> None:
        self.start("reader", self.reader)

    @precondition(lambda self: self.alive("collector") < 2)
    @rule(keep=st.integers(1, 2))
    def collect(self, keep: int) -> None:
        self.start("collector", self.collector(keep))

    @precondition(lambda self: self.alive("pin") < 1)
    @rule(data=st.data(), name=st.sampled_from("ab"))
    def pin(self, data: st.DataObject, name: str) -> None:
        version = data.draw(st.sampled_from(self.versions()))
        if not self.pinned:
            self.start("pin", lambda seat: self.open(seat).pin(version, name).version)

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), turns=st.integers(1, 12))
    def go_on(self, data: st.DataObject, turns: int) -> None:
        process = data.draw(st.sampled_from(self.processes))
        for _ in range(turns):
            process.step()
        self.look_at(process)

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.processes))
        for _ in range(300):  # a collector may wait for a listing
            process.step()
        self.look_at(process)

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.processes))
        process.kill()
        self.processes.remove(process)

    @rule(seconds=st.sampled_from([1, 4, 7, 20, 40, 61]))
    def wait(self, seconds: int) -> None:
        self.store.now += seconds

    def look_at(self, process: Process) -> None:
        """What came of a process that has ended."""
        if not process.done:
            return
        self.processes.remove(process)
        error, kind = process.error, process.kind  # type: ignore[attr-defined]
        if kind == "reader":
            if self.store.now - process.began < 0.8 * GRACE:
                if error is not None:
                    raise AssertionError("a reader did not arrive") from error
                version, words = process.result  # type: ignore[misc]
                self.check_words(version, words)
        elif kind == "pin":
            if error is None:
                self.pinned.add(process.result)  # type: ignore[arg-type]
            else:
                assert isinstance(error, td.MissingError), repr(error)
        elif kind == "writer":
            # Another writer was faster, or this one was stopped for too long.
            assert error is None or isinstance(error, td.ConflictError | td.MissingError | TimeoutError), repr(error)
        else:
            assert error is None or isinstance(error, TimeoutError | td.MissingError), repr(error)

    # -- what holds -----------------------------------------------------------------------------------------------

    def versions(self) -> list[int]:
        found = map(parse_manifest_name, self.store.objects)
        return sorted(version for version in found if version is not None)

    def check_words(self, version: int, words: Any) -> None:
        data = self.store.objects.get(manifest_name(version)) or self.store.objects[f"retired/{manifest_name(version)}"]
        number = int(data.split(b'"number":"')[1].split(b'"')[0])
        assert words.tobytes() == words_of(number).tobytes()

    @invariant()
    def pinned_versions_and_the_newest_stay(self) -> None:
        if hasattr(self, "store"):
            versions = self.versions()
            assert self.pinned <= set(versions)
            ever = [version for *_, name, _ in self.store.log if (version := parse_manifest_name(name)) is not None]
            assert versions[-1] == max(ever)

    @invariant()
    def every_version_is_read_from_nothing(self) -> None:
        if not hasattr(self, "store") or self.store.log[-1:] == getattr(self, "looked", None):
            return
        self.looked = self.store.log[-1:]
        store = SharedStore()
        store.objects = dict(self.store.objects)
        store.log = [(0.0, None, name, data) for name, data in store.objects.items()]

        def load(seat: Process) -> object:
            chain = self.open(seat)
            return [(version, chain.load(version)["w"].copy()) for version in self.versions()]

        process = Process(store, load)
        self.finish(process)
        for version, words in process.result:  # type: ignore[attr-defined]
            self.check_words(version, words)

    def teardown(self) -> None:
        for process in getattr(self, "processes", ()):
            process.kill()


_CLOCK = SimpleNamespace(now=lambda: 0.0)


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers and collectors measure time by the store's clock."""
    monkeypatch.setattr(writing, "time", SimpleNamespace(perf_counter=lambda: _CLOCK.now()))
    monkeypatch.setattr(collecting.time, "sleep", lambda seconds: None)


def run(examples: int, **how: Any) -> None:
    run_state_machine_as_test(
        AtOnce,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **how,
        ),
    )


@pytest.mark.slow
def test_everybody_at_once() -> None:
    run(1500 if DEEP else 60)


def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting._Collector, "_retire", lambda self, name: False)


def no_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that are named by nothing are deleted, however young."""
    monkeypatch.setattr(collecting.Listing, "is_old", lambda self, name, grace: not name.startswith("retired/"))


def no_salts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer puts what was there under the same name again."""
    monkeypatch.setattr(committing, "new_salt", lambda: "0" * 16)


def no_second_look_at_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting._Collector, "_pins_now", lambda self, listing: listing.pins.held(listing.now))


def no_reading_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Documents, "_was_seen", lambda self, name: False)


Breaking = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("broken", [None, no_copies, no_reading_of_copies])
def test_all_is_dropped_while_a_reader_works(monkeypatch: pytest.MonkeyPatch, broken: Breaking | None) -> None:
    """Whatever turn it has come to, it arrives; but not without copies, nor without reading them."""
    if broken:
        broken(monkeypatch)
    errors: list[BaseException | None] = []
    for turns in itertools.count():
        world = AtOnce()
        world.begin(lag=0.0)
        reader = Process(world.store, world.reader)
        for _ in range(turns):
            reader.step()
        if reader.done:
            break
        world.finish(Process(world.store, world.writer(True)))
        world.finish(Process(world.store, world.collector(1)))
        while not reader.done:
            reader.step()
        errors.append(reader.error)
    assert len(errors) > 5
    assert any(errors) == bool(broken)


@pytest.mark.parametrize(("broken", "seconds"), [(None, 0), (None, 2 * GRACE), (no_ages, 0)])
def test_a_collector_works_while_a_writer_does(
    monkeypatch: pytest.MonkeyPatch, broken: Breaking | None, seconds: int
) -> None:
    """Whatever turn the writer is stopped at, for however long, it leaves no version that cannot be read unsaid."""
    if broken:
        broken(monkeypatch)
    faults = 0
    for turns in itertools.count():
        world = AtOnce()
        world.begin(lag=0.0)
        writer = Process(world.store, world.writer(False))
        for _ in range(turns):
            writer.step()
        if writer.done:
            break
        world.store.now += seconds
        world.finish(Process(world.store, world.collector(1)))
        while not writer.done:
            writer.step()
        assert writer.error is None or isinstance(writer.error, td.MissingError | TimeoutError), repr(writer.error)
        try:
            world.every_version_is_read_from_nothing()
        except td.TensorDeltaError:
            faults += bool(broken) or not isinstance(writer.error, td.MissingError)
    assert turns > 5
    assert bool(faults) == bool(broken)


@pytest.mark.parametrize("looks_again", [True, False])
def test_a_version_is_pinned_while_all_is_dropped(monkeypatch: pytest.MonkeyPatch, looks_again: bool) -> None:
    """Whatever turn the collector has come to, what a pin holds stays; but not without a second look at the pins."""
    if not looks_again:
        no_second_look_at_pins(monkeypatch)
    lost: list[bool] = []
    for turns in itertools.count():
        world = AtOnce()
        world.begin(lag=0.0)
        world.finish(Process(world.store, world.writer(True)))
        collector = Process(world.store, world.collector(1))
        for _ in range(turns):
            collector.step()
        if collector.done:
            break
        pin = Process(world.store, lambda seat, world=world: world.open(seat).pin(0, "a").version)
        for process in (pin, collector):
            while not process.done:
                process.step()
        lost.append(pin.error is None and 0 not in world.versions())
    assert len(lost) > 5
    assert any(lost) != looks_again
