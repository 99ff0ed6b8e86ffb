"""A chain with the checkpoints of its versions, and a pull that is refused without a change to its folder."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from folders import PRIVATE, contents

import tensordelta as td

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = {"config.json": b'{"a": 1}', "1_Pooling/config.json": b"{}"}


def shards() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return {
        FIRST: {"embed": rng.normal(size=(30, 4)).astype(ml_dtypes.bfloat16), "norm": np.ones(6, np.float32)},
        SECOND: {"head": rng.normal(size=(4, 30)).astype(np.float32)},
    }


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.safetensors")}


def refused(
    kind: type[td.TensorDeltaError], chain: td.Chain, folder: Path, version: int | None = None
) -> td.TensorDeltaError:
    """Pull, and expect it to be refused without a change to the folder."""
    before = contents(folder, private=True)
    with pytest.raises(kind) as caught:
        chain.pull(folder, version)
    after = contents(folder, private=True)
    after.pop(f"{PRIVATE}/lock", None)
    before.pop(f"{PRIVATE}/lock", None)
    assert after == before
    assert str(folder) in caught.value.object
    return caught.value


def packs(chain: td.Chain, version: int) -> list[Path]:
    return [Path(chain.address, str(entry.path)) for entry in chain.manifest(version).packs]
