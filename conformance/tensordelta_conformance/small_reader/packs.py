"""Packs: section 6, and the legal combinations of section 7.11."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from .documents import Pack
from .fields import Fields, integer, parse_json
from .rejection import require
from .state import DTYPES, Layout, State, Tensor

HEADER = 100_000_000
CHUNK = 2**27
GROUP = 2**24


# -- section 6.1: the file --------------------------------------------------------------------------------------------


def split_file(data: bytes) -> tuple[bytes, bytes]:
    """The header and the buffer of a safetensors file."""
    require(len(data) >= 8, "TD-PCK-001", "fewer than 8 bytes")
    length = int.from_bytes(data[:8], "little")
    require(length <= HEADER, "TD-PCK-002", f"a header of {length} bytes", "limit")
    require(8 + length <= len(data), "TD-PCK-001", "the header does not fit into the file")
    require(data[8:9] == b"{", "TD-PCK-003", "the header does not begin with a brace")
    return data[8 : 8 + length], data[8 + length :]


def _span(fields: Fields, rule: str) -> tuple[int, int]:
    begin, end = (integer(each) for each in fields.array("data_offsets", 2))
    require(begin <= end, rule, "an entry ends before it begins")
    return begin, end


def _check_offsets(spans: Iterable[tuple[int, int]], length: int) -> None:
    at = 0
    for begin, end in sorted(spans):
        require(begin == at, "TD-PCK-004", "entries that leave a gap in the buffer, or overlap")
        at = end
    require(at == length, "TD-PCK-004", "the entries do not end where the file ends")


def check_entry(pack: Pack, tensors: Sequence[int], changed: int) -> None:
    """Section 4.8: a pack holds the tensors, and as many listed words, as its entry says."""
    for tensor in set(tensors):
        inside = any(first <= tensor < stop for first, stop in pack.tensors)
        require(inside, "TD-MAN-030", f"`tensors` lacks tensor {tensor}")
    require(pack.changed == changed, "TD-MAN-011", f"`changed` is {pack.changed}, not {changed}")


# -- section 6.4: plain packs -----------------------------------------------------------------------------------------


def read_plain_pack(data: bytes, layout: Layout) -> dict[int, Tensor]:
    """The tensors of a plain pack that the layout has, by their index there."""
    index = {tensor.name: at for at, tensor in enumerate(layout)}
    found: dict[int, Tensor] = {}
    for name, tensor in read_tensors(data).items():
        if name in index:
            entry = layout[index[name]]
            require((tensor.dtype, tensor.shape) == entry[1:], "TD-PCK-015", f"{name!r} is not as in the layout")
            found[index[name]] = tensor
    require(found, "TD-PCK-016", "no tensor of the layout")
    return found


def read_tensors(data: bytes) -> State:
    """All tensors of a safetensors file, by the rules of section 6.4."""
    header, buffer = split_file(data)
    places = _places(parse_json(header))
    _check_offsets((place[2:] for place in places.values()), len(buffer))
    return {name: Tensor.of(dtype, shape, buffer[begin:end]) for name, (dtype, shape, begin, end) in places.items()}


def _places(header: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """(dtype, shape, begin, end) of each entry."""
    _check_strings(Fields(header.pop("__metadata__", {})))
    places = {}
    for name, value in header.items():
        entry = Fields(value)
        dtype = entry.string("dtype")
        require(dtype in DTYPES, "TD-PCK-018", f"the dtype {dtype!r}", "unsupported")
        shape = tuple(integer(each) for each in entry.array("shape"))
        begin, end = _span(entry, "TD-PCK-014")
        require(math.prod(shape) * DTYPES[dtype].bits == 8 * (end - begin), "TD-PCK-014", "bytes that fit no shape")
        places[name] = (dtype, shape, begin, end)
    return places


def _check_strings(metadata: Fields) -> None:
    for key in metadata.members:
        metadata.string(key)


# -- section 6.2: the container of chunks -----------------------------------------------------------------------------


class ChunkFile(NamedTuple):
    """A chunk pack, taken apart: the text of the chunk table, and the stored bytes of each entry."""

    table: str
    stored: dict[str, bytes]


def open_chunk_file(data: bytes) -> ChunkFile:
    """The table and the entries of a chunk pack."""
    header, buffer = split_file(data)
    entries = parse_json(header)
    require(isinstance(entries.get("__metadata__"), dict), "TD-PCK-010", "no __metadata__")
    metadata = entries.pop("__metadata__")
    require(all(isinstance(each, str) for each in metadata.values()), "TD-PCK-010", "metadata that is no string")
    require("tensordelta" in metadata, "TD-PCK-010", "no chunk table in __metadata__")
    stored: dict[str, bytes] = {}
    spans = []
    for name, value in entries.items():
        entry = Fields(value)
        begin, end = _span(entry, "TD-PCK-008")
        spans.append((begin, end))
        require(entry.string("dtype") == "U8", "TD-PCK-008", f"{name!r} is not U8")
        shape = [integer(each) for each in entry.array("shape")]
        require(shape == [end - begin], "TD-PCK-008", f"the shape of {name!r}")
        stored[name] = buffer[begin:end]
    _check_offsets(spans, len(buffer))
    return ChunkFile(metadata["tensordelta"], stored)


# -- section 6.3: the chunk table -------------------------------------------------------------------------------------


class Chunk(NamedTuple):
    """A chunk entry, with the stored bytes of its streams; `limit` and `shift` are 0 where no codec has them, and
    `groups` is one of all slices where none are given."""

    dtype: str
    slices: list[tuple[int, int, int]]
    changed: int
    order: str
    limit: int
    groups: list[int]
    positions: str
    shift: int
    values: str
    compression: str
    result: int
    streams: dict[str, bytes]

    @property
    def n(self) -> int:
        """The number of words of its slices."""
        return sum(stop - start for _, start, stop in self.slices)

    @property
    def w(self) -> int:
        """The bits of a word."""
        return DTYPES[self.dtype].w


def read_chunks(file: ChunkFile, layout: Layout, digest: str, features: Sequence[str]) -> list[Chunk]:
    """The chunks of a pack, with their streams; `digest` and `features` are the manifest's."""
    chunks = parse_table(file.table, digest)
    for index, chunk in enumerate(chunks):
        _check_chunk(chunk, layout, features)
        for name in stream_sizes(chunk):
            if f"{index}.{name}" in file.stored:
                chunk.streams[name] = file.stored[f"{index}.{name}"]
            else:
                require(name.startswith("escapes."), "TD-PCK-013", f"no stream {index}.{name}")
    require(sum(len(each.streams) for each in chunks) == len(file.stored), "TD-PCK-012", "an entry that is no stream")
    return chunks


