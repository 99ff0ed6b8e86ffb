"""Downloads: objects of a remote store on their way to files of this machine, before they are needed, several at once.

They arrive in a cache of this machine, unproven: the reader proves them. A few groups of objects are in progress or
wait to be taken. The others are fetched as these are taken, so that a long route needs no more room than the cache has.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, Self, runtime_checkable

from ..errors import IntegrityError, TensorDeltaError
from ..events import Event, Listener, emit
from ..progress import current, phase
from .base import NoSuchObject, Store, StoredBlob
from .cache import CachedBlob, PackCache

#: Requests at once, and bytes of one of them.
PARALLEL = 8
PART = 8 << 20
_SMALLEST_PART = 1 << 16
#: Bytes and objects of a group, which is fetched as one.
_GROUP = 64 << 20
_OBJECTS = 64
#: Bytes and objects that may wait to be taken; each object is an open file.
_WAITING = 2 * _GROUP
_OBJECTS_WAITING = 64
#: Seconds between two events of progress.
_TICK = 0.2
#: Seconds to wait at the end for what is in progress.
_PATIENCE = 5.0


def part_size(memory: int) -> int:
    """Bytes of one request, so that all in flight are at most an eighth of a memory budget, or half a MiB."""
    return max(_SMALLEST_PART, min(PART, memory // (8 * PARALLEL)))


class LocalFile(NamedTuple):
    """Where an object goes, and the size that it must have."""

    path: Path
    size: int


@runtime_checkable
class Downloader(Store, Protocol):
    """A store that brings several objects into files by itself, better than by ranges."""

    def download(self, files: Mapping[str, LocalFile]) -> dict[str, int]:
        """Bring objects into files, by name. Those of another size than expected are left out.

        Returns:
            The size of each object that exists.

        Raises:
            StoreError: the store failed.
        """


class Wanted(NamedTuple):
    """An object that is wanted, and what its bytes must be.

    Attributes:
        name: under the root.
        sha256: digest of its bytes.
        size: their number.
        version: the version that needs it, for events.
    """

    name: str
    sha256: str
    size: int
    version: int = 0


@dataclass
class _Job:
    wanted: Wanted
    ended: threading.Event = field(default_factory=threading.Event)
    blob: CachedBlob | None = None
    fault: Exception | None = None

    def end(self, blob: CachedBlob | None, fault: Exception | None = None) -> None:
        self.blob, self.fault = blob, fault
        self.ended.set()


class Downloads:
    """Brings objects of one store to this machine; a context manager, whose end abandons what is in progress.

    Args:
        store: where they are.
        cache: where they go.
        wanted: the objects, in the order in which they will be taken; any other object is fetched when it is taken.
        part: bytes of one request.
        listener: called with the progress, by the thread that waits.
    """

    def __init__(
        self,
        store: Store,
        cache: PackCache,
        wanted: Iterable[Wanted] = (),
        *,
        part: int = PART,
        listener: Listener | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._part = part
        self._listener = listener
        self._started = time.perf_counter()
        self._jobs: dict[str, _Job] = {}
        names: set[str] = set()
        for each in wanted:
            if each.name not in names:  # two digests under one name are a fault, found when the second is taken
                names.add(each.name)
                self._jobs.setdefault(each.sha256, _Job(each))
        self._total = sum(job.wanted.size for job in self._jobs.values())
        self._arrived = self._reported = 0
        self._moved = threading.Condition()
        self._waiting = 0  # bytes that have arrived or are on their way, and were not taken
        self._objects_waiting = 0
        self._urgent = 0  # threads that wait for something that has not arrived
        self._stopped = threading.Event()
        # The thread has its own list: a job may be taken before the thread has begun.
        jobs = [*self._jobs.values()]
        self._thread = threading.Thread(target=self._run, args=(jobs,), name="tensordelta-downloads", daemon=True)

    def __enter__(self) -> Self:
        if self._jobs:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._moved:
            self._stopped.set()
            self._moved.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)  # a request that cannot be stopped ends, and cleans up, by itself
        self._jobs.clear()

    def take(self, wanted: Wanted, *, anew: bool = False) -> CachedBlob:
        """An object's file, as soon as it has arrived. Its size is right; its bytes are not proven.

        Args:
            wanted: the object.
            anew: fetch it again, even if the cache has it.

        Raises:
            NoSuchObject: it is not in the store.
            IntegrityError: it has another size.
            StoreError: the store failed.
        """
        job = None if anew else self._jobs.pop(wanted.sha256, None)
        if anew:
            self._cache.drop(wanted.sha256)
        if job is None:
            job = _Job(wanted)
            self._fetch([job], lambda _: None)
        else:
            self._wait(job)
        if job.fault is not None:
            raise job.fault
        assert job.blob is not None
        return job.blob

    def drop(self, wanted: Wanted) -> None:
        """Remove an object's damaged file from the cache."""
        self._cache.drop(wanted.sha256)

    def _wait(self, job: _Job) -> None:
        with self._moved:
            self._urgent += 1
            self._moved.notify_all()
        try:
            outer = current()
            with phase("downloading", self._total) as work:
                counted = self._reported if work is outer else 0
                while True:
                    ended, arrived = job.ended.wait(_TICK), self._arrived
                    work.add(arrived - counted)
                    counted = arrived
                    if ended:
                        break
                    seconds = time.perf_counter() - self._started
                    emit(Event("downloading", job.wanted.version, arrived, seconds, self._total), self._listener)
            self._reported = counted
        finally:
            with self._moved:
                self._urgent -= 1
                self._waiting -= job.wanted.size
                self._objects_waiting -= 1
                self._moved.notify_all()

    def _has_room(self, size: int) -> bool:
        return self._waiting + size <= _WAITING and self._objects_waiting < _OBJECTS_WAITING

    def _run(self, jobs: list[_Job]) -> None:
        while jobs:
            group = _first_group(jobs)
            del jobs[: len(group)]
            size = sum(job.wanted.size for job in group)
            with self._moved:
                while not (self._stopped.is_set() or self._urgent or not self._objects_waiting or self._has_room(size)):
                    self._moved.wait()
                if self._stopped.is_set():
                    return
                self._waiting += size
                self._objects_waiting += len(group)
            self._fetch(group, self._count)

    def _count(self, size: int) -> None:
        with self._moved:
            self._arrived += size

    def _fetch(self, jobs: Sequence[_Job], arrived: Callable[[int], None]) -> None:
        """Bring objects into the cache; every job ends, also after an error."""
        try:
            needed: list[_Job] = []
            for job in jobs:
                blob = self._cache.open(job.wanted.sha256, job.wanted.size)
                if blob is None:
                    needed.append(job)
                else:
                    arrived(job.wanted.size)
                    job.end(blob)
            if needed:
                self._bring(needed, arrived)
        except Exception as error:
            for job in jobs:
                if not job.ended.is_set():
                    job.end(None, error)

    def _bring(self, jobs: Sequence[_Job], arrived: Callable[[int], None]) -> None:
        files = {job.wanted.name: LocalFile(self._cache.temporary(), job.wanted.size) for job in jobs}
        try:
            self._check_room(files.values())
            if isinstance(self._store, Downloader):
                faults = _by_itself(self._store, files, arrived)
            else:
                faults = self._by_ranges(files, arrived)
            for job in jobs:
                fault = faults.get(job.wanted.name)
                job.end(None if fault else self._cache.adopt(files[job.wanted.name].path, job.wanted.sha256), fault)
            self._cache.trim()
        finally:
            for file in files.values():
                file.path.unlink(missing_ok=True)

    @staticmethod
    def _check_room(files: Iterable[LocalFile]) -> None:
        """Check that the disk has room, which a client of a store may find out only after minutes.

        Raises:
            OSError: it has not.
        """
        needed: dict[Path, int] = {}
        for file in files:
            needed[file.path.parent] = needed.get(file.path.parent, 0) + file.size
        for folder, size in needed.items():
            if shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    def _by_ranges(self, files: Mapping[str, LocalFile], arrived: Callable[[int], None]) -> dict[str, TensorDeltaError]:
        """Bring objects into files; returns the faults of single objects, and raises a failure of the store."""
        faults: dict[str, TensorDeltaError] = {}
        failed = threading.Event()

        def check() -> None:
            if failed.is_set() or self._stopped.is_set():
                raise InterruptedError

        def begin(name: str) -> StoredBlob:
            check()
            return self._store.open(name)

        def bring(blob: StoredBlob, descriptor: int, offset: int, length: int) -> None:
            check()
            view = blob.read(offset, length)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
            arrived(length)

        with ExitStack() as stack, ThreadPoolExecutor(PARALLEL, thread_name_prefix="tensordelta-get") as pool:
            try:
                running: dict[Future[None], str] = {}
                for name, begun in [(name, pool.submit(begin, name)) for name in files]:
                    try:
                        blob = stack.enter_context(begun.result())
                        _check_size(name, blob.size, files[name])
                    except TensorDeltaError as fault:
                        faults[name] = fault
                        continue
                    descriptor = os.open(files[name].path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
                    stack.callback(os.close, descriptor)
                    for offset in range(0, blob.size, self._part):
                        length = min(self._part, blob.size - offset)
                        running[pool.submit(bring, blob, descriptor, offset, length)] = name
                for future in as_completed(running):
                    try:
                        future.result()
                    except TensorDeltaError as fault:
                        faults.setdefault(running[future], fault)
            except BaseException:
                failed.set()
                raise
        return faults


def _by_itself(
    store: Downloader, files: Mapping[str, LocalFile], arrived: Callable[[int], None]
) -> dict[str, TensorDeltaError]:
    """Have a store bring objects into files; see `Downloads._by_ranges`."""
    faults: dict[str, TensorDeltaError] = {}
    sizes = store.download(files)
    for name, file in files.items():
        try:
            if name not in sizes:
                raise NoSuchObject(name, store.address)
            _check_size(name, sizes[name], file)
            arrived(file.size)
        except TensorDeltaError as fault:
            faults[name] = fault
    return faults


def _check_size(name: str, size: int, file: LocalFile) -> None:
    """Check an object's size before any of its bytes are fetched. Raises IntegrityError."""
    if size != file.size:
        raise IntegrityError(f"{size} bytes, not {file.size}", object=name, rule="TD-MAN-013")


def _first_group(jobs: Sequence[_Job]) -> list[_Job]:
    """The jobs at the front that are fetched together: at least one."""
    group: list[_Job] = []
    size = 0
    for job in jobs[:_OBJECTS]:
        size += job.wanted.size
        if group and size > _GROUP:
            break
        group.append(job)
    return group
