"""JSON under the rules of SPEC.md section 4.3: a parser that keeps numbers as they were written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .faults import Fault, need

DEEPEST = 16


@dataclass(frozen=True)
class Number:
    """A JSON number, as it was written."""

    literal: str


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class _Parser:
    """A parser of one JSON text; objects become dicts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\n\r":
            self.at += 1

    def take(self, token: str) -> bool:
        found = self.text.startswith(token, self.at)
        if found:
            self.at += len(token)
        return found

    def expect(self, condition: object, reason: str) -> None:
        need(condition, "TD-JSN-003", f"{reason} at character {self.at}")

    def value(self, level: int) -> Any:
        self.space()
        if self.take("{"):
            need(level <= DEEPEST, "TD-JSN-008", "JSON nested deeper than 16", "limit")
            return self.object(level)
        if self.take("["):
            need(level <= DEEPEST, "TD-JSN-008", "JSON nested deeper than 16", "limit")
            return self.array(level)
        if self.take('"'):
            return self.string()
        for token, value in (("true", True), ("false", False), ("null", None)):
            if self.take(token):
                return value
        for token in ("NaN", "Infinity", "-Infinity"):
            need(not self.take(token), "TD-JSN-007", f"the literal {token}")
        number = _NUMBER.match(self.text, self.at)
        self.expect(number, "no JSON value")
        assert number
        self.at = number.end()
        return Number(number[0])

    def object(self, level: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.space()
        if self.take("}"):
            return members
        while True:
            self.space()
            self.expect(self.take('"'), "no member name")
            name = self.string()
            need(name not in members, "TD-JSN-004", f"the member {name!r} stands twice")
            self.space()
            self.expect(self.take(":"), "no colon after a member name")
            members[name] = self.value(level + 1)
            self.space()
            if self.take("}"):
                return members
            self.expect(self.take(","), "no comma between members")

    def array(self, level: int) -> list[Any]:
        items: list[Any] = []
        self.space()
        if self.take("]"):
            return items
        while True:
            items.append(self.value(level + 1))
            self.space()
            if self.take("]"):
                return items
            self.expect(self.take(","), "no comma between items")

    def string(self) -> str:
        parts: list[str] = []
        while True:
            plain = _PLAIN.match(self.text, self.at)
            assert plain
            parts.append(plain[0])
            self.at = plain.end()
            if self.take('"'):
                break
            self.expect(self.take("\\"), "a string without end, or a control character in one")
            if self.take("u"):
                digits = _HEX.match(self.text, self.at)
                self.expect(digits, "an escape without four hex digits")
                assert digits
                self.at = digits.end()
                parts.append(chr(int(digits[0], 16)))
            else:
                escape = self.text[self.at : self.at + 1]
                self.expect(escape in _ESCAPES, f"the escape {escape!r}")
                self.at += 1
                parts.append(_ESCAPES[escape])
        joined = "".join(parts).encode("utf-16-le", "surrogatepass")  # joins escaped pairs
        try:
            return joined.decode("utf-16-le")
        except UnicodeDecodeError:
            raise Fault("malformed", "TD-JSN-005", "an escaped surrogate without its other half") from None


class _OddError(Exception):
    """What the parser above has to look at: a fault, perhaps."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _OddError
    return members


def _odd(literal: str) -> Any:
    raise _OddError


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_int=Number, parse_float=Number, parse_constant=_odd)
_BRACKETS = re.compile(r"[\[\]{}]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def _quick(text: str) -> dict[str, Any] | None:
    """What the parser above gives for a text that is clearly good; None where only it can tell.

    Of what the format forbids, Python's own parser would let pass members that stand twice, the literals of numbers
    that are none, halves of surrogates, and depth.
    """
    if "\\u" in text:
        return None
    deepest = depth = 0
    for bracket in _BRACKETS.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        return None
    try:
        value = _DECODER.decode(text)
    except (ValueError, _OddError):
        return None
    return value if isinstance(value, dict) else None


def parse_json(data: bytes) -> dict[str, Any]:
    """One JSON object under the rules of section 4.3."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Fault("malformed", "TD-JSN-001", "not UTF-8") from None
    need(not text.startswith("\ufeff"), "TD-JSN-002", "a byte order mark")
    quick = _quick(text)
    if quick is not None:
        return quick
    parser = _Parser(text)
    value = parser.value(1)
    parser.space()
    parser.expect(parser.at == len(text), "something follows the JSON value")
    need(isinstance(value, dict), "TD-JSN-003", "not a JSON object")
    assert isinstance(value, dict)
    return value
