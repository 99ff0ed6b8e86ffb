"""Events: what a chain did, for `logging` and for a callback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import StoreError, TensorDeltaError

_LOG = logging.getLogger("tensordelta")


def _is_heard(record: logging.LogRecord) -> bool:
    """False where nothing but a standard error that was closed would get it: then logging raises ValueError."""
    return _LOG.hasHandlers() or not getattr(sys.stderr, "closed", False)


_LOG.addFilter(_is_heard)


@dataclass(frozen=True)
class Timings:
    """Where the time of a publish went, in seconds. The rest was spent on finding the newest version and on waiting.

    Attributes:
        compare: finding the words that changed; of `tensordelta.torch.Publisher` most of it in `submit`, before the
            publish begins.
        encode: making packs of them.
        put: storing packs, layout, fingerprints and files.
        commit: creating the manifest.
        snapshot: moving the writer's own copy of the last version.
    """

    compare: float = 0.0
    encode: float = 0.0
    put: float = 0.0
    commit: float = 0.0
    snapshot: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.3f}" for name, seconds in vars(self).items())


@dataclass(frozen=True)
class Event:
    """Something that was done for a version.

    Attributes:
        kind: "downloading" (some bytes of packs have arrived), "fetched" (packs are complete and checked), "prepared"
            (an update is ready), "applied", "published", or "passed-over" (an edge failed, and another route is taken).
        version: the version.
        size: bytes of packs downloaded so far, fetched, or put.
        seconds: duration so far.
        total: with "downloading", bytes of all packs to download.
        timings: with "published", where the time went.
        fault: with "passed-over", the error of the edge, which names the object at fault.
    """

    kind: Literal["downloading", "fetched", "prepared", "applied", "published", "passed-over"]
    version: int
    size: int
    seconds: float
    total: int | None = None
    timings: Timings | None = None
    fault: TensorDeltaError | StoreError | None = None


Listener = Callable[[Event], None]


def emit(event: Event, listener: Listener | None) -> None:
    """Log an event, and call the listener if there is one."""
    if event.fault is not None:
        _LOG.warning("on the way to version %d an edge is passed over: %s", event.version, event.fault)
    else:
        level = logging.DEBUG if event.kind == "downloading" else logging.INFO
        text, more = "%s version %d: %d bytes in %.3f s", () if event.timings is None else (event.timings,)
        _LOG.log(level, text + " (%s)" * len(more), event.kind, event.version, event.size, event.seconds, *more)
    if listener is not None:
        listener(event)
