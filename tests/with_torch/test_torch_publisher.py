"""Publishing a model from torch: every version is the weights at a submit, bit for bit; nothing is lost to failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from concurrent.futures import CancelledError  # noqa: E402

from torch_models import Model, arrays, served, train, version  # noqa: E402

import tensordelta as td  # noqa: E402
import tensordelta.torch as tdt  # noqa: E402
from tensordelta.stores import FolderStore  # noqa: E402
from tensordelta.torch import ledger as ledger_module  # noqa: E402

QUIET: dict[str, Any] = {"skip": ()}


class Store(FolderStore):
    """A folder that fails, or waits, before an object is written.

    Attributes:
        before: called with each name; `after` likewise, when a manifest was created.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self.before(name)
        super().put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self.before(name)
        created = super().create(name, data)
        self.after(name)
        return created

    def fail(self, prefix: str, times: int = 1) -> None:
        """Fail when the next objects under a prefix are written."""
        self.before = failing(prefix, times)


def out_of_order(name: str) -> td.StoreError:
    return td.StoreError("the folder", "write", name, "out of order")


def failing(prefix: str, times: int = 1) -> Callable[[str], None]:
    left = [times]

    def act(name: str) -> None:
        if name.startswith(prefix) and left[0]:
            left[0] -= 1
            raise out_of_order(name)

    return act


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "chain")


@pytest.fixture
def chain(store: Store) -> td.Chain:
    return td.open(store, create=True, threads=2)


