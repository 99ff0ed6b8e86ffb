"""A model's weights under the names that engines know, whatever wraps the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

#: What wrappers of modules put into the names of what they wrap.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")


def named_weights(
    model: nn.Module, dtype: torch.dtype | Callable[[str, Tensor], torch.dtype] | None = torch.bfloat16
) -> Iterator[tuple[str, Tensor]]:
    """A model's weights as an engine loads them: names of the checkpoint, each tensor once, in the served dtype.

    Names lose what wrappers add (DistributedDataParallel, FSDP, torch.compile, activation checkpointing, PEFT).
    Frozen parameters are among them, and the buffers that a checkpoint has. Of tied tensors the first name
    stands, as in checkpoints. LoRA and other adapters that PEFT can merge are merged into a copy of their layer, so
    that the model's own bits stay as they are.

    Args:
        model: the model; all ranks iterate where its parameters are `DTensor`s.
        dtype: to which floating-point tensors are cast, those of eight bits excepted; or a function of name and tensor
            that gives the dtype; or None for the dtypes that they have.

    Yields:
        Name and tensor, detached; a copy where it was cast or merged, else the model's own memory.

    Raises:
        ValueError: two different tensors would have one name; or an adapter that cannot be merged.
    """
    seen: set[tuple[object, ...]] = set()
    names: set[str] = set()
    for name, tensor, is_copy in _tensors(model):
        own = None if is_copy else _identity(tensor)
        if own in seen:
            continue
        if own is not None:
            seen.add(own)
        if name in names:
            raise ValueError(f"two tensors of the model would be {name!r}")
        names.add(name)
        wanted = dtype(name, tensor) if callable(dtype) else dtype
        detached = tensor.detach()
        if wanted is not None and (callable(dtype) or _is_cast(tensor)):
            detached = detached.to(wanted)
        yield name, detached


def _is_cast(tensor: Tensor) -> bool:
    return bool(tensor.is_floating_point() and tensor.element_size() > 1)


def _identity(tensor: Tensor) -> tuple[object, ...]:
    """What two names of one tensor have in common."""
    if not tensor.numel() or hasattr(tensor, "full_tensor") or tensor.is_meta:
        return (id(tensor),)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Parameters and persistent buffers of the modules as they were before they were wrapped.

    Yields:
        Name, tensor, and whether the tensor is a copy that is given up after it.
    """
    for prefix, module, is_copy in _modules(model, "", False):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                _check_whole(prefix + name, parameter)
                yield prefix + name, parameter, is_copy
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield prefix + name, buffer, is_copy


def _check_whole(name: str, parameter: Tensor) -> None:
    """Refuse a parameter of which this process has only a part, in a form that does not say which.

    Raises:
        ValueError: it is one of ZeRO-3.
    """
    if hasattr(parameter, "ds_shape") and parameter.shape != parameter.ds_shape:
        raise ValueError(f"{name!r} is sharded by ZeRO-3: iterate within `deepspeed.zero.GatheredParameters`")


def _modules(module: nn.Module, prefix: str, is_copy: bool) -> Iterator[tuple[str, nn.Module, bool]]:
    """Modules that hold tensors, with the prefix of their names; wrappers and adapters taken away.

    Raises:
        ValueError: FSDP1 shards the module.
    """
    merged = _merged(module)
    if merged is not module:
        # Only merging makes a new module, which has no other owner.
        yield from _modules(merged, prefix, is_copy or _is_adapted(module))
        return
    handle = getattr(module, "_handle", None)
    if handle is not None and getattr(handle, "uses_sharded_strategy", False):
        flat = handle.flat_param
        if flat.data_ptr() == getattr(flat, "_local_shard", flat).data_ptr():
            raise ValueError("FSDP1 shards the model: iterate within `FSDP.summon_full_params`, or use FSDP2")
    yield prefix, module, is_copy
    for name, child in module._modules.items():
        if child is not None:
            yield from _modules(child, prefix if _is_wrapped(module, name) else f"{prefix}{name}.", is_copy)


def _is_wrapped(module: nn.Module, name: str) -> bool:
    """True where a child is what a wrapper wraps, whose name is the wrapper's own addition."""
    if name not in _WRAPPERS:
        return False
    if name != "module":
        return True
    # `module` may be an ordinary name: it is taken away where a wrapper has nothing else.
    return len(module._modules) == 1 and not any(each is not None for each in module._parameters.values())


def _merged(module: nn.Module) -> nn.Module:
    """What a checkpoint has in place of a module of PEFT: its base, with the active adapters merged into a copy."""
    kind = type(module)
    if not any(each.__module__.split(".")[0] == "peft" for each in kind.__mro__):
        return module
    if hasattr(module, "get_base_model"):  # PeftModel
        base = module.get_base_model()
        return base if isinstance(base, nn.Module) else module
    if hasattr(module, "modules_to_save"):  # a module that is trained as a whole, next to the original
        active = module.active_adapter if isinstance(module.active_adapter, str) else module.active_adapter[0]
        saved = module.modules_to_save
        return saved[active] if active in saved else module.original_module  # noqa: SIM401 - a ModuleDict lacks `get`
    if _is_adapted(module):
        if not hasattr(module, "merge"):
            raise ValueError(f"{kind.__name__} of PEFT cannot be merged")
        copied = copy.deepcopy(module)
        copied.merge()  # as trainers do it, whose result an engine is to have
        return _base_of(copied)
    return _base_of(module) if hasattr(module, "base_layer") else module


def _is_adapted(module: nn.Module) -> bool:
    """True for a layer of PEFT whose adapters are not merged already."""
    return hasattr(module, "base_layer") and not getattr(module, "merged", False)


def _base_of(layer: Any) -> nn.Module:
    base = layer.get_base_layer()
    if not isinstance(base, nn.Module):
        raise ValueError(f"{type(layer).__name__} of PEFT has no base layer")
    return base
