"""The chunk table of a pack (SPEC.md section 6.3) and its legal combinations (section 7.11)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from .container import ChunkFile
from .faults import need
from .fields import DIGEST, SUM, array, check_format, integer, mapping, required, string
from .ijson import parse_json
from .model import DTYPES, Layout, word_count


@dataclass
class Chunk:
    """A chunk entry with the stored bytes of its streams; `limit` and `shift` are 0 where the codec has none."""

    dtype: str
    slices: list[tuple[int, int, int]]
    changed: int
    order: str
    limit: int
    positions: str
    shift: int
    values: str
    compression: str
    fingerprint: str
    streams: dict[str, bytes] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """The number of words of the slices."""
        return sum(stop - start for _, start, stop in self.slices)

    @property
    def w(self) -> int:
        """Bits of a word."""
        return DTYPES[self.dtype].w


def read_chunks(file: ChunkFile, layout: Layout, digest: str, features: list[str]) -> list[Chunk]:
    """The chunks of a pack; `digest` and `features` are the manifest's."""
    chunks = parse_table(file.table, digest)
    stored = dict(file.stored)
    for index, chunk in enumerate(chunks):
        check_chunk(chunk, layout, features)
        for name in list(stored):
            if name.startswith(f"{index}."):
                chunk.streams[name.removeprefix(f"{index}.")] = stored.pop(name)
        always, perhaps = stream_names(chunk)
        need(always <= set(chunk.streams), "TD-PCK-013", f"chunk {index} lacks a stream")
        need(set(chunk.streams) <= always | perhaps, "TD-PCK-012", f"chunk {index} has a stream too many")
    need(not stored, "TD-PCK-012", f"{list(stored)} are no streams")
    return chunks


def parse_table(text: str, digest: str) -> list[Chunk]:
    """A chunk table; `digest` is the manifest's layout."""
    value = parse_json(text.encode())
    check_format(value)
    layout, chunks = required(value, "layout", "chunks")
    need(string(layout, DIGEST) == digest, "TD-CHK-003", "the table is for another layout")
    need(len(array(chunks)) >= 1, "TD-CHK-001", "no chunks")
    return [_chunk(mapping(each)) for each in chunks]


def _chunk(value: dict[str, Any]) -> Chunk:
    dtype, slices, changed, order, positions, values, compression, total = required(
        value, "dtype", "slices", "changed", "order", "positions", "values", "compression", "fingerprint"
    )
    need(string(dtype) in DTYPES, "TD-CHK-010", f"the dtype {dtype!r}", "unsupported")
    parsed = []
    for each in array(slices):
        tensor, start, stop = (integer(number) for number in array(each, 3))
        parsed.append((tensor, start, stop))
    order_name, limit = _codec(order, {"natural": None, "exponent": "limit"})
    positions_name, shift = _codec(positions, {"gap": "shift", "bitmap": None, "all": None})
    values_name, _ = _codec(values, {"step": None, "replace": None})
    need(shift in (0, 4, 8), "TD-CHK-013", f"shift {shift}")
    need(order_name == "natural" or 1 <= limit <= 2**11, "TD-ORD-004", f"limit {limit}")
    need(string(compression) in ("none", "zstd"), "TD-CHK-015", f"compression {compression!r}", "unsupported")
    string(total, SUM)
    m = integer(changed)
    return Chunk(dtype, parsed, m, order_name, limit, positions_name, shift, values_name, compression, total)


def _codec(value: Any, parameters: dict[str, str | None]) -> tuple[str, int]:
    """The name and the parameter (0 for none) of a codec object."""
    (name,) = required(mapping(value), "codec")
    need(string(name) in parameters, "TD-CHK-012", f"the codec {name!r}", "unsupported")
    parameter = parameters[name]
    members = {"codec"} if parameter is None else {"codec", parameter}
    need(members <= set(value), "TD-CHK-013", f"codec {name} lacks a parameter")
    need(set(value) <= members, "TD-CHK-014", f"codec {name} has an unknown member")
    return name, 0 if parameter is None else integer(value[parameter])


def check_chunk(chunk: Chunk, layout: Layout, features: list[str]) -> None:
    """The rules of a chunk entry that need the layout or the manifest's features."""
    need(chunk.slices, "TD-CHK-002", "no slices")
    for tensor, start, stop in chunk.slices:
        need(tensor < len(layout), "TD-CHK-008", f"no tensor {tensor}")
        need(start < stop, "TD-CHK-007", f"the slice {(tensor, start, stop)}")
        need(stop <= word_count(*layout[tensor][1:]), "TD-CHK-008", f"the slice {(tensor, start, stop)}")
        need(layout[tensor][1] == chunk.dtype, "TD-CHK-009", "a tensor of another dtype")
    for (tensor, start, stop), after in itertools.pairwise(chunk.slices):
        need((tensor, start) <= after[:2], "TD-CHK-004", "slices are not sorted")
        need(tensor < after[0] or stop <= after[1], "TD-CHK-005", "slices overlap")
    need(chunk.n <= 2**27, "TD-CHK-016", "too many words", "limit")
    need(1 <= chunk.changed <= chunk.n, "TD-CHK-011", "`changed` is out of range")
    if chunk.order == "exponent":
        bits = DTYPES[chunk.dtype].exponent_bits
        need(bits, "TD-ORD-003", f"{chunk.dtype} has no exponent")
        need(chunk.limit <= 2**bits, "TD-ORD-004", "the limit is out of range")
        need(chunk.positions != "all", "TD-POS-012", "positions `all` in order `exponent`")
        need(chunk.values == "step", "TD-VAL-006", "values `replace` in order `exponent`")
        need(chunk.n <= 2**24, "TD-ORD-005", "too many words", "limit")
        need("exponent-order" in features, "TD-MAN-006", "exponent-order is not listed")
    need(chunk.positions != "all" or chunk.changed == chunk.n, "TD-POS-011", "positions `all`, but not all words")


def stream_names(chunk: Chunk) -> tuple[set[str], set[str]]:
    """The streams that a chunk always has, and those that it has if a code is 3."""
    names = set()
    if chunk.positions == "gap":
        names = {"gaps"} if chunk.shift == 0 else {"gaps", "low"}
    elif chunk.positions == "bitmap":
        names = {"bitmap"}
    if chunk.values == "replace":
        return names | {f"values.{j}" for j in range(chunk.w // 8)}, set()
    return names | {"codes"}, {f"escapes.{j}" for j in range(chunk.w // 8)}
