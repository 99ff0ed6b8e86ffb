"""Trainers that fail: what was trained until then is in the chain, and the next trainer goes on with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub
from small_trainer import Snapshots, grpo, llama, same, steps_of, variety

import tensordelta as td
from tensordelta.stores import FolderStore, open_store
from tensordelta.trl import PublishCallback

TRAINER = Path(__file__).with_name("trainer_process.py")


def train(
    address: str, folder: Path, what: str, environment: dict[str, str], *, ranks: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run the trainer that fails; gives its exit status and what it said."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *start, str(TRAINER), address, str(folder), what]
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "TENSORDELTA_THREADS": "2", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def kept(folder: Path, what: str, step: int, *, rank: int = 0) -> dict[str, torch.Tensor]:
    """The weights that a trainer had after a step."""
    return torch.load(folder / f"{what}-{step}-rank-{rank}.pt")


def test_killed_in_the_middle_of_a_step_and_started_again(hub: Hub, bucket: str, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "token"}
    hub.processes = True
    killed = train(bucket, tmp_path, "kill", environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = open_store(bucket, options={"endpoint": hub.address, "token": "token"})
    chain = td.open(store)
    assert steps_of(chain) == [0, 1, 2, 3] and chain.verify(deep=True).ok
    manifests = [f"manifests/{version:012}.json" for version in chain.versions()]
    before = [store.read(name) for name in manifests]

    resumed = train(bucket, tmp_path, "resume", environment)
    assert resumed.returncode == 0, resumed.stderr
    assert steps_of(chain) == [0, 1, 2, 3, 2, 3, 4, 5, 6] and chain.verify(deep=True).ok
    for version, step in enumerate(steps_of(chain)):
        assert same(chain.load(version), kept(tmp_path, "kill" if version < 4 else "resume", step))
    assert before == [store.read(name) for name in manifests]


@pytest.mark.parametrize("what", ["raise", "exit"])
def test_an_exception_in_a_reward(hub: Hub, bucket: str, tmp_path: Path, what: str) -> None:
    """The steps before it are published before the process ends, however slow the store is."""
    slow = hub.faults.add("batch", times=1000, delay=0.3)
    done = train(bucket, tmp_path, what, {"HF_ENDPOINT": hub.address, "HF_TOKEN": "token"})
    slow.times = 0
    assert done.returncode == {"raise": 1, "exit": 7}[what], done.stderr
    assert ("the reward model is down" in done.stderr) is (what == "raise")
    assert "could not be published" not in done.stderr
    chain = td.open(bucket, store_options={"endpoint": hub.address, "token": "token"})
    assert steps_of(chain) == [0, 1, 2, 3] and chain.verify(deep=True).ok
    assert all(same(chain.load(step), kept(tmp_path, what, step)) for step in range(4))


def test_two_ranks(hub: Hub, bucket: str, tmp_path: Path) -> None:
    """One of them publishes; both train in step."""
    hub.processes = True
    done = train(bucket, tmp_path, "whole", {"HF_ENDPOINT": hub.address, "HF_TOKEN": "token"}, ranks=2)
    assert done.returncode == 0, done.stderr
    chain = td.open(bucket, store_options={"endpoint": hub.address, "token": "token"})
    assert steps_of(chain) == list(range(7)) and chain.verify(deep=True).ok
    for step in range(7):
        assert same(chain.load(step), kept(tmp_path, "whole", step))
        assert same(chain.load(step), kept(tmp_path, "whole", step, rank=1))


def broken(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
    """A reward that fails in the third step."""
    if trainer_state.global_step == 2:
        raise RuntimeError("the reward model is down")
    return variety(completions)


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "trained again"])
def test_an_exception_that_the_script_survives(tmp_path: Path, closed: bool) -> None:
    """As in a notebook: `close` publishes what was submitted, and so does the next training with the same callback."""
    address, snapshots = tmp_path / "chain", Snapshots()
    publishing = PublishCallback(address, queue=10)
    trainer = grpo(llama(), tmp_path / "out", [publishing, snapshots], reward=broken)
    with pytest.raises(RuntimeError, match="reward model"):
        trainer.train()
    if closed:
        publishing.close()
    else:
        grpo(trainer.model, tmp_path / "out", [publishing], steps=1).train()
    chain = td.open(address)
    assert steps_of(chain) == [0, 1, 2] + ([] if closed else [1])
    assert all(same(chain.load(step), snapshots.taken[step]) for step in range(3))


class Full(FolderStore):
    """A folder that has no room for a manifest."""

    full = True

    def create(self, name: str, data: bytes) -> bool:
        if name.startswith("manifests/") and self.full:
            raise td.StoreError(self.address, "create", name, "no space left")
        return super().create(name, data)


def test_a_store_that_fails_stops_training(tmp_path: Path) -> None:
    """Engines would go on with old weights, and nobody would know."""
    publishing = PublishCallback(td.open(Full(tmp_path / "chain"), create=True))
    with pytest.raises(td.StoreError, match="no space left"):
        grpo(llama(), tmp_path / "out", [publishing]).train()
    with suppress(td.StoreError):  # of another step, if two were submitted
        publishing.close()
