"""vLLM follows what a GRPOTrainer publishes to the Hub's test server meanwhile: three processes, real parts.

The trainer has an environment of its own: TENSORDELTA_TRAINER_PYTHON is its Python, which `.ci/trainers` makes.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from engine import Engine
from hub_server import Hub
from models import make_model

import tensordelta as td

pytestmark = pytest.mark.slow

TRAINER = Path(__file__).with_name("grpo_trainer.py")
STEPS = 3
PROMPTS = [[1, 2, 3, 4, 5], [7, 8, 9], [100, 200, 300, 400, 500, 600, 700]]


@pytest.fixture
def trainer() -> str:
    """The trainer's Python."""
    python = os.environ.get("TENSORDELTA_TRAINER_PYTHON")
    if python is None:
        pytest.skip("no trainer: .ci/trainers FOLDER makes one; set TENSORDELTA_TRAINER_PYTHON to FOLDER/bin/python")
    return python


@contextmanager
def training(python: str, folder: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A trainer that waits for a file before each step."""
    with (folder / "trainer.log").open("wb") as log:
        process = subprocess.Popen(
            [python, TRAINER, address, folder / "model", folder, str(STEPS)], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(version: int, address: str, hub: Hub, process: subprocess.Popen[bytes]) -> td.Chain:
    """The trainer's chain, once it has a version."""
    while True:
        with suppress(td.MissingError):
            chain = td.open(address, store_options={"endpoint": hub.address, "token": "token"})
            if version in chain.versions():
                return chain
        assert process.poll() in (None, 0), "the trainer has failed"
        time.sleep(0.2)


def answers(engine: Engine) -> tuple[Any, Any]:
    """The hash of each parameter, and greedy tokens with logprobs."""
    return engine.checksums(), engine.generate(prompts=PROMPTS)


@pytest.mark.parametrize(("kind", "unpacked"), [("llama", False), ("qwen2", True)], ids=["tied-packed", "untied-plain"])
def test_an_engine_follows_a_trainer(
    kind: str, unpacked: bool, trainer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(kind, tmp_path / "model")
    environment = {"TENSORDELTA_UNPACKED": str(int(unpacked))}
    with Hub() as hub:
        hub.processes = True
        hub.buckets["me/bucket"] = {}
        address = "hf://buckets/me/bucket/run"
        for name, value in {"HF_ENDPOINT": hub.address, "HF_TOKEN": "token", "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
            monkeypatch.setenv(name, value)

        with training(trainer, tmp_path, address) as process:
            with Engine(tmp_path / "model", tmp_path / "engine.log", environment, enforce_eager=True) as engine:
                at_start = answers(engine)
                chain = wait_for(0, address, hub, process)
                engine.init(chain=address, poll=0.2)
                assert answers(engine) == at_start
                found = {}
                for version in range(1, STEPS + 1):
                    engine.send("generate", prompts=PROMPTS, tokens=100)
                    (tmp_path / str(version)).touch()
                    chain = wait_for(version, address, hub, process)
                    engine.receive()
                    assert engine.update(version=version) == str(version)
                    found[version] = answers(engine)
            assert process.wait(600) == 0, (tmp_path / "trainer.log").read_text()[-6000:]
            assert len({str(each) for each in (at_start, *found.values())}) == STEPS + 1

        assert all(each.changed for each in chain.log()[1:])
        for version in found:
            chain.pull(tmp_path / f"pulled-{version}", version)
    with Engine(tmp_path / f"pulled-{STEPS}", tmp_path / "fresh.log", environment, enforce_eager=True) as fresh:
        assert answers(fresh) == found[STEPS]
        for version in range(1, STEPS) if unpacked else ():  # vLLM's own reload leaves a packed tied head as it was
            fresh.rpc(name="reload_weights", weights_path=str(tmp_path / f"pulled-{version}"))
            assert answers(fresh) == found[version]
