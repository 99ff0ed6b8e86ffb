"""Tensors and arrays: the same memory, seen by torch and by numpy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..chain import Chain
from ..codecs.words import DTYPES, DType
from ..state.state import State

#: Torch's dtypes by the format's names. A torch that lacks one cannot hold such tensors.
_TORCH: dict[str, torch.dtype] = {
    name: getattr(torch, torch_name)
    for name, torch_name in {
        "F64": "float64",
        "C64": "complex64",
        "I64": "int64",
        "U64": "uint64",
        "F32": "float32",
        "I32": "int32",
        "U32": "uint32",
        "BF16": "bfloat16",
        "F16": "float16",
        "I16": "int16",
        "U16": "uint16",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E4M3FNUZ": "float8_e4m3fnuz",
        "F8_E5M2": "float8_e5m2",
        "F8_E5M2FNUZ": "float8_e5m2fnuz",
        "F8_E8M0": "float8_e8m0fnu",
        "I8": "int8",
        "U8": "uint8",
        "BOOL": "bool",
        "F4": "float4_e2m1fn_x2",
    }.items()
    if hasattr(torch, torch_name)
}
_FORMAT = {dtype: DTYPES[name] for name, dtype in _TORCH.items()}
#: Torch's integers by the size of a word in bytes, and those with which it computes.
_WORDS = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
_SIGNED = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def dtype_of(dtype: torch.dtype) -> DType:
    """The format's dtype of torch's.

    Raises:
        ValueError: the format has none.
    """
    try:
        return _FORMAT[dtype]
    except KeyError:
        raise ValueError(f"{dtype} has no counterpart in the format") from None


def as_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor as an array: over the same memory where that is contiguous and on the CPU, else a copy.

    Args:
        tensor: of any shape and dtype of the format; a `DTensor` is gathered, on all its ranks at once.

    Returns:
        An array of the same shape and dtype; bfloat16 and the 8-bit floats by their ml_dtypes dtypes, and of
        float4_e2m1fn_x2 the bytes, which hold two elements each.

    Raises:
        ValueError: a dtype that the format lacks, or a tensor without memory (on the device "meta").
    """
    kind = dtype_of(tensor.dtype)
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    if tensor.is_meta:
        raise ValueError("the tensor has no memory: its model was made on the device `meta`")
    tensor = tensor.resolve_conj().resolve_neg().cpu().contiguous()
    # Numpy knows neither bfloat16 nor the small floats: the words cross, and are seen as what they are.
    words = tensor.view(_WORDS[kind.word.itemsize]) if kind.name != "BOOL" else tensor
    array: NDArray[Any] = words.numpy().view(kind.array)
    return array


def from_array(array: NDArray[Any], dtype: str | None = None) -> Tensor:
    """An array as a tensor over the same memory, which the tensor may write to.

    Args:
        array: of any shape; bfloat16 and the 8-bit floats by their ml_dtypes dtypes.
        dtype: the dtype's name in the format where the array's own does not tell: "F4" over bytes.

    Raises:
        ValueError: a dtype that this torch lacks.
    """
    kind = (
        DTYPES[dtype]
        if dtype is not None
        else next((each for each in DTYPES.values() if not each.packed and each.array == array.dtype), None)
    )
    if kind is None or kind.name not in _TORCH:
        raise ValueError(f"torch has no dtype for {dtype or array.dtype}")
    words = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape).view(kind.word))
    return words.view(_TORCH[kind.name])


def packed(tensor: Tensor) -> str | None:
    """The name of a tensor's dtype where several elements share a byte: `as_array` gives the bytes."""
    kind = dtype_of(tensor.dtype)
    return kind.name if kind.packed else None


def mirror(tensor: Tensor) -> TensorWords | None:
    """The words of a tensor whose array would be a copy; None where the array is the tensor's memory."""
    if not hasattr(tensor, "full_tensor") and tensor.device.type == "cpu" and tensor.is_contiguous():
        return None
    return TensorWords(tensor)


class TensorWords:
    """The words of a tensor wherever it lies, flat, in the order of a contiguous tensor.

    One thread writes at a time; a device's kernels run on its current stream.

    Args:
        tensor: any but a `DTensor` can be written to.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._kind = dtype_of(tensor.dtype)
        self._tensor = tensor.detach()

    @property
    def place(self) -> tuple[object, ...]:
        """What two names of one tensor have in common."""
        tensor = self._tensor
        return str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype

    def is_of(self, tensor: object) -> bool:
        """True for this very tensor, and for another over the same memory."""
        if not isinstance(tensor, Tensor) or tensor.dtype != self._tensor.dtype:
            return False
        return TensorWords(tensor).place == self.place

    def read(self, where: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Words, flat, as unsigned integers of shape (m,)."""
        words = as_tensor_words(self._tensor)
        found = words.reshape(-1)[where] if isinstance(where, slice) else words[_indices(where, words)]
        return found.cpu().numpy().view(self._kind.word)

    def write(self, where: slice | NDArray[np.int64], new: NDArray[Any]) -> None:
        """Write words, flat, unsigned integers of shape (m,).

        Raises:
            ValueError: the tensor is a part of one that several ranks hold.
        """
        if hasattr(self._tensor, "full_tensor"):
            raise ValueError("a DTensor is a part of a tensor: update the tensors of a model that is not sharded")
        words = as_tensor_words(self._tensor)
        values = from_array(np.ascontiguousarray(new)).view(words.dtype).to(words.device)
        if isinstance(where, slice) and words.is_contiguous():
            words.view(-1)[where] = values
            return
        if isinstance(where, slice):
            where = np.arange(*where.indices(words.numel()))
        words[_indices(where, words)] = values


def as_tensor_words(tensor: Tensor) -> Tensor:
    """A tensor's elements as integers of their size, signed ones where torch computes with those alone."""
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.detach().view(_SIGNED[tensor.element_size()])


def _indices(where: NDArray[np.int64], words: Tensor) -> tuple[Tensor, ...]:
    flat = torch.from_numpy(np.ascontiguousarray(where)).to(words.device)
    return torch.unravel_index(flat, words.shape) if words.ndim else (torch.zeros_like(flat),)


def load(chain: Chain, version: int | None = None, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """A version's tensors, by name in the layout's order.

    Args:
        chain: the chain.
        version: which; by default the newest.
        device: where the tensors are to lie.

    Returns:
        Tensors of their own memory, without gradients.

    Raises:
        MissingError: no such version, or no route to it.
        TensorDeltaError: the error of the route first chosen, when no other is left.
        ValueError: a dtype that this torch lacks.
    """
    return {name: tensor.to(device) for name, tensor in named_tensors(chain.load(version))}


def named_tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    """A state's tensors, in the layout's order, over its memory.

    Yields:
        Name and tensor, which may be written to where the state's memory may.

    Raises:
        ValueError: a dtype that this torch lacks.
    """
    for index, info in enumerate(state.layout.tensors):
        if info.dtype not in _TORCH:
            raise ValueError(f"tensor {info.name!r} is {info.dtype}, which this torch lacks")
        shape = (*info.shape[:-1], info.shape[-1] // 2) if info.kind.packed else info.shape
        words = torch.from_numpy(state.words(index)).view(_TORCH[info.dtype])
        yield info.name, words.reshape(shape)
