"""A small model with what models have, and its weights as an engine takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import tensordelta as td
import tensordelta.torch as tdt


class Model(nn.Module):
    """Tied, frozen, empty and scalar parameters; persistent and other buffers; rows that two ranks share unevenly."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(31, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Linear(width, 31, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Parameter(torch.randn(7, 3), requires_grad=False)
        self.halves = nn.Parameter(torch.randn(5).half())
        self.none = nn.Parameter(torch.empty(0, 4))
        self.register_buffer("scale", torch.tensor(8.0))
        self.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("cache", torch.zeros(9), persistent=False)


NAMES = sorted(
    ["embed.weight", "frozen", "halves", "none", "scale", "steps"]
    + [f"layers.{layer}.{part}" for layer in range(2) for part in ("weight", "bias")]
)


def train(model: nn.Module, seed: int, share: float = 0.1) -> None:
    """Change some words of each tensor, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "frozen" not in name and "cache" not in name:
                hit = torch.rand(tensor.shape, generator=generator) < share
                tensor += hit * torch.ones((), dtype=tensor.dtype)


def words(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    """Tensors, bit by bit."""
    return {name: tdt.as_array(tensor).tobytes() for name, tensor in tensors.items()}


def served(model: nn.Module) -> dict[str, bytes]:
    """A model's weights, bit by bit, as they have to be published."""
    return words(dict(tdt.named_weights(model)))


def version(chain: td.Chain, number: int | None = None) -> dict[str, bytes]:
    """A version, bit by bit, as another process loads it."""
    return {name: np.asarray(array).tobytes() for name, array in td.open(chain.address).load(number).items()}


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """A model's weights as arrays of their own memory."""
    return {name: tdt.as_array(tensor).copy() for name, tensor in tdt.named_weights(model)}
