"""What README.md and reference/README.md say to those who serve with vLLM."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from engine import usual_environment
from pages import GUIDE, README, ROOT, blocks
from runs import Run
from test_server import Server

pytestmark = pytest.mark.slow

SERVER = "python -m vllm.entrypoints.openai.api_server --model "


def commands(page: Path, text: str) -> list[str]:
    """The commands of the first console block that has a text."""
    found = next(each for each in blocks(page, "console") if text in each)
    return [line.removeprefix("$ ") for line in found.replace("\\\n", " ").splitlines()]


def test_the_commands_for_a_cpu(tmp_path: Path) -> None:
    """As they stand, but for a port: `vllm serve` is nothing that the build for the CPU has."""
    Run.of("llama", tmp_path, versions=3)
    (tmp_path / "chain").rename(tmp_path / "run-1")
    (tmp_path / "model").rename(tmp_path / "made")
    _, pull, _ = commands(README, "vllm serve model")
    *_, export, serve = commands(README, SERVER)
    assert serve.startswith(SERVER)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, program in {"python": "", "tensordelta": "-m tensordelta"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
        (programs / name).chmod(0o755)
    variables = usual_environment() | {"VLLM_SERVER_DEV_MODE": "1"}  # it is asked what it has
    variables["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    del variables["VLLM_CPU_KVCACHE_SPACE"]
    subprocess.run(["bash", "-c", pull], cwd=tmp_path, env=variables, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (tmp_path / "server.log").open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"{export}; exec {serve} --port {port}"],
            cwd=tmp_path,
            env=variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        server = Server(process, port)
        server.wait(lambda: server.ask("health") is None)
        server.wait(lambda: server.version() == "2")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    log = (tmp_path / "server.log").read_text()
    assert " version 2: " in log and " words written" in log


@pytest.mark.parametrize("page", [README, GUIDE], ids=["readme", "guide"])
def test_others_have_the_same_flag(page: Path) -> None:
    """What a GPU has, and what the guide has, which are tried in no other way."""
    assert commands(page, SERVER) == commands(README, SERVER)
    install, pull, serve = commands(page, "vllm serve model")
    flag = shlex.split(commands(README, SERVER)[-1])[-2:]
    assert serve.startswith("TENSORDELTA_CHAIN=run-1 vllm serve model ") and shlex.split(serve)[-2:] == flag
    assert json.loads(flag[1]) == {"backend": "tensordelta"}
    assert [install, pull] == commands(README, "vllm serve model")[:2]


def test_a_driven_server_has_the_same_flag() -> None:
    """That such a server takes versions is what tests/scenario tries."""
    driven = next(each for each in commands(GUIDE, "vllm-follow") if " vllm serve " in each)
    assert shlex.split(driven)[-2:] == shlex.split(commands(README, SERVER)[-1])[-2:]


def test_the_environment_is_that_of_ci() -> None:
    install, uninstall, *_ = commands(README, SERVER)
    needed = (Path(__file__).parent / "requirements.txt").read_text().split()
    assert shlex.split(install)[2] in needed
    gone = shlex.split(uninstall)[3:]
    assert f"--yes {' '.join(gone)}\n" in (ROOT / ".ci" / "vllm").read_text()
