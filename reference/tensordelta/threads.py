"""Work in several threads: numpy and zstd release the interpreter's lock, so chunks are coded in parallel."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TypeVar

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
        threads: with 1, everything runs in the calling thread.
        cost, budget: bytes that an item needs, and their greatest sum at a time; an item that exceeds the budget is
            worked on alone.
        pool: the pool of threads to use; by default a new one.
    """
    if threads == 1:
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
