"""The coordinator: publishes the version that ranks have made together (SPEC.md section 11.3)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from ..codecs.fingerprint import U64
from ..errors import ConflictError, MalformedError, TensorDeltaError, UntrustedError, WrongBaseError
from ..format.layout import Layout
from ..format.manifest import Base, Manifest, PackEntry
from ..format.names import manifest_name
from ..read.published import Published
from ..state.state import State
from .descriptors import DRAFT, Document
from .publish import Publisher


class Coordinator(Publisher):
    """Publishes what ranks have put. No one here has the whole state, so no snapshot moves."""

    def begin(self, version: int | None, *, full: bool) -> tuple[int, int | None, Manifest | None]:
        """The version's number, the version before it, and that one's manifest."""
        number, previous, _ = self._next(version)
        return number, previous, self._before(previous, full=full)

    def before(self, document: Document) -> Manifest | None:
        """The manifest of the version before, as it was when the draft was opened.

        Raises:
            WrongBaseError: another version has its number now.
            ConflictError: a later version exists.
        """
        self._next(None)  # the chain is still the same, and what is owed to its newest version is settled
        versions = self._reader.documents.versions(unsigned=True)
        if versions and document.version not in versions and versions[-1] > document.version:
            raise ConflictError(
                f"version {versions[-1]} was published meanwhile",
                object=manifest_name(document.version),
                rule="TD-OBJ-014",
                advice="One writer owns a chain: stop the other one, then draft again.",
            )
        if document.before is None:
            return None
        manifest = self._reader.documents.manifest(document.before)
        base = document.base
        if base is not None and base != Base(manifest.version, manifest.layout, manifest.fingerprint):
            raise WrongBaseError(
                "is not the version that the draft was opened on",
                object=manifest_name(manifest.version),
                rule="TD-WRT-001",
                advice="Draft again.",
            )
        return manifest

    def put(
        self,
        document: Document,
        layout: Layout,
        sums: U64,
        packs: list[PackEntry],
        before: Manifest | None,
        files: Mapping[str, bytes | Path] | None,
        annotations: Mapping[str, str],
    ) -> Manifest:
        """Put what the manifest names beside the packs; gives the manifest, without base and features."""
        with self._batch():
            digest = self._layout(layout, before)
            if digest != document.layout:
                raise MalformedError(
                    "its layout has another digest than its ranks were told",
                    object=DRAFT,
                    rule="TD-CHK-003",
                    advice="Use one version of this package on all ranks.",
                )
            manifest = self._manifest(document.version, digest, sums, packs, before, files, annotations)
        self._put += sum(entry.size for entry in packs)
        return manifest

    def commit(self, manifest: Manifest, layout: Layout, before: Manifest | None, started: float) -> Published:
        """Create the manifest, or find it there."""
        return self._commit(manifest, State(layout, ()), before, started)

    def _vouch(self, mine: Manifest, other: Manifest, data: bytes, state: State, before: Manifest | None) -> None:
        """Sign a version that an earlier try left unsigned, if it says what this one would."""
        if self._signer is None:
            return
        with suppress(TensorDeltaError):
            self._reader.trusting(self._reader.trust).documents.manifest(other.version)
            return  # signed already
        name = manifest_name(other.version)
        if structs.replace(other, created=mine.created) != mine:
            raise UntrustedError(
                "was published already, unsigned, and names other packs or annotations",
                object=name,
                rule="TD-SIG-002",
                advice="Look at it, then have it signed if you trust it (`tensordelta sign`).",
            )
        self._signer.sign(name, data)

    def _after(self, version: int) -> None:
        """Leave the snapshot of this machine as it is; it may be no one's."""
