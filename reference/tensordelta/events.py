"""Events: what a chain did, for `logging` and for a callback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_LOG = logging.getLogger("tensordelta")


@dataclass(frozen=True)
class Event:
    """Something that was done for a version.

    Attributes:
        kind: "downloading" (some bytes of packs have arrived), "fetched" (packs are complete and checked), "prepared"
            (an update is ready), "applied" or "published".
        version: the version.
        size: bytes of packs downloaded so far, fetched, or put.
        seconds: duration so far.
        total: with "downloading", bytes of all packs to download.
    """

    kind: Literal["downloading", "fetched", "prepared", "applied", "published"]
    version: int
    size: int
    seconds: float
    total: int | None = None


Listener = Callable[[Event], None]


def emit(event: Event, listener: Listener | None) -> None:
    """Log an event, and call the listener if there is one."""
    level = logging.DEBUG if event.kind == "downloading" else logging.INFO
    text = "%s version %d: %d bytes in %.3f s"
    _LOG.log(level, text, event.kind, event.version, event.size, event.seconds)
    if listener is not None:
        listener(event)
