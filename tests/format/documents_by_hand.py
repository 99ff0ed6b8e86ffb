"""A valid document of each kind, how to spoil one, and the two parsers that must agree about it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import slow_reader
from strategies import CHAIN

from tensordelta.errors import TensorDeltaError
from tensordelta.format import manifest
from tensordelta.format.documents import parse_chain, parse_latest
from tensordelta.format.layout import Layout

DIGEST = "1" * 64
SUM = "00f1e2d3c4b5a697"
TIME = "2026-11-20T12:00:40Z"

CHAIN_DOCUMENT = {"tensordelta": "1.0-rc.1", "chain": CHAIN, "created": TIME}
LATEST = {"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 42}
LAYOUT = {"tensordelta": "1.0-rc.1", "tensors": [{"name": "a", "dtype": "BF16", "shape": [4, 3]}]}
PACK = {
    "sha256": "2" * 64,
    "size": 1234,
    "path": f"packs/{'2' * 64}.safetensors",
    "content": "chunks",
    "tensors": [[0, 57]],
    "changed": 300,
}
FILE = {"name": "config.json", "size": 659, "sha256": "4" * 64, "path": f"files/{'4' * 64}"}
MANIFEST = {
    "tensordelta": "1.0-rc.1",
    "chain": CHAIN,
    "version": 42,
    "layout": DIGEST,
    "fingerprint": SUM,
    "base": {"version": 41, "layout": DIGEST, "fingerprint": SUM},
    "packs": [PACK],
    "features": ["exponent-order"],
    "created": TIME,
}


def parse_manifest(data: bytes) -> manifest.Manifest:
    """A manifest of version 42, its features included."""
    parsed = manifest.parse_manifest(data, version=42)
    manifest.check_features(parsed, object="manifest")
    return parsed


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


KINDS: dict[str, tuple[dict[str, Any], Callable[[bytes], object], Callable[[bytes], object]]] = {
    "chain": (CHAIN_DOCUMENT, parse_chain, slow_reader.parse_chain),
    "latest": (LATEST, parse_latest, slow_reader.parse_latest),
    "layout": (
        LAYOUT,
        lambda data: Layout.parse(data, sha256=digest_of(data)),
        lambda data: slow_reader.parse_layout(data, digest_of(data)),
    ),
    "manifest": (
        MANIFEST,
        parse_manifest,
        lambda data: slow_reader.parse_manifest(data, "manifests/000000000042.json"),
    ),
}


class Raw(str):
    """JSON text that stands for itself, such as `1e3`."""


def dump(value: Any) -> bytes:
    """JSON of a document, with `Raw` parts as they stand."""
    raws: list[str] = []

    def mark(each: Any) -> Any:
        if isinstance(each, Raw):
            raws.append(each)
            return f"@raw{len(raws) - 1}@"
        if isinstance(each, dict):
            return {key: mark(part) for key, part in each.items()}
        return [mark(part) for part in each] if isinstance(each, list) else each

    text = json.dumps(mark(value), ensure_ascii=False)
    for index, raw in enumerate(raws):
        text = text.replace(f'"@raw{index}@"', raw)
    return text.encode()


ABSENT = object()


def changed(document: dict[str, Any], where: str, what: Any) -> dict[str, Any]:
    """A copy of a document with one member changed; `where` is a path such as `packs.0.size`."""
    result = copy.deepcopy(document)
    *way, last = [int(part) if part.isdigit() else part for part in where.split(".")]
    at: Any = result
    for part in way:
        at = at[part]
    if what is ABSENT:
        del at[last]
    else:
        at[last] = what
    return result


def refuse(kind: str, data: bytes, error: str, rule: str) -> None:
    _, parse, slow = KINDS[kind]
    with pytest.raises(TensorDeltaError) as caught:
        parse(data)
    assert (caught.value.name, caught.value.rule) == (error, rule), caught.value.reason
    assert caught.value.object
    with pytest.raises(slow_reader.Fault) as other:
        slow(data)
    assert other.value.name == error


def accept(kind: str, data: bytes) -> Any:
    _, parse, slow = KINDS[kind]
    slow(data)
    return parse(data)
