"""Targets for the files that a reader keeps for itself, in a folder that holds a version, or was left in a patch."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from damage.own_files import interrupt
from damage.worlds import World
from folders import PRIVATE
from gallery import CHAIN, MemoryStore, as_model

import tensordelta as td
from tensordelta.checkout.record import NEXT, STATE, Holding
from tensordelta.checkout.undo import UNDO, is_pending, write_back
from tensordelta.stores.anchored import Folder

from .targets import sealed, target


@dataclass(frozen=True)
class Kept:
    """A pulled folder in which a patch was interrupted."""

    path: Path
    shard: bytes
    undo: bytes
    state: bytes

    def put(self, name: str, data: bytes) -> None:
        """Write a private file."""
        (self.path / PRIVATE / name).write_bytes(data)


@cache
def kept() -> Kept:
    """The folder, which is removed when the process ends."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="tensordelta-fuzz-", dir=place))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    os.environ["TENSORDELTA_CACHE"] = str(root / "cache")
    store = MemoryStore({})
    chain = td.open(store, create=True, chain=CHAIN, threads=1)
    words = np.arange(64, dtype=np.uint16)
    chain.publish({"v": words[:9].astype(np.uint8), "w": words}, files={"config.json": b"{}"})
    words[[3, 17, 60]] += 1
    chain.publish({"v": words[:9].astype(np.uint8), "w": words}, files={"config.json": b"{}"})
    world = World("kept", store.objects, {version: as_model(chain.load(version)) for version in (0, 1)}, root)
    folder = root / "folder"
    shutil.copytree(world.folder(0), folder)
    state = (folder / PRIVATE / STATE).read_bytes()
    interrupt(world, folder, 1, "patching")
    shard, undo = (folder / "model.safetensors").read_bytes(), (folder / PRIVATE / UNDO).read_bytes()
    return Kept(folder, shard, undo, state)


@target
def state_json(data: bytes) -> None:
    """state.json, and next.json, which has the same form."""
    folder = kept()
    folder.put(NEXT, data)
    try:
        with Folder(folder.path / PRIVATE) as private:
            held = Holding.read(private, NEXT)
            assert held is not None and len(held.tensor_sums) == len(held.tensors)
            assert held.fingerprint and held.shards is not None
    finally:
        (folder.path / PRIVATE / NEXT).unlink()


def _written_back(data: bytes) -> None:
    folder = kept()
    folder.put(UNDO, data)
    before = folder.shard
    with Folder(folder.path) as tree, tree.folder(PRIVATE) as private:
        held = Holding.read(private, STATE)
        assert held is not None
        try:
            is_pending(held, private)
            write_back(held, tree, private)
        except td.TensorDeltaError:
            assert (folder.path / "model.safetensors").read_bytes() == before, "words were written, and then refused"
            raise
        finally:
            after = (folder.path / "model.safetensors").read_bytes()
            assert len(after) == len(before)
            if after != before:
                (folder.path / "model.safetensors").write_bytes(before)


@target
def undo_record(data: bytes) -> None:
    """An undo record, checked and written back."""
    _written_back(data)


@target
def undo_sealed(data: bytes) -> None:
    """An undo record whose digest is right, whatever it says."""
    _written_back(sealed(data))


@target
def shard(data: bytes) -> None:
    """A checkpoint file: of a pulled folder, of the writer's snapshot, or given to `publish`."""
    path = kept().path.parent / "one.safetensors"
    path.write_bytes(data)
    state = td.read_state(path)
    for name in state:
        assert state[name].nbytes <= len(data)
