"""What packs of a remote store may take on disk (SPEC.md section 9.2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from memory import MemoryStore

import tensordelta as td


def test_downloads_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched from a remote store where the packs of the route do not fit."""
    store = MemoryStore(remote=True)
    td.open(store, create=True).publish({"w": np.random.default_rng(1).standard_normal(10_000)})
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "another machine's"))
    store.opened.clear()
    with pytest.raises(td.LimitError, match="packs of the route") as fault:
        td.open(store, disk=10_000).load()
    assert not any(name.startswith("packs/") for name in store.opened)
    assert fault.value.rule == "TD-LIM-007"
    assert td.open(store, disk=100_000).load().version == 0
