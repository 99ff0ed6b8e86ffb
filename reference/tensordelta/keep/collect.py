"""Retention: dropping versions, and deleting what nobody needs any more (SPEC.md section 13).

A version is dropped by copying its manifest to `retired/` and deleting it. What a copy names is held until the copy is
as old as the grace period, so that readers who saw the version lose nothing. Collectors may run side by side, and be
killed at any moment: every version that is still listed can be rebuilt, because manifests go from the newest to the
oldest, and before the objects that they name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import MissingError, TensorDeltaError
from ..format.names import (
    FILES,
    FINGERPRINTS,
    MANIFESTS,
    PACKS,
    PINS,
    RETIRED,
    SHORTCUTS,
    SIGNATURES,
    ShortcutName,
    manifest_name,
    parse_manifest_name,
    parse_retired_name,
    parse_shortcut_name,
    parse_signature_name,
    pin_name,
    retired_name,
    shortcut_name,
)
from ..progress import phase
from ..read.reader import Reader
from ..stores import FolderStore, StoredObject
from ..stores.download import PARALLEL
from ..tables import Shown
from ..threads import ordered_map
from ..write.hint import renew_hint
from .naming import Naming
from .pins import FULL, Pin, Pins, is_clock, look, read_pins
from .policy import Choice, Listing, Policy, choose

T = TypeVar("T")

_SHA, _SALT = "[0-9a-f]{64}", "[0-9a-f]{16}"
#: Names that writers give to objects that a collector deletes; it deletes no others. Layouts stay for ever.
_NAMED = re.compile(
    rf"packs/{_SHA}-{_SALT}\.safetensors|fingerprints/{_SHA}\.bin|files/{_SHA}-{_SALT}|signatures/{_SHA}-{_SALT}\.json"
)
_FOLDERS = (PACKS, FINGERPRINTS, FILES, SIGNATURES)
#: Objects that are dropped, or deleted, between two looks at pins and clock.
_AT_ONCE = 64
#: Fruitless beginnings after which a store is too slow.
_TRIES = 3
#: Seconds between two looks for a copy in a listing.
_PAUSE = 0.2


@dataclass(frozen=True, repr=False)
class Collected(Shown):
    """What a collector did, or would do.

    Attributes:
        kept: versions kept by the policy or by a pin.
        pins: pins that hold.
        broken_pins: objects of pins that break a rule. While one is younger than the grace period, no version goes.
        supporting: versions kept only because others are rebuilt over them, or because of a broken pin.
        leaning: kept versions that are rebuilt over supporting ones.
        lost: kept versions that could not be rebuilt before either (`verify` says why). No version is dropped then,
            since any of them may be needed to repair these.
        unreadable: manifests, or copies of such, that break a rule. What they name is not known, so that no pack,
            fingerprints object, file or signature was deleted.
        dropped: versions that were dropped.
        objects: names of the objects that were deleted, in that order; also those of temporary files that writers to a
            folder left when they were killed.
        size: their bytes.
        dry_run: nothing was deleted in fact.
        seconds: how long it took.
    """

    kept: Sequence[int]
    pins: Sequence[Pin]
    broken_pins: Sequence[str]
    supporting: Sequence[int]
    leaning: Sequence[int]
    lost: Sequence[int]
    unreadable: Sequence[str]
    dropped: Sequence[int]
    objects: Sequence[str]
    size: int
    dry_run: bool
    seconds: float

    @property
    def advice(self) -> str:
        """What would let supporting versions go; empty where there are none."""
        if not self.supporting or self.broken_pins:
            return ""
        if not self.leaning:
            return "they support each other"
        first, more = self.leaning[0], len(self.leaning) - 1
        others = f" (and {more} more)" if more else ""
        return f"a full shortcut to version {first}{others} would let supporting versions go, once it is in place"


def collect(reader: Reader, policy: Policy, *, dry_run: bool, clock: Callable[[], float] = time.monotonic) -> Collected:
    """Drop what a policy does not keep, and delete what nobody needs any more.

    Args:
        reader: of the chain; it must not have read anything yet.
        policy: which versions are kept.
        dry_run: report what would be done; ages are then measured by this machine's clock.
        clock: seconds that pass while this works.

    Raises:
        MissingError: a version that is to be kept does not exist.
        TensorDeltaError: the manifest of a kept version cannot be read, so that the objects that it names are not
            known. Nothing was deleted.
        ValueError: a grace period shorter than the chain's.
        StoreError: the store failed.
        TimeoutError: it is so slow that its listings are old when they are acted upon.
    """
    return _Collector(reader, policy, dry_run, clock).run()


class _Late(Exception):
    """What was listed may no longer hold: begin anew."""


@dataclass
class _Done:
    """What one collector did."""

    dropped: set[int] = field(default_factory=set)
    objects: list[str] = field(default_factory=list)
    size: int = 0
    unreadable: list[str] = field(default_factory=list)


class _Collector:
    def __init__(self, reader: Reader, policy: Policy, dry_run: bool, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._store = reader.store
        self._policy = policy
        self._dry_run = dry_run
        self._clock = clock
        self._grace = policy.grace_of(reader.documents.grace)
        #: How long a listing may be acted upon: a tenth of the chain's period, whatever the collector's own.
        self._tenth = reader.documents.grace / 10 if self._grace else float("inf")
        self._threads = PARALLEL if self._store.remote else 1
        self._naming = Naming(self._store, reader.chain, self._threads)
        self._done = _Done()
        self._until = 0.0

    def run(self) -> Collected:
        with phase("looking for what may go"):
            return self._run()

    def _run(self) -> Collected:
        started = time.perf_counter()
        try:
            choice, listing = self._repeat(self._drop)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._repeat(self._sweep)  # copies need room, which may be freed from what was dropped earlier
            choice, listing = self._repeat(self._drop)
        if not self._dry_run:
            gone = set(self._done.objects)
            renew_hint(self._reader, lambda names: [each for each in names if shortcut_name(*each) not in gone])
        self._repeat(lambda: self._sweep(listing.pins if self._dry_run else None))
        return Collected(
            kept=choice.kept,
            pins=[pin for pin in listing.pins.good if pin.holds(listing.now)],
            broken_pins=[entry.name for entry, _ in listing.pins.broken],
            supporting=sorted(choice.stays.difference(choice.kept)),
            leaning=choice.leaning,
            lost=choice.lost,
            unreadable=self._done.unreadable,
            dropped=sorted(self._done.dropped),
            objects=self._done.objects,
            size=self._done.size,
            dry_run=self._dry_run,
            seconds=time.perf_counter() - started,
        )

    def _repeat(self, work: Callable[[], T]) -> T:
        """Work within a tenth of the grace period, or begin anew: what was done before stays done."""
        fruitless = 0
        while fruitless < _TRIES:
            before = len(self._done.objects)
            self._until = self._clock() + self._tenth
            self._naming.forget()
            try:
                return work()
            except _Late:
                fruitless = 0 if len(self._done.objects) > before else fruitless + 1
        raise TimeoutError(
            f"{self._store.address}: a tenth of the grace period passes before anything that was listed is deleted; "
            "chains there need a longer one"
        )

    def _check_time(self) -> None:
        if self._clock() > self._until:
            raise _Late

    # -- dropping -------------------------------------------------------------------------------------------------

    def _drop(self) -> tuple[Choice, Listing]:
        now, pins = self._look()
        entries = self._entries(MANIFESTS, SHORTCUTS, *_FOLDERS, "layouts/")
        listing = Listing(now, entries, read_pins(self._reader, pins))
        choice = choose(self._reader, self._policy, listing, self._naming, grace=self._grace)
        if not self._dry_run and self._pins_now(listing) != listing.pins.held(now):
            raise _Late
        going = list(self._to_drop(listing, choice))
        with phase("dropping versions", len(going), unit="objects") as work:
            for names in _batched(going):
                self._drop_some(names, listing)
                work.add(len(names))
        return choice, listing

    def _to_drop(self, listing: Listing, choice: Choice) -> Iterator[str]:
        """Manifests and shortcuts, in an order that leaves a whole chain at every moment."""
        members = [(version, manifest_name(version)) for version in listing.versions if version not in choice.stays]
        members += [
            (shortcut.version, shortcut_name(*shortcut))
            for shortcut in listing.shortcuts
            if self._is_useless(shortcut, listing, choice)
        ]
        for _, name in sorted(members, key=lambda each: (-each[0], each[1])):  # `manifests/` before `shortcuts/`
            yield name

    def _is_useless(self, shortcut: ShortcutName, listing: Listing, choice: Choice) -> bool:
        """True for a shortcut to or from a version that goes, or one to no version that is not just being made."""
        name = shortcut_name(*shortcut)
        if manifest_name(shortcut.version) not in listing.entries:
            return listing.is_old(name, self._grace)
        if shortcut.version not in choice.stays:
            return True
        base = shortcut.base
        if base is None or base in choice.stays:
            return False
        return manifest_name(base) in listing.entries or listing.is_old(name, self._grace)

    def _drop_some(self, names: Sequence[str], listing: Listing) -> None:
        """Copy manifests and shortcuts, and delete them, one after the other."""
        if self._grace and not self._dry_run:
            since, _ = look(self._store)
            there = [name for name in names if self._retire(name)]
            self._wait_for(set(map(retired_name, there)), since)
        # A pin may have been put meanwhile. One that is put from here on comes after the copies, which its writer sees.
        if not self._dry_run and self._pins_now(listing) & set(map(parse_manifest_name, names)):
            raise _Late
        for name in names:
            self._check_time()
            self._delete([name], listing.entries)
            version = parse_manifest_name(name)
            if version is not None:
                self._done.dropped.add(version)

    def _retire(self, name: str) -> bool:
        """Put the copy of a manifest or shortcut; False if another collector has dropped that meanwhile."""
        try:
            data = self._store.read(name)
        except MissingError:
            return False
        self._store.put(retired_name(name), [data])
        return True

    def _wait_for(self, copies: set[str], since: float | None) -> None:
        """Wait until a listing shows copies as young as they are."""
        while True:
            self._check_time()
            entries = self._entries(RETIRED)
            shown = {
                name
                for name in copies & entries.keys()
                if since is None or (modified := entries[name].modified) is None or modified >= since
            }
            if shown == copies:
                return
            time.sleep(_PAUSE)

    # -- deleting -------------------------------------------------------------------------------------------------

    def _sweep(self, pins_before: Pins | None = None) -> None:
        """Delete the objects that are not held, and old copies.

        Args:
            pins_before: the pins that count; by default those that are there at the last moment.
        """
        # In this order: what is dropped between the first two listings is in the first, and what a version names that
        # is published meanwhile is younger than the grace period, or named by something that was listed.
        now, pins = self._look()
        members = self._entries(MANIFESTS, SHORTCUTS)
        if self._dry_run and not self._grace:
            members = {name: each for name, each in members.items() if name not in self._done.objects}
        copies = Listing(now, self._entries(RETIRED))
        rest = Listing(now, self._entries(*_FOLDERS))
        young = [name for name in copies.entries if parse_retired_name(name) and not copies.is_old(name, self._grace)]
        names = [name for name in members if parse_manifest_name(name) is not None or parse_shortcut_name(name)]
        names += [name for copy in young if (name := parse_retired_name(copy)) is not None]
        old = [
            name
            for name in copies.entries
            if (original := parse_retired_name(name)) is not None
            and copies.is_old(name, self._grace)
            and original not in members
        ]
        self._done.unreadable = self._unreadable(names)
        if not self._done.unreadable:
            held = {*self._naming.held(names)}
            digests = {self._naming.chain_digest, *self._naming.digests(names)}
            useless = [
                name
                for name in rest.entries
                if _NAMED.fullmatch(name)
                and name not in held
                and parse_signature_name(name) not in digests
                and rest.is_old(name, self._grace)
            ]
            self._delete_all(
                sorted(useless, key=lambda name: (_FOLDERS.index(name[: name.index("/") + 1]), name)), rest
            )
            self._delete_all(sorted(old), copies)
        self._sweep_pins(pins_before, now, pins)
        self._sweep_temporaries(now)

    def _unreadable(self, names: Iterable[str]) -> list[str]:
        """Those manifests of which nobody knows what they name. A shortcut that breaks a rule leads no reader."""
        names = list(dict.fromkeys(names))
        self._naming.read(names)
        found = []
        for name in names:
            if parse_manifest_name(name) is None:
                continue
            try:
                self._naming.of(name)
            except MissingError:  # gone, and its copy as well, since they were listed
                raise _Late from None
            except TensorDeltaError as fault:
                found.append(fault.object)
        return found

    def _sweep_pins(self, before: Pins | None, now: float | None, pins: Iterable[StoredObject]) -> None:
        """Remove expired pins, and clock objects that killed collectors have left."""
        if now is None:
            return
        listing = Listing(now, {entry.name: entry for entry in pins})
        # Read at the last moment: a pin may have been renewed.
        good = (read_pins(self._reader) if before is None else before).good
        names = [pin_name(pin.name) for pin in good if not pin.holds(now)]
        names += [name for name in listing.entries if is_clock(name) and listing.is_old(name, self._grace)]
        self._delete([name for name in names if name in listing.entries], listing.entries)

    def _sweep_temporaries(self, now: float | None) -> None:
        """Remove what writers to a folder have left that were killed amid an object."""
        if now is None or not isinstance(self._store, FolderStore):
            return
        found = Listing(now, {entry.name: entry for entry in self._store.temporaries()})
        names = [name for name in sorted(found.entries) if found.is_old(name, self._grace)]
        self._delete(names, found.entries, self._store.remove_temporary)

    # -- the store ------------------------------------------------------------------------------------------------

    def _look(self) -> tuple[float | None, list[StoredObject]]:
        """The time, and a listing of the pins."""
        return (time.time(), list(self._store.entries(PINS))) if self._dry_run else look(self._store)

    def _pins_now(self, listing: Listing) -> set[int]:
        pins: Pins = read_pins(self._reader)
        if pins.holds_all(listing.now, self._grace) and not listing.pins.holds_all(listing.now, self._grace):
            raise _Late
        return pins.held(listing.now)

    def _entries(self, *prefixes: str) -> dict[str, StoredObject]:
        """What is under some prefixes, listed in this order."""
        return {entry.name: entry for prefix in prefixes for entry in list(self._store.entries(prefix))}

    def _delete_all(self, names: Sequence[str], listing: Listing) -> None:
        """Delete objects whose order does not matter."""
        if not names:
            return
        with phase("deleting objects", sum(listing.entries[name].size for name in names)) as work:
            for some in _batched(names):
                self._check_time()
                self._delete(some, listing.entries)
                work.add(sum(listing.entries[name].size for name in some))

    def _delete(
        self,
        names: Sequence[str],
        entries: Mapping[str, StoredObject],
        delete: Callable[[str], object] | None = None,
    ) -> None:
        if not self._dry_run:
            for _ in ordered_map(delete or self._store.delete, names, threads=self._threads):
                pass
        self._done.objects += names
        self._done.size += sum(entries[name].size for name in names)


def _batched(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))
