"""The vectors: their form, what they cover, and that the generator makes the very bytes that are committed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from requirements import extract

CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
VECTORS = CONFORMANCE / "vectors"


def _load(name: str) -> Any:
    """A module of the suite by its file, since packages of the same name may be installed."""
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", CONFORMANCE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


coverage = _load("coverage")
SCHEMA = json.loads((CONFORMANCE / "case.schema.json").read_text())
CASES: dict[Path, dict[str, Any]] = {
    path.parent: json.loads(path.read_text()) for path in sorted(VECTORS.glob("*/*/*/case.json"))
}
BY_ID = {case["id"]: folder for folder, case in CASES.items()}
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def valid(folder: Path) -> bool:
    return folder.parent.name == "valid"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_case_has_the_form_of_the_schema() -> None:
    wrong = {folder.name: error.message for folder, case in CASES.items() for error in VALIDATOR.iter_errors(case)}
    assert wrong == {}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "Upper-Case"},
        {"title": "It ends with a full stop."},
        {"requirements": []},
        {"requirements": ["TD-POS-1"]},
        {"level": "reader"},
        {"role": "verifier", "steps": [{"restart": True}]},
        {"steps": []},
        {"steps": [{"op": "read", "input": {"chain": "/absolute", "to": 1}, "expect": {"version": 1}}]},
        {"steps": [{"op": "read", "input": {"chain": "chain"}, "expect": {"version": 1}}]},
        {"steps": [{"op": "read", "input": {"chain": "chain", "to": 1}, "expect": {"error": ["broken"]}}]},
        {"steps": [{"op": "read", "input": {"chain": "chain", "to": 1}, "expect": {"error": ["limit"], "version": 1}}]},
        {"verify": {"faults": [{"error": ["limit"], "object": []}]}},
        {"more": 1},
    ],
    ids=str,
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    case = CASES[BY_ID["standard"]]
    assert VALIDATOR.is_valid(case)
    assert not VALIDATOR.is_valid(case | change)


def test_ids_are_unique_and_name_the_folders() -> None:
    assert len(BY_ID) == len(CASES)
    assert all(folder.name == case["id"] for folder, case in CASES.items())
    assert {folder.parent.name for folder in CASES} == {"valid", "invalid"}
    everything = {path for path in VECTORS.glob("*/*/*") if path.is_dir()}
    assert everything == set(CASES), "a folder without a case"


def test_an_invalid_case_has_a_valid_twin_that_is_read_in_the_same_way() -> None:
    for folder, case in CASES.items():
        if valid(folder):
            assert case["twin"] is None, folder.name
        elif case["kind"] != "scenario" or case["twin"] is not None:
            assert valid(BY_ID[case["twin"]]), folder.name


def test_valid_cases_expect_no_error_and_invalid_ones_do() -> None:
    for folder, case in CASES.items():
        expected = [step.get("expect", {}) for step in case["steps"]]
        if valid(folder):
            if case["kind"] == "scenario":
                continue  # which may have a fault on its way
            assert not any("error" in expect for expect in expected), folder.name
        else:
            choices = [each for expect in expected for each in [expect, *expect.get("any", [])]]
            faults = (case["verify"] or {"faults": []})["faults"]
            assert faults or any("error" in each or each.get("faults") for each in choices), folder.name


def test_files_that_a_case_names_exist() -> None:
    for folder, case in CASES.items():
        for name in _paths(case["steps"]):
            assert (folder / name).exists(), f"{folder.name}: {name}"


def _paths(steps: list[dict[str, Any]]) -> list[str]:
    """Files that steps name and that are there before the first of them."""
    found = []
    for step in steps:
        expect = step.get("expect", {})
        for given in [step.get("input", {}), *step.get("race", [])]:
            found += [given["state"]] if "state" in given else []
            found += [given["held"]["state"]] if given.get("held") else []
            found += [*given.get("files", {}).values(), *given.get("places", [])]
        found += [*expect.get("files", {}).values()]
        found += [step["put"]] if "put" in step else []
        for each in [expect, *expect.get("any", [])]:
            state = each.get("state")
            found += [state] if isinstance(state, str) else [state["layout"]] if state else []
    return found


def test_there_are_enough_and_most_are_invalid() -> None:
    invalid = sum(not valid(folder) for folder in CASES)
    assert len(CASES) >= 400 and invalid > len(CASES) / 2
    size = sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file())
    assert size < 25_000_000


def test_every_must_is_tested_or_listed() -> None:
    assert coverage.main([]) == 0


def test_no_case_names_a_requirement_that_is_none() -> None:
    ids = {each.id for each in extract((CONFORMANCE.parent / "SPEC.md").read_text())}
    assert {name for case in CASES.values() for name in case["requirements"]} <= ids


def test_coverage_finds_what_is_missing() -> None:
    entry = {"requirement": "B", "reason": "r", "testable_when": "t"}
    binding = [*"ABCDEFGHIJ"]
    tested = {name: ["x"] for name in binding if name != "B"}
    assert coverage.problems(binding, tested, [entry]) == []
    assert coverage.problems(binding, tested, []) == ["B is neither tested nor listed"]
    assert coverage.problems(binding, {**tested, "B": ["y"]}, [entry]) == ["B is listed and tested by y"]
    assert coverage.problems(binding, tested, [entry, {**entry, "requirement": "Z"}]) == [
        "Z is listed and no MUST",
        "2 of 10 MUSTs are listed, more than one in 10",
    ]
    assert coverage.problems(binding, tested, [{**entry, "reason": ""}]) == ["B is listed without `reason`"]


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_generator_makes_the_committed_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CONFORMANCE / "generate", tmp_path / "out"], check=True, capture_output=True)
    made, committed = _content(tmp_path / "out"), _content(VECTORS)
    assert made.keys() == committed.keys()
    assert [name for name, data in made.items() if committed[name] != data] == []


def test_the_generator_does_not_know_the_reference() -> None:
    """Neither does any module of it import the package, nor does it come in by another way."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(CONFORMANCE)!r})\n"
        "sys.modules['tensordelta'] = None\n"
        "from generate import areas\n"
        "cases = areas.load()\n"
        "assert len(cases) > 400\n"
        "assert not {'safetensors', 'zstandard', 'ml_dtypes', 'backports.zstd', 'msgspec'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
