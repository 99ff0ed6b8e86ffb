"""The reference implementation conforms, by the suite and its own adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tensordelta as td
from tensordelta_conformance import Suite, run
from tensordelta_conformance.folder import write_files

ROOT = Path(__file__).resolve().parent.parent.parent
ADAPTER = [sys.executable, str(ROOT / "conformance" / "adapters" / "reference.py")]
SUITE = Suite(ROOT / "conformance" / "vectors")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter imports the very package that is tested."""
    monkeypatch.setenv("PYTHONPATH", str(Path(td.__file__).parent.parent))


@pytest.mark.slow
def test_the_reference_conforms() -> None:
    report = run(ADAPTER, suite=SUITE)
    report.raise_for_failures()
    assert report.conforms, report.verdict
    assert "partial" in report.verdict and "writer-exponent" in report.verdict


def test_some_cases_of_every_level() -> None:
    names = ["standard", "exponent-is-stable-in-two-classes", "detour-pack-altered", "part-of-a-delta", "undo"]
    names += ["part-held-other-word", "pull-over-two-deltas", "write-the-same-again", "write-over-another-state"]
    report = run(ADAPTER, suite=SUITE, only=names, jobs=1)
    report.raise_for_failures()
    assert {check.case.id for check in report.checks if check.status == "pass"} == set(names)


def one_shot(operation: str, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    command = [*ADAPTER, operation, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def test_the_one_shot_form(tmp_path: Path) -> None:
    write_files(SUITE.cases["standard"].files, tmp_path)
    chain, out = tmp_path / "chain", tmp_path / "out.safetensors"
    code, answer = one_shot("read", {"chain": str(chain), "held": None, "to": 1, "out": str(out)})
    assert (code, answer) == (0, {"ok": True, "version": 1})
    assert td.read_state(out).equals(td.open(chain).load(1))
    out.unlink()
    code, answer = one_shot("read", {"chain": str(chain), "held": None, "to": 99, "out": str(out)})
    assert (code, answer["error"], answer["rule"]) == (1, "missing", "TD-OBJ-008")
    assert not out.exists()
    code, answer = one_shot("dance", {"chain": str(chain)})
    assert code == 3 and "unsupported" in answer
