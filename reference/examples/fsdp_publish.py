"""Publish a model that FSDP has cut into shards: each rank writes its own rows, and nothing is gathered.

    torchrun --standalone --nproc-per-node=4 reference/examples/fsdp_publish.py CHAIN [--steps 3]

CHAIN is any address that all ranks reach: a shared folder, or a bucket. A small model is trained on the CPU with fp32
weights; after each step its weights are published in bfloat16, as an engine would take them. Every rank is a receiver
as well, and compares what it got with what it holds, bit by bit. Needs torch 2.6 or later (`pip install torch`).
"""

from __future__ import annotations

import argparse
import os
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import tensordelta as td


def build() -> torch.nn.Module:
    """A model whose rows do not divide by the number of ranks; with four, one of them has none of the last layer's."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(1001, 64), torch.nn.Linear(64, 130), torch.nn.GELU(), torch.nn.Linear(130, 9)
    )
    model.register_buffer("scale", torch.full((1,), 8.0))
    return model


def words(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor as bfloat16 words; numpy has no bfloat16, and bits are all that counts."""
    return tensor.detach().to(torch.bfloat16).contiguous().view(torch.uint16).numpy().copy()


def layout(model: torch.nn.Module) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtypes and shapes of the whole tensors."""
    return {name: ("BF16", tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


def shard(model: torch.nn.Module) -> dict[str, td.Slice]:
    """The words that this rank owns: its rows of each parameter, and on rank 0 what all ranks have."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    owned = {}
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, DTensor):
            rows = -(-tensor.shape[0] // ranks)
            start = min(rank * rows, tensor.shape[0]) * (tensor.numel() // tensor.shape[0])
            owned[name] = td.Slice(words(tensor.to_local()), start)
        elif rank == 0:
            owned[name] = td.Slice(words(tensor), 0)
    return owned


def publish(
    chain: td.Chain, model: torch.nn.Module, base: dict[str, td.Slice] | None, step: int
) -> tuple[int, dict[str, td.Slice]]:
    """Publish the weights as they are; gives the version, and the words that are the next base."""
    coordinator = dist.get_rank() == 0
    message = [chain.draft(layout(model)).to_json() if coordinator else None]
    dist.broadcast_object_list(message)
    draft = chain.join(message[0])

    new = shard(model)
    mine = draft.encode(new, base, order="natural" if base is None else "exponent")
    descriptors = [None] * dist.get_world_size()
    dist.gather_object(mine, descriptors if coordinator else None)

    if coordinator:
        try:
            done = draft.commit(descriptors, annotations={"step": str(step)})
            print(f"step {step}: version {done.version}, {done.size:,} of {done.nbytes:,} bytes", flush=True)
            message = [None]
        except Exception as error:
            message = [error]
    # Only now may the base move: until the manifest exists, the next delta starts from the version before.
    dist.broadcast_object_list(message)
    if message[0] is not None:
        raise message[0]
    return draft.version, new


def receive(chain: td.Chain, state: td.State, version: int, own: dict[str, td.Slice]) -> None:
    """Bring an engine's state to a version, and compare it with what the ranks hold."""
    chain.prepare(state, version).apply()
    wrong = 0
    for name, each in own.items():
        got = state[name].view(np.uint16).reshape(-1)[each.start : each.start + each.array.size]
        wrong += int(np.count_nonzero(got != each.array.reshape(-1)))
    total = torch.tensor([wrong, sum(each.array.size for each in own.values())])
    dist.all_reduce(total)
    assert total[0] == 0, f"{total[0]} words are not what was trained"
    assert total[1] == state.layout.words
    if dist.get_rank() == 0:
        print(f"version {version}: every bit of {total[1]:,} words arrived", flush=True)


def main() -> None:
    """Train, publish, receive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("chain", help="a folder that all ranks reach, or an address of a bucket")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        td.open(options.chain, create=True)
    dist.barrier()
    chain = td.open(options.chain)

    model = build()
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    torch.manual_seed(rank)
    base, state = None, td.State.empty()
    for step in range(options.steps):
        version, base = publish(chain, model, base, step)
        receive(chain, state, version, base)
        tokens = torch.randint(0, 1001, (32,))
        torch.nn.functional.cross_entropy(model(tokens), tokens % 9).backward()
        optimizer.step()
        optimizer.zero_grad()
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # at the interpreter's exit torch 2.13 aborts now and then, also where nothing was published


if __name__ == "__main__":
    main()
