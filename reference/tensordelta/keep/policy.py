"""Policies: which versions a collector keeps (SPEC.md section 13).

A version that is kept can be rebuilt from nothing, so the versions that it is rebuilt over are kept as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from ..errors import MissingError, TensorDeltaError, UnsupportedError, UntrustedError
from ..format.manifest import Manifest, check_features
from ..format.names import (
    MAX_VERSION,
    ShortcutName,
    layout_name,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
    parse_signature_name,
)
from ..read.listing import Member, Members, member_name
from ..read.reader import Reader
from ..stores import StoredObject
from .closure import Closure
from .naming import Naming
from .pins import Pins


@dataclass(frozen=True)
class Policy:
    """Which versions are kept.

    Attributes:
        keep_last: number of newest versions that are kept.
        keep_every: versions whose number is a multiple of this are kept as well; None for no others.
        keep: versions that are kept as well.
        grace: seconds for which a reader may go on with what it saw, and a writer with what it put; None for those of
            the chain, and 0 where nobody reads or writes meanwhile.
    """

    keep_last: int
    keep_every: int | None = None
    keep: Collection[int] = ()
    grace: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: no version would be kept.
        """
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}: the newest version always stays")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"keep_every is {self.keep_every}, not a positive number")

    def grace_of(self, chain: int) -> float:
        """The grace period, given the chain's.

        Raises:
            ValueError: it is shorter than the chain's, on which writers and readers count.
        """
        if self.grace is None:
            return chain
        if self.grace != 0 and not self.grace >= chain:
            raise ValueError(
                f"grace is {self.grace:g} seconds, less than the {chain:,} of the chain, on which its writers and "
                "readers count; 0 says that none of them is at work"
            )
        return self.grace


@dataclass(frozen=True)
class Listing:
    """What the store held at one moment.

    Attributes:
        now: the time by the store's clock, None if it does not say; never ahead.
        entries: objects by name.
        pins: the pins.
    """

    now: float | None
    entries: Mapping[str, StoredObject]
    pins: Pins = field(default_factory=Pins)

    @property
    def versions(self) -> list[int]:
        """Ascending."""
        found = map(parse_manifest_name, self.entries)
        return sorted(version for version in found if version is not None)

    @property
    def shortcuts(self) -> list[ShortcutName]:
        """In no order."""
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
        kept: versions that the policy or a pin keeps, ascending.
        leaning: kept versions that are rebuilt over versions that are not.
        lost: kept versions that cannot be rebuilt.
        stays: all versions that must not be dropped.
    """

    kept: list[int]
    leaning: list[int]
    lost: list[int]
    stays: set[int]


def choose(reader: Reader, policy: Policy, listing: Listing, naming: Naming, *, grace: float) -> Choice:
    """Which versions of a chain are kept.

    The newest is always kept, and in a signed chain the newest signed one (TD-RET-016).

    Args:
        reader: of the chain; with keys, what none of them signed is not relied on.
        policy: the policy.
        listing: all objects, and the pins.
        naming: reads what is listed.
        grace: the grace period.

    Raises:
        MissingError: a version that is to be kept does not exist.
        TensorDeltaError: the manifest of a kept version cannot be read, or needs what this package lacks.
    """
    versions = listing.versions
    listed = set(versions)
    for version in policy.keep:
        if version not in listed:
            name = manifest_name(version) if 0 <= version <= MAX_VERSION else f"version {version}"
            raise MissingError(f"there is no version {version}, which is to be kept", object=name, rule="TD-OBJ-008")
    members = _members(reader, listing, naming)
    everything = [member for version in versions for member in members.leading_to(version)]
    members.read(everything)
    unsigned = _unsigned(reader, members, listing, naming, everything)
    signed = [version for version in versions if manifest_name(version) not in unsigned]
    wanted = {*versions[-1:], *signed[-policy.keep_last :], *policy.keep, *(listing.pins.held(listing.now) & listed)}
    if policy.keep_every is not None:
        wanted.update(version for version in versions if version % policy.keep_every == 0)
    closure = Closure(members, partial(_is_usable, listing), unusable=unsigned)
    leaning, lost = [], []
    for version in sorted(wanted.intersection(signed)):
        members.own(version)  # the objects that it names must be known
        try:
            if not closure.add(version) <= wanted:
                leaning.append(version)
        except UnsupportedError:
            raise
        except TensorDeltaError:
            lost.append(version)
    # While a kept version cannot be rebuilt, any other may be needed to repair it; and any may be meant by a pin that
    # nobody can read.
    stays = listed if lost or listing.pins.holds_all(listing.now, grace) else closure.versions | wanted
    return Choice(sorted(wanted), leaning, lost, stays)


def _members(reader: Reader, listing: Listing, naming: Naming) -> Members:
    if reader.trust is not None:
        return reader.members(listing.versions, listing.shortcuts)
    names = [name for name in listing.entries if parse_manifest_name(name) is not None or parse_shortcut_name(name)]
    naming.read(names)
    return Members(listing.versions, listing.shortcuts, lambda member: naming.of(member_name(member)).manifest)


def _unsigned(
    reader: Reader, members: Members, listing: Listing, naming: Naming, everything: Iterable[Member]
) -> dict[str, TensorDeltaError]:
    """Those members of a signed chain that are not signed; without keys, those that nobody signed."""
    if reader.trust is not None:
        faults = ((member_name(member), members.fault(member)) for member in everything)
        return {name: fault for name, fault in faults if isinstance(fault, UntrustedError)}
    signed = {parse_signature_name(name) for name in listing.entries}
    if naming.chain_digest not in signed:
        return {}
    names = [member_name(member) for member in everything]
    return {
        name: UntrustedError("has no signature", object=name, rule="TD-SIG-012")
        for name in names
        if not signed.intersection(naming.digests([name]))
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
