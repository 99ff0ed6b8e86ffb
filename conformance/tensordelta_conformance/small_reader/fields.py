"""JSON, and the types of its fields: sections 4.3 and 4.4, with their limits of section 16."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .rejection import Rejection, require

NESTING = 16
INTEGER = 2**53 - 1
VERSION = 10**12 - 1
PATH = 200

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_INTEGER = re.compile(r"0|[1-9][0-9]*")
#: The version of the format that it reads.
SPEC_VERSION = "1.0-rc.1"
_FORMAT = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[a-z0-9.]{1,16})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUM = re.compile(r"[0-9a-f]{16}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?Z"
)
_SEGMENT = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_PATH = re.compile(f"{_SEGMENT}(/{_SEGMENT})*")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)


class Number(NamedTuple):
    """A JSON number as it is written: what it may be depends on the field."""

    literal: str


def parse_json(data: bytes) -> dict[str, Any]:
    """The one JSON object that the bytes are; numbers stay as they are written."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejection("malformed", "TD-JSN-001", "not UTF-8") from None
    require(not text.startswith("\ufeff"), "TD-JSN-002", "a byte order mark")
    require(_depth(text) <= NESTING, "TD-JSN-008", "nested deeper than 16 levels", "limit")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=_no_constant
        )
    except ValueError as error:
        raise Rejection("malformed", "TD-JSN-003", str(error)) from None
    require(isinstance(value, dict), "TD-JSN-003", "not a JSON object")
    require(not any(_SURROGATE.search(each) for each in _strings(value)), "TD-JSN-005", "a surrogate without its pair")
    return dict(value)


def _depth(text: str) -> int:
    """The deepest nesting of a JSON text, found before it is parsed, so that deep nesting needs no deep stack."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    require(len(found) == len(members), "TD-JSN-004", "two members of one name in an object")
    return found


def _no_constant(literal: str) -> None:
    raise Rejection("malformed", "TD-JSN-007", f"the literal {literal}")


def _strings(value: Any) -> Iterator[str]:
    """All strings and member names of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)


def integer(value: Any, highest: int = INTEGER) -> int:
    """The integer of a known field, or of an array in one."""
    require(isinstance(value, Number), "TD-JSN-012", f"{value!r} is no number")
    require(_INTEGER.fullmatch(value.literal), "TD-JSN-009", f"{value.literal} is no integer")
    require(len(value.literal) <= 20 and int(value.literal) <= highest, "TD-JSN-010", f"an integer over {highest}")
    return int(value.literal)


class Fields:
    """The members of a JSON object, each by its type in the field tables."""

    def __init__(self, value: Any) -> None:
        require(isinstance(value, dict), "TD-JSN-012", f"{value!r} is no object")
        self.members: dict[str, Any] = value

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def get(self, key: str) -> Any:
        """The value of a required field, of any type."""
        require(key in self.members, "TD-JSN-011", f"no field {key!r}")
        return self.members[key]

    def string(self, key: str, pattern: re.Pattern[str] | None = None, rule: str = "TD-JSN-015") -> str:
        """A string that matches a pattern; `rule` asks for the match."""
        value = self.get(key)
        require(isinstance(value, str), "TD-JSN-012", f"{key!r} is no string")
        require(pattern is None or pattern.fullmatch(value), rule, f"{key!r} is {value!r}")
        return str(value)

    def integer(self, key: str) -> int:
        """An integer."""
        return integer(self.get(key))

    def version(self, key: str) -> int:
        """A version."""
        require(self.integer(key) <= VERSION, "TD-LIM-004", f"{key!r} is over 10^12 - 1")
        return self.integer(key)

    def array(self, key: str, length: int | None = None) -> list[Any]:
        """An array, of a certain length where one is given."""
        value = self.get(key)
        require(isinstance(value, list), "TD-JSN-012", f"{key!r} is no array")
        require(length in (None, len(value)), "TD-JSN-012", f"{key!r} has {len(value)} items, not {length}")
        return list(value)

    def strings(self, key: str, pattern: re.Pattern[str] | None = None) -> list[str]:
        """An array of strings that match a pattern."""
        value = self.array(key)
        require(all(isinstance(each, str) for each in value), "TD-JSN-012", f"an item of {key!r} is no string")
        if pattern is not None:
            require(all(pattern.fullmatch(each) for each in value), "TD-JSN-015", f"{key!r} is {value!r}")
        return value

    def digest(self, key: str) -> str:
        """A SHA-256."""
        return self.string(key, _DIGEST)

    def sum(self, key: str) -> int:
        """A fingerprint."""
        return int(self.string(key, _SUM), 16)

    def uuid(self, key: str) -> str:
        """A UUID."""
        return self.string(key, _UUID)

    def path(self, key: str, prefix: str = "", rule: str = "TD-PTH-001") -> str:
        """A path of section 4.4 that begins with a prefix; `rule` asks for the prefix."""
        value = self.string(key, _PATH, "TD-PTH-001")
        require(not any(map(_DEVICE.fullmatch, value.split("/"))), "TD-PTH-001", f"{key!r} names a device")
        require(len(value) <= PATH, "TD-PTH-002", f"{key!r} is longer than 200 characters")
        require(value.startswith(prefix), rule, f"{key!r} does not begin with {prefix!r}")
        return value

    def check_format(self) -> None:
        """The field `tensordelta`, which is checked before any other."""
        found = self.string("tensordelta", _FORMAT)
        require(found == SPEC_VERSION, "TD-VER-002", f"format {found}", "unsupported")

    def check_created(self) -> None:
        """The time `created`."""
        self.string("created", _TIME)

    def annotations(self) -> dict[str, str]:
        """The field `annotations`, empty where it is absent."""
        annotations = Fields(self.members.get("annotations", {}))
        require(len(annotations.members) <= 64, "TD-LIM-004", "more than 64 annotations", "limit")
        for key in annotations.members:
            length = len(key.encode()) + len(annotations.string(key).encode())
            require(length <= 4096, "TD-LIM-001", f"an annotation of {length} bytes", "limit")
        return annotations.members


def document(data: bytes, limit: int) -> Fields:
    """The fields of a stored JSON object of at most `limit` bytes, its format checked."""
    require(len(data) <= limit, "TD-LIM-004", f"more than {limit} bytes", "limit")
    fields = Fields(parse_json(data))
    fields.check_format()
    return fields
