"""The keys that a reader of signed chains trusts, and its defence against older versions (SPEC.md section 14)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from ..errors import UntrustedError
from ..format.keys import PublicKey
from ..format.manifest import Manifest
from ..format.names import manifest_name
from ..format.signature import Message
from .remembered import FOLDER, Applied, Remembered

_UNSIGNED = "Ask its publisher to sign it, or choose a version that is signed; `tensordelta sign` signs a chain."
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})")


class Trust:
    """The keys that a reader trusts, and the newest version that it has applied. Several threads may use one object.

    Args:
        keys: the keys; one that is given twice counts once.
        threshold: how many of them must have signed what is read.
        allow_rollback: a version may be older than one applied before.
        max_age: the greatest age of the newest version, in seconds; None for any age.
        remembers: remember what was applied. Not for writers and verifiers, which read versions in any order.
        remembered: what this user has held before, in other folders and processes; None where that does not count.

    Raises:
        ValueError: a threshold that these keys cannot reach, or that is less than 1.
    """

    def __init__(
        self,
        keys: Iterable[PublicKey],
        *,
        threshold: int = 1,
        allow_rollback: bool = False,
        max_age: float | None = None,
        remembers: bool = True,
        remembered: Remembered | None = None,
    ) -> None:
        self.keys = tuple(dict.fromkeys(keys))
        self.threshold = threshold
        if not 1 <= threshold <= max(len(self.keys), 1):
            raise ValueError(f"{threshold} of {len(self.keys)} trusted keys cannot have signed")
        self.allow_rollback = allow_rollback
        self.max_age = max_age
        self.remembered = remembered
        self.remembers = remembers
        self._applied: Applied | None = None
        self._left: dict[str, str] = {}  # of folders that this object has seen

    def has_left(self, folder: str, record: str) -> bool:
        """True where this user's last pull with trusted keys left a record in a folder.

        Args:
            folder: what identifies it.
            record: the record's digest.
        """
        if self._left.get(folder) == record:
            return True
        return self.remembered is not None and self.remembered.has_left(folder, record)

    def note_folder(self, folder: str, record: str) -> None:
        """Note the digest of the record that a pull left in a folder."""
        self._left[folder] = record
        if self.remembered is not None:
            self.remembered.note_folder(folder, record)

    def unbound(
        self,
        *more: PublicKey,
        threshold: int | None = None,
        max_age: float | None = None,
        remembered: Remembered | None = None,
    ) -> Trust:
        """The same keys, and `more`, for a writer or verifier, which reads versions in any order.

        Args:
            more: further keys.
            threshold: how many must have signed; by default as many as here.
            max_age, remembered: as in the constructor.
        """
        threshold = self.threshold if threshold is None else threshold
        keys = (*self.keys, *more)
        return Trust(keys, threshold=threshold, max_age=max_age, remembers=False, remembered=remembered)

    def verify(self, data: bytes, read: Callable[[str], bytes | None], *, object: str) -> None:
        """Verify the bytes of chain.json, a manifest or a shortcut.

        Args:
            data: the object's bytes, as stored.
            read: gives the bytes of a signature object by its name, or None if there is none.
            object: the object's name.

        Raises:
            UntrustedError: fewer keys than the threshold have signed it.
        """
        found = Message(object, data).signers(self.keys, read, enough=self.threshold)
        if found < self.threshold:
            reason = "is not signed by a trusted key"
            if self.threshold > 1:
                reason = f"is signed by {found} of the {self.threshold} trusted keys that are asked for"
            raise self.unsigned(reason, object=object)

    @staticmethod
    def unsigned(reason: str, *, object: str) -> UntrustedError:
        """The error for an object that is not signed."""
        return UntrustedError(reason, object=object, rule="TD-SIG-012", advice=_UNSIGNED)

    def has_applied(self, chain: str, version: int) -> bool:
        """True for the version that was applied last."""
        return self._applied is not None and (self._applied.chain, self._applied.version) == (chain, version)

    def check_target(self, manifest: Manifest, held: Applied | None = None) -> None:
        """Check that a read may end at a version.

        Args:
            manifest: the version's own.
            held: what is held, where the state or the folder remembers that.

        Raises:
            UntrustedError: it is older than a version that was held, or differs from what it was when it was held.
        """
        if not self.remembers:
            return
        for each in (held, self._applied):
            self._check_not_before(manifest, each)

    def _check_not_before(self, manifest: Manifest, held: Applied | None) -> None:
        if held is None or held.chain != manifest.chain:
            return
        name = manifest_name(manifest.version)
        if manifest.version < held.version and not self.allow_rollback:
            raise UntrustedError(
                f"version {manifest.version} is older than {held.version}, which was held before",
                object=name,
                rule="TD-SIG-005",
                advice="If you mean to go back, say so (allow_rollback=True, --allow-rollback).",
            )
        if held.fingerprint is None or manifest.version != held.version:
            return
        if (manifest.layout, manifest.fingerprint) != (held.layout, held.fingerprint):
            raise UntrustedError(
                f"version {manifest.version} differs from what it was when it was held",
                object=name,
                rule="TD-SIG-006",
                advice="A version never changes: ask the holder of the key. To accept it, start from nothing, "
                f"and remove `{FOLDER}/{held.chain}` from the cache folder.",
            )

    def check_newest(self, manifest: Manifest) -> None:
        """Check that the newest version is not older than `max_age`, nor than one that this user has held.

        Raises:
            UntrustedError: it is; or it differs from what it was when it was held.
        """
        if self.remembered is not None:
            self._check_not_before(manifest, self.remembered.newest(manifest.chain))
        if self.max_age is None:
            return
        age = time.time() - _seconds(manifest.created)
        if age > self.max_age:
            raise UntrustedError(
                f"the newest version is {age:,.0f} seconds old, more than {self.max_age:,.0f}",
                object=manifest_name(manifest.version),
                rule="TD-SIG-008",
                advice="Newer versions may be withheld from you: check whether the writer still publishes.",
            )

    def remember(self, manifest: Manifest) -> None:
        """Remember that a version was applied; an older one than before only where going back is allowed."""
        before = self._applied
        if not self.remembers:
            return
        if (
            before is None
            or self.allow_rollback
            or before.chain != manifest.chain
            or before.version <= manifest.version
        ):
            self._applied = _applied(manifest)
        if self.remembered is not None:
            self.remembered.note(_applied(manifest), back=self.allow_rollback)


def _applied(manifest: Manifest) -> Applied:
    return Applied(manifest.chain, manifest.version, manifest.layout, manifest.fingerprint)


def _seconds(created: str) -> float:
    """Seconds since 1970 of a time in the format, whose day need not be in the calendar (TD-JSN-016)."""
    match = _DATE.match(created)
    assert match is not None
    year, month, day, hour, minute, second = map(int, match.groups())
    start = datetime(max(year, 1), month, 1, tzinfo=UTC)
    return start.timestamp() + timedelta(day - 1, second, minutes=minute, hours=hour).total_seconds()
