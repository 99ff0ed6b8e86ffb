"""Checkpoint folders for tests: written with safetensors' own writer, compared byte by byte."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

INDEX = "model.safetensors.index.json"
PRIVATE = ".tensordelta"

Shards = Mapping[str, Mapping[str, np.ndarray]]


def save(folder: Path, shards: Shards, files: Mapping[str, bytes] | None = None, *, index: str | None = INDEX) -> Path:
    """Write a Hugging Face folder: safetensors files, an index where there are several, and files beside them."""
    folder.mkdir(parents=True)
    for name, arrays in shards.items():
        save_file(dict(arrays), folder / name, metadata={"format": "pt"})
    if len(shards) > 1 and index is not None:
        weight_map = {tensor: name for name, arrays in shards.items() for tensor in arrays}
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name, data in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def changed(shards: Shards, rng: np.random.Generator, share: float) -> dict[str, dict[str, np.ndarray]]:
    """The same tensors, with this share of the words of each changed, one at least."""
    result: dict[str, dict[str, np.ndarray]] = {}
    for shard, arrays in shards.items():
        result[shard] = {}
        for name, array in arrays.items():
            words = array.reshape(-1).view(f"u{array.itemsize}").copy()
            at = rng.permutation(len(words))[: max(1, round(share * len(words)))]
            words[at] += rng.integers(1, 3, len(at)).astype(words.dtype)
            result[shard][name] = words.view(array.dtype).reshape(array.shape)
    return result


def contents(folder: Path, *, private: bool = False) -> dict[str, bytes | None]:
    """Every file of a folder with its bytes, and every subfolder; the private one left out unless asked for."""
    found: dict[str, bytes | None] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if private or name.split("/")[0] != PRIVATE:
            found[name] = os.fsencode(path.readlink()) if path.is_symlink() else _bytes(path)
    return found


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def tensors(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """The tensors of a safetensors file as its bytes say: name -> (dtype, shape, bytes)."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {
        name: (
            entry["dtype"],
            entry["shape"],
            data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def all_tensors(folder: Path) -> dict[str, dict[str, tuple[str, list[int], bytes]]]:
    """The tensors of each safetensors file of a folder."""
    return {path.name: tensors(path) for path in sorted(folder.glob("*.safetensors"))}


def flip(path: Path, at: int = -1, *, restore_time: bool = False) -> None:
    """Change one byte of a file."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    if restore_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
