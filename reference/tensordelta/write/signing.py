"""Signing: the signatures that a writer puts before the objects that it makes (SPEC.md section 14).

A signature comes before its object (TD-SIG-010): a writer that dies between the two leaves a signature of nothing, and
no object without its signature.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from ..errors import ConflictError
from ..format.documents import MAX_SMALL, parse_chain
from ..format.keys import SecretKey
from ..format.manifest import MAX_MANIFEST, parse_manifest
from ..format.names import CHAIN, ShortcutName
from ..format.signature import Message
from ..read.listing import Member, check_shortcut, member_name
from ..read.reader import Reader
from ..stores import Store
from ..threads import ordered_map


class Signer:
    """Signs what commits: chain.json, manifests and shortcuts. Several threads may use it.

    Args:
        store: where objects and signatures go.
        key: signs.

    Attributes:
        key: the key.
    """

    def __init__(self, store: Store, key: SecretKey) -> None:
        self._store = store
        self.key = key

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "what signs cannot be pickled, since its secret key would go with it: open the chain in the other process"
        )

    def sign(self, name: str, data: bytes) -> None:
        """Put the signature of an object.

        Args:
            name: the object's.
            data: its bytes, for which the caller vouches.

        Raises:
            StoreError: the store failed.
            ImportError: `cryptography` is not installed.
        """
        signature, document = Message(name, data).sign(self.key)
        self._store.put(signature, [document])

    def create(self, name: str, data: bytes) -> bool:
        """Sign an object, and then create it if there is none of its name.

        Returns:
            True if this call created it.

        Raises:
            StoreError: the store failed. Whether the object exists is not known then; if it does, it is signed.
        """
        self.sign(name, data)
        return self._store.create(name, data)


def sign_chain(reader: Reader, key: SecretKey, versions: Iterable[int] | None = None) -> list[str]:
    """Sign what exists: chain.json, manifests, and the shortcuts to their versions.

    Every object is read and parsed before the first is signed. The objects that they name are not read; `verify` does
    that.

    Args:
        reader: of the chain. If it has trusted keys, only what one of these has signed is signed again (TD-SIG-014).
        key: signs.
        versions: which; by default all.

    Returns:
        Names of the objects that this key has signed now and had not signed before.

    Raises:
        MissingError: no such version.
        UntrustedError: there are trusted keys, and something is not signed by one of them.
        TensorDeltaError: an object breaks a rule.
        StoreError: the store failed.
    """
    if reader.trust is not None:
        reader = reader.trusting(reader.trust.unbound(key.public, threshold=1))
    chosen = frozenset(reader.documents.versions() if versions is None else versions)
    shortcuts = (each for each in reader.documents.shortcuts() if each.version in chosen)
    members: list[Member | None] = [None, *sorted(chosen), *sorted(shortcuts, key=str)]

    def signed(member: Member | None) -> tuple[str, str, bytes] | None:
        name, data = _checked(reader, member)
        message = Message(name, data)
        return None if message.is_signed_by(key.public, reader.documents.signature) else (name, *message.sign(key))

    changed = [each for each in ordered_map(signed, members, threads=reader.threads) if each is not None]
    with reader.store.batch() as batch:
        for _, signature, document in changed:
            batch.put(signature, [document])
    return [name for name, _, _ in changed]


def _checked(reader: Reader, member: Member | None) -> tuple[str, bytes]:
    """Name and bytes of a member, or of chain.json for None, which a reader accepts as they are."""
    if member is None:
        name, rule = CHAIN, "TD-OBJ-010"
        data = reader.documents.checked(name, MAX_SMALL)
        found = parse_chain(data).chain
    else:
        name, rule = member_name(member), "TD-OBJ-011"
        data = reader.documents.checked(name, MAX_MANIFEST)
        if isinstance(member, ShortcutName):
            shortcut = parse_manifest(data, version=member.version, base=member.base, tag=member.tag)
            check_shortcut(shortcut, reader.documents.manifest(member.version), object=name)
            found = shortcut.chain
        else:
            found = parse_manifest(data, version=member).chain
    if found != reader.chain:
        raise ConflictError(f"is of chain {found}, not {reader.chain}", object=name, rule=rule)
    return name, data
