"""Manifests and shortcuts: the packs that make a version from its base (SPEC.md sections 4.7 to 4.10)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..errors import LimitError, MalformedError, UnsupportedError
from . import strict_json
from .names import (
    FILES,
    PACKS,
    ChainId,
    Fingerprint,
    FormatVersion,
    Integer,
    Sha256,
    Time,
    Version,
    check_annotations,
    check_path,
    manifest_name,
    shortcut_name,
)

#: Greatest size of a manifest, in bytes.
MAX_MANIFEST = 64 * 2**20
#: Greatest number of packs.
MAX_PACKS = 2**16
#: Greatest number of ranges of tensors of a pack; writers join near ones to have no more than `_RANGES`, which is
#: enough for each eighth of the experts of a large mixture.
MAX_RANGES = 2**16
_RANGES = 2**13
#: Greatest size of a pack or file, in bytes.
MAX_PACK = 2**40
#: Greatest size of all packs of a manifest together, in bytes.
MAX_EDGE = 2**48

CHUNKS = "chunks"
TENSORS = "tensors"

EXPONENT_ORDER = "exponent-order"
#: The features that this package knows.
FEATURES = frozenset({EXPONENT_ORDER})

#: A plain name, of the registry of SPEC.md section 15, or one of a third party: `example.com/name`.
Feature = Annotated[
    str,
    Meta(pattern=r"^(?=.{1,128}\Z)([a-z0-9][a-z0-9-]{0,63}|([a-z0-9-]+\.)+[a-z0-9-]+/[a-z0-9][a-z0-9._-]{0,63})\Z"),
]


class Base(msgspec.Struct, frozen=True):
    """The version that a delta starts from, before it is fitted to the new layout."""

    version: Version
    layout: Sha256
    fingerprint: Fingerprint


class PackEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A manifest's description of one pack."""

    sha256: Sha256
    size: Integer
    path: str | None
    content: str
    tensors: list[tuple[Integer, Integer]]
    changed: Integer
    sources: list[str] | UnsetType = UNSET
    name: str | UnsetType = UNSET

    @property
    def label(self) -> str:
        """How errors name the pack."""
        return self.path if self.path is not None else f"pack {self.sha256}"

    def may_hold(self, tensor: int) -> bool:
        """True where a tensor, by its index in the layout, lies in one of the ranges of `tensors`."""
        before = bisect_right(self.tensors, tensor, key=lambda each: each[0])
        return before > 0 and tensor < self.tensors[before - 1][1]


class FileEntry(msgspec.Struct, frozen=True):
    """A manifest's description of one file published with the checkpoint, such as config.json."""

    name: str
    size: Integer
    sha256: Sha256
    path: str


def _no_files() -> list[FileEntry]:
    """The default of `files`, which is written, too: who reads a manifest by other means finds the field in each."""
    return []


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Makes a version from its base; a shortcut has the same form, and makes a version that exists already."""

    tensordelta: FormatVersion
    chain: ChainId
    version: Version
    layout: Sha256
    fingerprint: Fingerprint
    base: Base | None
    packs: list[PackEntry]
    features: list[Feature]
    created: Time
    annotations: dict[str, str] = {}
    tensor_fingerprints: Sha256 | UnsetType = UNSET
    files: list[FileEntry] = msgspec.field(default_factory=_no_files)

    @property
    def size(self) -> int:
        """Bytes of its packs: its cost in a route."""
        return sum(pack.size for pack in self.packs)

    @property
    def changed(self) -> int:
        """Number of listed words."""
        return sum(pack.changed for pack in self.packs)

    def encode(self) -> bytes:
        """The bytes of the manifest object."""
        return strict_json.encode(self)

    def starts_from(self, other: Manifest) -> bool:
        """True where its base is the version that another manifest makes, under any number (TD-RDR-005)."""
        return self.base is not None and (self.base.layout, self.base.fingerprint) == (other.layout, other.fingerprint)

    def same_version(self, other: Manifest) -> bool:
        """True if both make the same version the same way, so that creating it again is a repetition (section 11.2)."""

        def files(manifest: Manifest) -> set[tuple[str, int, str]]:
            return {(each.name, each.size, each.sha256) for each in manifest.files}

        return (
            self.layout == other.layout
            and self.fingerprint == other.fingerprint
            and self.base == other.base
            and files(self) == files(other)
        )


def ranges_of(tensors: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges that hold some tensors, at least one, and no others unless that takes very many ranges."""
    indices = sorted(set(tensors))
    gap = 0
    while True:
        starts = [at for at, each in enumerate(indices) if at == 0 or each - indices[at - 1] > gap + 1]
        if len(starts) <= _RANGES:
            stops = [*starts[1:], len(indices)]
            return [(indices[start], indices[stop - 1] + 1) for start, stop in zip(starts, stops, strict=True)]
        gap = 2 * gap + 1


