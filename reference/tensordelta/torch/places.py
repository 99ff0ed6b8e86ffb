"""Where a model's own loader puts the words of a checkpoint.

Engines fuse tensors, cut them for their ranks, pad and tie them, each model in its own way, and all of that is code of
its loader. So the loader is asked: it loads tensors without memory, and the copies that it makes of their parts are
recorded instead of done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import UnsupportedError
from ..format.layout import Layout
from ..format.layout import Tensor as Entry
from ..state.blocks import Place
from ..state.holder import Part
from .device_state import TensorMemory
from .tensors import _TORCH

#: What a user can do where the words of a loader cannot be followed.
_ADVICE = "This model cannot be updated in place: have the engine load a pulled folder for each version."
_COMPUTES = "its loader computes with it before it copies"


def record(
    model: torch.nn.Module,
    load: Callable[[Iterable[tuple[str, Tensor]]], object],
    layout: Layout,
    *,
    tied: Mapping[str, str] | None = None,
) -> dict[str, list[Part]]:
    """Find out where a model has the words of each tensor of a checkpoint.

    Nothing of the model is changed. It may not compute meanwhile.

    Args:
        model: whose parameters and buffers are written to.
        load: the model's own loader, called once with all tensors of the layout.
        layout: the checkpoint's tensors.
        tied: names of tensors that the loader leaves out because the model has them under another name, and these
            names, such as {"lm_head.weight": "model.embed_tokens.weight"}.

    Returns:
        By name the parts that this model has; a rank may have no part of some tensors.

    Raises:
        UnsupportedError: the loader does anything else with a tensor than to copy its words to the model as they are:
            it converts, computes, or asks for values.
    """
    recorder = _Recorder(model, layout)
    try:
        with torch.no_grad(), recorder:
            load(recorder.tensors())
    except UnsupportedError:
        raise
    except Exception as error:
        raise recorder.refused(f"its loader failed on a tensor without values: {error}") from error
    parts = recorder.parts
    for owner in (*model.named_parameters(), *model.named_buffers()):
        if owner[1].is_meta:
            raise recorder.refused(f"its loader put another tensor in the place of {owner[0]!r}")
    for name, other in (tied or {}).items():
        if name in layout.index and other in layout.index and not parts[name]:
            one, two = (layout.tensors[layout.index[each]] for each in (name, other))
            if (one.dtype, one.shape) == (two.dtype, two.shape):
                parts[name] = parts[other]
    return parts


class _Recorder(TorchDispatchMode):
    """Records copies out of tensors that have no memory, and refuses all else that needs their values.

    Attributes:
        parts: what was recorded, by name.
    """

    def __init__(self, model: torch.nn.Module, layout: Layout) -> None:
        super().__init__()
        self.parts: dict[str, list[Part]] = {tensor.name: [] for tensor in layout.tensors}
        self._layout = layout
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []  # an id of a storage is its own only while the storage exists
        self._current = ""
        self._storages = {
            _storage(tensor)
            for tensor in (*model.parameters(), *model.buffers())
            if tensor.numel() and not tensor.is_meta
        }

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor without memory, of all of the layout."""
        for entry in self._layout.tensors:
            self._current = entry.name
            tensor = _without_memory(entry)
            if tensor is None:
                raise self.refused(f"it is {entry.dtype}, which this torch lacks")
            self._names[_storage(tensor)] = entry.name
            self._kept.append(tensor)
            yield entry.name, tensor

    def refused(self, reason: str) -> UnsupportedError:
        """The error that names the tensor which is being loaded."""
        return UnsupportedError(reason, object=f"tensor {self._current!r}", rule="TD-RDR-013", advice=_ADVICE)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default and args[1].is_meta and not args[0].is_meta:
            self._record(args[0], args[1])
            return args[0]
        for argument, target in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if not written or not isinstance(target, Tensor):
                continue
            if _storage(target) in self._names:
                raise self.refused(_COMPUTES)
            if _storage(target) in self._storages:
                return self._padded(func, target, *args[1:])
        return func(*args, **(kwargs or {}))

    def _padded(self, func: Any, target: Tensor, value: Any = 0, *_: Any) -> Tensor:
        """Pass over a write of padding that is there already; another write would change the model."""
        fills = func in (torch.ops.aten.fill_.Scalar, torch.ops.aten.zero_.default)
        if not fills or not bool((target == value).all()):
            raise self.refused(f"its loader changes the model by `{func.name()}`, not by copies alone")
        return target

    def _record(self, target: Tensor, source: Tensor) -> None:
        name = self._names.get(_storage(source))
        if name is None:
            raise self.refused(_COMPUTES)
        self._current = name
        if target.dtype != source.dtype:
            raise self.refused(f"it is {source.dtype}, and the engine has it as {target.dtype}")
        if target.shape != source.shape:
            raise self.refused(
                f"a part of shape {tuple(source.shape)} is spread over one of shape {tuple(target.shape)}"
            )
        if _storage(target) not in self._storages:
            raise self.refused("its loader copies it to memory that is no parameter of the model")
        try:
            place = Place.of(
                source.shape, source.storage_offset(), source.stride(), target.storage_offset(), target.stride()
            )
        except ValueError as error:
            raise self.refused(str(error)) from None
        if place is None:
            return
        memory = TensorMemory(target)
        if all(part.place != place or part.memory.key != memory.key for part in self.parts[name]):
            self.parts[name].append(Part(place, memory))


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _without_memory(entry: Entry) -> Tensor | None:
    """A tensor of the device `meta`; None where torch lacks its dtype."""
    if entry.dtype not in _TORCH:
        return None
    shape = (*entry.shape[:-1], entry.shape[-1] * entry.kind.bits // 8) if entry.kind.packed else entry.shape
    return torch.empty(shape, dtype=_TORCH[entry.dtype], device="meta")