@pytest.fixture(params=["numpy", "torch"])
def _finder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU are compared by numpy; those of devices by torch, which works on the CPU as well."""
    if request.param == "torch":
        monkeypatch.setattr(ledger_module, "_is_on_host", lambda words: False)


def check(chain: td.Chain, expected: dict[int, dict[str, bytes]]) -> None:
    """Check that versions are these weights, and that the chain is sound."""
    assert chain.versions() == sorted(expected)
    for number, weights in expected.items():
        assert version(chain, number) == weights
    assert td.open(chain.address).verify(deep=True).ok


@pytest.mark.usefixtures("_finder")
@pytest.mark.parametrize("snapshot", ["device", "host"])
@pytest.mark.parametrize("values", ["step", "replace"])
def test_every_version_is_the_weights_at_its_submit(chain: td.Chain, snapshot: Any, values: Any) -> None:
    model, expected = Model(), {}
    with tdt.Publisher(chain, model, snapshot=snapshot, values=values, **QUIET) as publisher:
        for step, share in enumerate([0.1, 0.01, 0.5, 0.0, 1.0, 0.2]):
            train(model, step, share)
            ticket = publisher.submit(step, annotations={"loss": 0.5})
            expected[step] = served(model)
            train(model, 100 + step)  # after submit the weights may be written to
            assert ticket.result().annotations == {"step": str(step), "loss": "0.5"}
    assert [chain.manifest(number).base is None for number in chain.versions()] == [True] + 5 * [False]
    check(chain, expected)


@pytest.mark.usefixtures("_finder")
@pytest.mark.parametrize("density", [0.0001, 0.01, 0.3, 1.0])
def test_packs_are_those_of_arrays_byte_for_byte(tmp_path: Path, density: float) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2300, 2000), torch.nn.Linear(300, 10))
    chains = [td.open(tmp_path / name, create=True, threads=2) for name in ("arrays", "tensors")]
    with tdt.Publisher(chains[1], model, **QUIET) as publisher:
        for step in range(2):
            publisher.submit(step).result()
            chains[0].publish(arrays(model), annotations={"step": str(step)})
            train(model, step, density)
    for number in (0, 1):
        one, other = (chain.manifest(number) for chain in chains)
        assert [pack.sha256 for pack in one.packs] == [pack.sha256 for pack in other.packs]
        assert (one.layout, one.fingerprint, one.annotations) == (other.layout, other.fingerprint, other.annotations)


def test_blocks_of_a_device_hold_parts(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_is_on_host", lambda words: False)
    monkeypatch.setattr(ledger_module, "_BLOCK", 1 << 22)
    model, expected = torch.nn.Linear(3000, 3000, bias=False), {}
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        for step in range(3):
            publisher.submit(step).result()
            expected[step] = served(model)
            train(model, step, 0.001)
    check(chain, expected)


# -- steps that fail, wait, and are superseded -------------------------------------------------------------------------


@pytest.mark.usefixtures("_finder")
def test_a_step_that_fails_loses_nothing(chain: td.Chain, store: Store) -> None:
    model = Model()
    expected: dict[int, dict[str, bytes]] = {}
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        for step, prefix in enumerate(["", "packs", "packs", "", "fingerprints", "manifests", ""]):
            if prefix:
                store.fail(prefix)
            train(model, step)
            ticket = publisher.submit(step)
            if prefix:
                with pytest.raises(td.StoreError):
                    ticket.result()
            else:
                expected[ticket.result().version] = served(model)
    check(chain, expected)
    assert [chain.manifest(number).annotations["step"] for number in (0, 1, 2)] == ["0", "3", "6"]


def test_the_first_step_may_fail(chain: td.Chain, store: Store) -> None:
    model = Model()
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        store.fail("manifests")
        with pytest.raises(td.StoreError):
            publisher.submit(0).result()
        train(model, 1)
        assert publisher.submit(1).result().base is None
        expected = served(model)
    check(chain, {0: expected})


def test_words_that_are_back_to_what_they_were_are_not_listed(chain: td.Chain, store: Store) -> None:
    model = torch.nn.Linear(50, 50)
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit().result()
        before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        train(model, 1, 0.5)
        store.fail("packs")
        assert publisher.submit().wait(60)
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                tensor.copy_(before[name])
            model.weight[3, 4] += 1
        with pytest.raises(td.StoreError):
            publisher.submit()  # the error of the step before surfaces once
        assert publisher.submit().result().changed == 1
        expected = served(model)
    assert version(chain, 1) == expected


@pytest.mark.usefixtures("_finder")
@pytest.mark.parametrize("queue", [1, 2])
def test_superseded_steps_go_into_the_next_version(chain: td.Chain, store: Store, queue: int) -> None:
    """While the first version is put, which reads the snapshot, five more steps are submitted."""
    model, weights = Model(), []
    reached, let = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name.startswith("packs"):
            reached.set()
            assert let.wait(60)

    store.before = wait
    with tdt.Publisher(chain, model, queue=queue, **QUIET) as publisher:
        tickets = []
        for step in range(6):
            train(model, step, 0.3)
            tickets.append(publisher.submit(step))
            weights.append(served(model))
            assert reached.wait(60)
        let.set()
        publisher.flush()
        published = [step for step, ticket in enumerate(tickets) if ticket.progress == "published"]
        assert published == [0, *range(6 - queue, 6)]
        for step in range(1, 6 - queue):
            assert tickets[step].superseded_by is tickets[step + queue]
            with pytest.raises(CancelledError):
                tickets[step].result()
    check(chain, {number: weights[step] for number, step in enumerate(published)})


def test_the_first_version_is_the_weights_at_its_submit_while_later_ones_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot moves on between the parts of the first version, of which each is put in a pack of its own."""
    from tensordelta.write import encoder, gathering

    monkeypatch.setattr(encoder, "_JOB", 64)
    monkeypatch.setattr(gathering, "_LISTED", 64)
    monkeypatch.setattr(gathering, "_LISTED_DENSE", 64)
    monkeypatch.setattr(encoder.Encoder.packs, "__defaults__", (100,))
    store = Store(tmp_path / "chain")
    chain = td.open(store, create=True, threads=1)
    model = Model(width=24)
    first = served(model)
    publisher = tdt.Publisher(chain, model, queue=1, **QUIET)
    seen: list[str] = []

    def submit_another(name: str) -> None:
        if name.startswith("packs") and len(seen) < 40:
            seen.append(name)
            train(model, len(seen), 0.05)
            publisher.submit(len(seen))

    store.before = submit_another
    with publisher:
        assert publisher.submit(0).result().version == 0
        publisher.flush()
        last = served(model)
    assert len(seen) > 10
    assert version(chain, 0) == first
    assert version(chain) == last
    assert chain.verify(deep=True).ok


