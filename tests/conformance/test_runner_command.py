"""The command, the cases that it loads, and what comes with the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_suite import ONE, ZERO, add_case, add_twins, command, read_step

from tensordelta_conformance import (
    CaseError,
    Suite,
    SuiteError,
    run,
)
from tensordelta_conformance.case import load_case
from tensordelta_conformance.cli import main
from tensordelta_conformance.documents import folder_files

CONFORMANCE = Path(__file__).parent.parent.parent / "conformance"


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    root = tmp_path / "vectors"
    add_twins(root)
    return root


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"id": "other"}, "is not the folder's name"),
        ({"level": "reader"}, "level is 'reader'"),
        ({"role": "auditor"}, "role is 'auditor'"),
        ({"needs": ["luck"]}, "an item of needs is 'luck'"),
        ({"flags": ["big"]}, "an item of flags is 'big'"),
        ({"requirements": []}, "requirements is no list of ids"),
        ({"requirements": ["POS-1"]}, "requirements is no list of ids"),
        ({"colour": 1}, "unknown members: colour"),
        ({"verify": {"faults": [{"error": ["broken"]}]}}, "is 'broken'"),
        ({"steps": []}, "there is nothing to do"),
        ({"steps": [{"op": "wish", "input": {}, "expect": {}}]}, "steps[0].op is 'wish'"),
        ({"steps": [read_step(1, {})]}, "steps[0].expect has neither state nor error"),
        ({"steps": [read_step(1, {"error": ["broken"]})]}, "is 'broken'"),
        ({"steps": [read_step(1, {"any": [{"state": None}]})]}, "two or more"),
        ({"steps": [read_step(1, {"state": None}, out="x")]}, "a member that the runner adds"),
        ({"steps": [{"restart": False}]}, "restart is not true"),
        (
            {"steps": [{"op": "read", "input": {"chain": "chain", "to": 1}, "expect": {"state": None}}]},
            "steps[0] does not say what is held",
        ),
        ({"steps": [{"op": "verify", "input": {}, "expect": {}}]}, "steps[0].expect has no faults"),
    ],
)
def test_case_that_breaks_the_contract(tmp_path: Path, members: dict[str, Any], told: str) -> None:
    folder = add_case(tmp_path, "odd", [read_step(1, {"state": None})])
    load_case("toys/valid/odd", folder_files(folder))
    document = json.loads((folder / "case.json").read_text()) | members
    (folder / "case.json").write_text(json.dumps(document))
    with pytest.raises(CaseError) as caught:
        load_case("toys/valid/odd", folder_files(folder))
    assert told in str(caught.value)


def test_suite_names_all_that_is_wrong(tmp_path: Path) -> None:
    add_case(tmp_path, "one", [read_step(1, {"state": None})], twin="gone", valid=False)
    add_case(tmp_path, "two", [read_step(1, {"state": None})], level="none")
    with pytest.raises(SuiteError) as caught:
        _ = Suite(tmp_path).cases
    assert "its twin gone does not exist" in str(caught.value)
    assert "toys/valid/two: level is 'none'" in str(caught.value)


def test_vectors_of_the_suite_keep_the_contract() -> None:
    suite = Suite.find()
    assert set(suite.requirements) >= {name for case in suite.cases.values() for name in case.requirements}


def test_requirements_are_those_of_the_specification() -> None:
    command = [sys.executable, CONFORMANCE / "requirements.py", "--json"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    kept = json.loads((CONFORMANCE / "tensordelta_conformance" / "requirements.json").read_bytes())
    for requirement in (*listed, *kept):
        # Where a requirement stands moves with every edit of the text before it.
        del requirement["line"]
    assert kept == listed, (
        "after a change of SPEC.md: requirements.py --json > tensordelta_conformance/requirements.json"
    )


def test_package_needs_no_pytest() -> None:
    code = "import sys, tensordelta_conformance.cli; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(CONFORMANCE)})


# -- the command -------------------------------------------------------------------------------------------------------


def test_exit_status(twins: Path) -> None:
    adapter = " ".join(command())
    assert main(["run", "--vectors", str(twins), "--adapter", adapter, "--level", "reader-core"]) == 0
    assert main(["run", "--vectors", str(twins), "--adapter", adapter, "--only", "one-word", "--level", "chain"]) == 1
    assert main(["run", "--vectors", str(twins), "--adapter", " ".join(command("wrong-state"))]) == 1
    assert main(["run", "--vectors", str(twins), "--adapter", adapter, "--only", "no-such"]) == 2
    assert main(["run", "--vectors", str(twins / "none"), "--adapter", adapter]) == 2
    with pytest.raises(SystemExit) as caught:
        main(["run", "--vectors", str(twins), "--adapter", adapter, "--level", "reader"])
    assert caught.value.code == 2


def test_claimed_level_without_cases_is_not_claimed(twins: Path) -> None:
    report = run(command(), suite=twins)
    assert report.verdict == ("toy 1 conforms to tensordelta 1.0-rc.1: reader-core, verifier; not to chain (no cases)")
    assert not report.conforms and not report.clean


def test_part_of_the_suite_claims_nothing(twins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = " ".join(command())
    arguments = ["run", "--vectors", str(twins), "--adapter", adapter, "--level", "reader-core", "--only", "*/valid/*"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "toy 1: 1 of 1 chosen checks pass; a part of the suite claims no level" in printed
    assert "\x1b" not in printed


def test_list_and_show(twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--vectors", str(twins), "--only", "one-word"]) == 0
    assert capsys.readouterr().out == "toys/valid/one-word  [reader-core]  The case one word\n"
    assert main(["list", "requirements", "--json", "--vectors", str(twins)]) == 0
    listed = {item["id"]: item["cases"] for item in json.loads(capsys.readouterr().out)}
    assert listed["TD-POS-003"] == ["one-word-too-many"] and listed["TD-POS-002"] == []
    assert main(["show", "--vectors", str(twins), "one-word-too-many", "--unpack", str(tmp_path / "here")]) == 0
    printed = capsys.readouterr().out
    for line in (
        "  1. read version 1, holding 0.safetensors as version 0",
        "     -> rejected as malformed, still the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held",
        "A verifier reports: malformed of 1.error",
        "Beside its valid twin one-word:\n  1.error\n    twin: absent\n    here: 9 bytes",
    ):
        assert line in printed
    assert (tmp_path / "here" / "one-word-too-many" / "chain" / "1.safetensors").read_bytes() == ONE
    assert main(["show", "--vectors", str(twins), "no-such"]) == 2


def test_archive_is_the_same_each_time(twins: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    assert main(["archive", "--vectors", str(twins), str(first)]) == 0
    for path in twins.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert main(["archive", "--vectors", str(twins), str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    assert first.with_name("a.tar.gz.sha256").read_text().endswith("  a.tar.gz\n")
    subprocess.run(["sha256sum", "--check", "a.tar.gz.sha256"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["tar", "xzf", first], cwd=tmp_path, check=True)
    (case,) = tmp_path.glob("tensordelta-vectors-*/toys/valid/one-word")
    assert (case / "0.safetensors").read_bytes() == ZERO
