"""The suite's own test finds all mutants, and would say so if it did not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mutants.change import change
from mutants.mutants import MUTANTS, adapter_of, copied

from tensordelta_conformance import Suite
from tensordelta_conformance.folder import write_files

ROOT = Path(__file__).resolve().parent.parent.parent
CONFORMANCE = ROOT / "conformance"
VECTORS = CONFORMANCE / "vectors"
PARTS = sorted((CONFORMANCE / "tensordelta_conformance" / "small_reader").glob("*.py"))


def selftest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CONFORMANCE / "selftest.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
def test_the_suite_finds_every_mutant() -> None:
    done = selftest()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("killed by") == len(MUTANTS)


def test_there_are_mutants_of_every_part(tmp_path: Path) -> None:
    assert len(MUTANTS) >= 190
    modules = {module for name, change in MUTANTS.items() for module in change.apply(copied(tmp_path / name))}
    assert modules == {each.stem for each in PARTS} - {"__init__", "__main__", "adapter", "rejection"}
    assert len({change.title for change in MUTANTS.values()}) == len(MUTANTS)
    assert all(change.cases for change in MUTANTS.values())


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_is_another_program(name: str) -> None:
    """Each change still fits the small reader, and gives a program that loads and says who it is."""
    adapter = adapter_of(MUTANTS[name])
    assert adapter({"id": 1, "op": "hello", "protocol": 1})["ok"]
    assert type(adapter).__module__.startswith("small_reader_copy")


def test_a_change_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="stands 0 times"):
        adapter_of(change("none", "Nothing", "no such text", ""))
    with pytest.raises(ValueError, match="times in"):
        adapter_of(change("many", "Too much", "require(", ""))


def test_a_mutant_that_survives_is_told(tmp_path: Path) -> None:
    """Vectors in which the case that kills a mutant is its valid twin, under the old name."""
    name, killer, twin = "bitmap-highest-bit-first", "bitmap-worked", "all-of-4"
    folder = tmp_path / "positions" / "valid" / killer
    write_files(Suite(VECTORS).cases[twin].files, folder)
    case = folder / "case.json"
    case.write_text(case.read_text().replace(f'"{twin}"', f'"{killer}"'))
    assert selftest(name).returncode == 0
    done = selftest(name, "--vectors", str(tmp_path))
    assert done.returncode == 1
    assert f"SURVIVES {killer}" in done.stdout
    done = selftest("gap-one-more", "--vectors", str(tmp_path))
    assert done.returncode == 1
    assert "no case" in done.stdout


def test_an_unknown_mutant_is_wrong_usage() -> None:
    assert selftest("no-such-mutant").returncode == 2