def test_a_step_that_waits_can_be_cancelled_and_loses_nothing(chain: td.Chain, store: Store) -> None:
    model = Model()
    reached, let = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        reached.set()
        assert let.wait(60)

    with tdt.Publisher(chain, model, queue=3, **QUIET) as publisher:
        publisher.submit(0).result()
        store.before = wait
        publisher.submit(1)
        assert reached.wait(60)
        train(model, 2)
        cancelled = publisher.submit(2)
        assert cancelled.cancel()
        train(model, 3)
        publisher.submit(3)
        expected = served(model)
        let.set()
        store.before = lambda name: None
    assert chain.versions() == [0, 1, 2]
    assert version(chain, 2) == expected


def test_a_commit_that_failed_and_was_done_is_taken_for_done(chain: td.Chain, store: Store) -> None:
    """The store creates the manifest, and then fails: the step's error is told, and the chain goes on after it."""
    model, expected = Model(), {}
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        for step in range(4):
            train(model, step)
            if step in (0, 2):
                store.after = failing("manifests")
            ticket = publisher.submit(step)
            expected[step] = served(model)
            if step in (0, 2):
                with pytest.raises(td.StoreError):
                    ticket.result()
            else:
                assert ticket.result().version == step
    check(chain, expected)


def test_a_version_that_lost_its_packs_is_followed_by_a_full_one(chain: td.Chain, store: Store) -> None:
    """Nobody could read a delta to it: neither this process makes one, nor the next."""
    model = Model()

    def lose(number: int) -> None:
        store.after = lambda name: None
        for entry in td.open(store.root).manifest(number).packs:
            store.delete(str(entry.path))

    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit(0).result()
        store.after = lambda name: lose(1)
        train(model, 1)
        with pytest.raises(td.MissingError, match="cannot be read"):
            publisher.submit(1).result()
        train(model, 2)
        assert publisher.submit(2).result().base is None
        assert version(chain, 2) == served(model)
        train(model, 3)
        assert publisher.submit(3).result().base == 2
    lose(3)
    with tdt.Publisher(td.open(store.root), model, **QUIET) as publisher:
        train(model, 4)
        assert publisher.submit(4).result().base is None
    assert version(td.open(store.root), 4) == served(model)


def test_another_writer_is_seen(chain: td.Chain) -> None:
    model = Model()
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit(0).result()
        td.open(chain.address).publish(arrays(model))
        with pytest.raises(td.ConflictError, match="the newest version is 1"):
            publisher.submit(1).result()
    assert chain.versions() == [0, 1]


# -- layouts, and runs that go on --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_finder")
def test_a_run_goes_on_in_its_chain(chain: td.Chain) -> None:
    model, expected = Model(), {}
    for run in range(3):
        with tdt.Publisher(td.open(chain.address, threads=2), model, **QUIET) as publisher:
            for step in range(2):
                train(model, 10 * run + step)
                done = publisher.submit(step).result()
                expected[2 * run + step] = served(model)
                assert (done.base is None) == (done.version == 0)
                assert done.changed < done.words or done.base is None
    check(chain, expected)


def test_an_ordinary_publish_goes_on_after_it_and_it_after_that(chain: td.Chain) -> None:
    model, expected = Model(), {}
    for number in range(4):
        train(model, number)
        if number % 2:
            chain.publish(arrays(model))
        else:
            with tdt.Publisher(chain, model, **QUIET) as publisher:
                publisher.submit()
        expected[number] = served(model)
    assert [chain.manifest(number).base is None for number in range(4)] == [True, False, False, False]
    check(chain, expected)


def test_a_layout_that_changed_makes_a_full_version(chain: td.Chain, caplog: pytest.LogCaptureFixture) -> None:
    model, expected = Model(), {}
    with tdt.Publisher(chain, model, layout_change=True, **QUIET) as publisher:
        for step in range(6):
            if step == 2:
                model.extra = torch.nn.Linear(3, 4)
            if step == 4:
                model.extra = torch.nn.Linear(3, 5)
            train(model, step)
            done = publisher.submit(step).result()
            assert (done.base is None) == (step in (0, 2, 4))
            expected[step] = served(model)
    assert sum("another layout" in record.message for record in caplog.records) == 2
    del model.extra
    with tdt.Publisher(chain, model, layout_change=True, **QUIET) as publisher:
        assert publisher.submit(6).result().base is None
        expected[6] = served(model)
    check(chain, expected)


