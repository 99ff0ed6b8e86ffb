"""Words of states, as they are read, and what the fingerprint makes of them (SPEC.md sections 3, 5 and 8)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from tensordelta_conformance.small_reader.state import DTYPES, WORD
from tensordelta_conformance.state import Tensor

from .table import Census

LANES = 1 << 16
WIDTHS = (8, 16, 32, 64)
FLOATS = {
    "F64": (0x7FF0000000000000, 0x000FFFFFFFFFFFFF),
    "F32": (0x7F800000, 0x007FFFFF),
    "BF16": (0x7F80, 0x7F),
    "F16": (0x7C00, 0x3FF),
}
"""Masks of the exponent and of the mantissa."""


class States:
    """Notes what states have."""

    def __init__(self, census: Census) -> None:
        self.beyond = {
            parity: census.kind(f"names of {parity} seed with words beyond lane 65,536") for parity in ("odd", "even")
        }
        self.far = census.kind("names with words beyond lane 131,072")
        self.width = {w: census.kind(f"tensors of {w} bits with words beyond lane 65,536") for w in WIDTHS}
        self.high = census.kind("names whose seed has its highest bit", 2)
        self.words = {
            (dtype, name): census.kind(f"{name} of {dtype}")
            for dtype in FLOATS
            for name in ("negative zeros", "NaN", "infinities", "subnormal numbers")
        }
        self.greatest = census.kind("the greatest word, of dtypes", needs=DTYPES)
        self.bool = census.kind("BOOL words other than 0 and 1")
        self.fitting = {
            name: census.kind(f"tensors that a delta {name}")
            for name in ("drops", "adds", "gives another dtype", "gives another shape")
        }

    def look(self, state: Mapping[str, Tensor], case: str) -> None:
        """A state that is read."""
        for name, tensor in state.items():
            words = np.frombuffer(tensor.data, WORD[DTYPES[tensor.dtype].w])
            self._lanes(name, tensor.dtype, words, case)
            if len(words) and int(words.max()) == 2 ** DTYPES[tensor.dtype].w - 1:
                self.greatest.note(tensor.dtype, case)
            if tensor.dtype == "BOOL":
                for word in np.unique(words[words > 1])[:4]:
                    self.bool.note(word, case)
            if tensor.dtype in FLOATS:
                self._floats(tensor.dtype, words, case)

    def _floats(self, dtype: str, words: np.ndarray[tuple[int], np.dtype[np.unsignedinteger]], case: str) -> None:
        exponent, mantissa = (np.array(each, words.dtype) for each in FLOATS[dtype])
        top, low = words & exponent, words & mantissa
        for name, which in (
            ("negative zeros", words == 1 << 8 * words.itemsize - 1),
            ("NaN", (top == exponent) & (low > 0)),
            ("infinities", (top == exponent) & (low == 0)),
            ("subnormal numbers", (top == 0) & (low > 0)),
        ):
            if name == "negative zeros" and which.any():
                self.words[dtype, name].note(f"word {int(np.flatnonzero(which)[0])} of {len(words)}", case)
            elif which.any():
                for word in np.unique(words[which])[:4]:
                    self.words[dtype, name].note(f"{int(word):x}", case)

    def _lanes(
        self, name: str, dtype: str, words: np.ndarray[tuple[int], np.dtype[np.unsignedinteger]], case: str
    ) -> None:
        w = DTYPES[dtype].w
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        if seed >> 63 and words.any():
            self.high.note(name, case)
        each = max(w // 16, 1)
        if words[LANES // each :].any():
            self.beyond["odd" if seed & 1 else "even"].note(name, case)
            self.width[w].note(f"{name} {len(words)}", case)
        if words[2 * LANES // each :].any():
            self.far.note(name, case)

    def fitted(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], case: str) -> None:
        """The state held, and the one after a delta."""
        for name in before.keys() - after.keys():
            self.fitting["drops"].note(name, case)
        for name in after.keys() - before.keys():
            self.fitting["adds"].note(name, case)
        for name in before.keys() & after.keys():
            old, new = before[name], after[name]
            if old.dtype != new.dtype:
                self.fitting["gives another dtype"].note(f"{old.dtype} {new.dtype}", case)
            elif old.shape != new.shape:
                self.fitting["gives another shape"].note(f"{old.shape} {new.shape}", case)
