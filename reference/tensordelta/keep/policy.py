"""Policies: which versions a collector keeps (SPEC.md section 13).

A version that is kept can be rebuilt from nothing, so the versions that it is rebuilt over are kept as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

from ..errors import MissingError, TensorDeltaError, UnsupportedError, UntrustedError
from ..format.manifest import Manifest, check_features
from ..format.names import (
    CHAIN,
    MAX_VERSION,
    ShortcutName,
    layout_name,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
    parse_signature_name,
    shortcut_name,
)
from ..read.listing import member_name
from ..read.reader import Reader
from ..stores import StoredObject
from .closure import Closure
from .pins import Pin

#: Seconds for which every object is kept after it was written: 24 hours.
GRACE = 86_400.0


@dataclass(frozen=True)
class Policy:
    """Which versions are kept.

    Attributes:
        keep_last: number of newest versions that are kept.
        keep_every: versions whose number is a multiple of this are kept as well; None for no others.
        keep: versions that are kept as well.
        grace: seconds for which every object is kept after it was written.
    """

    keep_last: int
    keep_every: int | None = None
    keep: Collection[int] = ()
    grace: float = GRACE

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: no version would be kept, or a negative time.
        """
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}: the newest version always stays")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"keep_every is {self.keep_every}, not a positive number")
        if not self.grace >= 0:
            raise ValueError(f"grace is {self.grace} seconds")


@dataclass(frozen=True)
class Listing:
    """What the store held at one moment: objects by name, pins, and the time by the store's clock."""

    entries: dict[str, StoredObject]
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
        """True if the grace period has passed since an object was written."""
        modified = self.entries[name].modified
        if modified is None or self.now is None:
            return grace == 0
        return self.now - modified >= grace


@dataclass(frozen=True)
class Choice:
    """Which versions are kept, and why.

    Attributes:
        kept: versions that the policy, a pin or their age keeps, ascending.
        young: those of them that only their age keeps, or that of a shortcut to them.
        leaning: kept versions that are rebuilt over versions that are not.
        lost: kept versions that cannot be rebuilt.
        stays: all versions that must not be deleted.
    """

    kept: list[int]
    young: list[int]
    leaning: list[int]
    lost: list[int]
    stays: set[int]


def choose(reader: Reader, policy: Policy, listing: Listing) -> Choice:
    """Which versions of a chain are kept.

    Raises:
        MissingError: a version that is to be kept does not exist.
        TensorDeltaError: the manifest of a kept version cannot be read, or needs what this package lacks.
    """
    versions = listing.versions
    listed = set(versions)
    for version in policy.keep:
        if version not in listed:
            name = manifest_name(version) if 0 <= version <= MAX_VERSION else f"version {version}"
            raise MissingError(f"no version {version}, which is to be kept", object=name, rule="TD-OBJ-008")
    wanted = {*versions[-policy.keep_last :], *policy.keep, *(pinned(listing.pins, listing.now) & listed)}
    if policy.keep_every is not None:
        wanted.update(version for version in versions if version % policy.keep_every == 0)
    young = {version for version in versions if not listing.is_old(manifest_name(version), policy.grace)}
    young.update(
        shortcut.version
        for shortcut in listing.shortcuts
        if shortcut.version in listed and not listing.is_old(shortcut_name(*shortcut), policy.grace)
    )
    kept = wanted | young
    leaning, lost = [], []
    members = reader.members(versions, listing.shortcuts)
    reader.documents.digests = {}
    reader.documents.check_chain()
    everything = [member for version in versions for member in members.leading_to(version)]
    members.read(everything)
    unsigned = _unsigned(reader, listing, map(member_name, everything))
    closure = Closure(members, partial(_is_usable, listing), unusable=unsigned)
    for version in sorted(kept):
        members.own(version)  # the objects that it names must be known
        try:
            if not closure.add(version) <= kept:
                leaning.append(version)
        except UnsupportedError:
            raise
        except TensorDeltaError:
            lost.append(version)
    # While a kept version cannot be rebuilt, any other may be needed to repair it.
    stays = listed if lost else closure.versions
    return Choice(sorted(kept), sorted(young - wanted), leaning, lost, stays)


def pinned(pins: Iterable[Pin], now: float | None) -> set[int]:
    """The versions that pins hold."""
    return {pin.version for pin in pins if pin.holds(now)}


def _unsigned(reader: Reader, listing: Listing, names: Iterable[str]) -> dict[str, TensorDeltaError]:
    """Those members of a signed chain that nobody signed; a collector without keys must not rely on them either."""
    digests = reader.documents.digests or {}
    signed = {parse_signature_name(name) for name in listing.entries}
    if digests.get(CHAIN) not in signed:
        return {}
    return {
        name: UntrustedError("has no signature", object=name, rule="TD-SIG-012")
        for name in names
        if digests.get(name) not in signed
    }


def _is_usable(listing: Listing, manifest: Manifest) -> bool:
    """True if an edge has no unknown feature, and its packs and layout are there, going by names and sizes."""
    try:
        check_features(manifest, object=manifest_name(manifest.version))
    except UnsupportedError:
        return False
    for pack in manifest.packs:
        if pack.path is not None and not pack.sources:
            entry = listing.entries.get(pack.path)
            if entry is None or entry.size != pack.size:
                return False
    return layout_name(manifest.layout) in listing.entries
