"""The writer of a chain: which version comes next, which it made already, and who signs (SPEC.md sections 11, 14)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from msgspec import structs

from ..errors import ConflictError, LimitError, TensorDeltaError, UntrustedError
from ..format.layout import Layout
from ..format.layout_change import LayoutChange
from ..format.manifest import Manifest
from ..format.names import MAX_VERSION, manifest_name
from ..read.reader import Reader
from .signing import Signer


@dataclass(frozen=True)
class Place:
    """The place of a version in its chain.

    Attributes:
        version: its number.
        before: the manifest of the version before it; None if there is none, or if a full version cannot read it.
        taken: True if a version of this number exists.
    """

    version: int
    before: Manifest | None
    taken: bool


class Writer:
    """Writes to one chain. It holds no state of a publish: threads may share it.

    Args:
        reader: a reader of the chain that may go from any version to any other (`Reader.unbound`).
        signer: signs what is committed; None to write without signatures.
    """

    def __init__(self, reader: Reader, signer: Signer | None = None) -> None:
        self.reader = reader
        self.signer = signer

    def check_signer(self) -> None:
        """Check that versions are signed if the chain's reader demands signatures.

        Raises:
            ValueError: they are not.
        """
        if self.reader.trust is not None and self.signer is None:
            raise ValueError("with trusted keys, unsigned versions are ignored: give a key to sign with as well")

    def versions(self) -> list[int]:
        """The versions that exist, ascending, signed or not. The signature owed to the newest one is put first.

        Raises:
            ValueError: see `check_signer`.
            MissingError, ConflictError, UntrustedError: the chain was removed, or replaced by another one.
            StoreError: the store failed.
        """
        self.check_signer()
        self.reader.documents.check_chain()
        versions = self.reader.documents.versions(unsigned=True)
        if versions and self.signer is not None:
            self.signer.settle(manifest_name(versions[-1]))
        return versions

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
        """The manifest of the last of these versions."""
        if not versions:
            return None
        reader = self.reader
        if not reader.store.exclusive:
            # Another writer may have replaced the manifest that this process read or wrote.
            reader.documents.forget(versions[-1])
        try:
            manifest = reader.documents.manifest(versions[-1])
            reader.documents.layout(manifest.layout)
        except TensorDeltaError:
            if not full:
                raise
            return None
        return manifest

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

    def adopt_exactly(self, mine: Manifest) -> Manifest:
        """As `adopt`, without the words: this writer's own is a manifest that says the same, whenever it was made."""
        return self.adopt(mine, lambda found: structs.replace(found, created=mine.created) == mine)

    def adopt(self, mine: Manifest, is_own: Callable[[Manifest], bool]) -> Manifest:
        """The manifest that has the version's name already, if it makes the same version (SPEC.md section 11.2).

        One without a trusted signature is signed, if it is this writer's own: the writer may have died before it could.

        Args:
            mine: what this writer would create.
            is_own: True for a manifest that this writer would sign. Others may write to the store, and equal
                fingerprints do not prove that its packs make the same words (TD-SEC-001).

        Raises:
            ConflictError: it makes another version.
            UntrustedError: it is not signed, and not this writer's own.
            StoreError: the store failed.
        """
        name, signer = manifest_name(mine.version), self.signer
        if signer is None:
            found, data = self.reader.documents.manifest(mine.version), b""
        else:
            signer.settle(name)
            found, data = self.reader.documents.unverified(mine.version)
        if not mine.same_version(found):
            raise conflict(mine.version)
        if signer is not None and not self._is_signed(name, data):
            if not is_own(found):
                raise UntrustedError(
                    "was published already, unsigned, and with other annotations or packs",
                    object=name,
                    rule="TD-SIG-002",
                    advice="Look at it, then have it signed if you trust it (`tensordelta sign`).",
                )
            signer.sign(name, data)
        return found

    def _is_signed(self, name: str, data: bytes) -> bool:
        assert self.reader.trust is not None
        with suppress(TensorDeltaError):
            self.reader.trust.verify(data, self.reader.documents.signature(name), object=name)
            return True
        return False


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
