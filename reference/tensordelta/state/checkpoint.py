"""Checkpoints on disk: a safetensors file, or a Hugging Face folder of them.

Their words stay in the files until they are used, so that a checkpoint of any size takes no memory of its own.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..codecs.words import Words
from ..errors import ConflictError, MalformedError
from ..format.layout import Layout, Tensor
from ..format.names import CHAIN
from ..format.safetensors import Header, build_header, header_size, parse_header
from ..stores import check_slashes
from ..stores.models import cached_model, fetch_model, is_model
from .folder import LeftOut, check_is_whole, contents_of, needed
from .holes import MAX_HOLES
from .own_file import OwnFile
from .shard_file import READ, FileWords, ShardFile

DEFAULT_SHARD = "model.safetensors"
#: How names of temporary files begin and end, and seconds after which they are abandoned.
_TEMPORARY = ".tensordelta-", ".tmp"
_STALE = 86_400


@dataclass(frozen=True)
class Shard:
    """One safetensors file of a checkpoint.

    Attributes:
        name: the file's name in the checkpoint.
        file: the open file.
    """

    name: str
    file: ShardFile

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path

    @property
    def header(self) -> Header:
        """Its header."""
        return self.file.header


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        layout: its tensors.
        words: for each tensor its words, in the files.
        shards: its safetensors files.
        files: its other files, by name.
        is_folder: False for a single file.
        index: name of the file that lists the shards, if there is one.
        left_out: what else is in the folder, and why it is no part of the checkpoint.
    """

    layout: Layout
    words: Sequence[FileWords]
    shards: Sequence[Shard]
    files: Mapping[str, OwnFile]
    is_folder: bool
    index: str | None = None
    left_out: Sequence[LeftOut] = ()

    @property
    def shard_of(self) -> dict[str, str]:
        """Name of the shard by name of the tensor."""
        return {name: shard.name for shard in self.shards for name in shard.header.entries}


def read_raw_header(file: BufferedIOBase, *, object: str) -> tuple[bytes, Header]:
    """The bytes of an open safetensors file before its words, and the header in them.

    Raises:
        MalformedError, LimitError: it is no valid safetensors file.
    """
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    raw = file.read(header_size(prefix, size=size, object=object))
    return prefix + raw, parse_header(raw, size=size, object=object)


def tensor_words(mapped: NDArray[np.uint8], header: Header, tensor: Tensor) -> Words:
    """A tensor's words in a mapped file."""
    begin, end = header.entries[tensor.name].data_offsets
    return mapped[header.start + begin : header.start + end].view(tensor.kind.word)


def open_checkpoint(path: str | os.PathLike[str], *, part: bool = False) -> Checkpoint:
    """Open a safetensors file, or a Hugging Face folder with or without an index.

    Args:
        path: of the file or folder, also one in the cache of the Hub's client; or `hf://ORG/MODEL[@REVISION]`, which is
            brought into that cache.
        part: a file may be one of several that make a checkpoint; of a model on the Hub only the weights are fetched.

    Raises:
        MissingError: no such file or folder; a folder without a safetensors file, or without one of several that belong
            together; or, without `part`, one of several alone.
        ConflictError: the folder of a chain.
        MalformedError, UnsupportedError, LimitError: a file that is no valid safetensors file, or a tensor that the
            format does not allow; a folder of which loaders would choose different weights (see `folder`); or weights
            that are holes for the most part.
        UntrustedError: weights that are a link out of the folder.
        StoreError: the Hub did not answer, or refused.
        ValueError: an address that is none of a model.
    """
    if is_model(os.fspath(path)):
        path = fetch_model(os.fspath(path), partial(needed, weights_only=part))
    check_slashes(os.fspath(path))
    path = cached_model(Path(path))
    if (path / CHAIN).is_file():
        raise ConflictError(
            "is the folder of a chain, not a checkpoint",
            object=str(path),
            rule="TD-OBJ-001",
            advice="Name a checkpoint; to copy a version of that chain, pull it into a folder first.",
        )
    if not path.is_dir():
        if not part:
            check_is_whole(path)
        layout, words, shard = _join(path, {path.name: ShardFile(path)})
        return Checkpoint(layout, words, shard, {}, is_folder=False)
    found = contents_of(path)
    layout, words, shards = _join(path, {name: ShardFile(path / name, real) for name, real in found.shards.items()})
    if found.index is not None:
        _check_index(path / found.index, found.weight_map, shards)
    return Checkpoint(layout, words, shards, found.files, True, found.index, found.left_out)


