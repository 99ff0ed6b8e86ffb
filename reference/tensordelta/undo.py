"""The undo record of a patch in place: the old words of a pulled folder, proven before they are written back.

It is a line that names the format, a head in JSON, indices and old words run by run, and a SHA-256 of all before it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from .checkpoint import map_words
from .holding import Holding, garbled
from .objects import Version
from .staging import sync_file
from .update import Update

UNDO = "undo"
_MAGIC = b"tensordelta undo 2\n"
#: Bytes of the digest, which follows the old words.
_DIGEST = 32
_READ = 1 << 22

_Count = Annotated[int, Meta(ge=0)]


class _Run(msgspec.Struct, frozen=True):
    """A piece of the undo record: which words of which tensor in which file.

    Attributes:
        file, offset: where the tensor's bytes begin.
        words, word: their number, and numpy's name of their type.
        count: number of old words in the record.
        range: first word and the one after the last; None where the record has an index for each.
    """

    file: str
    offset: _Count
    words: _Count
    word: Annotated[str, Meta(pattern=r"^([|]u1|<u[248])\Z")]
    count: _Count
    range: tuple[_Count, _Count] | None


class UndoHead(msgspec.Struct, frozen=True):
    """The undo record's first part: what the folder held when it was written, and the runs that follow."""

    version: Version
    fingerprint: str
    runs: list[_Run]

    @classmethod
    def of(cls, update: Update, held: Holding, folder: Path) -> UndoHead:
        """The head for an update that patches what a folder holds.

        Raises:
            WrongBaseError: a file's header is not as it was pulled.
        """
        headers = held.headers(folder)
        where = {tensor: name for name, header in headers.items() for tensor in header.entries}
        runs: list[_Run] = []
        for piece in update.runs():
            tensor = update.layout.tensors[piece.tensor]
            name = where[tensor.name]
            runs.append(
                _Run(
                    file=name,
                    offset=headers[name].start + headers[name].entries[tensor.name].data_offsets[0],
                    words=tensor.words,
                    word=tensor.kind.word.str,
                    count=len(piece.new),
                    range=(piece.start, piece.stop) if piece.indices is None else None,
                )
            )
        return cls(held.version, held.fingerprint, runs)

    @property
    def files(self) -> set[str]:
        """Names of the files that the runs are in."""
        return {run.file for run in self.runs}


def undo_record(head: UndoHead, update: Update) -> Iterator[bytes | memoryview]:
    """The parts of the undo record of an update that is about to be applied."""
    digest = hashlib.sha256()

    def parts() -> Iterator[bytes | memoryview]:
        yield _MAGIC + msgspec.json.encode(head) + b"\n"
        for piece in update.runs():
            if piece.indices is None:
                held = update.source(piece.tensor)
                assert held is not None
                yield held[piece.start : piece.stop].data
            else:
                assert piece.old is not None
                yield np.ascontiguousarray(piece.indices).data
                yield np.ascontiguousarray(piece.old).data

    for part in parts():
        digest.update(part)
        yield part
    yield digest.digest()


def _read(undo: Path) -> tuple[UndoHead, int]:
    """The undo record's head and where its words begin; no word is written before the whole record is proven."""
    digest = hashlib.sha256()
    with undo.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - _DIGEST
        if file.readline(len(_MAGIC)) != _MAGIC:
            raise garbled(undo, "is no undo record")
        line = file.readline()
        start = file.tell()
        file.seek(0)
        while left > 0 and (part := file.read(min(left, _READ))):
            digest.update(part)
            left -= len(part)
        if left or file.read() != digest.digest():
            raise garbled(undo, "is no whole undo record")
    try:
        return msgspec.json.decode(line, type=UndoHead), start
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise garbled(undo, f"does not say what to undo: {fault}") from None


def write_back(undo: Path, held: Holding, folder: Path) -> None:
    """Write the old words back, unless the new version was reached.

    The files' times stay those of the crash, so that the next use proves every word by a scan.

    Args:
        undo: the undo record.
        held: what the folder holds, by its state.json.
        folder: the folder.

    Raises:
        IntegrityError: the record is not as it was written; no word was.
        WrongBaseError: someone else changed the folder's files; no word was written.
    """
    head, start = _read(undo)
    if (head.version, head.fingerprint) != (held.version, held.fingerprint):
        return
    for name in head.files:
        if name not in held.files:
            raise garbled(undo, f"names the file {name!r}")
        held.check_file(folder, name)
    with undo.open("rb") as file:
        file.seek(start)
        for run in head.runs:
            mapped = map_words(folder / run.file, writable=True)
            word = np.dtype(run.word)
            words = mapped[run.offset : run.offset + run.words * word.itemsize].view(word)
            if run.range is not None:
                first, stop = run.range
                words[first:stop] = np.frombuffer(file.read(run.count * word.itemsize), word)
            else:
                indices = np.frombuffer(file.read(run.count * 8), np.int64)
                words[indices] = np.frombuffer(file.read(run.count * word.itemsize), word)
            del words, mapped
    for name in head.files:
        sync_file(folder / name)
