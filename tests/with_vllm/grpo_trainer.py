"""TRL's GRPOTrainer on the CPU, in the trainer's environment: `python grpo_trainer.py CHAIN MODEL FOLDER STEPS`.

It trains the model of a folder and publishes each step; it begins step N when FOLDER has a file `N`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from tensordelta.trl import PublishCallback

torch.set_num_threads(1)


class OneByOne(TrainerCallback):
    """Lets the engine be at the step before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        while not (self._folder / str(state.global_step + 1)).exists():
            time.sleep(0.05)


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """No two completions of a group are likely to have the same, so that each step changes weights."""
    return [float(sum(each)) for each in completion_ids]


def main(address: str, model: str, folder: Path, steps: int) -> None:
    # Not the class that is usual for this kind of model, which splits text otherwise.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model, pad_token="w0", eos_token="w1", padding_side="left")
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=GRPOConfig(
            output_dir=str(folder / "training"),
            max_steps=steps,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=12,
            learning_rate=1e-3,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        ),
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": ["w5 w6 w7", "w8 w9"] * 4}),
        processing_class=tokenizer,
        callbacks=[OneByOne(folder), PublishCallback(address)],
    )
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:3], Path(sys.argv[3]), int(sys.argv[4]))
