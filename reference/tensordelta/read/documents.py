"""What lies under a chain's root but packs and files: listed, read, verified, parsed (SPEC.md sections 4 and 14)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import numpy as np

from ..codecs.fingerprint import U64
from ..errors import ConflictError, IntegrityError, LimitError, MalformedError, MissingError, UntrustedError
from ..format.documents import MAX_SMALL, ChainDocument, parse_chain
from ..format.layout import MAX_LAYOUT, Layout
from ..format.manifest import MAX_MANIFEST, Manifest, parse_manifest
from ..format.names import (
    CHAIN,
    MANIFESTS,
    MAX_VERSION,
    SHORTCUTS,
    ShortcutName,
    fingerprints_name,
    layout_name,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
    shortcut_name,
    signature_name,
)
from ..state.state import State
from ..stores import Store
from .trust import Applied, Trust

T = TypeVar("T")


class RootReader:
    """Reads what lies under a chain's root but packs and files; manifests and layouts are kept once they are parsed.

    Args:
        store: where the chain lies.
        chain: the chain id that is expected, if the caller has pinned one.
        trust: the keys that have to have signed what is read; None to read without signatures.

    Raises:
        MissingError: there is no chain.
        ConflictError: there is another chain than the pinned one.
        UntrustedError: it is not signed by a trusted key.
    """

    def __init__(self, store: Store, *, chain: str | None = None, trust: Trust | None = None) -> None:
        self.store = store
        self.trust = trust
        self.document = self._open(chain)
        self.chain = self.document.chain
        self._manifests: dict[int, Manifest] = {}
        self._layouts: dict[str, Layout] = {}

    def _open(self, pinned: str | None) -> ChainDocument:
        try:
            document = self._signed(CHAIN, MAX_SMALL, parse_chain)
        except MissingError:
            raise MissingError(
                f"there is no chain at {self.store.address}",
                object=CHAIN,
                rule="TD-OBJ-009",
                advice="Check the address, or publish a first version there.",
            ) from None
        if pinned is not None and document.chain != pinned:
            raise ConflictError(
                f"is chain {document.chain}, not {pinned}",
                object=CHAIN,
                rule="TD-OBJ-010",
                advice="Another run lies at this address: use a folder of its own for each run.",
            )
        return document

    def check_chain(self) -> None:
        """Check that the same chain still lies at the address.

        Raises:
            MissingError, ConflictError: it was removed, or replaced by another run's.
            UntrustedError: it is no longer signed by a trusted key.
        """
        self._open(self.chain)

    def _read(self, name: str, limit: int) -> bytes:
        with self.store.open(name) as blob:
            if blob.size > limit:
                raise LimitError(f"{blob.size} bytes, more than {limit}", object=name, rule="TD-LIM-004")
            return bytes(blob.read(0, blob.size))

    def _parsed(self, name: str, limit: int, parse: Callable[[bytes], T]) -> T:
        """Read an object and parse it; from far away once more where it is no good, since it may be so on its way."""
        try:
            return parse(self._read(name, limit))
        except (IntegrityError, MalformedError, UntrustedError):
            if not self.store.remote:
                raise
        return parse(self._read(name, limit))

    def _signed(self, name: str, limit: int, parse: Callable[[bytes], T]) -> T:
        """Read and parse chain.json, a manifest or a shortcut; verify it first where keys are configured."""
        if self.trust is None:
            return self._parsed(name, limit, parse)
        return self._parsed(name, limit, lambda data: parse(self._verified(name, data)))

    def _verified(self, name: str, data: bytes) -> bytes:
        assert self.trust is not None
        self.trust.verify(data, self.signature(name), object=name)
        return data

    def checked(self, name: str, limit: int) -> bytes:
        """The bytes of chain.json, a manifest or a shortcut; not parsed, but verified where keys are configured.

        Raises:
            MissingError, LimitError: there is none, or one of more bytes than `limit`.
            UntrustedError: no trusted key has signed it.
        """
        return self._signed(name, limit, bytes)

    def signature(self, name: str) -> bytes | None:
        """The signature object of an object, as it stands; None where there is none."""
        try:
            return self._read(signature_name(name), MAX_SMALL)
        except MissingError:
            return None

    # -- names ----------------------------------------------------------------------------------------------------

    def _listed(self, prefix: str, *, unsigned: bool, after: str | None = None) -> Iterable[str]:
        """Names under a prefix; where keys are configured, those without signature only if `unsigned`."""
        if self.trust is None or unsigned:
            return self.store.names(prefix, after)
        names = set(self.store.names(prefix, after))
        return (name for name in names if signature_name(name) in names)

    def versions(self, *, unsigned: bool = False, after: int | None = None) -> list[int]:
        """The versions that exist, ascending; where keys are configured, those that have a signature (TD-SIG-004).

        Args:
            unsigned: all versions in any case.
            after: only versions greater than this one; a long chain is listed in part then.
        """
        start = None if after is None else manifest_name(after)
        names = self._listed(MANIFESTS, unsigned=unsigned, after=start)
        found = (parse_manifest_name(name) for name in names)
        return sorted(version for version in found if version is not None)

    def shortcuts(self, *, unsigned: bool = False, after: int | None = None) -> list[ShortcutName]:
        """The shortcuts that are listed; where keys are configured, those that have a signature (TD-SIG-004).

        Args:
            unsigned: all shortcuts in any case.
            after: only those to versions greater than this one; a long chain is listed in part then.
        """
        start = None if after is None else shortcut_name(after, None)
        names = self._listed(SHORTCUTS, unsigned=unsigned, after=start)
        found = (parse_shortcut_name(name) for name in names)
        return [each for each in found if each is not None and (after is None or each.version > after)]

    def newest(self) -> int | None:
        """The newest version, or None where the chain has none."""
        versions = self.versions()
        return versions[-1] if versions else None

    # -- documents ------------------------------------------------------------------------------------------------

    def manifest(self, version: int) -> Manifest:
        """A version's manifest.

        Raises:
            MissingError: no such version.
            UntrustedError: keys are configured, and none of them has signed it.
            TensorDeltaError: the manifest breaks a rule.
        """
        if version not in self._manifests:
            name = manifest_name(version) if 0 <= version <= MAX_VERSION else f"version {version}"
            try:
                if not 0 <= version <= MAX_VERSION:
                    raise MissingError("no number of a version", object=name, rule="TD-OBJ-008")
                parsed = self._signed(name, MAX_MANIFEST, partial(parse_manifest, version=version))
            except MissingError:
                raise MissingError(f"no version {version}", object=name, rule="TD-OBJ-008") from None
            self._manifests[version] = self._own(parsed, name)
        return self._manifests[version]

    def forget(self, version: int) -> None:
        """Read a version's manifest anew when it is wanted next: what the store has now is to be compared."""
        self._manifests.pop(version, None)

    def unverified(self, version: int) -> tuple[Manifest, bytes]:
        """A version's manifest whoever signed it, and its bytes; for a writer that finds its number taken.

        Raises:
            MissingError: no such version.
            TensorDeltaError: the manifest breaks a rule.
        """
        name = manifest_name(version)
        data = self._read(name, MAX_MANIFEST)
        return self._own(parse_manifest(data, version=version), name), data

    def shortcut(self, shortcut: ShortcutName) -> Manifest:
        """A shortcut.

        Raises:
            TensorDeltaError: it is gone, or breaks a rule.
        """
        name = shortcut_name(*shortcut)
        parse = partial(parse_manifest, version=shortcut.version, base=shortcut.base, tag=shortcut.tag)
        return self._own(self._signed(name, MAX_MANIFEST, parse), name)

    def _own(self, manifest: Manifest, name: str) -> Manifest:
        if manifest.chain != self.chain:
            raise ConflictError(f"belongs to chain {manifest.chain}", object=name, rule="TD-OBJ-011")
        return manifest

    def layout(self, sha256: str) -> Layout:
        """A layout by its digest.

        Raises:
            MissingError, IntegrityError, MalformedError, UnsupportedError, LimitError: see SPEC.md section 4.6.
        """
        if sha256 not in self._layouts:
            name = layout_name(sha256)
            try:
                self._layouts[sha256] = self._parsed(name, MAX_LAYOUT, partial(Layout.parse, sha256=sha256))
            except MissingError as error:
                raise MissingError(error.reason, object=name, rule="TD-LAY-009") from None
        return self._layouts[sha256]

    def tensor_fingerprints(self, manifest: Manifest) -> U64 | None:
        """The sums of a version's tensors, uint64 in layout order; None where its manifest names none.

        Raises:
            MissingError, IntegrityError, MalformedError: see SPEC.md section 4.12.
        """
        if not isinstance(manifest.tensor_fingerprints, str):
            return None
        sha256 = manifest.tensor_fingerprints
        name = fingerprints_name(sha256)
        tensors = len(self.layout(manifest.layout))

        def parse(data: bytes) -> U64:
            if len(data) != 8 * tensors:
                raise MalformedError(f"{len(data)} bytes for {tensors} tensors", object=name, rule="TD-FPR-002")
            if hashlib.sha256(data).hexdigest() != sha256:
                raise IntegrityError("SHA-256 differs from its name", object=name, rule="TD-FPR-001")
            return np.frombuffer(data, "<u8").astype(np.uint64)

        try:
            return self._parsed(name, 8 * tensors, parse)
        except LimitError:
            raise MalformedError(f"more than {8 * tensors} bytes", object=name, rule="TD-FPR-002") from None

    # -- trust ----------------------------------------------------------------------------------------------------

    def check_age(self, newest: int) -> None:
        """Check that the newest version is not older than it may be, where a maximal age is set (TD-SIG-008).

        Raises:
            UntrustedError: it is.
        """
        if self.trust is not None and self.trust.max_age is not None:
            self.trust.check_age(self.manifest(newest))

    def admit(self, target: int, held: State | Applied | None = None) -> None:
        """Check that a read may end at a version; without keys it may (SPEC.md section 14).

        Args:
            target: the version.
            held: what is held, as far as it remembers a version.

        Raises:
            UntrustedError: it has no signature of a trusted key, is older than one that was held, or is another than
                it was when it was held.
            MissingError: no such version.
            TensorDeltaError: its manifest cannot be read.
        """
        if self.trust is None:
            return
        if self.trust.has_applied(self.chain, target):
            self.forget(target)
        manifest = self.manifest(target)
        if isinstance(held, State):
            known = None if held.version is None or held.chain is None else (held.chain, held.version)
            held = None if known is None else Applied(*known, *(held.version_digests or ()))
        self.trust.check_target(manifest, held)

    def remember(self, version: int) -> None:
        """Keep that a version was applied, where keys are configured, so that no read leads back (TD-SIG-005)."""
        if self.trust is not None:
            self.trust.remember(self.manifest(version))
