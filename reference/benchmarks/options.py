"""Options that the programs share, and what those share that measure each way in a process of its own."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import cores, machine, note

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def parse_size(text: str) -> int:
    """A number of bytes: 1073741824, 1GiB, 500MB."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kKMGT])(i)?)?B?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size")
    number, prefix, binary = match.groups()
    power = " KMGT".index(prefix.upper()) if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def parser_for_ways(doc: str | None, ways: Sequence[str], device: str) -> argparse.ArgumentParser:
    """The options of a program that runs itself anew for each way, with `--way`.

    Args:
        doc: the program's description.
        ways: their names.
        device: what lies on the device.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("500MB"), help="of the model")
    parser.add_argument("--density", type=float, default=0.01, help="share of the words that change at each step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help=f"where {device} lies")
    parser.add_argument("--folder", type=Path, help="where chains lie for the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    parser.add_argument("--way", choices=list(ways), help=argparse.SUPPRESS)
    return parser


def in_process(way: str, arguments: Sequence[object]) -> dict[str, Any]:
    """What this program, run anew in a process that does nothing else, measures of one way: the row that it prints."""
    note(way)
    command = [sys.executable, sys.argv[0], *map(str, arguments), "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def write_rows(path: Path | None, rows: Sequence[DataclassInstance]) -> None:
    """Write rows as JSON, if a file is named."""
    if path:
        facts = {"machine": machine(["numpy", "tensordelta", "torch"]), "rows": [asdict(row) for row in rows]}
        path.write_text(json.dumps(facts, indent=2) + "\n")
