"""Signing: the signatures that a writer puts next to the objects that it makes (SPEC.md section 14).

A signature follows its object (TD-SIG-009), so a writer can die between the two. Therefore it makes the signature first
and keeps it in the cache of this machine until it is put. The next commit on this machine that finds the object
unsigned puts it then. No other unsigned object is signed without being asked for.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from ..errors import ConflictError, MissingError, StoreError, TensorDeltaError
from ..format.documents import MAX_SMALL, parse_chain
from ..format.keys import SecretKey
from ..format.manifest import MAX_MANIFEST, parse_manifest
from ..format.names import CHAIN, SIGNATURE, ShortcutName, signature_name
from ..format.signature import sign
from ..read.listing import Member, check_shortcut, member_name
from ..read.reader import Reader
from ..stores import FolderStore, Store, cache_folder, read_small
from ..threads import ordered_map

_LOG = logging.getLogger("tensordelta")


class Signer:
    """Signs what commits: chain.json, manifests and shortcuts. Several threads may use it.

    Args:
        store: where objects and signatures go.
        key: signs.

    Attributes:
        key: the key.

    Raises:
        ImportError: `cryptography` is not installed.
    """

    def __init__(self, store: Store, key: SecretKey) -> None:
        self._store = store
        self.key = key
        # By the digest of the signed bytes: under an object's name there may be another writer's bytes.
        self._owed: FolderStore | None = None
        with self._unless_full():
            self._owed = FolderStore(cache_folder("signatures", hashlib.sha256(key.public.raw).hexdigest()))

    def create(self, name: str, data: bytes) -> bool:
        """Create an object if there is none of its name, and sign it; if there is one, `settle` its signature.

        Returns:
            True if this call created it.

        Raises:
            StoreError: the store failed. If the object exists, `settle` signs it.
        """
        owed, signature = _owed_name(data), sign(data, self.key)
        with self._unless_full():
            if self._owed is not None:
                self._owed.put(owed, [signature])
        created = self._store.create(name, data)
        if created:
            self._store.put(signature_name(name), [signature])
        else:
            self.settle(name)  # an earlier try may have been this writer's own
        with self._unless_full():
            if self._owed is not None:
                self._owed.delete(owed)
        return created

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "what signs cannot be pickled, since its secret key would go with it: open the chain in the other process"
        )

    @contextmanager
    def _unless_full(self) -> Iterator[None]:
        """Go on where the cache folder cannot be used: only a writer that dies in the next moment needs it."""
        try:
            yield
        except (TensorDeltaError, StoreError):
            raise
        except OSError as error:
            _LOG.warning("if this process dies before a signature is put, `sign` has to put it: %s", error)

    def sign(self, name: str, data: bytes) -> None:
        """Put the signature of an object that exists.

        Args:
            name: the object's.
            data: its bytes, for which the caller vouches.

        Raises:
            StoreError: the store failed.
        """
        self._store.put(signature_name(name), [sign(data, self.key)])

    def settle(self, name: str) -> None:
        """Put the signature that is owed to an unsigned object, if one is: its writer died before it could.

        Raises:
            LimitError: the object has more bytes than a manifest may have.
            StoreError: the store failed.
        """
        if self._owed is None or self._store.size(signature_name(name)) is not None:
            return
        with suppress(MissingError):
            owed = _owed_name(read_small(self._store, name, MAX_MANIFEST))
            self._store.put(signature_name(name), [read_small(self._owed, owed, MAX_SMALL)])
            with self._unless_full():
                self._owed.delete(owed)


def _owed_name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()}{SIGNATURE}"


def sign_chain(reader: Reader, key: SecretKey, versions: Iterable[int] | None = None) -> list[str]:
    """Sign what exists: chain.json, manifests, and the shortcuts to their versions.

    Every object is read and parsed before the first is signed. The objects that they name are not read; `verify` does
    that.

    Args:
        reader: of the chain. If it has trusted keys, only what these keys have signed is signed again.
        key: signs.
        versions: which; by default all.

    Returns:
        Names of the objects that have this signature now and did not have it before.

    Raises:
        MissingError: no such version.
        UntrustedError: there are trusted keys, and something is not signed by one of them.
        TensorDeltaError: an object breaks a rule.
        StoreError: the store failed.
    """
    if reader.trust is not None:
        reader = reader.trusting(reader.trust.unbound(key.public))
    chosen = frozenset(reader.documents.versions(unsigned=True) if versions is None else versions)
    shortcuts = (each for each in reader.documents.shortcuts(unsigned=True) if each.version in chosen)
    members: list[Member | None] = [None, *sorted(chosen), *sorted(shortcuts, key=str)]

    def signed(member: Member | None) -> tuple[str, bytes]:
        name, data = _checked(reader, member)
        return name, sign(data, key)

    found = list(ordered_map(signed, members, threads=reader.threads))
    changed = [(name, signature) for name, signature in found if reader.documents.signature(name) != signature]
    with reader.store.batch() as batch:
        for name, signature in changed:
            batch.put(signature_name(name), [signature])
    return [name for name, _ in changed]


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
