"""Fingerprints: section 8. Arithmetic of u64 arrays is modulo 2^64."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from .state import U64, State, Words

#: So many words are summed at a time, which bounds the memory that their lanes take.
_BLOCK = 1 << 20


def mix(z: U64) -> U64:
    """mix(z) of every number of an array."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def coefficients(name: str, lanes: U64) -> U64:
    """c(name, i) for lane numbers i."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    one = np.uint64(1)
    return (mix(seed + (lanes >> np.uint64(16))) | one) * (mix(lanes & np.uint64(65535)) | one)


def value(name: str, at: NDArray[np.int64], words: Words) -> int:
    """The sum of value(…) of section 8.3 over the words `at` of a tensor."""
    w = 8 * words.dtype.itemsize
    lanes = 1 if w == 8 else w // 16
    total = 0
    for start in range(0, len(at), _BLOCK):
        part = slice(start, start + _BLOCK)
        first = at[part].astype(np.uint64) * np.uint64(lanes)
        for q in range(lanes):
            x = words[part].astype(np.uint64) >> np.uint64(16 * q) & np.uint64(65535)
            total += int((x * coefficients(name, first + np.uint64(q))).sum(dtype=np.uint64))
    return total % 2**64


def tensor_fingerprint(name: str, words: Words) -> int:
    """The fingerprint of a tensor. Zero words add nothing."""
    at = np.flatnonzero(words)
    return value(name, at, words[at])


def state_fingerprint(state: State) -> int:
    """The fingerprint of a state, from a scan of all its words."""
    return sum(tensor_fingerprint(name, tensor.words) for name, tensor in state.items()) % 2**64
