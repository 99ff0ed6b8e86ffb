"""States as safetensors files: a strict reader, a writer, and a comparison that names the first word that differs.

SPEC.md sections 3 and 6.1. Nothing here interprets an element: tensors are bytes of a dtype and a shape.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Buffer = bytes | bytearray | memoryview

BITS = {
    "F64": 64,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "BF16": 16,
    "F16": 16,
    "I16": 16,
    "U16": 16,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
"""Bits of an element of each dtype (SPEC.md section 3.2)."""

NUMPY_NAMES = {
    "float64": "F64",
    "complex64": "C64",
    "int64": "I64",
    "uint64": "U64",
    "float32": "F32",
    "int32": "I32",
    "uint32": "U32",
    "bfloat16": "BF16",
    "float16": "F16",
    "int16": "I16",
    "uint16": "U16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""Names of numpy and ml_dtypes (`array.dtype.name`) whose elements lie in memory as safetensors stores them."""

_MAX_HEADER = 100_000_000
_MAP_FROM = 1 << 26
_BLOCK = 1 << 24


class StateError(ValueError):
    """What is wrong with a file, or a value, that should be a state."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a state: `data` is the row-major elements as safetensors stores them, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: Buffer


State = dict[str, Tensor]


def word_bytes(dtype: str) -> int:
    """Bytes of a word: packed dtypes have words of one byte."""
    return max(BITS[dtype], 8) // 8


def byte_count(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor. Raises StateError for an unknown dtype or a count of bits that is no whole bytes."""
    if dtype not in BITS:
        raise StateError(f"dtype {dtype!r} is not known")
    bits = math.prod(shape) * BITS[dtype]
    if bits % 8:
        raise StateError(f"{bits} bits of {dtype} are no whole number of bytes")
    return bits // 8


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise StateError("the header gives a name twice")
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(name: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise StateError(f"tensor {name!r} is not described by exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise StateError(f"the dtype of tensor {name!r} is no string")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise StateError(f"the shape of tensor {name!r} is no list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise StateError(f"the data_offsets of tensor {name!r} are no two offsets")
    begin, end = offsets
    size = byte_count(dtype, tuple(shape))
    if end - begin != size:
        raise StateError(f"tensor {name!r} has {end - begin} bytes; {dtype} {shape} needs {size}")
    return dtype, tuple(shape), begin, end


def parse_state(data: Buffer) -> State:
    """The state in the bytes of a safetensors file.

    The offsets have to cover the buffer exactly, names to be unique, and sizes to agree with dtype and shape. Tensors
    are views of `data`. Raises StateError.
    """
    view = memoryview(data)
    if len(view) < 8:
        raise StateError(f"{len(view)} bytes are too few for a safetensors file")
    (length,) = struct.unpack("<Q", view[:8])
    if length > _MAX_HEADER or length > len(view) - 8:
        raise StateError(f"a header of {length} bytes does not fit into a file of {len(view)} bytes")
    raw = bytes(view[8 : 8 + length])
    if not raw.startswith(b"{"):
        raise StateError("the header does not begin with '{'")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise StateError(f"the header is no JSON: {error}") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise StateError("__metadata__ is no object of strings")
    buffer = view[8 + length :]
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    at = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != at:
            raise StateError(f"the bytes of tensor {name!r} begin at {begin}; those before end at {at}")
        at = end
    if at != len(buffer):
        raise StateError(f"the tensors end at {at}, the buffer at {len(buffer)}")
    return {name: Tensor(dtype, shape, buffer[begin:end]) for name, (dtype, shape, begin, end) in entries.items()}


def read_state(path: Path) -> State:
    """The state of a safetensors file. Raises StateError, also where the file cannot be read."""
    try:
        size = path.stat().st_size
        if size < _MAP_FROM:
            return parse_state(path.read_bytes())
        with path.open("rb") as file:
            return parse_state(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as error:
        raise StateError(f"cannot be read: {error.strerror or error}") from error


def encode_state(state: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file of a state, tensors in the order of their names."""
    header: dict[str, object] = {}
    at = 0
    for name, tensor in sorted(state.items()):
        size = byte_count(tensor.dtype, tensor.shape)
        if memoryview(tensor.data).nbytes != size:
            found = memoryview(tensor.data).nbytes
            raise StateError(f"tensor {name!r} has {found} bytes; {tensor.dtype} {list(tensor.shape)} needs {size}")
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    return b"".join([struct.pack("<Q", len(raw)), raw, *(tensor.data for _, tensor in sorted(state.items()))])


def _array_tensor(name: str, array: npt.NDArray[Any]) -> Tensor:
    dtype = NUMPY_NAMES.get(array.dtype.name)
    if dtype is None:
        raise StateError(
            f"tensor {name!r}: numpy's {array.dtype.name} is not stored as safetensors stores it; "
            "give a tuple (dtype, shape, bytes)"
        )
    little = np.asarray(array, order="C")
    if little.dtype.byteorder == ">" or (little.dtype.byteorder == "=" and not np.little_endian):
        little = little.astype(little.dtype.newbyteorder("<"))
    return Tensor(dtype, tuple(int(size) for size in array.shape), little.tobytes())


def as_state(value: object) -> State:
    """What a reader in Python hands back, as a state.

    `value`: the path of a safetensors file, the bytes of one, or a mapping from names to numpy arrays, to `Tensor`s,
    or to tuples (dtype, shape, bytes). Raises StateError.
    """
    if isinstance(value, str | Path):
        return read_state(Path(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return parse_state(value)
    if not isinstance(value, Mapping):
        raise StateError(f"a {type(value).__name__} is no state: give a path, bytes or a mapping of names to tensors")
    state: State = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise StateError(f"a tensor's name is a {type(name).__name__}, not a string")
        if isinstance(item, np.ndarray):
            state[name] = _array_tensor(name, item)
        elif isinstance(item, Tensor):
            state[name] = item
        elif isinstance(item, tuple) and len(item) == 3:
            dtype, shape, data = item
            state[name] = Tensor(dtype, tuple(shape), data)
        else:
            raise StateError(f"tensor {name!r} is a {type(item).__name__}, no array, Tensor or (dtype, shape, bytes)")
    return state


def _words(tensor: Tensor) -> npt.NDArray[np.unsignedinteger[Any]]:
    return np.frombuffer(tensor.data, dtype=f"<u{word_bytes(tensor.dtype)}")


def _word_difference(name: str, expected: Tensor, got: Tensor) -> str | None:
    want, have = _words(expected), _words(got)
    count, first = 0, -1
    for start in range(0, len(want), _BLOCK):
        differs = np.flatnonzero(want[start : start + _BLOCK] != have[start : start + _BLOCK])
        if len(differs) and first < 0:
            first = start + int(differs[0])
        count += len(differs)
    if not count:
        return None
    digits = 2 * word_bytes(expected.dtype)
    return (
        f"tensor {name!r}: word {first} is 0x{int(have[first]):0{digits}x}, not 0x{int(want[first]):0{digits}x} "
        f"({count} of {len(want)} words differ)"
    )


def state_differences(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    """A sentence for each tensor in which two states differ; empty when they are equal (SPEC.md section 3.3)."""
    found = []
    for name in sorted(expected.keys() | got.keys()):
        if name not in got:
            found.append(f"tensor {name!r} is missing")
        elif name not in expected:
            found.append(f"tensor {name!r} should not be there")
        else:
            want, have = expected[name], got[name]
            if have.dtype != want.dtype:
                found.append(f"tensor {name!r} has dtype {have.dtype}, not {want.dtype}")
            elif have.shape != want.shape:
                found.append(f"tensor {name!r} has shape {list(have.shape)}, not {list(want.shape)}")
            elif (difference := _word_difference(name, want, have)) is not None:
                found.append(difference)
    return found
