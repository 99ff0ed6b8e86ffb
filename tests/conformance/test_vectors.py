"""The vectors: their form, what they cover, and that the generator makes the very bytes that are committed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from requirements import extract

from generate import areas, cases
from tensordelta_conformance import Suite

CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
VECTORS = CONFORMANCE / "vectors"
MOST_FILES = 400


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
DOCUMENT_SCHEMA = json.loads((CONFORMANCE / "vectors.schema.json").read_text())
DOCUMENTS: dict[str, dict[str, Any]] = {
    path.relative_to(VECTORS).with_suffix("").as_posix(): json.loads(path.read_text())
    for path in sorted(VECTORS.glob("*/*.json"))
}
CASES: dict[str, dict[str, Any]] = {
    f"{half}/{entry['case']['id']}": entry["case"]
    for half, document in DOCUMENTS.items()
    for entry in document["cases"]
}
BY_ID = {case["id"]: path for path, case in CASES.items()}
SUITE = Suite(VECTORS)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DOCUMENT_VALIDATOR = jsonschema.Draft202012Validator(
    DOCUMENT_SCHEMA, registry=Registry().with_resource("case.schema.json", Resource.from_contents(SCHEMA))
)


def valid(path: str) -> bool:
    return path.split("/")[1] == "valid"


def test_the_schemas_are_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(DOCUMENT_SCHEMA)


def test_every_document_has_the_form_of_the_schema() -> None:
    wrong = {
        half: error.message
        for half, document in DOCUMENTS.items()
        for error in DOCUMENT_VALIDATOR.iter_errors(document)
    }
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


@pytest.mark.parametrize(
    "change",
    [
        {"like": "all-of-4"},
        {"files": {"/absolute": [""]}},
        {"files": {"case.json": [""]}},
        {"files": {"chain/x": "text"}},
        {"files": {"chain/x": None}},
        {"files": {"chain/x": [{"base64": "AB="}]}},
        {"files": {"chain/x": {"sha256": "AB"}}},
        {"more": 1},
    ],
    ids=str,
)
def test_the_schema_of_documents_refuses(change: dict[str, Any]) -> None:
    (entry,) = [entry for entry in DOCUMENTS["chains/valid"]["cases"] if entry["case"]["id"] == "standard"]
    assert DOCUMENT_VALIDATOR.is_valid({"cases": [entry], "contents": {}})
    assert not DOCUMENT_VALIDATOR.is_valid({"cases": [entry | change], "contents": {}})


def test_ids_are_unique_and_every_file_is_a_document_or_in_the_pool() -> None:
    assert len(BY_ID) == len(CASES) == sum(len(document["cases"]) for document in DOCUMENTS.values())
    assert {half.split("/")[1] for half in DOCUMENTS} == {"valid", "invalid"}
    others = {path.relative_to(VECTORS).as_posix() for path in VECTORS.rglob("*") if path.is_file()}
    others -= {f"{half}.json" for half in DOCUMENTS}
    assert others and all(name.startswith("pool/") for name in others)


def test_no_content_is_stored_twice_and_none_for_nothing() -> None:
    stored, used = Counter(path.name for path in (VECTORS / "pool").iterdir()), set()
    for half, document in DOCUMENTS.items():
        stored.update(document["contents"].keys())
        own = set(document["contents"])
        for entry in document["cases"]:
            for name, content in entry["files"].items():
                if isinstance(content, dict):
                    used.add(content["sha256"])
                    own.discard(content["sha256"])
                elif content is not None:
                    path = f"{half}/{entry['case']['id']}"
                    stored[hashlib.sha256(SUITE.cases[entry["case"]["id"]].files[name]).hexdigest()] += 1
                    assert SUITE.cases[entry["case"]["id"]].path == path
        assert own == set(), f"{half}: contents that no case of it uses"
    assert [digest for digest, times in stored.items() if times > 1] == []
    assert {path.name for path in (VECTORS / "pool").iterdir()} <= used
    contents = {hashlib.sha256(data).hexdigest() for case in SUITE.cases.values() for data in _others(case.files)}
    assert contents == set(stored)


def _others(files: Any) -> Iterator[bytes]:
    return (data for name, data in files.items() if name != "case.json")


def test_an_invalid_case_has_a_valid_twin_that_is_read_in_the_same_way() -> None:
    for path, case in CASES.items():
        if valid(path):
            assert case["twin"] is None, path
        elif case["kind"] != "scenario" or case["twin"] is not None:
            assert valid(BY_ID[case["twin"]]), path


def test_valid_cases_expect_no_error_and_invalid_ones_do() -> None:
    for path, case in CASES.items():
        expected = [step.get("expect", {}) for step in case["steps"]]
        if valid(path):
            if case["kind"] == "scenario":
                continue  # which may have a fault on its way
            assert not any("error" in expect for expect in expected), path
        else:
            choices = [each for expect in expected for each in [expect, *expect.get("any", [])]]
            faults = (case["verify"] or {"faults": []})["faults"]
            assert faults or any("error" in each or each.get("faults") for each in choices), path


def test_files_that_a_case_names_exist() -> None:
    for path, case in CASES.items():
        files = SUITE.cases[case["id"]].files
        for name in _paths(case["steps"]):
            assert name in files or any(each.startswith(f"{name}/") for each in files), f"{path}: {name}"


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
    invalid = sum(not valid(path) for path in CASES)
    assert len(CASES) >= 400 and invalid > len(CASES) / 2


def test_the_files_are_few_and_small() -> None:
    sizes = [path.stat().st_size for path in VECTORS.rglob("*") if path.is_file()]
    assert len(sizes) < MOST_FILES
    assert sum(sizes) < 16_000_000 and max(sizes) < 1_500_000


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


@pytest.mark.slow
def test_the_cases_have_the_files_of_the_generator() -> None:
    made = areas.load()
    assert made.keys() == SUITE.cases.keys()
    for each in made.values():
        files = dict(SUITE.cases[each.id].files)
        assert json.loads(files.pop("case.json")) == CASES[each.folder]
        assert files == cases.files_of(each), each.folder


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
