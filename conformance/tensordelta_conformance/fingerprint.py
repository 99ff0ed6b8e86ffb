"""Fingerprints of whole states (SPEC.md section 8.1), for states too large to lie in a case's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .state import Tensor, word_bytes

_MASK = (1 << 64) - 1
_RUN = 1 << 16


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _low_factors() -> npt.NDArray[np.uint64]:
    return np.array([_mix(i) | 1 for i in range(_RUN)], dtype=np.uint64)


_LOW: list[npt.NDArray[np.uint64]] = []


def tensor_fingerprint(name: str, tensor: Tensor) -> int:
    """The fingerprint of one tensor, a u64."""
    if not _LOW:
        _LOW.append(_low_factors())
    low = _LOW[0]
    lanes = np.frombuffer(tensor.data, dtype="u1" if word_bytes(tensor.dtype) == 1 else "<u2")
    seed = int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "little")
    total = 0
    # The coefficient of a lane is a factor of its run of 65,536 lanes times a factor of its place in the run.
    for run, start in enumerate(range(0, len(lanes), _RUN)):
        part = lanes[start : start + _RUN]
        if part.any():
            inner = int((part.astype(np.uint64) * low[: len(part)]).sum(dtype=np.uint64))
            total += inner * (_mix((seed + run) & _MASK) | 1)
    return total & _MASK


def state_fingerprint(state: Mapping[str, Tensor]) -> str:
    """The fingerprint of a state, as 16 hex digits."""
    total = sum(tensor_fingerprint(name, tensor) for name, tensor in state.items())
    return f"{total & _MASK:016x}"
