"""Ranks of a draft: how tests cut states into shards, and a process that is one rank and may die in the middle."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import tensordelta as td
from tensordelta.stores import FolderStore
from tensordelta.write import draft, gathering

Arrays = dict[str, np.ndarray]


def cut(state: td.State, ranks: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Shards of a state: every word has one owner, some ranks get nothing, some a tensor in several slices."""
    shards: list[dict[str, Any]] = [{} for _ in range(ranks)]
    for index, tensor in enumerate(state.layout.tensors):
        words = state.words(index)
        if rng.integers(4) == 0:  # one owner, as of a tensor that all ranks hold
            shards[rng.integers(ranks)][tensor.name] = state[tensor.name]
            continue
        cuts = sorted(rng.integers(0, len(words) + 1, rng.integers(ranks + 1)).tolist())
        for start, stop in zip([0, *cuts], [*cuts, len(words)], strict=True):
            slices = shards[rng.integers(ranks)].setdefault(tensor.name, [])
            slices.insert(rng.integers(len(slices) + 1), td.Slice(words[start:stop], start))
    return shards


def rows(arrays: Arrays, rank: int, ranks: int) -> dict[str, td.Slice]:
    """A rank's rows of each array, the last rank's fewer or none, as FSDP cuts them."""
    shard = {}
    for name, array in arrays.items():
        each = -(-len(array) // ranks)
        start = min(rank * each, len(array))
        shard[name] = td.Slice(array[start : start + each], start * (array.size // len(array)))
    return shard


def model(version: int) -> Arrays:
    """The words of a model at a version; the same in every process."""
    rng = np.random.default_rng(1)
    arrays: Arrays = {f"layer.{layer}": rng.normal(0, 0.02, (97, 300)).astype(np.float32) for layer in range(3)}
    arrays["embedding"] = rng.integers(0, 1 << 16, (1000, 50)).astype(np.uint16)
    arrays["norm"] = np.ones(5, np.float32)
    for _ in range(version):
        for array in arrays.values():
            array[rng.random(array.shape) < 0.05] += np.asarray(1, array.dtype)
    return arrays


class Dying(FolderStore):
    """A store whose process is killed when the second object was put."""

    put_before = False

    def put(self, name: str, parts: Any) -> None:
        super().put(name, parts)
        if self.put_before:
            os.kill(os.getpid(), signal.SIGKILL)
        self.put_before = True


def rank_main(pipe: Connection, address: str, rank: int, ranks: int) -> None:
    """One rank: gets (draft, version, options, die), answers with the descriptor; ends on None."""
    draft._PACK, gathering._LISTED = 1, 200  # so that small models have several packs
    while (task := pipe.recv()) is not None:
        text, version, options, die = task
        chain = td.open((Dying if die else FolderStore)(address), threads=1)
        base = rows(model(version - 1), rank, ranks) if version else None
        pipe.send(chain.join(text).encode(rows(model(version), rank, ranks), base, **options))
