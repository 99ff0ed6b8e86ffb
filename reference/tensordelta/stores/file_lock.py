"""Locks of files between processes, which end with their block even where a process was forked in it.

Such a lock belongs to the open file, and a forked child has the same open file: closing it in the parent would not end
the lock while the child lives, such as a worker that loads data for a trainer.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Descriptors of the locked files of this process.
_held: set[int] = set()


@contextmanager
def file_lock(descriptor: int, *, exclusive: bool) -> Iterator[None]:
    """Lock an open file for the block, without waiting.

    Args:
        descriptor: of the file; it stays open for the block.
        exclusive: no other process may hold it; else others may share it.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file system has no locks.
    """
    fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    process = os.getpid()
    _held.add(descriptor)
    try:
        yield
    finally:
        if os.getpid() == process:
            _held.discard(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _let_go() -> None:
    """In a forked child: keep no lock of a parent that dies. The descriptors stay taken, for those who close them."""
    if _held:
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in _held:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        _held.clear()


os.register_at_fork(after_in_child=_let_go)
