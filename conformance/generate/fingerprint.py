"""Fingerprints of states and tensors, and values of words (SPEC.md section 8)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from generate.model import MASK64, Model


def _mix(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray[Any, Any] = z ^ (z >> np.uint64(31))
    return mixed


def coefficients(name: str, lanes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The coefficients of lanes of a tensor, given by number."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    lanes = lanes.astype(np.uint64)
    with np.errstate(over="ignore"):
        outer: np.ndarray[Any, Any] = _mix(seed + (lanes >> np.uint64(16))) | np.uint64(1)
        product: np.ndarray[Any, Any] = outer * (_mix(lanes & np.uint64(65535)) | np.uint64(1))
    return product


def tensor_fingerprint(name: str, words: np.ndarray[Any, Any]) -> int:
    """The sum over all words of a tensor."""
    lanes = words if words.dtype.itemsize <= 2 else words.view(np.uint16)
    at = np.flatnonzero(lanes)  # zero lanes add nothing
    with np.errstate(over="ignore"):
        return int(np.sum(lanes[at].astype(np.uint64) * coefficients(name, at), dtype=np.uint64))


def value_of(name: str, at: np.ndarray[Any, Any], words: np.ndarray[Any, Any]) -> int:
    """The sum of value(...) of section 8.3 over the words of a tensor at some numbers."""
    lanes = max(words.dtype.itemsize // 2, 1)
    total = 0
    with np.errstate(over="ignore"):
        for lane in range(lanes):
            shift, mask = np.uint64(16 * lane), np.uint64(65535)
            each = words.astype(np.uint64) >> shift & mask
            total += int(np.sum(each * coefficients(name, at * lanes + lane), dtype=np.uint64))
    return total & MASK64


def fingerprint(model: Model) -> str:
    """The fingerprint of a state, as manifests write it."""
    return f"{sum(tensor_fingerprint(name, each.words) for name, each in model.items()) & MASK64:016x}"
