"""Policies: which versions a collector keeps (SPEC.md section 13).

A version that is to stay keeps a route from nothing, and the versions on that route stay with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ..errors import MissingError, TensorDeltaError, UnsupportedError, UntrustedError
from ..format.manifest import Manifest, check_features
from ..format.names import (
    CHAIN,
    MAX_VERSION,
    SIGNATURE,
    ShortcutName,
    layout_name,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
    shortcut_name,
)
from ..read.listing import member_name
from ..read.reader import Reader
from ..read.routes import Fault, Planner, check_base
from ..stores import Entry
from .pins import Pin

#: Seconds that an object stays after it was written, whatever else is said: 24 hours.
GRACE = 86_400.0


@dataclass(frozen=True)
class Policy:
    """What stays.

    Attributes:
        keep_last: the newest so many versions.
        keep_every: and those whose number this divides; None for no more.
        keep: and these.
        grace: and whatever is younger than so many seconds.
    """

    keep_last: int
    keep_every: int | None = None
    keep: Collection[int] = ()
    grace: float = GRACE

    def __post_init__(self) -> None:
        """Refuse what could not be meant.

        Raises:
            ValueError: nothing would stay, or a negative time.
        """
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}: the newest version always stays")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"keep_every is {self.keep_every}, not a positive number")
        if not self.grace >= 0:
            raise ValueError(f"grace is {self.grace} seconds")


@dataclass(frozen=True)
class Listing:
    """What there was at a moment: objects by name, pins, and the time by the store's clock."""

    entries: dict[str, Entry]
    pins: list[Pin]
    now: float | None

    @property
    def versions(self) -> list[int]:
        found = map(parse_manifest_name, self.entries)
        return sorted(version for version in found if version is not None)

    @property
    def shortcuts(self) -> list[ShortcutName]:
        found = map(parse_shortcut_name, self.entries)
        return [shortcut for shortcut in found if shortcut is not None]

    def is_old(self, name: str, grace: float) -> bool:
        """True where the grace period has passed since an object was written."""
        modified = self.entries[name].modified
        if modified is None or self.now is None:
            return grace == 0
        return self.now - modified >= grace


@dataclass
class Choice:
    """Which versions stay, and why."""

    kept: list[int]
    young: list[int]
    stays: set[int] = field(default_factory=set)
    leaning: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)


def choose(reader: Reader, policy: Policy, listing: Listing) -> Choice:
    """Which versions of a chain stay.

    Raises:
        MissingError: a version that is to be kept does not exist.
        TensorDeltaError: the manifest of a version that stays cannot be read, or needs what this package lacks.
    """
    return _Chooser(reader, policy, listing).run()


def is_member(name: str) -> bool:
    """True for the name of a manifest or a shortcut."""
    return parse_manifest_name(name) is not None or parse_shortcut_name(name) is not None


def pinned(pins: Iterable[Pin], now: float | None) -> set[int]:
    """The versions that pins hold."""
    return {pin.version for pin in pins if pin.holds(now)}


class _Chooser:
    def __init__(self, reader: Reader, policy: Policy, listing: Listing) -> None:
        self._policy = policy
        self._listing = listing
        self._unsigned = _unsigned(listing)
        self._members = reader.members(listing.versions, listing.shortcuts)

    def run(self) -> Choice:
        listing, policy = self._listing, self._policy
        versions = listing.versions
        for version in policy.keep:
            if version not in versions:
                name = manifest_name(version) if 0 <= version <= MAX_VERSION else f"version {version}"
                raise MissingError(f"no version {version}, which is to be kept", object=name, rule="TD-OBJ-008")
        wanted = {*versions[-policy.keep_last :], *policy.keep}
        if policy.keep_every is not None:
            wanted.update(version for version in versions if version % policy.keep_every == 0)
        listed = set(versions)
        wanted |= pinned(listing.pins, listing.now) & listed
        fresh = {version for version in versions if not listing.is_old(manifest_name(version), policy.grace)}
        fresh.update(
            shortcut.version
            for shortcut in listing.shortcuts
            if shortcut.version in listed and not listing.is_old(shortcut_name(*shortcut), policy.grace)
        )
        choice = Choice(sorted(wanted | fresh), sorted(fresh - wanted))
        self._keep_routes(choice)
        return choice

    def _keep_routes(self, choice: Choice) -> None:
        """Keep for every version a route from nothing: a single edge from what stays anyway, or else the cheapest."""
        members = self._members
        members.read(member for version in choice.kept for member in members.leading_to(version))
        sound: set[int] = set()
        for version in choice.kept:
            members.own(version)  # what it names has to be known
            if version in sound or self._is_reached(version, sound):
                sound.add(version)
                continue
            nodes = self._route(version)
            if nodes is None:
                choice.lost.append(version)
                continue
            sound |= nodes
            if not nodes <= set(choice.kept):
                choice.leaning.append(version)
        # While a version that is to stay cannot be rebuilt, what it would need is not known to be useless.
        choice.stays = set(self._listing.versions) if choice.lost else sound.union(choice.kept)

    def _is_reached(self, version: int, sound: Collection[int]) -> bool:
        """True where an edge leads to a version from nothing, or from one that stays."""
        for member in self._members.leading_to(version):
            if member_name(member) in self._unsigned:
                continue
            manifest = self._members.edge(member)
            if manifest is None or not _has_packs(manifest, self._listing):
                continue
            if manifest.base is not None and manifest.base.version not in sound:
                continue
            if self._holds(manifest, member_name(member)):
                return True
        return False

    def _holds(self, manifest: Manifest, name: str) -> bool:
        """True where an edge does not fail, as far as manifests tell."""
        try:
            check_features(manifest, object=name)
            check_base(manifest, self._members, object=name)
        except TensorDeltaError:
            return False
        return True

    def _route(self, version: int) -> set[int] | None:
        """The versions on the cheapest route to a version whose packs are all there; None where there is none."""
        dropped: dict[str, Fault] = {
            name: UntrustedError("has no signature", object=name, rule="TD-SIG-004") for name in self._unsigned
        }
        while True:
            try:
                route = Planner(self._members).plan(version, dropped=dropped)
            except TensorDeltaError:
                # Another reader may go where this one cannot, so what it would need is not known to be useless.
                for fault in (*dropped.values(), *self._members.faults):
                    if isinstance(fault, UnsupportedError):
                        raise fault from None
                return None
            lost = {
                edge.name: MissingError("packs of it are gone", object=edge.name, rule="TD-MAN-014")
                for edge in route
                if not _has_packs(edge.manifest, self._listing)
            }
            if not lost:
                return {edge.manifest.version for edge in route}
            dropped |= lost


def _unsigned(listing: Listing) -> set[str]:
    """Members of a signed chain that lead no reader with keys anywhere, also where this reader has none."""
    if CHAIN + SIGNATURE not in listing.entries:
        return set()
    return {name for name in listing.entries if is_member(name) and name + SIGNATURE not in listing.entries}


def _has_packs(manifest: Manifest, listing: Listing) -> bool:
    """True where the packs and the layout of an edge are there, as far as names and sizes tell."""
    for pack in manifest.packs:
        if pack.path is not None:
            entry = listing.entries.get(pack.path)
            if (entry is None or entry.size != pack.size) and not pack.sources:
                return False
    return layout_name(manifest.layout) in listing.entries
