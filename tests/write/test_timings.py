"""Where the time of a publish went. A slow part is one that sleeps, so that only lower bounds are asserted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draft_ranks import rows
from folders import save
from two_tensors import Meddling, single

import tensordelta as td
from tensordelta.format.names import MANIFESTS, PACKS

SLOW = 0.05
OLD = {"a": np.arange(60, dtype=np.float32).reshape(12, 5)}
NEW = {"a": OLD["a"] + 1}


@pytest.fixture
def store(tmp_path: Path) -> Meddling:
    return Meddling(tmp_path / "chain")


def slow(store: Meddling, prefix: str) -> None:
    """Have each write under a prefix take a while."""
    store.before = lambda name: time.sleep(SLOW) if name.startswith(prefix) else None


def parts(published: td.Published) -> td.Timings:
    """Where the time went; no moment counts twice."""
    assert published.timings is not None and published.seconds is not None
    assert sum(vars(published.timings).values()) <= published.seconds
    return published.timings


@pytest.mark.parametrize(("prefix", "phase"), [(PACKS, "put"), (MANIFESTS, "commit")])
@pytest.mark.parametrize("way", ["publish", "pieces", "submit", "plain", "shortcut"])
def test_a_slow_store(store: Meddling, tmp_path: Path, way: str, prefix: str, phase: str) -> None:
    if (way, phase) == ("shortcut", "commit"):
        prefix = "shortcuts/"
    chain = td.open(store, create=True, threads=1)
    chain.publish(OLD)
    slow(store, prefix)
    if way == "publish":
        found = chain.publish(NEW)
    elif way == "pieces":
        found = chain.publish_pieces([piece()], chain.tip())[0]
    elif way == "submit":
        with chain.publisher(skip=()) as publisher:
            found = publisher.submit(NEW).result(60)
    elif way == "plain":
        found = chain.publish(save(tmp_path / "model", single(NEW)), plain=True)
    else:
        chain.publish(NEW)
        found = chain.shortcut(None, 1)
    timings = parts(found)
    assert getattr(timings, phase) >= SLOW
    assert timings.compare > 0 and (timings.encode > 0) is (way != "plain")
    assert (timings.snapshot > 0) is (way in ("publish", "submit", "plain"))


def piece() -> td.Piece:
    return td.Piece(0, 0, 1, np.array([0]), np.zeros(1, np.uint32), np.ones(1, np.uint32))


def test_pieces_that_take_a_while_to_find(store: Meddling) -> None:
    chain = td.open(store, create=True, threads=1)
    chain.publish(OLD)

    def found() -> Iterator[td.Piece]:
        time.sleep(SLOW)
        yield piece()

    assert parts(chain.publish_pieces(found(), chain.tip())[0]).compare >= SLOW


def test_ranks_of_a_draft(store: Meddling) -> None:
    """They work at the same time, so that the slowest counts; one that is run again takes another time for the same."""
    chain = td.open(store, create=True, threads=1)
    draft = chain.draft(NEW)
    joined = chain.join(draft.to_json())
    descriptors: list[dict[str, Any]] = [joined.encode(rows(NEW, 0, 2))]
    slow(store, PACKS)
    descriptors += [joined.encode(rows(NEW, 1, 2)) for _ in range(2)]
    store.before = lambda _: None
    timings = parts(draft.commit(descriptors))
    assert timings.put >= SLOW and timings.encode > 0 and timings.compare > 0 and timings.commit > 0
    assert chain.load().equals(td.State.from_arrays(NEW))


def test_a_descriptor_without_times(store: Meddling) -> None:
    """As another version of this package may write it."""
    chain = td.open(store, create=True, threads=1)
    draft = chain.draft(NEW)
    descriptor = draft.encode(NEW)
    del descriptor["microseconds"]
    assert parts(draft.commit([descriptor])).encode == 0


def test_the_event_and_the_log_have_them(store: Meddling, caplog: pytest.LogCaptureFixture) -> None:
    events: list[td.Event] = []
    chain = td.open(store, create=True, threads=1, on_event=events.append)
    with caplog.at_level(logging.INFO, "tensordelta"):
        published = chain.publish(OLD)
    (event,) = [event for event in events if event.kind == "published"]
    assert event.timings is not None and event.timings.put == parts(published).put
    assert f"(compare {event.timings.compare:.3f}, encode" in caplog.text


def test_what_was_there_already_has_none(store: Meddling) -> None:
    chain = td.open(store, create=True, threads=1)
    chain.publish(OLD)
    assert chain.publish(OLD, version=0).timings is None
    assert chain.log()[0].timings is None
