"""Where the time of a publish goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Self, get_args

from ..events import Timings
from ..format.pack import BuiltPack
from .encoder import Encoder

Phase = Literal["compare", "encode", "put", "commit", "snapshot"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class Clock:
    """The time since a publish began, and how much of it went into each phase. It belongs to one thread."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spent = dict.fromkeys(PHASES, 0.0)

    @classmethod
    def since(cls, other: Clock) -> Self:
        """A clock with the same beginning."""
        clock = cls()
        clock._began = other._began
        return clock

    @property
    def seconds(self) -> float:
        """The time since the beginning."""
        return time.perf_counter() - self._began

    @property
    def timings(self) -> Timings:
        """The seconds of each phase until now."""
        return Timings(**self._spent)

    def add(self, phase: Phase, seconds: float) -> None:
        """Count seconds for a phase."""
        self._spent[phase] += seconds

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Count the time of the block for a phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - began)

    def packs(self, encoder: Encoder, *size: int) -> Iterator[BuiltPack]:
        """An encoder's packs. The time that they take counts for `compare` and `encode`, as its threads were busy."""
        made, took = encoder.packs(*size), 0.0
        while True:
            began = time.perf_counter()
            built = next(made, None)
            took += time.perf_counter() - began
            if built is None:
                break
            yield built
        comparing, encoding = encoder.busy
        share = comparing / ((comparing + encoding) or 1.0)
        self.add("compare", took * share)
        self.add("encode", took * (1 - share))
