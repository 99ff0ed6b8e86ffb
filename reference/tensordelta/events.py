"""Events: what a chain did, told to `logging` and to a callback."""

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
        kind: "fetched" (packs are here and proven), "prepared" (an update is ready), "applied" or "published".
        version: the version.
        size: bytes of packs fetched, or put.
        seconds: how long it took.
    """

    kind: Literal["fetched", "prepared", "applied", "published"]
    version: int
    size: int
    seconds: float


Listener = Callable[[Event], None]


def emit(event: Event, listener: Listener | None) -> None:
    """Log an event, and call the listener if there is one."""
    _LOG.info("%s version %d: %d bytes in %.3f s", event.kind, event.version, event.size, event.seconds)
    if listener is not None:
        listener(event)
