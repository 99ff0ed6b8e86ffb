"""README.md and reference/README.md do what they say: every command and every block of Python runs in a test.

Here run those that need the package, its extras and torch; in tests/trainers, tests/with_vllm and tests/with_sglang, in
`test_pages_of_….py`, those that need trainers and engines; in .ci/run and tests/conformance/test_readme_of_the_suite.py
those that install something.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pages import GUIDE, README, ROOT, RUN, block, blocks, environment, needs, run
from vllm_server import VllmRoutes
from wrapped import same, weights

import tensordelta as td
from tensordelta.cli import main

#: The commands of console blocks, which need servers, and where they run in a test; `.ci/vllm` installs vLLM.
_SERVERS = {
    "pip install vllm": "ci",
    "pip uninstall --yes torchvision ": "ci",
    "tensordelta pull run-1 model --to 0": "with_vllm",
    "TENSORDELTA_CHAIN=run-1 vllm serve model": "with_vllm",
    "export TENSORDELTA_CHAIN=run-1 ": "with_vllm",
    "python -m vllm.entrypoints.openai.api_server --model model": "with_vllm",
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL": "with_vllm",
    "tensordelta vllm-follow ": "here",
    "python -m sglang.launch_server ": "with_sglang",
    "tensordelta sglang-follow ": "with_torch",
    "tensordelta pull CHAIN DIR --follow --exec ": "here",
}


def _shell(command: str, folder: Path) -> str:
    """What a command prints, as this environment has it, whatever stands first on the path."""
    found = environment() | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    found["OPENBLAS_NUM_THREADS"] = "1"  # of the demo, whose threads would wait for other tests
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _commands(text: str, first: str) -> list[str]:
    """The commands of a block that begin with a program's name."""
    return [line for line in text.splitlines() if line.startswith(f"{first} ")]


# -- README ------------------------------------------------------------------------------------------------------------


def test_readme_is_a_page() -> None:
    assert len(README.read_text()) <= 9000


def test_the_first_two_blocks_are_what_ci_runs_first() -> None:
    text = README.read_text()
    first, second, *_ = blocks(README, "sh")
    assert text.index(first) < text.index(second) < text.index("\n## ")
    assert first.count("\n") == second.count("\n") == 1
    assert first == "pip install '.[demo]' && tensordelta demo\n"
    assert second == "pip install '.[test]' && pytest -n 3\n"


@pytest.mark.slow
def test_what_readme_asks_of_the_demos_chain(tmp_path: Path) -> None:
    _shell("tensordelta demo --steps 2", tmp_path)
    out = run(block(README, "python", "tensordelta-demo/chain"), tmp_path)
    assert "step=2" in out and "embed.weight: 49,664 words, changed by 2 of 2 versions" in out
    for command in _commands(block(README, "sh", "tensordelta verify"), "tensordelta"):
        assert _shell(command, tmp_path)


def test_the_follower_of_readme(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "run-1", create=True)
    for step in range(3):
        chain.publish(weights(step))
    follower = block(README, "python", "td.Follower(")
    run(f"{follower}\nassert state.version == 2 and state.equals(chain.load(2))", tmp_path)


@pytest.mark.slow
def test_the_reader_of_readme(tmp_path: Path) -> None:
    out = run(block(README, "python", "check_reader("), tmp_path)
    assert out.startswith("my-engine 0.1 does not conform to tensordelta 1.0-rc.1: reader-core (")
    assert len(out.splitlines()) == 11
    case = re.search(r"`(tensordelta-conformance show \S+)`", README.read_text())
    assert case is not None
    assert _shell(case[1].replace("tensordelta-conformance", "python -m tensordelta_conformance"), tmp_path)


def test_the_suites_commands_are_those_of_its_own_page() -> None:
    """They run in tests/conformance/test_readme_of_the_suite.py."""
    assert block(README, "sh", "./conformance") == blocks(ROOT / "conformance" / "README.md", "sh")[0]


