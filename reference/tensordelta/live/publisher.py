"""Publishing in the background: the trainer continues while its step is compared, encoded and put (SPEC.md section 11).

Two threads work. One publishes the oldest step that waits, as a delta to the version that was published last, which may
be many steps ago. The other one makes shortcuts and collects (`caretaker`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, Protocol, Self, TypeVar

import numpy as np

from ..codecs.words import Words
from ..format.layout import Layout, Tensor
from ..read.history import Published
from ..state.frameworks import ArraysLike, check_no_model, pairs_of
from ..state.shard_file import FileWords
from ..state.state import State
from ..threads import Lock, Process, ordered_map, thread_count
from ..write.encoder import Codecs, Order, Values
from . import at_exit
from .caretaker import Caretaker, Maintained, Upkeep

_LOG = logging.getLogger("tensordelta")

#: Bytes that one thread copies at a time.
_COPY = 1 << 24
#: Bytes that threads copy at the same time.
_FLYING = 1 << 26

Progress = Literal["waiting", "publishing", "committing", "published", "superseded", "cancelled", "failed"]
_DONE = frozenset({"published", "superseded", "cancelled", "failed"})

#: What is kept of a step until it is published.
W = TypeVar("W")


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
        layout_change: bool,
        go_on: Callable[[bool], None],
    ) -> Published: ...


class _AbandonedError(Exception):
    """The step was cancelled while it was published."""


class Ticket:
    """A step that was submitted, and its outcome.

    Threads may share a ticket: all methods may be called at the same time, and each caller gets the same outcome. In a
    fork of its publisher's process, methods that would wait raise RuntimeError.
    """

    def __init__(self, owner: StepQueue[Any], annotations: Mapping[str, str]) -> None:
        self._owner = owner
        self._changed = owner._changed
        self._progress: Progress = "waiting"
        self._published: Published | None = None
        self._error: Exception | None = None
        self._superseded_by: Ticket | None = None
        self.annotations = dict(annotations)

    @property
    def progress(self) -> Progress:
        """The stage that it has reached; from "committing" on it can no longer be cancelled."""
        return self._progress

    @property
    def done(self) -> bool:
        """True if its progress is final."""
        return self._progress in _DONE

    @property
    def superseded_by(self) -> Ticket | None:
        """The ticket of the newer step that replaced it, because the store is slower than the trainer."""
        return self._superseded_by

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            False if it is not done in time.
        """
        if self.done:
            return True
        self._owner._process.check()
        with self._changed:
            return self._changed.wait_for(lambda: self.done, timeout)

    def result(self, timeout: float | None = None) -> Published:
        """The version that the step became; waits for it.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            concurrent.futures.CancelledError: it was cancelled, or superseded by a newer step.
            TimeoutError: it is not done in time.
            TensorDeltaError, OSError: publishing failed. The error is then not raised by the publisher as well.
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
        """Cancel the step, unless its version is being committed already.

        Returns:
            True if no version will result. Packs that were put for it are left to a collector.
        """
        return self._owner._cancel(self)

    def __reduce__(self) -> NoReturn:
        self._owner._process.refuse_to_travel()

    def __repr__(self) -> str:
        version = "" if self._published is None else f" as version {self._published.version}"
        return f"Ticket({self._progress}{version})"


@dataclass(frozen=True)
class _Step(Generic[W]):
    ticket: Ticket
    work: W


class StepQueue(Generic[W]):
    """Steps that wait to be published, and the thread that publishes one after another; a context manager.

    When the queue is full, a newer step replaces the one that has waited longest: a store that is slower than the
    trainer gets versions as often as it can take them, each a delta to the one before it.

    Threads may share a queue: all methods may be called at the same time, and steps are published in the order in which
    they were submitted. Listeners of the chain may call its methods, but one that is called for a published version
    must not wait for steps, since publishing waits for it. A queue belongs to one process, since its threads do not
    survive a fork: in a forked child methods raise RuntimeError, and `close` leaves the steps to the parent.

    When the program ends, or raises, while steps wait, the interpreter waits up to a minute until they are published,
    and says on stderr which ones were not, and why (see `at_exit`). A process that is killed loses them.

    Args:
        chain: for shortcuts and collection.
        publish: publishes what is kept of a step, with annotations, as the next version; calls its last argument as
            `Chain.publish_pieces` does.
        upkeep: which shortcuts are made, and which versions are kept.
        queue: steps that may wait.
        values, order: how changed words are encoded in shortcuts.
        every: every step is published, or fails: none is superseded or cancelled, `_room` waits instead, and an error
            is raised by `result`, `flush` and `close` only.
        release: called with what was kept of a step that is done, or cancelled.

    Raises:
        ValueError: `queue` is not positive, or the codecs do not go together.
    """

    def __init__(
        self,
        chain: Maintained,
        publish: Callable[[W, Mapping[str, str], Callable[[bool], None]], Published],
        upkeep: Upkeep,
        *,
        queue: int,
        values: Values,
        order: Order,
        every: bool = False,
        release: Callable[[W], None] = lambda work: None,
    ) -> None:
        if queue < 1:
            raise ValueError(f"queue is {queue}, not a positive number")
        Codecs(values, order)  # refused here, and not by each step
        self._publish_work = publish
        self._release = release
        self._queue = queue
        self._every = every
        self._process = Process("the publisher")
        self._chain_id = chain.id
        self._changed = threading.Condition()
        self._submitting = Lock()
        self._waiting: deque[_Step[W]] = deque()
        self._current: _Step[W] | None = None
        self._copying = False
        self._closing = False
        self._errors: deque[Exception] = deque()  # not yet raised to a caller
        self._caretaker = Caretaker(
            chain, upkeep, values=values, order=order, changed=self._changed, is_idle=self._is_idle
        )
        self._workers = [
            threading.Thread(target=work, name=f"tensordelta-{name}", daemon=True)
            for name, work in (("publisher", self._publish_all), ("upkeep", self._caretaker.run))
        ]
        for worker in self._workers:
            worker.start()
        at_exit.watch(self)

    # -- the trainer's side ---------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all submitted steps are published; shortcuts may still be in progress.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            TensorDeltaError, OSError: a step could not be published; raised once.
            TimeoutError: it takes longer.
        """
        self._process.check()
        with self._changed:
            if not self._changed.wait_for(self._is_idle, timeout):
                raise TimeoutError(f"steps were not published within {timeout:g} seconds")
            self._raise()

    def close(self, *, upkeep: bool = True) -> None:
        """Publish what was submitted, make the shortcuts that are due, collect, and end; closing again does nothing.

        Called by a listener in one of the publisher's own threads, it returns without waiting.

        Args:
            upkeep: False leaves out shortcuts and collection that have not begun.

        Raises:
            TensorDeltaError, OSError: a step could not be published; raised once.
        """
        if not self._process.is_here:
            return
        with self._submitting, self._changed:
            self._closing = True
            self._caretaker.close(abandon=not upkeep)
            self._changed.notify_all()
        if threading.current_thread() in self._workers:
            return
        for worker in self._workers:
            worker.join()
        at_exit.forget(self)
        with self._changed:
            self._raise()

    def settle(self, timeout: float) -> None:
        """Wait until all submitted steps are published, or the time is up."""
        if self._process.is_here:
            with self._changed:
                self._changed.wait_for(self._is_idle, timeout)

    def unpublished(self) -> list[str]:
        """What was not published of the steps that were submitted, and failures that no call has raised."""
        if not self._process.is_here:
            return []
        with self._changed:
            steps = [step for step in (self._current, *self._waiting) if step is not None]
            lost = [f"a step was submitted and not published: {step.ticket.annotations}" for step in steps]
            lost += (f"a step could not be published: {error}" for error in self._errors)
        return [f"chain {self._chain_id}: {each}" for each in lost]

    @property
    def trouble(self) -> Exception | None:
        """Why the last shortcut or collection failed; None if it did not. Versions are not affected."""
        return self._caretaker.trouble

    def __reduce__(self) -> NoReturn:
        self._process.refuse_to_travel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(upkeep=False)
        except Exception as own:  # the error of the block is the one to see
            _LOG.warning("the last steps could not be published: %s", own)

    def _check_open(self) -> None:
        self._process.check()
        with self._changed:
            if not self._every:
                self._raise()
            if self._closing:
                raise RuntimeError("the publisher is closed")

    def _raise(self) -> None:
        if self._errors:
            raise self._errors.popleft()

    def _surfaced(self, error: Exception) -> None:
        if not self._process.is_here:
            return
        with self._changed:
            if error in self._errors:
                self._errors.remove(error)

    def _is_idle(self) -> bool:
        return not self._waiting and self._current is None and not self._copying

    def _room(self, ticket: Ticket) -> _Step[W] | None:
        """Make room for a step; gives the step whose place that is, if the queue is full."""
        with self._changed:
            self._copying = True
            if self._every:
                self._changed.wait_for(lambda: len(self._waiting) < self._queue)
            if len(self._waiting) < self._queue:
                return None
            overtaken = self._waiting.popleft()
            overtaken.ticket._superseded_by = ticket
            overtaken.ticket._progress = "superseded"
            self._changed.notify_all()
            return overtaken

    def _append(self, ticket: Ticket, work: W) -> None:
        """Have a step wait, in the room made for it."""
        with self._changed:
            self._copying = False
            self._waiting.append(_Step(ticket, work))
            self._changed.notify_all()

    def _cancel(self, ticket: Ticket) -> bool:
        self._process.check()
        with self._changed:
            if self._every:
                return False
            step = next((each for each in self._waiting if each.ticket is ticket), None)
            if step is not None:
                self._waiting.remove(step)
                self._release(step.work)
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
                    self._release(step.work)
                    self._changed.notify_all()

    def _publish(self, step: _Step[W]) -> None:
        ticket = step.ticket

        def go_on(committing: bool) -> None:
            with self._changed:
                if ticket._progress == "cancelled":
                    raise _AbandonedError
                if committing:
                    ticket._progress = "committing"

        try:
            with self._caretaker.turns:
                published = self._publish_work(step.work, ticket.annotations, go_on)
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
            self._caretaker.note(published)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        ticket._error = error
        ticket._progress = "failed"
        self._errors.append(error)
        with suppress(ValueError):  # a handler whose stream was closed must not end the thread
            _LOG.warning("a step could not be published: %s", error)


