"""Layouts, manifests, shortcuts, and the names of objects (SPEC.md sections 4.1, 4.4 and 4.6 to 4.10)."""

from __future__ import annotations

from typing import Any

import pytest
import slow_reader
from documents_by_hand import (
    ABSENT,
    DIGEST,
    FILE,
    MANIFEST,
    PACK,
    Raw,
    accept,
    changed,
    digest_of,
    dump,
    parse_manifest,
    refuse,
)

from tensordelta.errors import TensorDeltaError
from tensordelta.format import manifest
from tensordelta.format.layout import Layout
from tensordelta.format.names import manifest_name, parse_manifest_name, parse_shortcut_name, shortcut_name

# -- layouts (section 4.6) -----------------------------------------------------------------------------------------


def layout_of(*tensors: tuple[str, str, list[Any]]) -> bytes:
    return dump(
        {"tensordelta": "1.0-rc.1", "tensors": [{"name": n, "dtype": d, "shape": s} for n, d, s in tensors]},
    )


@pytest.mark.parametrize(
    ("tensors", "error", "rule"),
    [
        ([("b", "U8", []), ("a", "U8", [])], "malformed", "TD-LAY-002"),
        ([("a", "U8", []), ("a", "U8", [])], "malformed", "TD-LAY-002"),
        ([("ab", "U8", []), ("a", "U8", [])], "malformed", "TD-LAY-002"),
        # U+FFFF sorts before U+10000 as UTF-8, and after it as UTF-16.
        ([("\U00010000", "U8", []), ("\uffff", "U8", [])], "malformed", "TD-LAY-002"),
        ([("", "U8", [])], "malformed", "TD-LAY-003"),
        ([("a" * 1025, "U8", [])], "malformed", "TD-LAY-003"),
        ([("é" * 513, "U8", [])], "malformed", "TD-LAY-003"),
        ([("__metadata__", "U8", [])], "malformed", "TD-LAY-004"),
        ([("a", "F128", [])], "unsupported", "TD-WRD-004"),
        ([("a", "bf16", [])], "unsupported", "TD-WRD-004"),
        ([("a", "", [])], "unsupported", "TD-WRD-004"),
        ([("a", "F4", [])], "malformed", "TD-WRD-005"),
        ([("a", "F4", [3])], "malformed", "TD-WRD-005"),
        ([("a", "F6_E2M3", [2])], "malformed", "TD-WRD-005"),
        ([("a", "F6_E3M2", [3, 3])], "malformed", "TD-WRD-005"),
        ([("a", "U8", [1] * 17)], "limit", "TD-LIM-004"),
        ([("a", "U8", [2**48 + 1])], "limit", "TD-LAY-007"),
        ([("a", "U8", [0, 2**48 + 1])], "limit", "TD-LAY-007"),
        ([("a", "U8", [2**48, 2])], "limit", "TD-LAY-007"),
        ([("a", "U8", [2**48, 0, 2])], "limit", "TD-LAY-007"),
        ([("a", "U8", [2**25, 2**24])], "limit", "TD-LAY-007"),
    ],
)
def test_layout_faults(tensors: list[tuple[str, str, list[int]]], error: str, rule: str) -> None:
    refuse("layout", layout_of(*tensors), error, rule)


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        [("a", "U8", []), ("a ", "U8", [0]), ("ab", "U8", [1]), ("b", "C64", [2**48])],
        [("\uffff", "U8", []), ("\U00010000", "U8", [])],
        [("e\u0301", "U8", []), ("é", "U8", [])],
        [("a" * 1024, "U8", [])],
        [("\x00", "F4", [2]), ("é" * 512, "F6_E2M3", [4]), ("😀", "F6_E3M2", [0])],
        [("__metadata", "U8", [0, 2**48]), ("__metadata__2", "U8", [1] * 16)],
    ],
)
def test_layouts_that_are_accepted(tensors: list[tuple[str, str, list[int]]]) -> None:
    parsed = accept("layout", layout_of(*tensors))
    assert [(each.name, each.dtype, list(each.shape)) for each in parsed.tensors] == tensors
    assert Layout.parse(parsed.encode(), sha256=digest_of(parsed.encode())) == parsed


