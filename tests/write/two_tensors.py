"""Two small tensors, checkpoints of them in one or two files, and a store that lets a test act before a write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import ml_dtypes
import numpy as np

import tensordelta as td
from tensordelta.stores import FolderStore

ONE = {"w": np.arange(8, dtype=np.float32)}
TWO = {"b": np.ones(3, ml_dtypes.bfloat16)}
BOTH = {**ONE, **TWO}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
PAIR = {FIRST: ONE, SECOND: TWO}


def single(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    return {"model.safetensors": arrays}


def read(chain: td.Chain, version: int | None = None) -> dict[str, list[float]]:
    """A version as another process loads it."""
    return {name: array.astype(np.float64).tolist() for name, array in td.open(chain.address).load(version).items()}


def lists(arrays: dict[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: array.astype(np.float64).tolist() for name, array in arrays.items()}


class Meddling(FolderStore):
    """A store that does something before an object is written."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: Callable[[str], None] = lambda _: None

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self.before(name)
        super().put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self.before(name)
        return super().create(name, data)

    def once(self, prefix: str, act: Callable[[], object]) -> None:
        """Act before the first object under a prefix."""

        def before(name: str) -> None:
            if name.startswith(prefix):
                self.before = lambda _: None
                act()

        self.before = before
