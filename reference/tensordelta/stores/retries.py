"""Retries: time-outs, throttling and server errors may be temporary (SPEC.md section 12.1)."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_LOG = logging.getLogger("tensordelta")

#: Status codes that may be different a moment later.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often, and after how long, a store retries. Threads and processes may share it.

    Attributes:
        attempts: number of tries in all.
        first: seconds before the second try; each wait is twice the one before.
        longest: the longest wait, in seconds.
    """

    attempts: int = 5
    first: float = 0.5
    longest: float = 8.0

    def call(self, work: Callable[[], T], *, passing: Callable[[Exception], bool], what: str) -> T:
        """Call `work` until it succeeds.

        Args:
            work: an operation that may be repeated.
            passing: True for an error that may be temporary.
            what: the operation, for the log.

        Raises:
            Exception: the error of the last try, or the first one that is not temporary.
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
        """Wait after a failed try, numbered from 1; by a random factor, so that many readers do not retry together."""
        time.sleep(min(self.first * 2 ** (attempt - 1), self.longest) * random.uniform(0.5, 1.0))
