"""The small reader: one for the judge, the mutants and people, from SPEC.md alone and short enough to be read."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tensordelta_conformance import run_handler, small_reader
from tensordelta_conformance.small_reader.adapter import Adapter

CONFORMANCE = Path(__file__).resolve().parent.parent.parent / "conformance"
MODULES = sorted(Path(small_reader.__path__[0]).glob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules that a file imports; those of its own folder begin with a dot."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_it_needs_numpy_and_zstd_alone(path: Path) -> None:
    """A copy of the folder is thus a whole reader: no module of a mutant is one of the judge's."""
    others = {each for each in imported(path) if each.partition(".")[0] not in sys.stdlib_module_names}
    assert others <= {f".{each.stem}" for each in MODULES} | {"numpy", "numpy.typing", "backports", "compression"}


@pytest.mark.parametrize("path", sorted((CONFORMANCE / "generate").rglob("*.py")), ids=lambda path: path.stem)
def test_the_generator_shares_no_code_with_it(path: Path) -> None:
    """A mistake of the generator's encoders is found only by a reader that does not make the same one."""
    assert not any("small_reader" in each or "judge" in each for each in imported(path))


def test_it_can_be_read_in_one_sitting() -> None:
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES) <= 2400
    assert all(f"`{path.stem}`" in str(small_reader.__doc__) for path in MODULES if path.stem[0] != "_")


def test_it_passes_cases_of_each_of_its_levels() -> None:
    """The whole suite is run against it in test_selftest.py."""
    areas = ["fitting/*", "positions/*", "values/*", "routes/*", "order/*"]
    report = run_handler(Adapter(), only=areas)
    assert [check.name for check in report.failures] == []
    assert {check.level for check in report.checks} >= {"reader-core", "reader-exponent", "chain", "verifier"}
