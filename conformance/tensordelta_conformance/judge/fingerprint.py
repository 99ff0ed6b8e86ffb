"""Fingerprints (SPEC.md section 8). Array arithmetic of u64 is modulo 2^64."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import DTYPES, State, Words

U64 = NDArray[np.uint64]


def mix(z: U64) -> U64:
    """mix of section 8.1, of every number of an array."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def seed(name: str) -> int:
    """The number that a tensor's name gives."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def coefficients(name: str, i: U64) -> U64:
    """c(name, i) of section 8.1, for lane numbers i."""
    one = np.uint64(1)
    high = mix(np.array([seed(name)], np.uint64) + (i >> np.uint64(16))) | one
    low = mix(i & np.uint64(65535)) | one
    return high * low


def lanes(words: Words, w: int) -> U64:
    """The lanes of words, in a row for each word, the lowest bits first."""
    if w == 8:
        return words.astype(np.uint64).reshape(-1, 1)
    parts = words.astype(f"<u{w // 8}").view("<u2")
    return parts.astype(np.uint64).reshape(-1, w // 16)


def lane_numbers(indices: NDArray[Any], w: int) -> U64:
    """The numbers of the lanes of the words with these indices, in a row for each word."""
    count = max(1, w // 16)
    first: U64 = indices.reshape(-1, 1).astype(np.uint64) * np.uint64(count)
    within: U64 = np.arange(count, dtype=np.uint64)
    return np.add(first, within, dtype=np.uint64)


def tensor_fingerprint(name: str, words: Words, w: int) -> int:
    """The fingerprint of a tensor: a u64."""
    nonzero = np.flatnonzero(words)
    products = lanes(words[nonzero], w) * coefficients(name, lane_numbers(nonzero, w))
    return int(products.sum(dtype=np.uint64))


def change(name: str, indices: NDArray[Any], before: Words, after: Words, w: int) -> int:
    """The sum of change(…) of section 8.3 over words of a tensor."""
    products = (lanes(after, w) - lanes(before, w)) * coefficients(name, lane_numbers(indices, w))
    return int(products.sum(dtype=np.uint64))


def tensor_fingerprints(state: State) -> list[int]:
    """The fingerprint of every tensor, in the order of the layout."""
    return [
        tensor_fingerprint(name, state[name].words, DTYPES[state[name].dtype].w)
        for name in sorted(state, key=str.encode)
    ]


def written(fingerprint: int) -> str:
    """A fingerprint as 16 hex digits."""
    return f"{fingerprint % 2**64:016x}"


def state_fingerprint(state: State) -> str:
    """The fingerprint of a state, as it is written."""
    return written(sum(tensor_fingerprints(state)))
