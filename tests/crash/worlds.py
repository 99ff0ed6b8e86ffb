"""The chain that everything is tried on: six versions, with the checkpoints that they were published from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
from folders import all_tensors, changed, save

import tensordelta as td


def checkpoints(root: Path) -> list[Path]:
    """Versions 0 to 5: sparse changes, then every word, then other tensors, shards and files, then sparse again."""
    rng = np.random.default_rng(7)
    shards: dict[str, dict[str, np.ndarray]] = {
        "model-00001-of-00002.safetensors": {
            "embed": rng.normal(size=(9, 7)).astype(ml_dtypes.bfloat16),
            "norm": np.ones(5, np.float32),
        },
        "model-00002-of-00002.safetensors": {
            "head": rng.normal(size=(7, 9)).astype(np.float32),
            "mask": rng.integers(0, 255, 21).astype(np.uint8),
        },
    }
    files = {"config.json": b"{}", "tokenizer.json": b"[1]", "extra": b"file", "1_Pooling/config.json": b"pool"}
    folders = [save(root / "0", shards, files)]
    for version, share in ((1, 0.1), (2, 0.05), (3, 1.0)):
        shards = changed(shards, rng, share)
        folders.append(save(root / str(version), shards, files))
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    (embed, norm), (head, mask) = (arrays.values() for arrays in shards.values())
    embed = np.ascontiguousarray(embed.reshape(7, 9))
    shards = {names[0]: {"bias": norm, "norm": norm + 1}, names[1]: {"embed": embed, "mask": mask}, names[2]: {}}
    shards[names[2]] = {"extra.weight": head * 2, "zero": np.zeros(0, np.float64)}
    # A folder becomes a file, a file becomes a folder, one file is new, one is changed, one goes.
    files = {"config.json": b'{"v": 4}', "1_Pooling": b"file", "extra/a/config.json": b"e", "merges.txt": b"m"}
    folders.append(save(root / "4", shards, files))
    folders.append(save(root / "5", changed(shards, rng, 0.1), files))
    return folders


def make_world(root: Path) -> Path:
    """A folder with `checkpoints/V`, the chain of them, and `pulled/V`, each pulled at once into a new folder."""
    with cache(root / "cache"):
        chain = td.open(root / "chain", create=True, threads=1)
        for version, folder in enumerate(checkpoints(root / "checkpoints")):
            chain.publish(folder, layout_change=True)
            chain.pull(root / "pulled" / str(version), version)
            assert all_tensors(root / "pulled" / str(version)) == all_tensors(folder)
    return root


@contextmanager
def cache(folder: Path) -> Iterator[None]:
    """Have the writer's snapshots lie in a folder for the block."""
    before = os.environ.get("TENSORDELTA_CACHE")
    os.environ["TENSORDELTA_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("TENSORDELTA_CACHE")
        if before is not None:
            os.environ["TENSORDELTA_CACHE"] = before
