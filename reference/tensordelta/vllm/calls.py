"""vLLM's calls of its workers, carried out by all ranks in step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from ..state.group import Alone, Group, LostError
from ..torch.group import Ranks

_LOG = logging.getLogger("vllm.tensordelta")  # below vLLM's own, whose handlers it has

T = TypeVar("T")


class Calls:
    """The ranks of an engine, as vLLM calls them: the same method of all, between two steps of the model.

    They have a group of their own, because those of the engine wait for half an hour for a rank that hangs.

    Args:
        ranks: how many there are.
        timeout: seconds that a rank waits for the others.
    """

    def __init__(self, ranks: int, timeout: float) -> None:
        self._ranks = ranks
        self._timeout = timeout
        self._group: Group | None = None
        self._is_lost = False

    @property
    def group(self) -> Group:
        """The ranks, on the first use in all of them alike."""
        if self._group is None:
            self._group = Alone() if self._ranks == 1 else Ranks(timeout=self._timeout)
        return self._group

    def meet(self, timeout: float) -> bool:
        """Make a new group, if another rank was lost or the time-out is another one; all ranks call this.

        Returns:
            True if what works with the old group has to be made anew.
        """
        if not self._is_lost and timeout == self._timeout:
            return False
        self._group, self._timeout, self._is_lost = None, timeout, False
        return True

    def in_step(self, work: Callable[[], T], take_back: Callable[[], None]) -> T | None:
        """Do what vLLM asks for; where one rank fails, all do, and only the last one raises.

        vLLM reads the ranks' replies in order, and stops at the first that is an error: those after it would be taken
        for the replies to its next call. After the last rank's reply there is none.

        Args:
            work: what is asked for; errors that leave ranks in different states are its own business.
            take_back: called where `work` succeeded here, and failed in another rank.

        Returns:
            What `work` returned; None where a rank failed.

        Raises:
            Exception: in the last rank, what `work` raised in it, or a RuntimeError that says which rank failed of
                what.
            LostError: in the last rank, where another one did not answer, now or in an earlier call.
        """
        fault: Exception | None = None
        result: T | None = None
        try:
            if self._is_lost:
                raise LostError("an earlier call lost a rank: start the engine again")
            group = self.group
            try:
                result = work()
            except Exception as error:
                fault = error
            if isinstance(fault, LostError):
                raise fault
            faults = group.gather("" if fault is None else f"{type(fault).__name__}: {fault}")
        except LostError as error:
            self._is_lost = True
            fault = error
        else:
            if not any(faults):
                return result
            if fault is None:
                take_back()
                failed = next(rank for rank, each in enumerate(faults) if each)
                fault = RuntimeError(f"rank {failed}: {faults[failed]}")
        if self._group is None or self._group.rank == self._group.size - 1:
            raise fault
        _LOG.error("%s", fault)
        return None
