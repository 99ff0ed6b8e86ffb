"""Packs, chunks and fingerprints: SPEC.md sections 6, 7 and 8."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .documents import (
    DTYPES,
    Fields,
    Manifest,
    Pack,
    Rejection,
    Tensor,
    elements,
    integer,
    parse_json,
    require,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Words = NDArray[Any]
U64 = NDArray[np.uint64]

HEADER = 100_000_000
CHUNK = 2**27
EXPONENT_CHUNK = 2**24
WINDOW = 2**27

#: Words are little-endian unsigned integers.
WORD: dict[int, np.dtype[Any]] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}

# -- section 8 --------------------------------------------------------------------------------------------------------


def _mix(z: U64) -> U64:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def coefficients(name: str, lanes: U64) -> U64:
    """c(name, i) for lane numbers i."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    one = np.uint64(1)
    return (_mix(seed + (lanes >> np.uint64(16))) | one) * (_mix(lanes & np.uint64(65535)) | one)


def change(name: str, at: NDArray[np.int64], old: Words, new: Words) -> int:
    """The sum of change(...) over words `at` of tensor `name`."""
    w = 8 * new.dtype.itemsize
    lanes = 1 if w == 8 else w // 16
    total = 0
    for start in range(0, len(at), 1 << 20):
        part = slice(start, start + (1 << 20))
        first = at[part].astype(np.uint64) * np.uint64(lanes)
        for q in range(lanes):
            a = old[part].astype(np.uint64) >> np.uint64(16 * q) & np.uint64(65535)
            b = new[part].astype(np.uint64) >> np.uint64(16 * q) & np.uint64(65535)
            total += int(((b - a) * coefficients(name, first + np.uint64(q))).sum(dtype=np.uint64))
    return total % 2**64


def tensor_fingerprint(name: str, words: Words) -> int:
    """The fingerprint of a tensor: the change from all words zero."""
    return change(name, np.arange(len(words)), np.zeros_like(words), words)


# -- section 7.10 -----------------------------------------------------------------------------------------------------


def check_frame(stored: bytes, lowest: int, highest: int) -> int:
    """Check that the bytes are one frame whose content size is in [lowest, highest], and give that size."""

    def take(at: int, length: int) -> int:
        require(at + length <= len(stored), "malformed", "the zstd frame is cut off")
        return int.from_bytes(stored[at : at + length], "little")

    require(take(0, 4) == 0xFD2FB528, "malformed", "no zstd frame")
    descriptor = take(4, 1)
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    require(descriptor >> 3 & 1 == 0, "malformed", "the reserved bit is set")
    require(descriptor >> 2 & 1 == 1, "malformed", "no checksum")
    require(descriptor & 3 == 0, "malformed", "a dictionary id")
    require(flag or single, "malformed", "no content size")
    at = 5 if single else 6
    size = take(at, 1 << flag) + (256 if flag == 1 else 0)
    window = size
    if not single:
        window = (1 << 10 + (take(5, 1) >> 3)) // 8 * (8 + (take(5, 1) & 7))
    require(lowest <= size <= highest, "malformed", f"content size {size} is not in [{lowest}, {highest}]")
    require(window <= WINDOW, "malformed", "a window over 2^27")
    at += 1 << flag
    last = False
    while not last:
        block = take(at, 3)
        last, kind = bool(block & 1), block >> 1 & 3
        require(kind != 3, "malformed", "a reserved block type")
        at += 3 + (1 if kind == 1 else block >> 3)
    require(at + 4 == len(stored), "malformed", "the stored bytes do not end where the frame ends")
    return size


def decompress(stored: bytes, size: int) -> bytes:
    """The content of a checked frame; never more than `size` bytes are decoded."""
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})
    content, rest = b"", stored
    try:
        while len(content) < size and not decoder.eof:
            part = decoder.decompress(rest, max_length=size - len(content))
            require(part or decoder.eof, "malformed", "the zstd frame has too little content")
            content, rest = content + part, b""
        require(decoder.eof or not decoder.decompress(rest, max_length=1), "malformed", "too much content")
    except zstd.ZstdError as fault:
        raise Rejection("malformed", str(fault)) from None
    require(decoder.eof and len(content) == size, "malformed", "the zstd frame has not its content size")
    return content


# -- section 6 --------------------------------------------------------------------------------------------------------


class Chunk(NamedTuple):
    """A chunk of the table: its entry, checked, and its stored streams. `limit` is 0 in order `natural`."""

    kind: str
    slices: list[tuple[int, int, int]]
    n: int
    m: int
    limit: int
    positions: str
    shift: int
    values: str
    compressed: bool
    fingerprint: int
    streams: dict[str, bytes]


