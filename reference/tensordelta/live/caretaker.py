"""The caretaker of a publisher: makes shortcuts and collects old versions (SPEC.md sections 11.4 and 13).

It works in a thread of its own, and starts a piece of work when nothing waits to be published, so that it delays no
version. If publishing never pauses, each piece of work lets a few versions go first.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from ..errors import MissingError
from ..keep.collect import Collected
from ..read.history import Published
from ..read.routes import Plan
from ..stores import cache_folder
from ..write.encoder import Order, Values

_LOG = logging.getLogger("tensordelta")

#: Versions that are published before each piece of work if publishing never pauses.
_PATIENCE = 4
#: Pause between two collections, as a multiple of the time that the last one took.
_RARELY = 20


class Maintained(Protocol):
    """What a caretaker needs of a chain."""

    @property
    def id(self) -> str:
        """The chain id."""

    def plan(self, version: int | None = None, base: int | None = None) -> Plan:
        """The cheapest route."""

    def shortcut(
        self, base: int | None, version: int, *, order: Order, values: Values, work: str | Path | None
    ) -> Published:
        """Make a shortcut."""

    def collect(self, keep_last: int, *, grace: float | None) -> Collected:
        """Delete old versions."""


@dataclass(frozen=True)
class Upkeep:
    """Which shortcuts a publisher makes, and which versions it keeps.

    Attributes:
        keep: number of newest versions to keep; None keeps all.
        full_every: versions whose number is a multiple of this get a full shortcut; None for none by number.
        skip: for each of these lengths, versions whose number is a multiple of it get a shortcut of that length.
        grace: seconds for which what was dropped can still be read; see `Chain.collect`.

    Raises:
        ValueError: a number out of range.
    """

    keep: int | None = None
    full_every: int | None = None
    skip: tuple[int, ...] = (8, 64)
    grace: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep is {self.keep}: the newest version always stays")
        if self.full_every is not None and self.full_every < 1:
            raise ValueError(f"full_every is {self.full_every}, not a positive number")
        if any(length < 2 for length in self.skip):
            raise ValueError(f"skip is {self.skip}: a delta leads from the version before anyway")
        if self.grace is not None and not self.grace >= 0:
            raise ValueError(f"grace is {self.grace} seconds")

    def bases(self, version: int) -> list[int | None]:
        """The bases of the shortcuts that a version gets by its number; None for a full one."""
        bases: list[int | None] = [
            version - length for length in sorted(set(self.skip)) if version >= length and version % length == 0
        ]
        if self.full_every is not None and version and version % self.full_every == 0:
            bases.append(None)
        return bases


class Caretaker:
    """Makes shortcuts and collects old versions while another thread publishes.

    `run` belongs to one thread. `note` and `close` are called by others, with `changed` held.

    Args:
        chain: the chain.
        upkeep: which shortcuts are made, and which versions are kept.
        values, order: how shortcuts are encoded.
        changed: guards the shared state, and wakes `run`.
        is_idle: True if nothing waits to be published; called with `changed` held.

    Attributes:
        turns: held while a version is published, if the grace period is 0: a collector must not find packs of a version
            whose manifest does not exist yet.
        trouble: why the last shortcut or collection failed; None if it succeeded.
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
        #: The shortcuts that are due: version and base.
        self._shortcuts: deque[tuple[int, int | None]] = deque()
        #: Versions that were published since the last piece of work began, and the newest of all.
        self._overtaken = 0
        self._newest: int | None = None
        self._closing = self._abandoned = self._to_collect = False
        self._collect_at = 0.0
        #: Bytes of the last full version or shortcut, and of the deltas since, approximately; None if not known.
        self._route: tuple[int, int] | None = None
        self._looked_at: int | None = None
        self.trouble: Exception | None = None
        alone = upkeep.keep is not None and upkeep.grace == 0
        self.turns: AbstractContextManager[Any] = threading.Lock() if alone else nullcontext()

    def note(self, published: Published) -> None:
        """Note a version that was published, with `changed` held."""
        if self._newest is None:
            self._shortcuts.extend(self._left_over(published.version))
        self._newest = published.version
        self._overtaken += 1
        self._to_collect = self._upkeep.keep is not None
        if published.base is None:
            self._route = published.size, 0
        elif self._route is not None:
            full, deltas = self._route
            self._route = full, deltas + published.size
        for base in self._upkeep.bases(published.version):
            if base is not None or published.base is not None:
                self._shortcuts.append((published.version, base))

    def close(self, *, abandon: bool) -> None:
        """Make `run` end when everything is published, with `changed` held.

        Args:
            abandon: leave out work that has not begun.
        """
        self._closing = True
        self._abandoned = self._abandoned or abandon

    def run(self) -> None:
        """Do what is due, one piece of work after another, until closed."""
        while True:
            with self._changed:
                while (work := self._next()) is None:
                    if self._closing and self._is_idle():
                        return
                    pause = self._collect_at - monotonic()
                    self._changed.wait(pause if pause > 0 else None)
                self._overtaken = 0
            try:
                work()
            except MissingError as error:
                # The shortcut's version or base was collected, or never existed.
                _LOG.info("upkeep: %s", error)
            except Exception as error:
                self.trouble = error
                with suppress(ValueError):  # a handler whose stream was closed must not end the thread
                    _LOG.warning("upkeep: %s", error)
            else:
                self.trouble = None

    def _next(self) -> Callable[[], object] | None:
        """Take the next piece of work, if it is time for it."""
        if self._abandoned or self._newest is None:
            return None
        if not self._is_idle() and self._overtaken < _PATIENCE:
            return None
        if self._shortcuts:
            return partial(self._make, *self._shortcuts.popleft())
        if self._newest != self._looked_at and (self._route is None or self._route[1] > self._route[0]):
            self._looked_at = self._newest
            return partial(self._shorten, self._newest)
        if self._to_collect and (self._closing or monotonic() >= self._collect_at):
            self._to_collect = False
            return self._collect
        return None

    def _left_over(self, newest: int) -> list[tuple[int, int | None]]:
        """The last shortcut of each kind that was due before `newest`: a process that died may not have made it."""
        every = [*self._upkeep.skip, *([] if self._upkeep.full_every is None else [self._upkeep.full_every])]
        last = {newest - newest % length for length in every} - {newest}
        return [(version, base) for version in sorted(last) for base in self._upkeep.bases(version)]

    def _make(self, version: int, base: int | None) -> Published | None:
        """Make a shortcut, unless it is a full one and the version can be loaded over one edge already."""
        if base is None and len(self._chain.plan(version).edges) == 1:
            return None
        kind = "full" if base is None else str(version - base)
        work = cache_folder("shortcuts", self._chain.id, kind)
        return self._chain.shortcut(base, version, order=self._order, values=self._values, work=work)

    def _shorten(self, version: int) -> None:
        """Make a full shortcut if a route from nothing reads more bytes of deltas than of its full version."""
        edges = self._chain.plan(version).edges
        full = edges[0].manifest.size if edges else 0
        deltas = sum(edge.manifest.size for edge in edges[1:])
        made = self._make(version, None) if deltas > full else None
        with self._changed:
            self._route = (full, deltas) if made is None else (made.size or full, 0)

    def _collect(self) -> None:
        assert self._upkeep.keep is not None
        started = monotonic()
        try:
            with self.turns:
                self._chain.collect(self._upkeep.keep, grace=self._upkeep.grace)
        finally:
            self._collect_at = monotonic() + _RARELY * (monotonic() - started)
