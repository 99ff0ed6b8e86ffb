"""What several tests of followers share."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from wrapped import weights

import tensordelta as td

#: Seconds between two looks.
POLL = 0.002


class Clock:
    """A time that passes in waits alone.

    Attributes:
        now: seconds.
        waits: the seconds of each wait.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def wait(self, stop: threading.Event, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


def other_chain(root: Path) -> td.Chain:
    """Another run's chain in the place of the one that was there."""
    shutil.rmtree(root)
    chain = td.open(root, create=True)
    for step in range(3):
        chain.publish(weights(step + 5))
    return chain
