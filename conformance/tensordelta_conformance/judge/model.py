"""Dtypes, words and states (SPEC.md section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class DType:
    """One row of the table of section 3.2: bits of an element and of a word, and the exponent field of a word."""

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

Layout = list[tuple[str, str, tuple[int, ...]]]
"""(name, dtype, shape) of each tensor, in the order of the layout."""


class TensorLike(Protocol):
    """A tensor as other programs hold it: its bytes as safetensors stores them."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a state: `words` has one unsigned number of w bits for each word."""

    dtype: str
    shape: tuple[int, ...]
    words: Words

    @staticmethod
    def of(dtype: str, shape: Iterable[int], data: bytes) -> Tensor:
        """A tensor from its stored bytes."""
        return Tensor(dtype, tuple(shape), words_of(data, DTYPES[dtype].w))

    @staticmethod
    def zeros(dtype: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor whose words are all zero."""
        return Tensor(dtype, shape, np.zeros(word_count(dtype, shape), word_type(DTYPES[dtype].w)))

    @property
    def data(self) -> bytes:
        """The stored bytes: words one after another, little-endian."""
        return self.words.astype(word_type(DTYPES[self.dtype].w).newbyteorder("<")).tobytes()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor):
            return NotImplemented
        return (self.dtype, self.shape) == (other.dtype, other.shape) and np.array_equal(self.words, other.words)


State = dict[str, Tensor]


def word_type(w: int) -> np.dtype[Any]:
    """The numpy type of words of w bits."""
    return np.dtype(f"u{w // 8}")


def words_of(data: bytes, w: int) -> Words:
    """The words of stored bytes."""
    return np.frombuffer(data, word_type(w).newbyteorder("<")).astype(word_type(w))


def word_count(dtype: str, shape: Iterable[int]) -> int:
    """The number of words of a tensor."""
    return math.prod(shape) * DTYPES[dtype].bits // DTYPES[dtype].w


def layout_of(state: State) -> Layout:
    """The layout of a state."""
    return [(name, state[name].dtype, state[name].shape) for name in sorted(state, key=str.encode)]


def fit(base: State, layout: Layout) -> State:
    """The base fitted to a layout (section 5)."""
    fitted: State = {}
    for name, dtype, shape in layout:
        held = base.get(name)
        if held is not None and held.dtype == dtype and held.shape == shape:
            fitted[name] = held
        else:
            fitted[name] = Tensor.zeros(dtype, shape)
    return fitted
