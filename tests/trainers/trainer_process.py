"""A trainer in a process of its own, which may fail; its weights are kept in a folder, step by step.

    python trainer_process.py CHAIN FOLDER (kill | raise | exit | resume | whole)

In the fourth step's reward it is killed once its third step is published, or raises; with `exit` the script catches
the error and ends by itself. With `resume` and `whole` nothing fails: training starts from the newest checkpoint in
FOLDER/out, or from nothing. Several processes may do it together, started by torchrun.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from small_trainer import Snapshots, grpo, llama, variety
from transformers import TrainerCallback

import tensordelta as td
from tensordelta.trl import PublishCallback

address, folder, what = sys.argv[1], Path(sys.argv[2]), sys.argv[3]


class Kept(TrainerCallback):
    """Keeps the snapshots where they outlive the process, before a step is published."""

    def __init__(self) -> None:
        self.snapshots = Snapshots()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.snapshots.on_train_begin(args, state, control, model=kwargs["model"])
        self._keep(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.snapshots.on_step_end(args, state, control, model=kwargs["model"])
        self._keep(state.global_step)

    def _keep(self, step: int) -> None:
        rank = os.environ.get("RANK", "0")
        torch.save(self.snapshots.taken[step], folder / f"{what}-{step}-rank-{rank}.pt")


def reward(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
    """Fails in the fourth step."""
    if trainer_state.global_step == 3 and what not in ("resume", "whole"):
        if what == "kill":
            td.open(address).wait(3, timeout=60)
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("the reward model is down")
    return variety(completions)


trainer = grpo(
    llama(),
    folder / "out",
    [Kept(), PublishCallback(address, queue=10)],
    reward=reward,
    save_strategy="steps",
    save_steps=2,
    dataloader_num_workers=1,
)
try:
    trainer.train(resume_from_checkpoint=what == "resume" or None)
except RuntimeError:
    if what != "exit":
        raise
    sys.exit(7)