def test_layout_digest() -> None:
    with pytest.raises(TensorDeltaError) as caught:
        Layout.parse(layout_of(), sha256="0" * 64)
    assert (caught.value.name, caught.value.rule) == ("integrity", "TD-LAY-008")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2**20, 2**20 + 1])
def test_most_tensors(count: int) -> None:
    entries = ",".join(f'{{"name":"{index:07}","dtype":"U8","shape":[]}}' for index in range(count))
    data = f'{{"tensordelta":"1.0-rc.1","tensors":[{entries}]}}'.encode()
    if count == 2**20:
        assert len(Layout.parse(data, sha256=digest_of(data))) == count
        return
    with pytest.raises(TensorDeltaError) as caught:
        Layout.parse(data, sha256=digest_of(data))
    assert (caught.value.name, caught.value.rule) == ("limit", "TD-LIM-004")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2**16, 2**16 + 1])
def test_most_packs(count: int) -> None:
    entry = dump(PACK).decode()
    data = dump({**MANIFEST, "packs": [Raw(",".join([entry] * count))]})
    if count == 2**16:
        assert len(parse_manifest(data).packs) == count
        return
    with pytest.raises(TensorDeltaError) as caught:
        parse_manifest(data)
    assert (caught.value.name, caught.value.rule) == ("limit", "TD-LIM-004")


# -- manifests (sections 4.4, 4.7 to 4.10) -------------------------------------------------------------------------


def with_pack(**fields: Any) -> dict[str, Any]:
    return {**MANIFEST, "packs": [{**PACK, **fields}]}


def plain(name: Any, sha256: str = "2" * 64) -> dict[str, Any]:
    return {**PACK, "content": "tensors", "name": name, "sha256": sha256}


def file(name: str) -> dict[str, Any]:
    return {**FILE, "name": name}


BAD_PATHS = [
    *("", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".a", "a/.b", "a b", "a\\b", "a\n", "a\0", "é"),
    *("a?b", "a%2e", "C:a", "~a", "a/b/", "http://a", "a*"),
]


