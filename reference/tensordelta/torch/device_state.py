"""A state whose words lie in tensors, on any device, without a copy on the host."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..codecs.words import DType, Words
from ..format.layout import Layout
from ..format.layout import Tensor as Entry
from ..state.blocks import Indices, Place
from ..state.holder import Holder, Part
from .tensors import _SIGNED, dtype_of

#: What a word's integer of torch is in numpy.
_NUMPY = {torch.uint8: np.uint8, torch.int16: np.uint16, torch.int32: np.uint32, torch.int64: np.uint64}


class DeviceState(Holder):
    """A state whose words lie in tensors, on any device: whole tensors, or what a rank of an engine has of them.

    Old words are gathered on the device when an update is prepared, and `apply` is one scatter for each tensor. The
    memory of the host has the changes only. Where several ranks have the state together, each of them makes its own
    object, and all call `Chain.identify` and `SliceUpdate.agree`, which add up their sums.

    After `Chain.identify`, only updates may write to the tensors. One thread applies at a time; others may prepare
    meanwhile.

    Args:
        layout: all tensors of the state.
        parts: by name, what this rank has of a tensor: `Part(place, memory)`; see `part_of` and `whole`.
        group: the ranks that have the state together; by default this one has all of it.

    Raises:
        ValueError: blocks of a tensor overlap without being the same.

    Example:
        >>> state = DeviceState.of(dict(model.named_parameters()))               # doctest: +SKIP
        >>> chain.identify(state)                                                # doctest: +SKIP
        7
        >>> chain.prepare(state).apply()                                         # doctest: +SKIP
    """

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> DeviceState:
        """The state of whole tensors, in any memory layout.

        Args:
            tensors: by name, of the dtypes of the format; tied ones may share their memory.

        Raises:
            ValueError: a dtype that the format lacks, or a part of a tensor that several ranks hold.
        """
        entries: list[Entry] = []
        parts: dict[str, list[Part]] = {}
        for name, tensor in tensors.items():
            if hasattr(tensor, "full_tensor"):
                raise ValueError(f"tensor {name!r} is a DTensor, of which this rank has a part: give its blocks")
            kind = dtype_of(tensor.dtype)
            shape = tuple(tensor.shape)
            if kind.packed:
                shape = (*shape[:-1], shape[-1] * 8 // kind.bits)
            entries.append(Entry(name, kind.name, shape))
            parts[name] = [part for part in (whole(tensor),) if part is not None]
        return cls(Layout.of(entries, object="the tensors"), parts)


def whole(tensor: Tensor) -> Part | None:
    """A tensor as the one part of a state's tensor; None where it has no elements."""
    contiguous = _contiguous_strides(tensor.shape)
    return part_of(tensor, 0, contiguous)


def part_of(tensor: Tensor, offset: int, strides: Sequence[int]) -> Part | None:
    """A tensor as a block of a state's tensor.

    Args:
        tensor: where the block's words lie; any strides, on any device.
        offset: index of the block's first word in the state's tensor, flat.
        strides: words of the state's tensor from one element to the next along each axis of `tensor`.

    Returns:
        The part; None where the tensor has no elements.

    Example:
        >>> # columns 128 to 255 of a matrix with 256 columns
        >>> part_of(torch.zeros(64, 128), 128, (256, 1)).place.block
        Block(offset=128, shape=(64, 128), strides=(256, 1))
    """
    tensor = tensor.detach()
    place = Place.of(tensor.shape, offset, strides, tensor.storage_offset(), tensor.stride())
    return None if place is None else Part(place, TensorMemory(tensor))


def _contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class TensorMemory:
    """The memory in which a tensor lies, as words: a row of integers over its whole storage.

    Kernels run on the current stream of the thread that calls.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._kind: DType = dtype_of(tensor.dtype)
        storage = tensor.untyped_storage()
        words = _SIGNED[self._kind.word.itemsize]
        self.words = torch.empty(0, dtype=words, device=tensor.device).set_(
            storage, 0, (storage.nbytes() // self._kind.word.itemsize,), (1,)
        )

    @property
    def key(self) -> object:
        """What two tensors in the same storage have in common."""
        return str(self.words.device), self.words.data_ptr()

    def take(self, places: Indices) -> Words:
        """The words at these places, of shape (m,)."""
        return self._on_host(self.words[self._here(places)])

    def view(self, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Words:
        """A copy of the words of a strided view, one-dimensional, in C order."""
        view = torch.as_strided(self.words, tuple(shape), tuple(strides), offset)
        return self._on_host(view.reshape(-1))

    def write(self, places: Indices, old: Words, new: Words) -> TensorWrite:
        """The scatter of words; indices and words lie on the device before it begins."""
        return TensorWrite(self.words, self._here(places), self._words(old), self._words(new))

    def _on_host(self, words: Tensor) -> Words:
        array: Words = words.cpu().numpy().view(self._kind.word)
        return array

    def _here(self, places: Indices) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(places)).to(self.words.device)

    def _words(self, words: Words) -> Tensor:
        signed = np.ascontiguousarray(words).view(np.dtype(f"i{words.itemsize}") if words.itemsize > 1 else np.uint8)
        return torch.from_numpy(signed).to(self.words.device)


class TensorWrite:
    """The scatter of new words over old ones."""

    def __init__(self, words: Tensor, places: Tensor, old: Tensor, new: Tensor) -> None:
        self._words, self._places, self._old, self._new = words, places, old, new

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps, on the device."""
        return sum(each.numel() * each.element_size() for each in (self._places, self._old, self._new))

    def do(self) -> None:
        """Write the new words."""
        self._words.index_put_((self._places,), self._new)

    def take_back(self) -> None:
        """Write the old words."""
        self._words.index_put_((self._places,), self._old)