@pytest.mark.usefixtures("_finder")
def test_another_layout_is_refused_and_the_same_model_goes_on(chain: td.Chain) -> None:
    model, expected = Model(), {}
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit().result()
        expected[0] = served(model)
        model.extra = torch.nn.Linear(3, 4)
        train(model, 1)
        for _ in range(2):
            with pytest.raises(td.ConflictError, match=r"2 tensors added \(extra\.bias, extra\.weight\)"):
                publisher.submit()
        del model.extra
        publisher.submit().result()
        expected[1] = served(model)
    check(chain, expected)


def test_another_model_does_not_go_on_in_a_chain(chain: td.Chain) -> None:
    model, other = Model(), torch.nn.Linear(3, 4)
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit().result()
    refused = pytest.raises(td.ConflictError, match="other tensors than version 0")
    with tdt.Publisher(chain, other, **QUIET) as publisher, refused:
        publisher.submit()
    assert chain.versions() == [0]
    with tdt.Publisher(chain, other, layout_change=True, **QUIET) as publisher:
        done = publisher.submit().result()
    assert done.base is None and done.layout_change is not None and done.layout_change.added == ("bias", "weight")
    check(chain, {0: served(model), 1: served(other)})


def test_steps_of_the_old_layout_are_published_before_the_new_one(chain: td.Chain, store: Store) -> None:
    model = Model()
    reached, let = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        reached.set()
        assert let.wait(60)

    store.before = wait
    expected = {}
    with tdt.Publisher(chain, model, queue=4, layout_change=True, **QUIET) as publisher:
        for step in range(4):
            if step == 2:
                model.extra = torch.nn.Linear(3, 4)
            train(model, step)
            publisher.submit(step)
            expected[step] = served(model)
            assert reached.wait(60)
        let.set()
    check(chain, expected)


