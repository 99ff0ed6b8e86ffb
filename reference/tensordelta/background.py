"""Publishing in the background: the trainer goes on while its step is compared, encoded and put (SPEC.md section 11).

Two threads work. One publishes: it takes the oldest step that waits, and compares it with what was published last, many
steps ago perhaps. The other one looks after the chain: it makes shortcuts for readers that are far behind, and lets old
versions go. It begins when there is nothing to publish, so that no version comes later for its sake; where publishing
never rests, a few versions go first.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .encoder import Order, Values, check_codecs
from .errors import MissingError
from .layout import Layout
from .plan import Plan
from .publish import Published
from .retention import GRACE, Collected
from .state import State
from .stores import cache_root
from .threads import ordered_map, thread_count
from .words import Words

_LOG = logging.getLogger("tensordelta")

#: Bytes that one thread copies at a time.
_COPY = 1 << 24
#: Versions that overtake each piece of upkeep where publishing never rests.
_PATIENCE = 4
#: A grace period, in seconds, from which on collecting cannot meet a version that is being published.
_LONG = 3600.0
#: Times the last collection took that pass before the next one.
_RARELY = 20

Progress = Literal["waiting", "publishing", "committing", "published", "superseded", "cancelled", "failed"]
_DONE = frozenset({"published", "superseded", "cancelled", "failed"})


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


class Publish(Protocol):
    """Publishes a state as the next version; see `Publisher.publish`."""

    def __call__(
        self,
        state: State,
        *,
        annotations: Mapping[str, str],
        values: Values,
        order: Order,
        files: Mapping[str, bytes | Path] | None,
        go_on: Callable[[bool], None],
    ) -> Published: ...


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


class _AbandonedError(Exception):
    """A step was cancelled while it was published."""


class Ticket:
    """A step that was submitted, and what becomes of it. Several threads may ask."""

    def __init__(self, owner: BackgroundPublisher, annotations: Mapping[str, str]) -> None:
        self._owner = owner
        self._changed = owner._changed
        self._progress: Progress = "waiting"
        self._published: Published | None = None
        self._error: Exception | None = None
        self._superseded_by: Ticket | None = None
        self.annotations = dict(annotations)

    @property
    def progress(self) -> Progress:
        """How far it is; from "committing" on it is too late to cancel it."""
        return self._progress

    @property
    def done(self) -> bool:
        """True where nothing more will happen to it."""
        return self._progress in _DONE

    @property
    def superseded_by(self) -> Ticket | None:
        """The ticket of the newer step that took its place, because the store is slower than the trainer."""
        return self._superseded_by

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            False where it is not done in time.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self.done, timeout)

    def result(self, timeout: float | None = None) -> Published:
        """The version that the step became; waits for it.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            concurrent.futures.CancelledError: it was cancelled, or superseded by a newer step.
            TimeoutError: it is not done in time.
            TensorDeltaError, OSError: of publishing it. It does not surface once more elsewhere.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"the step was not published within {timeout:g} seconds")
        if self._published is not None:
            return self._published
        if self._error is not None:
            self._owner._surfaced(self._error)
            raise self._error
        raise CancelledError(f"the step was {self._progress}{' by a newer one' if self._superseded_by else ''}")

    def cancel(self) -> bool:
        """Abandon the step, unless its version is being committed already.

        Returns:
            True where nothing of it will be visible. Packs that were put for it are left to a collector.
        """
        return self._owner._cancel(self)

    def __repr__(self) -> str:
        version = "" if self._published is None else f" as version {self._published.version}"
        return f"Ticket({self._progress}{version})"


