"""Where the loaders of engines put the words of a checkpoint: loaders of the kinds that engines have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch
from torch import nn

import tensordelta as td
import tensordelta.torch as tdt
from tensordelta.torch.places import record


class Engine(nn.Module):
    """One rank of two of a model: fused projections, rows and columns, a padded embedding, a replica, a buffer."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.qkv = nn.Parameter(torch.zeros(12, 8, dtype=torch.bfloat16))
        self.out = nn.Parameter(torch.zeros(8, 4, dtype=torch.bfloat16))
        self.embed = nn.Parameter(torch.zeros(32, 8, dtype=torch.bfloat16))
        self.norm = nn.Parameter(torch.zeros(8, dtype=torch.bfloat16))
        self.transposed = nn.Parameter(torch.zeros(6, 5, dtype=torch.bfloat16))
        self.register_buffer("scale", torch.zeros(3))

    def load(self, weights: Iterable[tuple[str, Any]]) -> None:
        for name, weight in weights:
            if name in ("q", "k", "v"):
                at = 4 * "qkv".index(name)
                self.qkv.data[at : at + 4].copy_(weight.chunk(2)[self.rank])
            elif name == "out":
                self.out.data[:] = weight[:, 4 * self.rank : 4 * self.rank + 4]
            elif name == "embed":
                own = weight.narrow(0, 32 * self.rank, min(32, weight.shape[0] - 32 * self.rank))
                self.embed.data[: len(own)].copy_(own)
                self.embed.data[len(own) :].fill_(0)
            elif name == "transposed":
                self.transposed.data.copy_(weight.t())
            elif name != "head":
                dict([*self.named_parameters(), *self.named_buffers()])[name].data.copy_(weight)


def checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    embed = torch.randn(51, 8).bfloat16()
    return {
        **{name: torch.randn(8, 8).bfloat16() for name in ("q", "k", "v", "out")},
        "embed": embed,
        "head": embed.clone(),
        "norm": torch.randn(8).bfloat16(),
        "transposed": torch.randn(5, 6).bfloat16(),
        "scale": torch.randn(3),
    }


def test_words_are_found_where_the_loader_puts_them(tmp_path: Path) -> None:
    """An update through the places makes what a load of the new checkpoint makes, in each rank."""
    weights = checkpoint()
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(weights)
    after = {name: tensor.clone() for name, tensor in weights.items()}
    for tensor in after.values():
        flat = tensor.view(-1).view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32)
        flat[::3] += 1
    chain.publish(after)
    for rank in range(2):
        engine, fresh = Engine(rank), Engine(rank)
        engine.load(weights.items())
        fresh.load(after.items())
        before = {name: value.clone() for name, value in engine.state_dict().items()}
        parts = record(engine, engine.load, chain.layout(0), tied={"head": "embed"})
        assert all(torch.equal(before[name], value) for name, value in engine.state_dict().items())
        state = tdt.DeviceState(chain.layout(0), parts, group=_Two(rank))
        state.hold(0, chain.id, (chain.manifest(0).layout, chain.manifest(0).fingerprint))
        for write in chain.prepare(state)._prepared.writes:
            write.do()
        assert all(torch.equal(fresh.state_dict()[name], value) for name, value in engine.state_dict().items())


class _Two:
    """A rank of two that does not ask the other."""

    size = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank


Load = Callable[[nn.Parameter, Any], object]


class _Temporary:
    """A loader that copies into memory of its own first."""

    def __call__(self, parameter: nn.Parameter, weight: Any) -> None:
        staged = torch.empty_like(parameter)
        staged.copy_(weight)
        parameter.data.copy_(staged)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (lambda parameter, weight: parameter.data.copy_(weight * 2), "computes"),
        (lambda parameter, weight: parameter.data.copy_(weight.double()), "computes"),
        (lambda parameter, weight: parameter.data.copy_(weight.add_(1)), "computes"),
        (lambda parameter, weight: parameter.data.copy_(weight[1:].neg_()), "computes"),
        (lambda parameter, weight: parameter.data.fill_(weight.sum().item()), "without values"),
        (lambda parameter, weight: parameter.data.copy_(weight[:1]), "is spread over"),
        (lambda parameter, weight: parameter.data.add_(weight), "without values|by copies alone"),
        (lambda parameter, weight: parameter.data.zero_(), "by copies alone"),
        (lambda parameter, weight: setattr(parameter, "data", weight), "without values|in the place of"),
        (lambda parameter, weight: print(weight.numpy()), "without values"),
        (_Temporary(), "no parameter of the model"),
    ],
)
def test_loaders_that_do_more_than_copy_are_refused(load: Load, reason: str) -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(4, 4))
    layout = td.State.from_arrays({"w": torch.zeros(4, 4)}).layout
    with pytest.raises(td.UnsupportedError, match=reason) as caught:
        record(model, lambda weights: [load(model.w, weight) for _, weight in weights], layout)
    assert caught.value.object == "tensor 'w'"
    assert torch.equal(model.w, torch.ones(4, 4))


def test_another_dtype_is_refused() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(4, dtype=torch.float16))
    layout = td.State.from_arrays({"w": torch.zeros(4, dtype=torch.bfloat16)}).layout
    with pytest.raises(td.UnsupportedError, match=r"torch\.bfloat16, and the engine has it as torch\.float16"):
        record(model, lambda weights: [model.w.data.copy_(weight) for _, weight in weights], layout)


def test_a_tensor_that_the_loader_leaves_out_has_no_place() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(4))
    layout = td.State.from_arrays({"w": torch.zeros(4), "more": torch.zeros(2)}).layout
    parts = record(
        model, lambda weights: [model.w.data.copy_(weight) for name, weight in weights if name == "w"], layout
    )
    assert [len(parts[name]) for name in ("w", "more")] == [1, 0]
