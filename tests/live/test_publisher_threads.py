"""Publishing in the background, shared by threads, and with listeners that call back."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
from wrapped import Gate, Wrapped, same, weights

import tensordelta as td


def test_threads_share_a_publisher(tmp_path: Path) -> None:
    """Steps are published in the order in which they were taken; each ticket is that of its own step."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    with chain.publisher(skip=(), queue=16) as publisher:

        def submit(step: int) -> td.Published:
            return publisher.submit(weights(step), annotations={"step": step}).result(60)

        with ThreadPoolExecutor(4) as pool:
            published = list(pool.map(submit, range(8)))
            for each in [pool.submit(publisher.flush, 60), pool.submit(publisher.close), pool.submit(publisher.close)]:
                each.result(60)
    assert sorted(each.version for each in published) == list(range(8)) == chain.versions()
    for step, each in enumerate(published):
        assert each.annotations == {"step": str(step)}
        assert same(chain.load(each.version), step)


@pytest.mark.parametrize("outcome", ["published", "failed", "cancelled"])
def test_threads_share_a_ticket(tmp_path: Path, outcome: str) -> None:
    store = Wrapped(tmp_path / "chain")
    chain = td.open(store, create=True, threads=1)
    with chain.publisher(skip=()) as publisher, ThreadPoolExecutor(8) as pool:
        gate = Gate(store, "put", "packs/")
        ticket = publisher.submit(weights(0))
        gate.reached()
        waiting = [pool.submit(ticket.result, 60) for _ in range(4)] + [pool.submit(ticket.wait, 60) for _ in range(3)]
        if outcome == "cancelled":
            assert list(pool.map(lambda _: ticket.cancel(), range(2))) == [True, True]
        elif outcome == "failed":
            store.fail("put", "packs/")
            store.fail("create", "manifests/")
        gate.open()
        errors = [each.exception(60) for each in waiting]
        wanted = {"published": type(None), "failed": td.StoreError, "cancelled": CancelledError}[outcome]
        assert [type(error) for error in errors] == [wanted] * 4 + [type(None)] * 3
        assert ticket.progress == outcome
    assert chain.versions() == ([0] if outcome == "published" else [])


@pytest.mark.parametrize("skip", [(), (2,)])
def test_a_listener_may_call_back(tmp_path: Path, skip: tuple[int, ...]) -> None:
    """It is called in a thread of the publisher, for a version and for a shortcut, and without the publisher's lock."""
    progress: list[str] = []
    closed = threading.Event()

    def listen(event: td.Event) -> None:
        if event.kind != "published" or event.version != 2 or closed.is_set():
            return

        def look() -> None:
            progress.append(ticket.progress)
            assert publisher.trouble is None
            ticket.cancel()

        other = threading.Thread(target=look, daemon=True)
        other.start()
        other.join(20)
        assert progress
        publisher.close(upkeep=not skip)
        closed.set()

    chain = td.open(tmp_path / "chain", create=True, threads=1, on_event=listen)
    publisher = chain.publisher(skip=skip)
    for step in range(3):
        ticket = publisher.submit(weights(step))
        assert ticket.wait(60)
    assert closed.wait(60)
    publisher.close()
    assert ticket.result().version == 2
    assert progress == ["committing"]
    assert chain.versions() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="closed"):
        publisher.submit(weights(3))