def parse_table(text: str, digest: str) -> list[Chunk]:
    """The chunk entries of a table; `digest` is that of the manifest's layout."""
    table = Fields(parse_json(text.encode()))
    table.check_format()
    require(table.digest("layout") == digest, "TD-CHK-003", "the chunk table is for another layout")
    entries = table.array("chunks")
    require(entries, "TD-CHK-001", "no chunks")
    return [_parse_chunk(Fields(entry)) for entry in entries]


def _parse_chunk(fields: Fields) -> Chunk:
    dtype = fields.string("dtype")
    require(dtype in DTYPES, "TD-CHK-010", f"the dtype {dtype!r}", "unsupported")
    slices = []
    for entry in fields.array("slices"):
        require(isinstance(entry, list) and len(entry) == 3, "TD-JSN-012", "a slice is three integers")
        tensor, start, stop = (integer(each) for each in entry)
        slices.append((tensor, start, stop))
    require(slices, "TD-CHK-002", "a chunk without slices")
    order, limit = _codec(fields, "order", {"natural": None, "exponent": "limit"})
    codec = Fields(fields.get("order"))
    groups = [integer(each) for each in codec.array("groups")] if "groups" in codec else [len(slices)]
    require(all(groups) and sum(groups) == len(slices), "TD-ORD-006", "`groups` are not those of the slices")
    positions, shift = _codec(fields, "positions", {"gap": "shift", "bitmap": None, "all": None})
    values, _ = _codec(fields, "values", {"step": None, "replace": None})
    require(shift in (0, 4, 8), "TD-CHK-013", "`shift` is not 0, 4 or 8")
    compression = fields.string("compression")
    require(compression in ("none", "zstd"), "TD-CHK-015", f"the compression {compression!r}", "unsupported")
    changed, total = fields.integer("changed"), fields.sum("result")
    return Chunk(dtype, slices, changed, order, limit, groups, positions, shift, values, compression, total, {})


