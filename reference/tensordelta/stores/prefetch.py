"""Downloads: packs of a far store on their way to this machine, before they are wanted, several at once.

They arrive in a cache of this machine, unproven: `fetch` proves them. A few groups of packs are under way or wait to be
taken; the others are fetched as these are taken, so that a long route needs no more room than the cache has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from ..events import Event, Listener, emit
from . import Store
from .cache import CachedBlob, PackCache
from .download import PART, Target, Transfer, transfer

#: Bytes and objects of a group, which is fetched as one; bytes that may wait to be taken.
_GROUP = 64 << 20
_OBJECTS = 64
_WAITING = 2 * _GROUP
#: And so many objects, of which each is an open file.
_OBJECTS_WAITING = 64
#: Seconds between two events of progress.
_TICK = 0.2
#: Seconds to wait for what is under way, at the end.
_PATIENCE = 5.0


class Wanted(NamedTuple):
    """An object that is wanted, and what its bytes have to be.

    Attributes:
        name: under the root.
        sha256: digest of its bytes.
        size: their number.
        version: the version that needs it, for those who watch.
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
    """Brings objects of one store here; a context, whose end abandons what is still under way.

    Args:
        store: where they lie.
        cache: where they go.
        wanted: the objects, in the order in which they will be taken; one that is not among them is fetched when it is
            taken.
        part: bytes of one request.
        listener: told how far it is, by the thread that waits.
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
            if each.name not in names:  # two digests under one name are a fault, which whoever takes them will see
                names.add(each.name)
                self._jobs.setdefault(each.sha256, _Job(each))
        self._total = sum(job.wanted.size for job in self._jobs.values())
        self._arrived = 0
        self._transfer = Transfer()
        self._moved = threading.Condition()
        self._waiting = 0  # bytes that have arrived, or are on their way, and were not taken
        self._objects_waiting = 0
        self._urgent = 0  # threads that wait for something that has not arrived
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="tensordelta-downloads", daemon=True)

    def __enter__(self) -> Self:
        if self._jobs:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._moved:
            self._stopped = True
            self._transfer.stop.set()
            self._moved.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)  # what cannot be stopped ends, and cleans up, by itself
        self._jobs.clear()

    # -- taking ---------------------------------------------------------------------------------------------------

    def take(self, wanted: Wanted, *, anew: bool = False) -> CachedBlob:
        """An object's file, as soon as it is here. Its size is right; its bytes are not proven.

        Args:
            wanted: the object.
            anew: fetch it again, whatever the cache has.

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
            self._fetch([job], Transfer())
        else:
            self._wait(job)
        if job.fault is not None:
            raise job.fault
        assert job.blob is not None
        return job.blob

    def drop(self, wanted: Wanted) -> None:
        """Remove an object's file from the cache, since it is damaged."""
        self._cache.drop(wanted.sha256)

    def _wait(self, job: _Job) -> None:
        with self._moved:
            self._urgent += 1
            self._moved.notify_all()
        try:
            while not job.ended.wait(_TICK):
                with self._moved:
                    done = self._arrived + self._transfer.done
                seconds = time.perf_counter() - self._started
                emit(Event("downloading", job.wanted.version, done, seconds, self._total), self._listener)
        finally:
            with self._moved:
                self._urgent -= 1
                self._waiting -= job.wanted.size
                self._objects_waiting -= 1
                self._moved.notify_all()

    # -- fetching -------------------------------------------------------------------------------------------------

    def _has_room(self, size: int) -> bool:
        return self._waiting + size <= _WAITING and self._objects_waiting < _OBJECTS_WAITING

    def _run(self) -> None:
        jobs = list(self._jobs.values())
        while jobs:
            group = _first_group(jobs)
            del jobs[: len(group)]
            size = sum(job.wanted.size for job in group)
            with self._moved:
                while not (self._stopped or self._urgent or not self._objects_waiting or self._has_room(size)):
                    self._moved.wait()
                if self._stopped:
                    return
                self._waiting += size
                self._objects_waiting += len(group)
            self._fetch(group, self._transfer)
            with self._moved:
                self._arrived += self._transfer.done
                self._transfer = Transfer(stop=self._transfer.stop)

    def _fetch(self, jobs: Sequence[_Job], state: Transfer) -> None:
        """Bring objects into the cache; each job ends, whatever happens."""
        try:
            needed: list[_Job] = []
            for job in jobs:
                blob = self._cache.open(job.wanted.sha256, job.wanted.size)
                if blob is None:
                    needed.append(job)
                else:
                    state.add(job.wanted.size)
                    job.end(blob)
            if needed:
                self._bring(needed, state)
        except Exception as error:
            for job in jobs:
                if not job.ended.is_set():
                    job.end(None, error)

    def _bring(self, jobs: Sequence[_Job], state: Transfer) -> None:
        targets = {job.wanted.name: Target(self._cache.temporary(), job.wanted.size) for job in jobs}
        try:
            transfer(self._store, targets, state, part=self._part)
            for job in jobs:
                fault = state.failed.get(job.wanted.name)
                if fault is not None:
                    job.end(None, fault)
                else:
                    job.end(self._cache.adopt(targets[job.wanted.name].path, job.wanted.sha256))
            self._cache.trim()
        finally:
            for target in targets.values():
                target.path.unlink(missing_ok=True)


def _first_group(jobs: Sequence[_Job]) -> list[_Job]:
    """The jobs at the front that are fetched together: one at least."""
    group: list[_Job] = []
    size = 0
    for job in jobs[:_OBJECTS]:
        size += job.wanted.size
        if group and size > _GROUP:
            break
        group.append(job)
    return group
