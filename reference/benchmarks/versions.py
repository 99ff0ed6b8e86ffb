"""Questions about the versions of a model: disk, save, list, read, read one tensor, compare; beside other archives.

    python reference/benchmarks/versions.py [--size 100MB] [--versions 6] [--density 0.005] [--rounds 5] [--json FILE]

Each way keeps the same versions in a folder of its own (`archives.py`), and opens it anew for each call, in one process
whose modules are loaded. Files lie in the system's cache. A cell has seconds of CPU, of all threads, and then those of
the clock: medians over rounds, of all ways in turn. In a round before them, which does not count, each answer is
compared with the words that were saved. From then on this process has proven the packs of the chain, and proves of them
what it reads; the last column has the seconds of CPU for one tensor in that first round.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# numpy's libraries read these once, when it is loaded.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import argparse
import gc
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import simulate
from archives import ARCHIVES, Archive, Words
from options import parse_size
from speed import figures_table
from timing import Figure, machine, note

import tensordelta as td
from tensordelta.tables import Table, bytes_text

PACKAGES = ("tensordelta", "numpy", "safetensors", "icechunk", "zarr", "pylance", "pyarrow", "torch")
QUESTIONS = ("list", "read a version", "read one tensor", "compare neighbours")
#: Seconds in which the log of a long chain has to be there.
_LOG = 0.3
#: The share of all versions' bytes from which on a way counts as one that keeps copies.
_COPIES = 0.95


@dataclass
class Row:
    """What one way took.

    Attributes:
        name: the way.
        raw: True for plain files.
        disk: bytes of all versions.
        save: seconds of CPU and of the clock for each version but the first.
        first: seconds of CPU for each question in the round that does not count.
        seconds: seconds of CPU and of the clock for each round of each question.
    """

    name: str
    raw: bool
    disk: int = 0
    save: list[tuple[float, float]] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def cpu(self, question: str) -> float:
        """Seconds of CPU for a question, the median of the rounds."""
        return statistics.median(cpu for cpu, _ in self.seconds[question])

    def facts(self) -> dict[str, object]:
        """What the JSON holds."""
        return vars(self)


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[tuple[float, float], Any]:
    """Seconds of CPU and of the clock that a call takes, and its result."""
    gc.collect()
    cpu, clock = time.process_time(), time.perf_counter()
    result = work(*arguments)
    return (time.process_time() - cpu, time.perf_counter() - clock), result


def disk_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def save_all(archives: Sequence[Archive], states: Sequence[Mapping[str, Words]]) -> list[Row]:
    """Save all versions with each archive."""
    rows = []
    for archive in archives:
        note(f"{archive.name}: saving {len(states)} versions")
        row = Row(archive.name, archive.raw)
        for version, state in enumerate(states):
            seconds, _ = timed(archive.save, version, state)
            if version:
                row.save.append(seconds)
        row.disk = disk_of(archive.folder)
        rows.append(row)
    return rows


def ask(
    archives: Sequence[Archive], rows: Sequence[Row], states: Sequence[Mapping[str, Words]], rounds: int
) -> tuple[float, float]:
    """Time every question, round by round, after a round that only warms up and is checked.

    Returns:
        Seconds of CPU and of the clock that two loads of a chain take, the medians.

    Raises:
        AssertionError: an answer is wrong.
    """
    version = len(states) - 2
    name = sorted(states[0], key=lambda each: states[0][each].size)[-len(states[0]) // 4]  # one of the large matrices
    counts = {
        each: int(np.count_nonzero(states[version][each] != words)) for each, words in states[version + 1].items()
    }
    answers: dict[str, tuple[Callable[[Archive], Any], Callable[[Any], bool]]] = {
        "list": (lambda archive: archive.versions(), lambda found: found == list(range(len(states)))),
        "read a version": (lambda archive: archive.load(version), lambda found: _same(found, states[version])),
        "read one tensor": (
            lambda archive: archive.tensor(version, name),
            lambda found: np.array_equal(found, states[version][name]),
        ),
        "compare neighbours": (lambda archive: archive.changed(version, version + 1), lambda found: found == counts),
    }
    loads: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        note(f"round {number} of {rounds}")
        for question, (put, right) in answers.items():
            for archive, row in zip(archives, rows, strict=True):
                seconds, found = timed(put, archive)
                if number:
                    row.seconds.setdefault(question, []).append(seconds)
                else:
                    row.first[question] = seconds[0]
                if not number and not right(found):
                    raise AssertionError(f"{archive.name}: a wrong answer to {question!r}")
                del found
        chain = td.open(archives[0].folder)
        loads.append(timed(lambda chain: (chain.load(version), chain.load(version + 1)), chain)[0])
    return statistics.median(cpu for cpu, _ in loads[1:]), statistics.median(clock for _, clock in loads[1:])


def _same(found: Mapping[str, Words], wanted: Mapping[str, Words]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], words) for name, words in wanted.items())


def long_log(folder: Path, versions: int, rounds: int) -> list[float]:
    """Seconds of CPU that opening a chain of many versions and its log take."""
    note(f"a chain of {versions:,} versions")
    chain = td.open(folder, create=True)
    words = np.zeros(1000, np.float32)
    for version in range(versions):
        words[version % 1000] += 1
        chain.publish({"w": words}, annotations={"step": str(version)})
    found = []
    for _ in range(rounds):
        (cpu, _), log = timed(lambda: td.open(folder).log())
        assert len(log) == versions
        found.append(cpu)
    return found


def table(rows: Sequence[Row], title: str) -> Table:
    """Sizes and seconds of every way."""

    def cell(seconds: Sequence[tuple[float, float]]) -> str:
        return " / ".join(f"{statistics.median(each):.3f}" for each in zip(*seconds, strict=True))

    cells = [
        [
            row.name,
            bytes_text(row.disk),
            cell(row.save),
            *(cell(row.seconds[question]) for question in QUESTIONS),
            f"{row.first['read one tensor']:.3f}",
        ]
        for row in rows
    ]
    return Table(title, ["<way", "disk", "save", *QUESTIONS, "one tensor, first"], cells)


def figures(
    rows: Sequence[Row], loads: tuple[float, float], log: Sequence[float], *, versions: int, nbytes: int
) -> list[Figure]:
    """What has a target, and beside it what that would be without those who keep a whole copy of each version."""
    own, *others = rows
    found = []
    for peers, which, most in (
        ([row for row in others if not row.raw], "is not plain files", 2),
        ([row for row in others if row.disk < _COPIES * nbytes], "does not keep all bytes of each version", None),
    ):
        if peers:
            against = own.cpu("read one tensor") / min(row.cpu("read one tensor") for row in peers)
            found.append(Figure(f"one tensor, against the best way that {which}", against, "x", most=most))
    compared = loads[0] / own.cpu("compare neighbours")
    found.append(Figure("comparing neighbours, times as fast as two loads", compared, "x", least=10))
    if log:
        found.append(Figure(f"opening and log of {versions:,} versions", statistics.median(log), "s", most=_LOG))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("100MB"), metavar="BYTES", help="(100MB)")
    parser.add_argument("--versions", type=int, default=6, metavar="N", help="(6)")
    parser.add_argument("--density", type=float, default=0.005, help="share of the words that change (0.005)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument(
        "--long", type=int, default=1000, metavar="N", help="versions of the long chain; 0 for none (1000)"
    )
    parser.add_argument("--folder", type=Path, help="where the archives lie for the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    if options.versions < 3:
        parser.error("--versions: at least 3")

    with tempfile.TemporaryDirectory(prefix="tensordelta-versions-", dir=options.folder) as scratch:
        os.environ["TENSORDELTA_CACHE"] = str(Path(scratch, "cache"))
        there = [each for each in ARCHIVES if all(find_spec(package) for package in each.packages)]
        for each in ARCHIVES:
            if each not in there:
                note(f"{each.name} is left out: {', '.join(each.packages)} is not installed")
        archives = [each(Path(scratch, each.__name__.lower())) for each in there]
        note("making the versions")
        states = list(
            simulate.checkpoints(options.size, options.versions - 1, density=options.density, regime="master_fp32")
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the others
            rows = save_all(archives, states)
            loads = ask(archives, rows, states, options.rounds)
        log = long_log(Path(scratch, "long"), options.long, options.rounds) if options.long else []

    nbytes = sum(words.nbytes for words in states[0].values())
    title = (
        f"{options.versions} versions of {bytes_text(nbytes)} in {len(states[0])} tensors, {100 * options.density:g} % "
        "changed; seconds of CPU / of the clock"
    )
    found = figures(rows, loads, log, versions=options.long, nbytes=nbytes * options.versions)
    print(table(rows, title).text())
    print(f"two loads of neighbours by tensordelta: {loads[0]:.3f} / {loads[1]:.3f}\n")
    print(figures_table("targets", found).text())
    if options.json:
        facts = {
            "machine": machine(PACKAGES),
            "settings": {
                "versions": options.versions,
                "density": options.density,
                "bytes": nbytes,
                "long": options.long,
            },
            "rows": [row.facts() for row in rows],
            "two_loads": loads,
            "log": log,
            "figures": [each.facts() for each in found],
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
