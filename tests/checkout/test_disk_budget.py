"""What a chain may make a folder take on disk (SPEC.md section 9.2)."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from folders import PRIVATE

import tensordelta as td

CHAIN = "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def tiny(root: Path, words: int) -> Path:
    """A chain of less than 1 kB, without a pack, whose only version has so many zero bytes."""
    layout = json.dumps(
        {"tensordelta": "1.0-rc.1", "tensors": [{"name": "w", "dtype": "U8", "shape": [words]}]}
    ).encode()
    digest = hashlib.sha256(layout).hexdigest()
    time = "2026-11-20T12:00:00Z"
    manifest = {"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 0, "layout": digest, "fingerprint": "0" * 16}
    manifest |= {"base": None, "packs": [], "features": [], "created": time}
    for name, data in {
        "chain.json": json.dumps({"tensordelta": "1.0-rc.1", "chain": CHAIN, "created": time}).encode(),
        f"layouts/{digest}.json": layout,
        "manifests/000000000000.json": json.dumps(manifest).encode(),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_tiny_chain_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a pull takes no more than the file system has free, and says so before it writes a byte."""
    chain = td.open(tiny(tmp_path / "chain", 1 << 36))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, (1 << 40) - (1 << 34), 1 << 34))
    with pytest.raises(td.LimitError, match="disk=") as fault:
        chain.pull(tmp_path / "folder")
    assert fault.value.rule == "TD-LIM-007"
    assert sum(path.stat().st_blocks for path in (tmp_path / "folder").rglob("*")) * 512 < 1 << 16


def test_a_budget_that_is_set(tmp_path: Path) -> None:
    root = tiny(tmp_path / "chain", 1 << 20)
    with pytest.raises(td.LimitError, match="1,000,000") as fault:
        td.open(root, disk=1_000_000).pull(tmp_path / "folder")
    assert fault.value.rule == "TD-LIM-007"
    assert td.open(root, disk=1 << 20).pull(tmp_path / "folder").version == 0
    assert (tmp_path / "folder" / "model.safetensors").stat().st_size > 1 << 20


def test_an_undo_record_counts(tmp_path: Path) -> None:
    """A patch in place needs room for the old words; without it the folder stays as it was."""
    chain = td.open(tmp_path / "chain", create=True)
    words = np.arange(10_000, dtype=np.uint16)
    chain.publish({"w": words})
    folder = tmp_path / "folder"
    chain.pull(folder)
    chain.publish({"w": words + np.uint16(1)})
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(td.LimitError, match="undo record"):
        td.open(chain.address, disk=1_000).pull(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not (folder / PRIVATE / "undo").exists()
    td.open(chain.address, disk=100_000).pull(folder)
    assert (folder / "model.safetensors").read_bytes() != before
