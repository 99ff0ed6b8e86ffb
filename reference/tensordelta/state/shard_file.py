"""Safetensors files of others, which another process may truncate or rewrite while they are read.

Such a file is read by position: reading a mapped page that a truncation took away would end the process by a signal.
It is mapped only where a user asks for arrays.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..codecs.words import Words
from ..errors import IntegrityError, LimitError, MalformedError, MissingError
from ..format.safetensors import Header, header_size, parse_header
from ..progress import current
from ..stores.regular import IrregularError, open_regular
from .holes import hole_bytes
from .own_file import OwnFile

#: Bytes that are read at a time.
READ = 8 << 20
#: Bytes by which one tells what a file is that is no safetensors file.
_START = 256

_LFS = b"version https://git-lfs.github.com/spec/"
_SAVE_AGAIN = "Save the weights as safetensors, and name that file."
#: How files begin that are saved under the name of a weights file: what each is, and what to do about it.
_BINARY = (
    (b"PK\x03\x04", "is a file of torch.save, or another archive", _SAVE_AGAIN),
    (b"\x80\x02", "is a pickle, as torch.save wrote them", _SAVE_AGAIN),
    (b"\x80\x03", "is a pickle", _SAVE_AGAIN),
    (b"\x80\x04", "is a pickle", _SAVE_AGAIN),
    (b"\x80\x05", "is a pickle", _SAVE_AGAIN),
    (b"GGUF", "is a GGUF file", "Name the safetensors file that it was made from."),
    (b"\x93NUMPY", "is an array of NumPy", _SAVE_AGAIN),
    (b"\x89HDF", "is an HDF5 file", _SAVE_AGAIN),
    (b"\x1f\x8b", "is compressed", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "is compressed", "Unpack it first."),
)
_TEXTS = (
    (_LFS, "is a pointer of Git LFS, not the file", "Fetch the file (git lfs pull), or download it again."),
    (b"<", "is a web page, not the file", "Download the file itself: on the Hub its address has /resolve/ in it."),
)
_TEXT = "is a text, not the file", "Download the file again: an answer with an error may have been saved."
_ANOTHER = "is a text file, not a checkpoint", "Name a safetensors file, or a folder of them."


class Open(Protocol):
    """An open file."""

    def fileno(self, /) -> int:
        """Its descriptor."""


def map_words(file: Open, *, writable: bool = False) -> NDArray[np.uint8]:
    """The bytes of an open file, mapped; the map stays valid when the file is closed.

    Raises:
        OSError: the file system cannot map it.
    """
    if not os.fstat(file.fileno()).st_size:
        return np.empty(0, np.uint8)
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    try:
        if sys.version_info >= (3, 13):  # else each map takes a descriptor
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=access, trackfd=False), np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=access), np.uint8)
    except OSError as error:
        name = getattr(file, "name", None)  # a number where it was opened by one
        reason = f"{error.strerror}: its file system does not map files into memory; choose a folder on another one"
        raise OSError(error.errno, reason, *([name] if isinstance(name, str) else [])) from None


def check_is_itself(file: OwnFile) -> None:
    """Check that a small file is no pointer of Git LFS, and a JSON file no web page.

    Raises:
        MalformedError: it is one.
        OSError: it cannot be read.
    """
    start = file.read(_START)
    for begins, what, advice in _TEXTS:
        if start.lstrip().startswith(begins) and (begins == _LFS or file.path.suffix == ".json"):
            raise MalformedError(what, object=str(file.path), rule="TD-PCK-014", advice=advice)


class ShardFile:
    """An open safetensors file, read by position. Threads may share it. Its descriptor is closed with the last user.

    Args:
        path: the file; errors name it.
        real: the same without links, if none is to be followed; by default links are.

    Attributes:
        path: the same.
        size: its bytes when it was opened.
        header: its header.

    Raises:
        MissingError: no such file, or no regular one.
        MalformedError, LimitError: it is no valid safetensors file.
    """

    def __init__(self, path: Path, real: Path | None = None) -> None:
        self.path = path
        try:
            self._descriptor = open_regular(real or path, follow=real is None)
        except IrregularError:
            raise _missing(path) from None
        except OSError as error:
            error.filename = str(path)
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            raise _missing(path) from None
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        self._time = status.st_mtime_ns
        self.header = self._read_header()

    def _read_header(self) -> Header:
        name = str(self.path)
        try:
            start = os.pread(self._descriptor, _START, 0)
            length = header_size(start[:8], size=self.size, object=name)
            return parse_header(self._bytes(8, length), size=self.size, object=name)
        except (MalformedError, LimitError) as fault:
            cut = "is cut off: " if fault.rule == "TD-PCK-004" else ""
            reason, advice = _impostor(self.path, start) or (cut + fault.reason, _DAMAGED)
            raise type(fault)(reason, object=name, rule=fault.rule, advice=advice) from None

    def _bytes(self, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data), offset)
        return bytes(data)

    @property
    def holes(self) -> int:
        """How many of its bytes take no room on the disk."""
        return hole_bytes(self._descriptor, self.size)

    def parts(self) -> Iterator[bytes]:
        """All its bytes, in parts.

        Raises:
            IntegrityError: the file ends before them now.
        """
        work = current()
        for offset in range(0, self.size, READ):
            part = self._bytes(offset, min(READ, self.size - offset))
            work.add(len(part))
            yield part

    def read(self, offset: int, words: int, dtype: np.dtype[Any]) -> Words:
        """Words from a place in the file, in memory of their own.

        Raises:
            IntegrityError: the file ends before them now.
        """
        found: Words = np.empty(words, dtype)
        if words:
            self._fill(found.view(np.uint8).data, offset)
        return found

    def _fill(self, target: memoryview, offset: int) -> None:
        got = 0
        while got < len(target):
            count = os.preadv(self._descriptor, [target[got:]], offset + got)
            if not count:
                raise self._changed(f"ends at byte {offset + got}, and had {self.size} bytes when it was opened")
            got += count

    def fileno(self) -> int:
        """The open descriptor."""
        return self._descriptor

    def check(self) -> None:
        """Check that nothing has written to the file since it was opened. A file that took its name does not count.

        Raises:
            IntegrityError: its size or time is another one.
        """
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._time):
            raise self._changed("changed while it was read")

    def _changed(self, reason: str) -> IntegrityError:
        return IntegrityError(
            reason, object=str(self.path), rule="TD-PCK-004", advice="Try again when no other process writes to it."
        )

    @cached_property
    def mapped(self) -> NDArray[np.uint8]:
        """The file's bytes, mapped read-only.

        Raises:
            IntegrityError: the file changed since it was opened.
        """
        self.check()
        return map_words(self)


class FileWords:
    """A tensor's words in a file. A slice of them is read when it is asked for, in memory of its own."""

    def __init__(self, file: ShardFile, offset: int, count: int, dtype: np.dtype[Any]) -> None:
        self.file = file
        self.dtype = dtype
        self._offset = offset
        self._count = count

    @classmethod
    def of(cls, file: ShardFile, name: str, dtype: np.dtype[Any]) -> FileWords:
        """The words of a tensor by its name."""
        begin, end = file.header.entries[name].data_offsets
        return cls(file, file.header.start + begin, (end - begin) // dtype.itemsize, dtype)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> Words:
        start, stop, _ = part.indices(self._count)
        return self.file.read(self._offset + start * self.dtype.itemsize, max(0, stop - start), self.dtype)

    @property
    def itemsize(self) -> int:
        """Bytes of a word."""
        return self.dtype.itemsize

    @property
    def mapped(self) -> Words:
        """All of them, mapped read-only."""
        begin, size = self._offset, self._count * self.itemsize
        return self.file.mapped[begin : begin + size].view(self.dtype)


_DAMAGED = "The file is damaged, or is no safetensors file: name another, or save it again."


def _impostor(path: Path, start: bytes) -> tuple[str, str] | None:
    """What a file is that is no safetensors file, and what to do about it; None where its beginning does not tell."""
    if not start:
        return "is empty", "Download it again, or save it again."
    for begins, what, advice in _BINARY:
        if start.startswith(begins):
            return what, advice
    if b"\0" in start[:8] or not start.strip():  # as in the length of every header
        return None
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for begins, what, advice in _TEXTS:
        if text.startswith(begins):
            return what, advice
    if not start.isascii():
        return None
    return _TEXT if path.suffix == ".safetensors" else _ANOTHER


def _missing(path: Path) -> MissingError:
    if path.is_symlink() and not path.exists():
        return MissingError(
            "is a link that leads nowhere",
            object=str(path),
            rule="TD-PCK-014",
            advice="Download the file again, or correct the link.",
        )
    return MissingError(
        "no such file", object=str(path), rule="TD-PCK-014", advice="Name a safetensors file, or a folder of them."
    )
