"""A slow and obvious reader of chains, written from SPEC.md sections 3 to 8 alone.

It shares no code with the package, so that both have to agree on the document. Words are Python integers, streams are
decoded word by word, and JSON is parsed here too. Every rule that a single object can break is checked, and a fault
carries the error's name of section 17.

    state = read_version({"chain.json": b"…", "manifests/000000000000.json": b"…", …}, 0)
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Fault(Exception):
    """A rejection, under one of the names of section 17."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name


def need(condition: object, reason: str, name: str = "malformed") -> None:
    if not condition:
        raise Fault(name, reason)


# -- section 3: dtypes and states ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DType:
    bits: int
    w: int
    mask: int = 0
    shift: int = 0
    exponent_bits: int = 0


DTYPES = {
    "F64": DType(64, 64, 0x7FF0000000000000, 52, 11),
    "C64": DType(64, 64),
    "I64": DType(64, 64),
    "U64": DType(64, 64),
    "F32": DType(32, 32, 0x7F800000, 23, 8),
    "I32": DType(32, 32),
    "U32": DType(32, 32),
    "BF16": DType(16, 16, 0x7F80, 7, 8),
    "F16": DType(16, 16, 0x7C00, 10, 5),
    "I16": DType(16, 16),
    "U16": DType(16, 16),
    "F8_E4M3": DType(8, 8, 0x78, 3, 4),
    "F8_E4M3FNUZ": DType(8, 8, 0x78, 3, 4),
    "F8_E5M2": DType(8, 8, 0x7C, 2, 5),
    "F8_E5M2FNUZ": DType(8, 8, 0x7C, 2, 5),
    "F8_E8M0": DType(8, 8),
    "I8": DType(8, 8),
    "U8": DType(8, 8),
    "BOOL": DType(8, 8),
    "F4": DType(4, 8),
    "F6_E2M3": DType(6, 8),
    "F6_E3M2": DType(6, 8),
}


@dataclass
class Tensor:
    """One tensor of a state."""

    dtype: str
    shape: tuple[int, ...]
    words: list[int]


State = dict[str, Tensor]


def word_count(dtype: str, shape: Iterable[int]) -> int:
    elements = 1
    for size in shape:
        elements *= size
    return elements * DTYPES[dtype].bits // DTYPES[dtype].w


# -- section 4.3: JSON ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A JSON number, as it was written."""

    literal: str


class _Json:
    """A parser of one JSON text; objects become dicts, numbers stay as written."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\n\r":
            self.at += 1

    def take(self, token: str) -> bool:
        found = self.text.startswith(token, self.at)
        if found:
            self.at += len(token)
        return found

    def value(self, level: int) -> Any:
        self.space()
        if self.take("{"):
            need(level <= 16, "nested deeper than 16", "limit")
            return self.object(level)
        if self.take("["):
            need(level <= 16, "nested deeper than 16", "limit")
            return self.array(level)
        if self.take('"'):
            return self.string()
        for token, value in (("true", True), ("false", False), ("null", None)):
            if self.take(token):
                return value
        number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?").match(self.text, self.at)
        need(number, f"no JSON value at character {self.at}")
        assert number
        self.at = number.end()
        return Number(number[0])

    def object(self, level: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.space()
        if self.take("}"):
            return members
        while True:
            self.space()
            need(self.take('"'), "no member name")
            name = self.string()
            need(name not in members, f"the member {name!r} stands twice")
            self.space()
            need(self.take(":"), "no colon after a member name")
            members[name] = self.value(level + 1)
            self.space()
            if self.take("}"):
                return members
            need(self.take(","), "no comma between members")

    def array(self, level: int) -> list[Any]:
        items: list[Any] = []
        self.space()
        if self.take("]"):
            return items
        while True:
            items.append(self.value(level + 1))
            self.space()
            if self.take("]"):
                return items
            need(self.take(","), "no comma between items")

    def string(self) -> str:
        units: list[str] = []
        while True:
            need(self.at < len(self.text), "a string without end")
            each = self.text[self.at]
            self.at += 1
            if each == '"':
                break
            need(each >= " ", "a control character in a string")
            if each != "\\":
                units.append(each)
                continue
            need(self.at < len(self.text), "a string without end")
            escape = self.text[self.at]
            self.at += 1
            if escape == "u":
                digits = self.text[self.at : self.at + 4]
                need(re.fullmatch(r"[0-9a-fA-F]{4}", digits), "an escape without four hex digits")
                self.at += 4
                units.append(chr(int(digits, 16)))
            else:
                need(escape in '"\\/bfnrt', f"the escape {escape!r}")
                units.append({"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(escape, escape))
        joined = "".join(units).encode("utf-16-le", "surrogatepass")  # joins escaped pairs
        try:
            return joined.decode("utf-16-le")
        except UnicodeDecodeError:
            raise Fault("malformed", "a lone surrogate") from None


def parse_json(data: bytes) -> dict[str, Any]:
    """One JSON object under the rules of section 4.3."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Fault("malformed", "not UTF-8") from None
    parser = _Json(text)
    value = parser.value(1)
    parser.space()
    need(parser.at == len(text), "something follows the JSON value")
    need(isinstance(value, dict), "not a JSON object")
    return value


