"""Objects of foreign folders: JSON documents, safetensors files read from a store, and files of one's own to put."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import LimitError, MalformedError, MissingError
from ..format import strict_json
from ..format.layout import Layout, Tensor
from ..format.safetensors import Header, header_size, parse_header
from ..state.checkpoint import shard_header, shard_order
from ..state.own_file import MAX_FILE
from ..stores import FileBlob, StoredBlob
from .format import Source

Bytes = NDArray[np.uint8]

#: Bytes that a JSON document may have.
_MAX_DOCUMENT = 256 << 20
#: Bytes of a safetensors file that are read at first, which hold most headers, and then ahead.
_FIRST, _AHEAD = 1 << 16, 8 << 20

_MEND = "The writer of these files broke their format: have it write the version again, or begin at a later full one."


def malformed(reason: str, *, object: str, rule: str) -> MalformedError:
    """The error for an object that breaks its own format."""
    return MalformedError(reason, object=object, rule=rule, advice=_MEND)


def read_document(source: Source, name: str, *, rule: str) -> tuple[dict[str, Any], str]:
    """A JSON object, and its SHA-256.

    Raises:
        MissingError: there is none.
        MalformedError, LimitError: it is no JSON object, has a key twice, or is too large or too deep.
    """
    with source.open(name) as blob:
        if blob.size > _MAX_DOCUMENT:
            raise LimitError(f"{blob.size} bytes, more than {_MAX_DOCUMENT}", object=name, rule=rule)
        data = bytes(blob.read(0, blob.size))

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key stands there twice")
        return dict(pairs)

    try:
        if strict_json.depth(data) > strict_json.MAX_DEPTH:
            raise ValueError("it is nested too deep")
        found = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise malformed(f"is no JSON of this format: {error}", object=name, rule=rule) from None
    if not isinstance(found, dict):
        raise malformed("is no JSON object", object=name, rule=rule)
    return found, hashlib.sha256(data).hexdigest()


def read_bytes(source: Source, name: str) -> bytes:
    """A small object's bytes.

    Raises:
        MissingError: there is none.
        LimitError: it is too large for a file beside a checkpoint.
    """
    with source.open(name) as blob:
        if blob.size > MAX_FILE:
            raise LimitError(f"{blob.size} bytes, more than {MAX_FILE}", object=name, rule="TD-LIM-004")
        return bytes(blob.read(0, blob.size))


class Shard:
    """An open safetensors file of a store; a context manager. One thread uses it.

    Args:
        source: where it is.
        name: its name.
        rule: of SPEC.md, for errors.

    Attributes:
        name: the same.
        header: its header.
        digest: SHA-256 of the header's bytes.

    Raises:
        MissingError: there is no such object.
        MalformedError, LimitError: it is no safetensors file, or tensors do not cover it exactly.
    """

    def __init__(self, source: Source, name: str, *, rule: str) -> None:
        self.name = name
        try:
            self._blob: StoredBlob = source.open(name).__enter__()
        except MissingError:
            raise MissingError("is not there", object=name, rule=rule, advice=_MEND) from None
        try:
            size = self._blob.size
            start = bytes(self._blob.read(0, min(_FIRST, size)))
            self._window, self._at = memoryview(start), 0
            length = header_size(start[:8], size=size, object=name)
            raw = bytes(self._read(8, length))
            self.header: Header = parse_header(raw, size=size, object=name)
            self.digest = hashlib.sha256(raw).hexdigest()
        except BaseException:
            self._blob.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._blob.__exit__(None, None, None)

    def _read(self, offset: int, length: int) -> memoryview:
        if not (self._at <= offset and offset + length <= self._at + len(self._window)):
            ahead = min(max(length, _AHEAD), self._blob.size - offset)
            self._window, self._at = self._blob.read(offset, ahead), offset
        return self._window[offset - self._at : offset - self._at + length]

    def tensors(self) -> Iterator[tuple[str, memoryview]]:
        """Names and bytes, in the order of the file."""
        for name, entry in sorted(self.header.entries.items(), key=lambda item: item[1].data_offsets):
            begin, end = entry.data_offsets
            yield name, self._read(self.header.start + begin, end - begin)

    def bytes_of(self, name: str) -> memoryview:
        """A tensor's bytes."""
        begin, end = self.header.entries[name].data_offsets
        return self._read(self.header.start + begin, end - begin)

    def layout(self) -> Layout:
        """Its tensors.

        Raises:
            MalformedError, UnsupportedError, LimitError: a tensor that no chain can hold.
        """
        entries = self.header.entries.items()
        return Layout.of((Tensor(name, entry.dtype, entry.shape) for name, entry in entries), object=self.name)


def write_shard(path: Path, tensors: Mapping[str, tuple[Tensor, Bytes]], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file of these tensors and their bytes; the dtypes decide the order."""
    order = shard_order(tensor for tensor, _ in tensors.values())
    with path.open("xb") as file:
        file.write(shard_header(order, metadata))
        for tensor in order:
            file.write(tensors[tensor.name][1].data)


def file_parts(path: Path) -> Iterable[memoryview]:
    """The bytes of a file, in parts."""
    with FileBlob(path) as blob:
        for offset in range(0, blob.size, _AHEAD):
            yield blob.read(offset, min(_AHEAD, blob.size - offset))
