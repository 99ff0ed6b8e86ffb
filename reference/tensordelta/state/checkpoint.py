"""Checkpoints on disk: a safetensors file, or a Hugging Face folder of them.

Reading maps the files, so that a checkpoint of any size takes no memory of its own.
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs.words import Words
from ..errors import ConflictError, LimitError, MalformedError, MissingError
from ..format import strict_json
from ..format.layout import Layout, Tensor
from ..format.names import CHAIN, is_path
from ..format.safetensors import Header, build_header, header_size, parse_plain

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
INDEX = "model.safetensors.index.json"
DEFAULT_SHARD = "model.safetensors"

#: Suffixes of weights in other formats and of files that trainers leave in a folder: no files of the checkpoint.
_NOT_FILES = frozenset(
    [
        *(".bin", ".ckpt", ".distcp", ".gguf", ".h5", ".lock", ".msgpack", ".npy", ".npz"),
        *(".onnx", ".pkl", ".pt", ".pth", ".safetensors", ".tflite", ".tmp"),
    ]
)
#: Bytes that a file of a checkpoint may have, other than a safetensors file.
_MAX_FILE = 64 * 2**20


@dataclass(frozen=True)
class Shard:
    """One safetensors file of a checkpoint.

    Attributes:
        name: the file's name in the checkpoint.
        path: where it is.
        header: its header.
    """

    name: str
    path: Path
    header: Header


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        layout: its tensors.
        words: for each tensor its words, mapped read-only.
        shards: its safetensors files.
        files: its other files, by name.
        is_folder: False for a single file.
        index: name of the file that lists the shards, if there is one.
    """

    layout: Layout
    words: Sequence[Words]
    shards: Sequence[Shard]
    files: Mapping[str, Path]
    is_folder: bool
    index: str | None = None

    @property
    def shard_of(self) -> dict[str, str]:
        """Name of the shard by name of the tensor."""
        return {name: shard.name for shard in self.shards for name in shard.header.entries}