# -- section 4.3: fields -------------------------------------------------------------------------------------------

DIGEST = "[0-9a-f]{64}"
SUM = "[0-9a-f]{16}"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)"
    r"(\.[0-9]{1,9})?Z"
)
PATH = r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*"
MAX_VERSION = 10**12 - 1


def integer(value: Any) -> int:
    need(isinstance(value, Number) and re.fullmatch("0|[1-9][0-9]*", value.literal), f"{value!r} is no integer")
    need(len(value.literal) <= 16 and int(value.literal) <= 2**53 - 1, f"{value!r} is too great")
    return int(value.literal)


def plain_integer(value: Any) -> int:
    need(isinstance(value, Number) and re.fullmatch("0|[1-9][0-9]*", value.literal), f"{value!r} is no integer")
    need(len(value.literal) <= 20 and int(value.literal) < 2**64, f"{value!r} is too great")
    return int(value.literal)


def version_number(value: Any) -> int:
    number = integer(value)
    need(number <= MAX_VERSION, f"{number} is no version")
    return number


def string(value: Any, pattern: str = "(?s:.*)") -> str:
    need(isinstance(value, str), f"{value!r} is no string")
    need(re.fullmatch(pattern, value), f"{value!r} does not match {pattern}")
    return value


def array(value: Any, length: int | None = None) -> list[Any]:
    need(isinstance(value, list), f"{value!r} is no array")
    need(length is None or len(value) == length, f"{value!r} has not {length} items")
    return value


def mapping(value: Any) -> dict[str, Any]:
    need(isinstance(value, dict), f"{value!r} is no object")
    return value


def required(value: dict[str, Any], *names: str) -> list[Any]:
    for name in names:
        need(name in value, f"`{name}` is absent")
    return [value[name] for name in names]


def path(value: Any, prefix: str = "") -> str:
    found = string(value, PATH)
    need(len(found) <= 200, "a path of more than 200 characters")
    need(found.startswith(prefix), f"{found!r} does not begin with {prefix!r}")
    return found


def annotations(value: Any) -> None:
    for each in mapping(value).values():
        string(each)
    need(len(value) <= 64, "more than 64 annotations", "limit")
    for key, each in value.items():
        need(len(key.encode()) + len(each.encode()) <= 4096, "a long annotation", "limit")


def document(data: bytes, limit: int) -> dict[str, Any]:
    """An object's JSON, its version of the format checked first."""
    need(len(data) <= limit, f"{len(data)} bytes", "limit")
    value = parse_json(data)
    check_format(value)
    return value


