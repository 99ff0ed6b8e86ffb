"""The fields of the documents of SPEC.md sections 4.5 to 4.11, and their annotations."""

from __future__ import annotations

from typing import Any

import pytest
from documents_by_hand import ABSENT, FILE, KINDS, LATEST, MANIFEST, PACK, Raw, accept, changed, dump, refuse
from strategies import CHAIN

from tensordelta.errors import UnsupportedError
from tensordelta.format.documents import parse_chain, parse_latest

# -- fields --------------------------------------------------------------------------------------------------------

NO_STRING: list[Any] = [1, None, True, [], {}, ["1.0"]]
NO_INTEGER = ["42", True, False, None, [], [42], {}]
NOT_WRITTEN_AS_INTEGER = [Raw(each) for each in ("-0", "0.0", "42.0", "4e1", "42e0", "-1", "-42", "1E1")]
TOO_GREAT = [Raw(each) for each in ("9007199254740992", "18446744073709551616", "9" * 17, "9" * 400)]

FIELDS: list[tuple[str, str, Any, str, str]] = [
    ("latest", "version", 10**12, "malformed", "TD-OBJ-018"),
    ("layout", "tensors.0.shape", [2**53 - 1], "limit", "TD-LAY-007"),
    ("manifest", "version", 10**12, "malformed", "TD-MAN-001"),
    ("manifest", "base.version", 10**12, "malformed", "TD-MAN-001"),
]
REQUIRED = {
    "chain": ["chain", "created"],
    "latest": ["chain", "version"],
    "layout": ["tensors", "tensors.0.name", "tensors.0.dtype", "tensors.0.shape"],
    "manifest": [
        *("chain", "version", "layout", "fingerprint", "packs", "features", "created"),
        *("base.version", "base.layout", "base.fingerprint"),
        *(f"packs.0.{name}" for name in PACK),
        *(f"files.0.{name}" for name in FILE),
    ],
}
INTEGERS = [
    ("latest", "version"),
    ("layout", "tensors.0.shape.1"),
    *(("manifest", each) for each in ("version", "base.version", "packs.0.size", "packs.0.changed", "files.0.size")),
    *(("manifest", f"packs.0.tensors.0.{each}") for each in (0, 1)),
]
STRINGS = [
    *(("chain", each) for each in ("chain", "created")),
    ("latest", "chain"),
    *(("layout", f"tensors.0.{each}") for each in ("name", "dtype")),
    *(("manifest", each) for each in ("chain", "layout", "fingerprint", "base.layout", "base.fingerprint", "created")),
    *(("manifest", f"packs.0.{each}") for each in ("sha256", "content")),
    *(("manifest", f"files.0.{each}") for each in ("name", "sha256", "path")),
    ("manifest", "features.0"),
]
DIGESTS = [("manifest", each) for each in ("layout", "base.layout", "packs.0.sha256", "files.0.sha256")]
SUMS = [("manifest", each) for each in ("fingerprint", "base.fingerprint")]
IDS = [(kind, "chain") for kind in ("chain", "latest", "manifest")]
TIMES = [(kind, "created") for kind in ("chain", "manifest")]


def field_cases() -> list[tuple[str, str, Any, str, str]]:
    cases = list(FIELDS)
    for kind, names in REQUIRED.items():
        cases += [(kind, name, ABSENT, "malformed", "TD-JSN-011") for name in ("tensordelta", *names)]
    for kind, where in INTEGERS:
        cases += [(kind, where, value, "malformed", "TD-JSN-012") for value in NO_INTEGER]
        cases += [(kind, where, value, "malformed", "TD-JSN-009") for value in NOT_WRITTEN_AS_INTEGER]
        cases += [(kind, where, value, "malformed", "TD-JSN-010") for value in TOO_GREAT]
    for kind, where in STRINGS:
        cases += [(kind, where, value, "malformed", "TD-JSN-012") for value in NO_STRING]
    for kind in KINDS:
        cases += [(kind, "tensordelta", value, "malformed", "TD-JSN-012") for value in NO_STRING]
        for value in (
            "",
            "1",
            "1.",
            ".0",
            "1.0.0",
            "01.0",
            "1.00",
            "1.0 ",
            " 1.0",
            "1.0\n",
            "v1.0",
            "-1.0",
            "1,0",
            "١.0",
        ):
            cases.append((kind, "tensordelta", value, "malformed", "TD-JSN-015"))
        for value in ("0.0", "0.9", "2.0", "10.0", "11.0", "999999999999999999999999.1"):
            cases.append((kind, "tensordelta", value, "unsupported", "TD-VER-002"))
    for kind, where in DIGESTS:
        for value in ("", "1" * 63, "1" * 65, "A" * 64, "g" * 64, "1" * 64 + "\n", "\n" + "1" * 64, "0x" + "1" * 62):
            cases.append((kind, where, value, "malformed", "TD-JSN-015"))
    for kind, where in SUMS:
        for value in ("", "1" * 15, "1" * 17, "A" * 16, "1" * 16 + "\n"):
            cases.append((kind, where, value, "malformed", "TD-JSN-015"))
    for kind, where in IDS:
        for value in (
            CHAIN.upper(),
            CHAIN + "\n",
            CHAIN.replace("-", ""),
            "{" + CHAIN + "}",
            CHAIN[:-1],
            "urn:uuid:" + CHAIN,
        ):
            cases.append((kind, where, value, "malformed", "TD-JSN-015"))
    for kind, where in TIMES:
        for value in BAD_TIMES:
            cases.append((kind, where, value, "malformed", "TD-JSN-015"))
    return cases


