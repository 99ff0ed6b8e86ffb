"""JSON texts: white space, escapes, the order of members, unknown fields, numbers (SPEC.md section 4.3)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .table import Census

#: The fields of each kind of object.
FIELDS = {
    "chain": "tensordelta chain created grace annotations",
    "layout": "tensordelta tensors",
    "tensor entry": "name dtype shape",
    "manifest": "tensordelta chain version layout fingerprint base packs features created annotations"
    " tensor_fingerprints files",
    "base": "version layout fingerprint",
    "pack entry": "sha256 size path content tensors changed sources name",
    "file entry": "name size sha256 path",
    "hint": "tensordelta chain version shortcuts",
    "signature": "tensordelta sig",
    "chunk table": "tensordelta layout chunks",
    "chunk entry": "dtype slices changed order positions values compression result",
    "stream entry": "dtype shape data_offsets",
    "entry of a plain pack": "dtype shape data_offsets",
}
#: Fields that an object may lack, which would make another order of the others.
OPTIONAL = {
    "chain": ("grace", "annotations"),
    "manifest": ("annotations", "tensor_fingerprints", "files"),
    "pack entry": ("sources", "name"),
    "hint": ("shortcuts",),
}
#: Where the entries of an object stand: the object, its field, and what these are.
ENTRIES = (
    ("layout", "tensors", "tensor entry"),
    ("manifest", "base", "base"),
    ("manifest", "packs", "pack entry"),
    ("manifest", "files", "file entry"),
    ("chunk table", "chunks", "chunk entry"),
)
SPACES = {" ": "space", "\t": "tab", "\n": "line feed", "\r": "carriage return"}
ESCAPES = ('\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t", "\\u", "a pair of surrogates")
TEXTS = ("chain", "layout", "manifest", "chunk table", "header of a chunk pack", "header of a plain pack")

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)")
_SPACE = re.compile(r"[ \t\r\n]")
_BRACKET = re.compile(r"[\[\]{}]")


class Number(str):
    """The literal of a number."""


def load(text: str) -> Any:
    """JSON whose numbers are literals."""
    return json.loads(text, parse_int=Number, parse_float=Number)


class Texts:
    """Notes what JSON texts have."""

    def __init__(self, census: Census) -> None:
        self.spaces = {space: census.kind(f"JSON: {name} between tokens, in") for space, name in SPACES.items()}
        self.before = census.kind("JSON: white space before the object, in")
        self.after = census.kind("JSON: white space after the object, in")
        self.compact = census.kind("JSON: no white space at all, in", needs=TEXTS)
        self.escapes = {escape: census.kind(f"JSON: escape {escape}, in") for escape in ESCAPES}
        self.hexadecimal = census.kind("JSON: digits of \\u escapes", needs=("capital", "small"))
        self.names = census.kind("JSON: a known field's name with an escape, in")
        self.raw = {size: census.kind(f"JSON: characters of {size} bytes as they are, in") for size in (2, 3, 4)}
        self.noncharacters = census.kind("JSON: noncharacters, in")
        self.depth = census.kind("JSON: nested 16 levels, in")
        self.orders = {name: census.kind(f"order of the required members: {name}") for name in FIELDS}
        self.unknown = {name: census.kind(f"unknown fields: {name}") for name in FIELDS}
        self.types = {
            name: census.kind(f"unknown fields that are {name}, in")
            for name in ("null", "true", "false", "strings", "empty strings", "arrays", "empty arrays", "objects",
                         "empty objects", "numbers")
        }  # fmt: skip
        self.numbers = {
            name: census.kind(f"numbers in unknown fields: {name}")
            for name in ("integers of 20 to 999 digits", "integers of 5,000 digits and more", "negative", "fractions",
                         "with an exponent", "too great or too small for a double", "minus zero")
        }  # fmt: skip

    def look(self, kind: str, data: bytes, case: str) -> Any:
        """Note an object, and give it; its numbers are literals."""
        text = data.decode()
        outside = _STRING.sub('""', text)
        for space in set(_SPACE.findall(outside.strip(" \t\r\n"))):
            self.spaces[space].note(kind, case)
        if text[:1] in SPACES:
            self.before.note(kind, case)
        if text[-1:] in SPACES:
            self.after.note(kind, case)
        if not _SPACE.search(outside):
            self.compact.note(kind, case)
        for string in set(_STRING.findall(text)):
            self._string(kind, string, case)
        if _depth(outside) == 16:
            self.depth.note(kind, case)
        document = load(text)
        if kind in FIELDS:
            self._fields(kind, document, case)
        return document

    def _string(self, kind: str, string: str, case: str) -> None:
        for escape in _ESCAPE.findall(string):
            pair = len(escape) > 5
            self.escapes["a pair of surrogates" if pair else "\\" + escape[0]].note(kind, case)
            for digit in escape[1:] if escape[0] == "u" else "":
                if digit.isalpha() and digit != "u":
                    self.hexadecimal.note("capital" if digit.isupper() else "small", case)
        for character in string if not string.isascii() else "":
            size = len(character.encode())
            if size > 1:
                self.raw[size].note(kind, case)
        value = load(string)
        if any(ord(each) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(each) <= 0xFDEF for each in value):
            self.noncharacters.note(kind, case)
        if "\\" in string and any(value in fields.split() for fields in FIELDS.values()):
            self.names.note(kind, case)

    def _fields(self, kind: str, document: Mapping[str, Any], case: str) -> None:
        known = FIELDS[kind].split()
        left_out = OPTIONAL.get(kind, ())
        self.orders[kind].note(" ".join(key for key in document if key in known and key not in left_out), case)
        for key, value in document.items():
            if key not in known:
                self.unknown[kind].note(key, case)
                for each in _leaves(value):
                    self._unknown(kind, each, case)
        for above, field, entry in ENTRIES:
            if above == kind and document.get(field):
                value = document[field]
                for each in value if isinstance(value, list) else [value]:
                    self._fields(entry, each, case)

    def entry(self, kind: str, document: Mapping[str, Any], case: str) -> None:
        """Note an entry of a header."""
        self._fields(kind, document, case)

    def _unknown(self, kind: str, value: Any, case: str) -> None:
        if isinstance(value, Number):
            self.types["numbers"].note(kind, case)
            self._number(value, case)
        elif value is None or isinstance(value, bool):
            self.types["null" if value is None else str(value).lower()].note(kind, case)
        else:
            name = "strings" if isinstance(value, str) else "arrays" if isinstance(value, list) else "objects"
            self.types[name if value else f"empty {name}"].note(kind, case)

    def _number(self, literal: Number, case: str) -> None:
        digits = len(literal.lstrip("-"))
        is_integer = literal.lstrip("-").isdigit()
        if is_integer and 20 <= digits < 1000:
            self.numbers["integers of 20 to 999 digits"].note(literal, case)
        if is_integer and digits >= 5000:
            self.numbers["integers of 5,000 digits and more"].note(literal, case)
        if literal in ("-0", "-0.0", "-0e0"):
            self.numbers["minus zero"].note(literal, case)
        elif literal.startswith("-"):
            self.numbers["negative"].note(literal, case)
        if "." in literal:
            self.numbers["fractions"].note(literal, case)
        if "e" in literal.lower():
            self.numbers["with an exponent"].note(literal, case)
            if float(literal) in (0.0, float("inf"), float("-inf")):
                self.numbers["too great or too small for a double"].note(literal, case)


def _leaves(value: Any) -> Iterator[Any]:
    yield value
    inner: Sequence[Any] = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for each in inner:
        yield from _leaves(each)


def _depth(outside: str) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(outside):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
