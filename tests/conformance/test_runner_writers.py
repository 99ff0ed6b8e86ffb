"""The runner and writers: what they write is judged by its bytes (conformance/CASES.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_suite import add_case, only_check

from generate.builder import Builder, manifest_name
from generate.cases import state_file
from generate.model import Model, Tensor
from tensordelta_conformance import PublishRequest, Rejected, check_writer, run

FIRST: Model = {"w": Tensor("U16", (4,), np.array([1, 2, 3, 4], "<u2"))}
SECOND: Model = {"w": Tensor("U16", (4,), np.array([1, 2, 3, 9], "<u2"))}

NO_CHAIN = {f"chain/{name}": b"" for name in ("chain.json", "0.safetensors", "1.safetensors")}


def chain(newest: int = 1) -> Builder:
    """Version 0, full, and, unless it is the newest, version 1, a delta."""
    builder = Builder()
    builder.full(0, FIRST)
    if newest:
        builder.delta(1, SECOND, 0)
    return builder


def step(state: str, version: int, **expect: Any) -> dict[str, Any]:
    return {
        "op": "publish",
        "input": {"chain": "chain", "state": state, "version": version},
        "expect": expect or {"version": version, "state": state},
    }


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    root = tmp_path / "vectors"
    steps = [step("first.safetensors", 0), step("second.safetensors", 1)]
    folder = add_case(
        root,
        "two-versions",
        steps,
        {"first.safetensors": state_file(FIRST), "second.safetensors": state_file(SECOND)},
        role="writer",
        level="writer-core",
        kind="write",
        requirements=["TD-WRT-004"],
    )
    for path in (folder / "chain").iterdir():
        path.unlink()
    return root


class Publisher:
    """Lays down the builder's objects, and spoils the chain at version 1."""

    def __init__(self, spoil: Callable[[Path], object] = lambda root: None) -> None:
        self.spoil = spoil
        self.seen: list[PublishRequest] = []

    def __call__(self, request: PublishRequest) -> int:
        self.seen.append(request)
        assert request.version is not None
        chain(request.version).write(request.chain)
        if request.version == 1:
            self.spoil(request.chain)
        return request.version


def test_good_writer(suite: Path) -> None:
    publish = Publisher()
    report = check_writer(publish, suite=suite, name="mine", version="1")
    assert report.verdict == "mine 1 conforms to tensordelta 1.0-rc.1: writer-core", report.failures
    assert [bytes(request.state["w"].data).hex() for request in publish.seen] == [
        "0100020003000400",
        "0100020003000900",
    ]


def edit_manifest(version: int, **members: Any) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        path = root / manifest_name(version)
        path.write_text(json.dumps(json.loads(path.read_text()) | members))

    return spoil


def drop_packs(root: Path) -> None:
    for path in (root / "packs").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "broken"),
    [
        (edit_manifest(1, fingerprint="0" * 16), "TD-FPR-007"),
        (edit_manifest(0, annotations={"a": "b"}), "TD-OBJ-003"),
        (drop_packs, "TD-OBJ-012"),
        (edit_manifest(1, tensordelta="1.1"), "TD-VER-005"),
    ],
)
def test_writer_that_breaks_a_requirement(suite: Path, spoil: Callable[[Path], object], broken: str) -> None:
    report = check_writer(Publisher(spoil), suite=suite)
    check = only_check(report, "two-versions")
    assert (check.status, check.step) == ("fail", 1)
    assert broken in check.broken
    assert f"{broken}: " in check.got
    states = {result.requirement.id: result.state for result in report.requirements}
    assert states[broken] == "failed"


def write_elsewhere(root: Path) -> None:
    (root.parent / "second.safetensors").unlink()


def put_other_words(root: Path) -> None:
    other = Builder()
    other.full(0, FIRST)
    other.delta(1, {"w": Tensor("U16", (4,), np.array([1, 2, 3, 8], "<u2"))}, 0)
    other.write(root)


