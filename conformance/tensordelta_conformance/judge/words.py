"""Words that are equal as numbers and different as bit patterns (SPEC.md section 3.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..small_reader.state import DTYPES, Words

_MANTISSA_WITHOUT_INFINITY = ("F8_E4M3",)
"""Dtypes whose only NaN has all bits of exponent and mantissa set."""


def equal_as_numbers(dtype: str, a: Words, b: Words) -> NDArray[np.bool_]:
    """Where two words of a float dtype are both zero, or both NaN; nowhere for other dtypes."""
    kind = DTYPES[dtype]
    if dtype == "C64":
        half = np.uint64(0xFFFFFFFF)
        real = (a & half) == (b & half)
        imaginary = (a >> np.uint64(32)) == (b >> np.uint64(32))
        same_real = real | equal_as_numbers("F32", (a & half).astype("u4"), (b & half).astype("u4"))
        same_imaginary = imaginary | equal_as_numbers(
            "F32", (a >> np.uint64(32)).astype("u4"), (b >> np.uint64(32)).astype("u4")
        )
        both: NDArray[np.bool_] = same_real & same_imaginary
        return both
    if not kind.mask or dtype.endswith("FNUZ"):
        return np.zeros(len(a), np.bool_)
    magnitude = 2 ** (kind.w - 1) - 1

    def zero(words: Words) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (words.astype(np.uint64) & np.uint64(magnitude)) == 0
        return found

    def nan(words: Words) -> NDArray[np.bool_]:
        size = words.astype(np.uint64) & np.uint64(magnitude)
        found: NDArray[np.bool_] = size > kind.mask
        if dtype in _MANTISSA_WITHOUT_INFINITY:
            found = size == magnitude
        return found

    return (zero(a) & zero(b)) | (nan(a) & nan(b))
