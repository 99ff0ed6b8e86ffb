"""The judge's parser of JSON: its quick way says what its plain one says, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensordelta_conformance.judge import Fault, ijson

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
)
SPOILS = [
    '"',
    "\\",
    "{",
    "[",
    "]",
    "}",
    ",",
    ":",
    "-",
    "0",
    "1",
    "e",
    ".",
    "\t",
    "\x00",
    "NaN",
    "\\ud800",
    '"a":1,',
    " ",
]


def plain(text: str) -> Any:
    parser = ijson._Parser(text)
    value = parser.value(1)
    parser.space()
    parser.expect(parser.at == len(text), "something follows")
    return value


@settings(max_examples=300)
@given(value=VALUES, spaces=st.booleans(), ascii=st.booleans(), spoil=st.sampled_from(SPOILS), at=st.floats(0, 1))
def test_the_quick_way_agrees(value: Any, spaces: bool, ascii: bool, spoil: str, at: float) -> None:
    text = json.dumps({"a": value, "b": [value]}, indent=1 if spaces else None, ensure_ascii=ascii)
    cut = int(at * len(text))
    for each in (text, text[:cut] + spoil + text[cut:], text[:cut], text[:cut] + text[cut + 1 :]):
        quick = ijson._quick(each)
        if quick is not None:
            assert plain(each) == quick


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"a": 1, "a": 1}', "TD-JSN-004"),
        ('{"b": {"a": 1, "a": 2}}', "TD-JSN-004"),
        ('{"a": NaN}', "TD-JSN-007"),
        ('{"a": -Infinity}', "TD-JSN-007"),
        ('{"a": "\\ud800"}', "TD-JSN-005"),
        ('{"a": ' + "[" * 16 + "]" * 16 + "}", "TD-JSN-008"),
        ('{"a": 01}', "TD-JSN-003"),
        ('{"a": "\x01"}', "TD-JSN-003"),
        ("[1]", "TD-JSN-003"),
        ('{"a": 1} 2', "TD-JSN-003"),
    ],
)
def test_what_only_the_plain_way_tells(text: str, rule: str) -> None:
    with pytest.raises(Fault) as caught:
        ijson.parse_json(text.encode("utf-8", "surrogatepass"))
    assert caught.value.rule == rule


def test_the_deepest_that_is_allowed() -> None:
    text = '{"a": ' + "[" * 15 + '"[[["' + "]" * 15 + "}"
    assert ijson._quick(text) == plain(text) == ijson.parse_json(text.encode())


def test_numbers_stay_as_they_were_written() -> None:
    found = ijson.parse_json(b'{"a": [-0, 1E5, 12345678901234567890, 1.50]}')
    assert [number.literal for number in found["a"]] == ["-0", "1E5", "12345678901234567890", "1.50"]
