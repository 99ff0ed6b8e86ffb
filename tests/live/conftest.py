"""A chain of two versions as its writer has it, and as a follower has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from following import Clock
from wrapped import Wrapped, weights

import tensordelta as td


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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of whoever follows: it passes in waits alone, so that a loaded machine changes nothing."""
    clock = Clock()
    monkeypatch.setattr("tensordelta.live.watch.monotonic", lambda: clock.now)
    monkeypatch.setattr("tensordelta.live.watch._wait", clock.wait)
    return clock
