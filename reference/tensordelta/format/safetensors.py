"""The safetensors container: a JSON header over one buffer (SPEC.md section 6.1).

Two parsers share one set of checks: `parse_strict` for packs with chunks, whose header obeys the format's JSON rules,
and `parse_plain` for ordinary checkpoint shards, which accepts what safetensors itself accepts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..codecs.words import DTYPES
from ..errors import LimitError, MalformedError
from . import strict_json
from .layout import MAX_TENSORS
from .names import Integer

#: Greatest size of a header, in bytes.
MAX_HEADER = 100_000_000
_PREFIX = 8


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of a container: dtype, shape, and the range of its bytes in the buffer."""

    dtype: str
    shape: tuple[Integer, ...]
    data_offsets: tuple[Integer, Integer]


_Size = Annotated[int, Meta(ge=0)]


class _PlainEntry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


@dataclass(frozen=True)
class Header:
    """A container's header.

    Attributes:
        entries: tensors by name; offsets count from the start of the buffer.
        metadata: the strings of `__metadata__`.
        start: offset of the buffer in the file, in bytes.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int


def header_size(prefix: bytes, *, size: int, object: str) -> int:
    """Length of the header from the file's first eight bytes.

    Args:
        prefix: the first eight bytes.
        size: the file's size.

    Raises:
        MalformedError: the file is too short.
        LimitError: the header is too long.
    """
    if len(prefix) < _PREFIX:
        raise MalformedError("shorter than the eight bytes of a header's length", object=object, rule="TD-PCK-001")
    length = int.from_bytes(prefix[:_PREFIX], "little")
    if length > MAX_HEADER:
        raise LimitError(f"a header of {length} bytes", object=object, rule="TD-PCK-002")
    if _PREFIX + length > size:
        raise MalformedError("the header is longer than the file", object=object, rule="TD-PCK-001")
    return length


def parse_strict(header: bytes, *, size: int, object: str) -> Header:
    """Parse the header of a pack with chunks.

    Args:
        header: its JSON.
        size: the file's size.

    Raises:
        MalformedError: not JSON of the format, or the tensors do not cover the buffer exactly.
    """
    if not header.startswith(b"{"):
        raise MalformedError("the header does not begin with {", object=object, rule="TD-PCK-003")
    value = strict_json.parse(header, object=object, limit=MAX_HEADER)
    metadata = strict_json.convert(
        value.pop("__metadata__", {}), dict[str, str], object=object, rule="TD-PCK-010", refine=_no_other
    )
    entries = strict_json.convert(value, dict[str, Entry], object=object, rule="TD-PCK-008", refine=_entry_rule)
    return _checked(Header(entries, metadata, _PREFIX + len(header)), size, object, rule="TD-PCK-008")


def _no_other(_: str) -> None:
    return None


def _entry_rule(fault: str) -> str | None:
    return "TD-PCK-009" if "unknown field" in fault else None


def parse_plain(header: bytes, *, size: int, object: str) -> Header:
    """Parse the header of an ordinary safetensors file.

    Raises:
        MalformedError: safetensors would not read the file.
    """
    if not header.startswith(b"{"):
        raise MalformedError("the header does not begin with {", object=object, rule="TD-PCK-014")
    if header.count(b'"data_offsets"') > MAX_TENSORS:  # before minutes are spent on them
        raise LimitError("more than 2^20 tensors", object=object, rule="TD-LIM-004")
    if strict_json.depth(header) > strict_json.MAX_DEPTH:
        raise LimitError(f"the header is nested deeper than {strict_json.MAX_DEPTH}", object=object, rule="TD-PCK-022")
    try:
        value: Any = json.loads(
            header.decode(), object_pairs_hook=_once, parse_int=_plain_integer, parse_constant=_no_constant
        )
    except _TwiceError as error:
        raise MalformedError(f"two entries are named {error}", object=object, rule="TD-PCK-021") from None
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the header is not JSON: {error}", object=object, rule="TD-PCK-014") from None
    if strict_json.has_lone_surrogate(header, value):
        raise MalformedError("a lone surrogate in the header", object=object, rule="TD-PCK-014")
    metadata = strict_json.convert(
        value.pop("__metadata__", {}), dict[str, str], object=object, rule="TD-PCK-014", refine=_no_other
    )
    plain = strict_json.convert(value, dict[str, _PlainEntry], object=object, rule="TD-PCK-014", refine=_no_other)
    entries = {name: Entry(each.dtype, each.shape, each.data_offsets) for name, each in plain.items()}
    return _checked(Header(entries, metadata, _PREFIX + len(header)), size, object, rule="TD-PCK-014")


class _TwiceError(Exception):
    """A name occurs twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise _TwiceError(repr(name))
        members[name] = value
    return members


def _plain_integer(literal: str) -> object:
    # Sizes are 64-bit integers. Any other number may be in a member without meaning, so it is no fault by itself.
    number = int(literal) if literal[0] != "-" and len(literal) <= 20 else None
    return number if number is not None and number < 2**64 else None


def _no_constant(literal: str) -> object:
    raise ValueError(f"{literal} is not JSON")


def _checked(header: Header, size: int, object: str, *, rule: str) -> Header:
    at = 0
    for name, entry in sorted(header.entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if begin != at or end < begin:
            raise MalformedError(
                f"tensor {name!r} begins at byte {begin} of the buffer, not at {at}", object=object, rule="TD-PCK-004"
            )
        dtype = DTYPES.get(entry.dtype)
        # The caller refuses an unknown dtype if it needs the tensor; it knows the rule that is broken then.
        if dtype is not None and not _fills(entry.shape, dtype.bits, (end - begin) * 8):
            raise MalformedError(
                f"tensor {name!r} has {end - begin} bytes, not what its dtype and shape say", object=object, rule=rule
            )
        at = end
    if header.start + at != size:
        raise MalformedError(
            f"the tensors end at byte {header.start + at}, the file at {size}", object=object, rule="TD-PCK-004"
        )
    return header


def _fills(shape: tuple[int, ...], bits: int, wanted: int) -> bool:
    """True where a shape of such elements has `wanted` bits; stops early, since a shape may have a million sizes."""
    if 0 in shape:
        return not wanted
    total = bits
    for size in shape:
        total *= size
        if total > wanted:
            return False
    return total == wanted


def build_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """The bytes before the buffer of a new container, its length prefix included; padded to a multiple of 8.

    Args:
        tensors: (name, dtype, shape, bytes) in the order of the buffer.
        metadata: strings for `__metadata__`; omitted when empty.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, dtype, shape, nbytes in tensors:
        header[name] = Entry(dtype, shape, (at, at + nbytes))
        at += nbytes
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_PREFIX, "little") + text
