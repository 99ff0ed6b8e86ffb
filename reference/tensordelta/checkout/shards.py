"""The shards of a checkout: where each tensor's words begin, and access to them by position.

Shards are not mapped while they are checked and patched: another process may truncate one at any time, and reading a
map of it would end this process. Each access opens the file anew, so that many shards take no descriptors.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..codecs.words import Words
from ..errors import LimitError, MalformedError, WrongBaseError
from ..format.layout import Layout, Tensor
from ..format.safetensors import header_size, parse_header
from ..state.shard_file import map_words
from ..state.state import State
from ..stores.anchored import Folder
from ..stores.regular import IrregularError
from .record import HeldFile, Holding

#: Bytes that are read at once.
_BLOCK = 1 << 20
#: Bytes of a block that are written in one piece.
_LINE = 1 << 14
#: Bytes of a shard's header beside its tensors, and of a tensor beside its name and shape, at most.
_BESIDE = 256


class Place(NamedTuple):
    """Where a tensor's words begin: a file, and an offset in it."""

    file: str
    offset: int


class AlteredHeaderError(Exception):
    """The header of a shard is not as it was pulled; has the shard's name, and what is wrong."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file, self.reason = file, reason


class UnsteadyError(Exception):
    """A shard was changed while it was read or written."""


def altered(folder: Folder, reason: str) -> WrongBaseError:
    """The error for a folder whose files were changed."""
    return WrongBaseError(
        f"{reason}; the folder was changed after the pull",
        object=str(folder.path),
        rule="TD-RDR-003",
        advice="Remove the folder and pull again.",
    )


def open_held(held: Holding, folder: Folder, name: str, *, writable: bool = False) -> BufferedIOBase:
    """Open a file of the folder, and check that it has its recorded size.

    Raises:
        WrongBaseError: it is missing or has another size; or it is opened for writing and has a second hard link.
    """
    try:
        file = folder.open(name, writable=writable)
    except FileNotFoundError:
        raise altered(folder, f"{name} is gone") from None
    except (NotADirectoryError, IrregularError):  # a write through a link would change a file elsewhere
        raise altered(folder, f"{name} is no longer a file of its own") from None
    size = os.fstat(file.fileno()).st_size
    if size != held.files[name].size:
        file.close()
        raise altered(folder, f"{name} has {size} bytes, not {held.files[name].size}")
    return file


def find_places(held: Holding, folder: Folder) -> list[Place]:
    """Where each tensor of the record is. Headers are read one by one.

    Raises:
        WrongBaseError: a shard is missing or has another size.
        AlteredHeaderError: a header is not as it was pulled.
    """
    index = {tensor.name: number for number, tensor in enumerate(held.tensors)}
    places: dict[int, Place] = {}
    # All headers together say little more of the tensors than the record.
    room = sum(_header_bytes(tensor) for tensor in held.tensors) + _BESIDE * len(held.shards)
    for name in held.shards:
        with open_held(held, folder, name) as file:
            try:
                raw = _raw_header(file, name, held.files[name], room)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise AlteredHeaderError(name, f"{name} cannot be read: {error.strerror}") from None
        room -= len(raw)
        try:
            header = parse_header(raw[8:], size=held.files[name].size, object=name)
        except (MalformedError, LimitError) as fault:
            raise AlteredHeaderError(name, f"{name}: {fault.reason}") from None
        for each, entry in header.entries.items():
            number = index.get(each)
            tensor = None if number is None else held.tensors[number]
            if tensor is None or number in places or (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
                raise AlteredHeaderError(name, f"tensor {each!r} of {name} is not as it was pulled")
            places[index[each]] = Place(name, header.start + entry.data_offsets[0])
    for tensor in held.tensors:
        if index[tensor.name] not in places:
            raise altered(folder, f"tensor {tensor.name!r} is not there as it was pulled")
    return [places[number] for number in range(len(held.tensors))]


def _header_bytes(tensor: Tensor) -> int:
    """The most bytes that a tensor takes in a header: a byte of a name may be escaped, a size may have 20 digits."""
    return _BESIDE + 6 * len(tensor.name.encode()) + 21 * len(tensor.shape)


def _raw_header(file: BufferedIOBase, name: str, recorded: HeldFile, room: int) -> bytes:
    prefix = file.read(8)
    try:
        length = header_size(prefix, size=recorded.size, object=name)
    except (MalformedError, LimitError) as fault:
        raise AlteredHeaderError(name, f"{name}: {fault.reason}") from None
    if len(prefix) + length > room:
        raise AlteredHeaderError(name, f"{name}: a header of {length} bytes, longer than any that a pull writes")
    raw = prefix + file.read(length)
    if hashlib.sha256(raw).hexdigest() != recorded.sha256:
        raise AlteredHeaderError(name, f"the header of {name} is not as it was pulled")
    return raw


class Shard:
    """One shard, open only while it is read or written. Several threads may use one object.

    Args:
        held, folder: what the folder holds.
        name: the shard's name.
        seen: the file as it was when it was examined; None to read it whatever was done to it.
    """

    def __init__(self, held: Holding, folder: Folder, name: str, seen: HeldFile | None = None) -> None:
        self._held, self._folder, self.name = held, folder, name
        self._seen = seen

    @contextmanager
    def opened(self, *, writable: bool = False) -> Iterator[int]:
        """Its descriptor.

        Raises:
            UnsteadyError: another process changed the file after it was examined.
            WrongBaseError: nothing was examined, and the file is not the recorded one.
        """
        try:
            file = open_held(self._held, self._folder, self.name, writable=writable)
        except WrongBaseError as fault:
            raise (fault if self._seen is None else UnsteadyError(fault.reason)) from None
        with file:
            if self._seen is not None and self._seen.seen(os.fstat(file.fileno())) != self._seen:
                raise UnsteadyError(f"{self.name} was changed meanwhile")
            if writable:
                self._seen = None  # its times change from now on
            yield file.fileno()


class FileWords:
    """A tensor's words in a shard, read and written by position: what preparing and patching ask of an array of words.

    Reading gives copies. Several threads may use one object.

    Args:
        shard: the shard.
        offset: where its words begin in the file, in bytes.
        tensor: the tensor.

    Attributes:
        offset: the same.
        dtype, itemsize, size, nbytes: as of an array.
    """

    def __init__(self, shard: Shard, offset: int, tensor: Tensor) -> None:
        self._shard, self.offset = shard, offset
        self.dtype: np.dtype[Any] = tensor.kind.word
        self.itemsize, self.size, self.nbytes = self.dtype.itemsize, tensor.words, tensor.nbytes

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> Words:
        start, stop, _ = part.indices(self.size)
        with self._shard.opened() as descriptor:
            return self.read(descriptor, start, max(start, stop))

    def take(self, indices: NDArray[np.int64]) -> Words:
        """The words at these indices, which ascend."""
        found = np.empty(len(indices), self.dtype)
        with self._shard.opened() as descriptor:
            for start, stop, at, part in self._listed(indices):
                found[part] = self.read(descriptor, start, stop).take(at)
        return found

    def put(self, where: slice | NDArray[np.int64], new: Words) -> None:
        """Write words to indices that ascend. Blocks that have them already are not written, so that they take no room.

        Raises:
            OSError: the disk is full.
            UnsteadyError, WrongBaseError: see `Shard.opened`.
        """
        with self._shard.opened(writable=True) as descriptor:
            for start, stop, at, part in self._stretches(where) if isinstance(where, slice) else self._listed(where):
                words = self.read(descriptor, start, stop)
                if not np.array_equal(words[at], new[part]):
                    words[at] = new[part]
                    for first, last in [(0, len(words))] if isinstance(at, slice) else self._lines(at):
                        self._write(descriptor, start + first, words[first:last])

    def read(self, descriptor: int, start: int, stop: int) -> Words:
        """Words start … stop - 1 from the shard's open file."""
        words: Words = np.empty(stop - start, self.dtype)
        left = words.view(np.uint8).data
        at = self.offset + start * self.itemsize
        while left:
            try:
                count = os.preadv(descriptor, [left], at)
            except OSError as error:
                error.filename = self._shard.name
                raise
            if not count:
                raise UnsteadyError(f"{self._shard.name} was cut short meanwhile")
            left, at = left[count:], at + count
        return words

    def _write(self, descriptor: int, start: int, words: Words) -> None:
        left = words.view(np.uint8).data
        at = self.offset + start * self.itemsize
        while left:
            count = os.pwrite(descriptor, left, at)
            left, at = left[count:], at + count

    def _listed(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, int, NDArray[np.int64], slice]]:
        """Block by block: the first and the last of the words that are listed there, where they are, and which."""
        words, begin = _BLOCK // self.itemsize, 0
        while begin < len(indices):
            start = int(indices[begin])
            end = int(np.searchsorted(indices, (start // words + 1) * words))
            yield start, int(indices[end - 1]) + 1, indices[begin:end] - start, slice(begin, end)
            begin = end

    def _lines(self, at: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """From the first to the last of the listed words in each line of a block, so that few pages are written."""
        lines = at // (_LINE // self.itemsize)
        begins = np.flatnonzero(lines[1:] != lines[:-1]) + 1
        yield from zip(at[[0, *begins]].tolist(), (at[[*(begins - 1), -1]] + 1).tolist(), strict=True)

    def _stretches(self, where: slice) -> Iterator[tuple[int, int, slice, slice]]:
        """The same for a range of words."""
        words = _BLOCK // self.itemsize
        for start in range(where.start, where.stop, words):
            stop = min(start + words, where.stop)
            yield start, stop, slice(0, stop - start), slice(start - where.start, stop - where.start)


def file_words(
    held: Holding, folder: Folder, places: Sequence[Place], seen: Mapping[str, HeldFile] | None = None
) -> list[FileWords]:
    """The words of the record's tensors, in its order; `seen` are the files as they were examined."""
    shards = {name: Shard(held, folder, name, None if seen is None else seen[name]) for name in held.shards}
    return [
        FileWords(shards[place.file], place.offset, tensor) for place, tensor in zip(places, held.tensors, strict=True)
    ]


def state_of(held: Holding, words: Sequence[FileWords] | Sequence[Words]) -> State:
    """The state that the folder holds, with its recorded fingerprints."""
    # Preparing an update asks no more of words than `FileWords` has, and applying it is `FileWords.put`.
    state = State(Layout(held.tensors), cast(Sequence[Words], words))
    state.version, state.chain, state.version_digests = held.version, held.chain, (held.layout, held.fingerprint)
    state.assume(held.tensor_sums)
    return state


def mapped_words(held: Holding, folder: Folder, places: Sequence[Place]) -> list[Words]:
    """The words of the record's tensors, mapped read-only.

    Raises:
        WrongBaseError: a shard was replaced or truncated.
    """
    maps: dict[str, NDArray[np.uint8]] = {}
    for name in held.shards:
        with open_held(held, folder, name) as file:
            maps[name] = map_words(file)
    return [
        maps[place.file][place.offset : place.offset + tensor.nbytes].view(tensor.kind.word)
        for place, tensor in zip(places, held.tensors, strict=True)
    ]
