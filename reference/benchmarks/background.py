"""Publishing in the background, and catching up over skip deltas.

    python reference/benchmarks/background.py [--size 1GiB] [--catch-up-size 64MiB] [--json FILE]

`submit`: how long a trainer is held up by `submit()`, and how much memory the publisher needs beside the trainer's own
state. `catch-up`: bytes and time of a reader that is behind by up to 64 versions, over skip deltas of 8 and 64 versions
and over the plain chain, on the steps of a simulated AdamW run in both regimes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import environ
from pathlib import Path
from typing import get_args

import ml_dtypes
import numpy as np
import simulate
from memory import Watch
from options import parse_size
from timing import cores, machine

import tensordelta as td

STEPS = 64
SKIP = (8, 64)
BEHIND = (64, 63, 32, 8, 1)
MARGIN = 0.1


@dataclass(frozen=True)
class Held:
    """How long something held its caller up, in seconds of each round."""

    name: str
    seconds: list[float]


@dataclass(frozen=True)
class CatchUp:
    """How a reader comes to the newest version."""

    regime: str
    behind: int
    chain: str
    edges: int
    bytes: int
    seconds: float


@contextmanager
def folder(place: Path | None) -> Iterator[Path]:
    """A folder for a chain, with a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="tensordelta-background-", dir=place) as name:
        environ["TENSORDELTA_CACHE"] = str(Path(name, "cache"))
        yield Path(name)


def as_state(arrays: simulate.State) -> td.State:
    """A state of bf16 tensors."""
    return td.State.from_arrays({name: words.view(ml_dtypes.bfloat16) for name, words in arrays.items()})


def measure_submit(
    size: int, rounds: int, *, density: float, threads: int, place: Path | None
) -> tuple[list[Held], dict[str, float]]:
    """Time `submit` for two consecutive checkpoints in turn, and follow the memory."""
    pair = [as_state(each) for each in simulate.pair(size, density=density, regime="master_fp32")]
    targets = [np.ones_like(pair[0].words(index)) for index in range(len(pair[0]))]
    bare: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        for index, target in enumerate(targets):
            np.copyto(target, pair[0].words(index))
        bare.append(time.perf_counter() - started)
    del targets
    times: dict[str, list[float]] = {name: [] for name in ("first", "idle", "busy", "published")}
    with folder(place) as root:
        chain = td.open(root / "chain", create=True, threads=threads)
        chain.publish(pair[0])
        with Watch() as watch, chain.publisher(skip=()) as publisher:
            for number in range(rounds + 1):
                begun = time.perf_counter()
                ticket = publisher.submit(pair[(number + 1) % 2])
                taken = time.perf_counter()
                ticket.result()
                times["idle" if number else "first"].append(taken - begun)
                times["published"].append(time.perf_counter() - begun)
                publisher.flush()
            for number in range(rounds + 1):
                publisher.submit(pair[(rounds + number + 2) % 2])
                time.sleep(MARGIN)
                begun = time.perf_counter()
                publisher.submit(pair[(rounds + number + 1) % 2])
                if number:  # in the first round there is no second copy to be written over
                    times["busy"].append(time.perf_counter() - begun)
                publisher.flush()
    held = [
        Held("np.copyto, one thread", bare),
        Held("submit, the first", times["first"]),
        Held("submit, publisher idle", times["idle"]),
        Held("submit, publisher busy", times["busy"]),
        Held("from submit to published", times["published"]),
    ]
    return held, {"state": pair[0].layout.nbytes, "peak": watch.peak - watch.start, "threads": threads}


