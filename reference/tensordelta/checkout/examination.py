"""How a checkout's files compare with its record: first by what the file system says of them, then by their bytes.

A file that other programs wrote to has other times, or another inode. A bit that a disk lost shows in neither: only a
scan finds it, which reads the words and compares their fingerprints with those of the record.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BufferedIOBase
from itertools import groupby

import numpy as np

from ..codecs import fingerprint
from ..progress import Phase, phase
from ..state.holes import data_ranges, is_hollow
from ..state.state import State
from ..stores.anchored import Folder
from ..threads import ordered_map
from .record import HeldFile, Holding
from .shards import AlteredHeaderError, FileWords, Place, Shard, altered, file_words, find_places, open_held, state_of

#: Words that one thread scans at a time: few enough to stay in its cache.
_SCAN = 1 << 18
_READ = 1 << 22


class Scan:
    """How much of a folder's words is read. Each use begins at the tensor after which the last one ended.

    Args:
        least: bytes that are read in any case; None for all.
        share: the share of all bytes that is read in any case.
        seconds: how long more is read.
        first: number of the tensor at which the first use begins.
    """

    def __init__(self, least: int | None = None, *, share: float = 0.0, seconds: float = 0.0, first: int = 0) -> None:
        self._least, self._share, self._seconds = least, share, seconds
        self._next = first

    @classmethod
    def brief(cls) -> Scan:
        """That of the first pull of a process: 4 GiB, and as much more as half a minute allows.

        It begins anywhere, so that the pulls of several processes together read all of a large folder.
        """
        return cls(4 << 30, seconds=30.0, first=random.randrange(1 << 30))

    def order(self, held: Holding, places: Sequence[Place]) -> list[int]:
        """The tensors, by shard and place in it, from where the last scan ended."""
        if not places:
            return []
        shards = {name: number for number, name in enumerate(held.shards)}
        tensors = sorted(range(len(places)), key=lambda each: (shards[places[each].file], places[each].offset))
        at = self._next % len(tensors)
        return tensors[at:] + tensors[:at]

    def size(self, held: Holding) -> int:
        """Bytes that are read in any case."""
        size = sum(tensor.nbytes for tensor in held.tensors)
        return size if self._least is None else min(size, int(max(self._least, self._share * size)))

    def until_enough(self, held: Holding, tensors: Sequence[int]) -> Iterator[int]:
        """These tensors, until enough is read."""
        deadline, done, least = time.monotonic() + self._seconds, 0, self.size(held)
        for tensor in tensors:
            if self._least is not None and done >= least and time.monotonic() >= deadline:
                return
            self._next += 1
            done += held.tensors[tensor].nbytes
            yield tensor


@dataclass
class Examination:
    """What a folder holds, and what was found.

    Attributes:
        held: its record.
        files: the files as they are now.
        places: where each tensor's words begin; empty where a header was altered.
        altered: what is wrong with a file's bytes, by its name.
        scanned: bytes of words that were compared.
    """

    held: Holding
    files: dict[str, HeldFile] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    altered: dict[str, str] = field(default_factory=dict)
    scanned: int = 0

    def refuse(self, folder: Folder, names: Container[str] | None = None) -> None:
        """Refuse a folder with altered files; `names` are those that count, by default all.

        Raises:
            WrongBaseError: one of them was altered.
        """
        for name, reason in self.altered.items():
            if names is None or name in names:
                raise altered(folder, reason)

    def words(self, folder: Folder) -> list[FileWords]:
        """The words of its tensors, as long as no other program writes to them."""
        return file_words(self.held, folder, self.places, self.files)

    def state(self, folder: Folder) -> State:
        """The state that an update may start from."""
        return state_of(self.held, self.words(folder))


def examine(held: Holding, folder: Folder, scan: Scan | None, *, threads: int) -> Examination:
    """Examine a folder.

    Args:
        held: its record.
        folder: the folder.
        scan: which words are read; None for none. Where the file system says that a shard may have changed since the
            record was made, all are read.
        threads: how many parts are read at once.

    Raises:
        WrongBaseError: a file is missing, or has another size.
    """
    found = Examination(held)
    for name, file in held.files.items():
        with open_held(held, folder, name) as opened:
            found.files[name] = file.seen(os.fstat(opened.fileno()))
            if not file.shard and (scan is not None or found.files[name] != file):
                with _noted(found, name):
                    if not _is_whole(opened, file):
                        found.altered[name] = f"{name} is not as it was pulled"
    try:
        found.places = find_places(held, folder)
    except AlteredHeaderError as fault:
        found.altered[fault.file] = fault.reason
        return found
    if any(file.shard and found.files[name] != file for name, file in held.files.items()):
        scan = Scan()
    if scan is not None:
        _scan(held, folder, found, scan, threads)
    return found


@contextmanager
def _noted(found: Examination, name: str) -> Iterator[None]:
    """Note a file that the disk cannot read."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        found.altered[name] = f"{name} cannot be read: {error.strerror}"


