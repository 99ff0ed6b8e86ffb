"""Selections: which versions, shortcuts and objects a copy takes along (SPEC.md sections 11 to 14).

A selection is made before anything is written, from what the chain has, what is asked for, and what the destination
already has, which must agree with the chain.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from ..errors import ConflictError, MissingError, TensorDeltaError
from ..format.manifest import Base, Manifest
from ..format.names import (
    CHAIN,
    MANIFESTS,
    ShortcutName,
    fingerprints_name,
    layout_name,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
)
from ..read.listing import Member, Members, member_name
from ..read.reader import Reader
from ..stores import Store, has_strangers
from .closure import Closure


class NamedObject(NamedTuple):
    """An object that a manifest names by its digest.

    Attributes:
        size: its bytes; None if the manifest does not say.
        altered, missing: the rules that are broken if it has other bytes, or is missing.
    """

    name: str
    sha256: str
    size: int | None
    altered: str
    missing: str


class Selected(NamedTuple):
    """A version to copy: its own manifest, shortcuts to it by name, and the objects that they name."""

    manifest: Manifest
    shortcuts: Mapping[ShortcutName, Manifest]
    objects: Sequence[NamedObject]


class Destination:
    """The store that a copy goes to, and what it already has.

    Args:
        store: the store.
        chain: id of the chain that is copied.

    Attributes:
        store: the store.
        sizes: bytes of each object.
        named: names of the objects that manifests of the copy name, so that no collector deletes them.

    Raises:
        ConflictError: something else is there.
    """

    def __init__(self, store: Store, chain: str) -> None:
        self.store = store
        self.sizes: dict[str, int] = {}
        self.named: set[str] = set()
        self._reader: Reader | None = None
        if store.size(CHAIN) is not None:
            self._reader = Reader(store, chain=chain)
            self.sizes = {entry.name: entry.size for entry in store.entries("")}
        elif has_strangers(store):
            raise ConflictError(
                "has contents, but no chain",
                object=store.address,
                rule="TD-STO-010",
                advice="Name an empty folder or prefix, or one that does not exist; a chain has a place of its own.",
            )

    @cached_property
    def _closure(self) -> Closure:
        assert self._reader is not None
        shortcuts = filter(None, map(parse_shortcut_name, self.sizes))
        return Closure(self._reader.members(self.versions, shortcuts), lambda edge: is_whole(edge, self.sizes))

    @property
    def versions(self) -> list[int]:
        """The versions that are there, ascending."""
        found = map(parse_manifest_name, self.sizes)
        return sorted(version for version in found if version is not None)

    def edge(self, member: Member) -> Manifest | None:
        """A version's manifest, or a shortcut; None if there is none.

        Raises:
            TensorDeltaError: it breaks a rule.
        """
        if self._reader is None or member_name(member) not in self.sizes:
            return None
        return (
            self._reader.documents.shortcut(member)
            if isinstance(member, ShortcutName)
            else self._reader.documents.manifest(member)
        )

    def is_base(self, base: Base) -> bool:
        """True if a delta's base is there, and can be rebuilt.

        Raises:
            ConflictError: the version is there with other contents.
        """
        own = self.edge(base.version)
        if own is None:
            return False
        if (own.layout, own.fingerprint) != (base.layout, base.fingerprint):
            raise conflict(manifest_name(base.version))
        try:
            self._closure.add(base.version)
        except TensorDeltaError:
            return False
        return True


class Selection:
    """What a copy takes along.

    Args:
        reader: of the chain that is copied.
        destination: where the copy goes; its `named` is extended by what manifests name that are there already.
        versions: the versions asked for; None for all.

    Attributes:
        wanted: the versions asked for, ascending.
        chosen: all versions that are copied, ascending.
        listed: bytes of each object of the chain's store.
        left_out: names of shortcuts that are not copied.

    Raises:
        MissingError: none of the versions exists, or no route leads to one.
        ConflictError: the destination has a version or shortcut with other contents.
        TensorDeltaError: a manifest breaks a rule.
    """

    def __init__(self, reader: Reader, destination: Destination, versions: Container[int] | None) -> None:
        self._destination = destination
        self.left_out: list[str] = []
        listed, shortcuts = list(reader.documents.signed(reader.documents.versions())), reader.documents.shortcuts()
        self.listed = {entry.name: entry.size for entry in reader.store.entries("")}
        self.wanted = [version for version in listed if versions is None or version in versions]
        if not self.wanted and versions is not None:
            raise MissingError("none of the versions asked for exists", object=MANIFESTS, rule="TD-OBJ-008")
        members = reader.members(listed, shortcuts)
        closure = Closure(members, lambda edge: is_whole(edge, self.listed), has_base=destination.is_base)
        closure.read(self.wanted)
        for version in self.wanted:
            members.own(version)
            closure.add(version)
        chosen = sorted(closure.versions)
        closure.read(chosen)
        self.chosen = [self._version(version, members, None if versions is None else chosen) for version in chosen]

    def _version(self, version: int, members: Members, bases: Container[int] | None) -> Selected:
        """A version, with the shortcuts to it from nothing and from `bases`; None for all shortcuts."""
        own = members.own(version)
        self._compare(version, own)
        shortcuts: dict[ShortcutName, Manifest] = {}
        for member in members.leading_to(version):
            if not isinstance(member, ShortcutName):
                continue
            if not (bases is None or member.base is None or member.base in bases):
                continue
            shortcut = members.edge(member)
            if shortcut is None or not is_whole(shortcut, self.listed):
                self.left_out.append(member_name(member))
            else:
                shortcuts[member] = shortcut
                self._compare(member, shortcut)
        named = [*self.named_by(version, own)]
        for member, shortcut in shortcuts.items():
            named += self.named_by(member, shortcut)
        return Selected(own, shortcuts, list(dict.fromkeys(named)))

    def _compare(self, member: Member, manifest: Manifest) -> None:
        """Compare a manifest or shortcut with what the destination has under its name.

        Raises:
            ConflictError: that has other contents.
        """
        there = self._destination.edge(member)
        if there is None:
            return
        if not is_same(member, manifest, there):
            raise conflict(member_name(member))
        if there == manifest:
            self._destination.named.update(each.name for each in self.named_by(member, manifest))

    def named_by(self, member: Member, manifest: Manifest) -> Iterator[NamedObject]:
        """The objects that a manifest or shortcut names by digest; packs only if all of them are there."""
        layout = manifest.layout
        yield NamedObject(layout_name(layout), layout, None, "TD-LAY-008", "TD-LAY-009")
        sums = manifest.tensor_fingerprints
        if isinstance(sums, str):
            yield NamedObject(fingerprints_name(sums), sums, None, "TD-FPR-001", "TD-FPR-010")
        if is_whole(manifest, self.listed):
            for pack in manifest.packs:
                if pack.path is not None:
                    yield NamedObject(pack.path, pack.sha256, pack.size, "TD-MAN-013", "TD-MAN-014")
        for file in () if isinstance(member, ShortcutName) else manifest.files:
            yield NamedObject(file.path, file.sha256, file.size, "TD-MAN-022", "TD-MAN-029")


def is_whole(edge: Manifest, listed: Container[str]) -> bool:
    """True if all packs of an edge are listed, except those that are not kept under the root."""
    return all(pack.path is None or pack.path in listed for pack in edge.packs)


def is_same(member: Member, mine: Manifest, other: Manifest) -> bool:
    """True if two manifests, or two shortcuts, lead readers to the same state (SPEC.md section 11.2)."""
    if isinstance(member, ShortcutName):
        return (mine.layout, mine.fingerprint, mine.base) == (other.layout, other.fingerprint, other.base)
    return mine.same_version(other)


def conflict(name: str) -> ConflictError:
    """The error for an object of the destination that is not the chain's."""
    return ConflictError(
        "is in the copy already, with other contents",
        object=name,
        rule="TD-WRT-006",
        advice="Another writer has written to the copy: choose another place for it.",
    )
