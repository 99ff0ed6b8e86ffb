"""Pins: objects that ask collectors to keep a version (SPEC.md section 13)."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec import UNSET, UnsetType

from ..errors import MissingError, TensorDeltaError
from ..format import strict_json
from ..format.documents import MAX_SMALL, PinDocument, parse_pin
from ..format.names import (
    MAX_VERSION,
    PINS,
    RETIRED,
    manifest_name,
    parse_pin_name,
    pin_name,
    retired_name,
)
from ..read.absence import no_version
from ..read.reader import Reader
from ..stores import Store, StoredObject
from ..tables import Shown

_CLOCK = f"{PINS}clock-"
#: Errors of a disk that is full.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Pin(Shown):
    """A pin that was found.

    Attributes:
        name: its own name.
        version: the version that it keeps.
        seconds: how long it holds after it was written; None for ever.
        written: when it was last written, in seconds since 1970 by the store's clock; None if the store does not say.
    """

    name: str
    version: int
    seconds: int | None
    written: float | None

    def holds(self, now: float | None) -> bool:
        """True if it has not expired at a time of the store's clock, or if that is not known."""
        return self.seconds is None or self.written is None or now is None or now < self.written + self.seconds

    @property
    def expires(self) -> float | None:
        """When it ends, in seconds since 1970 by the store's clock; None for never, and where that is not known."""
        return None if self.seconds is None or self.written is None else self.written + self.seconds

    @property
    def until(self) -> str:
        """When it ends, in words."""
        if self.seconds is None:
            return "for ever"
        with suppress(OverflowError, ValueError):  # a time that is beyond the calendar
            if self.expires is not None:
                return datetime.fromtimestamp(self.expires, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return f"{self.seconds:,} s after it was written"


@dataclass(frozen=True)
class Pins:
    """The pins of a chain.

    Attributes:
        good: by name, including expired ones, without those of another chain.
        broken: those that break a rule: their objects in the listing, and the errors.
    """

    good: Sequence[Pin] = ()
    broken: Sequence[tuple[StoredObject, TensorDeltaError]] = ()

    def held(self, now: float | None) -> set[int]:
        """The versions that pins hold."""
        return {pin.version for pin in self.good if pin.holds(now)}

    def holds_all(self, now: float | None, grace: float) -> bool:
        """True while a pin that breaks a rule is younger than the grace period: any version may be meant (TD-RET-018).

        One of unknown age counts as just written, unless the grace period is 0.
        """
        return grace > 0 and any(
            now is None or entry.modified is None or now - entry.modified < grace for entry, _ in self.broken
        )


def pin(reader: Reader, version: int, name: str, seconds: int | None) -> Pin:
    """Pin a version, or renew a pin; an existing pin of this name is replaced.

    Raises:
        MissingError: there is no such version, or a collector is dropping it at the same moment.
        ValueError: a name that no pin can have, or a negative number of seconds.
    """
    object = pin_name(name)
    if seconds is not None and not 0 <= seconds <= strict_json.MAX_INTEGER:
        raise ValueError(f"a pin cannot hold for {seconds} seconds")
    _check_version(reader.store, version)
    document = PinDocument(strict_json.VERSION, reader.chain, version, UNSET if seconds is None else seconds)
    reader.store.put(object, [strict_json.encode(document)])
    try:
        _check_in_time(reader, version)
    except MissingError:
        reader.store.delete(object)
        raise
    return Pin(name, version, seconds, None)


def _check_version(store: Store, version: int) -> None:
    name = manifest_name(version)
    if not 0 <= version <= MAX_VERSION or store.size(name) is None:
        raise no_version(version, store, object=name)


def _check_in_time(reader: Reader, version: int) -> None:
    """Check that no collector may have looked at the pins before one was put, and drop its version now.

    A collector puts the copy first, then lists the pins, and deletes within a tenth of the grace period after the copy.
    """
    copy = retired_name(manifest_name(version))
    now, _ = look(reader.store)
    entry = next((each for each in reader.store.entries(RETIRED) if each.name == copy), None)
    modified = None if entry is None else entry.modified
    if now is not None and modified is not None and now - modified < reader.documents.grace / 5:
        raise MissingError(f"version {version} is being dropped", object=manifest_name(version), rule="TD-OBJ-008")
    _check_version(reader.store, version)


def unpin(reader: Reader, name: str) -> None:
    """Remove a pin.

    Raises:
        MissingError: there is none of this name.
        ValueError: a name that no pin can have.
    """
    object = pin_name(name)
    if reader.store.size(object) is None:
        raise MissingError(
            f"there is no pin {name}", object=object, rule="TD-RET-007", advice="`log --pins` lists the pins."
        )
    reader.store.delete(object)


def read_pins(reader: Reader, entries: Iterable[StoredObject] | None = None) -> Pins:
    """The pins of a chain.

    Args:
        reader: of the chain.
        entries: a listing of `pins/`; by default a new one.

    Raises:
        StoreError: the store failed.
    """
    good: list[Pin] = []
    broken: list[tuple[StoredObject, TensorDeltaError]] = []
    for entry in reader.store.entries(PINS) if entries is None else entries:
        name = parse_pin_name(entry.name)
        if name is None:
            continue
        try:
            with reader.store.open(entry.name) as blob:
                data = bytes(blob.read(0, min(blob.size, MAX_SMALL + 1)))
            document = parse_pin(data, object=entry.name)
        except MissingError:  # deleted meanwhile
            continue
        except TensorDeltaError as fault:
            broken.append((entry, fault))
            continue
        if document.chain == reader.chain:
            seconds = None if isinstance(document.seconds, UnsetType) else document.seconds
            good.append(Pin(name, document.version, seconds, entry.modified))
    return Pins(sorted(good, key=lambda each: each.name), broken)


def look(store: Store) -> tuple[float | None, list[StoredObject]]:
    """The time by the store's clock, None if the store does not say; and a listing of `pins/`.

    The time is that of an object that is written for this purpose and deleted again. A full disk, for which a collector
    is called, refuses it: the time is then that of the newest object (SPEC.md section 13).
    """
    name = f"{_CLOCK}{secrets.token_hex(8)}"
    try:
        store.put(name, [b"{}"])
    except OSError as error:
        if error.errno not in FULL:
            raise
        times = [entry.modified for entry in store.entries("") if entry.modified is not None]
        return max(times, default=None), list(store.entries(PINS))
    try:
        entries = list(store.entries(PINS))
    finally:
        store.delete(name)
    now = next((entry.modified for entry in entries if entry.name == name), None)
    return now, [entry for entry in entries if entry.name != name]


def is_clock(name: str) -> bool:
    """True for an object that `look` wrote."""
    return name.startswith(_CLOCK) and parse_pin_name(name) is None
