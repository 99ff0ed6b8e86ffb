"""Signing: what a writer puts beside the objects that it makes (SPEC.md section 14).

A signature follows its object (TD-SIG-009), so a writer can die between the two. It makes the signature first and keeps
it in the cache of this machine until it is put: whoever finds the object without it can put it then. Nothing else that
is there unsigned is signed by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress

from ..errors import ConflictError, MissingError
from ..format.manifest import MAX_MANIFEST, parse_manifest
from ..format.names import (
    CHAIN,
    MAX_SMALL,
    SIGNATURE,
    ShortcutName,
    manifest_name,
    parse_chain,
    parse_manifest_name,
    parse_shortcut_name,
    shortcut_name,
)
from ..format.signature import SecretKey, sign, signature_name
from ..read.listing import check_shortcut
from ..read.reader import Reader
from ..stores import Batch, Entry, FolderStore, Parts, Store, StoredBlob, cache_root
from ..threads import ordered_map


def _is_signed(name: str) -> bool:
    """True for an object that has a signature in a signed chain: chain.json, a manifest or a shortcut."""
    return name == CHAIN or parse_manifest_name(name) is not None or parse_shortcut_name(name) is not None


class SigningStore:
    """A store that signs what commits: `create` of chain.json, a manifest or a shortcut puts its signature as well.

    Args:
        store: where objects and signatures go.
        key: signs.

    Attributes:
        store: the store itself.
        key: the key.

    Raises:
        ImportError: `cryptography` is not installed.
    """

    def __init__(self, store: Store, key: SecretKey) -> None:
        self.store: Store = store.store if isinstance(store, SigningStore) else store
        self.key = key
        # By the bytes that are signed: whatever stands under an object's name, the signature is of these alone.
        self._owed = FolderStore(cache_root(make=True) / "signatures" / hashlib.sha256(key.public.raw).hexdigest())

    @property
    def address(self) -> str:
        """The store's."""
        return self.store.address

    @property
    def exclusive(self) -> bool:
        """The store's."""
        return self.store.exclusive

    @property
    def remote(self) -> bool:
        """The store's."""
        return self.store.remote

    def create(self, name: str, data: bytes) -> bool:
        """Create an object, and sign it where it commits.

        Raises:
            StoreError: the store failed. If the object exists, `settle` signs it.
        """
        if not _is_signed(name):
            return self.store.create(name, data)
        owed, signature = _owed_name(data), sign(data, self.key)
        self._owed.put(owed, [signature])
        created = self.store.create(name, data)
        if created:
            self.store.put(signature_name(name), [signature])
        else:
            self.settle(name)  # an earlier try may have been this writer's own
        self._owed.delete(owed)
        return created

    def sign(self, name: str, data: bytes) -> None:
        """Put the signature of an object that exists.

        Args:
            name: the object's.
            data: its bytes, for which the caller vouches.
        """
        self.store.put(signature_name(name), [sign(data, self.key)])

    def settle(self, name: str) -> None:
        """Put the signature that is owed to an object, if one is: its writer died before it could."""
        if not _is_signed(name):
            return
        with suppress(MissingError):
            owed = _owed_name(self.store.read(name))
            signature = self._owed.read(owed)
            self.store.put(signature_name(name), [signature])
            self._owed.delete(owed)

    def read(self, name: str) -> bytes:
        """As the store does."""
        return self.store.read(name)

    def open(self, name: str) -> StoredBlob:
        """As the store does."""
        return self.store.open(name)

    def size(self, name: str) -> int | None:
        """As the store does."""
        return self.store.size(name)

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """As the store does."""
        return self.store.names(prefix, after)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """As the store does."""
        return self.store.entries(prefix)

    def put(self, name: str, parts: Parts) -> None:
        """As the store does; nothing is signed."""
        self.store.put(name, parts)

    def batch(self) -> AbstractContextManager[Batch]:
        """As the store does; nothing is signed."""
        return self.store.batch()

    def delete(self, name: str) -> None:
        """As the store does."""
        self.store.delete(name)


def check_signs(reader: Reader) -> None:
    """Check that what is written over a reader's store has a signature where the reader demands one.

    Raises:
        ValueError: it would not.
    """
    if reader.trust is not None and not isinstance(reader.store, SigningStore):
        raise ValueError("with trusted keys, what is not signed is passed over: give a key to sign with as well")


def _owed_name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()}{SIGNATURE}"


def sign_chain(reader: Reader, key: SecretKey, versions: Iterable[int] | None = None) -> list[str]:
    """Sign what is there already: chain.json, manifests, and the shortcuts to their versions.

    Every object is read and parsed before the first is signed. What they name is not looked at; `verify` does that.

    Args:
        reader: of the chain. Where it has trusted keys, only what these keys have signed is signed again.
        key: signs.
        versions: which; by default all.

    Returns:
        Names of the objects that have a signature now that they did not have.

    Raises:
        MissingError: no such version.
        UntrustedError: there are trusted keys, and something is not signed by one of them.
        TensorDeltaError: an object breaks a rule.
        StoreError: the store failed.
    """
    if reader.trust is not None:
        reader = reader.trusting(reader.trust.unbound(key.public))
    chosen = sorted(set(reader.documents.versions(unsigned=True) if versions is None else versions))
    wanted = frozenset(chosen)
    members: list[int | ShortcutName] = [
        *chosen,
        *sorted((each for each in reader.documents.shortcuts(unsigned=True) if each.version in wanted), key=str),
    ]

    def made(member: int | ShortcutName | None) -> tuple[str, bytes]:
        name, data = _checked(reader, member)
        return name, sign(data, key)

    found = list(ordered_map(made, [None, *members], threads=reader.threads))
    changed = [(name, signature) for name, signature in found if reader.documents.signature(name) != signature]
    with reader.store.batch() as batch:
        for name, signature in changed:
            batch.put(signature_name(name), [signature])
    return [name for name, _ in changed]


def _checked(reader: Reader, member: int | ShortcutName | None) -> tuple[str, bytes]:
    """A member's name and bytes, which a reader accepts as they are; None for chain.json."""
    if member is None:
        data = reader.documents.checked(CHAIN, MAX_SMALL)
        found = parse_chain(data).chain
        name, rule = CHAIN, "TD-OBJ-010"
    elif isinstance(member, ShortcutName):
        name, rule = shortcut_name(*member), "TD-OBJ-011"
        data = reader.documents.checked(name, MAX_MANIFEST)
        shortcut = parse_manifest(data, version=member.version, base=member.base, tag=member.tag)
        check_shortcut(shortcut, reader.documents.manifest(member.version), object=name)
        found = shortcut.chain
    else:
        name, rule = manifest_name(member), "TD-OBJ-011"
        data = reader.documents.checked(name, MAX_MANIFEST)
        found = parse_manifest(data, version=member).chain
    if found != reader.chain:
        raise ConflictError(f"is of chain {found}, not {reader.chain}", object=name, rule=rule)
    return name, data
