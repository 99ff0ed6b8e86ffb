"""Selections: which versions, shortcuts and objects a copy takes along (SPEC.md sections 11 to 14).

A selection is made before anything is written: from what the chain has, what is asked for, and what there is of the
copy, which has to agree with the chain.
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
from ..read.routes import Edge, Fault, Planner, check_base
from ..stores import Store, has_strangers


class NamedObject(NamedTuple):
    """An object that a manifest names by its digest.

    Attributes:
        size: its bytes, where the manifest tells.
        altered, missing: the rules that are broken where it is another, or gone.
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


class Target:
    """What there is of the copy.

    Args:
        store: where it lies.
        chain: the chain that is to be there.

    Attributes:
        store: where it lies.
        sizes: bytes of each object.
        named: names of the objects that manifests of the copy name, so that no collector takes them (TD-RET-005).

    Raises:
        ConflictError: something else is there.
    """

    def __init__(self, store: Store, chain: str) -> None:
        self.store = store
        self.sizes: dict[str, int] = {}
        self.named: set[str] = set()
        self.reader: Reader | None = None
        self._sound: dict[int, bool] = {}
        if store.size(CHAIN) is not None:
            self.reader = Reader(store, chain=chain)
            self.sizes = {entry.name: entry.size for entry in store.entries("")}
        elif has_strangers(store):
            raise ConflictError(
                "has contents, but no chain",
                object=store.address,
                rule="TD-STO-010",
                advice="Name an empty folder or prefix, or one that does not exist; a chain has a place of its own.",
            )

    @cached_property
    def _members(self) -> Members:
        assert self.reader is not None
        return self.reader.members(self.versions, (name for name in map(parse_shortcut_name, self.sizes) if name))

    @property
    def versions(self) -> list[int]:
        """The versions that are there, ascending."""
        found = map(parse_manifest_name, self.sizes)
        return sorted(version for version in found if version is not None)

    def edge(self, member: Member) -> Manifest | None:
        """A version's manifest, or a shortcut; None where there is none.

        Raises:
            TensorDeltaError: it breaks a rule.
        """
        if self.reader is None or member_name(member) not in self.sizes:
            return None
        return self.reader.documents.member(member)

    def is_base(self, base: Base) -> bool:
        """True where a delta's base is there, and can be rebuilt.

        Raises:
            ConflictError: the version is there, and is another.
        """
        own = self.edge(base.version)
        if own is None:
            return False
        if (own.layout, own.fingerprint) != (base.layout, base.fingerprint):
            raise conflict(manifest_name(base.version))
        if base.version not in self._sound:
            try:
                self._sound[base.version] = bool(_route(self._members, base.version, self.sizes))
            except TensorDeltaError:
                self._sound[base.version] = False
        return self._sound[base.version]


