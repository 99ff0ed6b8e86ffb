"""The examples run as they stand: a trainer and an engine beside one another, and a reader of the Hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import all_tensors
from hub_server import Hub
from places import S3

import tensordelta as td

EXAMPLES = Path(__file__).parents[2] / "reference" / "examples"


def start(name: str, *arguments: object, cache: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    variables = os.environ | environment | {"TENSORDELTA_CACHE": str(cache), "PYTHONWARNINGS": "error"}
    variables["PYTHONPATH"] = str(Path(td.__file__).parents[1])
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> str:
    output, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_trainer_and_an_engine(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The engine begins before there is a chain, and ends with the weights of the last step."""
    environment: dict[str, str] = {}
    options: dict[str, object] | None = None
    address = str(tmp_path / "chain")
    if kind == "s3":
        s3: S3 = request.getfixturevalue("s3")
        address, environment, options = f"s3://{s3.bucket()}/run", s3.environment, dict(s3.options)
    engine = start("follow_in_engine.py", address, 12, cache=tmp_path / "engine", **environment)
    trainer = start("publish_from_training.py", address, 12, cache=tmp_path / "trainer", **environment)
    trained, served = end(trainer), end(engine)
    assert "step 12: loss" in trained and "step=12" in trained
    assert re.search(r"^version \d+, step 12", served, re.MULTILINE) and "batches were served" in served
    chain = td.open(address, store_options=options)
    assert chain.at(step=12) == chain.newest()
    assert chain.verify(deep=True).ok


def test_a_reader_of_the_hub(hub: Hub, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run twice: the second pull fetches the delta alone."""
    address = f"hf://buckets/{bucket}/run"
    hub.token = "token"
    chain = td.open(address, create=True, store_options={"endpoint": hub.address, "token": "token"})
    weights = {"a": np.random.default_rng(0).normal(size=50_000).astype(np.float32), "b": np.zeros((3, 4), np.float16)}
    for step in range(2):
        weights["a"][::100] += step
        chain.publish(weights, annotations={"step": str(step)})
        output = end(
            start(
                "read_from_hub.py",
                address,
                tmp_path / "model",
                cache=tmp_path / "reader",
                HF_ENDPOINT=hub.address,
                HF_TOKEN="token",
            )
        )
        assert f"step={step}" in output and "a: (50000,)" in output and f"version {step} is in" in output
        (tensors,) = all_tensors(tmp_path / "model").values()
        assert tensors["a"][2] == weights["a"].tobytes()
        fetched = re.search(r"([\d,]+) bytes were fetched", output)
        assert fetched is not None
        assert (int(fetched[1].replace(",", "")) < 20_000) == (step == 1)


@pytest.mark.parametrize("name", ["publish_from_training", "follow_in_engine", "read_from_hub"])
def test_it_says_how_to_run_it(name: str) -> None:
    """Its first lines have the command, and its cells are marked for editors that run them one by one."""
    text = (EXAMPLES / f"{name}.py").read_text()
    assert f"    python {name}.py " in text.split('"""')[1]
    assert text.count("\n# %% ") >= 3


@pytest.mark.parametrize("name", ["publish_from_training", "follow_in_engine", "read_from_hub"])
def test_it_has_help(name: str, tmp_path: Path) -> None:
    assert end(start(f"{name}.py", "--help", cache=tmp_path)).startswith(f"usage: {name}.py")