def open_file(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header and the buffer of a safetensors file."""
    require(len(data) >= 8, "malformed", "fewer than 8 bytes")
    length = int.from_bytes(data[:8], "little")
    require(length <= HEADER, "limit", f"a header of {length} bytes")
    require(8 + length <= len(data), "malformed", "the header does not fit into the file")
    require(data[8:9] == b"{", "malformed", "the header does not begin with a brace")
    header = parse_json(data[8 : 8 + length])
    metadata = Fields(header.get("__metadata__", {}))
    for key in metadata.members:
        metadata.string(key)
    return header, memoryview(data)[8 + length :]


def _check_offsets(spans: Iterable[tuple[int, int]], length: int) -> None:
    at = 0
    for begin, end in sorted(spans):
        require(begin == at, "malformed", "entries that leave a gap in the buffer, or overlap")
        at = end
    require(at == length, "malformed", "the entries do not end where the file ends")


def _span(fields: Fields) -> tuple[int, int]:
    offsets = [integer(each) for each in fields.array("data_offsets")]
    require(len(offsets) == 2 and offsets[0] <= offsets[1], "malformed", "`data_offsets` is no range")
    return offsets[0], offsets[1]


def _check_entry(pack: Pack, tensors: Sequence[int], changed: int) -> None:
    require(pack.tensors == (min(tensors), max(tensors) + 1), "malformed", "`tensors` is not what the pack holds")
    require(pack.changed == changed, "malformed", f"`changed` is {pack.changed}, not {changed}")


def read_plain_pack(data: bytes, pack: Pack, layout: Sequence[Tensor]) -> dict[int, Words]:
    """The tensors of the layout that a plain pack holds: index -> words."""
    header, buffer = open_file(data)
    index = {tensor.name: at for at, tensor in enumerate(layout)}
    spans, found = [], {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        fields = Fields(entry)
        dtype = fields.string("dtype")
        require(dtype in DTYPES, "unsupported", f"unknown dtype {dtype}")
        shape = tuple(integer(each, 2**64 - 1) for each in fields.array("shape"))
        begin, end = _span(fields)
        spans.append((begin, end))
        require(elements(shape) * DTYPES[dtype].bits == 8 * (end - begin), "malformed", "bytes that fit no shape")
        if name in index:
            require(layout[index[name]] == (name, dtype, shape), "malformed", f"{name!r} is not as in the layout")
            found[index[name]] = (begin, end)
    _check_offsets(spans, len(buffer))
    require(found, "malformed", "no tensor of the layout")
    _check_entry(pack, list(found), sum(layout[at].words for at in found))
    return {
        at: np.frombuffer(buffer[begin:end], WORD[DTYPES[layout[at].dtype].w]) for at, (begin, end) in found.items()
    }


def read_chunk_pack(data: bytes, pack: Pack, manifest: Manifest, layout: Sequence[Tensor]) -> list[Chunk]:
    """The chunks of a pack, with all checked that can be before a stream is decompressed."""
    header, buffer = open_file(data)
    metadata = Fields(header.pop("__metadata__", {}))
    stored: dict[str, bytes] = {}
    spans = []
    for name, entry in header.items():
        fields = Fields(entry)
        require(set(fields.members) == {"dtype", "shape", "data_offsets"}, "malformed", "members of a stream's entry")
        begin, end = _span(fields)
        spans.append((begin, end))
        require(fields.string("dtype") == "U8", "malformed", "a stream is not U8")
        shape = [integer(each) for each in fields.array("shape")]
        require(shape == [end - begin], "malformed", "a stream's shape")
        stored[name] = bytes(buffer[begin:end])
    _check_offsets(spans, len(buffer))
    table = Fields(parse_json(metadata.string("tensordelta").encode()))
    table.format()
    require(table.digest("layout") == manifest.layout, "malformed", "the chunk table is for another layout")
    entries = table.array("chunks")
    require(entries, "malformed", "no chunks")
    chunks = [
        _read_chunk(Fields(entry), f"{number}.", layout, manifest.features, stored)
        for number, entry in enumerate(entries)
    ]
    require(sum(len(chunk.streams) for chunk in chunks) == len(stored), "malformed", "an entry that is no stream")
    _check_entry(pack, [t for chunk in chunks for t, _, _ in chunk.slices], sum(chunk.m for chunk in chunks))
    return chunks


def _codec(fields: Fields, key: str, known: dict[str, tuple[str, ...]]) -> tuple[str, list[int]]:
    """The name and the parameters of a codec object."""
    codec = Fields(fields.get(key))
    name = codec.string("codec")
    require(name in known, "unsupported", f"unknown codec {name!r}")
    require(set(codec.members) == {"codec", *known[name]}, "malformed", f"parameters of codec {name!r}")
    return name, [codec.integer(parameter) for parameter in known[name]]


def _read_slices(fields: Fields, dtype: str, layout: Sequence[Tensor]) -> list[tuple[int, int, int]]:
    slices: list[tuple[int, int, int]] = []
    before = (0, 0)
    for entry in fields.array("slices"):
        require(isinstance(entry, list) and len(entry) == 3, "malformed", "a slice is three integers")
        tensor, start, stop = (integer(each) for each in entry)
        require(tensor < len(layout), "malformed", "a slice of no tensor")
        require(start < stop, "malformed", "a slice without words")
        require(stop <= layout[tensor].words, "malformed", "a slice beyond its tensor")
        require(layout[tensor].dtype == dtype, "malformed", "a slice of another dtype")
        require(before <= (tensor, start), "malformed", "slices that are not sorted, or overlap")
        before = (tensor, stop)
        slices.append((tensor, start, stop))
    require(slices, "malformed", "a chunk without slices")
    return slices


def _read_chunk(
    fields: Fields, prefix: str, layout: Sequence[Tensor], features: Sequence[str], stored: dict[str, bytes]
) -> Chunk:
    dtype = fields.string("dtype")
    require(dtype in DTYPES, "unsupported", f"unknown dtype {dtype}")
    slices = _read_slices(fields, dtype, layout)
    n = sum(stop - start for _, start, stop in slices)
    m = fields.integer("changed")
    require(1 <= m <= n, "malformed", "`changed` is 0, or more than the chunk has words")
    require(n <= CHUNK, "limit", "more than 2^27 words")
    order, limits = _codec(fields, "order", {"natural": (), "exponent": ("limit",)})
    positions, shifts = _codec(fields, "positions", {"gap": ("shift",), "bitmap": (), "all": ()})
    values, _ = _codec(fields, "values", {"step": (), "replace": ()})
    compression = fields.string("compression")
    require(compression in ("none", "zstd"), "unsupported", f"unknown compression {compression!r}")
    require(all(shift in (0, 4, 8) for shift in shifts), "malformed", "`shift` is not 0, 4 or 8")
    require(positions != "all" or m == n, "malformed", "positions `all` without all words")
    require(order == "natural" or positions != "all", "malformed", "positions `all` in another order")
    require(order == "natural" or values != "replace", "malformed", "values `replace` in another order")
    for limit in limits:
        kind = DTYPES[dtype]
        require(kind.mask, "malformed", "order `exponent` for a dtype without exponents")
        require(1 <= limit <= 1 << kind.exponent_bits, "malformed", "`limit` is out of range")
        require(n <= EXPONENT_CHUNK, "limit", "more than 2^24 words in order `exponent`")
        require("exponent-order" in features, "malformed", "a feature that is not listed")
    chunk = Chunk(
        dtype,
        slices,
        n,
        m,
        limits[0] if limits else 0,
        positions,
        shifts[0] if shifts else 0,
        values,
        compression == "zstd",
        fields.sum("fingerprint"),
        {},
    )
    for name, (lowest, highest) in stream_sizes(chunk).items():
        if name.startswith("escapes.") and prefix + name not in stored:
            continue
        require(prefix + name in stored, "malformed", f"no stream {prefix}{name}")
        chunk.streams[name] = stored[prefix + name]
        _check_size(chunk, name, lowest, highest)
    escapes = sum(name.startswith("escapes.") for name in chunk.streams)
    require(escapes in (0, DTYPES[dtype].w // 8), "malformed", "some of the streams escapes.j")
    return chunk


def stream_sizes(chunk: Chunk) -> dict[str, tuple[int, int]]:
    """The bounds of section 7.9: stream -> least and greatest size."""
    n, m, s = chunk.n, chunk.m, chunk.shift
    planes = DTYPES[chunk.kind].w // 8
    sizes: dict[str, tuple[int, int]] = {}
    if chunk.positions == "gap":
        sizes["gaps"] = (m, m + (n - m) // (255 << s))
    if chunk.positions == "gap" and s:
        sizes["low"] = (m, m) if s == 8 else (-(-m // 2), -(-m // 2))
    if chunk.positions == "bitmap":
        sizes["bitmap"] = (-(-n // 8), -(-n // 8))
    if chunk.values == "step":
        sizes["codes"] = (-(-m // 4), -(-m // 4))
    for plane in range(planes):
        name = "escapes" if chunk.values == "step" else "values"
        sizes[f"{name}.{plane}"] = (1, m) if name == "escapes" else (m, m)
    return sizes


def _check_size(chunk: Chunk, name: str, lowest: int, highest: int) -> int:
    stored = chunk.streams[name]
    if chunk.compressed:
        return check_frame(stored, lowest, highest)
    require(lowest <= len(stored) <= highest, "malformed", f"the size of stream {name}")
    return len(stored)


# -- section 7 --------------------------------------------------------------------------------------------------------


def _stream(chunk: Chunk, name: str) -> NDArray[np.uint8]:
    stored = chunk.streams[name]
    if chunk.compressed:
        stored = decompress(stored, _check_size(chunk, name, 0, CHUNK))
    return np.frombuffer(stored, np.uint8)


def _decode_gap(chunk: Chunk) -> NDArray[np.int64]:
    gaps = _stream(chunk, "gaps")
    ends = np.flatnonzero(gaps < 255)
    require(len(ends) == chunk.m, "malformed", "`gaps` has not one number for each listed word")
    require(gaps[-1] < 255, "malformed", "`gaps` ends with 255")
    h = np.diff(np.cumsum(gaps.astype(np.int64))[ends], prepend=np.int64(0))
    low = np.zeros(chunk.m, np.int64)
    if chunk.shift == 8:
        low = _stream(chunk, "low").astype(np.int64)
    elif chunk.shift == 4:
        pairs = _stream(chunk, "low").astype(np.int64)
        nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
        require(not nibbles[chunk.m :].any(), "malformed", "a padding nibble is not zero")
        low = nibbles[: chunk.m]
    places = np.cumsum((h << chunk.shift | low) + 1) - 1
    require(places[-1] < chunk.n, "malformed", "a position is not less than n")
    return places


def _decode_bitmap(chunk: Chunk) -> NDArray[np.int64]:
    bits = np.unpackbits(_stream(chunk, "bitmap"), bitorder="little")
    require(not bits[chunk.n :].any(), "malformed", "a padding bit of `bitmap` is set")
    places = np.flatnonzero(bits[: chunk.n])
    require(len(places) == chunk.m, "malformed", "`bitmap` has another number of bits set")
    return places


def _exponent_permutation(chunk: Chunk, base: Words) -> NDArray[np.int64]:
    kind = DTYPES[chunk.kind]
    keys = (base.astype(np.uint64) & np.uint64(kind.mask)) >> np.uint64(kind.shift)
    first = np.flatnonzero(keys < chunk.limit)
    rest = np.flatnonzero(keys >= chunk.limit)
    return np.concatenate([first[np.argsort(keys[first], kind="stable")], rest])


def _planes(chunk: Chunk, name: str) -> U64:
    w = DTYPES[chunk.kind].w
    planes = [_stream(chunk, f"{name}.{j}").astype(np.uint64) << np.uint64(8 * j) for j in range(w // 8)]
    words: U64 = np.bitwise_or.reduce(planes, axis=0)
    return words


def _decode_step(chunk: Chunk, base: U64) -> U64:
    w = DTYPES[chunk.kind].w
    packed = _stream(chunk, "codes").astype(np.uint64)
    codes = np.stack([packed >> np.uint64(2 * q) & np.uint64(3) for q in range(4)], axis=1).ravel()
    require(not codes[chunk.m :].any(), "malformed", "a padding bit of `codes` is set")
    y = codes[: chunk.m]
    escaped = np.flatnonzero(y == 3)
    require(len(escaped) or "escapes.0" not in chunk.streams, "malformed", "escapes, but no code is 3")
    if len(escaped):
        require("escapes.0" in chunk.streams, "malformed", "a code is 3, but there are no escapes")
        for j in range(w // 8):
            _check_size(chunk, f"escapes.{j}", len(escaped), len(escaped))
        escapes = _planes(chunk, "escapes")
        require(int(escapes.max()) <= 2**w - 5, "malformed", "an escape over 2^w - 5")
        y[escaped] += escapes
    z = y + np.uint64(1)
    half = z >> np.uint64(1)
    return base + np.where(z & np.uint64(1), ~half, half)


def decode_chunk(chunk: Chunk, base: Words) -> tuple[NDArray[np.int64], Words]:
    """The natural numbers of the listed words, and their new words.

    Args:
        base: the n words of the fitted base, in natural order.
    """
    decoders: dict[str, Callable[[Chunk], NDArray[np.int64]]] = {"gap": _decode_gap, "bitmap": _decode_bitmap}
    places = decoders[chunk.positions](chunk) if chunk.positions in decoders else np.arange(chunk.n)
    if chunk.limit:
        places = _exponent_permutation(chunk, base)[places]
    step = chunk.values == "step"
    new = _decode_step(chunk, base[places].astype(np.uint64)) if step else _planes(chunk, "values")
    return places, new.astype(base.dtype)
