"""The undo record of a patch in place: the old words, which recovery writes back after checking them.

It has a line that names the format, a head in JSON, indices and old words run by run, and a SHA-256 of all of these.
The digest finds damage, but does not prove who wrote the record. So each run must be in a tensor of the folder, and all
runs are checked before a word is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ..codecs.words import Words
from ..errors import IntegrityError
from ..format.layout import Tensor
from ..format.names import Version
from ..state.holes import is_hollow
from ..state.update import Update
from ..stores.anchored import Folder
from ..stores.regular import IrregularError
from .record import Holding, check_memory, garbled
from .shards import AlteredHeaderError, Place, altered, file_words, find_places, open_held
from .staging import sync_file

UNDO = "undo"
_MAGIC = b"tensordelta undo 2\n"
#: Size of the digest at the end, in bytes.
_DIGEST = 32
_READ = 1 << 22
#: Old words that are read at once.
_PART = 1 << 20
#: Greatest size of the head, in bytes.
_MAX_HEAD = 1 << 28

_Count = Annotated[int, Meta(ge=0, le=2**62)]


class _Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the undo record: some words of one tensor in one file.

    Attributes:
        file, offset: where the tensor's bytes begin.
        words, word: the tensor's number of words, and numpy's name of their type.
        count: number of old words in the record.
        range: (first word, last word + 1); None where the record has an index for each word.
    """

    file: str
    offset: _Count
    words: _Count
    word: Annotated[str, Meta(pattern=r"^([|]u1|<u[248])\Z")]
    count: _Count
    range: tuple[_Count, _Count] | None

    @property
    def place(self) -> tuple[str, int, int, str]:
        """The tensor that it belongs to."""
        return self.file, self.offset, self.words, self.word

    @property
    def size(self) -> int:
        """Its size in the record, in bytes."""
        return self.count * (np.dtype(self.word).itemsize + (8 if self.range is None else 0))


class UndoHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The undo record's first part: the version before the patch, and the runs that follow."""

    version: Version
    fingerprint: str
    runs: list[_Run]

    @classmethod
    def of(cls, update: Update, held: Holding, places: Sequence[Place]) -> UndoHead:
        """The head for an update that is about to patch the folder, whose tensors are in these places."""
        runs: list[_Run] = []
        for piece in update.runs():
            tensor = update.layout.tensors[piece.tensor]
            range = (piece.start, piece.stop) if piece.indices is None else None
            runs.append(_Run(*_place(places[piece.tensor], tensor), count=len(piece.new), range=range))
        return cls(held.version, held.fingerprint, runs)

    @property
    def size(self) -> int:
        """Bytes of the record, but for the head."""
        return sum(run.size for run in self.runs)

    @property
    def files(self) -> set[str]:
        """Names of the files that are patched."""
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


def _place(place: Place, tensor: Tensor) -> tuple[str, int, int, str]:
    """Where a tensor's words are: file, offset, number and type."""
    return *place, tensor.words, tensor.kind.word.str


