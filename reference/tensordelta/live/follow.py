"""Followers: readers that go on to each newer version as it comes (SPEC.md sections 4.11 and 9.3).

A look for a newer version reads latest.json, one small object, and no more as long as it names the version that is
known. Every so many looks, and whenever the hint is absent, garbled or names another version, the manifests after the
known version are listed as well: they alone say what there is (TD-OBJ-018, TD-OBJ-019).
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from ..checkout.checkout import Checkout, Pulled
from ..errors import ConflictError, MissingError, StoreError, TensorDeltaError, WrongBaseError
from ..format.names import LATEST, MAX_SMALL, parse_latest
from ..read.reader import Reader
from ..state.state import State
from ..state.update import Update

T = TypeVar("T")

_LOG = logging.getLogger("tensordelta")

#: Looks of which one lists, whatever latest.json says.
LIST_EVERY = 10

#: How much longer each wait is than the one before while nothing comes, and how many times `poll` it is at most.
_SLOWER, _SLOWEST = 1.25, 4.0
#: Seconds that a wait after failures is at most, unless `poll` is more.
_LONGEST = 30.0
#: How often a version that cannot be had because objects are missing is tried in all, where no newer one comes.
_TRIES = 4


class Watch:
    """Looks for versions after a known one, with few and small requests.

    Args:
        reader: of the chain.
        floor: the version that is known; None for none, so that every version is news.
        list_every: looks of which one lists; the first is one of these.

    Attributes:
        floor: the version that is known; whoever has gone to another one says so here.
    """

    def __init__(self, reader: Reader, floor: int | None = None, *, list_every: int = LIST_EVERY) -> None:
        self._reader = reader
        self._list_every = list_every
        self._looks = 0
        self.floor = floor

    def look(self) -> list[int]:
        """The versions after the known one, ascending.

        Raises:
            ConflictError: another chain has taken the chain's place.
            MissingError: the chain was removed.
            UntrustedError: with trusted keys, the newest version is older than it may be (TD-SIG-008).
            StoreError: the store failed.
        """
        due = self._looks % self._list_every == 0
        self._looks += 1
        try:
            hint = self._hint()
        except ConflictError:
            hint, due = None, True
        found: list[int] = []
        if due or hint is None or hint != self.floor:
            if due:
                self._reader.documents.check_chain()
            found = self._reader.documents.versions(after=self.floor)
            newest = found[-1] if found else self.floor
            # A listing may be behind.
            if hint is not None and (newest is None or newest < hint) and self._exists(hint):
                found.append(hint)
        self._check_age(found[-1] if found else self.floor)
        return found

    def list_next(self) -> None:
        """Have the next look list."""
        self._looks = 0

    def _hint(self) -> int | None:
        """The version that latest.json names; None where it is absent or breaks a rule.

        Raises:
            ConflictError: it names another chain, which means nothing by itself.
        """
        try:
            with self._reader.store.open(LATEST) as blob:
                if blob.size > MAX_SMALL:
                    return None
                latest = parse_latest(bytes(blob.read(0, blob.size)))
        except TensorDeltaError:
            return None
        if latest.chain != self._reader.chain:
            raise ConflictError(f"names chain {latest.chain}", object=LATEST, rule="TD-OBJ-018")
        return latest.version

    def _exists(self, version: int) -> bool:
        try:
            self._reader.documents.manifest(version)
        except TensorDeltaError:
            return False
        return True

    def _check_age(self, newest: int | None) -> None:
        if newest is not None:
            try:
                self._reader.documents.check_age(newest)
            except MissingError:  # a collector took it, and something newer is there
                self.list_next()


class Pace:
    """How long a follower waits between two looks, in seconds.

    It looks less often while nothing comes, and much less often while the store fails. Waits differ by chance, so that
    many followers of one chain do not all come at once.

    Args:
        poll: the wait after news.
    """

    def __init__(self, poll: float) -> None:
        self._poll = poll
        self._idle = self._failing = poll

    def news(self) -> None:
        """Note that something came."""
        self._idle = self._failing = self._poll

    def idle(self) -> float:
        """The wait after a look that found nothing."""
        wait, self._failing = self._idle, self._poll
        self._idle = min(self._idle * _SLOWER, self._poll * _SLOWEST)
        return wait * random.uniform(0.9, 1.0)

    def failed(self) -> float:
        """The wait after a look that failed."""
        wait, self._failing = self._failing, min(self._failing * 2, max(_LONGEST, self._poll))
        return wait * random.uniform(0.5, 1.0)


def pursue(
    watch: Watch,
    go: Callable[[int], T | None],
    arrived: Callable[[T], int | None],
    *,
    poll: float,
    timeout: float | None,
    until: int | None,
    stop: threading.Event | None,
) -> Iterator[T]:
    """Go to the newest version again and again.

    Args:
        watch: looks.
        go: goes to a version and tells what came of it; None where there was nothing to do after all.
        arrived: the version that is known after the caller has taken what came.
        poll: seconds between two looks, about; up to four times that while nothing comes.
        timeout: seconds without anything after which this gives up; None for never. The time that the caller takes is
            not counted.
        until: the last version of interest: it ends there, and goes to none after.
        stop: ends it when set.

    Raises:
        TimeoutError: nothing came in time.
        StoreError: the store failed until the time was up.
        TensorDeltaError: of `go`. Of a version that went before it was reached, only where no newer one comes.
        ValueError: times that are none.
    """
    if not poll >= 0 or (timeout is not None and not timeout >= 0):
        raise ValueError("poll and timeout are seconds, not less than 0")
    stop = stop or threading.Event()
    pace = Pace(poll)
    since = time.monotonic()
    tried: tuple[int, int] = (-1, 0)
    while not stop.is_set() and not (until is not None and watch.floor is not None and watch.floor >= until):
        fault: OSError | None = None
        target: int | None = None
        came: T | None = None
        try:
            found = watch.look()
            wanted = [version for version in found if until is None or version <= until]
            if found and not wanted:  # there is none up to `until`, and there will be none
                return
            if wanted:
                target = wanted[-1]
                came = go(target)
        except StoreError as error:
            _LOG.warning("following the chain: %s", error)
            fault, pause = error, pace.failed()
        except MissingError as error:
            # A collector may have been there, so that something newer is.
            tried = (target or 0, tried[1] + 1 if tried[0] == target else 1)
            if target is None or tried[1] >= _TRIES:
                raise
            _LOG.info("following the chain, and planning again: %s", error)
            watch.list_next()
            pause = 0.0 if tried[1] == 1 else pace.failed()
        else:
            if came is not None:
                yield came
                watch.floor = arrived(came)
                del came
                pace.news()
                since = time.monotonic()
                continue
            pause = pace.idle()
        if timeout is not None:
            left = since + timeout - time.monotonic()
            if left <= 0:
                after = "at all" if watch.floor is None else f"after {watch.floor}"
                raise fault or TimeoutError(f"no version {after} appeared within {timeout:g} seconds")
            pause = min(pause, left)
        stop.wait(pause)


def follow(
    reader: Reader,
    state: State,
    *,
    poll: float = 1.0,
    timeout: float | None = None,
    until: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Update]:
    """The updates that take a state to each newer version; see `Chain.follow`.

    The state may be updated by others meanwhile, in other threads as well: then an update is prepared again, from the
    state as it is.
    """

    def held() -> int | None:
        return state.version if state.chain == reader.chain else None

    def go(version: int) -> Update | None:
        while True:
            generation = state.generation
            own = held()
            if own is not None and own >= version:
                watch.floor = own
                return None
            try:
                return reader.prepare(state, version)
            except WrongBaseError:
                if state.generation == generation:
                    raise

    watch = Watch(reader, held())
    return pursue(
        watch,
        go,
        lambda update: held() if update.stale else update.version,
        poll=poll,
        timeout=timeout,
        until=until,
        stop=stop,
    )


def follow_folder(
    reader: Reader,
    folder: str | os.PathLike[str],
    *,
    poll: float = 1.0,
    timeout: float | None = None,
    until: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Pulled]:
    """Pull each newer version into a folder; see `Chain.follow_folder`."""
    checkout = Checkout(folder)
    return pursue(
        Watch(reader),
        lambda version: checkout.pull(reader, version),
        lambda pulled: pulled.version,
        poll=poll,
        timeout=timeout,
        until=until,
        stop=stop,
    )


class Followed(Protocol):
    """What a `Follower` needs of a chain."""

    def follow(self, state: Any, *, poll: float, stop: threading.Event | None) -> Iterator[Update]:
        """Updates to newer versions, one after another."""


class Follower:
    """Follows a chain beside an engine: prepares in a thread while the engine serves, applies in its pause.

    The thread begins at once. Where a newer version comes before the engine has paused, an update to that one takes the
    place of the one that waited. The state may be read at any time but during `apply`, and nobody else writes to it.

    Args:
        chain: what is followed.
        state: what the engine serves: a `State`, or a mapping of names to arrays; see `Chain.prepare`.
        poll: seconds between two looks for a newer version, about; up to four times that while nothing comes.
        on_prepared: called with each update that is ready, in the follower's thread; it may ask the engine to pause.
        apply_when: asked by `apply` with the update that is ready; where it says no, the update keeps waiting.

    Example:
        >>> with td.Follower(chain, state) as follower:     # doctest: +SKIP
        ...     while serving():
        ...         serve_a_batch()
        ...         follower.apply()
    """

    def __init__(
        self,
        chain: Followed,
        state: Any,
        *,
        poll: float = 1.0,
        on_prepared: Callable[[Update], object] | None = None,
        apply_when: Callable[[Update], bool] | None = None,
    ) -> None:
        self._chain = chain
        self._state = state
        self._poll = poll
        self._on_prepared = on_prepared
        self._apply_when = apply_when
        self._stop = threading.Event()
        self._again = threading.Event()  # begin anew, from the state as it is
        self._changed = threading.Condition()
        self._ready: Update | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tensordelta-follower", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> Update | None:
        """The update that waits for `apply`, if one does."""
        with self._changed:
            return None if self._ready is None or self._ready.stale else self._ready

    def wait(self, timeout: float | None = None) -> Update | None:
        """Wait until an update is ready, or following has failed.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            The update; None where none came in time, or `apply` has an error to raise.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready() or self._error or self._stop.is_set(), timeout)
            return self._ready if self._is_ready() else None

    def _is_ready(self) -> bool:
        return self._ready is not None and not self._ready.stale

    def apply(self, *, threads: int | None = None) -> Update | None:
        """Apply the update that is ready: only the scatter. Nothing is done where none is.

        Args:
            threads: see `Update.apply`.

        Returns:
            The update that was applied, or None.

        Raises:
            TensorDeltaError, StoreError: following has failed since the last call. It begins anew after this, and what
                was ready before stays so.
            WrongBaseError: arrays of the state were written to, or replaced, by others.
        """
        with self._changed:
            error, self._error = self._error, None
            self._changed.notify_all()
            if error is not None:
                raise error
            update = self._ready
            if update is None or update.stale:
                return None
            if self._apply_when is not None and not self._apply_when(update):
                return None
            self._ready = None
            # Under the lock, so that the thread sees which of its updates is stale.
            try:
                update.apply(threads=threads)
            except BaseException:
                self._again.set()  # the version is still to come
                raise
        return update

    def close(self) -> None:
        """Stop following; waits for what is being prepared. What is ready can still be applied."""
        self._stop.set()
        with self._changed:
            self._again.set()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stop.is_set():
                    return
                self._again.clear()
            try:
                for update in self._chain.follow(self._state, poll=self._poll, stop=self._again):
                    self._take(update)
                    del update
            except Exception as error:
                _LOG.warning("following failed: %s", error)
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                    # Whoever reads the error may mend what caused it.
                    self._changed.wait_for(lambda: self._error is None or self._stop.is_set())

    def _take(self, update: Update) -> None:
        with self._changed:
            self._ready = update
            self._changed.notify_all()
        if self._on_prepared is not None:
            self._on_prepared(update)
