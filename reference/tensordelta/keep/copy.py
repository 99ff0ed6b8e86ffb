"""Copies: a chain, or a range of its versions, from one store to another (SPEC.md sections 11 to 14).

Objects are copied byte by byte and proven on their way: manifests by parsing them, what they name by its digest. A
version's packs, layout, fingerprints and files are durable before its manifest appears, versions appear in order, and
latest.json comes last, so that the copy is a chain at every moment and an interrupted copy can be resumed.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from ..errors import ConflictError, IntegrityError, MissingError
from ..format.documents import MAX_SMALL, ChainDocument, parse_chain
from ..format.manifest import MAX_MANIFEST, Manifest, parse_manifest
from ..format.names import CHAIN, LATEST, SHORTCUTS, parse_shortcut_name, parse_signature_name
from ..format.signature import Message
from ..progress import phase
from ..read.listing import Member, member_name
from ..read.reader import Reader
from ..read.trust import Trust
from ..stores import Batch, Store, open_store, read_small
from ..stores.download import PARALLEL
from ..tables import Shown
from ..threads import ordered_map
from ..write.hint import encode_hint
from ..write.keys import PublicKeyLike, trusted
from .selection import Destination, NamedObject, Selected, Selection, conflict, is_same

#: Bytes of one read, reads ahead of a remote object, and bytes and objects after which versions appear.
_PART = 4 << 20
_AHEAD = 4
_GROUP = 64 << 20
_OBJECTS = 64


@dataclass(frozen=True, repr=False)
class Copied(Shown):
    """What a copy did.

    Attributes:
        chain: the chain id.
        versions: the versions asked for; all of them are in the copy now.
        supporting: versions that were copied only because these are rebuilt over them.
        shortcuts: number of shortcuts in the copy to these versions.
        left_out: names of shortcuts that were not copied: they cannot be read, disagree with their version, or lack
            packs.
        put: number of objects that were put.
        there: number of objects that were already there.
        size: bytes of the objects that were put.
        seconds: how long it took.
    """

    chain: str
    versions: Sequence[int]
    supporting: Sequence[int]
    shortcuts: int
    left_out: Sequence[str]
    put: int
    there: int
    size: int
    seconds: float


def copy(
    source: str | os.PathLike[str] | Store,
    target: str | os.PathLike[str] | Store,
    versions: Container[int] | None = None,
    *,
    quick: bool = False,
    chain: str | None = None,
    source_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    trusted_keys: Iterable[PublicKeyLike] | None = None,
    threshold: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Copied:
    """Copy a chain, or some of its versions, to another store; every object is proven on its way.

    The copy can be read by itself. If the first version asked for is a delta, a full shortcut to it is copied as well,
    or else the versions on the cheapest route to it, unless its base is in the copy already. Edges are copied if their
    packs are there, and shortcuts only between versions of the copy. Signatures are copied, pins are not. Objects that
    are in the copy already, unaltered, are skipped, so that an interrupted copy can be resumed and a repeated one
    copies what is new. Memory stays bounded, whatever the size of the objects.

    Args:
        source: the chain: an address as for `open`, or a store.
        target: where the copy goes: an empty place, or one with an earlier copy.
        versions: the versions to copy: anything that supports `in`, such as `range(10, 20)`; by default all.
        quick: compare only the sizes of objects that are in the copy already, instead of reading them.
        chain: the id that the chain must have.
        source_options, target_options: options of the stores; see `tensordelta.stores.open_store`.
        trusted_keys, threshold: the keys that must have signed what is copied; see `open`. Unsigned versions are not
            copied.
        progress: called with the bytes done, and the total; by several threads, one at a time.

    Raises:
        MissingError: there is no chain, or none of the versions, or no route leads to one; or an object is gone.
        IntegrityError: an object is not what its manifest says, twice where it came from far away.
        ConflictError: there is another chain than `chain`; or another one at `target`, something that is no chain, or a
            version of this chain with other contents.
        UntrustedError: there are trusted keys, and the chain is not signed by one of them.
        TensorDeltaError: a manifest breaks a rule.
        StoreError: a store failed. What has been copied is a chain, and the same call goes on.
        ImportError: the package that an address needs is not installed.
        ValueError: no address, or no key.
    """
    trust = None if trusted_keys is None else Trust(trusted(trusted_keys), threshold=threshold).unbound()
    reader = Reader(open_store(source, options=source_options), chain=chain, trust=trust)
    return _Copier(reader, open_store(target, options=target_options), quick, progress).run(versions)


class _Copier:
    def __init__(self, reader: Reader, target: Store, quick: bool, progress: Callable[[int, int], None] | None) -> None:
        self._reader = reader
        self._source = reader.store
        self._store = target
        self._quick = quick
        self._progress = progress
        self._lock = threading.Lock()
        self._proven: set[NamedObject] = set()
        self._put = self._there = self._size = self._done = self._total = 0

    def run(self, versions: Container[int] | None) -> Copied:
        with phase("looking at what is there"):
            return self._run(versions)

    def _run(self, versions: Container[int] | None) -> Copied:
        started = time.perf_counter()
        document = self._reader.documents.checked(CHAIN, MAX_SMALL)
        self._check_id(parse_chain(document))
        self._destination = Destination(self._store, self._reader.chain)
        self._selection = Selection(self._reader, self._destination, versions)
        wanted, chosen = self._selection.wanted, self._selection.chosen
        self._total = sum(each.size or 0 for each in {each for version in chosen for each in version.objects})
        self._create(CHAIN, document, lambda other: self._check_id(parse_chain(other)))
        with phase("copying", self._total) as self._phase:
            for group in self._groups(chosen):
                self._objects(group)
                for version in group:
                    self._commit(version)
        newest = max([*self._destination.versions, *(version.manifest.version for version in chosen)], default=None)
        if newest is not None:
            found = map(parse_shortcut_name, self._store.names(SHORTCUTS))
            shortcuts = [name for name in found if name is not None]
            self._store.put(LATEST, [encode_hint(self._reader.chain, newest, shortcuts)])
        return Copied(
            chain=self._reader.chain,
            versions=wanted,
            supporting=sorted({version.manifest.version for version in chosen}.difference(wanted)),
            shortcuts=sum(len(version.shortcuts) for version in chosen),
            left_out=sorted(self._selection.left_out),
            put=self._put,
            there=self._there,
            size=self._size,
            seconds=time.perf_counter() - started,
        )

    def _check_id(self, document: ChainDocument) -> None:
        if document.chain != self._reader.chain:
            raise ConflictError(f"is chain {document.chain}, not {self._reader.chain}", object=CHAIN, rule="TD-OBJ-010")

    @staticmethod
    def _groups(versions: Iterable[Selected]) -> Iterator[list[Selected]]:
        """Versions whose objects are put together: few enough that an interruption loses little."""
        group: list[Selected] = []
        size = count = 0
        for version in versions:
            size += sum(each.size or 0 for each in version.objects)
            count += len(version.objects)
            if group and (size > _GROUP or count > _OBJECTS):
                yield group
                group = []
                size, count = sum(each.size or 0 for each in version.objects), len(version.objects)
            group.append(version)
        if group:
            yield group

    def _objects(self, group: Iterable[Selected]) -> None:
        """Put the objects of some versions, durable and proven, unless they are there already."""
        wanted = dict.fromkeys(each for version in group for each in version.objects)
        needed = [each for each in wanted if each not in self._proven]
        with self._store.batch() as batch:
            for _ in ordered_map(partial(self._bring, batch), needed, threads=PARALLEL):
                pass
        self._proven.update(needed)

    def _bring(self, batch: Batch, wanted: NamedObject) -> None:
        if wanted.name in self._destination.named and self._is_there(wanted):
            with self._lock:
                self._there += 1
                self._step(wanted.size or 0)
            return
        tries = 2 if self._source.remote else 1
        for left in reversed(range(tries)):
            try:
                batch.put(wanted.name, self._counted(wanted))
                break
            except IntegrityError:  # it may have been altered in transit
                if not left:
                    raise
        with self._lock:
            self._put += 1

    def _is_there(self, wanted: NamedObject) -> bool:
        """True if the copy has an object already."""
        size = self._destination.sizes.get(wanted.name)
        if size is None or wanted.size not in (None, size):
            return False
        if self._quick:
            return True
        try:
            for _ in _proven_parts(self._store, wanted):
                pass
        except (IntegrityError, MissingError):
            return False
        return True

    def _counted(self, wanted: NamedObject) -> Iterator[memoryview]:
        """An object's bytes, proven and counted as progress."""
        done = 0
        try:
            for part in _proven_parts(self._source, wanted):
                yield part
                done += len(part)
                with self._lock:
                    self._step(len(part) if wanted.size is not None else 0)
        except IntegrityError:
            with self._lock:
                self._step(-done if wanted.size is not None else 0)
            raise
        with self._lock:
            self._size += done

    def _step(self, count: int) -> None:
        self._done += count
        self._phase.add(count)
        if self._progress is not None and count > 0:
            self._progress(self._done, self._total)

    def _commit(self, version: Selected) -> None:
        """Create a version's manifest, and then the shortcuts to it."""
        number = version.manifest.version
        self._member(number, version.manifest, partial(parse_manifest, version=number))
        for name, shortcut in version.shortcuts.items():
            parse = partial(parse_manifest, version=name.version, base=name.base, tag=name.tag)
            self._member(name, shortcut, parse)

    def _member(self, member: Member, manifest: Manifest, parse: Callable[[bytes], Manifest]) -> None:
        name = member_name(member)
        data = self._reader.documents.checked(name, MAX_MANIFEST)
        if parse(data) != manifest:
            raise IntegrityError("changed while the chain was copied", object=name, rule="TD-OBJ-003")

        def check(other: bytes) -> None:
            if not is_same(member, manifest, parse(other)):
                raise conflict(name)

        self._create(name, data, check)
        self._destination.named.update(each.name for each in self._selection.named_by(member, manifest))

    def _create(self, name: str, data: bytes, check: Callable[[bytes], None]) -> None:
        """Put an object's signatures and create it, unless there is one that `check` accepts."""
        if name not in self._destination.sizes:
            self._sign(name, data)
            if self._store.create(name, data):
                self._put += 1
                self._size += len(data)
                return
        try:
            other = read_small(self._store, name, MAX_MANIFEST)
        except MissingError:  # another writer removed it
            raise conflict(name) from None
        self._there += 1
        if other == data:
            self._sign(name, data)
        else:
            check(other)

    def _sign(self, name: str, data: bytes) -> None:
        """Put the signatures of an object, by whatever key."""
        for signature in self._signatures.get(Message(name, data).digest, ()):
            try:
                document = read_small(self._source, signature, MAX_SMALL)
            except MissingError:  # it was removed after the listing
                continue
            if (
                self._destination.sizes.get(signature) == len(document)
                and read_small(self._store, signature, MAX_SMALL) == document
            ):
                self._there += 1
                continue
            self._store.put(signature, [document])
            self._put += 1
            self._size += len(document)

    @cached_property
    def _signatures(self) -> Mapping[str, Sequence[str]]:
        """Names of the signatures of the chain that is copied, by the digest of what is signed."""
        found: dict[str, list[str]] = {}
        for name, size in self._selection.listed.items():
            digest = parse_signature_name(name)
            if digest is not None and size <= MAX_SMALL:
                found.setdefault(digest, []).append(name)
        return found


def _proven_parts(store: Store, wanted: NamedObject) -> Iterator[memoryview]:
    """An object's bytes; after the last part, an error if they do not have its digest.

    Raises:
        MissingError: there is no such object.
        IntegrityError: it has another size or SHA-256.
        StoreError: the store failed.
    """
    try:
        blob = store.open(wanted.name)
    except MissingError as error:
        raise MissingError(error.reason, object=wanted.name, rule=wanted.missing) from None
    with blob:
        size = blob.size
        if wanted.size not in (None, size):
            raise IntegrityError(f"{size} bytes, not {wanted.size}", object=wanted.name, rule=wanted.altered)
        digest = hashlib.sha256()
        parts = ordered_map(
            lambda at: blob.read(at, min(_PART, size - at)),
            range(0, size, _PART),
            threads=_AHEAD if store.remote and size > _PART else 1,
            cost=lambda _: _PART,
            budget=_AHEAD * _PART,
        )
        for part in parts:
            digest.update(part)
            yield part
    if digest.hexdigest() != wanted.sha256:
        raise IntegrityError(f"its SHA-256 is {digest.hexdigest()}", object=wanted.name, rule=wanted.altered)