class _Buffer:
    """Memory for one state, reused for the next one, tensor by tensor where these are the same."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Tensor, Words]] = {}
        self._layout = Layout(())

    @property
    def state(self) -> State:
        """The state that was taken last, over this memory."""
        return State(self._layout, [self._held[tensor.name][1] for tensor in self._layout.tensors])

    def take(self, given: State | Iterable[tuple[str, Any]], *, threads: int) -> None:
        """Copy a state, in parts, with several threads; pairs of name and array are taken one at a time.

        Raises:
            MalformedError, LimitError, ValueError: the format cannot hold an array, or two have one name.
        """
        if isinstance(given, State):
            kept = set(given.layout.tensors)
            self._held = {name: each for name, each in self._held.items() if each[0] in kept}
        taken: set[str] = set()

        def parts() -> Iterator[tuple[Words, Words]]:
            for tensor, source in _tensors(given):
                taken.add(tensor.name)
                target, step = self._room(tensor), max(1, _COPY // source.itemsize)
                for start in range(0, len(target), step):
                    yield target[start : start + step], source[start : start + step]
                del source

        copies = ordered_map(
            lambda part: np.copyto(*part), parts(), threads=threads, cost=lambda part: part[0].nbytes, budget=_FLYING
        )
        for _ in copies:
            pass
        self._held = {name: each for name, each in self._held.items() if name in taken}
        if isinstance(given, State):
            given.check_files()
            self._layout = given.layout
        else:
            self._layout = Layout.of((tensor for tensor, _ in self._held.values()), object="the arrays")

    def _room(self, tensor: Tensor) -> Words:
        held = self._held.get(tensor.name)
        if held is not None and held[0] == tensor:
            return held[1]
        self._held.pop(tensor.name, None)
        held = None  # free the old memory before allocating
        words: Words = np.empty(tensor.words, tensor.kind.word)
        self._held[tensor.name] = tensor, words
        return words


def _tensors(given: State | Iterable[tuple[str, Any]]) -> Iterator[tuple[Tensor, Words | FileWords]]:
    """Tensors and their words; of pairs, none is held here when the next one is asked for."""
    if isinstance(given, State):
        yield from ((tensor, given.source(index)) for index, tensor in enumerate(given.layout.tensors))
        return
    for name, array in pairs_of(given):
        one = State.from_arrays({name: array})
        del array
        yield one.layout.tensors[0], one.words(0)
        del one


class BackgroundPublisher(StepQueue[_Buffer]):
    """Publishes states while their trainer continues; see `StepQueue`. Made by `Chain.publisher`.

    Args:
        chain: for shortcuts and collection.
        publish: publishes a state as the next version.
        upkeep: which shortcuts are made, and which versions are kept.
        queue: steps that may wait; memory for one more state than this is held.
        values, order: how changed words are encoded, in versions and shortcuts.
        files: the files next to the weights; None for those of the version before.
        layout_change: versions may have other tensors than those before them.
        threads: number of threads that copy.

    Raises:
        ValueError: `queue` is not positive, or the codecs do not go together.
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
        layout_change: bool = False,
        threads: int | None = None,
    ) -> None:
        self._threads = thread_count(threads)
        self._free: list[_Buffer] = []

        def publish_buffer(buffer: _Buffer, annotations: Mapping[str, str], go_on: Callable[[bool], None]) -> Published:
            return publish(
                buffer.state,
                annotations=annotations,
                values=values,
                order=order,
                files=files,
                layout_change=layout_change,
                go_on=go_on,
            )

        super().__init__(
            chain, publish_buffer, upkeep, queue=queue, values=values, order=order, release=self._free.append
        )

    def submit(self, state: State | ArraysLike, *, annotations: Mapping[str, object] | None = None) -> Ticket:
        """Copy a state and publish it later; returns when it is copied.

        Args:
            state: a state; or arrays or torch tensors by name, as a mapping or in pairs, which may be written to after
                this returns. Of pairs, such as `tensordelta.torch.named_weights` makes, one at a time is cast, gathered
                or brought to the host, and then copied, so that the state is held once more and not twice.
            annotations: facts about the version, such as {"step": 420}.

        Raises:
            TensorDeltaError, OSError: an earlier step could not be published; raised once, and this state is not
                copied. Submit it again: it becomes a delta to the version published last.
            MalformedError, LimitError, ValueError: the format cannot hold the state, or two pairs have one name.
            RuntimeError: the publisher is closed.
            Exception: raised by the iterator of pairs. No version comes of them, and none of the step that waited
                longest, if the queue was full: its memory was to be used again, and its ticket has the error.
        """
        with self._submitting:
            self._check_open()
            check_no_model(state)
            taken = State.from_arrays(state) if isinstance(state, Mapping) and not isinstance(state, State) else state
            ticket = Ticket(self, {str(key): str(value) for key, value in (annotations or {}).items()})
            overtaken = self._room(ticket)
            buffer = overtaken.work if overtaken else self._free.pop() if self._free else _Buffer()
            try:
                buffer.take(taken, threads=self._threads)
            except BaseException as error:
                with self._changed:
                    self._copying = False
                    self._free.append(buffer)
                    if overtaken is not None:
                        overtaken.ticket._superseded_by = None
                        self._fail(overtaken.ticket, RuntimeError(f"the copy of the step after it failed: {error}"))
                    self._changed.notify_all()
                raise
            self._append(ticket, buffer)
            return ticket

    def close(self, *, upkeep: bool = True) -> None:
        """Publish what was submitted, make the shortcuts that are due, collect, and end; see `StepQueue.close`."""
        try:
            super().close(upkeep=upkeep)
        finally:
            self._free.clear()
