"""The JSON objects of a chain: sections 4.1, 4.5 to 4.11, 13 and 14, with their limits of section 16."""

from __future__ import annotations

import hashlib
import math
import re
from itertools import pairwise
from typing import Any, NamedTuple

from .fields import Fields, document, integer
from .rejection import require
from .state import DTYPES, Layout, TensorEntry

SMALL = 65_536
MANIFEST = 67_108_864
LAYOUT = 268_435_456
PACK = 2**40
PACKS = 2**16
EDGE = 2**48
STATE = 2**53
RANGES = 2**16
HINTED = 64
TENSORS = 2**20
NAME = 1024
DIMENSIONS = 16
DIMENSION = 2**48

#: The features of section 15.
FEATURES = ("exponent-order",)

MANIFEST_NAME = re.compile(r"manifests/([0-9]{12})\.json")
SHORTCUT_NAME = re.compile(r"shortcuts/([0-9]{12})-([0-9]{12}|full)(\.[a-z0-9]{1,16})?\.json")
_STEM = re.compile(r"[0-9]{12}-([0-9]{12}|full)(\.[a-z0-9]{1,16})?")
_FEATURE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}|(?=.{1,128}\Z)([a-z0-9-]+\.)+[a-z0-9-]+/[a-z0-9][a-z0-9._-]{0,63}")
_SIGNATURE = re.compile(r"[A-Za-z0-9+/]{85}[AQgw]==")


# -- sections 4.5, 4.11, 13 and 14: the small objects -----------------------------------------------------------------


def parse_chain(data: bytes) -> str:
    """The chain id of `chain.json`."""
    fields = document(data, SMALL)
    fields.check_created()
    fields.annotations()
    if "grace" in fields:
        require(60 <= fields.integer("grace") <= 2**32, "TD-OBJ-015", "a grace period out of bounds")
    return fields.uuid("chain")


class Hint(NamedTuple):
    """The hint `latest.json`; `shortcuts` are names of objects."""

    chain: str
    version: int
    shortcuts: list[str]


def parse_latest(data: bytes) -> Hint:
    """The hint."""
    fields = document(data, SMALL)
    stems = fields.strings("shortcuts", _STEM) if "shortcuts" in fields else []
    require(len(stems) <= HINTED, "TD-LIM-004", "more than 64 shortcuts", "limit")
    return Hint(fields.uuid("chain"), fields.version("version"), [f"shortcuts/{stem}.json" for stem in stems])


def parse_pin(data: bytes) -> tuple[str, int, int | None]:
    """The chain id and the version of a pin, and for how many seconds it holds; None: for ever."""
    fields = document(data, SMALL)
    seconds = fields.integer("seconds") if "seconds" in fields else None
    return fields.uuid("chain"), fields.version("version"), seconds


def parse_signature(data: bytes) -> str:
    """The signature (base64) of a signature object."""
    return document(data, SMALL).string("sig", _SIGNATURE)


# -- section 4.6: layouts ---------------------------------------------------------------------------------------------


def parse_layout(data: bytes, digest: str) -> Layout:
    """The tensors of the layout object that a digest names."""
    require(hashlib.sha256(data).hexdigest() == digest, "TD-LAY-008", "another SHA-256", "integrity")
    entries = document(data, LAYOUT).array("tensors")
    require(len(entries) <= TENSORS, "TD-LIM-004", "more than 2^20 tensors", "limit")
    layout = [_tensor(Fields(entry)) for entry in entries]
    names = [tensor.name.encode() for tensor in layout]
    require(all(a < b for a, b in pairwise(names)), "TD-LAY-002", "names are not ascending")
    require(sum(tensor.size for tensor in layout) <= STATE, "TD-LIM-004", "more than 2^53 bytes", "limit")
    return layout


def _tensor(fields: Fields) -> TensorEntry:
    name, dtype = fields.string("name"), fields.string("dtype")
    require(1 <= len(name.encode()) <= NAME, "TD-LAY-003", "a tensor's name is empty or too long")
    require(name != "__metadata__", "TD-LAY-004", "a tensor is named __metadata__")
    require(dtype in DTYPES, "TD-WRD-004", f"the dtype {dtype!r}", "unsupported")
    shape = tuple(integer(dimension) for dimension in fields.array("shape"))
    require(len(shape) <= DIMENSIONS, "TD-LIM-004", "more than 16 dimensions", "limit")
    require(all(dimension <= DIMENSION for dimension in shape), "TD-LIM-004", "a dimension over 2^48", "limit")
    require(math.prod(d for d in shape if d) <= DIMENSION, "TD-LAY-007", "a product over 2^48", "limit")
    require(math.prod(shape) * DTYPES[dtype].bits % 8 == 0, "TD-WRD-005", "elements that fill no whole bytes")
    return TensorEntry(name, dtype, shape)


# -- sections 4.7 to 4.10: manifests and shortcuts --------------------------------------------------------------------


class Base(NamedTuple):
    """The version that a delta starts from."""

    version: int
    layout: str
    fingerprint: int


class Pack(NamedTuple):
    """A pack entry."""

    sha256: str
    size: int
    path: str | None
    content: str
    tensors: list[tuple[int, int]]
    changed: int
    sources: list[str]


