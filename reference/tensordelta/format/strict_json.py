"""JSON under the format's rules (SPEC.md section 4.3): from I-JSON to typed objects, or a named error.

The standard library's parser is used because it reports what others ignore (duplicate member names, the spelling of a
number); msgspec then converts the result to the typed object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np

from ..errors import LimitError, MalformedError, UnsupportedError

T = TypeVar("T")

#: The version of the format that this package writes.
VERSION = "1.0-rc.1"
_DRAFT = "1.0"
#: The greatest nesting of objects and arrays.
MAX_DEPTH = 16
#: The greatest integer of a known field.
MAX_INTEGER = 2**53 - 1

#: Bytes of memory that a byte of JSON text takes at most while it is parsed, and that the result keeps; measured.
PARSING = 25
KEPT = 5

_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[a-z0-9.]{1,16})?")
# Possessive, and the closing quote is optional: no input makes the match look at a byte twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile("[\ud800-\udfff]")
#: An escape that could denote a surrogate; only documents with one are searched for lone surrogates.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Number:
    """Placeholder for a number that is no integer of the format; typed fields refuse it."""


class _TooGreat(_Number):
    """Placeholder for an integer that is too great for any field."""


# Errors quote the names of types.
_Number.__name__ = "number that is no integer of the format"
_TooGreat.__name__ = "integer greater than 2^53 - 1"
_NUMBER = _Number()
_TOO_GREAT = _TooGreat()


class _Fault(Exception):
    def __init__(self, reason: str, rule: str) -> None:
        super().__init__(reason)
        self.rule = rule


def _integer(literal: str) -> object:
    if literal[0] == "-":
        return _NUMBER
    # Longer literals are beyond 2^53 anyway, and parsing them takes quadratic time.
    number = int(literal) if len(literal) <= 16 else None
    return _TOO_GREAT if number is None or number > MAX_INTEGER else number


def _real(_: str) -> object:
    return _NUMBER


def _constant(literal: str) -> object:
    raise _Fault(f"{literal} is not JSON", "TD-JSN-007")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Fault(f"the member {name!r} occurs twice in one object", "TD-JSN-004")
            seen.add(name)
    return members


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_real, parse_constant=_constant, strict=True
)


def depth(data: bytes) -> int:
    """The nesting depth of objects and arrays in JSON text; 1 for the outermost."""
    brackets = np.frombuffer(_STRING.sub(b"", data).translate(None, _NOT_BRACKETS), np.uint8)
    if not len(brackets):
        return 0
    opening = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opening, np.int8(1), np.int8(-1)), dtype=np.int32).max())


def has_lone_surrogate(data: bytes, value: Any) -> bool:
    """True where a string or member name of parsed JSON text has a surrogate that is not part of a pair."""
    if not _SURROGATE_ESCAPE.search(data):
        return False
    return _SURROGATE.search(json.dumps(value, ensure_ascii=False, default=str)) is not None


def parse(data: bytes, *, object: str, limit: int) -> dict[str, Any]:
    """Parse a JSON object of the format into plain Python values.

    Numbers that are no integers of the format become a value that no typed field accepts.

    Raises:
        LimitError: longer than `limit` bytes, or nested deeper than 16.
        MalformedError: not I-JSON, or not one JSON object.
    """
    if len(data) > limit:
        raise LimitError(f"{len(data)} bytes of JSON, more than {limit}", object=object, rule="TD-LIM-004")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8: {error}", object=object, rule="TD-JSN-001") from None
    if text.startswith("\ufeff"):
        raise MalformedError("begins with a byte order mark", object=object, rule="TD-JSN-002")
    if depth(data) > MAX_DEPTH:
        raise LimitError(f"nested deeper than {MAX_DEPTH}", object=object, rule="TD-JSN-008")
    body = text.strip(" \t\n\r")
    try:
        value, end = _DECODER.raw_decode(body)
        if end != len(body):
            raise _Fault("something follows the JSON object", "TD-JSN-003")
    except _Fault as error:
        raise MalformedError(str(error), object=object, rule=error.rule) from None
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}", object=object, rule="TD-JSN-003") from None
    if has_lone_surrogate(data, value):
        raise MalformedError("a lone surrogate in a string", object=object, rule="TD-JSN-005")
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object", object=object, rule="TD-JSN-003")
    return value


def check_version(value: dict[str, Any], *, object: str) -> None:
    """Check the member `tensordelta`, before any other (SPEC.md section 15).

    Raises:
        MalformedError: absent, or not `major.minor` with or without a tag.
        UnsupportedError: another version than this program's.
    """
    if "tensordelta" not in value:
        raise MalformedError("`tensordelta` is absent", object=object, rule="TD-JSN-011")
    version = value["tensordelta"]
    if not isinstance(version, str):
        raise MalformedError("`tensordelta` is no string", object=object, rule="TD-JSN-012")
    if _VERSION.fullmatch(version) is None:
        raise MalformedError(f"`tensordelta` is {version!r}, not major.minor", object=object, rule="TD-JSN-015")
    if version == _DRAFT:
        raise UnsupportedError(
            f"written by a draft of the format, and this program reads {VERSION}",
            object=object,
            rule="TD-VER-002",
            advice="Publish the states anew, to another place; what wrote this chain still reads it.",
        )
    if version != VERSION:
        raise UnsupportedError(
            f"written in version {version[:40]} of the format, and this program reads {VERSION}",
            object=object,
            rule="TD-VER-002",
        )


def field_rule(fault: str) -> str | None:
    """The rule of section 4.3 that msgspec's message is about; None where it is about no rule of that section."""
    if "missing required field" in fault:
        return "TD-JSN-011"
    if "matching regex" in fault:
        return "TD-JSN-015"
    if f"Expected `int`, got `{_Number.__name__}`" in fault:
        return "TD-JSN-009"
    if f"Expected `int`, got `{_TooGreat.__name__}`" in fault:
        return "TD-JSN-010"
    if ", got " in fault:
        return "TD-JSN-012"
    return None


def convert(
    value: Any, kind: type[T], *, object: str, rule: str, refine: Callable[[str], str | None] = field_rule
) -> T:
    """Convert plain Python values to the typed object.

    Args:
        value: the result of `parse`, or a part of it.
        kind: the typed object.
        object: how errors name the object at fault.
        rule: the requirement that a fault breaks, unless `refine` finds a more exact one.
        refine: finds the requirement from msgspec's message.

    Raises:
        MalformedError: a field is absent, of the wrong type, or breaks its pattern; the message has the JSON path.
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        reason = str(error)
        raise MalformedError(reason, object=object, rule=refine(reason) or rule) from None


def parse_document(data: bytes, kind: type[T], *, object: str, limit: int, rule: str) -> T:
    """Parse a whole document: JSON, then the version, then its fields.

    Args:
        data, object, limit: see `parse`.
        kind, rule: see `convert`.

    Raises:
        MalformedError, UnsupportedError, LimitError: see `parse`, `check_version` and `convert`.
    """
    value = parse(data, object=object, limit=limit)
    check_version(value, object=object)
    return convert(value, kind, object=object, rule=rule)


def encode(value: msgspec.Struct) -> bytes:
    """The object as JSON without white space. Readers accept other spellings: digests are of the bytes as stored."""
    return msgspec.json.encode(value)
