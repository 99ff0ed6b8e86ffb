"""The safetensors container: a JSON header over one buffer (SPEC.md section 6.1).

One set of rules holds for packs with chunks and for ordinary checkpoint shards: the format's JSON rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..codecs.words import DTYPES
from ..errors import LimitError, MalformedError
from . import strict_json
from .layout import MAX_TENSORS
from .names import Integer

#: Greatest size of a header, in bytes.
MAX_HEADER = 100_000_000
_PREFIX = 8


class Entry(msgspec.Struct, frozen=True):
    """One tensor of a container: dtype, shape, and the range of its bytes in the buffer."""

    dtype: str
    shape: tuple[Integer, ...]
    data_offsets: tuple[Integer, Integer]


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


def parse_header(header: bytes, *, size: int, object: str, of_chunks: bool = False) -> Header:
    """Parse the header of a pack, or of any safetensors file.

    Args:
        header: its JSON.
        size: the file's size.
        of_chunks: it is that of a pack with chunks, whose entries and metadata have rules of their own.

    Raises:
        MalformedError: not JSON of the format, or the tensors do not cover the buffer exactly.
        LimitError: nested deeper than 16.
    """
    if not header.startswith(b"{"):
        raise MalformedError("the header does not begin with {", object=object, rule="TD-PCK-003")
    if header.count(b'"data_offsets"') > MAX_TENSORS:  # before minutes are spent on them
        raise LimitError("more than 2^20 tensors", object=object, rule="TD-LIM-004")
    rule, metadata_rule = ("TD-PCK-008", "TD-PCK-010") if of_chunks else ("TD-PCK-014", "TD-PCK-014")
    try:
        value = strict_json.parse(header, object=object, limit=MAX_HEADER)
    except (MalformedError, LimitError) as fault:
        raise type(fault)(f"in the header: {fault.reason}", object=object, rule=fault.rule) from None
    metadata = strict_json.convert(
        value.pop("__metadata__", {}), dict[str, str], object=object, rule=metadata_rule, refine=lambda _: None
    )
    entries = strict_json.convert(value, dict[str, Entry], object=object, rule=rule, refine=lambda _: None)
    return _checked(Header(entries, metadata, _PREFIX + len(header)), size, object, rule=rule)


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