@pytest.mark.parametrize(
    ("document", "error", "rule"),
    [
        (changed(MANIFEST, "base", ABSENT), "malformed", "TD-MAN-002"),
        ({**MANIFEST, "base": {**MANIFEST["base"], "version": 42}}, "malformed", "TD-MAN-003"),
        ({**MANIFEST, "base": {**MANIFEST["base"], "version": 43}}, "malformed", "TD-MAN-003"),
        ({**MANIFEST, "base": []}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "version": 43}, "malformed", "TD-OBJ-004"),
        ({**MANIFEST, "packs": None}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "packs": {}}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "packs": [None]}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "features": None}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "features": "exponent-order"}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "features": [""]}, "malformed", "TD-JSN-015"),
        ({**MANIFEST, "features": ["-a"]}, "malformed", "TD-JSN-015"),
        ({**MANIFEST, "features": ["Exponent-order"]}, "malformed", "TD-JSN-015"),
        ({**MANIFEST, "features": ["a" * 65]}, "malformed", "TD-JSN-015"),
        ({**MANIFEST, "features": ["exponent_order"]}, "malformed", "TD-JSN-015"),
        ({**MANIFEST, "features": ["exponent-order\n"]}, "malformed", "TD-JSN-015"),
        ({**MANIFEST, "features": ["strided-slices"]}, "unsupported", "TD-MAN-004"),
        ({**MANIFEST, "features": ["exponent-order", "0"]}, "unsupported", "TD-MAN-004"),
        ({**MANIFEST, "tensor_fingerprints": None}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "tensor_fingerprints": "1" * 63}, "malformed", "TD-JSN-015"),
        ({**MANIFEST, "files": None}, "malformed", "TD-JSN-012"),
        (with_pack(size=2**40 + 1), "limit", "TD-LIM-004"),
        (with_pack(path=None), "malformed", "TD-MAN-009"),
        (with_pack(path=None, sources=[]), "malformed", "TD-MAN-009"),
        (with_pack(path="pack/a"), "malformed", "TD-PTH-003"),
        (with_pack(path="files/a"), "malformed", "TD-PTH-003"),
        (with_pack(path="packs"), "malformed", "TD-PTH-003"),
        (with_pack(path="packsx/a"), "malformed", "TD-PTH-003"),
        (with_pack(path="packs/" + "a" * 195), "malformed", "TD-PTH-002"),
        *((with_pack(path=f"packs/{each}"), "malformed", "TD-PTH-001") for each in BAD_PATHS),
        (with_pack(content="chunk"), "unsupported", "TD-MAN-012"),
        (with_pack(content=""), "unsupported", "TD-MAN-012"),
        (with_pack(tensors=[[0, 0]]), "malformed", "TD-MAN-001"),
        (with_pack(tensors=[[2, 1]]), "malformed", "TD-MAN-001"),
        (with_pack(tensors=[[0, 1], [1, 2]]), "malformed", "TD-MAN-001"),
        (with_pack(tensors=[[2, 3], [0, 1]]), "malformed", "TD-MAN-001"),
        (with_pack(tensors=[]), "malformed", "TD-MAN-001"),
        (with_pack(tensors=[0, 57]), "malformed", "TD-JSN-012"),
        (with_pack(tensors=[[0]]), "malformed", "TD-JSN-012"),
        (with_pack(tensors=[[0, 1, 2]]), "malformed", "TD-JSN-012"),
        (with_pack(tensors=[[2 * each, 2 * each + 1] for each in range(2**16 + 1)]), "limit", "TD-LIM-004"),
        (with_pack(tensors={}), "malformed", "TD-JSN-012"),
        (with_pack(sources=None), "malformed", "TD-JSN-012"),
        (with_pack(sources="hf://a"), "malformed", "TD-JSN-012"),
        (with_pack(sources=[1]), "malformed", "TD-JSN-012"),
        (with_pack(name=None), "malformed", "TD-JSN-012"),
        (with_pack(name=1), "malformed", "TD-JSN-012"),
        *(({**MANIFEST, "packs": [plain(each)]}, "malformed", "TD-PTH-001") for each in BAD_PATHS),
        ({**MANIFEST, "packs": [plain("a" * 201)]}, "malformed", "TD-PTH-002"),
        ({**MANIFEST, "packs": [plain("a"), plain("a", "3" * 64)]}, "malformed", "TD-MAN-020"),
        ({**MANIFEST, "packs": [plain("a"), plain("a/b", "3" * 64)]}, "malformed", "TD-MAN-021"),
        ({**MANIFEST, "packs": [plain("a/b/c")], "files": [file("a")]}, "malformed", "TD-MAN-021"),
        ({**MANIFEST, "packs": [plain("a")], "files": [file("a")]}, "malformed", "TD-MAN-020"),
        ({**MANIFEST, "files": [file("a"), file("a")]}, "malformed", "TD-MAN-020"),
        ({**MANIFEST, "files": [file("a/b"), file("a/b/c/d")]}, "malformed", "TD-MAN-021"),
        *(({**MANIFEST, "files": [file(each)]}, "malformed", "TD-PTH-001") for each in BAD_PATHS),
        ({**MANIFEST, "files": [{**FILE, "path": "packs/a"}]}, "malformed", "TD-PTH-004"),
        ({**MANIFEST, "files": [{**FILE, "path": "files/../a"}]}, "malformed", "TD-PTH-001"),
        ({**MANIFEST, "files": [{**FILE, "path": "files/" + "a" * 195}]}, "malformed", "TD-PTH-002"),
        ({**MANIFEST, "files": [{**FILE, "path": None}]}, "malformed", "TD-JSN-012"),
        ({**MANIFEST, "files": [{**FILE, "size": 2**40 + 1}]}, "limit", "TD-LIM-004"),
    ],
)
def test_manifest_faults(document: dict[str, Any], error: str, rule: str) -> None:
    refuse("manifest", dump(document), error, rule)