def _codec(fields: Fields, key: str, known: dict[str, str | None]) -> tuple[str, int]:
    """The name and the parameter (0 for none) of a codec object."""
    codec = Fields(fields.get(key))
    name = codec.string("codec")
    require(name in known, "TD-CHK-012", f"the codec {name!r}", "unsupported")
    parameter = known[name]
    require(parameter is None or parameter in codec, "TD-CHK-013", f"codec {name!r} lacks a parameter")
    members = {"codec", parameter, "groups"} if name == "exponent" else {"codec", parameter}
    require(set(codec.members) <= members, "TD-CHK-014", f"codec {name!r} has an unknown member")
    return name, 0 if parameter is None else codec.integer(parameter)


def _check_chunk(chunk: Chunk, layout: Layout, features: Sequence[str]) -> None:
    """What an entry may be for this layout and these features, and the combinations of section 7.11."""
    kind = DTYPES[chunk.dtype]
    for tensor, start, stop in chunk.slices:
        require(tensor < len(layout), "TD-CHK-008", "a slice of no tensor")
        require(start < stop, "TD-CHK-007", "a slice without words")
        require(stop <= layout[tensor].words, "TD-CHK-008", "a slice beyond its tensor")
        require(layout[tensor].dtype == chunk.dtype, "TD-CHK-009", "a slice of another dtype")
    for (tensor, start, stop), (following, begin, _) in pairwise(chunk.slices):
        require((tensor, start) <= (following, begin), "TD-CHK-004", "slices that are not sorted")
        require(tensor < following or stop <= begin, "TD-CHK-005", "slices that overlap")
    require(1 <= chunk.changed <= chunk.n, "TD-CHK-011", "`changed` is 0, or more than the chunk has words")
    require(chunk.n <= CHUNK, "TD-CHK-016", "more than 2^27 words", "limit")
    if chunk.positions == "all":
        require(chunk.changed == chunk.n, "TD-POS-011", "positions `all` without all words")
    if chunk.order == "exponent":
        require(chunk.positions != "all", "TD-POS-012", "positions `all` in another order")
        require(chunk.values != "replace", "TD-VAL-006", "values `replace` in another order")
        require(kind.mask, "TD-ORD-003", "a dtype without exponents")
        require(1 <= chunk.limit <= 1 << kind.exponent_bits, "TD-ORD-004", "`limit` is out of range")
        require(max(group_sizes(chunk)) <= GROUP, "TD-ORD-005", "a group of more than 2^24 words", "limit")
        require("exponent-order" in features, "TD-MAN-006", "a feature that is not listed")


def group_sizes(chunk: Chunk) -> list[int]:
    """The number of words of each group of slices (section 7.3)."""
    sizes = [stop - start for _, start, stop in chunk.slices]
    ends = list(accumulate(chunk.groups))
    return [sum(sizes[end - count : end]) for count, end in zip(chunk.groups, ends, strict=True)]


def stream_sizes(chunk: Chunk) -> dict[str, tuple[int, int]]:
    """The least and the greatest size of each stream that a chunk may have (section 7.9)."""
    n, m, s = chunk.n, chunk.changed, chunk.shift
    sizes = {}
    if chunk.positions == "gap":
        sizes["gaps"] = (m, m + (n - m) // (255 << s))
    if chunk.positions == "gap" and s:
        sizes["low"] = (m, m) if s == 8 else (-(-m // 2), -(-m // 2))
    if chunk.positions == "bitmap":
        sizes["bitmap"] = (-(-n // 8), -(-n // 8))
    if chunk.values == "step":
        sizes["codes"] = (-(-m // 4), -(-m // 4))
    planes = ("escapes", (1, m)) if chunk.values == "step" else ("values", (m, m))
    return sizes | {f"{planes[0]}.{j}": planes[1] for j in range(chunk.w // 8)}
