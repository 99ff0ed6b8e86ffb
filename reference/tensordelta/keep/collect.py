"""Retention: what a collector may delete, and in which order (SPEC.md section 13).

A policy decides which versions are kept. Edges between kept versions keep their packs. A collector may be killed at any
moment: every version that is still listed can be rebuilt, because manifests are deleted from the newest to the oldest,
before the objects that they name, and the next collector deletes what is left over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..format.names import (
    FILES,
    FINGERPRINTS,
    LAYOUTS,
    MANIFESTS,
    PACKS,
    PINS,
    SHORTCUTS,
    SIGNATURE,
    ShortcutName,
    manifest_name,
    parse_manifest_name,
    pin_name,
    shortcut_name,
)
from ..read.history import named_objects
from ..read.reader import Reader
from ..stores import FolderStore, StoredObject
from ..stores.download import PARALLEL
from ..tables import Shown
from ..threads import ordered_map
from .pins import Pin, is_clock, look, read_pins
from .policy import Choice, Listing, Policy, choose, is_member, pinned

_SHA = "[0-9a-f]{64}"
#: Names that writers give to the objects that manifests name; a collector deletes no others.
_NAMED = re.compile(rf"packs/{_SHA}\.safetensors|layouts/{_SHA}\.json|fingerprints/{_SHA}\.bin|files/{_SHA}")
#: Objects that are deleted before ages are looked at again.
_AT_ONCE = 256
_NAMED_FOLDERS = (PACKS, LAYOUTS, FINGERPRINTS, FILES)


@dataclass(frozen=True, repr=False)
class Collected(Shown):
    """What a collector did, or would do.

    Attributes:
        kept: versions kept by the policy, by a pin, or because they are young.
        young: those of them kept only because they, or a shortcut to them, are younger than the grace period.
        pins: pins that hold.
        supporting: versions kept only because others are rebuilt over them.
        leaning: kept versions that are rebuilt over supporting ones.
        lost: kept versions that could not be rebuilt before either (`verify` says why). No version is deleted then,
            since any of them may be needed to repair these.
        dropped: versions that were deleted.
        objects: names of the objects that were deleted, in that order; also those of temporary files that writers to a
            folder left when they were killed.
        size: their bytes.
        dry_run: nothing was deleted in fact.
        seconds: how long it took.
    """

    kept: Sequence[int]
    young: Sequence[int]
    pins: Sequence[Pin]
    supporting: Sequence[int]
    leaning: Sequence[int]
    lost: Sequence[int]
    dropped: Sequence[int]
    objects: Sequence[str]
    size: int
    dry_run: bool
    seconds: float

    @property
    def advice(self) -> str:
        """What would let supporting versions go; empty where there are none."""
        if not self.supporting:
            return ""
        if not self.leaning:
            return "they support each other"
        first, more = self.leaning[0], len(self.leaning) - 1
        others = f" (and {more} more)" if more else ""
        return f"a full shortcut to version {first}{others} would let supporting versions go, once it is in place"


def collect(reader: Reader, policy: Policy, *, dry_run: bool) -> Collected:
    """Delete what a policy does not keep.

    Args:
        reader: of the chain; it must not have read anything yet.
        policy: which versions are kept.
        dry_run: report what would be deleted; ages are then measured by this machine's clock.

    Raises:
        MissingError: a version that is to be kept does not exist.
        TensorDeltaError: the manifest of a kept version cannot be read, so that the objects that it names are not
            known; or a pin breaks a rule. Nothing was deleted.
    """
    return _Collector(reader, policy, dry_run).run()


class _Collector:
    def __init__(self, reader: Reader, policy: Policy, dry_run: bool) -> None:
        self._reader = reader
        self._store = reader.store
        self._policy = policy
        self._dry_run = dry_run
        self._gone: list[str] = []
        self._size = 0

    def run(self) -> Collected:
        started = time.perf_counter()
        while True:
            listing = self._list()
            choice = choose(self._reader, self._policy, listing)
            dropped = [version for version in listing.versions if version not in choice.stays]
            # A pin may have been written meanwhile.
            if self._dry_run or not self._pinned_now(listing) & set(dropped):
                break
        for name in self._members_to_delete(listing, choice, dropped):
            if not self._dry_run and parse_manifest_name(name) in self._pinned_now(listing):
                # Newer versions were deleted so far, so those that are left can still be rebuilt.
                return self.run()
            self._delete([name], listing.entries)
        self._collect_named(listing, choice)
        self._collect_pins(listing)
        self._collect_temporaries(listing)
        return Collected(
            kept=choice.kept,
            young=choice.young,
            pins=[pin for pin in listing.pins if pin.holds(listing.now)],
            supporting=sorted(choice.stays.difference(choice.kept)),
            leaning=choice.leaning,
            lost=choice.lost,
            dropped=dropped,
            objects=self._gone,
            size=self._size,
            dry_run=self._dry_run,
            seconds=time.perf_counter() - started,
        )

    def _list(self) -> Listing:
        now, pins = (time.time(), self._store.entries(PINS)) if self._dry_run else look(self._store)
        entries = {entry.name: entry for entry in self._store.entries("")}
        return Listing(entries, read_pins(self._reader, pins), now)

    def _pinned_now(self, listing: Listing) -> set[int]:
        return pinned(read_pins(self._reader), listing.now)

    def _is_old(self, listing: Listing, name: str) -> bool:
        return listing.is_old(name, self._policy.grace)

    def _members_to_delete(self, listing: Listing, choice: Choice, dropped: Sequence[int]) -> Iterator[str]:
        """Manifests and shortcuts, each before its signature, in an order that leaves a whole chain at every moment."""
        useless = [
            shortcut
            for shortcut in listing.shortcuts
            if self._is_useless(shortcut, choice) and self._is_old(listing, shortcut_name(*shortcut))
        ]
        members = [(version, manifest_name(version)) for version in dropped]
        members += [(shortcut.version, shortcut_name(*shortcut)) for shortcut in useless]
        for _, name in sorted(members, key=lambda each: (-each[0], each[1])):  # `manifests/` before `shortcuts/`
            yield name
            if name + SIGNATURE in listing.entries:
                yield name + SIGNATURE
        for name in sorted(listing.entries):
            signed = name.removesuffix(SIGNATURE)
            if signed != name and is_member(signed) and signed not in listing.entries and self._is_old(listing, name):
                yield name

    @staticmethod
    def _is_useless(shortcut: ShortcutName, choice: Choice) -> bool:
        """True for a shortcut that leads to a deleted version, or from one."""
        if shortcut.version not in choice.stays:
            return True
        return shortcut.base is not None and shortcut.base not in choice.stays and shortcut.version not in choice.lost

    def _collect_named(self, listing: Listing, choice: Choice) -> None:
        """Delete packs, layouts, fingerprints objects and files that no listed manifest or shortcut needs."""
        if self._dry_run:
            gone = set(self._gone)
            versions = [version for version in listing.versions if version in choice.stays]
            shortcuts = [each for each in listing.shortcuts if shortcut_name(*each) not in gone]
        else:
            # Versions and shortcuts may have been published since.
            names = [*self._store.names(MANIFESTS), *self._store.names(SHORTCUTS)]
            listed = Listing({name: StoredObject(name, 0, None) for name in names}, [], None)
            versions, shortcuts = listed.versions, listed.shortcuts
        needed = self._needed(versions, shortcuts)
        for folder in _NAMED_FOLDERS:
            # Listed at the last moment: an object that was put again meanwhile is young again.
            entries = listing.entries.values() if self._dry_run else list(self._store.entries(folder))
            now = Listing({entry.name: entry for entry in entries if entry.name.startswith(folder)}, [], listing.now)
            names = [
                name
                for name in sorted(now.entries)
                if _NAMED.fullmatch(name) and name not in needed and self._is_old(now, name)
            ]
            for start in range(0, len(names), _AT_ONCE):
                if start:
                    now = Listing({entry.name: entry for entry in self._store.entries(folder)}, [], listing.now)
                part = names[start : start + _AT_ONCE]
                self._delete([name for name in part if name in now.entries and self._is_old(now, name)], now.entries)

    def _needed(self, versions: Collection[int], shortcuts: Iterable[ShortcutName]) -> set[str]:
        """Names of the objects that a chain of these manifests and shortcuts needs."""
        stays = set(versions)
        # Readers with keys do not use unsigned members, but they may be signed later: what they name is kept as well.
        reader = self._reader if self._reader.trust is None else self._reader.trusting(None)
        members = reader.members(versions, shortcuts)
        everything = [member for version in members.versions for member in members.leading_to(version)]
        members.read(everything)
        needed: set[str] = set()
        for member in everything:
            manifest = members.own(member) if isinstance(member, int) else members.found(member)
            if manifest is None:
                continue
            packs = {pack.path for pack in manifest.packs if pack.path is not None}
            needed.update(name for name in named_objects(manifest) if name not in packs)
            # A shortcut's packs are deleted with it; those of a manifest when its base was deleted.
            if isinstance(member, ShortcutName) or manifest.base is None or manifest.base.version in stays:
                needed.update(packs)
        return needed

    def _collect_pins(self, listing: Listing) -> None:
        """Remove expired pins, and clock objects that killed collectors have left."""
        entries = listing.entries
        if listing.now is None:
            return
        # Read at the last moment: a pin may have been renewed.
        pins = listing.pins if self._dry_run else read_pins(self._reader)
        names = [pin_name(pin.name) for pin in pins if not pin.holds(listing.now)]
        names += [name for name in entries if is_clock(name) and self._is_old(listing, name)]
        self._delete([name for name in names if name in entries], entries)

    def _collect_temporaries(self, listing: Listing) -> None:
        """Remove what writers to a folder have left that were killed amid an object."""
        if listing.now is None or not isinstance(self._store, FolderStore):
            return
        found = Listing({entry.name: entry for entry in self._store.temporaries()}, [], listing.now)
        names = [name for name in sorted(found.entries) if self._is_old(found, name)]
        self._delete(names, found.entries, self._store.remove_temporary)

    def _delete(
        self,
        names: Sequence[str],
        entries: dict[str, StoredObject],
        delete: Callable[[str], object] | None = None,
    ) -> None:
        """Delete objects whose order does not matter."""
        if not self._dry_run:
            threads = PARALLEL if self._store.remote else 1
            for _ in ordered_map(delete or self._store.delete, names, threads=threads):
                pass
        self._gone += names
        self._size += sum(entries[name].size for name in names)