def test_weights_that_cannot_be_taken_lose_nothing(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    model, expected = Model(), {}
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit(0).result()
        expected[0] = served(model)
        train(model, 1)
        real = tdt.publisher.named_weights

        def broken(*given: Any) -> Iterable[Any]:
            for number, each in enumerate(real(*given)):
                if number == 3:
                    raise ValueError("broken")
                yield each

        monkeypatch.setattr(tdt.publisher, "named_weights", broken)
        with pytest.raises(ValueError, match="broken"):
            publisher.submit(1)
        monkeypatch.setattr(tdt.publisher, "named_weights", real)
        with torch.no_grad():
            model.embed.weight[0] -= 1  # some of them back to what they were
        assert publisher.submit(2).result().base == 0
        expected[1] = served(model)
    check(chain, expected)


def test_words_and_log_that_disagree_make_a_full_version(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    model, expected = Model(), {}
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit(0).result()
        expected[0] = served(model)
        train(model, 1)
        with monkeypatch.context() as broken:
            broken.setattr(ledger_module, "Found", lambda *given: (_ for _ in ()).throw(MemoryError()))
            with pytest.raises(MemoryError):
                publisher.submit(1)
        assert publisher.submit(2).result().base is None
        expected[1] = served(model)
        train(model, 3)
        assert publisher.submit(3).result().base == 1
        expected[2] = served(model)
    check(chain, expected)


# -- the block, signatures, options ------------------------------------------------------------------------------------


def test_what_was_submitted_is_published_when_the_block_raises(chain: td.Chain) -> None:
    model = Model()
    with pytest.raises(ZeroDivisionError), tdt.Publisher(chain, model, queue=9, **QUIET) as publisher:
        for step in range(3):
            train(model, step)
            publisher.submit(step)
        raise ZeroDivisionError
    assert chain.newest() == 2
    assert version(chain) == served(model)


def test_nothing_is_taken_when_it_is_closed(chain: td.Chain) -> None:
    publisher = tdt.Publisher(chain, Model())
    publisher.close()
    with pytest.raises(RuntimeError, match="closed"):
        publisher.submit()


def test_signed_versions(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    model = Model()
    chain = td.open(tmp_path / "chain", create=True, key="11" * 32)
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        for step in range(2):
            train(model, step)
            publisher.submit(step)
            publisher.flush()
    assert chain.verify(deep=True).ok and chain.versions() == [0, 1]
    with pytest.raises(ValueError, match="give a key"):
        tdt.Publisher(td.open(tmp_path / "chain", trusted_keys=[chain._signer.key.public.raw]), model)


def test_files_shortcuts_and_retention_are_those_of_any_publisher(chain: td.Chain) -> None:
    model = Model()
    with tdt.Publisher(chain, model, files={"config.json": b"{}"}, skip=(2,), keep=2, grace=0) as publisher:
        for step in range(5):
            train(model, step)
            publisher.submit(step).result()
    assert publisher.trouble is None
    assert [entry.name for entry in chain.manifest().files] == ["config.json"]
    assert chain.versions()[-2:] == [3, 4] and len(chain.plan(4, 2).edges) == 1
    assert version(chain) == served(model)


def test_options_that_make_no_sense_are_refused(chain: td.Chain) -> None:
    for options in ({"snapshot": "disk"}, {"values": "xor"}, {"queue": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            tdt.Publisher(chain, Model(), **options)


def test_a_model_without_memory_is_refused(chain: td.Chain) -> None:
    with torch.device("meta"):
        model = torch.nn.Linear(2, 2)
    with tdt.Publisher(chain, model) as publisher, pytest.raises(ValueError, match="no memory"):
        publisher.submit()


def test_the_host_reads_the_changed_words_alone(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a delta, the fingerprints of changed words are computed and no whole tensor is scanned."""
    from tensordelta.codecs import fingerprint

    model = torch.nn.Linear(200, 200)
    with tdt.Publisher(chain, model, **QUIET) as publisher:
        publisher.submit().result()
        read: list[int] = []
        real_values, real_scan = fingerprint.values, fingerprint.scan

        def values(name: str, at: Any, *rows: Any) -> list[int]:
            read.append(len(at))
            return real_values(name, at, *rows)

        def scan(name: str, words: Any, **more: Any) -> int:
            read.append(len(words))
            return real_scan(name, words, **more)

        monkeypatch.setattr(fingerprint, "values", values)
        monkeypatch.setattr(fingerprint, "scan", scan)
        with torch.no_grad():
            model.weight[5, :10] += 1
        changed = publisher.submit().result().changed
    assert sum(read) == changed == 10


@pytest.mark.parametrize("seed", range(6))
def test_random_runs(tmp_path: Path, seed: int) -> None:
    """Steps of every size against a store that fails now and then: each version is the weights at some submit."""
    rng = np.random.default_rng(seed)
    store = Store(tmp_path / "chain")
    chain = td.open(store, create=True, threads=2)

    def fail(name: str) -> None:
        if rng.random() < 0.1:
            raise out_of_order(name)

    model, by_step = Model(), {}
    with tdt.Publisher(chain, model, queue=int(rng.integers(1, 4)), **QUIET) as publisher:
        store.before = store.after = fail
        for step in range(30):
            train(model, int(rng.integers(1000)), float(rng.choice([0, 0.01, 0.3, 1])))
            try:
                publisher.submit(step)
            except td.StoreError:
                continue
            by_step[str(step)] = served(model)
            if rng.random() < 0.4:
                with suppress(td.StoreError):
                    publisher.flush()
        store.before = store.after = lambda name: None
        train(model, 99)
        while True:
            try:
                last = publisher.submit("last")
                by_step["last"] = served(model)
                last.result()
                break
            except td.StoreError:
                continue
    check(chain, {number: by_step[chain.manifest(number).annotations["step"]] for number in chain.versions()})
    assert version(chain) == served(model)


def test_comparing_counts_where_submit_does_it(chain: td.Chain) -> None:
    def slow(name: str, tensor: torch.Tensor) -> torch.dtype:
        time.sleep(0.02)
        return torch.bfloat16

    model = Model()
    with tdt.Publisher(chain, model, dtype=slow, **QUIET) as publisher:
        for step in range(2):
            timings = publisher.submit().result(60).timings
            assert timings is not None and timings.compare >= 0.02 * len(list(tdt.named_weights(model)))
            train(model, step)
