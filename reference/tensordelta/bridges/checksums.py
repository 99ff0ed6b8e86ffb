"""Checksums of whole tensors, as other formats write them: in lower hexadecimal digits."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The algorithms by the names that formats give them, and how many hexadecimal digits each has.
DIGITS = {"xxh3-128": 32, "blake3": 64, "adler32": 8, "sha256": 64}


def checksum(algorithm: str, data: NDArray[np.uint8]) -> str:
    """The checksum of a tensor's bytes.

    Args:
        algorithm: one of `DIGITS`.
        data: the bytes, C-contiguous.

    Raises:
        ImportError: the algorithm needs a package that is not installed.
    """
    return _function(algorithm)(data)


def check_installed(algorithm: str) -> None:
    """Check that an algorithm can be used, before anything is read or written.

    Raises:
        ImportError: it needs a package that is not installed.
    """
    _function(algorithm)


def _function(algorithm: str) -> Callable[[Any], str]:
    try:
        if algorithm == "xxh3-128":
            import xxhash

            return lambda data: xxhash.xxh3_128_hexdigest(data)
        if algorithm == "blake3":
            import blake3

            return lambda data: str(blake3.blake3(data).hexdigest())
    except ImportError as error:
        package = algorithm.partition("-")[0].replace("xxh3", "xxhash")
        raise ImportError(f"{algorithm} checksums need {package}: pip install 'tensordelta[bridges]'") from error
    if algorithm == "sha256":
        return lambda data: hashlib.sha256(data).hexdigest()
    return lambda data: f"{zlib.adler32(data):08x}"