class _Buffer:
    """Memory for one state, used again for the next one of the same layout."""

    def __init__(self) -> None:
        self.layout = Layout(())
        self.words: list[Words] = []

    def take(self, state: State, *, threads: int) -> None:
        """Copy a state, in parts that several threads share."""
        if self.layout != state.layout:
            self.words, self.layout = [], Layout(())  # the old memory goes before the new one comes
            words = [np.empty(tensor.words, tensor.kind.word) for tensor in state.layout.tensors]
            self.words, self.layout = words, state.layout

        def parts() -> Iterable[tuple[Words, Words]]:
            for index, target in enumerate(self.words):
                source, step = state.words(index), max(1, _COPY // target.itemsize)
                for start in range(0, len(target), step):
                    yield target[start : start + step], source[start : start + step]

        for _ in ordered_map(lambda part: np.copyto(*part), parts(), threads=threads):
            pass


@dataclass(frozen=True)
class _Step:
    ticket: Ticket
    buffer: _Buffer


@dataclass(frozen=True)
class _Job:
    """A shortcut to make."""

    version: int
    base: int | None


class BackgroundPublisher:
    """Publishes states while their trainer goes on. Made by `Chain.publisher`; a context.

    A step that waits is replaced by a newer one when the queue is full: a store that is slower than the trainer gets
    versions as often as it can take them, and each is compared with the one published before it.

    Args:
        chain: for shortcuts and collection.
        publish: publishes a state as the next version.
        upkeep: which shortcuts are made, and what stays.
        queue: steps that may wait; memory for one state more than these is held.
        values, order: how changed words are written, in versions and shortcuts.
        files: the files to lay beside the weights; None for those of the version before.
        threads: how many copy.

    Raises:
        ValueError: no queue, or codecs that do not go together.
    """

    def __init__(
        self,
        chain: Maintained,
        publish: Publish,
        upkeep: Upkeep,
        *,
        queue: int = 1,
        values: Values = "step",
        order: Order = "natural",
        files: Mapping[str, bytes | Path] | None = None,
        threads: int | None = None,
    ) -> None:
        if queue < 1:
            raise ValueError(f"queue is {queue}, not a positive number")
        check_codecs(values, order)
        self._chain = chain
        self._publish_state = publish
        self._upkeep = upkeep
        self._queue = queue
        self._values: Values = values
        self._order: Order = order
        self._files = files
        self._threads = thread_count(threads)
        self._changed = threading.Condition()
        self._submitting = threading.Lock()
        self._waiting: deque[_Step] = deque()
        self._free: list[_Buffer] = []
        self._current: _Step | None = None
        self._copying = False
        self._closing = False
        self._errors: deque[Exception] = deque()  # that nobody was told of yet
        # Of the upkeep: what is due, how often publishing went before it, and the version that was published last.
        self._jobs: deque[_Job] = deque()
        self._overtaken = 0
        self._newest: int | None = None
        self._abandoned = self._to_collect = False
        self._collect_at = 0.0
        # Bytes of the last full version or shortcut, and of the deltas since, about; None where nobody has looked.
        self._route: tuple[int, int] | None = None
        self._looked_at: int | None = None
        self._trouble: Exception | None = None
        # With a short grace period a collector must not meet packs of a version whose manifest is not there yet.
        short = upkeep.keep is not None and upkeep.grace < _LONG
        self._turns: AbstractContextManager[Any] = threading.Lock() if short else nullcontext()
        self._workers = [
            threading.Thread(target=work, name=f"tensordelta-{name}", daemon=True)
            for name, work in (("publisher", self._publish_all), ("upkeep", self._look_after))
        ]
        for worker in self._workers:
            worker.start()

    # -- the trainer's side ---------------------------------------------------------------------------------------

    def submit(
        self, state: State | Mapping[str, NDArray[Any]], *, annotations: Mapping[str, object] | None = None
    ) -> Ticket:
        """Take a copy of a state to publish; returns when it is copied.

        Args:
            state: a state, or a mapping of names to arrays, which may be written to after this returns.
            annotations: what else to say of the version, such as {"step": 420}.

        Raises:
            TensorDeltaError, OSError: of a step before that could not be published; it surfaces once, and this state is
                not taken. Submit again: it is compared with what was published last.
            MalformedError, LimitError, ValueError: a state that the format does not have.
            RuntimeError: the publisher is closed.
        """
        with self._submitting:
            self._check_open()
            taken = state if isinstance(state, State) else State.from_arrays(state)
            ticket = Ticket(self, {str(key): str(value) for key, value in (annotations or {}).items()})
            buffer, overtaken = self._room(ticket)
            try:
                buffer.take(taken, threads=self._threads)
            except BaseException as error:
                with self._changed:
                    self._copying = False
                    self._free.append(buffer)
                    if overtaken is not None:
                        overtaken._superseded_by = None
                        self._fail(overtaken, RuntimeError(f"the copy of the step after it failed: {error}"))
                    self._changed.notify_all()
                raise
            with self._changed:
                self._copying = False
                self._waiting.append(_Step(ticket, buffer))
                self._changed.notify_all()
            return ticket

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all steps that were submitted are published; shortcuts may still be under way.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TensorDeltaError, OSError: of a step that could not be published; it surfaces once.
            TimeoutError: it takes longer.
        """
        with self._changed:
            if not self._changed.wait_for(self._is_idle, timeout):
                raise TimeoutError(f"steps were not published within {timeout:g} seconds")
            self._raise()

    def close(self, *, upkeep: bool = True) -> None:
        """Publish what was submitted, make the shortcuts that are due, collect, and end; closing again does nothing.

        Args:
            upkeep: False leaves out shortcuts and collection that have not begun.

        Raises:
            TensorDeltaError, OSError: of a step that could not be published; it surfaces once.
        """
        with self._submitting, self._changed:
            self._closing = True
            self._abandoned = self._abandoned or not upkeep
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()
        with self._changed:
            self._free.clear()
            self._raise()

    @property
    def trouble(self) -> Exception | None:
        """Why the last shortcut or collection failed, if it did; versions do not suffer from it."""
        return self._trouble

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(upkeep=False)
        except Exception as own:  # the error of the block is the one to see
            _LOG.warning("the last steps could not be published: %s", own)

    def _check_open(self) -> None:
        with self._changed:
            self._raise()
            if self._closing:
                raise RuntimeError("the publisher is closed")

    def _raise(self) -> None:
        if self._errors:
            raise self._errors.popleft()

    def _surfaced(self, error: Exception) -> None:
        with self._changed:
            if error in self._errors:
                self._errors.remove(error)

    def _is_idle(self) -> bool:
        return not self._waiting and self._current is None and not self._copying

    def _room(self, ticket: Ticket) -> tuple[_Buffer, Ticket | None]:
        """A buffer to copy into, and the ticket of the step whose place that is."""
        with self._changed:
            self._copying = True
            if len(self._waiting) < self._queue:
                return self._free.pop() if self._free else _Buffer(), None
            overtaken = self._waiting.popleft()
            overtaken.ticket._superseded_by = ticket
            overtaken.ticket._progress = "superseded"
            self._changed.notify_all()
            return overtaken.buffer, overtaken.ticket

    def _cancel(self, ticket: Ticket) -> bool:
        with self._changed:
            step = next((each for each in self._waiting if each.ticket is ticket), None)
            if step is not None:
                self._waiting.remove(step)
                self._free.append(step.buffer)
            elif ticket._progress != "publishing":
                return ticket._progress == "cancelled"
            ticket._progress = "cancelled"
            self._changed.notify_all()
            return True

    # -- publishing -----------------------------------------------------------------------------------------------

    def _publish_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or (self._closing and not self._copying))
                if not self._waiting:
                    return
                step = self._current = self._waiting.popleft()
                step.ticket._progress = "publishing"
            try:
                self._publish(step)
            finally:
                with self._changed:
                    self._current = None
                    self._free.append(step.buffer)
                    self._changed.notify_all()

    def _publish(self, step: _Step) -> None:
        ticket = step.ticket

        def go_on(committing: bool) -> None:
            with self._changed:
                if ticket._progress == "cancelled":
                    raise _AbandonedError
                if committing:
                    ticket._progress = "committing"

        try:
            with self._turns:
                published = self._publish_state(
                    State(step.buffer.layout, step.buffer.words),
                    annotations=ticket.annotations,
                    values=self._values,
                    order=self._order,
                    files=self._files,
                    go_on=go_on,
                )
        except _AbandonedError:
            return
        except Exception as error:
            with self._changed:
                if ticket._progress != "cancelled":
                    self._fail(ticket, error)
            return
        with self._changed:
            ticket._published = published
            ticket._progress = "published"
            self._note(published)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        _LOG.warning("a step could not be published: %s", error)
        ticket._error = error
        ticket._progress = "failed"
        self._errors.append(error)

    # -- upkeep ---------------------------------------------------------------------------------------------------

    def _note(self, published: Published) -> None:
        """Note what a version that was published makes due."""
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

    def _look_after(self) -> None:
        """Do what is due, one thing after another."""
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
            except (
                MissingError
            ) as error:  # where a shortcut starts or ends was dropped, or there never was such a version
                _LOG.info("upkeep: %s", error)
            except Exception as error:
                _LOG.warning("upkeep: %s", error)
                self._trouble = error
            else:
                self._trouble = None

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
        work = cache_root() / "shortcuts" / self._chain.id / kind
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
            with self._turns:
                self._chain.collect(self._upkeep.keep, grace=self._upkeep.grace)
        finally:
            self._collect_at = monotonic() + _RARELY * (monotonic() - started)
