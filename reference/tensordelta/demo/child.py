"""The trainer in a process of its own, whose linear algebra runs on one thread.

Several threads of it wait for one another most of the time on a machine that other programs keep busy. How many there
are is decided before numpy is imported, so that a new process is needed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from .training import Checkpoint
from .training import train as train_here

#: Where the libraries that numpy may be built with look for the number of their threads.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def train(*, steps: int, seed: int, on_progress: Callable[[str, float], None] | None = None) -> Iterator[Checkpoint]:
    """As `training.train`, which runs meanwhile.

    Raises:
        RuntimeError: the process ended before its last checkpoint.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sending, steps, seed), daemon=True)
    with _one_thread():
        process.start()
    sending.close()
    left = steps + 1
    try:
        while left:
            found = receiving.recv()
            if isinstance(found, Checkpoint):
                left -= 1
                yield found
            elif on_progress is not None:
                on_progress(*found)
    except EOFError:
        process.join()
        raise RuntimeError(f"the trainer ended with exit code {process.exitcode}") from None
    finally:
        receiving.close()
        process.kill()
        process.join()


def _send(sending: Connection, steps: int, seed: int) -> None:
    """Send progress and checkpoints to the parent; a key that interrupts is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(BrokenPipeError), sending:
        for checkpoint in train_here(
            steps=steps, seed=seed, on_progress=lambda message, done: sending.send((message, done))
        ):
            sending.send(checkpoint)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have processes that start in the block find one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
