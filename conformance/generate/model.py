"""States: words by tensor, made of numbers that are the same on every machine (SPEC.md sections 3 and 5)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

#: The version of the format.
FORMAT = "1.0-rc.1"
CHAIN = "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90"
FOREIGN = "00000000-3a1e-4b7d-9c64-0d2f6b1e7a90"
CREATED = "2026-11-20T12:00:00Z"
MASK64 = (1 << 64) - 1

#: name -> bits of an element, exponent mask, exponent shift (section 3.2).
DTYPES: dict[str, tuple[int, int, int]] = {
    "F64": (64, 0x7FF0000000000000, 52),
    "C64": (64, 0, 0),
    "I64": (64, 0, 0),
    "U64": (64, 0, 0),
    "F32": (32, 0x7F800000, 23),
    "I32": (32, 0, 0),
    "U32": (32, 0, 0),
    "BF16": (16, 0x7F80, 7),
    "F16": (16, 0x7C00, 10),
    "I16": (16, 0, 0),
    "U16": (16, 0, 0),
    "F8_E4M3": (8, 0x78, 3),
    "F8_E4M3FNUZ": (8, 0x78, 3),
    "F8_E5M2": (8, 0x7C, 2),
    "F8_E5M2FNUZ": (8, 0x7C, 2),
    "F8_E8M0": (8, 0, 0),
    "I8": (8, 0, 0),
    "U8": (8, 0, 0),
    "BOOL": (8, 0, 0),
    "F4": (4, 0, 0),
    "F6_E2M3": (6, 0, 0),
    "F6_E3M2": (6, 0, 0),
}


class Tensor(NamedTuple):
    """dtype, shape and words of one tensor; the words are unsigned integers of 8, 16, 32 or 64 bits."""

    dtype: str
    shape: tuple[int, ...]
    words: np.ndarray[Any, Any]

    def same_place(self, other: Tensor) -> bool:
        """Whether fitting keeps the words of one for the other."""
        return (self.dtype, self.shape) == (other.dtype, other.shape)


Model = dict[str, Tensor]


class Random:
    """Numbers from a seed: SHA-256 of the seed and a counter, so that no library's version changes them."""

    def __init__(self, seed: int | str) -> None:
        self._seed = str(seed)
        self._count = 0

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        blocks = []
        for _ in range(-(-count // 32)):
            blocks.append(hashlib.sha256(f"{self._seed}/{self._count}".encode()).digest())
            self._count += 1
        return b"".join(blocks)[:count]

    def words(self, bits: int, count: int) -> np.ndarray[Any, Any]:
        """Words of 8, 16, 32 or 64 bits, each as likely as any other."""
        return np.frombuffer(self.bytes(count * bits // 8), f"<u{bits // 8}").copy()

    def below(self, bound: int, count: int) -> list[int]:
        """Integers in [0, bound)."""
        return [int(each) % bound for each in self.words(64, count)]

    def sample(self, bound: int, count: int) -> list[int]:
        """Different integers in [0, bound), in no order."""
        keys = self.words(64, bound)
        return [int(each) for each in np.argsort(keys, kind="stable")[:count]]


def word_bits(dtype: str) -> int:
    """w of section 3.2."""
    return max(DTYPES[dtype][0], 8)


def word_count(dtype: str, shape: Sequence[int]) -> int:
    """Number of words of a tensor."""
    return math.prod(shape) * DTYPES[dtype][0] // word_bits(dtype)


def tensor(dtype: str, shape: Sequence[int], words: Any = 0) -> Tensor:
    """A tensor of given words, or all of one word."""
    array = np.zeros(word_count(dtype, shape), f"<u{word_bits(dtype) // 8}")
    if not (isinstance(words, int) and words == 0):
        array[:] = words
    return Tensor(dtype, tuple(shape), array)


def random_tensor(rng: Random, dtype: str, shape: Sequence[int]) -> Tensor:
    """A tensor of any bits."""
    return Tensor(dtype, tuple(shape), rng.words(word_bits(dtype), word_count(dtype, shape)))


def weights(rng: Random, shape: Sequence[int], dtype: str = "BF16") -> Tensor:
    """A tensor that looks like weights: most of them between 0.004 and 0.03, fewer small ones, some zeros."""
    count, bits = math.prod(shape), word_bits(dtype)
    _, mask, shift = DTYPES[dtype]
    top = (mask >> shift) // 2 - 6
    words = []
    for noise, low in zip(rng.words(64, count).tolist(), rng.words(8, count).tolist(), strict=True):
        smaller = (low | 1 << 8) & -(low | 1 << 8)  # a power of two: 1 for half of all, 2 for a quarter, ...
        exponent = max(top - (smaller.bit_length() - 1), 0)
        sign = noise >> 63
        words.append(sign << (bits - 1) | exponent << shift | noise & ((1 << shift) - 1))
    made = tensor(dtype, shape, words if words else 0)
    made.words[:: max(count // 7, 1)] = 0
    return made


_STEPS = (1, 1, 1, -1, -1, 2, -2, 3, 77, -1000)


def changed(rng: Random, old: Tensor, share: float = 0.1) -> Tensor:
    """The tensor with a share of its words changed, at least one, most by a step or two."""
    words, bits = old.words.copy(), word_bits(old.dtype)
    count = min(len(words), max(1, round(share * len(words))))
    steps = rng.below(len(_STEPS), count)
    for place, step in zip(rng.sample(len(words), count), steps, strict=True):
        moved = (int(words[place]) + _STEPS[step]) % (1 << bits)
        words[place] = moved
    return Tensor(old.dtype, old.shape, words)


def stepped(rng: Random, model: Model, share: float = 0.1, names: Iterable[str] | None = None) -> Model:
    """The state with a share of the words of each tensor, or of those named, changed."""
    chosen = set(model if names is None else names)
    return {name: changed(rng, each, share) if name in chosen else each for name, each in model.items()}


def small(rng: Random) -> Model:
    """A state of four tensors of different dtypes."""
    return {
        "a.weight": weights(rng, (20, 16)),
        "b.bias": weights(rng, (24,), "F32"),
        "c.ids": random_tensor(rng, "I32", (10,)),
        "d.mask": random_tensor(rng, "U8", (13,)),
    }


def fit(base: Model, layout: Model) -> Model:
    """Section 5: the base with the tensors of the layout, zero where they are new or of another dtype or shape."""
    return {
        name: base[name] if name in base and base[name].same_place(each) else tensor(each.dtype, each.shape)
        for name, each in layout.items()
    }


def ordered(names: Iterable[str]) -> list[str]:
    """Names in the order of a layout."""
    return sorted(names, key=lambda name: name.encode())
