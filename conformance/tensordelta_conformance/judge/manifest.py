"""Manifests and shortcuts (SPEC.md sections 4.7 to 4.10)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .faults import need
from .fields import (
    DIGEST,
    SUM,
    TIME,
    UUID,
    array,
    document,
    integer,
    mapping,
    path,
    required,
    string,
    string_map,
    version_number,
)

LARGEST = 67108864
FEATURE = "[a-z0-9][a-z0-9-]{0,63}"
KNOWN_FEATURES = ("exponent-order",)
MANIFEST_NAME = re.compile(r"manifests/([0-9]{12})\.json")
SHORTCUT_NAME = re.compile(r"shortcuts/([0-9]{12})-([0-9]{12}|full)(\.[a-z0-9]{1,16})?\.json")


@dataclass(frozen=True)
class Pack:
    """A pack entry."""

    sha256: str
    size: int
    path: str | None
    content: str
    tensors: tuple[int, int]
    changed: int


@dataclass(frozen=True)
class File:
    """A file entry."""

    name: str
    size: int
    sha256: str
    path: str


@dataclass(frozen=True)
class Base:
    """What a delta starts from."""

    version: int
    layout: str
    fingerprint: str


@dataclass(frozen=True)
class Manifest:
    """A manifest or shortcut."""

    chain: str
    version: int
    layout: str
    fingerprint: str
    base: Base | None
    packs: list[Pack]
    features: list[str]
    annotations: dict[str, str]
    tensor_fingerprints: str | None
    files: list[File]


def manifest_name(version: int) -> str:
    """The name of a version's manifest."""
    return f"manifests/{version:012d}.json"


def parse_manifest(data: bytes, name: str | None = None) -> Manifest:
    """A manifest or shortcut; `name` is its object's name, against which it is checked."""
    value = document(data, LARGEST)
    chain, version, layout, total, base, packs, features, created = required(
        value, "chain", "version", "layout", "fingerprint", "base", "packs", "features", "created"
    )
    string(chain, UUID)
    number = version_number(version)
    string(layout, DIGEST)
    string(total, SUM)
    string(created, TIME)
    parsed_base = _base(base)
    need(parsed_base is None or parsed_base.version < number, "TD-MAN-003", "the base is not older than the version")
    if name is not None:
        check_name(name, number, None if parsed_base is None else parsed_base.version)
    need(len(array(packs)) <= 2**16, "TD-LIM-004", "more than 2^16 packs", "limit")
    names: list[str] = []
    parsed_packs = [_pack(mapping(pack), names) for pack in packs]
    for feature in array(features):
        string(feature, FEATURE)
    noted = string_map(value["annotations"]) if "annotations" in value else {}
    sums = string(value["tensor_fingerprints"], DIGEST) if "tensor_fingerprints" in value else None
    files = [_file(mapping(file)) for file in array(value.get("files", []))]
    names += [file.name for file in files]
    need(len(set(names)) == len(names), "TD-MAN-020", "two files of one name")
    folders = {name[:at] for name in names for at in range(len(name)) if name[at] == "/"}
    need(folders.isdisjoint(names), "TD-MAN-021", "a file's name is a folder of another's")
    for feature in features:
        need(feature in KNOWN_FEATURES, "TD-MAN-004", f"the feature {feature!r}", "unsupported")
    return Manifest(chain, number, layout, total, parsed_base, parsed_packs, features, noted, sums, files)


def check_name(name: str, version: int, base: int | None) -> None:
    """An object's version and base are those of its name."""
    own = MANIFEST_NAME.fullmatch(name)
    if own:
        need(int(own[1]) == version, "TD-OBJ-004", "the version is not that of the object's name")
        return
    shortcut = SHORTCUT_NAME.fullmatch(name)
    assert shortcut, name
    need(int(shortcut[1]) == version, "TD-OBJ-005", "the version is not that of the object's name")
    named = None if shortcut[2] == "full" else int(shortcut[2])
    need(named == base, "TD-OBJ-005", "the base is not that of the object's name")


def _base(value: Any) -> Base | None:
    if value is None:
        return None
    version, layout, total = required(mapping(value), "version", "layout", "fingerprint")
    return Base(version_number(version), string(layout, DIGEST), string(total, SUM))


def _pack(value: dict[str, Any], names: list[str]) -> Pack:
    sha256, size, where, content, tensors, changed = required(
        value, "sha256", "size", "path", "content", "tensors", "changed"
    )
    string(sha256, DIGEST)
    need(integer(size) <= 2**40, "TD-LIM-004", "a pack of more than 2^40 bytes", "limit")
    sources = [string(each) for each in array(value.get("sources", []))]
    if where is None:
        need(sources, "TD-MAN-009", "neither path nor sources")
    else:
        path(where, "packs/", "TD-PTH-003")
    need(string(content) in ("chunks", "tensors"), "TD-MAN-012", f"the content {content!r}", "unsupported")
    first, stop = (integer(each) for each in array(tensors, 2))
    need(first < stop, "TD-MAN-010", "`tensors` is empty")
    if "name" in value:
        string(value["name"])
        if content == "tensors":
            names.append(path(value["name"]))
    return Pack(sha256, integer(size), where, content, (first, stop), integer(changed))


def _file(value: dict[str, Any]) -> File:
    name, size, sha256, where = required(value, "name", "size", "sha256", "path")
    path(name)
    need(integer(size) <= 2**40, "TD-LIM-004", "a file of more than 2^40 bytes", "limit")
    return File(name, integer(size), string(sha256, DIGEST), path(where, "files/", "TD-PTH-004"))