class Selection:
    """What a copy takes along.

    Args:
        reader: of the chain that is copied.
        target: what there is of the copy; `named` gets what those manifests name that are there.
        versions: which are asked for; None for all.

    Attributes:
        wanted: the versions asked for, ascending.
        chosen: all that are copied, ascending.
        listed: bytes of each object of the chain's store.
        left_out: names of shortcuts that are not copied.

    Raises:
        MissingError: none of the versions exists, or no route leads to one.
        ConflictError: the copy has a version or shortcut with other contents.
        TensorDeltaError: a manifest breaks a rule.
    """

    def __init__(self, reader: Reader, target: Target, versions: Container[int] | None) -> None:
        self._reader = reader
        self._target = target
        self.left_out: list[str] = []
        listed, shortcuts = reader.documents.versions(), reader.documents.shortcuts()
        self.listed = {entry.name: entry.size for entry in reader.store.entries("")}
        self.wanted = [version for version in listed if versions is None or version in versions]
        if not self.wanted and versions is not None:
            raise MissingError("none of the versions asked for exists", object=MANIFESTS, rule="TD-OBJ-008")
        members = reader.members(listed, shortcuts)
        members.read(member for version in self.wanted for member in members.leading_to(version))
        stays: set[int] = set()
        for version in self.wanted:
            members.own(version)
            if self._is_reached(version, members, stays):
                stays.add(version)
            else:
                stays.update(edge.manifest.version for edge in _route(members, version, self.listed))
        members.read(member for version in sorted(stays) for member in members.leading_to(version))
        self.chosen = [self._version(version, members, stays, versions is None) for version in sorted(stays)]

    def _is_reached(self, version: int, members: Members, stays: Container[int]) -> bool:
        """True where an edge leads to a version from nothing, or from one that is in the copy."""
        for member in members.leading_to(version):
            manifest = members.edge(member)
            if manifest is None or not _is_whole(manifest, self.listed):
                continue
            if manifest.base is None:
                return True
            if manifest.base.version in stays:
                check_base(manifest, members, object=member_name(member))
                return True
            if self._target.is_base(manifest.base):
                return True
        return False

    def _version(self, version: int, members: Members, stays: Container[int], everything: bool) -> Selected:
        own = members.own(version)
        self._compare(version, own)
        shortcuts: dict[ShortcutName, Manifest] = {}
        for member in members.leading_to(version):
            if not isinstance(member, ShortcutName):
                continue
            if not (everything or member.base is None or member.base in stays):
                continue
            shortcut = members.edge(member)
            if shortcut is None or not _is_whole(shortcut, self.listed):
                self.left_out.append(member_name(member))
            else:
                shortcuts[member] = shortcut
                self._compare(member, shortcut)
        named = [*self.named_by(version, own)]
        for member, shortcut in shortcuts.items():
            named += self.named_by(member, shortcut)
        return Selected(own, shortcuts, list(dict.fromkeys(named)))

    def _compare(self, member: Member, manifest: Manifest) -> None:
        """Compare a manifest or shortcut with what the copy has under its name.

        Raises:
            ConflictError: that is another.
        """
        there = self._target.edge(member)
        if there is None:
            return
        if not is_same(member, manifest, there):
            raise conflict(member_name(member))
        if there == manifest:
            self._target.named.update(each.name for each in self.named_by(member, manifest))

    def named_by(self, member: Member, manifest: Manifest) -> Iterator[NamedObject]:
        """What a manifest or shortcut names by its digest under the root; packs only where all of them are there."""
        layout = manifest.layout
        yield NamedObject(layout_name(layout), layout, None, "TD-LAY-008", "TD-LAY-009")
        sums = manifest.tensor_fingerprints
        if isinstance(sums, str):
            yield NamedObject(fingerprints_name(sums), sums, None, "TD-FPR-001", "TD-FPR-010")
        if _is_whole(manifest, self.listed):
            for pack in manifest.packs:
                if pack.path is not None:
                    yield NamedObject(pack.path, pack.sha256, pack.size, "TD-MAN-013", "TD-MAN-014")
        for file in () if isinstance(member, ShortcutName) else manifest.files:
            yield NamedObject(file.path, file.sha256, file.size, "TD-MAN-022", "TD-MAN-029")


def _is_whole(manifest: Manifest, listed: Container[str]) -> bool:
    """True where the packs of an edge are listed, but for those that lie elsewhere."""
    return all(pack.path is None or pack.path in listed for pack in manifest.packs)


def _route(members: Members, version: int, listed: Container[str]) -> Sequence[Edge]:
    """The cheapest route from nothing whose packs are listed.

    Raises:
        TensorDeltaError: there is none.
    """
    dropped: dict[str, Fault] = {}
    while True:
        route = Planner(members).plan(version, dropped=dropped)
        gone = {
            edge.name: MissingError("packs of it are gone", object=edge.name, rule="TD-MAN-014")
            for edge in route
            if not _is_whole(edge.manifest, listed)
        }
        if not gone:
            return route
        dropped |= gone


def is_same(member: Member, mine: Manifest, other: Manifest) -> bool:
    """True where two manifests, or shortcuts, are the same to whoever reads them (SPEC.md section 11.2)."""
    if isinstance(member, ShortcutName):
        return (mine.layout, mine.fingerprint, mine.base) == (other.layout, other.fingerprint, other.base)
    return mine.same_version(other)


def conflict(name: str) -> ConflictError:
    """The error for an object of the copy that is not the chain's."""
    return ConflictError(
        "is in the copy already, with other contents",
        object=name,
        rule="TD-WRT-006",
        advice="Somebody else has written to the copy: choose another place for it.",
    )
