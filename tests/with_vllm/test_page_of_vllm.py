"""README.md's two commands for vLLM, and those of reference/README.md, as they stand."""

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
from pages import GUIDE, README, block
from runs import Run
from test_server import Server

pytestmark = pytest.mark.slow

#: `vllm` as vLLM for CUDA has it; that of the build for the CPU looks for a package of another name.
_VLLM = """#!/bin/sh
[ "$1" = serve ] || exit 2
model=$2
shift 2
exec {python} -m vllm.entrypoints.openai.api_server --model "$model" --port {port} --max-model-len 128 "$@"
"""


def test_the_two_commands_of_readme(tmp_path: Path) -> None:
    run = Run.of("llama", tmp_path, versions=3)
    (tmp_path / "chain").rename(tmp_path / "run-1")
    (tmp_path / "model").rename(tmp_path / "made")
    pull, serve = (line.removeprefix("$ ") for line in block(README, "console", "vllm serve").splitlines())
    assert [pull, serve] == block(GUIDE, "console", "pull run-1").replace("$ ", "").splitlines()
    programs = tmp_path / "bin"
    programs.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (programs / "vllm").write_text(_VLLM.format(python=sys.executable, port=port))
    (programs / "tensordelta").write_text(f'#!/bin/sh\nexec {sys.executable} -m tensordelta "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    variables = usual_environment() | {"VLLM_SERVER_DEV_MODE": "1"}  # it is asked what it has
    variables["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", pull], cwd=tmp_path, env=variables, check=True)
    with (tmp_path / "server.log").open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", serve], cwd=tmp_path, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        server = Server(process, port)
        server.wait(lambda: server.ask("health") is None)
        server.wait(lambda: server.version() == "2")
        sums = server.ask("weight_checker", {"action": "checksum"})["checksums"]
        assert len(sums) == len({name for name in run.weights[-1] if "_proj" not in name}) + 2 * 4
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_driven_server_has_the_same_flag() -> None:
    """That such a server takes versions is what tests/scenario tries."""
    _, serve = block(README, "console", "vllm serve").splitlines()
    driven = next(line for line in block(GUIDE, "console", "vllm-follow").splitlines() if "vllm serve" in line)
    flag = shlex.split(serve)[-2:]
    assert shlex.split(driven)[-2:] == flag and json.loads(flag[1]) == {"backend": "tensordelta"}
