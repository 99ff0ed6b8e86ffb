"""The members of a listing, of which routes are made, and the likely cost of those that were not read.

The name of a shortcut gives its edge, but not its cost; the name of a manifest gives its version only. A manifest that
was not read is assumed to start from the version before it, and an unread edge to cost as much as others of similar
length (SPEC.md section 10).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple

from ..errors import ConflictError, TensorDeltaError
from ..format.manifest import Manifest
from ..format.names import ShortcutName, manifest_name, shortcut_name
from ..threads import ordered_map

#: A member of a route: a version's own manifest, or a shortcut.
Member = int | ShortcutName

#: Bytes of an edge over s versions grow as s to this power: words that change again are listed once.
_GROWTH = 0.75
#: The assumed cost of a kind of edge of which none was read, relative to the cheapest kind.
_HOPE = 0.5
#: The assumed cost of a full version, in deltas, where none was read.
_FULL = 8


class Arc(NamedTuple):
    """What is known of an edge.

    Attributes:
        member: the member that is the edge.
        base: the version that it starts from; None for nothing. A guess for a manifest that was not read.
        size: its bytes; None where they are not known.
        kind: edges of one kind cost about the same for their length: the number of binary digits of the length (0 from
            nothing), and the tag.
        scale: the factor by which the length changes the cost.
    """

    member: Member
    base: int | None
    size: int | None
    kind: tuple[int, str]
    scale: float


def member_name(member: Member) -> str:
    """The name of a member's object."""
    return shortcut_name(*member) if isinstance(member, ShortcutName) else manifest_name(member)


def _arc(member: Member, base: int | None, size: int | None) -> Arc:
    version, tag = (member.version, member.tag or "") if isinstance(member, ShortcutName) else (member, "")
    span = 0 if base is None else max(version - base, 1)
    return Arc(member, base, size, (span.bit_length(), tag), span**_GROWTH if span else 1.0)


