"""The JSON rules of SPEC.md section 4.3, and the fields of the documents of sections 4.4 to 4.11.

Every case is told to the package's parser, which must name the error and the rule, and to the slow reader, which must
name the same error.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import slow_reader
from hypothesis import given
from hypothesis import strategies as st
from strategies import CHAIN, examples

from tensordelta.errors import MalformedError, TensorDeltaError
from tensordelta.format import manifest, strict_json
from tensordelta.format.documents import parse_chain, parse_latest
from tensordelta.format.layout import Layout
from tensordelta.format.names import manifest_name, parse_manifest_name, parse_shortcut_name, shortcut_name

DIGEST = "1" * 64
SUM = "00f1e2d3c4b5a697"
TIME = "2026-11-20T12:00:40Z"

CHAIN_DOCUMENT = {"tensordelta": "1.0", "chain": CHAIN, "created": TIME}
LATEST = {"tensordelta": "1.0", "chain": CHAIN, "version": 42}
LAYOUT = {"tensordelta": "1.0", "tensors": [{"name": "a", "dtype": "BF16", "shape": [4, 3]}]}
PACK = {
    "sha256": "2" * 64,
    "size": 1234,
    "path": f"packs/{'2' * 64}.safetensors",
    "content": "chunks",
    "tensors": [0, 57],
    "changed": 300,
}
FILE = {"name": "config.json", "size": 659, "sha256": "4" * 64, "path": f"files/{'4' * 64}"}
MANIFEST = {
    "tensordelta": "1.0",
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


# -- text ----------------------------------------------------------------------------------------------------------

GOOD = dump(CHAIN_DOCUMENT)
OPEN = GOOD[:-1]  # without the last brace
SURROGATES = '"\\ud83d'


@pytest.mark.parametrize(
    ("data", "error", "rule"),
    [
        (GOOD.replace(b"12:00", b"12\xff00"), "malformed", "TD-JSN-001"),
        (OPEN + b', "x": "\xc3"}', "malformed", "TD-JSN-001"),
        (OPEN + b', "x": "\xed\xa0\x80"}', "malformed", "TD-JSN-001"),  # a surrogate in UTF-8
        (OPEN + b', "x": "\xc0\xaf"}', "malformed", "TD-JSN-001"),  # an overlong form
        (GOOD.decode().encode("utf-16"), "malformed", "TD-JSN-001"),
        (b"\xef\xbb\xbf" + GOOD, "malformed", "TD-JSN-002"),
        (b"", "malformed", "TD-JSN-003"),
        (b"  ", "malformed", "TD-JSN-003"),
        (b"[]", "malformed", "TD-JSN-003"),
        (b'"text"', "malformed", "TD-JSN-003"),
        (b"null", "malformed", "TD-JSN-003"),
        (b"1", "malformed", "TD-JSN-003"),
        (OPEN, "malformed", "TD-JSN-003"),
        (GOOD + GOOD, "malformed", "TD-JSN-003"),
        (GOOD + b"x", "malformed", "TD-JSN-003"),
        (GOOD + b"\0", "malformed", "TD-JSN-003"),
        (GOOD + b"\x0b", "malformed", "TD-JSN-003"),
        (GOOD + "\u00a0".encode(), "malformed", "TD-JSN-003"),
        (GOOD + "\ufeff".encode(), "malformed", "TD-JSN-003"),
        (b"// a comment\n" + GOOD, "malformed", "TD-JSN-003"),
        (OPEN + b",}", "malformed", "TD-JSN-003"),
        (OPEN + b', "x": [1,]}', "malformed", "TD-JSN-003"),
        (OPEN + b", x: 1}", "malformed", "TD-JSN-003"),
        (OPEN + b", 'x': 1}", "malformed", "TD-JSN-003"),
        (OPEN + b', "x" 1}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": }', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": 01}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": +1}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": 1.}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": .5}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": 1e}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": 0x1}', "malformed", "TD-JSN-003"),
        (OPEN + ', "x": ١}'.encode(), "malformed", "TD-JSN-003"),  # a digit, but not of JSON
        (OPEN + b', "x": True}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "a\nb"}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "a\x00b"}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "a\x1fb"}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "\\x"}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "\\u12g4"}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "\\u+123"}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "\\u12"}', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "\\', "malformed", "TD-JSN-003"),
        (OPEN + b', "x": "abc', "malformed", "TD-JSN-003"),
        (OPEN + b', "created": "2026-11-20T12:00:40Z"}', "malformed", "TD-JSN-004"),
        (OPEN + b', "x": 1, "x": 1}', "malformed", "TD-JSN-004"),
        (OPEN + b', "x": 1, "\\u0078": 2}', "malformed", "TD-JSN-004"),
        (OPEN + ', "é": 1, "\\u00e9": 2}'.encode(), "malformed", "TD-JSN-004"),
        (OPEN + b', "\\ud83d\\ude00": 1, "\xf0\x9f\x98\x80": 2}', "malformed", "TD-JSN-004"),
        (OPEN + b', "x": [[{"a": {"b": 1, "b": 2}}]]}', "malformed", "TD-JSN-004"),
        (OPEN + b', "": 1, "": 2}', "malformed", "TD-JSN-004"),
        (OPEN + b', "x": "\\ud83d"}', "malformed", "TD-JSN-005"),
        (OPEN + b', "x": "\\uDE00"}', "malformed", "TD-JSN-005"),
        (OPEN + b', "x": "\\ude00\\ud83d"}', "malformed", "TD-JSN-005"),
        (OPEN + b', "x": "\\ud83d\\ud83d\\ude00"}', "malformed", "TD-JSN-005"),
        (OPEN + b', "x": "\\ud83d \\ude00"}', "malformed", "TD-JSN-005"),
        (OPEN + b', "\\uD800": 1}', "malformed", "TD-JSN-005"),
        (OPEN + b', "x": [{"y": ["\\udfff"]}]}', "malformed", "TD-JSN-005"),
        (OPEN + b', "x": NaN}', "malformed", "TD-JSN-007"),
        (OPEN + b', "x": Infinity}', "malformed", "TD-JSN-007"),
        (OPEN + b', "x": -Infinity}', "malformed", "TD-JSN-007"),
        (OPEN + b', "x": [{"y": NaN}]}', "malformed", "TD-JSN-007"),
        (OPEN + b', "x": ' + b"[" * 16 + b"]" * 16 + b"}", "limit", "TD-JSN-008"),
        (OPEN + b', "x": ' + b'{"y":' * 16 + b"1" + b"}" * 16 + b"}", "limit", "TD-JSN-008"),
        (OPEN + b', "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "limit", "TD-JSN-008"),
        (b"[" * 17 + b"]" * 17, "limit", "TD-JSN-008"),
        (b" " * (65537 - len(GOOD)) + GOOD, "limit", "TD-LIM-004"),
    ],
)
def test_text_faults(data: bytes, error: str, rule: str) -> None:
    refuse("chain", data, error, rule)


@pytest.mark.parametrize(
    "data",
    [
        b" \t\r\n" + GOOD + b" \t\r\n",
        b" " * (65536 - len(GOOD)) + GOOD,
        GOOD.replace(b": ", b" \r\n:\t"),
        GOOD.replace(b'"chain"', b'"\\u0063hain"'),
        GOOD.replace(b"5f0c", b"\\u0035f0c"),
        OPEN + b', "x": "\\ud83d\\ude00 \\uD83D\\uDE00"}',
        OPEN + b', "x": "\\\\ud83d"}',  # a backslash, then letters
        OPEN + b', "x": "\\u0000\\uffff\\ufdd0 \xef\xbf\xbf \xf4\x8f\xbf\xbf \x7f"}',
        OPEN + b', "x": "\\/\\b\\f\\n\\r\\t\\"\\\\"}',
        OPEN + b', "\\uffff": 1, "\\ufffe": 2}',
        OPEN + b', "x": 1, "X": 2, "x ": 3}',
        OPEN + ', "é": 1, "e\u0301": 2}'.encode(),  # no normalisation
        OPEN + b', "x": [{"a": 1}, {"a": 1}]}',
        OPEN + b', "x": [-0, 1.0, 1e3, -1, 0.5E+400, -1e-400, 123456789012345678901234567890]}',
        OPEN + b', "x": ' + b"9" * 60_000 + b"}",
        OPEN + b', "x": 0.' + b"9" * 60_000 + b"}",
        OPEN + b', "x": ' + b"[" * 15 + b"]" * 15 + b"}",
        OPEN + b', "x": "' + b"[{" * 100 + b'"}',
        OPEN + b', "x": "\\"' + b"[{" * 100 + b'\\\\"}',
        OPEN + b', "x": {}, "y": [], "z": [null, true, false, ""]}',
        b"{" + GOOD[1:-1].replace(b"}", b"") + b"}",
    ],
)
def test_text_that_is_accepted(data: bytes) -> None:
    assert accept("chain", data).chain == CHAIN


def test_long_text_takes_no_undue_time_or_memory() -> None:
    """Text is looked at once, whatever it holds: unclosed strings full of escapes, or numbers of many digits."""
    for data in (
        b'"' + b'\\"' * 2_000_000,
        b'{"x": ' + b"9" * 4_000_000 + b"}",
        b'{"x": "' + b'[\\"' * 1_000_000 + b'"}',
    ):
        try:
            strict_json.parse(data, object="text", limit=2**26)
        except MalformedError:
            continue


json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@examples(80)
@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4), st.booleans(), st.data())
def test_both_parsers_agree(value: dict[str, Any], plain: bool, data: st.DataObject) -> None:
    """JSON, also with a few bytes changed, is one object for both parsers or for neither."""
    text = bytearray(json.dumps(value, ensure_ascii=plain).encode())
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 1))] = data.draw(
            st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b",", b":", b"1", b"-", b".", b"e", b" ", b"\xc3", b"\xff"])
        )
    try:
        slow_reader.parse_json(bytes(text))
        wanted = ""
    except slow_reader.Fault as fault:
        wanted = fault.name
    try:
        strict_json.parse(bytes(text), object="text", limit=2**20)
        found = ""
    except TensorDeltaError as fault:
        found = fault.name
    assert found == wanted


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
    *(("manifest", f"packs.0.tensors.{each}") for each in (0, 1)),
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
    for version in ("1.0", "1.1", "1.999999999999999999999"):
        accept(kind, dump(changed(full(kind), "tensordelta", version)))


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


# -- layouts (section 4.6) -----------------------------------------------------------------------------------------


def layout_of(*tensors: tuple[str, str, list[Any]]) -> bytes:
    return dump(
        {"tensordelta": "1.0", "tensors": [{"name": n, "dtype": d, "shape": s} for n, d, s in tensors]},
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
    data = f'{{"tensordelta":"1.0","tensors":[{entries}]}}'.encode()
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
        (with_pack(tensors=[0, 0]), "malformed", "TD-MAN-010"),
        (with_pack(tensors=[2, 1]), "malformed", "TD-MAN-010"),
        (with_pack(tensors=[]), "malformed", "TD-JSN-012"),
        (with_pack(tensors=[0]), "malformed", "TD-JSN-012"),
        (with_pack(tensors=[0, 1, 2]), "malformed", "TD-JSN-012"),
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