# -- the guide ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_guide_from_top_to_bottom(tmp_path: Path) -> None:
    """In one folder, each block with what those before it have left, as a reader does it."""
    ran = 0
    for language, text in re.findall(r"^```(python|sh)\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE):
        if language == "python" and needs(text) == "library":
            run(text, tmp_path)
            ran += 1
        for command in _commands(text, "tensordelta") if language == "sh" else ():
            _shell(command, tmp_path)
            ran += 1
    assert ran >= 25
    new = td.read_state(tmp_path / "step_1.safetensors")
    assert td.read_state(tmp_path / "out.safetensors").equals(new)
    assert td.read_state(tmp_path / "model").equals(new)
    assert td.read_state(tmp_path / "trusted").equals(td.read_state(tmp_path / "step_0.safetensors"))
    assert td.open(tmp_path / "run-1-copy").load(1).equals(new)
    assert td.open(tmp_path / "run-3").load().equals(new)
    assert td.open(tmp_path / "run-6").load().equals(new)
    assert (tmp_path / "layers.png").stat().st_size > 1000


def test_the_guide_lists_all_commands() -> None:
    table = GUIDE.read_text().partition("### All commands")[2].partition("\n### ")[0]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([a-z-]+)", row)
    }
    assert listed == set(main.commands)


def test_the_guide_drives_a_vllm_server(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(2):
        chain.publish(weights(step))
    (command,) = _commands(block(GUIDE, "console", "vllm-follow").replace("$ ", ""), "tensordelta")
    with VllmRoutes(weights(0)) as vllm:
        there = command.replace("hf://buckets/OWNER/NAME/run-1", chain.address).replace(
            "http://localhost:8000", vllm.url
        )
        assert vllm.url in there
        assert "version 1: served after a pause" in _shell(f"{there} --to 1", tmp_path)
        assert same(vllm.weights.state, 1)


@pytest.fixture
def posted() -> Iterator[tuple[int, list[bytes]]]:
    """A port, and what is posted there."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1], got
        server.shutdown()


def test_the_guide_keeps_a_folder(posted: tuple[int, list[bytes]], tmp_path: Path) -> None:
    port, got = posted
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": np.arange(100, dtype=np.float32)})
    command = block(GUIDE, "console", "--exec").removeprefix("$ ").rstrip()
    there = command.replace("CHAIN DIR", f"{chain.address} folder").replace("localhost:30000", f"localhost:{port}")
    _shell(f"{there} --to 0", tmp_path)
    assert got == [b'{"model_path": "%s", "weight_version": "0"}' % bytes(tmp_path / "folder")]


# -- both --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", RUN, ids=["readme", "guide"])
def test_the_lines_for_torch_run(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    (code,) = (each for each in blocks(page, "python") if needs(each) == "torch")
    proof = {
        README: "chain = td.open('run-2')\nassert chain.at(step=4) == chain.newest() > 0",
        GUIDE: "assert engine['weight'].equal(model.weight.bfloat16())",
    }
    run(f"{code}\n{proof[page]}", tmp_path)


@pytest.mark.parametrize("page", RUN, ids=["readme", "guide"])
def test_no_block_is_left_out(page: Path) -> None:
    text = page.read_text()
    opened = re.findall(r"^```(.*)\n(?:.*\n)*?```$", text, re.MULTILINE)
    assert len(opened) == text.count("```") // 2 and set(opened) <= {"python", "sh", "console"}
    for line in "".join(blocks(page, "sh")).splitlines():
        assert line.split()[0] in ("tensordelta", "pip", "python"), line
    for shown in re.findall(r"^\$ (.*)", "".join(blocks(page, "console")), re.MULTILINE):
        assert sum(shown.startswith(known) for known in _SERVERS) == 1, shown


@pytest.mark.parametrize("page", RUN, ids=["readme", "guide"])
def test_extras_and_scripts_are_there(page: Path) -> None:
    text = page.read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for names in re.findall(r"'\.\[(.*?)\]'", text) for name in names.split(",")} <= set(extras)
    for script in re.findall(r"python ((?:reference|conformance)/\S+\.py)", text):
        assert (ROOT / script).exists(), script
