"""Manifests that were read are kept, as many as there is room for: a follower runs for weeks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensordelta as td
from tensordelta.format.manifest import Manifest, PackEntry
from tensordelta.read import manifests
from tensordelta.read.manifests import Manifests


def manifest(version: int, ranges: int) -> Manifest:
    entry = PackEntry(f"{version:064x}", 1, None, "chunks", [(2 * each, 2 * each + 1) for each in range(ranges)], 1, [])
    return Manifest("1.0-rc.1", "", version, "", "", None, [entry], [], "")


def test_the_manifests_used_last_are_kept() -> None:
    kept = Manifests(room=24)
    for version in (1, 2, 3):
        kept.keep(version, manifest(version, 6))
    assert kept.get(1) is not None
    kept.keep(4, manifest(4, 6))
    assert [version for version in range(5) if kept.get(version) is not None] == [1, 3, 4]
    kept.keep(5, manifest(5, 1000))
    assert [version for version in range(6) if kept.get(version) is not None] == [5]
    kept.keep(6, manifest(6, 6))
    kept.keep(6, manifest(6, 6))
    kept.forget(6)
    kept.forget(6)
    for version in (7, 8, 9):
        kept.keep(version, manifest(version, 6))
    assert [version for version in range(10) if kept.get(version) is not None] == [7, 8, 9]


def test_what_is_kept_no_more_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(4):
        chain.publish({"w": np.full(100, step, np.float32)})
    monkeypatch.setattr(manifests.Manifests.__init__, "__defaults__", (1,))
    reader = td.open(tmp_path / "chain", threads=1)
    for _ in range(2):
        assert [reader.manifest(version).version for version in range(4)] == [0, 1, 2, 3]
    state = reader.load(1)
    reader.prepare(state, 3).apply()
    assert np.array_equal(state["w"], np.full(100, 3, np.float32))
