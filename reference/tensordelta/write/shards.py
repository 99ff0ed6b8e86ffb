"""Shards: the words of a state that one writer of several owns (SPEC.md section 11.3).

A shard has words as arrays, whole tensors or slices of them; an encoder takes them as stretches, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codecs.words import DTYPES, Words, dtype_of, to_words
from ..format.layout import Layout, Tensor
from ..state.frameworks import as_array, check_name
from ..state.state import State
from .encoder import Stretches


@dataclass(frozen=True, eq=False)
class Slice:
    """A part of a tensor: consecutive words in the tensor's row-major order, such as whole rows.

    Attributes:
        array: the words, in an array of any shape, taken in row-major order: of the tensor's dtype, or of unsigned
            integers of its word's size (a bfloat16 tensor of torch as `tensor.view(torch.uint16).numpy()`).
        start: how many words of the tensor precede them; for packed dtypes (F4, F6) a word is a byte.
    """

    array: NDArray[Any]
    start: int


#: What a rank holds: for each name a whole tensor, a slice, or several.
Shard = Mapping[str, "NDArray[Any] | Slice | Sequence[Slice]"]
#: A layout, or what gives one: arrays, or pairs of a dtype and a shape such as ("BF16", (2, 3)).
LayoutLike = Layout | Mapping[str, Any]


def layout_of(given: LayoutLike) -> Layout:
    """The layout of arrays, or of dtypes and shapes.

    Raises:
        ValueError: a name that is no string, or what has no dtype that the format has; the message names it.
        MalformedError, UnsupportedError, LimitError: the format does not allow a name or a shape.
    """
    if isinstance(given, State):
        return given.layout
    if isinstance(given, Layout):
        return Layout.of(given.tensors, object="the layout")
    tensors: list[Tensor] = []
    for name, each in given.items():
        check_name(name)
        try:
            dtype, shape = each if isinstance(each, tuple) else (each.dtype, each.shape)
            kind = DTYPES[dtype] if isinstance(dtype, str) and dtype in DTYPES else dtype_of(np.dtype(dtype))
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"tensor {name!r} is a {type(each).__name__}, of which the layout is not known: {error}; "
                'give an array, or a pair such as ("BF16", (2, 3))'
            ) from None
        tensors.append(Tensor(name, kind.name, tuple(map(int, shape))))
    return Layout.of(tensors, object="the layout")


def stretches_of(layout: Layout, shard: Shard, names: Iterable[str]) -> list[Stretches]:
    """For each tensor of a layout the words that a shard has of it; none for tensors that are not in `names`.

    Raises:
        ValueError: the layout lacks a tensor, or has it otherwise; or a word is named twice.
    """
    rows = [Stretches([])] * len(layout)
    for name in names:
        index = layout.index.get(name)
        if index is None:
            raise ValueError(f"the layout has no tensor {name!r}")
        found = _words(layout.tensors[index], shard.get(name, ()))
        for (start, words), (later, _) in pairwise(found):
            if start + len(words) > later:
                raise ValueError(f"word {later} of tensor {name!r} is named twice")
        rows[index] = Stretches(found)
    return rows


def _words(tensor: Tensor, given: NDArray[Any] | Slice | Sequence[Slice]) -> list[tuple[int, Words]]:
    """The words of a tensor that a shard has, each part after its first word's index; empty ones are left out.

    Raises:
        ValueError: another dtype, or words that the tensor lacks.
    """
    if isinstance(given, Slice):
        parts = [given]
    elif isinstance(given, Sequence):
        parts = list(given)
    else:
        array = as_array(tensor.name, given)
        if array.size != tensor.words or (not tensor.kind.packed and array.shape != tensor.shape):
            raise ValueError(
                f"tensor {tensor.name!r} is {list(tensor.shape)}, the array {list(array.shape)}; a part is a Slice"
            )
        parts = [Slice(array, 0)]
    found: list[tuple[int, Words]] = []
    for part in parts:
        array = as_array(tensor.name, part.array)
        if array.dtype.newbyteorder("<") not in (tensor.kind.array, tensor.kind.word):
            raise ValueError(f"tensor {tensor.name!r} is {tensor.dtype}, the array {array.dtype}")
        stop = part.start + array.size
        if not 0 <= part.start <= stop <= tensor.words:
            raise ValueError(f"words {part.start} to {stop - 1} of tensor {tensor.name!r}, which has {tensor.words}")
        if array.size:
            found.append((part.start, to_words(array, tensor.kind)))
    return sorted(found, key=lambda each: each[0])