def _join(path: Path, files: Mapping[str, ShardFile]) -> tuple[Layout, list[FileWords], list[Shard]]:
    """The tensors of several files: their layout, their words in its order, and the files.

    Raises:
        MalformedError: a tensor is in two files; or the files are holes for the most part.
        UnsupportedError, LimitError: the format does not allow a tensor.
    """
    _check_holes(path, files.values())
    held: dict[str, tuple[Tensor, str]] = {}
    for name, file in files.items():
        for tensor, entry in file.header.entries.items():
            if tensor in held:
                raise MalformedError(
                    f"tensor {tensor!r} is in {held[tensor][1]} and in {name}",
                    object=str(path),
                    rule="TD-PCK-014",
                    advice="Remove one of them, or write an index that names one file for each tensor.",
                )
            held[tensor] = Tensor(tensor, entry.dtype, entry.shape), name
    layout = Layout.of((tensor for tensor, _ in held.values()), object=str(path))
    words = [FileWords.of(files[held[tensor.name][1]], tensor.name, tensor.kind.word) for tensor in layout.tensors]
    return layout, words, [Shard(name, file) for name, file in files.items()]


def _check_holes(path: Path, files: Collection[ShardFile]) -> None:
    """Check that the files are not holes for the most part, which would be read as zeros for hours.

    Raises:
        MalformedError: they are.
    """
    size, holes = sum(file.size for file in files), sum(file.holes for file in files)
    if holes > MAX_HOLES and 2 * holes > size:
        raise MalformedError(
            f"has {size:,} bytes of weights, of which only {size - holes:,} are on the disk",
            object=str(path),
            rule="TD-PCK-014",
            advice="The files were not written to their end: download or save them again.",
        )


def _check_index(path: Path, weight_map: Mapping[str, str], shards: Sequence[Shard]) -> None:
    """Check that an index says of each tensor what its files say.

    Raises:
        MalformedError: it does not.
    """
    held = {name: shard.name for shard in shards for name in shard.header.entries}
    wrong = sorted(name for name in weight_map.keys() | held.keys() if weight_map.get(name) != held.get(name))
    if not wrong:
        return
    name = wrong[0]
    if name not in held:
        reason = f"names tensor {name!r} in {weight_map[name]}, which lacks it"
    elif name not in weight_map:
        reason = f"does not name tensor {name!r}, which is in {held[name]}"
    else:
        reason = f"names tensor {name!r} in {weight_map[name]}, and it is in {held[name]}"
    more = f"; {len(wrong) - 1:,} more tensors differ" if len(wrong) > 1 else ""
    raise MalformedError(
        reason + more,
        object=str(path),
        rule="TD-PCK-014",
        advice="Save the checkpoint again, or correct the index; without an index all its files are taken.",
    )


def shard_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The order of tensors in a file: widest dtype first, so that every tensor is aligned."""
    return sorted(tensors, key=lambda tensor: (-tensor.kind.bits, tensor.name))


def shard_header(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file of these tensors, in the order given, before its words."""
    return build_header(((tensor.name, tensor.dtype, tensor.shape, tensor.nbytes) for tensor in tensors), metadata)


def parts(words: Words | FileWords) -> Iterator[Words]:
    """A tensor's words: as they lie in memory, or part by part as they are read."""
    if isinstance(words, FileWords):
        step = READ // words.itemsize
        yield from (words[start : start + step] for start in range(0, len(words), step))
    else:
        yield words


def write_file(
    path: str | os.PathLike[str],
    layout: Layout,
    words: Sequence[Words | FileWords],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a state as one safetensors file, atomically; see `State.save`."""
    path = Path(path)
    tensors = shard_order(layout.tensors)
    _sweep(path.parent)
    # Not the process's id: threads have the same one, and so may processes of two containers that share a disk.
    temporary = path.with_name(f"{_TEMPORARY[0]}{secrets.token_hex(8)}{_TEMPORARY[1]}")
    try:
        with temporary.open("xb") as file:
            file.write(shard_header(tensors, metadata or {}))
            for tensor in tensors:
                for part in parts(words[layout.index[tensor.name]]):
                    file.write(part.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # a full disk names no file
            error.filename = str(path)
        raise


def _sweep(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they saved."""
    with suppress(OSError), os.scandir(folder) as scan:
        for entry in scan:
            if entry.name.startswith(_TEMPORARY[0]) and entry.name.endswith(_TEMPORARY[1]):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE:
                        os.unlink(entry.path)
