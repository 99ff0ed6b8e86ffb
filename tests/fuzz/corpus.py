"""What fuzzing starts from: objects of the good chains, and the inputs in the tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from gallery import CHAIN, CREATED, GOOD, digest, dumps
from signed_chains import PUBLIC, SECRET, WORKED, signature_of

from generate.frames import frame

from . import own_files, streams  # noqa: F401 - registers their targets
from .targets import TARGETS

FOLDER = Path(__file__).parent / "corpus"


@cache
def _chains() -> list[dict[str, bytes]]:
    wanted = (
        "plain",
        "files",
        "combination-natural-gap4-step",
        "combination-exponent-bitmap-step",
        "shortcuts",
        "frames",
    )
    return [each.builder.objects for each in GOOD if each.name in wanted]


def _objects(prefix: str) -> list[bytes]:
    found = {data for objects in _chains() for name, data in objects.items() if name.startswith(prefix)}
    return sorted(found, key=lambda data: (len(data), data))[:12]


def _headers() -> list[bytes]:
    return [data[8 : 8 + int.from_bytes(data[:8], "little")] for data in _objects("packs/")]


def _tables() -> list[bytes]:
    tables = (json.loads(header).get("__metadata__", {}).get("tensordelta") for header in _headers())
    return [table.encode() for table in tables if table]


def _numbers(*numbers: int, stored: Sequence[bytes] = ()) -> bytes:
    """A head of a stream target: four numbers of a byte, three of two, and streams."""
    head = bytes(numbers[:4]) + b"".join(each.to_bytes(2, "little") for each in numbers[4:])
    return head + b"".join(len(each).to_bytes(2, "little") + each for each in stored)


def _streams() -> list[bytes]:
    return [
        _numbers(1, 4, 0, 0, 3, 4, 5, stored=[b"\x1b"]),
        _numbers(1, 0, 0, 0, 40, 3, 5, stored=[b"\x04", b"\x01\x05\x02"]),
        _numbers(0, 3, 1, 0, 15, 4, 5, stored=[b"\x0f\0", b"\x55"]),
        _numbers(2, 8, 0, 0, 400, 2, 99, stored=[b"\x0b", b"\xff\x05\x02", b"\x01"]),
        _numbers(2, 4, 0, 0, 1, 2, 5, stored=[b"ab", b"cd", b"ef", b"gh"]),
        _numbers(1, 3, 0, 1, 15, 4, 130, stored=[frame(b"\x0f\0"), frame(b"\xff")]) + b"\x01\x04\0abcd\x04\0efgh",
    ]


_DRAFT = {"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 5, "base": None, "layout": "0" * 64, "before": None}

_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "chain": lambda: [WORKED],
    "latest": lambda: [dumps({"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 3})],
    "pin": lambda: [dumps({"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 3, "expires": 60})],
    "manifest": lambda: _objects("manifests/000000000001"),
    "shortcut": lambda: _objects("shortcuts/"),
    "layout": lambda: _objects("layouts/"),
    "signature-object": lambda: [signature_of("chain.json", WORKED), signature_of("chain.json", b"x")],
    "draft": lambda: [dumps(_DRAFT | {"tensors": [{"name": "a", "dtype": "BF16", "shape": [3]}]}), dumps(_DRAFT)],
    "descriptor": lambda: [
        dumps(
            {"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 3, "base": None, "layout": "0" * 64, "packs": []}
            | {"features": [], "slices": [[0, 0, 3, "0" * 16]], "changes": [[0, 1, "0" * 16]]}
        )
    ],
    "index": lambda: [b'{"metadata": {"total_size": 3}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}'],
    "fingerprints": lambda: _objects("fingerprints/"),
    "safetensors-header": _headers,
    "plain-header": _headers,
    "header-size": lambda: [b"\x08" + bytes(7) + b"{}      ", bytes(8)],
    "chunk-table": _tables,
    "whole-pack": lambda: _objects("packs/"),
    "plain-pack": lambda: _objects("packs/"),
    "zstd-frame": lambda: [frame(b"abc" * 9), frame(b""), frame(b"x" * 300, size_bytes=8)],
    "object-name": lambda: [
        b"manifests/000000000001.json",
        b"shortcuts/000000000002-full.a1.json",
        b"pins/a.json",
        b"packs/" + digest(b"").encode() + b".safetensors",
    ],
    "address": lambda: [b"run-1", b"hf://buckets/o/n/p", b"s3://bucket/prefix", b"gs://b", b"az://c", b"x://y"],
    "version-option": lambda: [b"0", b"full", b"999999999999", b"-1", b"1e3"],
    "key": lambda: [PUBLIC.encode(), SECRET.encode() + b"\n", bytes(32), b"-----BEGIN PUBLIC KEY-----\nMCow\n"],
    "step-streams": _streams,
    "replace-streams": _streams,
    "exponent-streams": _streams,
    "gaps": lambda: [b"\x02\x20\0\x03\0\x01\x02\x03", b"\x00\xff\x01\x02\0\xff\x02"],
    "bitmap": lambda: [b"\x0f\0\x02\0\x02\0\x03\0"],
    "codes": lambda: [b"\x03\x01\0\x1b", b"\x03\x01\0\xff\x04\0abcd\x04\0efgh"],
    "state-json": lambda: [own_files.kept().state],
    "undo-record": lambda: [own_files.kept().undo],
    "undo-sealed": lambda: [own_files.kept().undo[:-32]],
    "shard": lambda: [own_files.kept().shard, *_objects("packs/")],
}
assert _SEEDS.keys() == TARGETS.keys() and CREATED


def seeds(name: str) -> list[bytes]:
    """The inputs that fuzzing a target starts from."""
    found = sorted((FOLDER / name).glob("*")) if (FOLDER / name).is_dir() else []
    return [*_SEEDS[name](), *(path.read_bytes() for path in found)]
