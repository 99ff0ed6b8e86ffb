"""The small reader's JSON: what it reads, and the rule under which it rejects."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from tensordelta_conformance.small_reader.fields import Number, parse_json
from tensordelta_conformance.small_reader.rejection import Rejection

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
)
SPOILS = [*'"\\{[]},:-01e.\t\x00 ', "NaN", "\\ud800", '"a":1,']


def numbered(value: Any) -> Any:
    """A value whose numbers are as json.dumps writes them."""
    if isinstance(value, dict):
        return {key: numbered(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbered(each) for each in value]
    return Number(json.dumps(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


@examples(300)
@given(value=VALUES, spaces=st.booleans(), ascii=st.booleans(), spoil=st.sampled_from(SPOILS), at=st.floats(0, 1))
def test_what_json_writes_is_read_and_no_damage_stops_it(
    value: Any, spaces: bool, ascii: bool, spoil: str, at: float
) -> None:
    document = {"a": value, "b": [value]}
    text = json.dumps(document, indent=1 if spaces else None, ensure_ascii=ascii)
    assert parse_json(text.encode()) == numbered(document)
    cut = int(at * len(text))
    for each in (text[:cut] + spoil + text[cut:], text[:cut], text[:cut] + text[cut + 1 :]):
        try:
            parse_json(each.encode())
        except Rejection as fault:
            assert fault.rule.startswith("TD-JSN-")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"a": 1, "a": 1}', "TD-JSN-004"),
        ('{"b": {"a": 1, "a": 2}}', "TD-JSN-004"),
        ('{"a": 1, "\\u0061": 1}', "TD-JSN-004"),
        ('{"a": NaN}', "TD-JSN-007"),
        ('{"a": -Infinity}', "TD-JSN-007"),
        ('{"a": "\\ud800"}', "TD-JSN-005"),
        ('{"\\udc00": 1}', "TD-JSN-005"),
        ('{"a": ' + "[" * 16 + "]" * 16 + "}", "TD-JSN-008"),
        ('{"a": 01}', "TD-JSN-003"),
        ('{"a": "\x01"}', "TD-JSN-003"),
        ("[1]", "TD-JSN-003"),
        ('{"a": 1} 2', "TD-JSN-003"),
        ('\ufeff{"a": 1}', "TD-JSN-002"),
        ('{"a": "\ud800"}', "TD-JSN-001"),
    ],
)
def test_the_rule_of_a_rejection(text: str, rule: str) -> None:
    with pytest.raises(Rejection) as caught:
        parse_json(text.encode("utf-8", "surrogatepass"))
    assert caught.value.rule == rule


def test_the_deepest_that_is_allowed() -> None:
    text = '{"a": ' + "[" * 15 + '"[[["' + "]" * 15 + "}"
    assert parse_json(text.encode()) == json.loads(text)


def test_numbers_stay_as_they_were_written() -> None:
    found = parse_json(b'{"a": [-0, 1E5, 12345678901234567890, 1.50]}')
    assert [number.literal for number in found["a"]] == ["-0", "1E5", "12345678901234567890", "1.50"]
