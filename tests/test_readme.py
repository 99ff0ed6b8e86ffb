"""README's commands and snippet run as they stand; its first two blocks are what CI runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tensordelta as td

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _README, re.DOTALL | re.MULTILINE)


def _block(text: str) -> str:
    """The Python block that has a text."""
    (found,) = (block for block in _blocks("python") if text in block)
    return found


def _run(code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """A folder with the two checkpoints that README makes."""
    _run(_block("State.from_arrays(state).save("), tmp_path)
    return tmp_path


def test_the_first_two_blocks_are_one_line_each() -> None:
    first, second, *_ = _blocks("sh")
    assert _README.index(first) < _README.index(second) < _README.index("## ")
    assert first.count("\n") == second.count("\n") == 1
    assert "tensordelta demo" in first
    assert "pytest" in second


def test_the_snippet_runs(steps: Path) -> None:
    _run(_block("chain.wait("), steps)
    assert td.read_state(steps / "out.safetensors").equals(td.read_state(steps / "step_1.safetensors"))


def test_the_questions_run(steps: Path) -> None:
    _run(_block("chain.wait("), steps)
    _run(_block("chain.bisect("), steps)


def test_the_loops_run(steps: Path) -> None:
    loops = _block("td.Follower(")
    _run(f"{loops}\nassert state.equals(td.read_state('step_1.safetensors'))", steps)


def test_the_commands_run(steps: Path) -> None:
    commands = [line for block in _blocks("sh")[2:] for line in block.splitlines() if line.startswith("tensordelta ")]
    assert len(commands) >= 8
    # The command as this environment has it, whatever stands first on the path.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=steps, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
    assert td.read_state(steps / "model").equals(td.read_state(steps / "step_1.safetensors"))


def test_files_that_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", _README):
        assert (_ROOT / target).exists(), target


def test_the_lines_for_torch_run(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    _run(f"{_block('import torch')}\nassert engine['weight'].equal(model.weight.bfloat16())", tmp_path)
