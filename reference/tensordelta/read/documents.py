"""A chain's documents and listings: all objects but packs and files, read, verified, parsed (SPEC.md section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import numpy as np

from ..codecs.fingerprint import U64
from ..errors import ConflictError, IntegrityError, LimitError, MalformedError, MissingError, UntrustedError
from ..format.documents import MAX_SMALL, parse_chain
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
from ..state.holder import Holder
from ..state.state import State
from ..stores import Store, read_small
from .listing import Member
from .remembered import Applied
from .trust import Trust

T = TypeVar("T")


class Documents:
    """Reads the documents and listings under a chain's root; parsed manifests and layouts are kept.

    Several threads may use one object: two that read the same document at once both read it.

    Args:
        store: where the chain lies.
        chain: the chain id that is expected, if the caller has pinned one.
        trust: the keys of which one must have signed what is read; None to read without signatures.

    Attributes:
        chain: the chain id.

    Raises:
        MissingError: there is no chain.
        ConflictError: there is another chain than the pinned one.
        UntrustedError: it is not signed by a trusted key.
    """

    def __init__(self, store: Store, *, chain: str | None = None, trust: Trust | None = None) -> None:
        self.store = store
        self.trust = trust
        self.chain = self._open(chain)
        self._manifests: dict[int, Manifest] = {}
        self._layouts: dict[str, Layout] = {}

    def _open(self, pinned: str | None) -> str:
        chain = self._read(CHAIN, MAX_SMALL, parse_chain, self._absent(CHAIN)).chain
        if pinned is not None and chain != pinned:
            raise ConflictError(
                f"is chain {chain}, not {pinned}",
                object=CHAIN,
                rule="TD-OBJ-010",
                advice="Another run lies at this address: use a folder of its own for each run.",
            )
        return chain

    def check_chain(self) -> None:
        """Check that the same chain still lies at the address.

        Raises:
            MissingError, ConflictError: it was removed, or replaced by another run's.
            UntrustedError: it is no longer signed by a trusted key.
        """
        self._open(self.chain)

    # -- objects --------------------------------------------------------------------------------------------------

    def _bytes(self, name: str, limit: int) -> bytes:
        return read_small(self.store, name, limit)

    def _read(
        self, name: str, limit: int, parse: Callable[[bytes], T], absent: MissingError, *, signed: bool = True
    ) -> T:
        """Read, verify and parse an object. From a remote store a bad one is read twice: it may be damaged in transit.

        Args:
            name: the object's name.
            limit: the bytes that it may have.
            parse: parses its bytes.
            absent: the error to raise where there is no such object.
            signed: verify its signature before it is parsed, where keys are configured.
        """

        def read() -> T:
            try:
                data = self._bytes(name, limit)
            except MissingError:
                raise absent from None
            if signed and self.trust is not None:
                self.trust.verify(data, self.signature(name), object=name)
            return parse(data)

        try:
            return read()
        except (IntegrityError, MalformedError, UntrustedError):
            if not self.store.remote:
                raise
        return read()

    def _absent(self, name: str) -> MissingError:
        """The error to raise where there is no chain.json, manifest or shortcut of a name."""
        if name == CHAIN:
            return MissingError(
                f"there is no chain at {self.store.address}",
                object=CHAIN,
                rule="TD-OBJ-009",
                advice="Check the address, or publish a first version there.",
            )
        version = parse_manifest_name(name)
        if version is not None:
            return MissingError(f"no version {version}", object=name, rule="TD-OBJ-008")
        return MissingError("there is no such shortcut", object=name, rule="TD-RTE-006")

    def checked(self, name: str, limit: int) -> bytes:
        """The bytes of chain.json, a manifest or a shortcut, not parsed, but verified where keys are configured.

        Raises:
            MissingError, LimitError: there is none, or one of more bytes than `limit`.
            UntrustedError: no trusted key has signed it.
        """
        return self._read(name, limit, bytes, self._absent(name))

    def signature(self, name: str) -> bytes | None:
        """The bytes of the signature object of an object; None where there is none."""
        try:
            return self._bytes(signature_name(name), MAX_SMALL)
        except MissingError:
            return None

    # -- listings -------------------------------------------------------------------------------------------------

    def _listed(self, prefix: str, *, unsigned: bool, after: str) -> Iterable[str]:
        """Names under a prefix; where keys are configured, those without signature only if `unsigned`."""
        listed = self.store.names(prefix, after or None)
        if self.trust is None or unsigned:
            return listed
        names = set(listed)
        return (name for name in names if signature_name(name) in names)

    def versions(self, *, unsigned: bool = False, after: int | None = None) -> list[int]:
        """The versions that exist, ascending; where keys are configured, those that have a signature (TD-SIG-004).

        Args:
            unsigned: all versions, with or without signature.
            after: only versions greater than this one, so that a long chain is listed in part.
        """
        names = self._listed(MANIFESTS, unsigned=unsigned, after="" if after is None else manifest_name(after))
        found = (parse_manifest_name(name) for name in names)
        return sorted(version for version in found if version is not None)

    def shortcuts(self, *, unsigned: bool = False, after: int | None = None) -> list[ShortcutName]:
        """The shortcuts that exist; where keys are configured, those that have a signature (TD-SIG-004).

        Args:
            unsigned: all shortcuts, with or without signature.
            after: only those to versions greater than this one, so that a long chain is listed in part.
        """
        names = self._listed(SHORTCUTS, unsigned=unsigned, after="" if after is None else shortcut_name(after, None))
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
            UntrustedError: keys are configured, and no trusted key has signed it.
            TensorDeltaError: the manifest breaks a rule.
        """
        if version not in self._manifests:
            if not 0 <= version <= MAX_VERSION:
                raise MissingError(f"no version {version}", object=f"version {version}", rule="TD-OBJ-008")
            name = manifest_name(version)
            parse = partial(parse_manifest, version=version)
            self._manifests[version] = self._own(self._read(name, MAX_MANIFEST, parse, self._absent(name)), name)
        return self._manifests[version]

    def forget(self, version: int) -> None:
        """Have the next use of a version's manifest read it again from the store."""
        self._manifests.pop(version, None)

    def unverified(self, version: int) -> tuple[Manifest, bytes]:
        """A version's manifest and its bytes, with or without a valid signature: for a writer whose number is taken.

        Raises:
            MissingError: no such version.
            TensorDeltaError: the manifest breaks a rule.
        """
        name = manifest_name(version)
        data = self._read(name, MAX_MANIFEST, bytes, self._absent(name), signed=False)
        return self._own(parse_manifest(data, version=version), name), data

    def shortcut(self, shortcut: ShortcutName) -> Manifest:
        """A shortcut.

        Raises:
            TensorDeltaError: it does not exist any more, or breaks a rule.
        """
        name = shortcut_name(*shortcut)
        parse = partial(parse_manifest, version=shortcut.version, base=shortcut.base, tag=shortcut.tag)
        return self._own(self._read(name, MAX_MANIFEST, parse, self._absent(name)), name)

    def member(self, member: Member) -> Manifest:
        """A version's own manifest, or a shortcut. Errors are those of `manifest` and `shortcut`."""
        return self.shortcut(member) if isinstance(member, ShortcutName) else self.manifest(member)

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
            absent = MissingError(f"is not in {self.store.address}", object=name, rule="TD-LAY-009")
            parse = partial(Layout.parse, sha256=sha256)
            self._layouts[sha256] = self._read(name, MAX_LAYOUT, parse, absent, signed=False)
        return self._layouts[sha256]

    def tensor_fingerprints(self, manifest: Manifest) -> U64 | None:
        """The fingerprints of a version's tensors, uint64 in layout order; None where its manifest names none.

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

        absent = MissingError(f"is not in {self.store.address}", object=name, rule="TD-FPR-010")
        try:
            return self._read(name, 8 * tensors, parse, absent, signed=False)
        except LimitError:
            raise MalformedError(f"more than {8 * tensors} bytes", object=name, rule="TD-FPR-002") from None

    # -- trust ----------------------------------------------------------------------------------------------------

    def check_newest(self, newest: int) -> None:
        """Check, where keys are configured, that the newest version is not older than its maximal age (TD-SIG-008).

        Nor may it be older than a version that this user has held, in whatever folder or process.

        Raises:
            UntrustedError: it is.
        """
        if self.trust is not None and (self.trust.max_age is not None or self.trust.remembered is not None):
            self.trust.check_newest(self.manifest(newest))

    def admit(self, target: int, held: State | Holder | Applied | None = None) -> None:
        """Check that a read may end at a version, where keys are configured (SPEC.md section 14).

        Args:
            target: the version.
            held: what the reader holds, if that remembers its version.

        Raises:
            UntrustedError: it has no signature of a trusted key, is older than a version that was held, or differs
                from what it was when it was held.
            MissingError: no such version.
            TensorDeltaError: its manifest cannot be read.
        """
        if self.trust is None:
            return
        if self.trust.has_applied(self.chain, target):
            self.forget(target)
        manifest = self.manifest(target)
        if isinstance(held, State | Holder):
            known = None if held.version is None or held.chain is None else (held.chain, held.version)
            held = None if known is None else Applied(*known, *(held.version_digests or ()))
        self.trust.check_target(manifest, held)

    def remember(self, version: int) -> None:
        """Remember that a version was applied, where keys are configured: no later read may go back (TD-SIG-005)."""
        if self.trust is not None:
            self.trust.remember(self.manifest(version))
