"""TRL's AsyncGRPOTrainer on the CPU: `python async_trainer.py CHAIN MODEL SERVER STEPS FOLDER`.

It trains the model of a folder; a server of vLLM generates, and takes the weights of each step through the chain.
FOLDER gets `served.json`, what the server said that it serves after each version, and `trained.safetensors`, the
weights at the end.

Three things are replaced, since the trainer expects a GPU, and vLLM in its own environment; each says why.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AttentionInterface, AttentionMaskInterface, AutoTokenizer
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, async_grpo_trainer, async_rollout_worker

import tensordelta as td
from tensordelta.engines import VllmServer
from tensordelta.trl import WeightTransfer


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: None,
    *,
    tree_kv_index: torch.Tensor,
    tree_cu_seqlens_q: torch.Tensor,
    tree_cu_seqlens_k: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What TRL's own attention computes, whose kernel is for CUDA.

    Samples that begin with the same tokens share them: a segment of the query sees the keys on the path to it.
    """
    key, value = (each.index_select(2, tree_kv_index) for each in (key, value))
    segments = []
    bounds = (itertools.pairwise(each.tolist()) for each in (tree_cu_seqlens_q, tree_cu_seqlens_k))
    for queries, keys in zip(*bounds, strict=True):
        rows, columns = queries[1] - queries[0], keys[1] - keys[0]
        segments.append(
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, slice(*queries)],
                key[:, :, slice(*keys)],
                value[:, :, slice(*keys)],
                attn_mask=torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows),
                scale=scaling,
                enable_gqa=True,
            )
        )
    return torch.cat(segments, 2).transpose(1, 2), None


def register_attention() -> None:
    AttentionInterface.register(async_grpo_trainer.TREE_ATTENTION, attend)
    AttentionMaskInterface.register(async_grpo_trainer.TREE_ATTENTION, lambda **_: None)


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """No two completions of a group are likely to have the same, so that each step changes weights."""
    return [float(sum(each)) for each in completion_ids]


# The process that generates imports this module anew, and so has them as well.
async_grpo_trainer.register_tree_attention = register_attention
async_grpo_trainer.get_peak_flops_per_device = lambda *_: None  # asks CUDA which device it is
async_rollout_worker.is_vllm_available = lambda: True  # only the server's HTTP routes are used


def main(address: str, model: str, server: str, steps: int, folder: Path) -> None:
    served: list[tuple[int, str]] = []
    vllm = VllmServer(server, address)

    def note(published: td.Published) -> None:
        served.append((published.version, vllm.weight_version()))

    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = AsyncGRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=AsyncGRPOConfig(
            output_dir=str(folder / "training"),
            max_steps=steps,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=12,
            learning_rate=1e-3,
            token_budget=0,
            vllm_server_base_url=server,
            request_timeout=600,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_dict(
            {"prompt": [[{"role": "user", "content": each}] for each in ("A chain is", "A version has")]}
        ),
        processing_class=tokenizer,
        weight_transfer=WeightTransfer(address, model=model, tokenizer=tokenizer, server=server, on_published=note),
    )
    trainer.train()
    (folder / "served.json").write_text(json.dumps(served))
    weights = {name: each.detach().bfloat16().contiguous() for name, each in trainer.model.named_parameters()}
    save_file(weights, folder / "trained.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), Path(sys.argv[5]))
