"""The safetensors container: a JSON header over one buffer (SPEC.md section 6.1).

Two readers share one set of checks: `parse_strict` for packs with chunks, whose header obeys the format's JSON rules,
and `parse_plain` for ordinary checkpoint shards, which are taken as safetensors takes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from . import ijson
from .errors import LimitError, MalformedError
from .objects import Integer
from .words import DTYPES, elements

#: Bytes of a header.
MAX_HEADER = 100_000_000
_PREFIX = 8


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of a container: dtype, shape, and where its bytes lie in the buffer."""

    dtype: str
    shape: tuple[Integer, ...]
    data_offsets: tuple[Integer, Integer]


class _PlainEntry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[Integer, ...]
    data_offsets: tuple[Integer, Integer]


@dataclass(frozen=True)
class Header:
    """A container's header.

    Attributes:
        entries: tensors by name; offsets count from the start of the buffer.
        metadata: the strings of `__metadata__`.
        start: where the buffer starts in the file, in bytes.
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
    value = ijson.parse(header, object=object, limit=MAX_HEADER)
    metadata = ijson.convert(value.pop("__metadata__", {}), dict[str, str], object=object, rule="TD-PCK-010")
    entries = ijson.convert(value, dict[str, Entry], object=object, rule="TD-PCK-008")
    return _checked(entries, metadata, _PREFIX + len(header), size, object)


def parse_plain(header: bytes, *, size: int, object: str) -> Header:
    """Parse the header of an ordinary safetensors file.

    Raises:
        MalformedError: safetensors would not read the file.
    """
    if not header.startswith(b"{"):
        raise MalformedError("the header does not begin with {", object=object, rule="TD-PCK-014")
    try:
        value: Any = json.loads(header.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the header is not JSON: {error}", object=object, rule="TD-PCK-014") from None
    raw = value.pop("__metadata__", None)
    metadata = ijson.convert(raw or {}, dict[str, str], object=object, rule="TD-PCK-014")
    plain = ijson.convert(value, dict[str, _PlainEntry], object=object, rule="TD-PCK-014")
    entries = {name: Entry(each.dtype, each.shape, each.data_offsets) for name, each in plain.items()}
    return _checked(entries, metadata, _PREFIX + len(header), size, object)


def _checked(entries: dict[str, Entry], metadata: dict[str, str], start: int, size: int, object: str) -> Header:
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if begin != at or end < begin:
            raise MalformedError(
                f"tensor {name!r} begins at byte {begin} of the buffer, not at {at}", object=object, rule="TD-PCK-004"
            )
        dtype = DTYPES.get(entry.dtype)
        # A dtype that this version does not know is refused by whoever needs the tensor, by its proper name.
        if dtype is not None and elements(entry.shape) * dtype.bits != (end - begin) * 8:
            raise MalformedError(
                f"tensor {name!r} has {end - begin} bytes, not what its dtype and shape say",
                object=object,
                rule="TD-PCK-014",
            )
        at = end
    if start + at != size:
        raise MalformedError(
            f"the tensors end at byte {start + at}, the file at {size}", object=object, rule="TD-PCK-004"
        )
    return Header(entries, metadata, start)


def build_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """The bytes before the buffer of a new container, its length prefix included; padded to a multiple of 8.

    Args:
        tensors: (name, dtype, shape, bytes) in the order of the buffer.
        metadata: strings for `__metadata__`; left out when empty.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, dtype, shape, nbytes in tensors:
        header[name] = Entry(dtype, shape, (at, at + nbytes))
        at += nbytes
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_PREFIX, "little") + text
