"""Phases of work, and the view that shows them.

Work costs an addition for each few megabytes; a view asks for what is done, five times a second. Without a view nothing
is counted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token, copy_context
from typing import Literal, Self

#: Seconds of work before it is shown, and seconds between two looks at it.
PATIENCE, PERIOD = 1.0, 0.2

#: The view of the thread, and of threads that it starts in its context.
_VIEW: ContextVar[View | None] = ContextVar("tensordelta.progress", default=None)

#: What is counted.
Unit = Literal["bytes", "objects", "steps"]


class Phase:
    """A part of the work. Several threads may add to it.

    Attributes:
        doing: what is done, in a few words.
        total: how much there is to do; None where that is not known.
        unit: what is counted.
        done: how much is done; at most the total.
    """

    def __init__(
        self, doing: str, total: int | None = None, *, unit: Unit = "bytes", passes: int = 1, whole: bool = False
    ) -> None:
        self.doing = doing
        self.total = total or None
        self.unit = unit
        self.whole = whole
        self.prefix = ""
        self._passes = passes
        self._counted = 0.0
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        done = int(self._counted / self._passes)
        return done if self.total is None else min(done, self.total)

    def add(self, count: float) -> None:
        """Count work that is done; in one of several passes over the same bytes, each time."""
        with self._lock:
            self._counted += count


class _Unseen(Phase):
    """Stands for every phase where there is no view."""

    def add(self, count: float) -> None:
        pass


_UNSEEN = _Unseen("")


class View:
    """Shows what a thread is doing once that has taken a second: a context manager. A subclass draws.

    It shows what the thread does that enters it, but not what threads do that work on their own, such as publishers.
    """

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.lock = threading.RLock()
        self._ended = threading.Event()
        self._token: Token[View | None] | None = None
        self._thread: threading.Thread | None = None

    def show(self, phase: Phase) -> None:
        """Draw a phase, over what was drawn before; called with the lock held, by a thread of the view's."""
        raise NotImplementedError

    def hide(self) -> None:
        """Take away what was drawn, if anything was; called with the lock held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._token = _VIEW.set(self)
        self._ended.clear()
        # In a copy of the context: notebooks find the cell to which output belongs by it.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None and self._thread is not None
        _VIEW.reset(self._token)
        self._ended.set()
        self._thread.join()
        with self.lock:
            self.hide()

    def _run(self) -> None:
        wait = PATIENCE
        while not self._ended.wait(wait):
            wait = PERIOD
            with self.lock:
                for latest in self.phases[-1:]:
                    self.show(latest)


@contextmanager
def phase(
    doing: str,
    total: int | None = None,
    *,
    unit: Unit = "bytes",
    passes: int = 1,
    whole: bool = False,
    of: bool = False,
) -> Iterator[Phase]:
    """A phase of the calling thread's work, for the block.

    Args:
        doing: what is done, in a few words: "checking packs".
        total: how much there is to do, if that is known.
        unit: what is counted.
        passes: how often each of the bytes is counted, such as twice where packs are checked first and then decoded.
        whole: what happens in the block is no phase of its own, but counts for this one.
        of: it has no share of its own; the phases in the block are named after it: "own copy: reading version 3".
    """
    view = _VIEW.get()
    if view is None:
        view = _of_notebook()
        if view is None:
            yield _UNSEEN
            return
        with view, phase(doing, total, unit=unit, passes=passes, whole=whole, of=of) as begun:
            yield begun
        return
    outer = view.phases[-1] if view.phases else None
    if outer is not None and outer.whole:
        yield outer
        return
    prefix = "" if outer is None else outer.prefix
    doing = prefix + doing
    begun = Phase(doing, total, unit=unit, passes=passes, whole=whole)
    begun.prefix = f"{doing}: " if of else prefix
    view.phases.append(begun)
    try:
        yield begun
    finally:
        view.phases.remove(begun)


def current() -> Phase:
    """The phase of the calling thread, to add to, also from other threads that do its work."""
    view = _VIEW.get()
    return view.phases[-1] if view is not None and view.phases else _UNSEEN


def is_seen() -> bool:
    """True if somebody looks, so that it is worth asking how much there is to do."""
    return _VIEW.get() is not None


def _of_notebook() -> View | None:
    """A view for the cell that runs, in the main thread of a notebook that has tqdm; else None."""
    ipython = sys.modules.get("IPython")
    if ipython is None or threading.current_thread() is not threading.main_thread():
        return None
    if getattr(ipython.get_ipython(), "kernel", None) is None:
        return None
    try:
        from .bar import Bar

        return Bar()
    except ImportError:
        return None