def _is_whole(file: BufferedIOBase, recorded: HeldFile) -> bool:
    """True where a file has its recorded digest."""
    if is_hollow(file.fileno(), recorded.size):
        return False
    digest, left = hashlib.sha256(), recorded.size
    file.seek(0)
    while left and (part := file.read(min(left, _READ))):
        digest.update(part)
        left -= len(part)
    return not left and digest.hexdigest() == recorded.sha256


def _scan(held: Holding, folder: Folder, found: Examination, scan: Scan, threads: int) -> None:
    """Compare fingerprints of tensors with those of the record."""
    with phase("checking held words", scan.size(held)) as progress:
        _scan_in(held, folder, found, scan, threads, progress)


def _scan_in(held: Holding, folder: Folder, found: Examination, scan: Scan, threads: int, progress: Phase) -> None:
    words = found.words(folder)
    expected, sums = held.tensor_sums, np.zeros(len(words), np.uint64)
    wrong: dict[str, list[str]] = {}

    def work(part: tuple[int, int, int], descriptor: int) -> tuple[int, int]:
        tensor, start, stop = part
        read = words[tensor].read(descriptor, start, stop)
        progress.add(read.nbytes)
        return tensor, fingerprint.scan(held.tensors[tensor].name, read, start=start)

    wanted = scan.until_enough(held, scan.order(held, found.places))
    for name, group in groupby(wanted, key=lambda tensor: found.places[tensor].file):
        scanned: list[int] = []
        with _noted(found, name), Shard(held, folder, name, found.files[name]).opened() as descriptor:
            parts = (part for tensor in group for part in _parts(tensor, words[tensor], descriptor, scanned))
            for tensor, each in ordered_map(partial(work, descriptor=descriptor), parts, threads=threads):
                fingerprint.add_to(sums, tensor, each)
        wrong.setdefault(name, []).extend(
            held.tensors[tensor].name for tensor in scanned if sums[tensor] != expected[tensor]
        )
        found.scanned += sum(words[tensor].nbytes for tensor in scanned)
    for name, tensors in wrong.items():
        if tensors:
            names = ", ".join(tensors[:3]) + (" …" if len(tensors) > 3 else "")
            found.altered.setdefault(name, f"{len(tensors)} tensors of {name} have other words ({names})")


def _parts(tensor: int, words: FileWords, descriptor: int, begun: list[int]) -> Iterator[tuple[int, int, int]]:
    """The parts of a tensor that are scanned: without holes, whose words are zero and add nothing."""
    begun.append(tensor)
    after = 0
    for begin, end in data_ranges(descriptor, words.offset, words.offset + words.nbytes):
        first = max(after, (begin - words.offset) // words.itemsize)
        after = -((words.offset - end) // words.itemsize)
        for start in range(first, after, _SCAN):
            yield tensor, start, min(start + _SCAN, after)
