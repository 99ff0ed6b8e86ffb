"""Trying again: time-outs, throttling and faults of a server pass (SPEC.md section 12.1)."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_LOG = logging.getLogger("tensordelta")

#: Answers of a server that may be others a moment later.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often, and after how long, a store tries again.

    Attributes:
        attempts: how often an operation is tried in all.
        first: seconds before the second try; each wait is twice the one before.
        longest: seconds that no wait exceeds.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 8.0

    def call(self, work: Callable[[], T], *, passing: Callable[[Exception], bool], what: str) -> T:
        """Call `work` until it succeeds.

        Args:
            work: what may be done again.
            passing: tells of an error whether another try makes sense.
            what: what is tried, for the log.

        Raises:
            Exception: that of the last try, or the first one that does not pass.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return work()
            except Exception as error:
                if attempt >= self.attempts or not passing(error):
                    raise
                _LOG.info("%s failed, and is tried again: %s", what, error)
            self.wait(attempt)
        raise AssertionError("an operation is tried once at least")

    def wait(self, attempt: int) -> None:
        """Wait after a failed try, numbered from 1; many readers that failed together do not come back together."""
        time.sleep(min(self.first * 2 ** (attempt - 1), self.longest) * random.uniform(0.5, 1.0))
