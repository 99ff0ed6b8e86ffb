"""One rank of a run with FSDP2 on the CPU: a process that trains, publishes, and may fail or die on the way.

    python fsdp_ranks.py ADDRESS MEETING RANK RANKS SCENARIO RESULTS

Rank 0 writes the weights at each submit, gathered, as RESULTS/STEP.npz, and what became of the steps as
RESULTS/told.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

import tensordelta as td
import tensordelta.torch as tdt
from tensordelta.stores import FolderStore


class Store(FolderStore):
    """A folder that fails, or kills its process, before or after an object is written: as `next` says, once."""

    next: tuple[str, str, str] | None = None  # before or after, prefix, fail or die

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._act("before", name)
        super().put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self._act("before", name)
        created = super().create(name, data)
        self._act("after", name)
        return created

    def _act(self, when: str, name: str) -> None:
        if self.next is not None and self.next[0] == when and name.startswith(self.next[1]):
            what, self.next = self.next[2], None
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise td.StoreError("the folder", "write", name, "out of order")


class Model(nn.Module):
    """Rows that do not divide by the ranks, one row alone, a tied head, a frozen parameter, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(31, 8)
        self.wide = nn.Linear(12, 6, bias=False)
        self.one = nn.Linear(8, 1)
        self.head = nn.Linear(8, 31, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.randn(5, 3), requires_grad=False)
        self.register_buffer("scale", torch.tensor([8.0, 1.0]))


def build(ranks: int, *, by_columns: bool, replicas: bool) -> nn.Module:
    torch.manual_seed(0)
    model = Model()
    if replicas:
        mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicas", "shards"))
    else:
        mesh = init_device_mesh("cpu", (ranks,))

    def place(parameter: nn.Parameter) -> Shard | None:
        return Shard(1) if by_columns and tuple(parameter.shape) == (6, 12) else None

    fully_shard(model, mesh=mesh, shard_placement_fn=place)
    return model


def train(model: nn.Module, step: int) -> None:
    """Change some words of each rank's rows; of replicas the same ones."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "frozen":
                local = parameter.to_local()
                first = parameter.device_mesh.get_coordinate()[-1]
                generator = torch.Generator().manual_seed(1000 * step + first)
                local += (torch.rand(local.shape, generator=generator) < 0.2) * 1.0
        model.scale += 1


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Bits of all weights; all ranks gather them."""
    return {name: tdt.as_array(tensor).view(np.uint16) for name, tensor in tdt.named_weights(model)}


def main() -> None:
    address, meeting, rank, ranks, scenario, results = sys.argv[1:]
    options: dict[str, Any] = json.loads(scenario)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=int(ranks))
    store = Store(Path(address))
    if rank == "0" and options.get("create"):
        td.open(store, create=True)
    dist.barrier()
    chain = td.open(store, threads=1)
    by_columns, replicas = options.get("by_columns", False), options.get("replicas", False)
    model = build(int(ranks), by_columns=by_columns, replicas=replicas)
    for step in range(options.get("trained", 0)):
        train(model, step)
    told = []
    try:
        with tdt.Publisher(
            chain, model, skip=(), timeout=60, queue=options.get("queue", 1), layout_change="grows" in options
        ) as publisher:
            for step in range(options.get("trained", 0), options["steps"]):
                if step == options.get("grows"):
                    model.register_buffer("extra", torch.ones(3))
                train(model, step)
                now = weights(model)
                if rank == "0":
                    np.savez(Path(results, f"{step}.npz"), **now)
                at = options.get("fault", {}).get(str(step))
                if at and at[0] == int(rank):
                    store.next = tuple(at[1:])
                ticket = publisher.submit(step)
                if options.get("together"):
                    continue
                try:
                    told.append(ticket.result().version)
                except Exception as error:
                    told.append(type(error).__name__)
    finally:
        Path(results, f"told.{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # at the interpreter's exit torch 2.13 aborts now and then, also where nothing was published


if __name__ == "__main__":
    main()
