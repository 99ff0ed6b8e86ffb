"""The writer of a chain: which version comes next, which it made already, and who signs (SPEC.md sections 11, 14)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import msgspec

from ..errors import ConflictError, LimitError, StoreError, TensorDeltaError
from ..format.documents import LatestDocument
from ..format.layout import Layout
from ..format.layout_change import LayoutChange
from ..format.manifest import Manifest
from ..format.names import MAX_VERSION, manifest_name
from ..read.reader import Reader
from .hint import put_hint, read_hint
from .signing import Signer


@dataclass(frozen=True)
class Place:
    """The place of a version in its chain.

    Attributes:
        version: its number.
        before: the manifest of the version before it, with keys of the newest signed one; None if there is none, or if
            a full version cannot read it. A full version has it without the files that are gone.
        taken: True if a version of this number exists.
    """

    version: int
    before: Manifest | None
    taken: bool


class Writer:
    """Writes to one chain. It holds no state of a publish: threads may share it.

    While the hint names the version that it committed last, no one else has published, and it lists nothing.

    Args:
        reader: a reader of the chain that may go from any version to any other (`Reader.unbound`).
        signer: signs what is committed; None to write without signatures.
    """

    def __init__(self, reader: Reader, signer: Signer | None = None) -> None:
        self.reader = reader
        self.signer = signer
        self._last: int | None = None  # the version that it committed last, unless another writer was seen since
        self._hint: LatestDocument | None = None  # as it was when the place of the next version was taken

    def check_signer(self) -> None:
        """Check that versions are signed if the chain's reader demands signatures.

        Raises:
            ValueError: they are not.
        """
        if self.reader.trust is not None and self.signer is None:
            raise ValueError("with trusted keys, unsigned versions are ignored: give a key to sign with as well")

    def versions(self) -> list[int]:
        """The versions that exist, ascending, signed or not.

        Raises:
            ValueError: see `check_signer`.
            MissingError, ConflictError, UntrustedError: the chain was removed, or replaced by another one.
            StoreError: the store failed.
        """
        self.check_signer()
        self.reader.documents.check_chain()
        return self.reader.documents.versions()

    def place(self, version: int | None, *, full: bool) -> Place:
        """The place of the version to write.

        Args:
            version: its number; by default the newest plus one.
            full: it is a full version, for which a version before it that cannot be read is no obstacle.

        Raises:
            ValueError: a number that no version has, and that is not greater than the newest; see also `versions`.
            LimitError: no number is given, and none is left.
            TensorDeltaError: the version before it cannot be read.
            StoreError: the store failed.
        """
        self.check_signer()
        self._hint = self._read_hint()
        last, self._last = self._last, None  # what becomes of this version is not known before `announce`
        if last is not None and self._hint is not None and self._hint.version == last:
            number = last + 1 if version is None else version
            if last < number <= MAX_VERSION:
                return Place(number, self._before([last], full=full), taken=False)
        versions = self.versions()
        newest = versions[-1] if versions else -1
        number = newest + 1 if version is None else version
        taken = number in versions
        if versions and number <= newest and not taken:
            raise ValueError(f"version {number} is not greater than the newest, {newest}")
        if version is None and number > MAX_VERSION:
            raise LimitError(
                "is the last version that a chain can have",
                object=manifest_name(newest),
                rule="TD-LIM-006",
                advice="If no writer of this chain made it, remove it; else begin a new chain.",
            )
        if not 0 <= number <= MAX_VERSION:
            raise ValueError(f"version {number} is out of range")
        earlier = [each for each in versions if each < number]
        return Place(number, self._before(earlier, full=full), taken)

    def _before(self, versions: list[int], *, full: bool) -> Manifest | None:
        """The manifest of the last of these versions, with keys of the last signed one (TD-SIG-013)."""
        reader = self.reader
        if versions and not reader.store.exclusive:
            # Another writer may have replaced the manifest that this process read or wrote.
            reader.documents.forget(versions[-1])
        last = next(reader.documents.signed(versions[::-1]), None)
        if last is None:
            return None
        try:
            manifest = reader.documents.manifest(last)
            reader.documents.layout(manifest.layout)
        except TensorDeltaError:
            if not full:
                raise
            return None
        return self.without_lost_files(manifest) if full else manifest

    def without_lost_files(self, manifest: Manifest) -> Manifest:
        """A manifest that names only those of its files that are in the store: no other version can share the rest."""
        files = [entry for entry in manifest.files if self.reader.store.size(entry.path) is not None]
        return msgspec.structs.replace(manifest, files=files)

    def announce(self, version: int, *, created: bool) -> None:
        """Put the hint of a version that was committed.

        Args:
            version: the version.
            created: False where an earlier try, or another writer, has created its manifest.
        """
        self._last = version if created else None
        hint, self._hint = self._hint or self._read_hint(), None
        try:
            names = self.reader.documents.shortcuts() if hint is None else hint.names
        except StoreError:
            names = []
        put_hint(self.reader, version, names)

    def _read_hint(self) -> LatestDocument | None:
        """The hint; a store that does not give it has none, since nothing depends on it."""
        with suppress(StoreError):
            return read_hint(self.reader)
        return None

    def layout_change(self, before: Manifest | None, layout: Layout) -> LayoutChange | None:
        """How a layout differs from that of the version before; None where it does not, or where there is none."""
        return None if before is None else LayoutChange.between(self.reader.documents.layout(before.layout), layout)

    def check_layout(self, place: Place, layout: Layout, *, allowed: bool) -> None:
        """Check that a version has the tensors of the version before, unless it may have others.

        Raises:
            ConflictError: it has others: the wrong model, perhaps.
        """
        change = None if allowed else self.layout_change(place.before, layout)
        if change is not None and place.before is not None:
            raise layout_conflict(manifest_name(place.version), f"version {place.before.version}", change)

    def adopt(self, mine: Manifest) -> Manifest:
        """The manifest that has the version's name already, if it makes the same version (SPEC.md section 11.2).

        Raises:
            ConflictError: it makes another version.
            UntrustedError: with keys, it is not signed: whoever made it, it is not this writer's success (TD-SIG-013).
            StoreError: the store failed.
        """
        self.reader.documents.forget(mine.version)
        found = self.reader.documents.manifest(mine.version)
        if not mine.same_version(found):
            raise conflict(mine.version)
        return found


def conflict(version: int) -> ConflictError:
    """The error for a version whose number another writer took."""
    return ConflictError(
        "was published already, with other contents",
        object=manifest_name(version),
        rule="TD-WRT-006",
        advice="One writer owns a chain: stop the other one, then publish again.",
    )


def layout_conflict(object: str, before: str, change: LayoutChange) -> ConflictError:
    """The error for a version that would have other tensors than what came before it, where nobody asked for that."""
    mend = f"take {change.prefix!r} from the names"
    if change.prefix is None or change.prefix.startswith("-"):
        mend = "correct it" if change.prefix is None else f"put {change.prefix[1:]!r} before the names"
    return ConflictError(
        f"would have other tensors than {before}: {change}",
        object=object,
        rule="TD-FIT-001",
        advice=f"If this is not the model of this chain, {mend}; "
        "if the change is meant, publish with layout_change=True (--allow-layout-change).",
    )


def overtaken(base: int, newest: Manifest | None) -> ConflictError:
    """The error for a delta to a version that is no longer the newest one."""
    found = "there is no version" if newest is None else f"the newest version is {newest.version}"
    return ConflictError(
        f"is not the base of the next version any more: {found}",
        object=manifest_name(base),
        rule="TD-WRT-001",
        advice="One writer owns a chain: stop the other one, then start from the newest version.",
    )