BAD_TIMES = [
    "2026-11-20",
    "2026-11-20 12:00:00Z",
    "2026-11-20T12:00:00",
    "2026-11-20T12:00:00+00:00",
    "2026-11-20t12:00:00z",
    "2026-13-20T12:00:00Z",
    "2026-00-20T12:00:00Z",
    "2026-11-00T12:00:00Z",
    "2026-11-32T12:00:00Z",
    "2026-11-20T24:00:00Z",
    "2026-11-20T12:60:00Z",
    "2026-11-20T12:00:61Z",
    "2026-11-20T12:00:00.Z",
    "2026-11-20T12:00:00.1234567890Z",
    "2026-11-20T12:00:00Z\n",
    "20261120T120000Z",
    "+2026-11-20T12:00:00Z",
    "２026-11-20T12:00:00Z",
]


def full(kind: str) -> dict[str, Any]:
    """A document of a kind, with optional parts that a path may name."""
    return {**MANIFEST, "files": [FILE]} if kind == "manifest" else KINDS[kind][0]


@pytest.mark.parametrize(("kind", "where", "what", "error", "rule"), field_cases())
def test_field_faults(kind: str, where: str, what: Any, error: str, rule: str) -> None:
    accept(kind, dump(full(kind)))
    refuse(kind, dump(changed(full(kind), where, what)), error, rule)


@pytest.mark.parametrize("kind", KINDS)
def test_format_is_checked_first(kind: str) -> None:
    """An object of a later format may differ in everything else (TD-VER-001, TD-VER-003)."""
    refuse(kind, b'{"tensordelta": "2.0", "root": "everything else may differ"}', "unsupported", "TD-VER-002")
    refuse(kind, b'{"root": 1}', "malformed", "TD-JSN-011")
    for version in ("1.0", "1.1", "1.0-rc.2", "1.0-rc.1.1", "1.999999999999999999999"):
        refuse(kind, dump(changed(full(kind), "tensordelta", version)), "unsupported", "TD-VER-002")


def test_a_chain_of_the_drafts_is_refused_with_a_sentence() -> None:
    data = dump(changed(full("chain"), "tensordelta", "1.0"))
    with pytest.raises(UnsupportedError, match=r"chain.json: written by a draft of the format, .* Publish the states"):
        parse_chain(data)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_ignored(kind: str) -> None:
    """At every level, whatever they hold (TD-JSN-013, TD-JSN-014)."""
    extra = Raw('{"a": [-0, 1.0, 1e3, -1, null, 99999999999999999999999999]}')
    document = full(kind)
    places = {"chain": [""], "latest": [""], "layout": ["", "tensors.0."]}
    for place in places.get(kind, ["", "base.", "packs.0.", "files.0."]):
        accept(kind, dump(changed(document, f"{place}colour", extra)))


@pytest.mark.parametrize(
    "value",
    ["2026-02-30T23:59:60Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-11-20T12:00:00.0Z"],
)
def test_times_that_are_accepted(value: str) -> None:
    for kind, where in TIMES:
        accept(kind, dump(changed(KINDS[kind][0], where, value)))


def test_the_greatest_numbers() -> None:
    parsed = accept("manifest", dump({**MANIFEST, "packs": [{**PACK, "changed": 2**53 - 1, "size": 2**40}]}))
    assert parsed.packs[0].changed == 2**53 - 1
    assert parse_latest(dump({**LATEST, "version": 10**12 - 1})).version == 10**12 - 1


# -- annotations ---------------------------------------------------------------------------------------------------

TWO_BYTES = "é"


@pytest.mark.parametrize("kind", ["chain", "manifest"])
@pytest.mark.parametrize(
    ("annotations", "error", "rule"),
    [
        (None, "malformed", "TD-JSN-012"),
        ([], "malformed", "TD-JSN-012"),
        ("a", "malformed", "TD-JSN-012"),
        ({"step": 420}, "malformed", "TD-JSN-012"),
        ({"step": None}, "malformed", "TD-JSN-012"),
        ({"step": {}}, "malformed", "TD-JSN-012"),
        ({str(index): "" for index in range(65)}, "limit", "TD-LIM-004"),
        ({"a": "b" * 4096}, "limit", "TD-LIM-001"),
        ({"a" * 4097: ""}, "limit", "TD-LIM-001"),
        ({TWO_BYTES: TWO_BYTES * 2047 + "a"}, "limit", "TD-LIM-001"),
    ],
)
def test_annotation_faults(kind: str, annotations: Any, error: str, rule: str) -> None:
    refuse(kind, dump({**KINDS[kind][0], "annotations": annotations}), error, rule)


@pytest.mark.parametrize("kind", ["chain", "manifest"])
@pytest.mark.parametrize(
    "annotations",
    [{}, {"": ""}, {str(i): "x" for i in range(64)}, {"a": "b" * 4095}, {"a" * 4096: ""}, {"é": TWO_BYTES * 2047}],
)
def test_annotations_that_are_accepted(kind: str, annotations: dict[str, str]) -> None:
    assert accept(kind, dump({**KINDS[kind][0], "annotations": annotations})).annotations == annotations
