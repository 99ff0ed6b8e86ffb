"""A trainer in small: GRPO over a random Llama of two layers, whose tokenizer is trained here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import tensordelta as td

torch.set_num_threads(1)

_TEXT = Path(__file__).parents[2] / "SPEC.md"


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, trained on SPEC.md."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train(
        [str(_TEXT)],
        trainers.BpeTrainer(
            vocab_size=2000, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", padding_side="left", model_max_length=256
    )


def llama(*, tied: bool = True, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """A model with random weights, the same each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).to(dtype)


def variety(completions: list[str], **_: Any) -> list[float]:
    """A reward: how many characters a completion has that differ."""
    return [float(len(set(completion))) for completion in completions]


def grpo(
    model: torch.nn.Module,
    folder: Path,
    callbacks: list[TrainerCallback],
    *,
    steps: int = 6,
    reward: Callable[..., list[float]] = variety,
    peft: Any = None,
    **config: Any,
) -> GRPOTrainer:
    """TRL's trainer for it, on the CPU."""
    starts = ["A chain is", "A version has", "The reader", "A pack holds"]
    settings = {
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 12,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
    }
    return GRPOTrainer(
        model=model,
        args=GRPOConfig(output_dir=str(folder), **(settings | config)),
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": starts * 4}),
        processing_class=tokenizer(),
        callbacks=callbacks,
        peft_config=peft,
    )


class Snapshots(TrainerCallback):
    """Keeps the weights of each step as an engine should get them: how that is known without tensordelta.

    Attributes:
        taken: for each step, its weights by name, in bfloat16.
    """

    def __init__(self) -> None:
        self.taken: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: torch.nn.Module, **_: Any) -> None:
        self.taken[state.global_step] = served(model)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: torch.nn.Module, **_: Any) -> None:
        self.taken[state.global_step] = served(model)


def served(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's checkpoint in bfloat16: adapters merged by PEFT itself, and of tied weights the embedding alone."""
    own = copy.deepcopy(model)
    if hasattr(own, "merge_and_unload"):
        own = own.merge_and_unload()
    weights = own.to(torch.bfloat16).state_dict()
    if own.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    return weights


def same(state: td.State, weights: Mapping[str, torch.Tensor]) -> bool:
    """True where a state has these tensors, bit for bit."""
    return state.keys() == weights.keys() and all(
        state[name].dtype.name == "bfloat16"
        and np.array_equal(state[name].view(np.uint16), tensor.contiguous().view(torch.uint16).numpy())
        for name, tensor in weights.items()
    )


def steps_of(chain: td.Chain) -> list[int]:
    """The annotation `step` of each version."""
    return [int(chain.manifest(version).annotations["step"]) for version in chain.versions()]
