"""The program that tries every kill point says how many there were, and fails where something was wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from . import program
from .cases import CASES, Case
from .program import drive

_ROOT = Path(__file__).parent.parent.parent


def test_it_prints_a_table() -> None:
    words = [sys.executable, "-m", "tests.crash", "--only", "save", "--way", "kill", "--way", "ENOSPC", "--stride", "3"]
    done = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heading, row, total = done.stdout.splitlines()
    assert heading.split() == ["killed", "disk", "full"]
    command, killed, full = row.split()
    assert command == "save" and int(killed) >= 4 and int(full) >= 2
    assert total.startswith(f"{int(killed) + int(full)} ends, 0 failures, ")


def test_counts_are_written_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "TRIED", tmp_path / "tried.json")
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--all", "--write"])
    (tmp_path / "tried.json").write_text('{"others": {"count": 7}}')
    program.write({"gc": Counter(kill=3, power=2), "save": Counter(kill=1)})
    assert json.loads((tmp_path / "tried.json").read_text()) == {
        "others": {"count": 7},
        "kills": {
            "count": 6,
            "command": "python -m tests.crash --all --write",
            "by_command": {"gc": {"killed": 3, "power lost": 2}, "save": {"killed": 1}},
        },
    }


@pytest.mark.parametrize("way", ["kill", "ENOSPC", "stop"])
def test_harm_is_found(world: Path, tmp_path: Path, way: str) -> None:
    """A case whose expectations do not hold: what the driver finds reaches the report."""
    command, name = ("two processes", "a pull and gc") if way == "stop" else ("pull", "in place")
    case = CASES[command][name]

    def make(world: Path, place: Path) -> dict[str, object]:
        other = str(world / "pulled" / "5")
        return {**case.make(world, place), "new": other, "old": other}

    report = drive(Case(make, case.steps, case.all), world, tmp_path / "case", {way: 41})
    assert report["failed"] and any("differ" in each or "folder" in each for each in report["failures"])
