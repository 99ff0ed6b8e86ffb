"""A small suite over toy chains (see toy_adapter), made in a temporary folder."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensordelta_conformance import Check, Report

ADAPTER = Path(__file__).with_name("toy_adapter.py")


def state_file(**words: Sequence[int]) -> bytes:
    """A safetensors file of U16 tensors."""
    header: dict[str, Any] = {}
    buffer = b""
    for name, values in words.items():
        data = struct.pack(f"<{len(values)}H", *values)
        offsets = [len(buffer), len(buffer) + len(data)]
        header[name] = {"dtype": "U16", "shape": [len(values)], "data_offsets": offsets}
        buffer += data
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + buffer


ZERO = state_file(a=[1, 2, 3], b=[4])
ONE = state_file(a=[1, 2, 0x8003], b=[4])
TWO = state_file(a=[1, 2, 5])


def command(fault: str = "none") -> list[str]:
    """The command of the toy adapter."""
    return [sys.executable, str(ADAPTER), fault]


def read_step(to: int | None, expect: Mapping[str, Any], held: str | None = None, **more: Any) -> dict[str, Any]:
    """A step that reads, from a state of the case's folder or from nothing."""
    given = None if held is None else {"state": held, "version": 0}
    return {"op": "read", "input": {"chain": "chain", "held": given, "to": to, **more}, "expect": dict(expect)}


def add_case(
    root: Path,
    slug: str,
    steps: Sequence[Mapping[str, Any]],
    files: Mapping[str, bytes] | None = None,
    *,
    valid: bool = True,
    **members: Any,
) -> Path:
    """Write a case; gives its folder. The chain has versions 0 and 1, and 1.error where it is invalid."""
    folder = root / "toys" / ("valid" if valid else "invalid") / slug
    content = {
        "chain/chain.json": b"{}",
        "chain/0.safetensors": ZERO,
        "chain/1.safetensors": ONE,
        "0.safetensors": ZERO,
        "1.safetensors": ONE,
        "2.safetensors": TWO,
        **({} if valid else {"chain/1.error": b"malformed"}),
        **(files or {}),
    }
    document = {
        "id": slug,
        "title": f"The case {slug.replace('-', ' ')}",
        "requirements": ["TD-POS-001"],
        "role": "reader",
        "level": "reader-core",
        "kind": "read",
        "steps": list(steps),
        "verify": None,
        "twin": None,
        "needs": [],
        "flags": [],
        "since": "1.0-rc.1",
    }
    content["case.json"] = json.dumps(document | members).encode()
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def add_twins(root: Path) -> None:
    """A valid delta, its invalid twin, and what a verifier has to find in both."""
    add_case(
        root,
        "one-word",
        [read_step(1, {"version": 1, "state": "1.safetensors"}, "0.safetensors")],
        verify={"faults": []},
    )
    add_case(
        root,
        "one-word-too-many",
        [read_step(1, {"error": ["malformed"], "state": "0.safetensors"}, "0.safetensors")],
        valid=False,
        requirements=["TD-POS-003"],
        twin="one-word",
        verify={"faults": [{"error": ["malformed"], "object": ["1.error"]}]},
    )


def scenario(root: Path) -> None:
    """The chain grows, an object goes, a link appears, the reader restarts and goes on."""
    onward = {"op": "read", "input": {"chain": "chain", "to": None}}
    add_case(
        root,
        "following",
        [
            read_step(None, {"version": 1, "state": "1.safetensors"}),
            {"put": "stage-1"},
            {**onward, "expect": {"version": 2, "state": "2.safetensors"}},
            {"remove": ["2.safetensors"]},
            {**onward, "expect": {"any": [{"version": 1, "state": "1.safetensors"}, {"error": ["missing"]}]}},
            {"restart": True},
            read_step(0, {"version": 0, "state": "0.safetensors"}),
            {"link": {"3.safetensors": "0.safetensors"}},
            {"op": "read", "input": {"chain": "chain", "to": 3}, "expect": {"version": 3, "state": "0.safetensors"}},
            {"put": "stage-2"},
            {"op": "read", "input": {"chain": "chain", "to": 4}, "expect": {"error": ["limit"]}},
        ],
        {"stage-1/2.safetensors": TWO, "stage-2/4.error": b"limit"},
        kind="scenario",
    )


def only_check(report: Report, case: str, part: str = "steps") -> Check:
    """The one check of a part of a case."""
    (found,) = [check for check in report.by_id(case) if check.part == part]
    return found
