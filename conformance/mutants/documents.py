"""The JSON of a chain: strict parsing, layouts, manifests, and the tables of SPEC.md sections 3, 4 and 16."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

#: The closed set of SPEC.md section 17.
ERRORS = ("malformed", "unsupported", "limit", "integrity", "wrong-base", "missing", "conflict", "untrusted")


class Rejection(Exception):
    """A rejection under one of `ERRORS`; `object` names what is at fault, as far as that is known."""

    def __init__(self, error: str, message: str, object: str = "") -> None:
        super().__init__(message)
        self.error = error
        self.object = object


def require(condition: object, error: str, message: str) -> None:
    """Raise the rejection `error` unless the condition holds."""
    if not condition:
        raise Rejection(error, message)


# -- section 16 -------------------------------------------------------------------------------------------------------

SMALL = 65_536
MANIFEST = 67_108_864
LAYOUT = 268_435_456
NESTING = 16
PACK = 2**40
PACKS = 2**16
TENSORS = 2**20
DIMENSIONS = 16
DIMENSION = 2**48
VERSION = 10**12 - 1
INTEGER = 2**53 - 1
PATH = 200
NAME = 1024
FEATURES = ("exponent-order",)

# -- section 3.2 ------------------------------------------------------------------------------------------------------


class DType(NamedTuple):
    """A row of the table of dtypes: sizes in bits, and the exponent field (mask 0: there is none)."""

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


class Tensor(NamedTuple):
    """An entry of a layout."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def words(self) -> int:
        """How many words the tensor has."""
        kind = DTYPES[self.dtype]
        return elements(self.shape) * kind.bits // kind.w

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.words * DTYPES[self.dtype].w // 8


def elements(shape: Sequence[int]) -> int:
    """The product of the dimensions."""
    product = 1
    for dimension in shape:
        product *= dimension
    return product


# -- section 4.3 ------------------------------------------------------------------------------------------------------


class Number(NamedTuple):
    """A JSON number as it is written: what it may be depends on the field."""

    literal: str


_INTEGER = re.compile(r"0|[1-9][0-9]*")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SUM = re.compile(r"[0-9a-f]{16}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?Z"
)
_FORMAT = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_FEATURE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    require(len(found) == len(members), "malformed", "two members of one name in a JSON object")
    return found


def _no_constant(literal: str) -> None:
    raise Rejection("malformed", f"{literal} is no JSON")


def _depth(text: str) -> int:
    """The deepest nesting of a JSON text; found before it is parsed, so that a deep one costs no stack."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _strings(member)


def parse_json(data: bytes) -> dict[str, Any]:
    """The one JSON object that the bytes are, by the rules of section 4.3; numbers stay as written."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejection("malformed", "not UTF-8") from None
    require(not text.startswith("\ufeff"), "malformed", "begins with a byte order mark")
    require(_depth(text) <= NESTING, "limit", "nested deeper than 16 levels")
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=_no_constant
        )
    except ValueError as fault:
        raise Rejection("malformed", str(fault)) from None
    require(isinstance(value, dict), "malformed", "not a JSON object")
    require(not any(0xD800 <= ord(c) < 0xE000 for s in _strings(value) for c in s), "malformed", "a lone surrogate")
    return dict(value)


def integer(value: Any, highest: int = INTEGER) -> int:
    """The integer of a known field."""
    require(isinstance(value, Number) and _INTEGER.fullmatch(value.literal), "malformed", "not an integer")
    require(len(value.literal) <= 20 and int(value.literal) <= highest, "malformed", f"an integer over {highest}")
    return int(value.literal)


