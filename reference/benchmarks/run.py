"""Benchmarks: tensordelta beside the encodings in use elsewhere, on the same data, in the same run.

    python reference/benchmarks/run.py --size 1GiB --density 0.01,0.002 --json figures.json

README.md in this folder says what each figure means and how it is measured.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# numpy's libraries read these once, when it is loaded: what is said to run on one thread runs on one.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import re
import statistics
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import memory
import ml_dtypes
import simulate
from cases import Case, in_memory, owned
from options import parse_size
from simulate import Regime
from sizes import Sizes, copy_steps, publish
from speed import Bench, Speed, figures_table, store_folder
from timing import Figure, cores, machine, note

import tensordelta as td
from tensordelta.state.state import State
from tensordelta.tables import Table, bytes_text

SECTIONS = ("sizes", "speed", "memory", "import")
PACKAGES = ("tensordelta", "numpy", "backports.zstd", "zstandard", "xxhash", "msgspec")

#: Columns of a page of tables.
WIDTH = 100
#: Models from this size on are what the targets are meant for.
TARGET_SIZE = 10**9
#: Measured once, one thread: GB of model per second, encode / decode and apply.
LANDSCAPE = {
    "TRL raw (torch)": (1.2, 33.0),
    "TRL gap (torch)": (1.1, 25.0),
    "slime/SkyRL xor + zstd-1": (1.2, 6.8),
    "slime overwrite + zstd-1": (2.6, 49.0),
    "grail v3.1 (its own code; decode alone)": (0.9, 1.0),
}
LANDSCAPE_NOTE = "Not of this run: from another machine and a smaller model (22.7 M bf16 weights)."


def synthetic(size: int, density: float, regime: Regime) -> Case:
    """Two checkpoints of a simulated run."""
    old, new = simulate.pair(size, density=density, regime=regime)
    states = [
        owned(State.from_arrays({name: words.view(ml_dtypes.bfloat16) for name, words in each.items()}))
        for each in (old, new)
    ]
    label = f"synthetic, {regime}, {100 * density:g} %"
    return Case(label, {"kind": "synthetic", "regime": regime, "density": density, "size": size}, states)


def recorded(folder: Path) -> Case:
    """The checkpoints of a folder.

    Raises:
        ValueError: fewer than two, or of different layouts.
    """

    def natural(path: Path) -> list[int | str]:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    paths = sorted(folder.glob("step_*.safetensors"), key=natural)
    states = [td.read_state(path) for path in paths]
    if len(states) < 2:
        raise ValueError("the folder has fewer than two files step_*.safetensors")
    if any(state.layout != states[0].layout for state in states):
        raise ValueError("the checkpoints have different layouts")
    label = f"checkpoints {paths[0].stem} to {paths[-1].stem}"
    return Case(label, {"kind": "checkpoints", "first": paths[0].stem, "steps": len(paths) - 1}, states)


# -- memory and import ------------------------------------------------------------------------------------------------


def child_environment() -> dict[str, str]:
    """The environment of processes that are to find the same package."""
    return {**os.environ, "PYTHONPATH": str(Path(td.__file__).resolve().parents[1])}


def memory_figures(size: int, density: float, threads: int) -> list[Figure]:
    """Peak memory of publishing and pulling."""
    room = 400 << 20
    figures: list[Figure] = []
    for peak in memory.peaks(size, density=density, threads=threads, environment=child_environment()):
        bounds = {"publish full": room, "publish delta": room, "pull delta": room + 16 * peak.changed}
        bound = bounds.get(peak.step)
        figures.append(
            Figure(
                f"{peak.step}, peak of anonymous memory",
                peak.peak / 2**20,
                "MiB",
                most=None if bound is None else bound / 2**20,
                details={"bytes": peak.peak, "at_start": peak.start, "changed": peak.changed, "seconds": peak.seconds},
            )
        )
    return figures


def import_figures(rounds: int) -> list[Figure]:
    """Import time, each in a process of its own."""
    program = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"

    def seconds(module: str) -> float:
        command = [sys.executable, "-c", program.format(module)]
        return float(subprocess.run(command, env=child_environment(), check=True, stdout=subprocess.PIPE).stdout)

    names = ("tensordelta", "numpy")
    for name in names:
        seconds(name)  # compiles what is not compiled yet
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found[name].append(seconds(name))
    return [
        Figure("import tensordelta", statistics.median(found["tensordelta"]), "s", most=0.3),
        Figure("of which numpy", statistics.median(found["numpy"]), "s"),
    ]


# -- the program ------------------------------------------------------------------------------------------------------


def _list_of(kind: Callable[[str], Any], allowed: Callable[[Any], bool], what: str) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        try:
            values = [kind(part) for part in text.split(",")]
        except ValueError:
            values = [None]
        if None in values or not all(map(allowed, values)):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of {what}")
        return values

    return parse


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="step_*.safetensors of a run, instead of synthetic checkpoints"
    )
    parser.add_argument(
        "--bits", type=float, metavar="N", help="target of `sizes`: bits that a change may take in exponent order"
    )
    parser.add_argument("--size", type=parse_size, default=1 << 30, help="bytes of a synthetic model (1GiB)")
    parser.add_argument(
        "--density",
        type=_list_of(float, lambda value: 0 < value < 1, "shares between 0 and 1"),
        default=[0.01, 0.002],
        help="shares of the words that change (0.01,0.002)",
    )
    parser.add_argument("--regime", choices=[*get_args(Regime), "both"], default="master_fp32", help="(master_fp32)")
    parser.add_argument(
        "--threads",
        type=_list_of(int, lambda value: value > 0, "positive numbers"),
        default=[1, 2],
        help="thread counts of tensordelta; one is always measured (1,2)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each thing is timed (5)")
    parser.add_argument("--memory-size", type=parse_size, default=4 << 30, help="bytes of a model for `memory` (4GiB)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there; - for standard output")
    parser.add_argument(
        "--sections",
        type=_list_of(str, lambda value: value in (*SECTIONS, "all"), f"{', '.join(SECTIONS)} or all"),
        default=["all"],
        help=f"{','.join(SECTIONS)} or all (all)",
    )
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds: at least one")
    return options


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """The cases, one at a time in memory."""
    if options.checkpoints is not None:
        note("checkpoints of a folder")
        yield recorded(options.checkpoints)
        return
    for regime in get_args(Regime) if options.regime == "both" else [options.regime]:
        for density in options.density:
            note(f"synthetic checkpoints: {regime}, {100 * density:g} %, {bytes_text(options.size)}")
            yield synthetic(options.size, density, regime)


class Report:
    """Gathers what was measured: prints it, and keeps it for the JSON."""

    def __init__(self, options: argparse.Namespace, threads: Sequence[int]) -> None:
        self._bits: float | None = options.bits
        self._to = sys.stderr if options.json == "-" else sys.stdout
        self._json = options.json
        self._figures: list[Figure] = []
        self._facts: dict[str, Any] = {
            "machine": machine(PACKAGES),
            "settings": {"rounds": options.rounds, "threads": [1, *threads], "sections": options.sections},
            "cases": [],
            "memory": None,
            "import": None,
            "landscape": {"note": LANDSCAPE_NOTE, "gigabytes_per_second": LANDSCAPE},
        }
        self._facts["machine"]["packages"]["tensordelta"] = td.__version__

    def print(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self._to, flush=True)

    def head(self) -> None:
        facts = self._facts["machine"]
        packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
        lines = [
            f"{facts['cpu']}, {facts['cores']} cores, last-level cache {facts['last_level_cache'] >> 20} MiB; "
            f"Python {facts['python']}",
            packages,
            f"{self._facts['settings']['rounds']} rounds; one thread and cold caches, unless said otherwise",
        ]
        self.print(*(part for line in lines for part in textwrap.wrap(line, WIDTH)))

    def case(self, case: Case, sizes: Sizes | None, speed: Speed | None, store: str) -> None:
        facts = case.facts()
        count = f"{case.changed:,} of {case.states[0].layout.words:,} words"
        changes = f"{count} change" if len(case.states) == 2 else f"the first step changes {count}"
        self.print("", "=" * WIDTH, f"{case.label}: {changes}, {bytes_text(case.nbytes)} of model")
        if sizes is not None:
            self.print("", sizes.table(case.nbytes).text())
            found = facts["sizes"] = sizes.facts(case.nbytes)
            if self._bits is not None:
                figure = sizes.figure(self._bits)
                self.print("", figures_table("FIGURES", [figure]).text())
                found["figure"] = figure.facts()
                self._figures.append(figure)
        if speed is not None:
            for table in speed.tables(case.nbytes):
                self.print("", table.text())
            self.print(f"Decoded from {store}.")
            if case.nbytes < TARGET_SIZE:
                self.print("The targets are meant for models of 1 GB and more; this one is smaller.")
            facts["speed"] = {**speed.facts(case.nbytes), "decoded_from": store}
            self._figures += speed.figures
        self._facts["cases"].append(facts)

    def landscape(self) -> None:
        rows = [[name, f"{encode:.1f}", f"{decode:.1f}"] for name, (encode, decode) in LANDSCAPE.items()]
        table = Table("LANDSCAPE, GB/s of model, one thread", ["<", "encode", "decode and apply"], rows)
        self.print("", "=" * WIDTH, table.text(), LANDSCAPE_NOTE)

    def memory(self, size: int, density: float, figures: Sequence[Figure], skipped: str | None) -> None:
        title = f"MEMORY, checkpoints of {size / 2**30:.3g} GiB in files, {100 * density:g} % changed"
        self.print("", "=" * WIDTH, figures_table(title, figures).text() if not skipped else f"{title}: {skipped}")
        self._facts["memory"] = {
            "bytes": size,
            "density": density,
            "skipped": skipped,
            "figures": [figure.facts() for figure in figures],
        }
        self._figures += figures

    def imports(self, figures: Sequence[Figure]) -> None:
        self.print("", "=" * WIDTH, figures_table("IMPORT, median over fresh processes", figures).text())
        self._facts["import"] = {"figures": [figure.facts() for figure in figures]}
        self._figures += figures

    def end(self) -> None:
        marks = [figure.met for figure in self._figures if figure.met is not None]
        self._facts["targets"] = {"met": sum(marks), "of": len(marks)}
        self.print("", f"targets met: {sum(marks)} of {len(marks)}")
        text = json.dumps(self._facts, indent=2)
        if self._json == "-":
            print(text)
        elif self._json:
            Path(self._json).write_text(text + "\n")


def measure_case(case: Case, sections: set[str], threads: Sequence[int], rounds: int, report: Report) -> None:
    """Sizes and speed of one case."""
    with store_folder() as (store, kind):
        with tempfile.TemporaryDirectory(prefix="tensordelta-") as temporary:
            note("  publish")
            sizes, steps = publish(case, Path(temporary), max((1, *threads)))
            if "speed" in sections:
                copy_steps(Path(temporary, "chain"), store, steps)
        speed = None
        if "speed" in sections:
            speed = Bench(in_memory(case), store, steps, threads, rounds).run()
    report.case(case, sizes if "sizes" in sections else None, speed, kind)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    sections = set(SECTIONS) if "all" in options.sections else set(options.sections)
    threads = sorted({each for each in options.threads if 1 < each <= cores()})
    if len(threads) < len(set(options.threads) - {1}):
        note(f"thread counts above this machine's {cores()} cores are left out")
    report = Report(options, threads)
    report.head()
    if sections & {"sizes", "speed"}:
        for case in cases(options):
            measure_case(case, sections, threads, options.rounds, report)
    if "speed" in sections:
        report.landscape()
    if "memory" in sections:
        note("memory")
        density = options.density[0]
        skipped = memory.obstacle(options.memory_size)
        figures = [] if skipped else memory_figures(options.memory_size, density, max((1, *threads)))
        report.memory(options.memory_size, density, figures, skipped)
    if "import" in sections:
        note("import")
        report.imports(import_figures(options.rounds))
    report.end()


if __name__ == "__main__":
    main()
