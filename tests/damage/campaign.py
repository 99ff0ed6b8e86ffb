"""The campaign: a case for each number, made of the seed and the number alone, and a table of what came of them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType

import tensordelta as td
from tensordelta.checkout import checkout

from . import resealed  # noqa: F401 - registers its damages
from .objects import DAMAGES
from .operations import DETECTED, FAULT, OPERATIONS, VERDICTS, Case, Wrong
from .own_files import OWN, Made
from .worlds import World, worlds

#: Seconds that a case may compute, and seconds that it may take on a machine with much else to do.
_COMPUTES, _TAKES = 10, 120
#: The share of cases that damage the reader's or writer's own files, and not the chain.
_OWN = 0.2


class HungError(BaseException):
    """A case takes too long."""


@contextmanager
def _timed() -> Iterator[None]:
    def ring(number: int, _: FrameType | None) -> None:
        raise HungError(f"more than {_TAKES if number == signal.SIGALRM else _COMPUTES} seconds")

    timers = ((signal.SIGALRM, signal.ITIMER_REAL, _TAKES), (signal.SIGPROF, signal.ITIMER_PROF, _COMPUTES))
    before = [signal.signal(number, ring) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@dataclass
class Outcome:
    """What came of a case."""

    number: int
    world: str
    damage: str
    what: str
    operation: str
    verdict: str
    error: str = ""

    def __str__(self) -> str:
        return (
            f"{self.number}: {self.world}, {self.damage} ({self.what}), {self.operation}: {self.verdict} {self.error}"
        )


@dataclass
class Campaign:
    """Cases of one seed.

    Args:
        seed: any number; with the number of a case it says what is done.
        root: an empty folder.
        listener: called with each outcome.

    Attributes:
        worlds: the chains that are damaged.
        counts: number of cases by kind of damage and verdict.
        faults: the outcomes that may not be.
    """

    seed: int
    root: Path
    listener: Callable[[Outcome], object] = lambda _: None
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        os.environ["TENSORDELTA_CACHE"] = str(self.root / "cache")
        self.worlds: Sequence[World] = worlds(self.root / "worlds")

    def run(self, numbers: Sequence[int]) -> None:
        """Do the cases of these numbers."""
        for number in numbers:
            outcome = self.case(number)
            self.counts[outcome.damage, outcome.verdict] += 1
            if outcome.verdict == FAULT:
                self.faults.append(outcome)
            self.listener(outcome)

    def case(self, number: int) -> Outcome:
        """Do one case."""
        rng = Random(f"{self.seed}/{number}")
        checkout._KNOWN.clear()  # as in a process that has seen no folder yet
        if rng.random() < _OWN:
            return self._own(number, rng)
        damage = rng.choice([*DAMAGES])
        while True:
            world, work = rng.choice(self.worlds), self._emptied()
            objects = dict(world.objects)
            what = DAMAGES[damage](objects, world, self.worlds, rng)
            if what and objects != world.objects:
                operation = rng.choices([*OPERATIONS], [*OPERATIONS.values()])[0]
                case = Case(world, objects, rng, work)
                return self._outcome(number, world, Made(damage, what, operation.__name__, partial(operation, case)))

    def _own(self, number: int, rng: Random) -> Outcome:
        kind = rng.choice([*OWN])
        while True:
            world, work = rng.choice(self.worlds), self._emptied()
            made = OWN[kind](world, rng, work)
            if made is not None:
                return self._outcome(number, world, made)

    def _emptied(self) -> Path:
        work = self.root / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        os.environ["TENSORDELTA_CACHE"] = str(work / "none")
        return work

    def _outcome(self, number: int, world: World, made: Made) -> Outcome:
        outcome = Outcome(number, world.name, made.damage, made.what, made.operation, FAULT)
        try:
            with _timed():
                outcome.verdict = made.act()
        except td.TensorDeltaError as error:
            outcome.verdict, outcome.error = DETECTED, str(error)
        except Wrong as error:
            outcome.error = str(error)
        except (Exception, HungError):
            outcome.error = traceback.format_exc()
        return outcome

    def verdicts(self) -> dict[str, int]:
        """Number of cases by verdict."""
        return {verdict: sum(self.counts[name, verdict] for name in [*DAMAGES, *OWN]) for verdict in VERDICTS}

    def table(self) -> str:
        """Kinds of damage, and how often what came of them."""
        rows = [(name, [self.counts[name, verdict] for verdict in VERDICTS]) for name in [*DAMAGES, *OWN]]
        rows = [(name, counts) for name, counts in rows if any(counts)] + [("all", [*self.verdicts().values()])]
        width = max(len(name) for name, _ in rows)
        lines = [f"{'damage':{width}} " + " ".join(f"{verdict:>9}" for verdict in VERDICTS)]
        lines += [f"{name:{width}} " + " ".join(f"{count:9,}" for count in counts) for name, counts in rows]
        return "\n".join(lines)


@contextmanager
def campaign(seed: int, listener: Callable[[Outcome], object] = lambda _: None) -> Iterator[Campaign]:
    """A campaign in a folder of its own, in memory where the machine has one there."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    before, log = os.environ.get("TENSORDELTA_CACHE"), logging.getLogger("tensordelta")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it warns of each repair
    with tempfile.TemporaryDirectory(prefix="tensordelta-damage-", dir=place) as root:
        try:
            yield Campaign(seed, Path(root), listener)
        finally:
            log.setLevel(level)
            os.environ.pop("TENSORDELTA_CACHE", None)
            if before is not None:
                os.environ["TENSORDELTA_CACHE"] = before


def rate(done: int, since: float) -> str:
    """How fast cases are done."""
    return f"{done / max(time.perf_counter() - since, 1e-9):,.0f} a second"