def parse_manifest(
    data: bytes, *, version: int, base: int | UnsetType | None = UNSET, tag: str | None = None
) -> Manifest:
    """Parse a manifest, or a shortcut where `base` is given, and check it against its object's name.

    Args:
        data: the object's bytes.
        version: the version in the object's name.
        base: the base in a shortcut's name; None for a full shortcut.
        tag: the tag in a shortcut's name.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md sections 4.7 to 4.10.
    """
    name = manifest_name(version) if isinstance(base, UnsetType) else shortcut_name(version, base, tag)
    value = strict_json.parse(data, object=name, limit=MAX_MANIFEST)
    strict_json.check_version(value, object=name)
    if "base" not in value:
        raise MalformedError("`base` is absent; a full version says null", object=name, rule="TD-MAN-002")
    manifest = strict_json.convert(value, Manifest, object=name, rule="TD-MAN-001")
    if manifest.version != version:
        rule = "TD-OBJ-004" if isinstance(base, UnsetType) else "TD-OBJ-005"
        raise MalformedError(f"holds version {manifest.version}", object=name, rule=rule)
    if not isinstance(base, UnsetType) and (manifest.base.version if manifest.base else None) != base:
        raise MalformedError("its base is not the one of its name", object=name, rule="TD-OBJ-005")
    if manifest.base is not None and manifest.base.version >= version:
        raise MalformedError(
            f"its base is version {manifest.base.version}, not an earlier one", object=name, rule="TD-MAN-003"
        )
    _check_packs(manifest, name)
    _check_names(manifest, name)
    check_annotations(manifest.annotations, object=name)
    return manifest


def check_features(manifest: Manifest, *, object: str) -> None:
    """Refuse a manifest that needs a feature which this reader does not know.

    Raises:
        UnsupportedError: an unknown feature.
    """
    for feature in manifest.features:
        if feature not in FEATURES:
            raise UnsupportedError(f"needs the feature {feature!r}", object=object, rule="TD-MAN-004")


def _check_packs(manifest: Manifest, name: str) -> None:
    if len(manifest.packs) > MAX_PACKS:
        raise LimitError(f"{len(manifest.packs)} packs, more than 2^16", object=name, rule="TD-LIM-004")
    total = 0
    known = all(feature in FEATURES for feature in manifest.features)  # and so is all that stands in its packs
    for index, pack in enumerate(manifest.packs):
        where = f"`packs[{index}]`"
        if known and pack.content not in (CHUNKS, TENSORS):
            raise UnsupportedError(f"{where} has content {pack.content!r}", object=name, rule="TD-MAN-012")
        if pack.size > MAX_PACK:
            raise LimitError(f"{where} has {pack.size} bytes, more than 2^40", object=name, rule="TD-LIM-004")
        if pack.path is None and not pack.sources:
            raise MalformedError(f"{where} has neither path nor sources", object=name, rule="TD-MAN-009")
        if pack.path is not None:
            check_path(pack.path, prefix=PACKS, object=name)
        if len(pack.tensors) > MAX_RANGES:
            raise LimitError(f"{where} has {len(pack.tensors)} ranges, more than 2^16", object=name, rule="TD-LIM-004")
        total += pack.size
        if total > MAX_EDGE:
            raise LimitError("its packs have more than 2^48 bytes together", object=name, rule="TD-LIM-004")
        end = -1
        for first, stop in pack.tensors:
            if not end < first < stop:
                raise MalformedError(f"{where} has the range {[first, stop]}", object=name, rule="TD-MAN-001")
            end = stop
        if end < 0:
            raise MalformedError(f"{where} names no tensor", object=name, rule="TD-MAN-001")


def _check_names(manifest: Manifest, name: str) -> None:
    taken: set[str] = set()
    for file in manifest.files:
        if file.size > MAX_PACK:
            raise LimitError(f"file {file.name!r} is larger than 2^40 bytes", object=name, rule="TD-LIM-004")
        check_path(file.path, prefix=FILES, object=name)
        _take_name(file.name, taken, name)
    for pack in manifest.packs:
        if pack.content == TENSORS and isinstance(pack.name, str):
            _take_name(pack.name, taken, name)
    for each in taken:
        for end in (at for at, letter in enumerate(each) if letter == "/"):
            if each[:end] in taken:
                raise MalformedError(
                    f"{each[:end]!r} is the name of a file and of a folder", object=name, rule="TD-MAN-021"
                )


def _take_name(each: str, taken: set[str], name: str) -> None:
    check_path(each, object=name)
    if each in taken:
        raise MalformedError(f"two files are named {each!r}", object=name, rule="TD-MAN-020")
    taken.add(each)
