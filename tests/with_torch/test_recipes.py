"""The recipes of sharded_trainers.md, over plain tensors that are cut as ZeRO-3 and Megatron cut parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import tensordelta as td  # noqa: E402

_TEXT = Path(__file__).parents[2] / "reference" / "examples" / "sharded_trainers.md"


@pytest.fixture
def recipes() -> dict[str, Any]:
    """What the code of the text defines."""
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", _TEXT.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(_TEXT), "exec"), names)
    return names


#: Shapes that ranks divide, and that they do not; fewer words than ranks, and none.
SHAPES = {"embed": (7, 5), "layers.0.weight": (4, 6), "norm": (3,), "scalar": (), "single": (1,), "none": (0, 4)}


def weights(step: int) -> dict[str, torch.Tensor]:
    """A model's parameters, some of whose elements differ from step to step."""
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    for each in made.values():
        each.view(-1)[step::3] += step
    return made


class Zero3:
    """One rank's view of a model, as ZeRO-3 leaves it: empty parameters, with flat partitions padded by junk."""

    def __init__(self, parameters: dict[str, torch.Tensor], rank: int, ranks: int) -> None:
        self._parameters = {}
        for name, whole in parameters.items():
            padding = -whole.numel() % ranks
            flat = torch.cat([whole.reshape(-1), torch.full((padding,), torch.nan)])
            part = len(flat) // ranks
            parameter: Any = torch.nn.Parameter(torch.empty(0))
            parameter.ds_shape, parameter.ds_numel = whole.shape, whole.numel()
            parameter.ds_tensor = flat[rank * part : (rank + 1) * part].clone()
            self._parameters[name] = parameter

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._parameters.items()

    def named_buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield "scale", torch.full((3,), 0.5)


def is_version(chain: td.Chain, version: int, parameters: dict[str, torch.Tensor]) -> bool:
    """True where a version has these, cast to bfloat16, and nothing else."""
    state = chain.load(version)
    return state.keys() == parameters.keys() and all(
        state[name].dtype.name == "bfloat16"
        and state[name].shape == tuple(tensor.shape)
        and np.array_equal(state[name].view(np.uint16), tensor.bfloat16().view(torch.uint16).numpy())
        for name, tensor in parameters.items()
    )


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_partitions_of_zero_3(recipes: dict[str, Any], tmp_path: Path, ranks: int) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    bases: list[Any] = [None] * ranks
    for step in range(3):
        models = [Zero3(weights(step), rank, ranks) for rank in range(ranks)]
        layouts = [recipes["layout"](model) for model in models]
        assert all(each == layouts[0] for each in layouts)
        draft = chain.draft(layouts[0])
        shards = [recipes["shard"](model, rank) for rank, model in enumerate(models)]
        found = [chain.join(draft.to_json()).encode(shard, base) for shard, base in zip(shards, bases, strict=True)]
        draft.commit(found)
        bases = shards
        assert is_version(chain, step, weights(step) | {"scale": torch.full((3,), 0.5)})
    assert chain.manifest(2).base is not None and chain.verify(deep=True).ok


def test_what_an_exporter_of_megatron_yields(recipes: dict[str, Any], tmp_path: Path) -> None:
    """All ranks take all of it, also those without a publisher."""
    taken: list[str] = []

    def exported(step: int) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights(step).items():
            taken.append(name)
            yield name, tensor

    publish: Callable[..., Any] = recipes["publish"]
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    with chain.publisher(skip=()) as publisher:
        for step in range(2):
            publish(exported(step), publisher, step).result(60)
    assert is_version(chain, 1, weights(1)) and chain.at(step=1) == 1
    taken.clear()
    assert publish(exported(2), None, 2) is None and taken == list(SHAPES)


def test_slices_of_tensor_parallel_weights(recipes: dict[str, Any], tmp_path: Path) -> None:
    ranks, whole = 3, torch.arange(72.0).reshape(6, 12)
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    draft = chain.draft({"up": ("BF16", (6, 12)), "down": ("BF16", (6, 12))})
    shards = [
        {
            "up": recipes["column_parallel"](whole.chunk(ranks, 0)[rank], rank),
            "down": recipes["row_parallel"](whole.chunk(ranks, 1)[rank], rank, ranks),
        }
        for rank in range(ranks)
    ]
    draft.commit([draft.encode(shard) for shard in shards])
    assert is_version(chain, 0, {"up": whole, "down": whole})
