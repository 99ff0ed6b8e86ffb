"""What writers leave in a folder that are killed amid an object: a collector removes it after the grace period."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import tensordelta as td


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    chain = td.open(tmp_path / "chain", create=True, grace=3600, threads=1)
    chain.publish({"w": np.arange(100, dtype=np.uint16)})
    return chain


def leave(path: Path, *, age: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"half of a pack")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_old_ones_go_young_ones_stay(chain: td.Chain) -> None:
    root = Path(chain.address)
    names = [f".chain.json.{'0' * 8}", f"packs/.{'a' * 64}.safetensors.12345678", "pins/.clock-00ff.9abcdef0"]
    old = [leave(root / name, age=7200) for name in names]
    young = leave(root / "packs" / f".{'b' * 64}.safetensors.12345678", age=60)

    would = chain.collect(1, grace=3600, dry_run=True)
    assert sorted(would.objects) == sorted(names) and all(path.exists() for path in old)
    done = chain.collect(1, grace=3600)
    assert sorted(done.objects) == sorted(names)
    assert done.size == would.size == 3 * len(b"half of a pack")
    assert young.exists() and not any(path.exists() for path in old)
    assert chain.collect(1, grace=0).objects == [f"packs/{young.name}"]


def test_other_hidden_files_are_no_concern_of_a_collector(chain: td.Chain) -> None:
    root = Path(chain.address)
    names = [
        ".DS_Store",
        "packs/.nfs000000000001",
        "packs/..12345678",
        "packs/.a.safetensors.1234567",
        ".git/x.12345678",
    ]
    others = [leave(root / name, age=7200) for name in names]
    outside = leave(root.parent / "outside", age=7200)
    (root / "packs" / ".link.safetensors.12345678").symlink_to(outside)
    assert chain.collect(1, grace=0).objects == []
    assert all(path.exists() for path in [*others, outside])


def test_an_object_that_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    store = td.FolderStore(tmp_path / "chain")
    (tmp_path / "chain" / "packs" / "name").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        store.put("packs/name", [b"data"])
    assert list(store.temporaries()) == []
