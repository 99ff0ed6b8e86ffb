"""Following a chain: updates for a state, a folder kept at the newest version, and a follower next to an engine."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn, Protocol, Self, TypeVar

from ..checkout.checkout import Checkout, Pulled
from ..errors import WrongBaseError
from ..read.reader import Reader
from ..state.holder import Holder
from ..state.state import State
from ..state.update import Update
from ..threads import Process
from .watch import Watch, pursue

_LOG = logging.getLogger("tensordelta")

#: Seconds between two looks whether an update was applied.
_LOOK = 0.1

U = TypeVar("U")


def follow(
    reader: Reader,
    state: State | Holder,
    prepare: Callable[[int], U],
    *,
    poll: float = 1.0,
    timeout: float | None = None,
    until: int | None = None,
    stop: threading.Event | None = None,
    one_by_one: bool = False,
) -> Iterator[U]:
    """The updates that take a state to each newer version, made by `prepare`; see `Chain.follow`.

    Other updates may be applied to the state meanwhile, also by other threads: then an update is prepared again, from
    the state as it is.
    """
    offered: tuple[int, int] | None = None  # the state's generation, and the version of the update for it

    def known() -> int | None:
        if offered is not None and offered[0] == state.generation:
            return offered[1]
        return state.version if state.chain == reader.chain else None

    def go(version: int) -> U | None:
        nonlocal offered
        while True:
            changes, generation, own = state.changes, state.generation, known()
            if own is not None and own >= version:
                return None
            try:
                update = prepare(version)
            except WrongBaseError:
                if state.changes == changes:
                    raise
                continue
            if state.changes == changes:  # an update that was applied and undone meanwhile counts as well
                offered = generation, version
                return update
            del update

    watch = Watch(reader, complete=one_by_one)
    return pursue(watch, go, known=known, poll=poll, timeout=timeout, until=until, stop=stop, one_by_one=one_by_one)


def follow_folder(
    reader: Reader,
    folder: str | os.PathLike[str],
    *,
    poll: float = 1.0,
    timeout: float | None = None,
    until: int | None = None,
    stop: threading.Event | None = None,
    scan: bool | None = None,
) -> Iterator[Pulled]:
    """Pull each newer version into a folder; see `Chain.follow_folder`."""
    checkout = Checkout(folder)
    reached: int | None = None

    def go(version: int) -> Pulled:
        nonlocal reached
        pulled = checkout.pull(reader, version, scan=scan)
        reached = pulled.version
        return pulled

    return pursue(Watch(reader), go, known=lambda: reached, poll=poll, timeout=timeout, until=until, stop=stop)


class Followed(Protocol):
    """What a `Follower` needs of a chain."""

    def follow(self, state: Any, *, poll: float, stop: threading.Event | None, one_by_one: bool) -> Iterator[Update]:
        """Updates to newer versions, one after another."""


class Follower:
    """Follows a chain next to an engine: prepares in a thread while the engine serves, applies in the engine's pause.

    The thread starts at once. If a newer version appears before the engine has paused, the update to it replaces the
    one that waits; with `one_by_one` it is prepared when that one has been applied. The state may be read at any time
    except during `apply`, and only the follower may write to it.

    Threads may share a follower: all methods may be called at the same time, and each update is applied once.
    Callbacks and listeners of the chain are called without a lock, so they may call any method. A follower belongs to
    one process, since its thread does not survive a fork: in a forked child methods but `close` raise RuntimeError.

    Args:
        chain: the chain that is followed.
        state: what the engine serves: a `State`, or a mapping of names to arrays; see `Chain.prepare`.
        poll: seconds between two looks for a newer version, approximately; up to four times that while none appears.
        on_prepared: called with each update that is ready, in the follower's thread; it may ask the engine to pause.
        apply_when: called by `apply` with the update that is ready; if it returns False, the update keeps waiting.
        one_by_one: go to each version that is published after the state's, one after another, instead of the newest. A
            state that is no version of the chain goes to the newest first. Versions that a collector deletes meanwhile
            are passed over.

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
        one_by_one: bool = False,
    ) -> None:
        self._chain = chain
        self._state = state
        self._poll = poll
        self._on_prepared = on_prepared
        self._apply_when = apply_when
        self._one_by_one = one_by_one
        self._process = Process("the follower")
        self._stop = threading.Event()
        self._again = threading.Event()  # start over, from the state as it is
        self._changed = threading.Condition()
        self._ready: Update | None = None
        self._unwritten: Update | None = None  # the update whose `write` failed
        self._writer: int | None = None  # the thread that calls `write`
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tensordelta-follower", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> Update | None:
        """The update that waits for `apply`; None if none does."""
        self._process.check()
        with self._changed:
            return None if self._ready is None or self._ready.stale else self._ready

    def wait(self, timeout: float | None = None) -> Update | None:
        """Wait until an update is ready, or following has failed.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            The update; None if none came in time, if `apply` has an error to raise, or after `close`.
        """
        self._process.check()
        with self._changed:
            self._changed.wait_for(lambda: self.ready or self._error or self._stop.is_set(), timeout)
            return self.ready

    def apply(self, *, threads: int | None = None, write: Callable[[Update], object] | None = None) -> Update | None:
        """Apply the update that is ready: only the scatter. Does nothing if none is ready.

        Args:
            threads: see `Update.apply`.
            write: writes the update elsewhere as well, such as into an engine's own parameters, so that these and the
                state have the same version: its `patches`, and what is `dropped`. It is called when the state has the
                update, and not at all if the state cannot take it. If it raises, the state is taken back, and the
                update stays ready: the next `apply` writes the same one again, whole, before any newer one, so that it
                is completed where it was written in part. Other threads that call `apply` wait meanwhile; called by
                `write` itself, `apply` does nothing.

        Returns:
            The update that was applied, or None.

        Raises:
            TensorDeltaError, StoreError: following has failed since the last call. The follower starts over after this,
                and an update that was ready stays ready.
            WrongBaseError: arrays of the state were written to, or replaced, by others.
            Exception: raised by `write`.

        Example:
            >>> def write(update):
            ...     for patch in update.patches():
            ...         parameters[patch.name].view(-1)[patch.indices] = patch.values
            >>> follower.apply(write=write)                     # doctest: +SKIP
        """
        self._process.check()
        caller = threading.get_ident()
        with self._changed:
            if self._writer == caller:
                return None
            self._changed.wait_for(lambda: self._writer is None)
            if write is not None:
                self._writer = caller
        try:
            update = self._take()
            if update is not None:
                self._apply(update, threads, write)
            return update
        finally:
            with self._changed:
                if write is not None:
                    self._writer = None
                self._changed.notify_all()

    def _take(self) -> Update | None:
        """Take the update that is ready, if it is to be applied now."""
        update: Update | None = None
        while update is None:
            with self._changed:
                error, self._error = self._error, None
                self._changed.notify_all()
            if error is not None:
                raise error
            candidate = self.ready
            if candidate is None or not (self._apply_when is None or self._apply_when(candidate)):
                return None
            with self._changed:
                if self._ready is candidate:  # no newer one has replaced it, and no other thread applies it
                    update, self._ready = candidate, None
        return update

    def _apply(self, update: Update, threads: int | None, write: Callable[[Update], object] | None) -> None:
        writing = False

        def written(update: Update) -> None:
            nonlocal writing
            writing = True
            assert write is not None
            write(update)

        try:
            if write is None:
                update.apply(threads=threads)
            else:
                update.apply(threads=threads, write=written)
        except BaseException:
            with self._changed:
                if writing and not update.stale:
                    self._ready = self._unwritten = update
                else:
                    self._again.set()  # the version is still to come
            raise
        self._unwritten = None

    def close(self) -> None:
        """Stop following; waits for what is being prepared. An update that is ready can still be applied."""
        if not self._process.is_here:
            return
        self._stop.set()
        with self._changed:
            self._again.set()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __reduce__(self) -> NoReturn:
        self._process.refuse_to_travel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stop.is_set():
                    return
                self._again.clear()
            try:
                updates = self._chain.follow(
                    self._state, poll=self._poll, stop=self._again, one_by_one=self._one_by_one
                )
                for update in updates:
                    self._offer(update)
                    del update
            except Exception as error:
                with suppress(ValueError):  # a handler whose stream was closed must not end the thread
                    _LOG.warning("following failed: %s", error)
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                    # The caller that gets the error may remove its cause.
                    self._changed.wait_for(lambda: self._error is None or self._stop.is_set())

    def _offer(self, update: Update) -> None:
        with self._changed:
            if self._unwritten is not None and not self._unwritten.stale:
                return  # it comes first, and the versions after it are prepared again then
            self._ready = update
            self._changed.notify_all()
        if self._on_prepared is not None:
            self._on_prepared(update)
        if self._one_by_one:
            with self._changed:
                while not (update.stale or self._again.is_set()):
                    self._changed.wait(_LOOK)  # `stale` changes without a notice where others apply the update
