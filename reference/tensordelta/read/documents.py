"""A chain's documents and listings: all objects but packs and files, read, verified, parsed (SPEC.md section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np

from ..codecs.fingerprint import U64
from ..errors import (
    ConflictError,
    IntegrityError,
    LimitError,
    MalformedError,
    MissingError,
    TensorDeltaError,
    UntrustedError,
)
from ..format.documents import MAX_SMALL, LatestDocument, parse_chain, parse_latest
from ..format.layout import MAX_LAYOUT, Layout
from ..format.manifest import MAX_MANIFEST, Manifest, parse_manifest
from ..format.names import (
    CHAIN,
    LATEST,
    MANIFESTS,
    MAX_VERSION,
    SHORTCUTS,
    ShortcutName,
    fingerprints_name,
    layout_name,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
    retired_name,
    shortcut_name,
)
from ..format.strict_json import PARSING
from ..state.holder import Holder
from ..state.state import State
from ..stores import Store, read_small
from .absence import no_chain, no_version
from .listing import Member
from .manifests import Manifests
from .remembered import Applied
from .trust import Trust

T = TypeVar("T")

#: Bytes of the largest layout that is kept parsed for the whole process; questions open a chain again and again.
_SMALL_LAYOUT = 1 << 17

#: Unsigned versions that are passed over in the search for the newest signed one.
_MAX_UNSIGNED = 64


class Documents:
    """Reads the documents and listings under a chain's root; layouts and the manifests used last are kept, parsed.

    Several threads may use one object: two that read the same document at once both read it.

    Args:
        store: where the chain lies.
        chain: the chain id that is expected, if the caller has pinned one.
        trust: the keys that must have signed what is read; None to read without signatures.
        memory: bytes that a document may take while it is parsed; None for any.

    Attributes:
        chain: the chain id.
        grace: the grace period of the chain, in seconds (SPEC.md section 13).

    Raises:
        MissingError: there is no chain.
        ConflictError: there is another chain than the pinned one.
        UntrustedError: it is not signed by a trusted key.
    """

    def __init__(
        self, store: Store, *, chain: str | None = None, trust: Trust | None = None, memory: int | None = None
    ) -> None:
        self.store = store
        self._memory = memory
        self.trust = trust
        #: What was listed last, what the hint named last, and, where nothing can be listed, what manifests named as
        #: base: its copy may be read where it has gone since (TD-RET-017).
        self._listed: tuple[Sequence[int], Sequence[ShortcutName]] = (), ()
        self._hinted: frozenset[Member] = frozenset()
        self._bases: set[int] = set()
        self.chain = self._open(chain)
        self._manifests = Manifests()
        self._layouts: dict[str, Layout] = {}

    def _open(self, pinned: str | None) -> str:
        document = self._read(CHAIN, MAX_SMALL, parse_chain, self._absent(CHAIN))
        chain, self.grace = document.chain, document.grace
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
        """The bytes of an object that is parsed next."""
        data = read_small(self.store, name, limit)
        self._check_memory(name, data)
        return data

    def _check_memory(self, name: str, data: bytes) -> None:
        if self._memory is not None and len(data) * PARSING > self._memory and name.endswith(".json"):
            raise LimitError(
                f"takes {len(data) * PARSING:,} bytes of memory to parse, the budget is {self._memory:,}",
                object=name,
                rule="TD-LIM-008",
                advice="Raise the budget (memory=…).",
            )

    def _read(
        self, name: str, limit: int, parse: Callable[[bytes], T], absent: MissingError, *, signed: bool = True
    ) -> T:
        """Read, verify and parse an object. From a remote store a bad one is read twice: it may be damaged in transit.

        Args:
            name: the object's name.
            limit: the bytes that it may have.
            parse: parses its bytes.
            absent: the error to raise where there is no such object.
            signed: verify its signature before it is parsed, where keys are configured. An object of more bytes than
                the limit is not signed, whoever put it.
        """
        trust = self.trust if signed else None

        def read() -> T:
            try:
                data, found = self._first([name, retired_name(name)] if self._was_seen(name) else [name], limit)
            except MissingError:
                raise absent from None
            except LimitError as fault:
                if trust is None:
                    raise
                raise trust.unsigned(f"has {fault.reason}: no signature of it counts", object=name) from None
            if trust is not None:
                trust.verify(data, self.signature, object=name)
            self._check_memory(found, data)
            return parse(data)

        try:
            return read()
        except (IntegrityError, MalformedError, UntrustedError):
            if not self.store.remote:
                raise
        return read()

    def _first(self, names: Sequence[str], limit: int) -> tuple[bytes, str]:
        """The bytes of the first object that exists, and its name."""
        for name in names[:-1]:
            with suppress(MissingError):
                return read_small(self.store, name, limit), name
        return read_small(self.store, names[-1], limit), names[-1]

    def _was_seen(self, name: str) -> bool:
        """True for a manifest or shortcut that the last listing had, or that the hint or a manifest named."""
        version, shortcut = parse_manifest_name(name), parse_shortcut_name(name)
        versions, shortcuts = self._listed
        if version is not None:
            return version in versions or version in self._hinted or version in self._bases
        return shortcut is not None and (shortcut in shortcuts or shortcut in self._hinted)

    def _absent(self, name: str) -> MissingError:
        """The error to raise where there is no chain.json, manifest or shortcut of a name."""
        if name == CHAIN:
            return no_chain(self.store)
        version = parse_manifest_name(name)
        if version is not None:
            return no_version(version, self.store, object=name)
        return MissingError("there is no such shortcut", object=name, rule="TD-RTE-006")

    def checked(self, name: str, limit: int) -> bytes:
        """The bytes of chain.json, a manifest or a shortcut, not parsed, but verified where keys are configured.

        Raises:
            MissingError, LimitError: there is none, or one of more bytes than `limit`.
            UntrustedError: no trusted key has signed it, or, with keys, it has more bytes.
        """
        return self._read(name, limit, bytes, self._absent(name))

    def signature(self, name: str) -> bytes | None:
        """The bytes of a signature object; None where there is none, or one of too many bytes."""
        try:
            return self._bytes(name, MAX_SMALL)
        except (MissingError, LimitError):
            return None

    # -- listings -------------------------------------------------------------------------------------------------

    def versions(self, after: int | None = None) -> list[int]:
        """The versions whose manifests are listed, ascending, signed or not.

        A store that lists nothing tells only the versions to which the hint leads (`lineage`).

        Args:
            after: only versions greater than this one, so that a long chain is listed in part.
        """
        if not self.store.lists:
            return list(self.lineage(after=after))[::-1]
        names = self.store.names(MANIFESTS, None if after is None else manifest_name(after))
        found = sorted(version for name in names if (version := parse_manifest_name(name)) is not None)
        before = [] if after is None else [version for version in self._listed[0] if version <= after]
        self._listed = [*before, *found], self._listed[1]
        return found

    def shortcuts(self, after: int | None = None) -> list[ShortcutName]:
        """The shortcuts that are listed, signed or not.

        Args:
            after: only those to versions greater than this one, so that a long chain is listed in part.
        """
        if not self.store.lists:
            hint = self._own_hint()
            hinted = [] if hint is None else hint.names
            return [each for each in hinted if after is None or each.version > after]
        names = self.store.names(SHORTCUTS, None if after is None else shortcut_name(after, None))
        every = (parse_shortcut_name(name) for name in names)
        found = [each for each in every if each is not None and (after is None or each.version > after)]
        before = [] if after is None else [each for each in self._listed[1] if each.version <= after]
        self._listed = self._listed[0], [*before, *found]
        return found

    def signed(self, versions: Iterable[int]) -> Iterator[int]:
        """Those of some versions whose manifests are signed; without keys all. Each is read when it is its turn.

        Whatever has more bytes than a manifest may have counts as not signed.
        """
        for version in versions:
            try:
                if self.trust is not None:
                    self.manifest(version)
            except (UntrustedError, MissingError):  # or it was deleted meanwhile
                continue
            except TensorDeltaError:
                pass  # signed, and then found to break a rule
            yield version

    def lineage(self, *, after: int | None = None) -> Iterator[int]:
        """The version that the hint names, its base, the base of that, and so on; each was read, but for the last."""
        hint = self._own_hint()
        version = None if hint is None else hint.version
        while version is not None and (after is None or version > after):
            try:
                base = self.manifest(version).base
            except (MissingError, UntrustedError):
                return
            except TensorDeltaError:  # it exists, and cannot be read
                base = None
            yield version
            version = None if base is None else base.version

    def hint(self) -> LatestDocument | None:
        """What latest.json says; None where it is absent or breaks a rule (TD-OBJ-018).

        Raises:
            ConflictError: it names another chain, which by itself proves nothing.
        """
        try:
            hint = parse_latest(self._bytes(LATEST, MAX_SMALL))
        except TensorDeltaError:
            return None
        if hint.chain != self.chain:
            raise ConflictError(f"names chain {hint.chain}", object=LATEST, rule="TD-OBJ-018")
        self._hinted = frozenset((hint.version, *hint.names))
        return hint

    def _own_hint(self) -> LatestDocument | None:
        with suppress(ConflictError):
            return self.hint()
        return None

    def newest(self, below: int | None = None) -> int | None:
        """The newest version, with keys the newest signed one; None where there is none.

        Of a store that lists nothing it is the hinted version, or one that leads to it.

        Args:
            below: only versions less than this one.

        Raises:
            UntrustedError: the 64 newest versions are unsigned.
        """
        if not self.store.lists:
            return next((version for version in self.lineage() if below is None or version < below), None)
        return self.newest_of([version for version in self.versions() if below is None or version < below])

    def newest_of(self, versions: Sequence[int]) -> int | None:
        """The newest of versions that were listed, ascending; see `newest`."""
        versions = versions[::-1]
        newest = next(self.signed(versions[:_MAX_UNSIGNED]), None)
        if newest is None and len(versions) > _MAX_UNSIGNED:
            raise UntrustedError(
                f"none of the {_MAX_UNSIGNED} newest versions is signed by a trusted key",
                object=manifest_name(versions[0]),
                rule="TD-SIG-012",
                advice="Another writer publishes to this chain without a key: stop it, or read an older version.",
            )
        return newest

    # -- documents ------------------------------------------------------------------------------------------------

    def manifest(self, version: int) -> Manifest:
        """A version's manifest.

        Raises:
            MissingError: no such version.
            UntrustedError: keys are configured, and no trusted key has signed it; or it has too many bytes to be one.
            TensorDeltaError: the manifest breaks a rule.
        """
        found = self._manifests.get(version)
        if found is None:
            if not 0 <= version <= MAX_VERSION:
                raise no_version(version, self.store, object=f"version {version}")
            name = manifest_name(version)
            parse = partial(parse_manifest, version=version)
            found = self._own(self._read(name, MAX_MANIFEST, parse, self._absent(name)), name)
            self._manifests.keep(version, found)
        return found

    def forget(self, version: int) -> None:
        """Have the next use of a version's manifest read it again from the store."""
        self._manifests.forget(version)

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
        if manifest.base is not None and not self.store.lists:
            self._bases.add(manifest.base.version)
        return manifest

    def layout(self, sha256: str) -> Layout:
        """A layout by its digest.

        Raises:
            MissingError, IntegrityError, MalformedError, UnsupportedError, LimitError: see SPEC.md section 4.6.
        """
        if sha256 not in self._layouts:
            name = layout_name(sha256)
            absent = MissingError(f"is not in {self.store.address}", object=name, rule="TD-LAY-009")
            parse = partial(_parsed_layout, sha256=sha256)
            self._layouts[sha256] = self._read(name, MAX_LAYOUT, parse, absent, signed=False)
        return self._layouts[sha256]

    def tensor_fingerprints(self, manifest: Manifest) -> U64 | None:
        """The fingerprints of a version's tensors, uint64 in layout order; None where its manifest names none.

        The salt that follows them is left out.

        Raises:
            MissingError, IntegrityError, MalformedError: see SPEC.md section 4.12.
        """
        if not isinstance(manifest.tensor_fingerprints, str):
            return None
        sha256 = manifest.tensor_fingerprints
        name = fingerprints_name(sha256)
        tensors = len(self.layout(manifest.layout))
        size = 8 * (tensors + 1)

        def parse(data: bytes) -> U64:
            if len(data) != size:
                raise MalformedError(f"{len(data)} bytes for {tensors} tensors", object=name, rule="TD-FPR-002")
            if hashlib.sha256(data).hexdigest() != sha256:
                raise IntegrityError("SHA-256 differs from its name", object=name, rule="TD-FPR-001")
            return np.frombuffer(data, "<u8")[:-1].astype(np.uint64)

        absent = MissingError(f"is not in {self.store.address}", object=name, rule="TD-FPR-010")
        try:
            return self._read(name, size, parse, absent, signed=False)
        except LimitError:
            raise MalformedError(f"more than {size} bytes", object=name, rule="TD-FPR-002") from None

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


def _parsed_layout(data: bytes, *, sha256: str) -> Layout:
    """`Layout.parse`; arguments and errors are its own."""
    return _layout_of(data, sha256) if len(data) <= _SMALL_LAYOUT else Layout.parse(data, sha256=sha256)


@lru_cache(maxsize=8)
def _layout_of(data: bytes, sha256: str) -> Layout:
    return Layout.parse(data, sha256=sha256)