def measure_catch_up(
    size: int, rounds: int, regime: simulate.Regime, *, density: float, threads: int, place: Path | None
) -> list[CatchUp]:
    """Publish 64 steps with skip deltas, and read them with and without."""
    rows: list[CatchUp] = []
    with folder(place) as root:
        chain = td.open(root / "skip", create=True, threads=threads)
        with chain.publisher(skip=SKIP) as publisher:
            for step, arrays in enumerate(simulate.checkpoints(size, STEPS, density=density, regime=regime)):
                publisher.submit(as_state(arrays)).result()
                if step % 16 == 0:
                    print(f"{regime}: step {step} of {STEPS}", file=sys.stderr, flush=True)
        if publisher.trouble is not None:
            raise publisher.trouble
        shutil.copytree(root / "skip", root / "plain", ignore=shutil.ignore_patterns("shortcuts"))
        chains = {name: td.open(root / name, threads=threads) for name in ("plain", "skip")}
        newest = as_state(arrays)
        for behind in BEHIND:
            before = chains["plain"].load(STEPS - behind)
            seconds: dict[str, list[float]] = {name: [] for name in chains}
            for number in range(rounds + 1):
                for name, each in chains.items():
                    begun = time.perf_counter()
                    update = each.prepare(before, STEPS)
                    update.apply()
                    if number:
                        seconds[name].append(time.perf_counter() - begun)
                    elif not before.equals(newest):
                        raise AssertionError(f"{name}: wrong result")
                    update.undo()
            for name, each in chains.items():
                plan = each.plan(STEPS, STEPS - behind)
                rows.append(CatchUp(regime, behind, name, len(plan.edges), plan.size, statistics.median(seconds[name])))
    return rows


def print_submit(held: list[Held], facts: dict[str, float]) -> None:
    """Print how long `submit` takes, and the memory."""
    state = facts["state"]
    print(f"submit of {state / 2**30:.2f} GiB, {facts['threads']} threads\n")
    print(f"{'':<26}{'median':>10}{'least':>10}{'GB/s':>8}")
    for each in held:
        median = statistics.median(each.seconds)
        print(f"{each.name:<26}{median:>8.3f} s{min(each.seconds):>8.3f} s{state / median / 1e9:>8.2f}")
    peak = facts["peak"]
    print(f"\npeak memory beside the trainer's: {peak / 2**30:.2f} GiB, {peak / state:.2f} times the state\n")


def print_catch_up(rows: list[CatchUp], nbytes: int, density: float) -> None:
    """Print both ways side by side."""
    print(f"catching up, model of {nbytes / 2**20:.0f} MiB, {density:.2%} of the words change at each step")
    for regime in dict.fromkeys(row.regime for row in rows):
        print(f"\n{regime:<12}{'plain chain':>28}{'skip deltas':>32}{'bytes':>14}{'time':>8}")
        print(f"{'behind':<12}{'edges':>6}{'MB':>12}{'s':>10}{'edges':>10}{'MB':>12}{'s':>10}{'saved':>14}{'ratio':>8}")
        found = {(row.behind, row.chain): row for row in rows if row.regime == regime}
        for behind in BEHIND:
            plain, skip = found[behind, "plain"], found[behind, "skip"]
            print(
                f"{behind:<12}{plain.edges:>6}{plain.bytes / 1e6:>12.2f}{plain.seconds:>10.3f}"
                f"{skip.edges:>10}{skip.bytes / 1e6:>12.2f}{skip.seconds:>10.3f}"
                f"{1 - skip.bytes / plain.bytes:>14.0%}{plain.seconds / skip.seconds:>8.2f}"
            )


def main(arguments: list[str] | None = None) -> int:
    """Print tables, and write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sections", default="submit,catch-up", metavar="NAMES")
    parser.add_argument("--size", type=parse_size, default=parse_size("1GiB"), help="of the model that is submitted")
    parser.add_argument("--catch-up-size", type=parse_size, default=parse_size("64MiB"), metavar="SIZE")
    parser.add_argument("--density", type=float, default=0.01, help="share of the words that change at each step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument(
        "--folder", type=Path, help="where the chains lie for the time; by default the temporary folder"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    sections = set(options.sections.split(","))
    if not sections <= {"submit", "catch-up"}:
        parser.error(f"--sections: {options.sections} are not submit, catch-up")
    shared = {"density": options.density, "threads": options.threads, "place": options.folder}
    facts: dict[str, object] = {"machine": machine(["numpy", "tensordelta"]), "density": options.density}
    if "submit" in sections:
        held, memory = measure_submit(options.size, options.rounds, **shared)
        print_submit(held, memory)
        facts["submit"] = {"times": [asdict(each) for each in held], **memory}
    if "catch-up" in sections:
        rows = [
            row
            for regime in get_args(simulate.Regime)
            for row in measure_catch_up(options.catch_up_size, options.rounds, regime, **shared)
        ]
        print_catch_up(rows, options.catch_up_size, options.density)
        facts["catch_up"] = [asdict(row) for row in rows]
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
