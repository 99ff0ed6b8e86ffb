"""Objects from a store into files of this machine, several at once, with few bytes in flight."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from ..errors import IntegrityError, TensorDeltaError
from .base import NoSuchObject, Store, StoredBlob

T = TypeVar("T")

#: Requests at once, and bytes of one of them.
PARALLEL = 8
PART = 8 << 20
_SMALLEST_PART = 1 << 16


class Target(NamedTuple):
    """Where an object goes, and the size that it has to have; None where any will do."""

    path: Path
    size: int | None


@runtime_checkable
class Downloads(Protocol):
    """A store that brings several objects into files by itself, better than by ranges."""

    def download(self, targets: Mapping[str, Target]) -> dict[str, int]:
        """Bring objects into files, unless they have another size than is expected.

        Returns:
            The size of each object that exists.

        Raises:
            StoreError: the store failed.
        """


@dataclass
class Transfer:
    """How far a transfer is, and a way to end it; several threads may look.

    Attributes:
        done: bytes that have arrived.
        stop: set to end it early.
        failed: what went wrong with an object, by its name.
    """

    done: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    failed: dict[str, TensorDeltaError] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Count bytes that have arrived."""
        with self._lock:
            self.done += count


def part_size(memory: int) -> int:
    """Bytes of one request, so that all in flight are at most an eighth of a memory budget, or half a MiB."""
    return max(_SMALLEST_PART, min(PART, memory // (8 * PARALLEL)))


def transfer(store: Store, targets: Mapping[str, Target], state: Transfer, *, part: int = PART) -> None:
    """Bring objects into files. What is wrong with one of them is noted in `state.failed`.

    Args:
        store: where they lie.
        targets: where each goes, by its name.
        state: how far it is.
        part: bytes of one request.

    Raises:
        StoreError: the store failed.
    """
    if isinstance(store, Downloads):
        sizes = store.download(targets)
        for name, target in targets.items():
            if name not in sizes:
                state.failed[name] = NoSuchObject(name, store.address)
            elif _has_size(name, sizes[name], target, state):
                state.add(sizes[name])
        return
    _by_ranges(store, targets, state, part)


def _has_size(name: str, size: int, target: Target, state: Transfer) -> bool:
    """True where an object has the size that it has to have; seen before any of its bytes are fetched."""
    if target.size is None or size == target.size:
        return True
    state.failed[name] = IntegrityError(f"{size} bytes, not {target.size}", object=name, rule="TD-MAN-013")
    return False


def _by_ranges(store: Store, targets: Mapping[str, Target], state: Transfer, part: int) -> None:
    def begin(name: str) -> StoredBlob:
        if state.stop.is_set():
            raise InterruptedError
        return store.open(name)

    def bring(blob: StoredBlob, descriptor: int, offset: int, length: int) -> None:
        if state.stop.is_set():
            raise InterruptedError
        view = blob.read(offset, length)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written
        state.add(length)

    with ExitStack() as stack, ThreadPoolExecutor(PARALLEL, thread_name_prefix="tensordelta-get") as pool:
        try:
            running: dict[Future[None], str] = {}
            for name, begun in [(name, pool.submit(begin, name)) for name in targets]:
                blob = _result(state, name, begun)
                if blob is None:
                    continue
                stack.enter_context(blob)
                if not _has_size(name, blob.size, targets[name], state):
                    continue
                descriptor = os.open(targets[name].path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
                stack.callback(os.close, descriptor)
                for offset, length in _ranges(blob.size, part):
                    running[pool.submit(bring, blob, descriptor, offset, length)] = name
            for future in as_completed(running):
                _result(state, running[future], future)
        except BaseException:
            state.stop.set()
            raise


def _result(state: Transfer, name: str, future: Future[T]) -> T | None:
    """What a step gave, or None where the object is at fault; a failure of the store or of this machine is raised."""
    try:
        return future.result()
    except TensorDeltaError as fault:
        state.failed.setdefault(name, fault)
        return None


def _ranges(size: int, part: int) -> Iterator[tuple[int, int]]:
    for offset in range(0, size, part):
        yield offset, min(part, size - offset)
