"""Upkeep: what a publisher does for its chain beside publishing (SPEC.md sections 11.4 and 13).

Shortcuts are made for readers that are far behind, and old versions let go, by a thread of their own. It begins when
there is nothing to publish, so that no version comes later for its sake; where publishing never rests, a few versions
go first.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from ..errors import MissingError
from ..keep.collect import Collected
from ..keep.policy import GRACE
from ..read.plan import Plan
from ..read.published import Published
from ..stores import cache_root
from ..write.encoder import Order, Values

_LOG = logging.getLogger("tensordelta")

#: Versions that overtake each piece of upkeep where publishing never rests.
_PATIENCE = 4
#: A grace period, in seconds, from which on collecting cannot meet a version that is being published.
_LONG = 3600.0
#: Times the last collection took that pass before the next one.
_RARELY = 20


class Maintained(Protocol):
    """What a publisher needs of a chain for its upkeep."""

    @property
    def id(self) -> str:
        """The chain id."""

    @property
    def newest(self) -> int | None:
        """The newest version."""

    def plan(self, version: int | None = None, base: int | None = None) -> Plan:
        """The cheapest route."""

    def shortcut(
        self, base: int | None, version: int, *, order: Order, values: Values, work: str | Path | None
    ) -> Published:
        """Make a shortcut."""

    def collect(self, keep_last: int, *, grace: float) -> Collected:
        """Let old versions go."""


@dataclass(frozen=True)
class Upkeep:
    """What a publisher does for its chain beside publishing.

    Attributes:
        keep: the newest so many versions stay, and older ones go; None lets all stay.
        full_every: versions whose number this divides get a full shortcut; None for none by number.
        skip: a version whose number one of these divides gets a shortcut from so many versions before.
        grace: seconds that everything stays after it was written; see `Chain.collect`.

    Raises:
        ValueError: a number that makes no sense.
    """

    keep: int | None = None
    full_every: int | None = None
    skip: tuple[int, ...] = (8, 64)
    grace: float = GRACE

    def __post_init__(self) -> None:
        """Refuse what could not be meant."""
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep is {self.keep}: the newest version always stays")
        if self.full_every is not None and self.full_every < 1:
            raise ValueError(f"full_every is {self.full_every}, not a positive number")
        if any(length < 2 for length in self.skip):
            raise ValueError(f"skip is {self.skip}: a delta leads from the version before anyway")
        if not self.grace >= 0:
            raise ValueError(f"grace is {self.grace} seconds")

    def bases(self, version: int) -> list[int | None]:
        """Where the shortcuts to a version start, by its number; None for a full one."""
        bases: list[int | None] = [
            version - length for length in sorted(set(self.skip)) if version >= length and version % length == 0
        ]
        if self.full_every is not None and version and version % self.full_every == 0:
            bases.append(None)
        return bases


@dataclass(frozen=True)
class _Job:
    """A shortcut to make."""

    version: int
    base: int | None


class Caretaker:
    """Looks after a chain while another thread publishes to it.

    Args:
        chain: for shortcuts and collection.
        upkeep: which shortcuts are made, and what stays.
        values, order: how changed words are written in shortcuts.
        changed: guards what the threads share, and wakes `run`.
        is_idle: tells, with `changed` held, that there is nothing to publish.

    Attributes:
        turns: to be held while a version is published; with a short grace period a collector must not meet packs of a
            version whose manifest is not there yet.
        trouble: why the last shortcut or collection failed, if it did.
    """

    def __init__(
        self,
        chain: Maintained,
        upkeep: Upkeep,
        *,
        values: Values,
        order: Order,
        changed: threading.Condition,
        is_idle: Callable[[], bool],
    ) -> None:
        self._chain = chain
        self._upkeep = upkeep
        self._values: Values = values
        self._order: Order = order
        self._changed = changed
        self._is_idle = is_idle
        # What is due, how often publishing went before it, and the version that was published last.
        self._jobs: deque[_Job] = deque()
        self._overtaken = 0
        self._newest: int | None = None
        self._closing = self._abandoned = self._to_collect = False
        self._collect_at = 0.0
        # Bytes of the last full version or shortcut, and of the deltas since, about; None where nobody has looked.
        self._route: tuple[int, int] | None = None
        self._looked_at: int | None = None
        self.trouble: Exception | None = None
        short = upkeep.keep is not None and upkeep.grace < _LONG
        self.turns: AbstractContextManager[Any] = threading.Lock() if short else nullcontext()

    def note(self, published: Published) -> None:
        """Note what a version that was published makes due; with `changed` held."""
        if self._newest is None:
            self._jobs.extend(self._left_over(published.version))
        self._newest = published.version
        self._overtaken += 1
        self._to_collect = self._upkeep.keep is not None
        if published.base is None:
            self._route = published.size, 0
        elif self._route is not None:
            full, rest = self._route
            self._route = full, rest + published.size
        for base in self._upkeep.bases(published.version):
            if base is not None or published.base is not None:
                self._jobs.append(_Job(published.version, base))

    def close(self, *, abandon: bool) -> None:
        """Have `run` end once all is published; with `changed` held.

        Args:
            abandon: leave out what has not begun.
        """
        self._closing = True
        self._abandoned = self._abandoned or abandon

    def run(self) -> None:
        """Do what is due, one thing after another, until closed."""
        while True:
            with self._changed:
                due: deque[Callable[[], None]] = deque()

                def ready(due: deque[Callable[[], None]] = due) -> bool:
                    due.extend(self._due())
                    return bool(due) or (self._closing and self._is_idle())

                pause = self._collect_at - monotonic()
                self._changed.wait_for(ready, pause if pause > 0 else None)
                if not due:
                    if self._closing and self._is_idle():
                        return
                    continue
                self._overtaken = 0
            try:
                due[0]()
            except MissingError as error:
                # Where a shortcut starts or ends was dropped, or there never was such a version.
                _LOG.info("upkeep: %s", error)
            except Exception as error:
                _LOG.warning("upkeep: %s", error)
                self.trouble = error
            else:
                self.trouble = None

    def _due(self) -> list[Callable[[], None]]:
        """The one thing to do next, if it is time for it; it counts as begun."""
        if self._abandoned or self._newest is None:
            return []
        if not self._is_idle() and self._overtaken < _PATIENCE:
            return []
        if self._jobs:
            return [partial(self._make_due, self._jobs.popleft())]
        if self._newest != self._looked_at and (self._route is None or self._route[1] > self._route[0]):
            self._looked_at = self._newest
            return [partial(self._shorten, self._newest)]
        if self._to_collect and (self._closing or monotonic() >= self._collect_at):
            self._to_collect = False
            return [self._collect]
        return []

    def _left_over(self, newest: int) -> list[_Job]:
        """The last shortcuts of each kind that were due before `newest`: a process that died may have left them out."""
        every = [*self._upkeep.skip, *([] if self._upkeep.full_every is None else [self._upkeep.full_every])]
        last = {newest - newest % length for length in every} - {newest}
        return [_Job(version, base) for version in sorted(last) for base in self._upkeep.bases(version)]

    def _make_due(self, job: _Job) -> None:
        self._make(job)

    def _make(self, job: _Job) -> Published | None:
        """Make a shortcut, unless the version is a full one anyway."""
        if job.base is None and len(self._chain.plan(job.version).edges) == 1:
            return None
        kind = "full" if job.base is None else str(job.version - job.base)
        work = cache_root(make=True) / "shortcuts" / self._chain.id / kind
        return self._chain.shortcut(job.base, job.version, order=self._order, values=self._values, work=work)

    def _shorten(self, version: int) -> None:
        """Make a full shortcut where readers that hold nothing would read more deltas than a full version takes."""
        edges = self._chain.plan(version).edges
        full = edges[0].manifest.size if edges else 0
        rest = sum(edge.manifest.size for edge in edges[1:])
        made = self._make(_Job(version, None)) if rest > full else None
        with self._changed:
            self._route = (full, rest) if made is None else (made.size or full, 0)

    def _collect(self) -> None:
        assert self._upkeep.keep is not None
        started = monotonic()
        try:
            with self.turns:
                self._chain.collect(self._upkeep.keep, grace=self._upkeep.grace)
        finally:
            self._collect_at = monotonic() + _RARELY * (monotonic() - started)
