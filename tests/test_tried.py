"""The guide's table of what was tried is what the program prints of the counts in the tree."""

from __future__ import annotations

import json
from pathlib import Path

import tried
from fuzz import corpus  # noqa: F401 - registers all targets
from fuzz.targets import TARGETS
from pages import GUIDE


def test_the_guide_has_the_table() -> None:
    assert tried.table() in GUIDE.read_text()


def test_nothing_that_was_found_is_left() -> None:
    counted = json.loads(tried.RECORD.read_text())
    assert counted["damage"]["FAULT"] == 0 and counted["fuzz"]["found"] == []
    assert counted["fuzz"]["executions"].keys() == TARGETS.keys()
    assert (
        sum(counted["damage"][verdict] for verdict in ("detected", "harmless", "older")) == counted["damage"]["count"]
    )


def test_a_program_leaves_the_counts_of_others(tmp_path: Path) -> None:
    for key, value in (("kills", {"count": 1}), ("fuzz", 2), ("kills", {"count": 3})):
        tried.record(tmp_path / "tried.json", key, value)
    assert json.loads((tmp_path / "tried.json").read_text()) == {"kills": {"count": 3}, "fuzz": 2}
