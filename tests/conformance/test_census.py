"""The census of the vectors: each kind of accepted value is there at least twice, and a kind that is not is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from counted.table import Census

from tensordelta_conformance import Suite
from tensordelta_conformance.folder import write_files

CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"


def census(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CONFORMANCE / "census.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def copied(folder: Path, *cases: str) -> str:
    """Vectors that have these cases alone."""
    suite = Suite(CONFORMANCE / "vectors")
    for name in cases:
        write_files(suite.cases[name].files, folder / suite.cases[name].path)
    return str(folder)


def test_every_kind_of_accepted_value_is_there_twice() -> None:
    done = census()
    assert done.returncode == 0, done.stdout + done.stderr
    *rows, last = done.stdout.splitlines()
    assert last == f"{len(rows)} kinds of accepted values; 0 of them lack vectors"
    assert len(rows) >= 340
    (ids,) = [row for row in rows if row.startswith("chain ids whose version is not 4 ")]
    assert ids.split()[7] == "4"
    assert "00000000-0000-0000-0000-000000000000 (chain-id-of-zeros)" in ids


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("chain-id-of-version-7", "chain ids whose version is not 4"),
        ("integers-of-5000-digits", "numbers in unknown fields: integers of 5,000 digits and more"),
        ("lanes-of-n-in-bf16", "names of odd seed with words beyond lane 65,536"),
        ("frame-of-runs", "frames with a RLE block: content sizes"),
        ("follow-a-hint-in-other-bytes", "hints of full shortcuts"),
        ("signed-by-two-of-two-keys", "signatures of one object: keys"),
        ("json-white-space", "JSON: tab between tokens, in"),
    ],
)
def test_a_kind_that_only_one_case_has_is_told(tmp_path: Path, case: str, kind: str) -> None:
    done = census("--vectors", copied(tmp_path, case))
    assert done.returncode == 1
    (row,) = [row for row in done.stdout.splitlines() if row.startswith(f"{kind} ")]
    assert row.removeprefix(kind).split()[:2] == ["1", "LACKING"], row
    assert f"({case})" in row


def test_cases_of_which_nothing_is_accepted_are_not_counted(tmp_path: Path) -> None:
    """A value in a rejected manifest proves nothing."""
    done = census("--vectors", copied(tmp_path, "json-duplicate-member", "standard-of-two", "write-1-percent"))
    (row,) = [row for row in done.stdout.splitlines() if row.startswith("order of the required members: manifest ")]
    assert "LACKING" in row and "(standard-of-two)" in row and "json-duplicate-member" not in done.stdout


def test_a_value_that_has_to_be_there_is_named() -> None:
    made = Census()
    kind = made.kind("sizes", needs=(0, 7))
    kind.note(0, "one")
    kind.note(5, "two")
    assert [each.lacks for each in made.lacking] == ["no 7"]
    assert list(made.rows()) == ["sizes     2  LACKING no 7: 0 (one); 5 (two)"]
    kind.note(7, "three")
    assert made.lacking == []