def map_words(file: BufferedIOBase, *, writable: bool = False) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of an open file, mapped; the map stays valid when the file is closed.

    Raises:
        OSError: the file system cannot map it.
    """
    if not os.fstat(file.fileno()).st_size:
        return np.empty(0, np.uint8)
    try:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    except OSError as error:
        name = getattr(file, "name", None)  # a number where it was opened by one
        reason = f"{error.strerror}: its file system does not map files into memory; choose a folder on another one"
        raise OSError(error.errno, reason, *([name] if isinstance(name, str) else [])) from None
    return np.frombuffer(mapped, np.uint8)


def _mapped(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with path.open("rb") as file:
        return map_words(file)


def read_header(path: Path) -> Header:
    """The header of a safetensors file.

    Raises:
        MissingError: no such file.
        MalformedError, LimitError: it is no valid safetensors file.
    """
    try:
        with path.open("rb") as file:
            return read_raw_header(file, object=str(path))[1]
    except (FileNotFoundError, IsADirectoryError):
        raise MissingError(
            "no such file", object=str(path), rule="TD-PCK-014", advice="Name a safetensors file, or a folder of them."
        ) from None


def read_raw_header(file: BufferedIOBase, *, object: str) -> tuple[bytes, Header]:
    """The bytes of an open safetensors file before its words, and the header in them.

    Raises:
        MalformedError, LimitError: it is no valid safetensors file.
    """
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    raw = file.read(header_size(prefix, size=size, object=object))
    return prefix + raw, parse_plain(raw, size=size, object=object)


def tensor_words(mapped: np.ndarray[Any, np.dtype[np.uint8]], header: Header, tensor: Tensor) -> Words:
    """A tensor's words in a mapped file."""
    begin, end = header.entries[tensor.name].data_offsets
    return mapped[header.start + begin : header.start + end].view(tensor.kind.word)


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a safetensors file, or a Hugging Face folder with or without an index.

    Raises:
        MissingError: no such file or folder, or a folder without a safetensors file.
        ConflictError: the folder of a chain.
        MalformedError, UnsupportedError, LimitError: a file that is no valid safetensors file, or a tensor that the
            format does not allow.
    """
    path = Path(path)
    try:
        return _opened(path)
    except (MalformedError, LimitError) as fault:
        if fault.advice != fault.default_advice:
            raise
        advice = "The file is damaged, or is no safetensors file: name another, or save it again."
        raise type(fault)(fault.reason, object=fault.object, rule=fault.rule, advice=advice) from None


def _opened(path: Path) -> Checkpoint:
    if (path / CHAIN).is_file():
        raise ConflictError(
            "is the folder of a chain, not a checkpoint",
            object=str(path),
            rule="TD-OBJ-001",
            advice="Name a checkpoint; to copy a version of that chain, pull it into a folder first.",
        )
    if path.is_dir():
        index, names = _shard_names(path)
        shards = [Shard(name, path / name, read_header(path / name)) for name in names]
        return _open(path, shards, _files(path), is_folder=True, index=index)
    return _open(path, [Shard(path.name, path, read_header(path))], {}, is_folder=False)


def _open(
    path: Path, shards: list[Shard], files: Mapping[str, Path], *, is_folder: bool, index: str | None = None
) -> Checkpoint:
    held: dict[str, tuple[Tensor, Shard]] = {}
    for shard in shards:
        for name, entry in shard.header.entries.items():
            if name in held:
                raise MalformedError(
                    f"tensor {name!r} is in {held[name][1].name} and in {shard.name}",
                    object=str(path),
                    rule="TD-PCK-014",
                    advice="Remove one of them, or write an index that names one file for each tensor.",
                )
            held[name] = Tensor(name, entry.dtype, entry.shape), shard
    layout = Layout.of((tensor for tensor, _ in held.values()), object=str(path))
    maps = {shard.name: _mapped(shard.path) for shard in shards}
    words = []
    for tensor in layout.tensors:
        shard = held[tensor.name][1]
        words.append(tensor_words(maps[shard.name], shard.header, tensor))
    return Checkpoint(layout, words, shards, files, is_folder, index)


def _shard_names(folder: Path) -> tuple[str | None, list[str]]:
    """The index and the safetensors files that make up a folder's checkpoint, as Hugging Face's loaders choose them."""
    if (folder / DEFAULT_SHARD).is_file():
        return None, [DEFAULT_SHARD]
    indices = sorted(each.name for each in folder.iterdir() if each.name.endswith(INDEX_SUFFIX) and is_path(each.name))
    if indices:
        index = INDEX if INDEX in indices else indices[0]
        named = read_index((folder / index).read_bytes(), object=str(folder / index))
        return index, sorted(set(named.values()))
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(SUFFIX) and each.is_file())
    if not names:
        raise MissingError(
            "holds no safetensors file",
            object=str(folder),
            rule="TD-PCK-014",
            advice="Name a safetensors file, or a folder of them.",
        )
    for name in names:
        if not is_path(name):
            raise MalformedError(
                f"the file name {name!r} has characters that paths of the format lack",
                object=str(folder),
                rule="TD-PTH-001",
                advice="Rename the file: letters, digits and ._- are allowed.",
            )
    return None, names


def read_index(data: bytes, *, object: str) -> dict[str, str]:
    """The weight map of a Hugging Face index: tensor name -> file name.

    Raises:
        MalformedError: no weight map, or one that names a file outside the folder.
    """
    try:
        if len(data) > _MAX_FILE or strict_json.depth(data) > strict_json.MAX_DEPTH:
            raise ValueError
        weight_map = json.loads(data)["weight_map"]
        pairs = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MalformedError(
            "no weight map", object=object, rule="TD-PCK-014", advice="Write the index again."
        ) from None
    for file in pairs.values():
        if not is_path(file) or not file.endswith(SUFFIX):
            raise MalformedError(
                f"names the file {file!r}", object=object, rule="TD-PTH-001", advice="Write the index again."
            )
    return pairs


def build_index(shard_of: Mapping[str, str], total_size: int) -> bytes:
    """A Hugging Face index for these shards."""
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(shard_of.items()))}
    return json.dumps(index, indent=2).encode() + b"\n"


def _files(folder: Path) -> dict[str, Path]:
    """The small files of a folder that belong to its checkpoint (config.json, tokenizer …)."""
    found: dict[str, Path] = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if not is_path(relative) or not path.is_file():
                continue
            if path.suffix.lower() in _NOT_FILES or path.stat().st_size > _MAX_FILE:
                continue
            found[relative] = path
    return found


def shard_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The order of tensors in a file: widest dtype first, so that every tensor is aligned."""
    return sorted(tensors, key=lambda tensor: (-tensor.kind.bits, tensor.name))


def shard_header(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file of these tensors, in the order given, before its words."""
    return build_header(((tensor.name, tensor.dtype, tensor.shape, tensor.nbytes) for tensor in tensors), metadata)


def write_file(
    path: str | os.PathLike[str], layout: Layout, words: Sequence[Words], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a state as one safetensors file, atomically; see `State.save`."""
    path = Path(path)
    tensors = shard_order(layout.tensors)
    # Not the process's id: threads have the same one, and so may processes of two containers that share a disk.
    temporary = path.with_name(f".tensordelta-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(shard_header(tensors, metadata or {}))
            for tensor in tensors:
                file.write(words[layout.index[tensor.name]].data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
