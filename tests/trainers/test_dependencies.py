"""tensordelta installs beside the engines and trainers whose processes it runs in."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DEPENDENCIES = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]


def resolved(*requirements: str) -> dict[str, str] | None:
    """The releases that a resolver finds for requirements, or None where there are none."""
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version", "3.11", "-"]
    done = subprocess.run(
        [sys.executable, "-m", *command], input="\n".join(requirements), capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        assert "No solution found" in done.stderr, done.stderr
        return None
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", done.stdout, re.MULTILINE))


@pytest.mark.slow
def test_sglang() -> None:
    """Its tokenizers want a huggingface_hub below 2."""
    engine = "sglang==0.5.23"
    found = resolved(engine, *DEPENDENCIES)
    assert found is not None and found["huggingface-hub"] == "1.33.0" and found["tokenizers"] == "0.23.2"
    assert resolved(engine, "huggingface_hub>=2") is None