class File(NamedTuple):
    """A file entry."""

    name: str
    size: int
    sha256: str
    path: str


class Manifest(NamedTuple):
    """A manifest or shortcut, under the name of its object."""

    name: str
    chain: str
    version: int
    layout: str
    fingerprint: int
    base: Base | None
    packs: list[Pack]
    features: list[str]
    annotations: dict[str, str]
    tensor_fingerprints: str | None
    files: list[File]

    @property
    def cost(self) -> int:
        """The cost of section 10: the bytes of its packs."""
        return sum(pack.size for pack in self.packs)


def manifest_name(version: int) -> str:
    """The name of a version's manifest."""
    return f"manifests/{version:012d}.json"


def parse_manifest(data: bytes, name: str) -> Manifest:
    """The manifest or shortcut in the object of a name, with which it is not compared.

    Features that are not known stay in it: they only keep it from being followed (section 10).
    """
    fields = document(data, MANIFEST)
    fields.check_created()
    version = fields.version("version")
    base = None
    if fields.get("base") is not None:
        inner = Fields(fields.get("base"))
        base = Base(inner.version("version"), inner.digest("layout"), inner.sum("fingerprint"))
        require(base.version < version, "TD-MAN-003", "the base is not older than the version")
    features = fields.strings("features", _FEATURE)
    packs = [Fields(each) for each in fields.array("packs")]
    require(len(packs) <= PACKS, "TD-LIM-004", "more than 2^16 packs", "limit")
    files = [Fields(each) for each in (fields.array("files") if "files" in fields else [])]
    plain = [each for each in packs if each.get("content") == "tensors" and "name" in each]
    _check_file_names([each.path("name") for each in files + plain])
    known = all(feature in FEATURES for feature in features)
    entries = [_pack(each, known) for each in packs]
    require(sum(each.size for each in entries) <= EDGE, "TD-LIM-004", "packs of more than 2^48 bytes", "limit")
    return Manifest(
        name,
        fields.uuid("chain"),
        version,
        fields.digest("layout"),
        fields.sum("fingerprint"),
        base,
        entries,
        features,
        fields.annotations(),
        fields.digest("tensor_fingerprints") if "tensor_fingerprints" in fields else None,
        [_file(each) for each in files],
    )


def _pack(fields: Fields, known: bool) -> Pack:
    """A pack entry; `known` says that the manifest's features are, and so all that may stand in it."""
    content = fields.string("content")
    require(content in ("chunks", "tensors") or not known, "TD-MAN-012", f"the content {content!r}", "unsupported")
    size = fields.integer("size")
    require(size <= PACK, "TD-LIM-004", "a pack over 2^40 bytes", "limit")
    sources = fields.strings("sources") if "sources" in fields else []
    path = None if fields.get("path") is None else fields.path("path", "packs/", "TD-PTH-003")
    require(path is not None or sources, "TD-MAN-009", "neither a path nor a source")
    tensors = _ranges(fields.array("tensors"))
    if "name" in fields:
        fields.string("name")
    return Pack(fields.digest("sha256"), size, path, content, tensors, fields.integer("changed"), sources)


def _ranges(entries: list[Any]) -> list[tuple[int, int]]:
    require(len(entries) <= RANGES, "TD-LIM-004", "more than 2^16 ranges", "limit")
    ranges: list[tuple[int, int]] = []
    for entry in entries:
        require(isinstance(entry, list) and len(entry) == 2, "TD-JSN-012", "a range is two integers")
        first, stop = (integer(each) for each in entry)
        require(first < stop, "TD-MAN-001", "a range without tensors")
        require(not ranges or ranges[-1][1] < first, "TD-MAN-001", "ranges that touch, or are not ascending")
        ranges.append((first, stop))
    require(ranges, "TD-MAN-001", "no range of tensors")
    return ranges


def _file(fields: Fields) -> File:
    size = fields.integer("size")
    require(size <= PACK, "TD-LIM-004", "a file over 2^40 bytes", "limit")
    return File(fields.path("name"), size, fields.digest("sha256"), fields.path("path", "files/", "TD-PTH-004"))


def _check_file_names(names: list[str]) -> None:
    require(len(set(names)) == len(names), "TD-MAN-020", "two files have one name")
    folders = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    require(not folders & set(names), "TD-MAN-021", "a file's name is a folder's")


def check_name(edge: Manifest) -> None:
    """Section 4.1: the version and the base of a manifest or shortcut are those in its object's name."""
    version, base = f"{edge.version:012d}", "full" if edge.base is None else f"{edge.base.version:012d}"
    stem = edge.name.partition("/")[2].partition(".")[0]
    if MANIFEST_NAME.fullmatch(edge.name):
        require(stem == version, "TD-OBJ-004", f"holds version {version}")
    else:
        require(stem == f"{version}-{base}", "TD-OBJ-005", f"leads from {base} to {version}")


def check_features(edge: Manifest) -> None:
    """Section 15: all features are known."""
    for feature in edge.features:
        require(feature in FEATURES, "TD-MAN-004", f"the feature {feature!r}", "unsupported")