class Members:
    """The members of a listing, each read lazily and at most once. For one thread at a time.

    Args:
        versions: the versions whose manifests were listed.
        shortcuts: the shortcuts that were listed.
        read: reads and parses a member.
        threads: how many reads run at once.

    Attributes:
        versions: ascending.
        threads: as given.
        reads: number of objects read, without those that were read ahead and not needed.
        faults: the errors of members that cannot be used, in the order in which they were found.
    """

    def __init__(
        self,
        versions: Iterable[int],
        shortcuts: Iterable[ShortcutName],
        read: Callable[[Member], Manifest],
        threads: int = 1,
    ) -> None:
        self.versions = sorted(set(versions))
        self.reads = 0
        self.faults: list[TensorDeltaError] = []
        self._shortcuts: dict[int, list[ShortcutName]] = {version: [] for version in self.versions}
        for shortcut in sorted(set(shortcuts), key=lambda each: (each.version, each.base or -1, each.tag or "")):
            if shortcut.version in self._shortcuts:
                self._shortcuts[shortcut.version].append(shortcut)
        self._read = read
        self.threads = threads
        self._raw: dict[Member, Manifest | TensorDeltaError] = {}
        self._ahead: dict[Member, Manifest | TensorDeltaError] = {}
        self._agrees: dict[ShortcutName, bool] = {}
        self._arcs: dict[int, list[Arc]] = {}
        self._rates: dict[tuple[int, str], list[float]] = {}
        self._medians: dict[tuple[int, str], float] = {}

    def __contains__(self, version: int) -> bool:
        return version in self._shortcuts

    @property
    def listed(self) -> frozenset[Member]:
        """All members, read or not."""
        return frozenset(self.versions).union(*self._shortcuts.values())

    def count(self, target: int) -> int:
        """Number of members that lead to `target` or to an older version."""
        return sum(1 + len(self._shortcuts[version]) for version in self.until(target))

    def until(self, target: int) -> list[int]:
        """The versions up to `target`, ascending."""
        return self.versions[: bisect_right(self.versions, target)]

    def just_before(self, version: int, count: int) -> list[int]:
        """The last `count` versions before one, ascending; fewer where there are no more."""
        at = bisect_left(self.versions, version)
        return self.versions[max(at - count, 0) : at]

    def leading_to(self, version: int) -> list[Member]:
        """The members that lead to a version; none where it is not listed."""
        return [version, *self._shortcuts[version]] if version in self._shortcuts else []

    def own(self, version: int) -> Manifest:
        """A version's own manifest.

        Raises:
            TensorDeltaError: it cannot be read.
        """
        if version not in self._raw:
            self._take(version, self._load(version))
        found = self._raw[version]
        if isinstance(found, TensorDeltaError):
            raise found
        return found

    def edge(self, member: Member) -> Manifest | None:
        """A member as an edge; None where it cannot be read, or is a shortcut that does not count."""
        self.read([member])
        found, version = self._raw[member], member.version if isinstance(member, ShortcutName) else member
        own = self._raw[version]
        if isinstance(found, TensorDeltaError) or isinstance(own, TensorDeltaError):
            return None
        if not isinstance(member, ShortcutName):
            return found
        if member not in self._agrees:
            try:
                check_shortcut(found, own, object=member_name(member))
                self._agrees[member] = True
            except ConflictError as fault:
                self.faults.append(fault)
                self._agrees[member] = False
        return found if self._agrees[member] else None

    def unread(self, members: Iterable[Member]) -> list[Member]:
        """What must be read before these members can be used: the members, and the manifests of shortcuts' versions."""
        wanted: dict[Member, None] = {}
        for member in members:
            if isinstance(member, ShortcutName):
                wanted[member.version] = None
            wanted[member] = None
        return [member for member in wanted if member not in self._raw]

    def is_ready(self, member: Member) -> bool:
        """True where nothing must be read before this member can be used."""
        return member in self._raw and (not isinstance(member, ShortcutName) or member.version in self._raw)

    def read(self, members: Iterable[Member], soon: Iterable[Member] = ()) -> None:
        """Read everything that must be read before these members can be used, several at once.

        Args:
            members: they.
            soon: members that may be needed next, which are read in the same turn. What comes of them, errors too,
                counts when they are read by themselves.
        """
        wanted = self.unread(members)
        if not wanted:
            return
        ahead = [each for each in self.unread(soon) if each not in self._ahead and each not in wanted]
        found = ordered_map(self._load, [*wanted, *ahead], threads=self.threads)
        for member, each in zip([*wanted, *ahead], found, strict=True):
            if member in wanted:
                self._take(member, each)
            else:
                self._ahead[member] = each

    def _load(self, member: Member) -> Manifest | TensorDeltaError:
        if member in self._ahead:
            return self._ahead.pop(member)
        try:
            return self._read(member)
        except TensorDeltaError as fault:
            return fault

    def _take(self, member: Member, found: Manifest | TensorDeltaError) -> None:
        self.reads += 1
        self._raw[member] = found
        self._arcs.pop(member.version if isinstance(member, ShortcutName) else member, None)
        if isinstance(found, TensorDeltaError):
            self.faults.append(found)
            return
        arc = _arc(member, None if found.base is None else found.base.version, found.size)
        self._rates.setdefault(arc.kind, []).append(found.size / arc.scale)
        self._medians.clear()

    def found(self, member: Member) -> Manifest | None:
        """A member that was read, whether or not it can be used; None for any other."""
        found = self._raw.get(member)
        return found if isinstance(found, Manifest) else None

    def fault(self, member: Member) -> TensorDeltaError | None:
        """Why a member could not be read; None for one that could, and for one that was not read."""
        fault = self._raw.get(member)
        return fault if isinstance(fault, TensorDeltaError) else None

    def arcs(self, version: int) -> list[Arc]:
        """The edges that lead to a version, without those that are known to be unusable."""
        arcs = self._arcs.get(version)
        if arcs is None:
            at = bisect_left(self.versions, version)
            before = self.versions[at - 1] if at else None
            arcs = [arc for member in self.leading_to(version) if (arc := self._known(member, before)) is not None]
            self._arcs[version] = arcs
        return arcs

    def _known(self, member: Member, before: int | None) -> Arc | None:
        raw = self._raw.get(member)
        own = self._raw.get(member.version if isinstance(member, ShortcutName) else member)
        if isinstance(raw, TensorDeltaError) or isinstance(own, TensorDeltaError):
            return None
        if self.is_ready(member) and self.edge(member) is None:
            return None
        if raw is None:
            return _arc(member, member.base if isinstance(member, ShortcutName) else before, None)
        return _arc(member, None if raw.base is None else raw.base.version, raw.size)

    def is_known(self, kind: tuple[int, str]) -> bool:
        """True where an edge of this kind has been read."""
        return kind in self._rates

    def rate(self, kind: tuple[int, str], doubt: float) -> float:
        """The likely cost of an unread edge of a kind, for a scale of 1.

        Args:
            kind: the edge's.
            doubt: a factor on the known cost of the kind, so that no edge is read for a small gain. A kind of which no
                edge was read counts as cheap instead, so that one is read.
        """
        if kind not in self._medians:
            self._medians[kind] = median(self._rates[kind]) if kind in self._rates else self._hope(kind)
        return self._medians[kind] * (doubt if kind in self._rates else 1.0)

    def _hope(self, kind: tuple[int, str]) -> float:
        deltas = [rate for (span, _), rates in self._rates.items() if span for rate in rates]
        full = [rate for (span, _), rates in self._rates.items() if not span for rate in rates]
        if not kind[0]:
            return _HOPE * min(full) if full else _FULL * max(deltas, default=1.0)
        return _HOPE * min(deltas) if deltas else min(full, default=1.0) / 100


def check_shortcut(shortcut: Manifest, own: Manifest, *, object: str) -> None:
    """Check that a shortcut leads to the state that the version's own manifest makes.

    Raises:
        ConflictError: another chain, layout or fingerprint.
    """
    if (shortcut.chain, shortcut.layout, shortcut.fingerprint) != (own.chain, own.layout, own.fingerprint):
        raise ConflictError(
            f"disagrees with version {own.version} on chain, layout or fingerprint",
            object=object,
            rule="TD-MAN-025",
        )
