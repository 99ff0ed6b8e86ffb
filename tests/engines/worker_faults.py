"""Faults that a test puts into the workers of an engine; vLLM mixes this class into theirs."""

from __future__ import annotations

import os
import time
from typing import Any


class Faults:
    """What a test asks a worker to do, each method on all ranks."""

    def fault_loader(self, rank: int) -> None:
        """A rank's next update raises amid its writes."""
