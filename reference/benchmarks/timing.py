"""Measuring: timings taken in turn, figures with their targets, and the facts of the machine."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

_STARTED = time.perf_counter()
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
#: Taken for the last-level cache where the machine does not tell.
_CACHE_UNKNOWN = 64 << 20
#: Bytes touched to empty the caches, at most: some machines add up the caches of many sockets.
_EVICT_MOST = 512 << 20


def note(text: str) -> None:
    """Progress, to stderr."""
    print(f"[{time.perf_counter() - _STARTED:7.1f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Contestant:
    """One thing to be timed.

    Attributes:
        name: how tables call it.
        run: what is timed.
        before, after: what is not, such as bringing back a state that `run` changed.
        right: says whether `run` did its work; asked once, after the warm-up and before `after`.
        threads: how many threads it uses.
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    right: Callable[[], bool] | None = None
    threads: int = 1


@dataclass(frozen=True)
class Times:
    """Seconds that a contestant took, one for each round; and those of the processor, all threads together."""

    name: str
    threads: int
    seconds: Sequence[float]
    cpu: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    def against(self, other: Times) -> float:
        """How many times faster than another: the median over the rounds, each a pair close in time."""
        return statistics.median(theirs / mine for mine, theirs in zip(self.seconds, other.seconds, strict=True))

    def facts(self, nbytes: int) -> dict[str, object]:
        """What the JSON holds; `nbytes` is the model's size."""
        return {
            "name": self.name,
            "threads": self.threads,
            "gigabytes_per_second": nbytes / self.median / 1e9,
            "median_seconds": self.median,
            "min_seconds": self.least,
            "rounds_seconds": list(self.seconds),
            "min_cpu_seconds": min(self.cpu),
        }


def in_turn(contestants: Iterable[Contestant], rounds: int) -> dict[str, Times]:
    """Time contestants round by round, A B C A B C, each with cold caches; a first round only warms up.

    Raises:
        AssertionError: a contestant's work was wrong.
    """
    contestants = list(contestants)
    cold = np.zeros(min(4 * last_level_cache(), _EVICT_MOST) // 8, np.uint64)
    seconds: dict[str, list[float]] = {each.name: [] for each in contestants}
    cpu: dict[str, list[float]] = {each.name: [] for each in contestants}
    for number in range(rounds + 1):
        for each in contestants:
            if each.before:
                each.before()
            gc.collect()
            cold += np.uint64(1)
            gc.disable()
            started, worked = time.perf_counter(), time.process_time()
            result = each.run()
            took, spent = time.perf_counter() - started, time.process_time() - worked
            gc.enable()
            del result
            if number:
                seconds[each.name].append(took)
                cpu[each.name].append(spent)
            elif each.right and not each.right():
                raise AssertionError(f"{each.name}: wrong result")
            if each.after:
                each.after()
    return {each.name: Times(each.name, each.threads, seconds[each.name], cpu[each.name]) for each in contestants}


@dataclass(frozen=True)
class Figure:
    """A figure, and its target where there is one: at least `least`, or at most `most`."""

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.least is not None:
            return self.value >= self.least
        return None if self.most is None else self.value <= self.most

    @property
    def target(self) -> str:
        """The target in words."""
        if self.least is not None:
            return f">= {self.least:g} {self.unit}"
        return "" if self.most is None else f"<= {self.most:.4g} {self.unit}"

    @property
    def mark(self) -> str:
        """Whether the target is met, in words."""
        return {None: "", True: "met", False: "MISSED"}[self.met]

    def facts(self) -> dict[str, object]:
        """What the JSON holds."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "at_least": self.least,
            "at_most": self.most,
            "met": self.met,
            **self.details,
        }


def last_level_cache() -> int:
    """Bytes of the largest cache that the first core sees."""
    sizes = [_CACHE_UNKNOWN]
    for path in _CACHES.glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
        sizes.append(int(text.rstrip("KMG")) << unit)
    return max(sizes[1:], default=sizes[0])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(packages: Iterable[str]) -> dict[str, object]:
    """What figures depend on; no names of hosts, users or folders."""
    return {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "cores": cores(),
        "last_level_cache": last_level_cache(),
        "memory": _memory(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