def check_format(value: dict[str, Any]) -> None:
    found = string(*required(value, "tensordelta"), r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
    need(found.split(".")[0] == "1", f"version {found} of the format", "unsupported")


# -- sections 4.5 to 4.11: documents -------------------------------------------------------------------------------


def parse_chain(data: bytes) -> str:
    """chain.json; gives the chain id."""
    value = document(data, 65536)
    chain, created = required(value, "chain", "created")
    string(created, TIME)
    if "annotations" in value:
        annotations(value["annotations"])
    return string(chain, UUID)


def parse_latest(data: bytes) -> int:
    """latest.json; gives the version."""
    value = document(data, 65536)
    chain, version = required(value, "chain", "version")
    string(chain, UUID)
    return version_number(version)


def parse_signature(data: bytes) -> None:
    """A signature object's form (section 14)."""
    value = document(data, 65536)
    keyid, sig = required(value, "keyid", "sig")
    string(keyid)
    string(sig, "[A-Za-z0-9+/]{86}==")


Layout = list[tuple[str, str, tuple[int, ...]]]


def parse_layout(data: bytes, digest: str) -> Layout:
    """A layout: (name, dtype, shape) of each tensor."""
    need(hashlib.sha256(data).hexdigest() == digest, "the layout's digest differs", "integrity")
    value = document(data, 268435456)
    entries = array(*required(value, "tensors"))
    need(len(entries) <= 2**20, "more than 2^20 tensors", "limit")
    layout: Layout = []
    for entry in entries:
        name, dtype, shape = required(mapping(entry), "name", "dtype", "shape")
        string(name)
        need(1 <= len(name.encode()) <= 1024 and name != "__metadata__", f"the name {name!r}")
        string(dtype)
        sizes = tuple(integer(size) for size in array(shape))
        need(dtype in DTYPES, f"the dtype {dtype!r}", "unsupported")
        need(len(sizes) <= 16, "more than 16 dimensions", "limit")
        product = 1
        for size in sizes:
            need(size <= 2**48, "a dimension greater than 2^48", "limit")
            product *= size if size != 0 else 1
            need(product <= 2**48, "more than 2^48 elements", "limit")
        elements = 0 if 0 in sizes else product
        need(elements * DTYPES[dtype].bits % 8 == 0, f"{name!r} does not fill whole bytes")
        need(not layout or layout[-1][0].encode() < name.encode(), "names are not ascending")
        layout.append((name, dtype, sizes))
    return layout


@dataclass
class Pack:
    sha256: str
    size: int
    path: str | None
    content: str
    tensors: tuple[int, int]
    changed: int


@dataclass
class Manifest:
    chain: str
    version: int
    layout: str
    fingerprint: str
    base: tuple[int, str, str] | None
    packs: list[Pack]
    features: list[str]


def parse_manifest(data: bytes, name: str | None = None) -> Manifest:
    """A manifest or shortcut; `name` is its object's name, against which it is checked."""
    value = document(data, 67108864)
    chain, version, layout, total, base, packs, features, created = required(
        value, "chain", "version", "layout", "fingerprint", "base", "packs", "features", "created"
    )
    string(chain, UUID)
    number = version_number(version)
    string(layout, DIGEST)
    string(total, SUM)
    string(created, TIME)
    parsed_base = None
    if base is not None:
        base_version, base_layout, base_sum = required(mapping(base), "version", "layout", "fingerprint")
        parsed_base = (version_number(base_version), string(base_layout, DIGEST), string(base_sum, SUM))
        need(parsed_base[0] < number, "the base is not older than the version")
    if name is not None:
        check_name(name, number, None if parsed_base is None else parsed_base[0])
    need(len(array(packs)) <= 2**16, "more than 2^16 packs", "limit")
    names: list[str] = []
    parsed_packs = [parse_pack_entry(mapping(pack), names) for pack in packs]
    for feature in array(features):
        string(feature, "[a-z0-9][a-z0-9-]{0,63}")
    if "annotations" in value:
        annotations(value["annotations"])
    if "tensor_fingerprints" in value:
        string(value["tensor_fingerprints"], DIGEST)
    for file in array(value.get("files", [])):
        file_name, size, sha256, where = required(mapping(file), "name", "size", "sha256", "path")
        names.append(path(file_name))
        need(integer(size) <= 2**40, "a file of more than 2^40 bytes", "limit")
        string(sha256, DIGEST)
        path(where, "files/")
    need(len(set(names)) == len(names), "two files of one name")
    need(not any(b.startswith(a + "/") for a in names for b in names), "a file's name is a folder of another's")
    for feature in features:
        need(feature == "exponent-order", f"the feature {feature!r}", "unsupported")
    return Manifest(chain, number, layout, total, parsed_base, parsed_packs, features)


def check_name(name: str, version: int, base: int | None) -> None:
    own = re.fullmatch(r"manifests/([0-9]{12})\.json", name)
    if own:
        need(int(own[1]) == version, "the version is not that of the object's name")
        return
    shortcut = re.fullmatch(r"shortcuts/([0-9]{12})-([0-9]{12}|full)(\.[a-z0-9]{1,16})?\.json", name)
    assert shortcut, name
    need(int(shortcut[1]) == version, "the version is not that of the object's name")
    need((None if shortcut[2] == "full" else int(shortcut[2])) == base, "the base is not that of the object's name")


def parse_pack_entry(value: dict[str, Any], names: list[str]) -> Pack:
    sha256, size, where, content, tensors, changed = required(
        value, "sha256", "size", "path", "content", "tensors", "changed"
    )
    string(sha256, DIGEST)
    need(integer(size) <= 2**40, "a pack of more than 2^40 bytes", "limit")
    sources = [string(each) for each in array(value.get("sources", []))]
    if where is None:
        need(sources, "neither path nor sources")
    else:
        path(where, "packs/")
    need(string(content) in ("chunks", "tensors"), f"the content {content!r}", "unsupported")
    first, stop = (integer(each) for each in array(tensors, 2))
    need(first < stop, "`tensors` is empty")
    if "name" in value:
        string(value["name"])
        if content == "tensors":
            names.append(path(value["name"]))
    return Pack(sha256, integer(size), where, content, (first, stop), integer(changed))


# -- section 6: packs ----------------------------------------------------------------------------------------------


@dataclass
class Chunk:
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
    streams: dict[str, bytes]

    @property
    def n(self) -> int:
        return sum(stop - start for _, start, stop in self.slices)


def split_file(data: bytes) -> tuple[bytes, bytes]:
    """A pack's header and its buffer."""
    need(len(data) >= 8, "fewer than 8 bytes")
    length = int.from_bytes(data[:8], "little")
    need(length <= 100_000_000, "a long header", "limit")
    need(8 + length <= len(data), "the header does not fit into the file")
    header = data[8 : 8 + length]
    need(header[:1] == b"{", "the header does not begin with {")
    return header, data[8 + length :]


def check_cover(offsets: Iterable[tuple[int, int]], size: int) -> None:
    at = 0
    for begin, end in sorted(offsets):
        need(begin == at and begin <= end, "the entries do not cover the buffer")
        at = end
    need(at == size, "the entries do not end where the file ends")


def read_chunk_pack(data: bytes, layout: Layout, digest: str, features: list[str]) -> list[Chunk]:
    header, buffer = split_file(data)
    value = parse_json(header)
    (metadata,) = required(value, "__metadata__")
    for each in mapping(metadata).values():
        string(each)
    (table,) = required(metadata, "tensordelta")
    stored: dict[str, bytes] = {}
    offsets = []
    for name, entry in value.items():
        if name == "__metadata__":
            continue
        dtype, shape, place = required(mapping(entry), "dtype", "shape", "data_offsets")
        need(set(entry) == {"dtype", "shape", "data_offsets"}, f"an unknown member in {name!r}")
        begin, end = (integer(each) for each in array(place, 2))
        need(begin <= end, f"{name!r} ends before it begins")
        need(string(dtype) == "U8", f"{name!r} is not U8")
        need([integer(each) for each in array(shape, 1)] == [end - begin], f"the shape of {name!r}")
        offsets.append((begin, end))
        stored[name] = buffer[begin:end]
    check_cover(offsets, len(buffer))
    chunks = parse_table(table, digest)
    for index, chunk in enumerate(chunks):
        check_chunk(chunk, layout, features)
        for name in list(stored):
            if name.startswith(f"{index}."):
                chunk.streams[name.removeprefix(f"{index}.")] = stored.pop(name)
        always, perhaps = stream_names(chunk)
        need(always <= set(chunk.streams), "a stream is absent")
        need(set(chunk.streams) <= always | perhaps, "a stream that the chunk does not have")
    need(not stored, f"{list(stored)} are no streams")
    return chunks


def parse_table(text: str, digest: str) -> list[Chunk]:
    """A chunk table; `digest` is the manifest's layout."""
    value = parse_json(text.encode())
    check_format(value)
    layout, chunks = required(value, "layout", "chunks")
    need(string(layout, DIGEST) == digest, "the table is for another layout")
    need(len(array(chunks)) >= 1, "no chunks")
    return [parse_chunk(mapping(each)) for each in chunks]


def codec(value: Any, parameters: dict[str, str | None]) -> tuple[str, int]:
    """The name and the parameter (0 for none) of a codec object."""
    (name,) = required(mapping(value), "codec")
    need(string(name) in parameters, f"the codec {name!r}", "unsupported")
    parameter = parameters[name]
    need(set(value) == {"codec"} | ({parameter} if parameter else set()), f"the members of codec {name}")
    return name, integer(value[parameter]) if parameter else 0


def parse_chunk(value: dict[str, Any]) -> Chunk:
    dtype, slices, changed, order, positions, values, compression, total = required(
        value, "dtype", "slices", "changed", "order", "positions", "values", "compression", "fingerprint"
    )
    need(string(dtype) in DTYPES, f"the dtype {dtype!r}", "unsupported")
    parsed = []
    for each in array(slices):
        tensor, start, stop = (integer(number) for number in array(each, 3))
        parsed.append((tensor, start, stop))
    order_name, limit = codec(order, {"natural": None, "exponent": "limit"})
    positions_name, shift = codec(positions, {"gap": "shift", "bitmap": None, "all": None})
    values_name, _ = codec(values, {"step": None, "replace": None})
    need(shift in (0, 4, 8), f"shift {shift}")
    need(order_name == "natural" or 1 <= limit <= 2**11, f"limit {limit}")
    need(string(compression) in ("none", "zstd"), f"compression {compression!r}", "unsupported")
    string(total, SUM)
    return Chunk(
        dtype, parsed, integer(changed), order_name, limit, positions_name, shift, values_name, compression, total, {}
    )


def check_chunk(chunk: Chunk, layout: Layout, features: list[str]) -> None:
    need(chunk.slices, "no slices")
    for tensor, start, stop in chunk.slices:
        need(tensor < len(layout), f"no tensor {tensor}")
        need(start < stop <= word_count(*layout[tensor][1:]), f"the slice {(tensor, start, stop)}")
        need(layout[tensor][1] == chunk.dtype, "a tensor of another dtype")
    for (tensor, start, stop), after in zip(chunk.slices, chunk.slices[1:], strict=False):
        need((tensor, start) < after[:2], "slices are not sorted")
        need(tensor < after[0] or stop <= after[1], "slices overlap")
    need(chunk.n <= 2**27, "too many words", "limit")
    need(1 <= chunk.changed <= chunk.n, "`changed` is out of range")
    if chunk.order == "exponent":
        bits = DTYPES[chunk.dtype].exponent_bits
        need(bits, f"{chunk.dtype} has no exponent")
        need(1 <= chunk.limit <= 2**bits, "the limit is out of range")
        need(chunk.positions != "all" and chunk.values == "step", "an illegal combination")
        need(chunk.n <= 2**24, "too many words", "limit")
        need("exponent-order" in features, "exponent-order is not listed")
    need(chunk.positions != "all" or chunk.changed == chunk.n, "positions `all`, but not all words")


def stream_names(chunk: Chunk) -> tuple[set[str], set[str]]:
    """The streams that a chunk always has, and those that it has if a code is 3."""
    w = DTYPES[chunk.dtype].w
    names = set()
    if chunk.positions == "gap":
        names = {"gaps"} if chunk.shift == 0 else {"gaps", "low"}
    elif chunk.positions == "bitmap":
        names = {"bitmap"}
    if chunk.values == "replace":
        return names | {f"values.{j}" for j in range(w // 8)}, set()
    return names | {"codes"}, {f"escapes.{j}" for j in range(w // 8)}


def read_plain_pack(data: bytes, layout: Layout) -> dict[int, list[int]]:
    """A plain pack: tensor index -> words. Its header has its own rules (section 6.4)."""
    header, buffer = split_file(data)
    value = parse_json(header)  # equal names and lone surrogates anywhere are refused, and nesting, as it may be
    if "__metadata__" in value:
        for each in mapping(value.pop("__metadata__")).values():
            string(each)
    index = {name: tensor for tensor, (name, _, _) in enumerate(layout)}
    found: dict[int, list[int]] = {}
    offsets = []
    for name, entry in value.items():
        dtype, shape, place = required(mapping(entry), "dtype", "shape", "data_offsets")
        sizes = tuple(plain_integer(each) for each in array(shape))
        begin, end = (plain_integer(each) for each in array(place, 2))
        need(begin <= end, f"{name!r} ends before it begins")
        need(string(dtype) in DTYPES, f"the dtype {dtype!r}", "unsupported")
        need((end - begin) * 8 == math.prod(sizes) * DTYPES[dtype].bits, f"the size of {name!r}")
        offsets.append((begin, end))
        if name in index:
            need((dtype, sizes) == layout[index[name]][1:], f"{name!r} differs from the layout")
            found[index[name]] = words_of(buffer[begin:end], DTYPES[dtype].w)
    check_cover(offsets, len(buffer))
    need(found, "no tensor of the layout")
    return found


def words_of(data: bytes, w: int) -> list[int]:
    return [int.from_bytes(data[at : at + w // 8], "little") for at in range(0, len(data), w // 8)]


# -- section 7: decoding -------------------------------------------------------------------------------------------


def check_frame(f: bytes, lowest: int, highest: int) -> int:
    """check_frame of section 7.10; gives the content size."""

    def number(at: int, count: int) -> int:
        need(at + count <= len(f), "the frame is cut short")
        return int.from_bytes(f[at : at + count], "little")

    need(len(f) >= 5 and f[:4] == b"\x28\xb5\x2f\xfd", "no frame")
    fhd = f[4]
    flag, single, reserved, checksum, dictionary = fhd >> 6, fhd >> 5 & 1, fhd >> 3 & 1, fhd >> 2 & 1, fhd & 3
    need(not reserved and checksum and not dictionary, "the frame header descriptor")
    p = 5
    window = 0
    if not single:
        b = number(p, 1)
        p += 1
        window_base = 2 ** (10 + (b >> 3))
        window = window_base + window_base // 8 * (b & 7)
    need(flag or single, "no content size")
    width = (1, 2, 4, 8)[flag]
    size = number(p, width) + (256 if flag == 1 else 0)
    p += width
    if single:
        window = size
    need(lowest <= size <= highest and window <= 2**27, "the size or the window")
    while True:
        b = number(p, 3)
        p += 3
        last, kind, length = b & 1, b >> 1 & 3, b >> 3
        need(kind != 3, "a reserved block")
        p += 1 if kind == 1 else length
        if last:
            break
    p += 4
    need(p == len(f), "the frame does not end where the stored bytes end")
    return size


def read_stream(chunk: Chunk, name: str, lowest: int, highest: int) -> bytes:
    need(name in chunk.streams, f"the stream {name} is absent")
    stored = chunk.streams[name]
    if chunk.compression == "none":
        need(lowest <= len(stored) <= highest, f"the stream {name} has {len(stored)} bytes")
        return stored
    size = check_frame(stored, lowest, highest)
    try:
        stream = zstd.decompress(stored)
    except zstd.ZstdError as error:
        raise Fault("malformed", str(error)) from None
    need(len(stream) == size, "the frame decodes to another size")
    return stream


def decode_gap(gaps: bytes, low: bytes, s: int, m: int, n: int) -> list[int]:
    hs = []
    acc = 0
    for b in gaps:
        acc += b
        if b < 255:
            hs.append(acc)
            acc = 0
    need(gaps[-1] != 255 and len(hs) == m, "`gaps`")
    positions = []
    r = -1
    for k in range(m):
        rest = 0
        if s == 4:
            rest = low[k // 2] >> (4 * (k % 2)) & 15
        if s == 8:
            rest = low[k]
        r = r + 1 + (hs[k] << s | rest)
        need(r < n, "a position past the end")
        positions.append(r)
    need(not (s == 4 and m % 2 and low[m // 2] >> 4), "the padding of `low`")
    return positions


def decode_bitmap(bitmap: bytes, m: int, n: int) -> list[int]:
    def bit(x: int) -> int:
        return bitmap[x >> 3] >> (x & 7) & 1

    positions = [x for x in range(n) if bit(x)]
    need(len(positions) == m, "`bitmap`")
    need(not any(bit(x) for x in range(n, 8 * len(bitmap))), "the padding of `bitmap`")
    return positions


def decode_step(base: list[int], codes: bytes, escapes: list[bytes], w: int) -> list[int]:
    new = []
    t = 0
    for k in range(len(base)):
        y = codes[k // 4] >> (2 * (k % 4)) & 3
        if y == 3:
            e = sum(escapes[j][t] << (8 * j) for j in range(w // 8))
            need(e <= 2**w - 5, "an escape")
            y = 3 + e
            t += 1
        z = y + 1
        d = z // 2 if z % 2 == 0 else -((z + 1) // 2)
        new.append((base[k] + d) % 2**w)
    spare = -len(base) % 4
    need(not spare or codes[-1] >> (2 * (4 - spare)) == 0, "the padding of `codes`")
    return new


def exponent_permutation(base: list[int], dtype: str, limit: int) -> list[int]:
    kind = DTYPES[dtype]
    key = [(word & kind.mask) >> kind.shift for word in base]
    first = sorted((i for i in range(len(base)) if key[i] < limit), key=lambda i: (key[i], i))
    return first + [i for i in range(len(base)) if key[i] >= limit]


def decode_chunk(chunk: Chunk, layout: Layout, base: list[list[int]]) -> dict[tuple[int, int], int]:
    """The listed words of a chunk: (tensor, word index) -> new word; its fingerprint is checked."""
    n, m, w = chunk.n, chunk.changed, DTYPES[chunk.dtype].w
    places = [(tensor, index) for tensor, start, stop in chunk.slices for index in range(start, stop)]
    old = [base[tensor][index] for tensor, index in places]
    positions = list(range(n))
    if chunk.positions == "gap":
        s = chunk.shift
        gaps = read_stream(chunk, "gaps", m, m + (n - m) // (255 * 2**s))
        size = {0: 0, 4: (m + 1) // 2, 8: m}[s]
        low = read_stream(chunk, "low", size, size) if s else b""
        positions = decode_gap(gaps, low, s, m, n)
    if chunk.positions == "bitmap":
        size = (n + 7) // 8
        positions = decode_bitmap(read_stream(chunk, "bitmap", size, size), m, n)
    numbers = positions
    if chunk.order == "exponent":
        permutation = exponent_permutation(old, chunk.dtype, chunk.limit)
        numbers = [permutation[r] for r in positions]
    if chunk.values == "replace":
        planes = [read_stream(chunk, f"values.{j}", m, m) for j in range(w // 8)]
        new = [sum(plane[k] << (8 * j) for j, plane in enumerate(planes)) for k in range(m)]
    else:
        size = (m + 3) // 4
        codes = read_stream(chunk, "codes", size, size)
        x = sum(codes[k // 4] >> (2 * (k % 4)) & 3 == 3 for k in range(m))
        if x == 0:
            need(not any(name.startswith("escapes.") for name in chunk.streams), "escapes, but no code is 3")
        escapes = [read_stream(chunk, f"escapes.{j}", x, x) for j in range(w // 8)] if x else []
        new = decode_step([old[number] for number in numbers], codes, escapes, w)
    listed = {places[number]: word for number, word in zip(numbers, new, strict=True)}
    total = sum(
        change(layout[tensor][0], index, base[tensor][index], word, w) for (tensor, index), word in listed.items()
    )
    need(f"{total % 2**64:016x}" == chunk.fingerprint, "the chunk's fingerprint", "integrity")
    return listed


# -- section 7: encoding, for comparison with the writer's streams ---------------------------------------------------


def encode_gap(positions: list[int], s: int) -> dict[str, bytes]:
    gaps = bytearray()
    lows = []
    previous = -1
    for r in positions:
        g = r - previous - 1
        previous = r
        h = g >> s
        gaps += b"\xff" * (h // 255) + bytes([h % 255])
        lows.append(g & (2**s - 1))
    if s == 8:
        return {"gaps": bytes(gaps), "low": bytes(lows)}
    if s == 4:
        lows.append(0)
        return {"gaps": bytes(gaps), "low": bytes(a | b << 4 for a, b in zip(lows[0::2], lows[1::2], strict=False))}
    return {"gaps": bytes(gaps)}


def encode_bitmap(positions: list[int], n: int) -> dict[str, bytes]:
    bitmap = bytearray((n + 7) // 8)
    for x in positions:
        bitmap[x >> 3] |= 1 << (x & 7)
    return {"bitmap": bytes(bitmap)}


def encode_step(base: list[int], new: list[int], w: int) -> dict[str, bytes]:
    ys = []
    for before, after in zip(base, new, strict=True):
        d = (after - before) % 2**w
        assert d, "a listed word that does not change"
        z = 2 * d if d < 2 ** (w - 1) else 2 * (2**w - d) - 1
        ys.append(z - 1)
    codes = [min(y, 3) for y in ys] + [0, 0, 0]
    packed = bytes(sum(codes[4 * j + q] << (2 * q) for q in range(4)) for j in range((len(ys) + 3) // 4))
    escapes = [y - 3 for y in ys if y >= 3]
    streams = {"codes": packed}
    if escapes:
        streams |= {f"escapes.{j}": bytes(e >> (8 * j) & 255 for e in escapes) for j in range(w // 8)}
    return streams


def encode_replace(new: list[int], w: int) -> dict[str, bytes]:
    return {f"values.{j}": bytes(x >> (8 * j) & 255 for x in new) for j in range(w // 8)}


# -- section 8: fingerprints ---------------------------------------------------------------------------------------


def mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


_SEEDS: dict[str, int] = {}


def seed(name: str) -> int:
    if name not in _SEEDS:
        _SEEDS[name] = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return _SEEDS[name]


def c(name: str, i: int) -> int:
    return (mix((seed(name) + (i >> 16)) % 2**64) | 1) * (mix(i & 65535) | 1) % 2**64


def lanes(word: int, w: int) -> list[int]:
    return [word] if w == 8 else [word >> (16 * q) & 65535 for q in range(w // 16)]


def tensor_fingerprint(name: str, words: Iterable[int], w: int) -> int:
    f = 0
    i = 0
    for x in words:
        for lane in lanes(x, w):
            if lane:
                f += lane * c(name, i)
            i += 1
    return f % 2**64


def state_fingerprint(state: State) -> str:
    total = sum(tensor_fingerprint(name, each.words, DTYPES[each.dtype].w) for name, each in state.items())
    return f"{total % 2**64:016x}"


def change(name: str, j: int, before: int, after: int, w: int) -> int:
    count = len(lanes(0, w))
    pairs = zip(lanes(before, w), lanes(after, w), strict=True)
    return sum((b - a) * c(name, j * count + q) for q, (a, b) in enumerate(pairs)) % 2**64


# -- sections 4 and 5: edges and versions --------------------------------------------------------------------------


def fit(base: State, layout: Layout) -> State:
    fitted: State = {}
    for name, dtype, shape in layout:
        held = base.get(name)
        if held is not None and held.dtype == dtype and held.shape == shape:
            fitted[name] = Tensor(dtype, shape, list(held.words))
        else:
            fitted[name] = Tensor(dtype, shape, [0] * word_count(dtype, shape))
    return fitted


def layout_of(objects: Mapping[str, bytes], digest: str) -> Layout:
    name = f"layouts/{digest}.json"
    need(name in objects, f"{name} does not exist", "missing")
    return parse_layout(objects[name], digest)


def apply_edge(objects: Mapping[str, bytes], name: str, held: State) -> State:
    """The state that a manifest or shortcut makes of the state held, or of nothing if it is full."""
    need(name in objects, f"{name} does not exist", "missing")
    manifest = parse_manifest(objects[name], name)
    need("chain.json" in objects, "no chain", "missing")
    need(manifest.chain == parse_chain(objects["chain.json"]), "another chain", "conflict")
    layout = layout_of(objects, manifest.layout)
    base: State = {}
    if manifest.base is not None:
        _, base_layout, base_sum = manifest.base
        held_layout = [(each, held[each].dtype, held[each].shape) for each in held]
        need(layout_of(objects, base_layout) == held_layout, "the layout held", "wrong-base")
        need(state_fingerprint(held) == base_sum, "the fingerprint held", "wrong-base")
        base = held
    fitted = fit(base, layout)
    base_words = [fitted[each].words for each, _, _ in layout]
    new_words = [list(words) for words in base_words]
    named: set[tuple[int, int]] = set()
    for entry in manifest.packs:
        need(entry.tensors[1] <= len(layout), "`tensors` of a pack")
        need(entry.path in objects, f"{entry.path} does not exist", "missing")
        assert entry.path is not None
        data = objects[entry.path]
        need(len(data) == entry.size, "the size of a pack", "integrity")
        need(hashlib.sha256(data).hexdigest() == entry.sha256, "the digest of a pack", "integrity")
        held_by_pack: set[int] = set()
        changed = 0
        if entry.content == "chunks":
            for chunk in read_chunk_pack(data, layout, manifest.layout, manifest.features):
                words = [(tensor, index) for tensor, start, stop in chunk.slices for index in range(start, stop)]
                need(named.isdisjoint(words), "a word is named twice")
                named |= set(words)
                held_by_pack |= {tensor for tensor, _ in words}
                changed += chunk.changed
                for (tensor, index), word in decode_chunk(chunk, layout, base_words).items():
                    new_words[tensor][index] = word
        else:
            for tensor, plain in read_plain_pack(data, layout).items():
                words = [(tensor, index) for index in range(len(plain))]
                need(named.isdisjoint(words), "a word is named twice")
                named |= set(words)
                held_by_pack.add(tensor)
                changed += len(plain)
                new_words[tensor] = plain
        need(entry.tensors == (min(held_by_pack), max(held_by_pack) + 1), "`tensors` of a pack")
        need(entry.changed == changed, "`changed` of a pack")
    state = {each: Tensor(dtype, shape, new_words[at]) for at, (each, dtype, shape) in enumerate(layout)}
    need(state_fingerprint(state) == manifest.fingerprint, "the manifest's fingerprint", "integrity")
    return state


def read_version(objects: Mapping[str, bytes], version: int) -> State:
    """A version's state, over the versions' own manifests."""
    name = f"manifests/{version:012d}.json"
    need(name in objects, f"no version {version}", "missing")
    base = parse_manifest(objects[name], name).base
    return apply_edge(objects, name, {} if base is None else read_version(objects, base[0]))


def objects_of(folder: Path) -> dict[str, bytes]:
    """All objects of a chain in a folder, by name."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
