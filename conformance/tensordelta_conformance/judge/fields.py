"""Fields of JSON objects: their types and patterns (SPEC.md sections 4.3 and 4.4)."""

from __future__ import annotations

import re
from typing import Any

from .faults import need
from .ijson import Number, parse_json

DIGEST = "[0-9a-f]{64}"
SUM = "[0-9a-f]{16}"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)"
    r"(\.[0-9]{1,9})?Z"
)
PATH = r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*"
FORMAT = r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
MAX_VERSION = 10**12 - 1


def integer(value: Any) -> int:
    """An integer field."""
    need(isinstance(value, Number), "TD-JSN-012", f"{value!r} is no number")
    need(re.fullmatch("0|[1-9][0-9]*", value.literal), "TD-JSN-009", f"{value.literal} is no integer")
    need(len(value.literal) <= 16 and int(value.literal) <= 2**53 - 1, "TD-JSN-010", f"{value.literal} is too great")
    return int(value.literal)


def version_number(value: Any) -> int:
    """A version."""
    number = integer(value)
    need(number <= MAX_VERSION, "TD-LIM-004", f"{number} is no version")
    return number


def string(value: Any, pattern: str = "(?s:.*)") -> str:
    """A string that matches a pattern."""
    need(isinstance(value, str), "TD-JSN-012", f"{value!r} is no string")
    assert isinstance(value, str)
    need(re.fullmatch(pattern, value), "TD-JSN-015", f"{value!r} does not match {pattern}")
    return value


def array(value: Any, length: int | None = None) -> list[Any]:
    """An array, of a certain length where one is given."""
    need(isinstance(value, list), "TD-JSN-012", f"{value!r} is no array")
    assert isinstance(value, list)
    need(length is None or len(value) == length, "TD-JSN-012", f"{value!r} has not {length} items")
    return value


def mapping(value: Any) -> dict[str, Any]:
    """An object."""
    need(isinstance(value, dict), "TD-JSN-012", f"{value!r} is no object")
    assert isinstance(value, dict)
    return value


def required(value: dict[str, Any], *names: str) -> list[Any]:
    """The values of required fields."""
    for name in names:
        need(name in value, "TD-JSN-011", f"`{name}` is absent")
    return [value[name] for name in names]


def path(value: Any, prefix: str = "", rule: str = "TD-PTH-001") -> str:
    """A path that begins with a prefix; `rule` asks for the prefix."""
    need(isinstance(value, str), "TD-JSN-012", f"{value!r} is no string")
    assert isinstance(value, str)
    need(re.fullmatch(PATH, value), "TD-PTH-001", f"{value!r} is no path")
    need(len(value) <= 200, "TD-PTH-002", "a path of more than 200 characters")
    need(value.startswith(prefix), rule, f"{value!r} does not begin with {prefix!r}")
    return value


def string_map(value: Any) -> dict[str, str]:
    """Annotations: strings by name."""
    found = {key: string(each) for key, each in mapping(value).items()}
    need(len(found) <= 64, "TD-LIM-004", "more than 64 annotations", "limit")
    for key, each in found.items():
        need(len(key.encode()) + len(each.encode()) <= 4096, "TD-LIM-001", f"the annotation {key[:40]!r}", "limit")
    return found


def document(data: bytes, limit: int) -> dict[str, Any]:
    """The JSON of an object; the version of the format is checked before anything else."""
    need(len(data) <= limit, "TD-LIM-004", f"{len(data)} bytes", "limit")
    value = parse_json(data)
    check_format(value)
    return value


def check_format(value: dict[str, Any]) -> None:
    """The field `tensordelta` names a format of this major number."""
    (written,) = required(value, "tensordelta")
    found = string(written, FORMAT)
    need(found.split(".")[0] == "1", "TD-VER-002", f"version {found} of the format", "unsupported")