class _Record:
    """The undo record of a folder, read and checked; a context manager.

    Raises:
        IntegrityError: it is damaged, or belongs to another folder.
    """

    def __init__(self, private: Folder) -> None:
        self._path = private.path / UNDO
        try:
            self._file = private.open(UNDO)
        except IrregularError as fault:
            raise garbled(self._path, str(fault.strerror)) from None
        try:
            self.head, self._start = self._prove()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _prove(self) -> tuple[UndoHead, int]:
        """The head, and the offset of the first run."""
        digest, file = hashlib.sha256(), self._file
        size = os.fstat(file.fileno()).st_size
        if file.readline(len(_MAGIC)) != _MAGIC:
            raise garbled(self._path, "is no undo record")
        line = file.readline(_MAX_HEAD)
        check_memory(len(line), object=str(self._path))
        start = file.tell()
        try:
            head = msgspec.json.decode(line, type=UndoHead)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise garbled(self._path, f"does not say what to undo: {fault}") from None
        if msgspec.json.encode(head) + b"\n" != line:
            raise garbled(self._path, "is not as a pull writes it")
        # Before the words are hashed: a file full of holes costs no disk, and may be of any size.
        if is_hollow(file.fileno(), size):
            raise garbled(self._path, "is mostly holes")
        if start + sum(run.size for run in head.runs) + _DIGEST != size or any(r.count > r.words for r in head.runs):
            raise garbled(self._path, "has other words than its head says")
        file.seek(0)
        left = size - _DIGEST
        while left > 0 and (part := file.read(min(left, _READ))):
            digest.update(part)
            left -= len(part)
        if left or file.read(_DIGEST + 1) != digest.digest():
            raise garbled(self._path, "is no whole undo record")
        return head, start

    def parts(self) -> Iterator[tuple[_Run, slice | NDArray[np.int64], Words]]:
        """Each run in parts: the indices of some words in their tensor, and these words as they were."""
        at = self._start
        for run in self.head.runs:
            word = np.dtype(run.word)
            words = at if run.range is not None else at + run.count * 8
            for start in range(0, run.count, _PART):
                count = min(_PART, run.count - start)
                if run.range is None:
                    where: slice | NDArray[np.int64] = np.frombuffer(self._read(at + start * 8, count * 8), np.int64)
                else:
                    where = slice(run.range[0] + start, run.range[0] + start + count)
                yield run, where, np.frombuffer(self._read(words + start * word.itemsize, count * word.itemsize), word)
            at += run.size

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(size)
        if len(data) != size:
            raise garbled(self._path, "was cut short meanwhile")
        return data

    def check(self, held: Holding, places: Sequence[Place]) -> dict[tuple[str, int, int, str], int]:
        """Check that every run is in a tensor of the folder; gives the number of the tensor in each place.

        Raises:
            IntegrityError: one is not.
        """
        tensors = {
            _place(place, tensor): number
            for number, (place, tensor) in enumerate(zip(places, held.tensors, strict=True))
            if tensor.words
        }
        for run in self.head.runs:
            if run.place not in tensors:
                raise garbled(self._path, f"names words of {run.file!r} that are no tensor's")
            if run.range is not None and not 0 <= run.range[1] - run.range[0] == run.count:
                raise self._past(run)
        last: tuple[_Run, int] | None = None
        for run, where, _ in self.parts():
            if isinstance(where, slice):
                good = where.stop <= run.words
            else:
                before = last[1] if last is not None and last[0] is run else -1
                good = where[0] > before and where[-1] < run.words and bool(np.all(where[1:] > where[:-1]))
                last = run, int(where[-1])
            if not good:
                raise self._past(run)
        return tensors

    def _past(self, run: _Run) -> IntegrityError:
        return garbled(self._path, f"names words of {run.file!r} past the end of their tensor")


def is_pending(held: Holding, private: Folder) -> bool:
    """True where a patch of the held version was interrupted.

    Raises:
        IntegrityError: the record is damaged.
    """
    with _Record(private) as record:
        return (record.head.version, record.head.fingerprint) == (held.version, held.fingerprint)


def write_back(held: Holding, folder: Folder, private: Folder) -> None:
    """Write the old words back, unless the patch was complete.

    The files' modification times are not restored, so that the next use scans every word.

    Args:
        held: the folder's state.json.
        folder: the folder.
        private: its private folder, with the record.

    Raises:
        IntegrityError: the record is damaged, or belongs to another folder; no word was written.
        WrongBaseError: the folder's files were changed; no word was written.
    """
    with _Record(private) as record:
        if (record.head.version, record.head.fingerprint) != (held.version, held.fingerprint):
            return
        try:
            places = find_places(held, folder)
        except AlteredHeaderError as fault:
            raise altered(folder, fault.reason) from None
        tensors = record.check(held, places)
        for name in sorted(record.head.files):
            open_held(held, folder, name, writable=True).close()
        words = file_words(held, folder, places)
        for run, where, old in record.parts():
            words[tensors[run.place]].put(where, old)
    for name in sorted(record.head.files):
        sync_file(folder, name)
