"""Steps that still wait when the program ends or raises: they are published within a bound, or it is said what is lost.

Python's pools of threads, with which publishing works, take no more work when `atexit` calls its functions. They end
themselves by another hook of `threading`, which calls the function first that was registered last: steps are waited for
there. Threads that are no daemons are joined after that hook, and may still submit steps; so steps are waited for again
by `atexit`, and published on one thread. (Python 3.12.0 and 3.12.1 start no thread even by the first hook: there steps
that wait are lost, which is said.)
"""

from __future__ import annotations

import atexit
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import Protocol

#: Seconds that the end of the program is put off at most.
PATIENCE = 60.0

_deadline: float | None = None


class Unfinished(Protocol):
    """What has to end before the program does."""

    def settle(self, timeout: float) -> None:
        """Wait until nothing waits any more, or the time is up."""

    def unpublished(self) -> list[str]:
        """What was lost, if the program ends now: one sentence each."""


_watched: dict[int, Unfinished] = {}


def watch(queue: Unfinished) -> None:
    """Have the program wait for a queue when it ends."""
    _watched[id(queue)] = queue


def forget(queue: Unfinished) -> None:
    """End what `watch` began."""
    _watched.pop(id(queue), None)


def _settle() -> None:
    global _deadline
    _deadline = _deadline or monotonic() + PATIENCE
    for queue in list(_watched.values()):
        with suppress(KeyboardInterrupt):  # the user does not want to wait
            queue.settle(max(0.0, _deadline - monotonic()))


def _report() -> None:
    _settle()
    lost = [each for queue in list(_watched.values()) for each in queue.unpublished()]
    if lost and sys.stderr is not None:
        lines = [*lost, "close a publisher, or use it as a context, before the program ends"]
        with suppress(OSError, ValueError):  # nobody reads it
            sys.stderr.write("".join(f"tensordelta: {line}\n" for line in lines))
            sys.stderr.flush()


getattr(threading, "_register_atexit", atexit.register)(_settle)
atexit.register(_report)
