"""The ranks of an engine as a group of holders, over `torch.distributed`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ..codecs.fingerprint import U64
from ..state.group import LostError

_HALF = 32
_LOW = np.uint64((1 << _HALF) - 1)


class Ranks:
    """Ranks that hold a state together, over a process group of its own on the CPU.

    All ranks call the same methods in the same order, from one thread each.

    Args:
        ranks: the global ranks; by default all.
        timeout: seconds that a rank waits for the others. A rank that hangs, or has died, makes the others raise then.

    Raises:
        RuntimeError: `torch.distributed` was not initialised, or another rank did not come in time.
    """

    def __init__(self, ranks: list[int] | None = None, *, timeout: float = 60.0) -> None:
        self._group: Any = dist.new_group(ranks, timeout=timedelta(seconds=timeout), backend="gloo")
        self.rank: int = dist.get_rank(self._group)
        self.size: int = dist.get_world_size(self._group)

    def gather(self, value: str) -> list[str]:
        """The values of all ranks, by rank. Raises LostError."""
        found: list[Any] = [None] * self.size
        with self._answered():
            dist.all_gather_object(found, value, group=self._group)
        return found

    def sum(self, values: U64) -> U64:
        """The sums of all ranks' values, uint64 of any shape, mod 2^64. Raises LostError."""
        # Torch adds signed integers: halves of 32 bits leave room for 2^31 ranks, and no sum overflows.
        halves = np.stack([values & _LOW, values >> np.uint64(_HALF)]).view(np.int64)
        sums = torch.from_numpy(halves)
        with self._answered():
            dist.all_reduce(sums, group=self._group)
        low, high = sums.numpy().view(np.uint64)
        total: U64 = low + (high << np.uint64(_HALF))
        return total

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise LostError(f"another rank of the engine has died, or hangs: {error}") from None

    def close(self) -> None:
        """End the group."""
        dist.destroy_process_group(self._group)
