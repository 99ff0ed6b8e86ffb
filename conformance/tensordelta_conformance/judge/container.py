"""The file of a pack: header and buffer (SPEC.md sections 6.1, 6.2 and 6.4)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .faults import Fault, need
from .fields import array, integer, mapping, required, string
from .ijson import Number, parse_json
from .model import DTYPES, Layout, Tensor

LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class ChunkFile:
    """A chunk pack, taken apart: the text of its table, and the stored bytes of each entry."""

    table: str
    stored: dict[str, bytes]


def split_file(data: bytes) -> tuple[bytes, bytes]:
    """A pack's header and its buffer."""
    need(len(data) >= 8, "TD-PCK-001", "fewer than 8 bytes")
    length = int.from_bytes(data[:8], "little")
    need(length <= LONGEST_HEADER, "TD-PCK-002", "a long header", "limit")
    need(8 + length <= len(data), "TD-PCK-001", "the header does not fit into the file")
    header = data[8 : 8 + length]
    need(header[:1] == b"{", "TD-PCK-003", "the header does not begin with {")
    return header, data[8 + length :]


def padding(data: bytes) -> bytes:
    """What stands in a pack's header after its object."""
    header, _ = split_file(data)
    return header[header.rfind(b"}") + 1 :]


def read_chunk_file(data: bytes) -> ChunkFile:
    """The entries of a chunk pack (section 6.2)."""
    header, buffer = split_file(data)
    value = parse_json(header)
    need(isinstance(value.get("__metadata__"), dict), "TD-PCK-010", "no __metadata__")
    metadata = value["__metadata__"]
    need(all(isinstance(each, str) for each in metadata.values()), "TD-PCK-010", "metadata that is no string")
    need("tensordelta" in metadata, "TD-PCK-010", "no chunk table in __metadata__")
    stored: dict[str, bytes] = {}
    offsets = []
    for name, entry in value.items():
        if name == "__metadata__":
            continue
        dtype, shape, place = required(mapping(entry), "dtype", "shape", "data_offsets")
        need(set(entry) == {"dtype", "shape", "data_offsets"}, "TD-PCK-009", f"an unknown member in {name!r}")
        begin, end = (integer(each) for each in array(place, 2))
        need(begin <= end, "TD-PCK-008", f"{name!r} ends before it begins")
        need(string(dtype) == "U8", "TD-PCK-008", f"{name!r} is not U8")
        need([integer(each) for each in array(shape, 1)] == [end - begin], "TD-PCK-008", f"the shape of {name!r}")
        offsets.append((begin, end))
        stored[name] = buffer[begin:end]
    _check_cover(offsets, len(buffer))
    return ChunkFile(metadata["tensordelta"], stored)


def read_plain_pack(data: bytes, layout: Layout) -> dict[int, Tensor]:
    """The tensors of the layout that a plain pack holds, by tensor index (section 6.4)."""
    index = {name: tensor for tensor, (name, _, _) in enumerate(layout)}
    found: dict[int, Tensor] = {}
    for name, tensor in read_tensors(data).items():
        if name in index:
            wanted = layout[index[name]][1:]
            need((tensor.dtype, tensor.shape) == wanted, "TD-PCK-015", f"{name!r} differs from the layout")
            found[index[name]] = tensor
    need(found, "TD-PCK-016", "no tensor of the layout")
    return found


def read_tensors(data: bytes) -> dict[str, Tensor]:
    """All tensors of a safetensors file whose dtypes are those of this format."""
    header, buffer = split_file(data)
    value = _plain_header(header)
    for each in mapping(value.pop("__metadata__", {})).values():
        string(each)
    places: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
    for name, entry in value.items():
        dtype, shape, place = required(mapping(entry), "dtype", "shape", "data_offsets")
        sizes = tuple(_u64(each) for each in array(shape))
        begin, end = (_u64(each) for each in array(place, 2))
        need(begin <= end, "TD-PCK-014", f"{name!r} ends before it begins")
        need(string(dtype) in DTYPES, "TD-PCK-018", f"the dtype {dtype!r}", "unsupported")
        need((end - begin) * 8 == math.prod(sizes) * DTYPES[dtype].bits, "TD-PCK-014", f"the size of {name!r}")
        places[name] = (dtype, sizes, begin, end)
    _check_cover((place[2:] for place in places.values()), len(buffer))
    return {name: Tensor.of(dtype, shape, buffer[begin:end]) for name, (dtype, shape, begin, end) in places.items()}


def _plain_header(header: bytes) -> dict[str, Any]:
    """A header by the rules of safetensors: those of section 4.3 that also hold for it have their own ids."""
    try:
        return parse_json(header)
    except Fault as fault:
        rule = {"TD-JSN-004": "TD-PCK-021", "TD-JSN-008": "TD-PCK-022"}.get(fault.rule, fault.rule)
        raise Fault(fault.name, rule, fault.reason) from None


def _u64(value: Any) -> int:
    need(isinstance(value, Number) and value.literal.isdecimal(), "TD-PCK-014", f"{value!r} is no integer")
    literal = str(value.literal)
    need(literal == "0" or literal[0] != "0", "TD-PCK-014", f"{literal} is no integer")
    need(len(literal) <= 20 and int(literal) < 2**64, "TD-PCK-014", f"{literal} is too great")
    return int(literal)


def _check_cover(offsets: Iterable[tuple[int, int]], size: int) -> None:
    at = 0
    for begin, end in sorted(offsets):
        need(begin == at and begin <= end, "TD-PCK-004", "the entries do not cover the buffer")
        at = end
    need(at == size, "TD-PCK-004", "the entries do not end where the file ends")
