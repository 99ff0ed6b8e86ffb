"""Every kill point of every case, as a table: `python -m tests.crash --all`, or some of it: `--only copy`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cases import CASES, Case, Ways, in_memory
from .resources import namespace
from .worlds import make_world

_TESTS = Path(__file__).parent.parent
TRIED = _TESTS / "tried.json"
#: What the ways to end are called in the table.
_COLUMNS = {
    "kill": "killed",
    "twice": "killed twice",
    "interrupt": "interrupted",
    "power": "power lost",
    "power_twice": "killed, power lost",
    "error": "one error",
    "ENOSPC": "disk full",
    "EDQUOT": "quota",
    "EIO": "disk broken",
    "stop": "stopped",
    "files": "few files",
    "size": "file size",
    "tmpfs": "small disk",
}


def drive(case: Case, world: Path, place: Path, ways: Ways, *, scratch: Path | None = None) -> dict[str, Any]:
    """Run the driver for a case; gives its report.

    Args:
        case: the case.
        world: of `make_world`.
        place: a new folder, for what it starts from.
        ways: how it ends, at every how many-th step.
        scratch: where the trials' folders lie; by default in memory.
    """
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch or in_memory(place)) as trials:
        spec = {**case.make(world, place), "scratch": trials, "ways": dict(ways)}
        (place / "spec.json").write_text(json.dumps(spec))
        done = run_module("driver", str(place / "spec.json"), before=namespace() or () if "tmpfs" in ways else ())
    assert done.returncode == 0, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def run_module(name: str, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a module of this package in a process of its own; `before` are words before its command."""
    paths = os.pathsep.join([str(_TESTS), *filter(None, sys.path)])
    command = [*before, sys.executable, "-m", f"crash.{name}", *words]
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def main() -> int:
    """Do what the command line says; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every case, in every way")
    parser.add_argument("--only", action="append", default=[], metavar="COMMAND", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--way", action="append", default=[], choices=[*_COLUMNS], help="only this way to end")
    parser.add_argument("--stride", type=int, default=1, help="take only every STRIDE-th of the steps")
    parser.add_argument("--write", action="store_true", help=f"write the counts to {TRIED.relative_to(_TESTS.parent)}")
    arguments = parser.parse_args()
    unknown = {*arguments.only} - {*CASES}
    if unknown or not (arguments.all or arguments.only):
        parser.error(f"there is no {min(unknown)}" if unknown else "say --all, or --only with a command")
    began = time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    failed = 0
    with tempfile.TemporaryDirectory(dir=in_memory(Path(tempfile.gettempdir()))) as folder:
        world = make_world(Path(folder, "world"))
        for command in arguments.only or CASES:
            counts[command] = Counter()
            for number, (name, case) in enumerate(CASES[command].items()):
                for way, stride in case.all.items():
                    if (arguments.way and way not in arguments.way) or (way == "tmpfs" and namespace() is None):
                        continue
                    place = Path(folder, "cases", f"{command}-{number}-{way}")
                    report = drive(case, world, place, {way: stride * arguments.stride})
                    counts[command][way] += report["ends"]
                    failed += report["failed"]
                    for failure in report["failures"]:
                        print(f"{command}, {name}: {failure}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    print(table(counts))
    print(f"{sum(each.total() for each in counts.values()):,} ends, {failed:,} failures, {seconds:,.0f} s")
    if arguments.write and not failed:
        write(counts)
    return 1 if failed else 0


def table(counts: Mapping[str, Counter[str]]) -> str:
    """The counts, a line for each command."""
    ways = [way for way in _COLUMNS if any(each[way] for each in counts.values())]
    rows = [["", *(_COLUMNS[way] for way in ways)]]
    rows += [[command, *(f"{each[way]:,}" for way in ways)] for command, each in counts.items()]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def write(counts: Mapping[str, Counter[str]]) -> None:
    """Note the counts under the key `kills`; other keys stay."""
    known = json.loads(TRIED.read_text()) if TRIED.exists() else {}
    known["kills"] = {
        "count": sum(each.total() for each in counts.values()),
        "command": " ".join(["python -m tests.crash", *sys.argv[1:]]),
        "by_command": {
            command: {_COLUMNS[way]: each[way] for way in _COLUMNS if each[way]} for command, each in counts.items()
        },
    }
    TRIED.write_text(json.dumps(known, indent=2) + "\n")
