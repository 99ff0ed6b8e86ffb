"""The benchmark of questions about versions runs, and every way answers them right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "reference" / "benchmarks" / "versions.py"


@pytest.mark.slow
def test_the_program(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    arguments = ["--size", "2MB", "--versions", "3", "--rounds", "1", "--long", "5", "--json", str(target)]
    command = [sys.executable, str(PROGRAM), *arguments, "--folder", str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "error"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(target.read_text())
    rows = {row["name"]: row for row in facts["rows"]}
    assert {"tensordelta", "safetensors files"} <= rows.keys()
    assert 0 < rows["tensordelta"]["disk"] < rows["safetensors files"]["disk"]
    assert {len(seconds) for row in rows.values() for seconds in row["seconds"].values()} == {1}
    assert "comparing neighbours" in done.stdout and "log of 5 versions" in done.stdout
    assert not list(tmp_path.glob("tensordelta-versions-*"))
