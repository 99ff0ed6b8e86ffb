"""A large mixture of experts: its layout, and which of its words trainers and engines hold.

Names and shapes are those of DeepSeek-V3's family: latent attention, one dense layer, then layers of routed experts
and a shared one. Trainers cut experts by number and all else by rows, as expert parallelism and FSDP do. Engines cut
matrices of attention by rows, those that follow by columns; norms, routers and narrow projections are on each rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple

from tensordelta.format.chunk import Span
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.blocks import Place

#: How the ranks of an engine cut the experts: each has some, or some rows or columns of each.
Cut = Literal["expert", "tensor"]

_EXPERT = re.compile(r"model\.layers\.[0-9]+\.mlp\.experts\.([0-9]+)\.")
_BY_COLUMNS = ("o_proj.weight", "down_proj.weight")
_BY_ROWS = (
    "q_b_proj.weight",
    "kv_b_proj.weight",
    "gate_proj.weight",
    "up_proj.weight",
    "embed_tokens.weight",
    "lm_head.weight",
)


@dataclass(frozen=True)
class Model:
    """Sizes of a mixture of experts.

    Attributes:
        layers: of which the first is dense.
        experts: of each other layer.
        hidden, width: columns of the model and rows of an expert.
        dense: rows of the dense layer.
        latent: ranks of the projections of queries, and of keys and values.
        query, keys, attended: rows of the projections to queries, to keys and values, and columns of that back.
        vocabulary: rows of the embedding.
    """

    layers: int = 61
    experts: int = 384
    hidden: int = 7168
    width: int = 2048
    dense: int = 18432
    latent: tuple[int, int] = (1536, 512)
    query: int = 12288
    keys: int = 16384
    attended: int = 8192
    vocabulary: int = 163840

    def of_tensors(self, tensors: int, step: int) -> Model:
        """A model of about as many words, and of about so many tensors; its experts are a multiple of `step`."""
        fixed = len(self.layout()) - 3 * (self.layers - 1) * self.experts
        experts = max(round((tensors - fixed) / (3 * (self.layers - 1)) / step), 1) * step
        width = max(round(self.width * self.experts / experts / 64), 1) * 64
        return replace(self, experts=experts, width=width)

    def layout(self) -> Layout:
        """Its tensors, all bf16."""
        return Layout.of(Tensor(name, "BF16", shape) for name, shape in self._shapes())

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        queries, pairs = self.latent
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)
        for number in range(self.layers):
            layer = f"model.layers.{number}"
            attention = f"{layer}.self_attn"
            yield f"{layer}.input_layernorm.weight", (self.hidden,)
            yield f"{layer}.post_attention_layernorm.weight", (self.hidden,)
            yield f"{attention}.q_a_proj.weight", (queries, self.hidden)
            yield f"{attention}.q_a_layernorm.weight", (queries,)
            yield f"{attention}.q_b_proj.weight", (self.query, queries)
            yield f"{attention}.kv_a_proj_with_mqa.weight", (pairs + 64, self.hidden)
            yield f"{attention}.kv_a_layernorm.weight", (pairs,)
            yield f"{attention}.kv_b_proj.weight", (self.keys, pairs)
            yield f"{attention}.o_proj.weight", (self.hidden, self.attended)
            if not number:
                yield from self._perceptron(f"{layer}.mlp", self.dense)
                continue
            yield f"{layer}.mlp.gate.weight", (self.experts, self.hidden)
            yield f"{layer}.mlp.gate.e_score_correction_bias", (self.experts,)
            yield from self._perceptron(f"{layer}.mlp.shared_experts", self.width)
            for expert in range(self.experts):
                yield from self._perceptron(f"{layer}.mlp.experts.{expert}", self.width)

    def _perceptron(self, name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.gate_proj.weight", (width, self.hidden)
        yield f"{name}.up_proj.weight", (width, self.hidden)
        yield f"{name}.down_proj.weight", (self.hidden, width)


def expert_of(name: str) -> int | None:
    """The number of the routed expert that a tensor belongs to."""
    found = _EXPERT.match(name)
    return int(found[1]) if found else None


class Share(NamedTuple):
    """Words that a writer owns: whole tensors of its experts, and rows of all others; sorted by tensor."""

    experts: list[Span]
    rest: list[Span]


def shares(layout: Layout, experts: int, writers: int) -> list[Share]:
    """The writers' shares of a model; each has as many experts.

    Raises:
        ValueError: the experts cannot be shared evenly.
    """
    if experts % writers:
        raise ValueError(f"{experts} experts cannot be shared by {writers} writers")
    found = [Share([], []) for _ in range(writers)]
    for index, tensor in enumerate(layout.tensors):
        expert = expert_of(tensor.name)
        if expert is not None:
            found[expert * writers // experts].experts.append(Span(index, 0, tensor.words))
            continue
        for writer, share in enumerate(found):
            start, stop = (tensor.words * each // writers for each in (writer, writer + 1))
            if start < stop:
                share.rest.append(Span(index, start, stop))
    return found


def place(tensor: Tensor, experts: int, cut: Cut, rank: int, ranks: int) -> Place | None:
    """Where a rank of an engine has its words of a tensor; None where it has none."""
    expert = expert_of(tensor.name)
    if expert is not None and cut == "expert":
        return Place.whole(tensor.words) if expert * ranks // experts == rank else None
    kind = "rows" if tensor.name.endswith(_BY_ROWS) else "columns" if tensor.name.endswith(_BY_COLUMNS) else "whole"
    return _part(tensor.shape[0], math.prod(tensor.shape[1:]), kind, rank, ranks)


@cache
def _part(rows: int, columns: int, kind: str, rank: int, ranks: int) -> Place | None:
    """Where a rank has its part of a matrix."""
    if kind == "rows":
        first, last = rows * rank // ranks, rows * (rank + 1) // ranks
        return Place.of((last - first, columns), first * columns, (columns, 1), 0, (columns, 1))
    if kind == "columns":
        first, last = columns * rank // ranks, columns * (rank + 1) // ranks
        return Place.of((rows, last - first), first, (columns, 1), 0, (last - first, 1))
    return Place.whole(rows * columns)
