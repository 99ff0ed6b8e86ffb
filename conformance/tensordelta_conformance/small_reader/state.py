"""Words, layouts and states: sections 3 and 5."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Words = NDArray[Any]
Octets = NDArray[np.uint8]
U64 = NDArray[np.uint64]

#: Words of w bits are little-endian unsigned integers (TD-WRD-003).
WORD: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}


class DType(NamedTuple):
    """A row of the table of section 3.2: sizes in bits, and the exponent field (mask 0: there is none)."""

    bits: int
    w: int
    mask: int = 0
    shift: int = 0
    exponent_bits: int = 0


DTYPES = {
    "F64": DType(64, 64, 0x7FF0000000000000, 52, 11),
    "C64": DType(64, 64),
    "I64": DType(64, 64),
    "U64": DType(64, 64),
    "F32": DType(32, 32, 0x7F800000, 23, 8),
    "I32": DType(32, 32),
    "U32": DType(32, 32),
    "BF16": DType(16, 16, 0x7F80, 7, 8),
    "F16": DType(16, 16, 0x7C00, 10, 5),
    "I16": DType(16, 16),
    "U16": DType(16, 16),
    "F8_E4M3": DType(8, 8, 0x78, 3, 4),
    "F8_E4M3FNUZ": DType(8, 8, 0x78, 3, 4),
    "F8_E5M2": DType(8, 8, 0x7C, 2, 5),
    "F8_E5M2FNUZ": DType(8, 8, 0x7C, 2, 5),
    "F8_E8M0": DType(8, 8),
    "I8": DType(8, 8),
    "U8": DType(8, 8),
    "BOOL": DType(8, 8),
    "F4": DType(4, 8),
    "F6_E2M3": DType(6, 8),
    "F6_E3M2": DType(6, 8),
}


def word_count(dtype: str, shape: Iterable[int]) -> int:
    """The number of words of a tensor."""
    return math.prod(shape) * DTYPES[dtype].bits // DTYPES[dtype].w


class TensorEntry(NamedTuple):
    """A tensor of a layout."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def words(self) -> int:
        """The number of its words."""
        return word_count(self.dtype, self.shape)

    @property
    def size(self) -> int:
        """The number of its bytes."""
        return self.words * DTYPES[self.dtype].w // 8


Layout = list[TensorEntry]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a state; `words` has one unsigned integer for each word."""

    dtype: str
    shape: tuple[int, ...]
    words: Words

    @classmethod
    def of(cls, dtype: str, shape: Iterable[int], data: bytes) -> Tensor:
        """A tensor of its stored bytes, which are copied."""
        return cls(dtype, tuple(shape), np.frombuffer(bytearray(data), WORD[DTYPES[dtype].w]))

    @classmethod
    def zeros(cls, dtype: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor whose words are all zero."""
        return cls(dtype, shape, np.zeros(word_count(dtype, shape), WORD[DTYPES[dtype].w]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        return (self.dtype, self.shape) == (other.dtype, other.shape) and np.array_equal(self.words, other.words)


#: Tensors by name. Two states are equal as section 3.3 says if the dicts are.
State = dict[str, Tensor]


def layout_of(state: State) -> Layout:
    """The layout of a state: its tensors in the order of the UTF-8 bytes of their names."""
    return [TensorEntry(name, state[name].dtype, state[name].shape) for name in sorted(state, key=str.encode)]


def fit(base: State, layout: Layout) -> State:
    """The base state fitted to a layout (section 5). Tensors that it keeps share their words with the base."""
    out: State = {}
    for name, dtype, shape in layout:
        if name in base and base[name].dtype == dtype and base[name].shape == shape:
            out[name] = base[name]
        else:
            out[name] = Tensor.zeros(dtype, shape)
    return out
