"""The whole way with real parts: TRL's AsyncGRPOTrainer, the Hub's test server, and a server of vLLM.

`.ci/scenario` runs it in the trainer's environment; TENSORDELTA_ENGINE_PYTHON is the Python of the engine's. Elsewhere
it is skipped, but where TENSORDELTA_ENGINES is `required`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from api_server import ApiServer
from hub_server import Hub
from small_model import make_model

import tensordelta as td

TRAINER = Path(__file__).with_name("async_trainer.py")
PROMPTS = [[40, 50, 60], list(range(2, 42)), [257, 2, 130, 7]]


@pytest.fixture
def engine() -> str:
    """The engine's Python."""
    missing = [each for each in ("aiohttp", "click", "requests", "rich", "torch", "trl") if find_spec(each) is None]
    if os.environ.get("TENSORDELTA_ENGINE_PYTHON") is None:
        missing.append("an engine (TENSORDELTA_ENGINE_PYTHON)")
    if missing:
        message = f"{', '.join(missing)} not there: run .ci/scenario"
        if os.environ.get("TENSORDELTA_ENGINES") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return os.environ["TENSORDELTA_ENGINE_PYTHON"]


def output_of(log: Path, *command: object) -> str:
    """What a command of this Python prints, which has to succeed; its errors go to a file."""
    with log.open("wb") as errors:
        done = subprocess.run([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=errors, timeout=1800)
    assert done.returncode == 0, log.read_text()[-6000:]
    return done.stdout.decode()


def alter(state: td.State) -> dict[str, np.ndarray]:
    """Weights of which every 50th word differs."""
    altered = {name: np.array(state[name]) for name in state}
    for each in altered.values():
        each.reshape(-1).view(np.uint16)[::50] ^= 1
    return altered


@pytest.mark.slow
def test_a_trainer_and_a_command_bring_a_server_forward(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions 0 to 3 by the trainer, version 4 by `vllm-follow`; then it is as a server that was started on it."""
    from safetensors.torch import load_file

    model = tmp_path / "model"
    make_model(model)
    with Hub() as hub:
        hub.processes = True
        hub.buckets["me/bucket"] = {}
        address = "hf://buckets/me/bucket/run"
        for name, value in {"HF_ENDPOINT": hub.address, "HF_TOKEN": "token", "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
            monkeypatch.setenv(name, value)

        with ApiServer(engine, model, model, tmp_path / "server.log") as server:
            loaded, answers_at_first = server.checksums(), [server.answer(each) for each in PROMPTS]
            output_of(tmp_path / "trainer.log", TRAINER, address, model, server.url, 3, tmp_path)
            served = json.loads((tmp_path / "served.json").read_text())
            assert served == [[version, str(version)] for version in range(4)]

            chain = td.open(address, store_options={"endpoint": hub.address, "token": "token"})
            assert chain.versions() == [0, 1, 2, 3] and all(each.changed for each in chain.log()[1:])
            assert chain.load(3).equals(td.State.from_arrays(load_file(tmp_path / "trained.safetensors")))
            by_trainer = server.checksums()
            assert by_trainer != loaded

            assert chain.publish(alter(chain.load(3))).version == 4
            lines = output_of(
                tmp_path / "follow.log",
                *("-m", "tensordelta", "vllm-follow", address, "--server", server.url, "--to", 4, "--json"),
            )
            assert json.loads(lines.splitlines()[-1])["version"] == 4
            assert server.version() == "4"
            checksums, answers = server.checksums(), [server.answer(each) for each in PROMPTS]
            assert answers != answers_at_first

        chain.pull(tmp_path / "pulled", 4)
        with ApiServer(engine, tmp_path / "pulled", model, tmp_path / "fresh.log") as fresh:
            assert fresh.checksums() == checksums != by_trainer
            assert [fresh.answer(each) for each in PROMPTS] == answers