@pytest.mark.parametrize(
    "document",
    [
        {**MANIFEST, "base": None},
        {**MANIFEST, "base": {**MANIFEST["base"], "version": 0}},
        {**MANIFEST, "packs": []},
        {**MANIFEST, "features": []},
        {**MANIFEST, "features": ["exponent-order", "exponent-order"]},
        {**MANIFEST, "tensor_fingerprints": DIGEST},
        {**MANIFEST, "files": []},
        with_pack(path="packs/a-b_c.D/0.1", sources=[]),
        with_pack(path="packs/" + "a" * 194),
        with_pack(path=None, sources=["anything, with no scheme"]),
        with_pack(size=2**40),
        with_pack(size=0, changed=0),
        with_pack(name="../any string at all"),
        with_pack(name=""),
        {**MANIFEST, "packs": [{**PACK, "content": "tensors"}]},
        {**MANIFEST, "packs": [plain("a" * 200)]},
        {**MANIFEST, "packs": [plain("a"), plain("A", "3" * 64), plain("ab", "5" * 64)], "files": [file("a.b")]},
        {**MANIFEST, "packs": [plain("a/b")], "files": [file("a/c"), file("a-b")]},
        {**MANIFEST, "packs": [{**PACK, "name": "a"}, plain("a", "3" * 64)]},  # the name of a chunk pack means nothing
    ],
)
def test_manifests_that_are_accepted(document: dict[str, Any]) -> None:
    parsed = accept("manifest", dump(document))
    again = parsed.encode()
    assert parse_manifest(again) == parsed  # what is written is what was read
    slow_reader.parse_manifest(again, "manifests/000000000042.json")


def test_longest_version_name() -> None:
    version = 10**12 - 1
    data = dump({**MANIFEST, "version": version})
    assert manifest.parse_manifest(data, version=version).version == version
    assert manifest_name(version) == "manifests/999999999999.json"


@pytest.mark.parametrize(
    ("version", "base", "rule"),
    [(42, 40, "TD-OBJ-005"), (43, 41, "TD-OBJ-005"), (42, None, "TD-OBJ-005"), (42, 41, None)],
)
def test_a_shortcut_and_its_name(version: int, base: int | None, rule: str | None) -> None:
    data = dump(MANIFEST)
    name = shortcut_name(version, base, "exp")
    if rule is None:
        assert manifest.parse_manifest(data, version=version, base=base, tag="exp") == parse_manifest(data)
        slow_reader.parse_manifest(data, name)
        return
    with pytest.raises(TensorDeltaError) as caught:
        manifest.parse_manifest(data, version=version, base=base, tag="exp")
    assert (caught.value.name, caught.value.rule, caught.value.object) == ("malformed", rule, name)
    with pytest.raises(slow_reader.Fault):
        slow_reader.parse_manifest(data, name)


# -- names of objects (section 4.1) --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("manifests/000000000000.json", 0),
        ("manifests/999999999999.json", 10**12 - 1),
        ("manifests/00000000000.json", None),
        ("manifests/0000000000000.json", None),
        ("manifests/000000000000.json.sig", None),
        ("manifests/000000000000.json\n", None),
        ("manifests/.000000000000.json.abcd", None),
        ("manifests/00000000000a.json", None),
        ("manifests/٠00000000000.json", None),
        ("manifests/000000000000xjson", None),
        ("x/manifests/000000000000.json", None),
        ("manifests/0/00000000000.json", None),
        ("shortcuts/000000000000.json", None),
    ],
)
def test_manifest_names(name: str, version: int | None) -> None:
    assert parse_manifest_name(name) == version
    if version is not None:
        assert manifest_name(version) == name


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("shortcuts/000000000042-000000000034.json", (42, 34, None)),
        ("shortcuts/000000000042-full.json", (42, None, None)),
        ("shortcuts/000000000042-000000000041.exp.json", (42, 41, "exp")),
        ("shortcuts/000000000042-full.0123456789abcdef.json", (42, None, "0123456789abcdef")),
        ("shortcuts/000000000042-full.0123456789abcdef0.json", None),
        ("shortcuts/000000000042-full..json", None),
        ("shortcuts/000000000042-full.Exp.json", None),
        ("shortcuts/000000000042-full.a.b.json", None),
        ("shortcuts/000000000042-FULL.json", None),
        ("shortcuts/000000000042-34.json", None),
        ("shortcuts/000000000042.json", None),
        ("shortcuts/000000000042-full.json.sig", None),
        ("shortcuts/000000000042-full.json\n", None),
        ("shortcuts/000000000042-full.json.json", (42, None, "json")),
    ],
)
def test_shortcut_names(name: str, parsed: tuple[int, int | None, str | None] | None) -> None:
    assert parse_shortcut_name(name) == parsed
    if parsed is not None:
        assert shortcut_name(*parsed) == name
