"""Looking for newer versions, and going to each one as it appears (SPEC.md sections 4.11, 9.3 and 10.2).

A look reads latest.json, one small object, and nothing else while it names the known version. Every few looks, and
whenever the hint is absent, malformed or names another version, the manifests after the known version are listed as
well: only they decide which versions exist (TD-OBJ-018, TD-OBJ-019). Where nothing can be listed, the manifest that the
hint names is read.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import TypeVar

from ..errors import ConflictError, MissingError, StoreError, TensorDeltaError, UntrustedError
from ..read.reader import Reader

T = TypeVar("T")

_LOG = logging.getLogger("tensordelta")

#: One look in so many lists, whatever latest.json says.
LIST_EVERY = 10

#: Factor between two waits while nothing appears, and the longest such wait as a multiple of `poll`.
_SLOWER, _SLOWEST = 1.25, 4.0
#: Longest wait after failures, in seconds, unless `poll` is longer.
_LONGEST = 30.0
#: Attempts in all to reach a version whose objects are missing, while no newer one appears.
_TRIES = 4


class Watch:
    """Looks for versions after a known one, with few and small requests.

    A watch belongs to one thread. Watches of several threads may share one reader.

    Args:
        reader: of the chain.
        floor: the known version; None if no version is known, so that every version is new.
        list_every: one look in so many lists, beginning with the first.
        complete: find the versions between the listed ones and the one that latest.json names, too, at the cost of
            reading manifests.

    Attributes:
        floor: the known version. The caller updates it when it has gone to another one.
    """

    def __init__(
        self, reader: Reader, floor: int | None = None, *, list_every: int = LIST_EVERY, complete: bool = False
    ) -> None:
        self._reader = reader
        self._list_every = list_every
        self._complete = complete
        self._looks = 0
        self.floor = floor

    def look(self) -> list[int]:
        """The versions after the known one, ascending, signed or not.

        Raises:
            ConflictError: another chain has replaced this one.
            MissingError: the chain was removed.
            UntrustedError: with trusted keys, the newest version is older than allowed (TD-SIG-008).
            StoreError: the store failed.
        """
        documents, lists = self._reader.documents, self._reader.store.lists
        due = lists and self._looks % self._list_every == 0
        self._looks += 1
        try:
            latest = documents.hint()
        except ConflictError:
            latest, due = None, True
        hint = None if latest is None else latest.version
        found: list[int] = []
        if due or hint is None or hint != self.floor:
            if due or not (lists or hint is not None):
                documents.check_chain()
            found = documents.versions(after=self.floor) if lists else []
            newest = found[-1] if found else self.floor
            # A listing may lag behind, or there is none.
            if hint is not None and (newest is None or newest < hint) and self._exists(hint):
                found += self._between(newest, hint) if self._complete else [hint]
        self._check_newest(found)
        return found

    def first(self, versions: Sequence[int]) -> int | None:
        """The first of some versions that a reader may go to: with trusted keys, the first signed one."""
        return next(self._reader.documents.signed(versions), None)

    def list_next(self) -> None:
        """Make the next look list."""
        self._looks = 0

    def _between(self, listed: int | None, hint: int) -> list[int]:
        """The versions after the last listed one, up to another, of which each is the base of the next."""
        found = [hint]
        with suppress(TensorDeltaError):
            while (base := self._reader.documents.manifest(found[0]).base) is not None:
                if listed is not None and base.version <= listed:
                    break
                found.insert(0, base.version)
        return found

    def _exists(self, version: int) -> bool:
        try:
            self._reader.documents.manifest(version)
        except (MissingError, UntrustedError):
            return False
        except TensorDeltaError:  # it exists, and whoever reads it reports what is wrong with it
            return True
        return True

    def _check_newest(self, found: Sequence[int]) -> None:
        trust = self._reader.trust
        if trust is None or (trust.max_age is None and trust.remembered is None):
            return
        newest = self.first(found[::-1])
        newest = self.floor if newest is None else newest
        if newest is not None:
            try:
                self._reader.documents.check_newest(newest)
            except MissingError:  # a collector deleted it, so a newer version exists
                self.list_next()


class Pace:
    """How long a follower waits between two looks, in seconds.

    Waits grow while nothing appears, and much more while the store fails. They are randomised, so that many followers
    of one chain do not look at the same moment.

    Args:
        poll: the wait after a new version.
    """

    def __init__(self, poll: float) -> None:
        self._poll = poll
        self._idle = self._failing = poll

    def news(self) -> None:
        """Reset the waits after a new version."""
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
    *,
    known: Callable[[], int | None],
    poll: float,
    timeout: float | None,
    until: int | None,
    stop: threading.Event | None,
    one_by_one: bool = False,
    passing: Callable[[Exception], bool] = lambda error: isinstance(error, StoreError),
) -> Iterator[T]:
    """Go to the newest version again and again.

    Args:
        watch: looks.
        go: goes to a version and returns the outcome, which is yielded; None if nothing had to be done after all.
        known: the known version, asked before each look.
        poll: seconds between two looks, approximately; up to four times that while nothing appears.
        timeout: seconds without a new version after which this gives up; None for never. The time between a yield and
            the next request does not count.
        until: the last version of interest; iteration ends there, and goes to none after it.
        stop: ends the iteration when set.
        one_by_one: go to each version after the known one; to the newest where none is known.
        passing: says of an error of `go`, or of a look, whether trying again may help; by default errors of the store.

    Raises:
        TimeoutError: no new version appeared in time.
        StoreError: the store failed until the time was up; or another passing error.
        MissingError: objects of the newest version are missing, after some attempts or when the time is up; or the
            chain was removed.
        TensorDeltaError: raised by `go`, or by a look.
        ValueError: `poll` or `timeout` is negative or no number.
    """
    if not poll >= 0 or (timeout is not None and not timeout >= 0):
        raise ValueError("poll and timeout are seconds, not less than 0")
    stop = stop or threading.Event()
    pace = Pace(poll)
    since = monotonic()
    tried: tuple[int, int] = (-1, 0)
    while not stop.is_set():
        watch.floor = known()
        if until is not None and watch.floor is not None and watch.floor >= until:
            return
        fault: Exception | None = None
        target: int | None = None
        came: T | None = None
        try:
            found = watch.look()
            wanted = [version for version in found if until is None or version <= until]
            if found and not wanted:  # no version up to `until` exists, and none can appear any more
                return
            if wanted:
                target = watch.first(wanted if one_by_one and watch.floor is not None else wanted[::-1])
                came = None if target is None else go(target)
        except MissingError as error:
            # If a collector deleted the objects, a newer version exists.
            tried = (target or 0, tried[1] + 1 if tried[0] == target else 1)
            if target is None or tried[1] >= _TRIES:
                raise
            _LOG.info("following the chain, and planning again: %s", error)
            watch.list_next()
            fault, pause = error, 0.0 if tried[1] == 1 else pace.failed()
        except Exception as error:
            if not passing(error):
                raise
            _LOG.warning("following the chain: %s", error)
            fault, pause = error, pace.failed()
        else:
            if came is not None:
                yield came
                del came
                pace.news()
                since = monotonic()
                continue
            pause = pace.idle()
        if timeout is not None:
            left = since + timeout - monotonic()
            if left <= 0:
                after = "at all" if watch.floor is None else f"after {watch.floor}"
                raise fault or TimeoutError(f"no version {after} appeared within {timeout:g} seconds")
            pause = min(pause, left)
        _wait(stop, pause)


def _wait(stop: threading.Event, seconds: float) -> None:
    stop.wait(seconds)
