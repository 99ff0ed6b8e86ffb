"""Threads and forks: chunks are coded in parallel, and what a forked child lacks or finds locked is noticed."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

VARIABLE = "TENSORDELTA_THREADS"


def thread_count(threads: int | None) -> int:
    """The number of threads: the argument, else TENSORDELTA_THREADS, else all cores.

    Raises:
        ValueError: not a positive number.
    """
    if threads is None:
        text = os.environ.get(VARIABLE)
        if not text:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not text.isdecimal() or not int(text):
            raise ValueError(f"{VARIABLE} is {text!r}, not a positive number")
        threads = int(text)
    if threads < 1:
        raise ValueError(f"threads is {threads}, not a positive number")
    return threads


class Process:
    """The process that an object belongs to, which has threads or connections that a forked child lacks.

    Args:
        what: the object, for the error.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._id = os.getpid()

    @property
    def is_here(self) -> bool:
        """False in a fork of that process."""
        return os.getpid() == self._id

    def check(self) -> None:
        """Check that this is that process: what would wait for its threads here would wait for ever.

        Raises:
            RuntimeError: this is a fork of it.
        """
        if not self.is_here:
            raise RuntimeError(
                f"{self._what} belongs to process {self._id}, and this is a fork of it, which has none of its threads: "
                "start this process by 'spawn' or 'forkserver' (multiprocessing.get_context, multiprocessing_context "
                "of a DataLoader), or fork before the chain is opened, and open the chain in it"
            )

    def refuse_to_travel(self) -> NoReturn:
        """Raise the error for an attempt to pickle the object.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self._what} belongs to one process and cannot be pickled: make another one there")


class Lock:
    """A lock that a forked child finds free: the thread that held it at the fork does not exist there; a context.

    Args:
        kind: `threading.Lock`, or `threading.RLock`.
        interrupted: a method that is called in a forked child where another thread was in the middle of what the lock
            guards.
    """

    def __init__(
        self, kind: Callable[[], Any] = threading.Lock, *, interrupted: Callable[[], None] | None = None
    ) -> None:
        self._kind = kind
        self._lock = kind()
        # Weak, so that the lock keeps no memory of what it guards.
        self._interrupted = None if interrupted is None else weakref.WeakMethod(interrupted)
        _locks.add(self)

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock; returns False if it is taken and `blocking` is not set."""
        taken: bool = self._lock.acquire(blocking)
        return taken

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _renew(self) -> None:
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return
        self._lock = self._kind()
        interrupted = None if self._interrupted is None else self._interrupted()
        if interrupted is not None:
            interrupted()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _renew_locks() -> None:
    for lock in list(_locks):
        lock._renew()


os.register_at_fork(after_in_child=_renew_locks)


class BusyTime:
    """How long threads were busy with one kind of work; any of them may call `running`."""

    def __init__(self) -> None:
        self._spans: list[float] = []  # appending takes no lock

    @property
    def seconds(self) -> float:
        """The sum over all threads."""
        return sum(self._spans)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block."""
        began = time.perf_counter()
        yield
        self._spans.append(time.perf_counter() - began)


def ordered_map(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    cost: Callable[[T], int] | None = None,
    budget: int = 0,
    pool: ThreadPoolExecutor | None = None,
) -> Iterator[R]:
    """`map` in several threads: results in order, few items at a time.

    Args:
        work: called once for each item.
        items: read one by one, when there is room.
        threads: with 1, everything runs in the calling thread; so does a single item of a sequence, and everything when
            the interpreter ends, where no thread can be started any more.
        cost, budget: bytes that an item needs, and their greatest sum at a time; an item that exceeds the budget is
            worked on alone.
        pool: the pool of threads to use; by default a new one.
    """
    alone = isinstance(items, Sequence) and len(items) < 2
    if threads == 1 or alone or not threading.main_thread().is_alive():
        yield from map(work, items)
        return
    flying: deque[tuple[Future[R], int]] = deque()
    used = 0
    with nullcontext(pool) if pool else ThreadPoolExecutor(threads, thread_name_prefix="tensordelta") as workers:
        try:
            for item in items:
                need = cost(item) if cost else 0
                while flying and (len(flying) > 2 * threads or (budget and used + need > budget)):
                    future, freed = flying.popleft()
                    yield future.result()
                    used -= freed
                flying.append((workers.submit(work, item), need))
                used += need
            while flying:
                yield flying.popleft()[0].result()
        finally:
            for future, _ in flying:
                future.cancel()
