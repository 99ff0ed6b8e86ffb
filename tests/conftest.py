"""What all tests share: a cache folder of their own, so that no test sees another's snapshot or proofs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensordelta.read.proven import Proven


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the writer's snapshot in a folder of the test's own."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TENSORDELTA_CACHE", str(cache))
    return cache


@pytest.fixture(autouse=True)
def _nothing_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which packs this process has proven."""
    monkeypatch.setattr("tensordelta.read.packs.PROVEN", Proven())
