"""The benchmark of other projects' formats runs, and each way brings the run's last version back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "reference" / "benchmarks" / "bridges.py"


@pytest.mark.slow
def test_the_program(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    arguments = ["--size", "2MB", "--steps", "2", "--json", str(target), "--folder", str(tmp_path)]
    command = [sys.executable, str(PROGRAM), *arguments]
    done = subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "error"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(target.read_text())["rows"]}
    assert len(rows) == 8
    # At 0.65 % a chain's step is the smallest, and positions of 32 bits the largest.
    assert min(rows, key=lambda name: rows[name]["size"]) == "tensordelta"
    assert max(rows, key=lambda name: rows[name]["size"]) in ("TRL, raw", "slime, overwrite, xxh3-128")
    assert all(row["full"] > row["size"] > 0 for row in rows.values())
    assert not list(tmp_path.glob("tensordelta-bridges-*"))
