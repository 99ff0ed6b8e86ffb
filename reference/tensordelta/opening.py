"""Opening a chain, which makes it where that is asked for (SPEC.md sections 4.5, 12 and 14)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .chain import Chain
from .errors import ConflictError
from .events import Event
from .format import strict_json
from .format.documents import GRACE, MAX_GRACE, MIN_GRACE, ChainDocument
from .format.keys import SecretKey
from .format.names import CHAIN, now
from .read.packs import Sources
from .read.reader import Reader
from .read.remembered import Remembered
from .read.trust import Trust
from .stores import Store, has_strangers, open_store
from .write.keys import PublicKeyLike, SecretKeyLike, secret_key, trusted
from .write.signing import Signer


def open(
    address: str | os.PathLike[str] | Store,
    *,
    create: bool = False,
    grace: int | None = None,
    chain: str | None = None,
    memory: int | None = None,
    disk: int | None = None,
    threads: int | None = None,
    allow_sources: Iterable[str] = (),
    pack_folders: Iterable[str | os.PathLike[str]] = (),
    on_event: Callable[[Event], None] | None = None,
    store_options: Mapping[str, Any] | None = None,
    trusted_keys: Iterable[PublicKeyLike] | None = None,
    threshold: int = 1,
    allow_rollback: bool = False,
    max_age: float | None = None,
    key: SecretKeyLike | None = None,
) -> Chain:
    """Open a chain.

    Args:
        address: a folder; `hf://buckets/OWNER/NAME[/PREFIX]`; `s3://BUCKET/PREFIX`, `gs://…` or `az://…`; to read only,
            `https://HOST/PATH`; or a store of your own (see `tensordelta.stores`).
        create: make a new chain if there is none.
        grace: of a new chain, from 60 to 2^32 seconds; by default a day. For so long what a collector drops can still
            be read, and a version may take four fifths of it to publish (SPEC.md section 13). It never changes.
        chain: the id that the chain must have.
        memory: bytes that reading may use; by default four fifths of the machine's memory.
        disk: bytes that a read may write: the packs of a route, the files of a version, or an undo record; by default
            nine tenths of what the file system has free, and packs that the cache has no room for are read without it.
        threads: how many chunks are coded at once; by default $TENSORDELTA_THREADS, or all cores.
        allow_sources: schemes of public sources from which packs may be read, such as "hf".
        pack_folders: folders whose files, under any name, may be used for packs that have the same bytes.
        on_event: called with each event, in the thread that causes it; events are also logged under "tensordelta".
        store_options: options of the store at an address; see `tensordelta.stores.open_store`.
        trusted_keys: the Ed25519 public keys that must have signed what is read (SPEC.md section 14), each as 64 hex
            digits, the path of a file, or bytes. Unsigned versions are ignored, and a reader never goes back to a
            version older than one it held. The newest one that this user has held of a chain is remembered in the cache
            folder: what the store shows as the newest version may not be older, whatever folder or process reads it.
        threshold: with trusted keys, how many of them must have signed; publishing asks for one signature of its base.
        allow_rollback: with trusted keys, allow a version that is older than one held before.
        max_age: with trusted keys, the greatest age of the newest version, in seconds.
        key: an Ed25519 secret key, in the same forms; what is published is signed with it, and its signatures are
            trusted.

    Raises:
        MissingError: there is no chain, and `create` is not set.
        ConflictError: there is another chain than `chain`, or `create` is set and the place has other contents.
        UntrustedError: the chain is not signed by a trusted key (`sign` signs an existing chain); or other users can
            write to the file of a key, or to the cache folder.
        StoreError: the store failed.
        OSError: the file of a key cannot be read.
        ImportError: the address or a signature needs a package that is not installed.
        ValueError: the address is of an unknown kind, or a key is not valid.
    """
    secret = None if key is None else secret_key(key)
    trust = _trust(trusted_keys, secret, threshold=threshold, allow_rollback=allow_rollback, max_age=max_age)
    store = open_store(address, options=store_options)
    absent = create and store.size(CHAIN) is None
    signer = None if secret is None else Signer(store, secret)
    made: bytes | None = None
    if absent:
        if has_strangers(store):
            raise ConflictError(
                "is a file, and a chain is a folder" if Path(store.address).is_file() else "has contents, but no chain",
                object=store.address,
                rule="TD-STO-010",
                advice="Name an empty folder or prefix, or one that does not exist; a chain needs a place of its own.",
            )
        grace = GRACE if grace is None else grace
        if not MIN_GRACE <= grace <= MAX_GRACE:
            raise ValueError(f"a grace period of {grace} seconds is not from {MIN_GRACE} to {MAX_GRACE:,}")
        document = ChainDocument(strict_json.VERSION, chain or str(uuid.uuid4()), now(), grace)
        data = strict_json.encode(document)
        created = (signer or store).create(CHAIN, data)
        made = data if created else None  # another writer may have been faster
    sources = Sources(allow_sources, map(Path, pack_folders))
    reader = Reader(
        store,
        chain=chain,
        memory=memory,
        disk=disk,
        threads=threads,
        sources=sources,
        listener=on_event,
        trust=trust,
    )
    return Chain(reader, signer, made=made)


def _trust(
    keys: Iterable[PublicKeyLike] | None,
    secret: SecretKey | None,
    *,
    threshold: int,
    allow_rollback: bool,
    max_age: float | None,
) -> Trust | None:
    if keys is None and secret is None:
        if allow_rollback or max_age is not None or threshold != 1:
            raise ValueError(
                "`threshold`, `allow_rollback` and `max_age` go with trusted keys, without which a store is believed"
            )
        return None
    if max_age is not None and not max_age >= 0:
        raise ValueError(f"a version cannot be {max_age} seconds old")
    found = [] if keys is None else trusted(keys)
    if secret is not None:
        found.append(secret.public)
    return Trust(found, threshold=threshold, allow_rollback=allow_rollback, max_age=max_age, remembered=Remembered())
