"""The command of reference/README.md that starts SGLang, whose server generates nothing on a CPU."""

from __future__ import annotations

import argparse
import shlex

from pages import GUIDE, block
from sglang.srt.server_args import ServerArgs

from tensordelta.engines.sglang import LOADER


def test_the_flags_are_sglangs() -> None:
    text = block(GUIDE, "console", "sglang.launch_server").replace("$ ", "")
    command = next(line for line in text.splitlines() if line.startswith("python "))
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    found = parser.parse_args(shlex.split(command)[3:])
    assert (found.model_path, found.custom_weight_loader) == ("MODEL", [LOADER])
