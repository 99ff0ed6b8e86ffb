"""Words: the bit patterns of a tensor's elements as unsigned integers (SPEC.md section 3).

All codecs work on one-dimensional arrays of unsigned little-endian integers; floats appear only in the arrays that a
user sees.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

if sys.byteorder != "little":  # a big-endian host would need byte swaps, and there is none to test on
    raise ImportError("tensordelta needs a little-endian machine")

#: A one-dimensional array of words: uint8, uint16, uint32 or uint64.
Words = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class DType:
    """A dtype of the format.

    Attributes:
        name: the name in safetensors, such as ``"BF16"``.
        bits: bits of one element.
        word: the numpy dtype of one word; packed dtypes (F4, F6) have words of one byte.
        exponent: lowest bit and width of the exponent field, or None where the dtype has none.
        array: the numpy dtype in which a user sees the elements.
    """

    name: str
    bits: int
    word: np.dtype[Any]
    exponent: tuple[int, int] | None
    array: np.dtype[Any]
    word_bits: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "word_bits", self.word.itemsize * 8)

    @property
    def packed(self) -> bool:
        """True where several elements share a byte, so that words are bytes and not elements."""
        return self.bits < 8

    def words(self, elements: int) -> int:
        """Number of words of a tensor with this many elements (the elements must fill whole bytes)."""
        return elements * self.bits // 8 if self.packed else elements


def _table() -> dict[str, DType]:
    rows: list[tuple[str, int, tuple[int, int] | None, Any]] = [
        ("F64", 64, (52, 11), np.float64),
        ("C64", 64, None, np.complex64),
        ("I64", 64, None, np.int64),
        ("U64", 64, None, np.uint64),
        ("F32", 32, (23, 8), np.float32),
        ("I32", 32, None, np.int32),
        ("U32", 32, None, np.uint32),
        ("BF16", 16, (7, 8), ml_dtypes.bfloat16),
        ("F16", 16, (10, 5), np.float16),
        ("I16", 16, None, np.int16),
        ("U16", 16, None, np.uint16),
        ("F8_E4M3", 8, (3, 4), ml_dtypes.float8_e4m3fn),
        ("F8_E4M3FNUZ", 8, (3, 4), ml_dtypes.float8_e4m3fnuz),
        ("F8_E5M2", 8, (2, 5), ml_dtypes.float8_e5m2),
        ("F8_E5M2FNUZ", 8, (2, 5), ml_dtypes.float8_e5m2fnuz),
        ("F8_E8M0", 8, None, ml_dtypes.float8_e8m0fnu),
        ("I8", 8, None, np.int8),
        ("U8", 8, None, np.uint8),
        ("BOOL", 8, None, np.bool_),
        ("F4", 4, None, np.uint8),
        ("F6_E2M3", 6, None, np.uint8),
        ("F6_E3M2", 6, None, np.uint8),
    ]
    return {
        name: DType(name, bits, np.dtype(f"<u{max(bits // 8, 1)}"), exponent, np.dtype(array))
        for name, bits, exponent, array in rows
    }


#: The dtypes of version 1.0, by name.
DTYPES: dict[str, DType] = _table()

_BY_ARRAY = {dtype.array: dtype for dtype in reversed(DTYPES.values()) if not dtype.packed}


def dtype_of(array_dtype: np.dtype[Any]) -> DType:
    """The format's dtype of a numpy dtype.

    Raises:
        ValueError: the format has no such dtype.
    """
    try:
        return _BY_ARRAY[array_dtype.newbyteorder("<")]
    except KeyError:
        known = ", ".join(sorted({str(each) for each in _BY_ARRAY}))
        raise ValueError(f"numpy dtype {array_dtype} has no counterpart in the format; it knows {known}") from None


def to_words(array: NDArray[Any], dtype: DType) -> Words:
    """A one-dimensional view of an array's words; copies only what is not C-contiguous and little-endian."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(dtype.word)


def to_array(words: Words, dtype: DType, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array that a user sees: a view of the words with the dtype and shape of the tensor.

    Packed dtypes (F4, F6) are seen as uint8 with the last dimension in bytes where it fills whole bytes, else flat.
    """
    if not dtype.packed:
        return words.view(dtype.array).reshape(shape)
    if shape and shape[-1] * dtype.bits % 8 == 0:
        return words.reshape((*shape[:-1], shape[-1] * dtype.bits // 8))
    return words


def same_bits(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """True for two arrays of one dtype and shape with the same bits, and for None and None."""
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape; 1 for a scalar, 0 where any dimension is 0."""
    return math.prod(shape)
