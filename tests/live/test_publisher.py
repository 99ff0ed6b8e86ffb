"""Publishing in the background: what a trainer sees of it, and what readers find."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrapped import WORDS, Gate, Wrapped, same, weights

import tensordelta as td
from tensordelta.format.names import (
    CHAIN,
    FINGERPRINTS,
    LATEST,
    MANIFESTS,
    PACKS,
    SHORTCUTS,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
    shortcut_name,
)
from tensordelta.write.snapshot import snapshot_folder

QUIET: dict[str, Any] = {"skip": ()}  # no shortcuts by number


@pytest.fixture
def store(tmp_path: Path) -> Wrapped:
    return Wrapped(tmp_path / "chain")


@pytest.fixture
def chain(store: Wrapped) -> td.Chain:
    return td.open(store, create=True, threads=2)


def shortcuts(chain: td.Chain) -> list[tuple[int, int | None]]:
    names = chain._reader.store.names(SHORTCUTS)
    found = [parse_shortcut_name(name) for name in names]
    return sorted(((each.version, each.base) for each in found if each), key=str)


def manifest(version: int) -> str:
    return manifest_name(version)


def check_sound(chain: td.Chain) -> None:
    found = td.open(chain.address).verify(deep=True)
    assert found.ok, found.faults


# -- submitting --------------------------------------------------------------------------------------------------------


def test_a_state_may_be_written_to_once_it_is_submitted(store: Wrapped, chain: td.Chain) -> None:
    gate = Gate(store, "put", PACKS)
    model = weights(0)
    with chain.publisher(**QUIET) as publisher:
        ticket = publisher.submit(model, annotations={"step": 0})
        model["a"][:] = 7
        model["b"][:] = 7
        assert ticket.progress in ("waiting", "publishing")
        gate.reached()
        assert not ticket.done
        gate.open()
        published = ticket.result(60)
    assert (published.version, published.base, published.annotations) == (0, None, {"step": "0"})
    assert ticket.progress == "published"
    assert same(chain.load(), 0)


def test_all_kinds_of_arrays_are_copied(chain: td.Chain) -> None:
    model = {
        "empty": np.zeros((3, 0), np.float32),
        "scalar": np.array(2.5, np.float64),
        "strided": np.arange(40, dtype=np.int32).reshape(8, 5).T[::2],
        "large": np.arange(9 << 20, dtype=np.uint32),  # more than one thread copies at once
    }
    with chain.publisher(**QUIET) as publisher:
        publisher.submit(td.State.from_arrays(model))
    loaded = chain.load()
    assert all(np.array_equal(loaded[name], array) for name, array in model.items())


def test_a_state_of_another_layout_follows(chain: td.Chain) -> None:
    with chain.publisher(layout_change=True, **QUIET) as publisher:
        publisher.submit(weights(0)).result(60)
        publisher.submit(weights(1) | {"c": np.ones(5, np.int8)}).result(60)
        publisher.submit(weights(2)).result(60)
    assert set(chain.load(1)) == {"a", "b", "c"}
    assert same(chain.load(2), 2)
    assert chain.manifest(2).base is not None


def test_a_bad_state_is_refused_and_changes_nothing(chain: td.Chain) -> None:
    with chain.publisher(**QUIET) as publisher:
        with pytest.raises(ValueError, match="dtype"):
            publisher.submit({"a": np.array(["text"])})
        publisher.submit(weights(0))
    assert chain.versions() == [0]


def test_a_slow_store_gets_the_newest_step(store: Wrapped, chain: td.Chain) -> None:
    chain.publish(weights(0))
    with chain.publisher(**QUIET) as publisher:
        gate = Gate(store, "create", manifest(1))
        tickets = [publisher.submit(weights(1))]
        gate.reached()
        tickets += [publisher.submit(weights(step), annotations={"step": step}) for step in range(2, 6)]
        gate.open()
        assert tickets[-1].result(60).version == 2
    assert [each.progress for each in tickets] == ["published", *["superseded"] * 3, "published"]
    assert [each.superseded_by for each in tickets] == [None, *tickets[2:], None]
    with pytest.raises(CancelledError, match="superseded"):
        tickets[1].result()
    assert chain.versions() == [0, 1, 2]
    newest = chain.manifest(2)
    assert newest.base is not None
    assert newest.base.version == 1
    assert newest.annotations == {"step": "5"}
    assert same(chain.load(1), 1)
    assert same(chain.load(2), 5)


def test_a_longer_queue_leaves_out_the_oldest(store: Wrapped, chain: td.Chain) -> None:
    gate = Gate(store, "create", manifest(0))
    with chain.publisher(queue=2, **QUIET) as publisher:
        tickets = [publisher.submit(weights(0))]
        gate.reached()
        tickets += [publisher.submit(weights(step)) for step in (1, 2, 3)]
        gate.open()
    assert [each.progress for each in tickets] == ["published", "superseded", "published", "published"]
    assert [same(chain.load(version), step) for version, step in enumerate((0, 2, 3))] == [True] * 3


def pairs(step: int, until: int = 99) -> Iterator[tuple[str, np.ndarray]]:
    """A step's weights, one at a time; after so many the iterator fails."""
    for number, (name, array) in enumerate(weights(step).items()):
        if number == until:
            raise OSError("the device is gone")
        yield name, array


