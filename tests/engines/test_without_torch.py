"""Where torch is not installed, a driver of SGLang says so, before it pauses anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from wrapped import weights

import tensordelta as td

_CODE = """
import sys
sys.modules["torch"] = None
from tensordelta.cli import main
main()
"""


def test_the_command_names_what_it_needs(tmp_path: Path) -> None:
    td.open(tmp_path / "chain", create=True).publish(weights(0))
    done = subprocess.run(
        [sys.executable, "-c", _CODE, "sglang-follow", tmp_path / "chain", "--server", "http://127.0.0.1:9"],
        env=os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "Error: driving an SGLang server needs torch: pip install 'tensordelta[torch]'."
