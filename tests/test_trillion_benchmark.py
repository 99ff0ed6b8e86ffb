"""The plan of a trillion weights runs at a small size, and its parts fit together. No time is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "reference" / "benchmarks"


@pytest.mark.slow
def test_the_program(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    arguments = ["--quick", "--rounds", "1", "--density", "0.01", "--latency", "1", "--json", str(target)]
    command = [sys.executable, str(BENCHMARKS / "trillion.py"), *arguments]
    environment = {**os.environ, "PYTHONWARNINGS": "error", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(target.read_text())
    check_rows(facts)
    check_ranks(facts)
    check_chain(facts)
    for published in ("stitch", "Fireworks", "verl"):
        assert published in done.stdout
    assert not list(tmp_path.glob("tensordelta-trillion-*"))


def check_rows(facts: dict[str, Any]) -> None:
    rows = {row["line"]: row for row in facts["rows"]}
    assert all(len(row["values"]) == len(row["texts"]) == 1 and row["values"][0] > 0 for row in rows.values())
    assert rows["delta"]["measured"] and not rows["  pause"]["measured"]
    assert rows["full version"]["values"] > rows["delta"]["values"]
    # A slow link takes longer than a fast one.
    slow, fast = (rows[f"submit to visible, {rate} Gbit/s"]["values"][0] for rate in (1, 25))
    assert slow > fast


def check_ranks(facts: dict[str, Any]) -> None:
    """Ranks with whole experts fetch the packs of these and the rest; ranks with rows of each fetch all."""
    (readings,) = facts["readings"]
    setup = facts["settings"]
    for reading in readings.values():
        assert len(reading["words"]) == setup["ranks"] and len({*reading["words"]}) == 1
    own = setup["writers"] // setup["ranks"]
    assert {*readings["expert"]["packs"]} == {setup["writers"] + own}
    assert {*readings["tensor"]["packs"]} == {2 * setup["writers"]}
    assert max(readings["expert"]["nbytes"]) < min(readings["tensor"]["nbytes"])
    assert max(readings["expert"]["nbytes"]) < min(readings["expert"]["one_shard"])
    assert readings["expert"]["listed"] < readings["tensor"]["listed"]


def check_chain(facts: dict[str, Any]) -> None:
    plans = {plan["behind"]: plan for plan in facts["planning"]}
    assert plans.keys() == {0, 1, 8, 100}
    assert plans[0]["requests"] == {"read": 1} and plans[0]["edges"] == 0
    assert plans[1]["edges"] == 1 and 1 < plans[100]["edges"] < 100
    collected = facts["collecting"]
    assert 0 < collected["dropped"] < facts["settings"]["versions"] - 32
    assert collected["dropped"] * 2 * facts["settings"]["writers"] <= collected["deleted"] < collected["listed"]