def test_pairs_are_taken_one_at_a_time(store: Wrapped, chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is held once more, whatever is made for it."""
    monkeypatch.setattr("tensordelta.live.publisher._FLYING", 1 << 18)
    size, count = 1 << 20, 32

    def made() -> Iterator[tuple[str, np.ndarray]]:
        for number in reversed(range(count)):
            yield f"layers.{number}", np.full(size, number, np.uint8)

    with chain.publisher(**QUIET) as publisher:
        gate = Gate(store, "open", CHAIN)  # publishing begins with that, and takes no memory before
        tracemalloc.start()
        ticket = publisher.submit(made())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gate.open()
        assert ticket.result(60).nbytes == size * count <= peak < size * (count + 8)
    assert all(np.all(array == int(name.split(".")[1])) for name, array in chain.load().items())


def test_an_iterator_that_fails(store: Wrapped, chain: td.Chain) -> None:
    """Whatever it has written into the memory of a step before is of no version; the next step is whole."""
    with chain.publisher(**QUIET) as publisher:
        publisher.submit(pairs(0)).result(60)
        with pytest.raises(OSError, match="device is gone"):
            publisher.submit(pairs(5, until=1))
        publisher.flush(60)
        assert publisher.submit(pairs(1)).result(60).base == 0
    assert chain.versions() == [0, 1] and same(chain.load(0), 0) and same(chain.load(1), 1)
    check_sound(chain)


def test_an_iterator_that_fails_while_a_step_waits(store: Wrapped, chain: td.Chain) -> None:
    """The step under way is whole; the one whose memory was to be used again has failed, and says why."""
    gate = Gate(store, "put", PACKS)
    with chain.publisher(**QUIET) as publisher:
        first = publisher.submit(pairs(0))
        gate.reached()
        second = publisher.submit(pairs(1))
        with pytest.raises(OSError, match="device is gone"):
            publisher.submit(pairs(5, until=1))
        assert second.progress == "failed" and second.superseded_by is None
        with pytest.raises(RuntimeError, match="the copy of the step after it failed: the device is gone"):
            second.result()
        third = publisher.submit(pairs(2))
        gate.open()
        assert (first.result(60).version, third.result(60).version) == (0, 1)
    assert same(chain.load(0), 0) and same(chain.load(1), 2)
    check_sound(chain)


@pytest.mark.parametrize("wrong", [("a", np.ones(3)), ("c", np.array(["text"]))], ids=["twice", "no dtype"])
def test_pairs_that_make_no_state(chain: td.Chain, wrong: tuple[str, np.ndarray]) -> None:
    with chain.publisher(**QUIET) as publisher:
        with pytest.raises(ValueError, match=r"tensor '[ac]'"):
            publisher.submit([*pairs(0), wrong])
        publisher.submit(pairs(0))
    assert same(chain.load(), 0)


def test_pairs_of_another_layout_follow(chain: td.Chain) -> None:
    """Memory of tensors that have gone, or have changed, is in no later version."""
    with chain.publisher(**QUIET, layout_change=True) as publisher:
        publisher.submit([*pairs(0), ("c", np.ones(5, np.int8))]).result(60)
        publisher.submit([("a", np.ones(7, np.float16)), ("d", np.zeros(0, np.int8))]).result(60)
        publisher.submit(pairs(2)).result(60)
    assert set(chain.load(0)) == {"a", "b", "c"}
    assert chain.load(1)["a"].shape == (7,) and set(chain.load(1)) == {"a", "d"}
    assert same(chain.load(2), 2)


def test_memory_is_used_again(store: Wrapped, chain: td.Chain) -> None:
    model = {"a": np.ones(4 << 20, np.uint8)}
    gate = Gate(store, "create", manifest(0))
    with chain.publisher(**QUIET) as publisher:
        publisher.submit(model)
        gate.reached()
        tracemalloc.start()
        for _ in range(6):
            publisher.submit(model)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 4 << 20 <= peak < 6 << 20  # one state beside the one that is being published
        gate.open()
        publisher.flush(60)
        again = Gate(store, "open", CHAIN)  # publishing begins with that, and takes no memory before
        tracemalloc.start()
        publisher.submit(model)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 20
        again.open()


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_a_step_that_waits_can_be_cancelled(store: Wrapped, chain: td.Chain) -> None:
    gate = Gate(store, "put", PACKS)
    with chain.publisher(**QUIET) as publisher:
        first = publisher.submit(weights(0))
        gate.reached()
        second = publisher.submit(weights(1))
        assert second.cancel()
        assert second.cancel()
        assert second.progress == "cancelled"
        gate.open()
        with pytest.raises(CancelledError, match="cancelled"):
            second.result(60)
        third = publisher.submit(weights(2))
    assert first.result().version == 0
    assert third.result().version == 1
    assert same(chain.load(1), 2)


def test_a_step_under_way_can_be_cancelled_until_it_is_committed(store: Wrapped, chain: td.Chain) -> None:
    chain.publish(weights(0))
    with chain.publisher(**QUIET) as publisher:
        gate = Gate(store, "put", PACKS)
        ticket = publisher.submit(weights(5))
        gate.reached()
        assert ticket.cancel()
        assert ticket.wait(0)
        gate.open()
        publisher.flush(60)
        assert chain.versions() == [0]
        assert json.loads(store.read(LATEST))["version"] == 0
        # What was cancelled was not published: the next one is compared with what was.
        following = publisher.submit(weights(1)).result(60)
    assert (following.version, following.base) == (1, 0)
    assert same(chain.load(1), 1)
    check_sound(chain)


def test_a_step_that_is_committed_cannot_be_cancelled(store: Wrapped, chain: td.Chain) -> None:
    gate = Gate(store, "create", manifest(0))
    with chain.publisher(**QUIET) as publisher:
        ticket = publisher.submit(weights(0))
        gate.reached()
        assert ticket.progress == "committing"
        assert not ticket.cancel()
        assert not ticket.wait(0.01)
        with pytest.raises(TimeoutError):
            ticket.result(0.01)
        with pytest.raises(TimeoutError):
            publisher.flush(0.01)
        gate.open()
        assert ticket.result(60).version == 0
        assert not ticket.cancel()


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["submit", "flush", "close", "result"])
def test_an_error_surfaces_once(store: Wrapped, chain: td.Chain, where: str) -> None:
    chain.publish(weights(0))
    store.fail("put", PACKS, times=1)
    publisher = chain.publisher(**QUIET)
    ticket = publisher.submit(weights(1))
    assert ticket.wait(60)
    calls = {
        "submit": lambda: publisher.submit(weights(2)),
        "flush": publisher.flush,
        "close": publisher.close,
        "result": ticket.result,
    }
    with pytest.raises(td.StoreError, match="unreachable"):
        calls[where]()
    assert ticket.progress == "failed"
    publisher.flush()
    if where != "close":
        assert publisher.submit(weights(3)).result(60).base == 0
        assert same(chain.load(1), 3)
    publisher.close()
    check_sound(chain)


def test_a_step_that_waits_is_tried_after_one_that_failed(store: Wrapped, chain: td.Chain) -> None:
    chain.publish(weights(0))
    with pytest.raises(td.StoreError), chain.publisher(**QUIET) as publisher:
        gate = Gate(store, "put", PACKS)
        publisher.submit(weights(1))
        gate.reached()
        second = publisher.submit(weights(2))
        store.fail("put", FINGERPRINTS, times=1)
        gate.open()
        assert second.result(60).base == 0
    assert same(chain.load(1), 2)


def test_a_commit_whose_answer_was_lost_is_gone_on_from(store: Wrapped, chain: td.Chain) -> None:
    chain.publish(weights(0))
    publisher = chain.publisher(**QUIET)

    def lose(operation: str, name: str) -> None:
        if name == manifest(1):
            raise store.failure(operation, name)

    store.after = lose
    ticket = publisher.submit(weights(1))
    with pytest.raises(td.StoreError):
        ticket.result(60)
    assert publisher.submit(weights(2)).result(60).base == 1
    publisher.close()
    assert [same(chain.load(version), version) for version in range(3)] == [True] * 3
    check_sound(chain)


def test_a_second_writer_is_a_conflict_and_the_chain_stays_whole(store: Wrapped, chain: td.Chain) -> None:
    chain.publish(weights(0))
    other = td.open(store.root)
    gate = Gate(store, "create", manifest(1))
    publisher = chain.publisher(**QUIET)
    ticket = publisher.submit(weights(1))
    gate.reached()
    folder = snapshot_folder(chain.id)
    # The other writer is on another machine, with a snapshot of its own.
    before = os.environ["TENSORDELTA_CACHE"]
    os.environ["TENSORDELTA_CACHE"] = f"{before}-other"
    try:
        other.publish(weights(7))
    finally:
        os.environ["TENSORDELTA_CACHE"] = before
    gate.open()
    with pytest.raises(td.ConflictError):
        ticket.result(60)
    assert json.loads((folder / ".tensordelta" / "state.json").read_text())["version"] == 0
    assert publisher.submit(weights(2)).result(60).base == 1
    publisher.close()
    assert same(chain.load(1), 7)
    assert same(chain.load(2), 2)
    check_sound(chain)


def test_the_snapshot_is_never_ahead(store: Wrapped, chain: td.Chain) -> None:
    record = snapshot_folder(chain.id) / ".tensordelta" / "state.json"
    seen: list[tuple[int, int]] = []
    failing = iter([False, True, False, True, True, False, False])

    def before(operation: str, name: str) -> None:
        if operation == "create" and name.startswith(MANIFESTS):
            held = json.loads(record.read_text())["version"] if record.exists() else -1
            version = parse_manifest_name(name)
            assert version is not None
            seen.append((held, version))
            if next(failing):
                raise store.failure(operation, name)

    store.before = before
    published = []
    publisher = chain.publisher(**QUIET)
    for step in range(7):
        ticket = publisher.submit(weights(step))
        try:
            published.append((ticket.result(60).version, step))
        except td.StoreError:
            continue
    publisher.close()
    assert all(held == version - 1 for held, version in seen)
    assert published == [(0, 0), (1, 2), (2, 5), (3, 6)]
    assert [same(chain.load(version), step) for version, step in published] == [True] * 4


# -- closing -----------------------------------------------------------------------------------------------------------


def test_closing_drains(store: Wrapped, chain: td.Chain) -> None:
    gate = Gate(store, "put", PACKS)
    publisher = chain.publisher(skip=(2,))
    tickets = [publisher.submit(weights(0))]
    gate.reached()
    tickets.append(publisher.submit(weights(1)))
    threading.Timer(0.1, gate.open).start()
    publisher.close()
    assert [each.progress for each in tickets] == ["published", "published"]
    publisher.close()
    with pytest.raises(RuntimeError, match="closed"):
        publisher.submit(weights(2))
    assert not [each for each in threading.enumerate() if each.name.startswith("tensordelta-up")]


def test_a_trainer_that_fails_loses_no_step(chain: td.Chain) -> None:
    with pytest.raises(ZeroDivisionError), chain.publisher(skip=(2,)) as publisher:
        for step in range(3):
            publisher.submit(weights(step)).wait(60)
        raise ZeroDivisionError
    assert chain.versions() == [0, 1, 2]


@pytest.mark.parametrize(
    "wrong", [{"queue": 0}, {"keep": 0}, {"full_every": 0}, {"skip": (1,)}, {"grace": -1.0}, {"order": "any"}]
)
def test_numbers_that_make_no_sense(chain: td.Chain, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        chain.publisher(**wrong)


# -- shortcuts and what stays ------------------------------------------------------------------------------------------


def publish_all(chain: td.Chain, steps: range, **options: Any) -> None:
    with chain.publisher(**options) as publisher:
        for step in steps:
            publisher.submit(weights(step)).result(60)
        publisher.flush()
    assert publisher.trouble is None


def test_skip_deltas_and_full_versions_by_number(chain: td.Chain) -> None:
    publish_all(chain, range(9), skip=(2, 4), full_every=3)
    wanted: list[tuple[int, int | None]] = [(2, 0), (4, 0), (4, 2), (6, 4), (8, 4), (8, 6), (3, None), (6, None)]
    assert shortcuts(chain) == sorted(wanted, key=str)
    assert [edge.base for edge in chain.plan(8, 0).edges] == [0, 4]
    check_sound(chain)


def test_a_condition_that_is_asked_twice_loses_no_shortcut(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking whether something is due changes nothing."""

    class Twice(threading.Condition):
        def wait_for(self, predicate: Callable[[], object], timeout: float | None = None) -> Any:
            return super().wait_for(predicate, timeout) and predicate()

    monkeypatch.setattr(threading, "Condition", Twice)
    publish_all(chain, range(9), skip=(2, 4))
    assert shortcuts(chain) == sorted([(2, 0), (4, 0), (4, 2), (6, 4), (8, 4), (8, 6)], key=str)


def test_without_policies_there_are_no_shortcuts(chain: td.Chain) -> None:
    publish_all(chain, range(9), skip=())
    assert shortcuts(chain) == []


def test_a_full_shortcut_is_made_where_it_pays(chain: td.Chain) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 50_000, np.uint16)
    for _ in range(12):
        at = rng.choice(len(words), len(words) // 5, replace=False)
        words[at] = rng.integers(0, 1 << 16, len(at), np.uint16)
        with chain.publisher(**QUIET) as publisher:  # which makes what is due before it ends, however slow the machine
            publisher.submit({"a": words})
    full = chain.manifest(0).size
    made = [version for version, base in shortcuts(chain) if base is None]
    assert made
    assert len(made) <= 3  # four deltas or so cost as much as a full version
    delta = max(chain.manifest(version).size for version in range(1, 12))
    for version in range(12):
        assert chain.plan(version).size <= 2 * full + delta
    check_sound(chain)


def test_a_version_that_waits_goes_before_a_shortcut(store: Wrapped, chain: td.Chain) -> None:
    publish_all(chain, range(2), skip=())
    with chain.publisher(skip=(2,)) as publisher:
        gate = Gate(store, "create", manifest(2))
        publisher.submit(weights(2))
        gate.reached()
        last = publisher.submit(weights(3))
        following = Gate(store, "put", PACKS)
        gate.open()
        following.reached()
        assert not last.wait(0.5)  # in which the shortcut would long have been made
        assert shortcuts(chain) == []
        following.open()
    made = [name for name in store.done if name.startswith((MANIFESTS, SHORTCUTS))]
    assert made[-3:] == [manifest(2), manifest(3), shortcut_name(2, 0)]


def test_shortcuts_are_made_although_publishing_never_rests(store: Wrapped, chain: td.Chain) -> None:
    """Each commit waits until the next step has been submitted, so that there is always something to publish."""
    submitted = threading.Semaphore(0)

    def before(operation: str, name: str) -> None:
        if operation == "create" and name.startswith(MANIFESTS):
            assert submitted.acquire(timeout=600)

    store.before = before
    with chain.publisher(skip=(2,), queue=2) as publisher:
        ticket = publisher.submit(weights(0))
        for step in range(1, 40):
            following = publisher.submit(weights(step % 10))
            submitted.release()
            assert ticket.result(60)
            ticket = following
            if shortcuts(chain):
                break
        assert shortcuts(chain)
        submitted.release()


def test_a_shortcut_that_fails_harms_no_version(store: Wrapped, chain: td.Chain) -> None:
    store.fail("create", SHORTCUTS)
    with chain.publisher(skip=(2,)) as publisher:
        for step in range(4):
            publisher.submit(weights(step)).result(60)
    assert isinstance(publisher.trouble, td.StoreError)
    assert chain.versions() == [0, 1, 2, 3]
    assert shortcuts(chain) == []


def test_what_a_publisher_that_died_left_out_is_made(chain: td.Chain) -> None:
    publish_all(chain, range(6), skip=())
    publish_all(chain, range(6, 7), skip=(4,), full_every=5)
    assert shortcuts(chain) == [(4, 0), (5, None)]


def test_old_versions_go(chain: td.Chain) -> None:
    publish_all(chain, range(9), skip=(2,), full_every=2, keep=2, grace=0.0)
    assert chain.versions() == [6, 7, 8]  # 7 leans on 6, which has a full shortcut
    assert same(td.open(chain.address).load(8), 8)
    check_sound(chain)


def test_a_grace_period_keeps_everything(chain: td.Chain) -> None:
    publish_all(chain, range(5), skip=(), keep=1)
    assert chain.versions() == [0, 1, 2, 3, 4]


# -- dying -------------------------------------------------------------------------------------------------------------

_DRIVER = """
import os, signal, sys
from pathlib import Path
from wrapped import Wrapped, weights
import tensordelta as td
root, when, operation, part, skip = sys.argv[1:]
store = Wrapped(Path(root))
left = int(skip)
def die(asked, name):
    global left
    if asked == operation and part in name:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
setattr(store, when, die)
with td.open(store, threads=1).publisher(skip=(2,)) as publisher:
    for step in range(1, 7):
        publisher.submit(weights(step)).wait()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "operation", "part", "skip"),
    [
        ("before", "put", "packs/", 2),
        ("before", "create", "manifests/", 3),
        ("after", "create", "manifests/", 3),
        ("before", "put", "latest", 1),
        ("after", "create", "shortcuts/", 0),
        ("before", "create", "shortcuts/", 1),
    ],
)
def test_a_process_that_was_killed_is_gone_on_from(
    tmp_path: Path, when: str, operation: str, part: str, skip: int
) -> None:
    root = tmp_path / "chain"
    td.open(root, create=True).publish(weights(0))
    paths = [str(Path(__file__).parents[1]), str(Path(td.__file__).parents[1])]
    killed = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(root), when, operation, part, str(skip)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        timeout=600,
    )
    assert killed.returncode == -signal.SIGKILL
    chain = td.open(root)
    before = chain.versions()
    assert before == list(range(len(before)))
    with chain.publisher(skip=(2,)) as publisher:
        for step in range(len(before), len(before) + 3):
            assert publisher.submit(weights(step)).result(60).version == step
    assert [same(chain.load(version), version) for version in chain.versions()] == [True] * (len(before) + 3)
    due = [(version, version - 2) for version in chain.versions() if version and version % 2 == 0]
    assert set(due[-2:]) <= set(shortcuts(chain))
    check_sound(chain)


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path) -> None:
    program = Path(__file__).parents[2] / "reference" / "benchmarks" / "background.py"
    target = tmp_path / "figures.json"
    sizes = ["--size", "1MiB", "--catch-up-size", "256KiB", "--rounds", "1", "--threads", "1"]
    subprocess.run(
        [sys.executable, str(program), *sizes, "--folder", str(tmp_path), "--json", str(target)],
        env=os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])},
        check=True,
        capture_output=True,
        timeout=300,
    )
    facts = json.loads(target.read_text())
    assert facts["submit"]["peak"] > 0
    assert all(seconds > 0 for each in facts["submit"]["times"] for seconds in each["seconds"])
    edges = {(row["behind"], row["chain"]): row["edges"] for row in facts["catch_up"]}
    assert edges[64, "plain"] == 64
    assert edges[64, "skip"] == 1
    assert edges[63, "skip"] == 7 + 7
    assert len(facts["catch_up"]) == 2 * 2 * 5


def test_the_model_of_these_tests_changes_at_each_step() -> None:
    assert len({weights(step)["a"].tobytes() for step in range(10)}) == 10
    assert weights(1)["a"].size == WORDS
