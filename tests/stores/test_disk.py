"""What packs of a remote store may take on disk (SPEC.md section 9.2)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from memory import MemoryStore

import tensordelta as td

WORDS = np.random.default_rng(1).standard_normal(10_000)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A chain that another machine wrote; a remote store."""
    store = MemoryStore(remote=True)
    td.open(store, create=True).publish({"w": WORDS})
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "another machine's"))
    store.opened.clear()
    return store


def test_downloads_count(store: MemoryStore) -> None:
    """Nothing is fetched from a remote store where the packs of the route do not fit."""
    with pytest.raises(td.LimitError, match="packs of the route") as fault:
        td.open(store, disk=10_000).load()
    assert not any(name.startswith("packs/") for name in store.opened)
    assert fault.value.rule == "TD-LIM-007"
    assert td.open(store, disk=100_000).load().version == 0


def test_a_full_cache_is_no_budget(store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user sets none: versions are read and published without the cache."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, (1 << 40) - 10_000, 10_000))
    chain = td.open(store)
    assert chain.load()["w"].tobytes() == WORDS.tobytes()
    assert not any(path.stat().st_size > 10_000 for path in (tmp_path / "another machine's").rglob("*"))
    assert chain.publish({"w": WORDS + 1}).base == 0
    assert chain.publish({"w": WORDS + 2}).base == 1
    assert td.open(store).load()["w"].tobytes() == (WORDS + 2).tobytes()


def test_a_writer_keeps_to_a_budget_that_is_set(store: MemoryStore) -> None:
    """The snapshot counts."""
    with pytest.raises(td.LimitError, match="packs of the route") as fault:
        td.open(store, disk=10_000).publish({"w": WORDS + 1})
    assert fault.value.rule == "TD-LIM-007"
    assert td.open(store).versions() == [0]
