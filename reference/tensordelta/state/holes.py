"""Holes: ranges of a file that take no room on the disk and read as zeros. Terabytes of them are made in no time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

#: Bytes that may be holes where every byte is read: a few seconds' worth.
MAX_HOLES = 4 << 30


def is_hollow(descriptor: int, size: int) -> bool:
    """True where so much of a file is holes that hashing it would take long, though it takes no room on the disk."""
    return hole_bytes(descriptor, size) > MAX_HOLES


def hole_bytes(descriptor: int, size: int) -> int:
    """How many of a file's bytes are in holes; 0 where the file system does not tell."""
    at = os.lseek(descriptor, 0, os.SEEK_CUR)
    data = sum(stop - start for start, stop in data_ranges(descriptor, 0, size))
    os.lseek(descriptor, at, os.SEEK_SET)  # the file object counts on its position
    return size - data


def data_ranges(descriptor: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The parts of a file's range that are no holes; all of it where the file system does not tell.

    The descriptor's position moves.
    """
    while start < stop:
        try:
            begin = os.lseek(descriptor, start, os.SEEK_DATA)
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says that a hole goes to the end
                yield start, stop
            return
        if begin >= stop:
            return
        yield begin, min(end, stop)
        start = end
