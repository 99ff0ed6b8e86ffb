"""The benchmark program runs, and its JSON has the shape that others read figures from. No time is judged."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import tensordelta as td

RUN = Path(__file__).parents[1] / "reference" / "benchmarks" / "run.py"
PEERS = ["int32+bf16", "u16 gaps+bf16", "overwrite+zstd-1", "xor+zstd-1"]
OURS = ["tensordelta, natural order", "tensordelta, exponent order"]
TABLES = ["encode", "decode, check and apply", "apply", "scan of the whole model"]


def run(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the program; its JSON and its standard output."""
    target = tmp_path / "figures.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(td.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(RUN), "--rounds", "1", "--json", str(target), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return json.loads(target.read_text()), done.stdout


def figures(facts: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [case["speed"] for case in facts["cases"] if "speed" in case]
    parts += [facts[name] for name in ("memory", "import") if facts[name] is not None]
    return [figure for part in parts for figure in part["figures"]]


def met(figure: dict[str, Any]) -> bool | None:
    if figure["at_least"] is not None:
        return bool(figure["value"] >= figure["at_least"])
    return None if figure["at_most"] is None else bool(figure["value"] <= figure["at_most"])


def check(tmp_path: Path, facts: dict[str, Any], text: str) -> None:
    """What holds for every run."""
    assert facts["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["machine"]["packages"]["numpy"] == np.__version__
    for case in facts["cases"]:
        check_case(case, facts["settings"]["threads"])
    for figure in figures(facts):
        assert math.isfinite(figure["value"])
        assert figure["value"] > 0
        assert figure["met"] is met(figure)
    marks = [figure["met"] for figure in figures(facts) if figure["met"] is not None]
    assert facts["targets"] == {"met": sum(marks), "of": len(marks)}
    assert text.endswith(f"targets met: {sum(marks)} of {len(marks)}\n")
    assert max(map(len, text.splitlines())) <= 100
    kept = json.dumps(facts)
    for secret in (os.uname().nodename, str(Path.home()), str(tmp_path), str(RUN.parent)):
        assert secret not in kept


def check_case(case: dict[str, Any], threads: list[int]) -> None:
    assert 0 < case["changed"] == round(case["density"] * case["words"])
    encodings = {each["name"]: each for each in case["sizes"]["encodings"]}
    assert set(encodings) == {*OURS, *PEERS}
    steps = case["sizes"]["steps"]
    for each in encodings.values():
        assert each["share_of_model"] == pytest.approx(each["bytes"] / steps / case["bytes"])
    assert 0 < case["sizes"]["full"]["share_of_model"] < 1.5
    times = case["speed"]["times"]
    assert list(times) == TABLES
    for table in ("encode", "decode, check and apply"):
        assert {each["name"] for each in times[table]} >= {*OURS, *PEERS}
    assert {each["threads"] for each in times["encode"]} == set(threads)
    for each in (each for table in times.values() for each in table):
        assert len(each["rounds_seconds"]) == 1
        assert 0 < each["min_seconds"] <= each["median_seconds"]
        assert each["gigabytes_per_second"] == pytest.approx(case["bytes"] / each["median_seconds"] / 1e9)


@pytest.mark.slow
def test_all_sections(tmp_path: Path) -> None:
    sizes = ("--size", "1MiB", "--memory-size", "1MiB")
    facts, text = run(tmp_path, *sizes, "--density", "0.01", "--threads", "1,2")

    check(tmp_path, facts, text)
    assert len(facts["cases"]) == 1
    case = facts["cases"][0]
    assert case["source"] == {"kind": "synthetic", "regime": "master_fp32", "density": 0.01, "size": 1 << 20}
    assert case["bytes"] == pytest.approx(1 << 20, rel=0.05)
    assert case["density"] == pytest.approx(0.01, rel=0.3)
    encodings = {each["name"]: each for each in case["sizes"]["encodings"]}
    assert encodings["int32+bf16"]["bits_per_changed_word"] == 48
    if facts["memory"]["skipped"] is None:
        steps = {figure["name"]: figure for figure in facts["memory"]["figures"]}
        assert [name.split(",")[0] for name in steps] == ["publish full", "publish delta", "pull full", "pull delta"]
        assert all(0 < figure["at_start"] <= figure["bytes"] for figure in steps.values())
    assert {figure["name"] for figure in facts["import"]["figures"]} == {"import tensordelta", "of which numpy"}


def test_checkpoints(tmp_path: Path) -> None:
    """A folder of checkpoints; 10 comes after 9."""
    folder = tmp_path / "run"
    folder.mkdir()
    random = np.random.default_rng(0)
    words = random.integers(0, 1 << 16, (64, 64), np.uint16)
    for step, changes in ((9, 40), (10, 40), (11, 40)):
        words.reshape(-1)[random.choice(words.size, changes, replace=False)] ^= np.uint16(1)
        save_file({"w": words, "bias": np.zeros(3, np.float32)}, folder / f"step_{step}.safetensors")

    facts, text = run(tmp_path, "--checkpoints", str(folder), "--threads", "1", "--sections", "sizes,speed")

    check(tmp_path, facts, text)
    case = facts["cases"][0]
    assert case["source"] == {"kind": "checkpoints", "first": "step_9", "steps": 2}
    assert case["label"] == "checkpoints step_9 to step_11"
    assert (case["words"], case["changed"]) == (64 * 64 + 3, 40)
    assert facts["memory"] is None and facts["import"] is None


@pytest.mark.parametrize("arguments", [("--density", "1.5"), ("--size", "big"), ("--sections", "all,none")])
def test_refuses(tmp_path: Path, arguments: tuple[str, str]) -> None:
    done = subprocess.run([sys.executable, str(RUN), *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


@pytest.mark.slow
def test_many_writers_and_readers(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(td.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(RUN.with_name("many.py")), "--size", "1MiB", "--rounds", "2", "--json", str(target)]
    counts = ("--writers", "1,3", "--readers", "1,2")
    done = subprocess.run([*command, *counts], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(target.read_text())
    assert [row["writers"] for row in facts["writers"]] == [row["packs"] for row in facts["writers"]] == [1, 3]
    for row in facts["writers"]:
        assert all(row["seconds"][at] > row["slowest"][at] > 0 < row["commit"][at] for at in range(2))
        assert facts["bytes"] / 4 < row["full_sent"] < facts["bytes"] and 0 < row["sent"] < row["full_sent"]
    one, two = facts["readers"]
    assert two["got"] == 2 * one["got"] > 0 and all(len(row["seconds"]) == 2 for row in (one, two))


def test_metadata_at_scale(tmp_path: Path) -> None:
    """What is read does not grow with the chain, and the routes are the cheapest there are, or hardly dearer."""
    target = tmp_path / "figures.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(td.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(RUN.with_name("metadata.py")), "--versions", "1500", "--tensors", "100"]
    done = subprocess.run(
        [*command, "--json", str(target)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(target.read_text())
    for row in facts["rows"]:
        assert row["reads"] < 300 and row["least"] <= row["size"] <= 1.02 * row["least"] and row["seconds"] > 0
    assert {(row["case"], row["reads"]) for row in facts["rows"] if row["case"] == "1 behind"} == {("1 behind", 3)}
    nothing, some = facts["poll"]
    assert nothing == {"read": 1} and some["listed name"] < 10


def test_tables_of_a_large_version(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(td.__file__).parents[1]), "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(RUN.with_name("large_tables.py")), "--words", "5e9", "--json", str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(target.read_text())
    growing, fixed = facts["rows"]
    assert growing["number"] < 0.6 * fixed["number"] and growing["json"] < 0.7 * fixed["json"]
    for row in facts["rows"]:
        assert 0 < row["peak"] <= row["counted"] and row["manifest"] < row["json"] < row["bytes"]
