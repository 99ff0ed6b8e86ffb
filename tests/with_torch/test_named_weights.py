"""A model's weights by the names of its checkpoint, whatever wraps it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch_models import NAMES, Model, served, words  # noqa: E402

import tensordelta.torch as tdt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile raises it in torch


class Wrapped(nn.Module):
    """A wrapper that has its model as `module`, as DistributedDataParallel and DataParallel do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_each_tensor_once_by_its_name_in_the_checkpoint() -> None:
    model = Model()
    assert sorted(name for name, _ in tdt.named_weights(model)) == NAMES
    assert model.state_dict().keys() - set(NAMES) == {"head.weight"}


def test_floating_point_tensors_are_cast_and_others_are_not() -> None:
    model = Model()
    found = dict(tdt.named_weights(model))
    assert {name for name, tensor in found.items() if tensor.dtype != torch.bfloat16} == {"steps"}
    assert not any(tensor.requires_grad for tensor in found.values())
    assert torch.equal(found["embed.weight"], model.embed.weight.detach().bfloat16())
    assert model.embed.weight.dtype == torch.float32


def test_without_a_dtype_the_tensors_are_the_model_s_own() -> None:
    model = Model()
    found = dict(tdt.named_weights(model, None))
    assert found["halves"].dtype == torch.float16
    assert found["embed.weight"].data_ptr() == model.embed.weight.data_ptr()


def test_a_function_gives_the_dtype() -> None:
    def of(name: str, tensor: torch.Tensor) -> torch.dtype:
        return torch.float8_e4m3fn if name.startswith("layers") and tensor.ndim == 2 else tensor.dtype

    dtypes = {name: tensor.dtype for name, tensor in tdt.named_weights(Model(), of)}
    assert dtypes["layers.0.weight"] == torch.float8_e4m3fn
    assert (dtypes["layers.0.bias"], dtypes["steps"]) == (torch.float32, torch.int64)


@pytest.mark.parametrize("wrap", [Wrapped, torch.compile, lambda model: Wrapped(torch.compile(model))])
def test_wrappers_leave_no_trace(wrap: object) -> None:
    model = Model()
    assert served(wrap(model)) == served(model)


def test_an_inner_compiled_layer_leaves_no_trace() -> None:
    model = Model()
    expected = served(model)
    model.layers[1] = torch.compile(model.layers[1])
    assert served(model) == expected


def test_a_child_that_is_called_module_keeps_its_name() -> None:
    model = Wrapped(nn.Linear(2, 2))
    model.bias = nn.Parameter(torch.zeros(2))
    assert {name for name, _ in tdt.named_weights(model)} == {"bias", "module.weight", "module.bias"}


def test_checkpointed_layers_have_plain_names() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = Model()
    expected = served(model)
    model.layers[0] = checkpoint_wrapper(model.layers[0])
    assert served(model) == expected


def test_two_tensors_of_one_name_are_refused() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(1, 1, bias=False)
            self.a._orig_mod = nn.Linear(1, 1, bias=False)

    with pytest.raises(ValueError, match=r"a\.weight"):
        dict(tdt.named_weights(Odd()))


def test_the_bits_are_kept() -> None:
    model = nn.Linear(2, 2, bias=False)
    nan = torch.tensor([[0x7FC1, 0x8000], [0x0001, 0xFF80]], dtype=torch.uint16).view(torch.bfloat16)
    model.weight = nn.Parameter(nan.clone())
    assert words(dict(tdt.named_weights(model))) == words({"weight": nan})