class Fields:
    """The members of one JSON object, by the types of section 4.3."""

    def __init__(self, value: Any) -> None:
        require(isinstance(value, dict), "malformed", "not a JSON object")
        self.members: dict[str, Any] = value

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def get(self, key: str) -> Any:
        """A member of any type."""
        require(key in self.members, "malformed", f"no field {key!r}")
        return self.members[key]

    def string(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        """A string that matches a pattern."""
        value = self.get(key)
        require(isinstance(value, str), "malformed", f"{key!r} is no string")
        require(pattern is None or pattern.fullmatch(value), "malformed", f"{key!r} is not of its form")
        return str(value)

    def digest(self, key: str) -> str:
        """A SHA-256."""
        return self.string(key, _DIGEST)

    def sum(self, key: str) -> int:
        """A fingerprint."""
        return int(self.string(key, _SUM), 16)

    def path(self, key: str, prefix: str) -> str:
        """A path of section 4.4."""
        value = self.string(key, _PATH)
        require(len(value) <= PATH, "malformed", f"{key!r} is longer than 200 characters")
        require(value.startswith(prefix), "malformed", f"{key!r} does not begin with {prefix!r}")
        return value

    def integer(self, key: str) -> int:
        """An integer."""
        return integer(self.get(key))

    def version(self, key: str) -> int:
        """A version."""
        require(self.integer(key) <= VERSION, "malformed", f"{key!r} is over 10^12 - 1")
        return self.integer(key)

    def array(self, key: str) -> list[Any]:
        """An array."""
        value = self.get(key)
        require(isinstance(value, list), "malformed", f"{key!r} is no array")
        return list(value)

    def format(self) -> None:
        """The field `tensordelta`, which is checked before any other."""
        require(self.string("tensordelta", _FORMAT).split(".")[0] == "1", "unsupported", "a later format")

    def time_and_annotations(self) -> None:
        """The fields `created` and `annotations`."""
        self.string("created", _TIME)
        annotations = Fields(self.members.get("annotations", {}))
        require(len(annotations.members) <= 64, "limit", "more than 64 annotations")
        for key in annotations.members:
            length = len(key.encode()) + len(annotations.string(key).encode())
            require(length <= 4096, "limit", "an annotation of more than 4096 bytes")


# -- sections 4.5 to 4.10 ---------------------------------------------------------------------------------------------


class Base(NamedTuple):
    """What a delta starts from."""

    version: int
    layout: str
    fingerprint: int


class Pack(NamedTuple):
    """A pack entry."""

    sha256: str
    size: int
    path: str | None
    sources: list[str]
    content: str
    tensors: tuple[int, int]
    changed: int


class File(NamedTuple):
    """A file entry."""

    size: int
    sha256: str
    path: str


class Manifest(NamedTuple):
    """A manifest or shortcut, under the name of its object."""

    name: str
    version: int
    layout: str
    fingerprint: int
    base: Base | None
    packs: list[Pack]
    features: list[str]
    tensor_fingerprints: str | None
    files: list[File]

    @property
    def cost(self) -> int:
        """What following it costs: the bytes of its packs."""
        return sum(pack.size for pack in self.packs)


def parse_chain(data: bytes) -> str:
    """The chain id of chain.json."""
    fields = Fields(parse_json(data))
    fields.format()
    fields.time_and_annotations()
    return fields.string("chain", _UUID)


def _tensor(value: Any) -> Tensor:
    fields = Fields(value)
    name, dtype = fields.string("name"), fields.string("dtype")
    require(1 <= len(name.encode()) <= NAME, "malformed", "a tensor's name is empty or too long")
    require(name != "__metadata__", "malformed", "a tensor is named __metadata__")
    require(dtype in DTYPES, "unsupported", f"unknown dtype {dtype}")
    shape = tuple(integer(dimension) for dimension in fields.array("shape"))
    require(len(shape) <= DIMENSIONS, "limit", "more than 16 dimensions")
    require(all(dimension <= DIMENSION for dimension in shape), "limit", "a dimension over 2^48")
    require(elements([d for d in shape if d]) <= DIMENSION, "limit", "dimensions with a product over 2^48")
    require(elements(shape) * DTYPES[dtype].bits % 8 == 0, "malformed", "elements that fill no whole bytes")
    return Tensor(name, dtype, shape)


def parse_layout(data: bytes) -> list[Tensor]:
    """The tensors of a layout object."""
    fields = Fields(parse_json(data))
    fields.format()
    entries = fields.array("tensors")
    require(len(entries) <= TENSORS, "limit", "more than 2^20 tensors")
    layout = [_tensor(entry) for entry in entries]
    names = [tensor.name.encode() for tensor in layout]
    require(all(a < b for a, b in pairwise(names)), "malformed", "names are not ascending")
    return layout


def _pack(value: Any, known: bool) -> Pack:
    fields = Fields(value)
    content = fields.string("content")
    require(content in ("chunks", "tensors") or not known, "unsupported", f"unknown content {content!r}")
    size = fields.integer("size")
    require(size <= PACK, "limit", "a pack over 2^40 bytes")
    sources = fields.array("sources") if "sources" in fields else []
    require(all(isinstance(source, str) for source in sources), "malformed", "a source is no string")
    path = None if fields.get("path") is None else fields.path("path", "packs/")
    require(path is not None or sources, "malformed", "neither a path nor a source")
    tensors = [integer(each) for each in fields.array("tensors")]
    require(len(tensors) == 2 and tensors[0] < tensors[1], "malformed", "`tensors` is no range")
    if "name" in fields and content == "chunks":
        fields.string("name")
    return Pack(
        fields.digest("sha256"), size, path, sources, content, (tensors[0], tensors[1]), fields.integer("changed")
    )


def _file(value: Any) -> File:
    fields = Fields(value)
    size = fields.integer("size")
    require(size <= PACK, "limit", "a file over 2^40 bytes")
    return File(size, fields.digest("sha256"), fields.path("path", "files/"))


def _check_names(names: list[str]) -> None:
    require(len(set(names)) == len(names), "malformed", "two files have one name")
    folders = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    require(not folders & set(names), "malformed", "a file's name is a folder's")


def parse_manifest(data: bytes, name: str, chain: str) -> Manifest:
    """The manifest or shortcut in the object `name`. Unknown features stay: they only keep it from being followed."""
    fields = Fields(parse_json(data))
    fields.format()
    fields.time_and_annotations()
    require(fields.string("chain", _UUID) == chain, "conflict", "of another chain")
    version = fields.version("version")
    base = None
    if fields.get("base") is not None:
        inner = Fields(fields.get("base"))
        base = Base(inner.version("version"), inner.digest("layout"), inner.sum("fingerprint"))
        require(base.version < version, "malformed", "the base is not older than the version")
    features = fields.array("features")
    require(all(isinstance(each, str) and _FEATURE.fullmatch(each) for each in features), "malformed", "bad feature")
    known = all(feature in FEATURES for feature in features)
    packs = fields.array("packs")
    require(len(packs) <= PACKS, "limit", "more than 2^16 packs")
    files = fields.array("files") if "files" in fields else []
    plain = [pack for pack in packs if Fields(pack).string("content") == "tensors" and "name" in pack]
    _check_names([Fields(each).path("name", "") for each in files + plain])
    manifest = Manifest(
        name,
        version,
        fields.digest("layout"),
        fields.sum("fingerprint"),
        base,
        [_pack(pack, known) for pack in packs],
        features,
        fields.digest("tensor_fingerprints") if "tensor_fingerprints" in fields else None,
        [_file(file) for file in files],
    )
    _check_object_name(manifest)
    return manifest


def manifest_name(version: int) -> str:
    """The name of a version's manifest."""
    return f"manifests/{version:012d}.json"


def _check_object_name(manifest: Manifest) -> None:
    stem = manifest.name.partition("/")[2].partition(".")[0]
    base = "full" if manifest.base is None else f"{manifest.base.version:012d}"
    told = f"{manifest.version:012d}" + (f"-{base}" if manifest.name.startswith("shortcuts/") else "")
    require(stem == told, "malformed", f"holds {told}")
