"""The JSON rules of SPEC.md section 4.3, in the package's parser and in the slow reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
import slow_reader
from documents_by_hand import CHAIN_DOCUMENT, accept, dump, refuse
from hypothesis import given
from hypothesis import strategies as st
from strategies import CHAIN, examples

from tensordelta.errors import MalformedError, TensorDeltaError
from tensordelta.format import strict_json

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