@pytest.mark.parametrize(
    ("publish", "status", "told"),
    [
        (Publisher(write_elsewhere), "fail", "second.safetensors is gone"),
        (Publisher(put_other_words), "fail", "TD-"),
        (lambda request: None, "error", "publish was answered with the version None"),
        (lambda request: 5, "fail", "ADAPTER.md"),
        (lambda request: 1 / 0, "error", "ZeroDivisionError"),
    ],
)
def test_broken_writer(suite: Path, publish: Any, status: str, told: str) -> None:
    check = only_check(check_writer(publish, suite=suite), "two-versions")
    assert check.status == status
    assert told in check.got


def test_refusal_to_publish(suite: Path) -> None:
    case = suite / "toys" / "valid" / "two-versions" / "case.json"
    document = json.loads(case.read_text())
    document["steps"][1]["expect"] = {"error": ["conflict"]}
    case.write_text(json.dumps(document))

    def refuse(request: PublishRequest) -> int:
        if request.version == 1:
            raise Rejected("conflict")
        return Publisher()(request)

    def refuse_and_commit(request: PublishRequest) -> int:
        version = Publisher()(request)
        if version == 1:
            raise Rejected("conflict")
        return version

    assert check_writer(refuse, suite=suite).conforms
    check = only_check(check_writer(refuse_and_commit, suite=suite), "two-versions")
    assert check.status == "fail"
    assert only_check(check_writer(Publisher(), suite=suite), "two-versions").got == "version 1"


def change_last_step(suite: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    case = suite / "toys" / "valid" / "two-versions" / "case.json"
    document = json.loads(case.read_text())
    document["steps"][1] = change(document["steps"][1])
    case.write_text(json.dumps(document))


def toy_writer(folder: Path, how: str, **second: Model) -> list[str]:
    """The command of a writer that knows version 0, and the states to publish as version 1."""
    made = {}
    for name, model in {"first": None, **second}.items():
        builder = Builder()
        builder.full(0, FIRST)
        old = dict(builder.objects)
        if model is not None:
            builder.delta(1, model, 0)
            old.pop("layouts/" + builder.manifests[0]["layout"] + ".json")
        new = {key: data for key, data in builder.objects.items() if model is None or key not in old}
        ordered = sorted(new.items(), key=lambda item: item[0].startswith("manifests/"))
        made[f"{name}.safetensors"] = {key: data.hex() for key, data in ordered}
    objects = folder / "objects.json"
    objects.write_text(json.dumps(made))
    return [sys.executable, str(Path(__file__).with_name("toy_writer.py")), str(objects), how]


@pytest.mark.parametrize(("how", "status"), [("careful", "pass"), ("in-place", "fail")])
def test_killed_writer(suite: Path, tmp_path: Path, how: str, status: str) -> None:
    change_last_step(suite, lambda step: step | {"kill": 4})
    check = only_check(run(toy_writer(tmp_path, how, second=SECOND), suite=suite, jobs=1), "two-versions")
    assert check.status == status, check.got


@pytest.mark.parametrize(("how", "status"), [("careful", "pass"), ("careless", "fail")])
def test_race_of_writers(suite: Path, tmp_path: Path, how: str, status: str) -> None:
    third: Model = {"w": Tensor("U16", (4,), np.array([7, 2, 3, 4], "<u2"))}
    (suite / "toys" / "valid" / "two-versions" / "third.safetensors").write_bytes(state_file(third))

    def race(step: dict[str, Any]) -> dict[str, Any]:
        given = step["input"]
        return {"op": "publish", "race": [given, given | {"state": "third.safetensors"}], "expect": {}}

    change_last_step(suite, race)
    command = toy_writer(tmp_path, how, second=SECOND, third=third)
    check = only_check(run(command, suite=suite, jobs=1), "two-versions")
    assert check.status == status, check.got
