"""Copies: a chain, or a range of its versions, from one store to another (SPEC.md sections 11 to 14).

Objects go as they are. Each is proven on its way: what a manifest names by its digest, manifests by being parsed. A
version's packs, layout, fingerprints and files are durable before its manifest appears, versions appear in order, and
the hint comes last, so that the copy is a chain at every moment and a copy that broke off is gone on with.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from . import ijson, objects
from .errors import ConflictError, IntegrityError, MissingError, TensorDeltaError
from .keys import PublicKeyLike, trusted
from .manifest import MAX_MANIFEST, Base, Manifest, parse_manifest
from .members import Member, Members, member_name
from .objects import ChainDocument, LatestDocument, ShortcutName
from .reader import Reader
from .routes import Edge, Planner, check_base
from .signatures import signature_name
from .stores import Batch, Store, has_strangers, open_store
from .stores.transfer import PARALLEL
from .tables import Table, bytes_text
from .threads import ordered_map
from .trust import Trust

#: Bytes of one read, reads ahead of an object that is far away, and bytes and objects after which versions appear.
_PART = 4 << 20
_AHEAD = 4
_GROUP = 64 << 20
_OBJECTS = 64


@dataclass(frozen=True, repr=False)
class Copied:
    """What a copy did.

    Attributes:
        chain: the chain id.
        versions: the versions asked for; all of them are in the copy now.
        supporting: versions that were copied only because these are rebuilt over them.
        shortcuts: number of shortcuts in the copy to these versions.
        left_out: names of shortcuts that were not copied: they cannot be read, disagree with their version, or their
            packs are gone.
        put: number of objects that were put.
        there: number of objects that were there already.
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

    def facts(self) -> dict[str, object]:
        """The fields that `--json` prints."""
        return {
            "chain": self.chain,
            "versions": list(self.versions),
            "supporting": list(self.supporting),
            "shortcuts": self.shortcuts,
            "left_out": list(self.left_out),
            "put": self.put,
            "there": self.there,
            "size": self.size,
            "seconds": self.seconds,
        }

    def table(self) -> Table:
        """The outcome as a table."""
        ends = " to ".join(map(str, sorted({*self.versions[:1], *self.versions[-1:]})))
        rows = [
            ["versions", f"{len(self.versions):,}" + (f" ({ends})" if ends else "")],
            *([["supporting", ", ".join(map(str, self.supporting))]] if self.supporting else []),
            ["shortcuts", f"{self.shortcuts:,}"],
            *([["left out", ", ".join(self.left_out)]] if self.left_out else []),
            ["put", f"{self.put:,} objects, {bytes_text(self.size)}"],
            ["there already", f"{self.there:,} objects"],
            ["took", f"{self.seconds:.2f} s"],
        ]
        return Table(f"copied chain {self.chain}", ["<", "<"], rows)

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()


def copy(
    source: str | os.PathLike[str] | Store,
    target: str | os.PathLike[str] | Store,
    versions: Container[int] | None = None,
    *,
    quick: bool = False,
    source_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
    trusted_keys: Iterable[PublicKeyLike] | Mapping[str, PublicKeyLike] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Copied:
    """Copy a chain, or some of its versions, to another store; every object is proven on its way.

    The copy can be read by itself. Where the first version asked for is a delta, a full shortcut to it comes along, or
    else the versions on the cheapest route to it do, unless its base is in the copy already. Of the edges of a version,
    those come along whose packs are there, and shortcuts only between versions of the copy. Signatures come along, pins
    do not. What is in the copy already and right is passed over, so that a copy that broke off is gone on with, and one
    that is repeated brings what is new. Memory stays bounded, whatever the size of the objects.

    Args:
        source: where the chain lies: an address as for `open`, or a store.
        target: where the copy goes: an empty place, or one with an earlier copy.
        versions: which: anything that `in` works with, such as `range(10, 20)`; by default all.
        quick: take an object of a version that is in the copy already for right if its size is; else it is read.
        source_options, target_options: options of the stores; see `tensordelta.stores.open_store`.
        trusted_keys: the keys that have to have signed what is copied; see `open`. What is not signed stays behind.
        progress: called with the bytes done, and of all; never by two threads at once.

    Raises:
        MissingError: there is no chain, or none of the versions, or no route leads to one; or an object is gone.
        IntegrityError: an object is not what its manifest says, twice where it came from far away.
        ConflictError: there is another chain at `target`, something that is no chain, or a version of this chain with
            other contents.
        UntrustedError: there are trusted keys, and the chain is not signed by one of them.
        TensorDeltaError: a manifest breaks a rule.
        StoreError: a store failed. What has been copied is a chain, and the same call goes on.
        ImportError: the package that an address needs is not installed.
        ValueError: no address, or no key.
    """
    trust = None if trusted_keys is None else Trust(trusted(trusted_keys)).unbound()
    reader = Reader(open_store(source, options=source_options), trust=trust)
    return _Copier(reader, open_store(target, options=target_options), quick, progress).run(versions)


class _Object(NamedTuple):
    """An object that a manifest names by its digest.

    Attributes:
        size: its bytes, where the manifest tells.
        altered, missing: the rules that are broken where it is another, or gone.
    """

    name: str
    sha256: str
    size: int | None
    altered: str
    missing: str


class _Version(NamedTuple):
    """A version to copy: its own manifest, shortcuts to it by name, and the objects that they name."""

    manifest: Manifest
    shortcuts: Mapping[ShortcutName, Manifest]
    objects: Sequence[_Object]


def _is_whole(manifest: Manifest, listed: Container[str]) -> bool:
    """True where the packs of an edge are listed, but for those that lie elsewhere."""
    return all(pack.path is None or pack.path in listed for pack in manifest.packs)


def _route(members: Members, version: int, listed: Container[str]) -> Sequence[Edge]:
    """The cheapest route from nothing whose packs are listed.

    Raises:
        TensorDeltaError: there is none.
    """
    dropped: dict[str, TensorDeltaError] = {}
    while True:
        route = Planner(members).plan(version, dropped=dropped)
        gone = {
            edge.name: MissingError("packs of it are gone", object=edge.name, rule="TD-MAN-014")
            for edge in route
            if not _is_whole(edge.manifest, listed)
        }
        if not gone:
            return route
        dropped |= gone


class _Target:
    """What there is of the copy.

    Args:
        store: where it lies.
        chain: the chain that is to be there.

    Attributes:
        sizes: bytes of each object.

    Raises:
        ConflictError: something else is there.
    """

    def __init__(self, store: Store, chain: str) -> None:
        self.store = store
        self.sizes: dict[str, int] = {}
        self.reader: Reader | None = None
        self._sound: dict[int, bool] = {}
        if store.size(objects.CHAIN) is not None:
            self.reader = Reader(store, chain=chain)
            self.sizes = {entry.name: entry.size for entry in store.entries("")}
        elif has_strangers(store):
            raise ConflictError(
                "has contents, but no chain",
                object=store.address,
                rule="TD-STO-010",
                advice="Name an empty folder or prefix, or one that does not exist; a chain has a place of its own.",
            )

    @cached_property
    def _members(self) -> Members:
        assert self.reader is not None
        return self.reader.members(
            self.versions, (name for name in map(objects.parse_shortcut_name, self.sizes) if name)
        )

    @property
    def versions(self) -> list[int]:
        """The versions that are there, ascending."""
        found = map(objects.parse_manifest_name, self.sizes)
        return sorted(version for version in found if version is not None)

    def edge(self, member: Member) -> Manifest | None:
        """A version's manifest, or a shortcut; None where there is none.

        Raises:
            TensorDeltaError: it breaks a rule.
        """
        if self.reader is None or member_name(member) not in self.sizes:
            return None
        return self.reader.shortcut(member) if isinstance(member, ShortcutName) else self.reader.manifest(member)

    def is_base(self, base: Base) -> bool:
        """True where a delta's base is there, and can be rebuilt.

        Raises:
            ConflictError: the version is there, and is another.
        """
        own = self.edge(base.version)
        if own is None:
            return False
        if (own.layout, own.fingerprint) != (base.layout, base.fingerprint):
            raise _conflict(objects.manifest_name(base.version))
        if base.version not in self._sound:
            try:
                self._sound[base.version] = bool(_route(self._members, base.version, self.sizes))
            except TensorDeltaError:
                self._sound[base.version] = False
        return self._sound[base.version]


class _Copier:
    def __init__(self, reader: Reader, target: Store, quick: bool, progress: Callable[[int, int], None] | None) -> None:
        self._reader = reader
        self._source = reader.store
        self._store = target
        self._quick = quick
        self._progress = progress
        self._lock = threading.Lock()
        self._listed: dict[str, int] = {}
        self._named: set[str] = set()  # what manifests of the copy name, so that no collector takes it (TD-RET-005)
        self._proven: set[_Object] = set()
        self._left_out: list[str] = []
        self._put = self._there = self._size = self._done = self._total = 0

    def run(self, versions: Container[int] | None) -> Copied:
        started = time.perf_counter()
        document = self._reader.checked(objects.CHAIN, objects.MAX_SMALL)
        self._check_id(objects.parse_chain(document))
        self._target = _Target(self._store, self._reader.chain)
        wanted, chosen = self._choose(versions)
        self._total = sum(each.size or 0 for each in {each for version in chosen for each in version.objects})
        self._create(objects.CHAIN, document, lambda other: self._check_id(objects.parse_chain(other)))
        for group in self._groups(chosen):
            self._objects(group)
            for version in group:
                self._commit(version)
        newest = max([*self._target.versions, *(version.manifest.version for version in chosen)], default=None)
        if newest is not None:
            hint = ijson.encode(LatestDocument(ijson.VERSION, self._reader.chain, newest))
            self._store.put(objects.LATEST, [hint])
        return Copied(
            chain=self._reader.chain,
            versions=wanted,
            supporting=sorted({version.manifest.version for version in chosen}.difference(wanted)),
            shortcuts=sum(len(version.shortcuts) for version in chosen),
            left_out=sorted(self._left_out),
            put=self._put,
            there=self._there,
            size=self._size,
            seconds=time.perf_counter() - started,
        )

    def _check_id(self, document: ChainDocument) -> None:
        if document.chain != self._reader.chain:
            raise ConflictError(
                f"is chain {document.chain}, not {self._reader.chain}", object=objects.CHAIN, rule="TD-OBJ-010"
            )

    # -- what is copied -------------------------------------------------------------------------------------------

    def _choose(self, versions: Container[int] | None) -> tuple[list[int], list[_Version]]:
        """The versions asked for, and all that are copied, ascending."""
        listed, shortcuts = self._reader.versions(), self._reader.shortcuts()
        self._listed = {entry.name: entry.size for entry in self._source.entries("")}
        wanted = [version for version in listed if versions is None or version in versions]
        if not wanted and versions is not None:
            raise MissingError("none of the versions asked for exists", object=objects.MANIFESTS, rule="TD-OBJ-008")
        members = self._reader.members(listed, shortcuts)
        members.read(member for version in wanted for member in members.leading_to(version))
        stays: set[int] = set()
        for version in wanted:
            members.own(version)
            if self._is_reached(version, members, stays):
                stays.add(version)
            else:
                stays.update(edge.manifest.version for edge in _route(members, version, self._listed))
        members.read(member for version in sorted(stays) for member in members.leading_to(version))
        return wanted, [self._version(version, members, stays, versions is None) for version in sorted(stays)]

    def _is_reached(self, version: int, members: Members, stays: Container[int]) -> bool:
        """True where an edge leads to a version from nothing, or from one that is in the copy."""
        for member in members.leading_to(version):
            manifest = members.edge(member)
            if manifest is None or not _is_whole(manifest, self._listed):
                continue
            if manifest.base is None:
                return True
            if manifest.base.version in stays:
                check_base(manifest, members, object=member_name(member))
                return True
            if self._target.is_base(manifest.base):
                return True
        return False

    def _version(self, version: int, members: Members, stays: Container[int], everything: bool) -> _Version:
        own = members.own(version)
        self._compare(version, own)
        shortcuts: dict[ShortcutName, Manifest] = {}
        for member in members.leading_to(version):
            if not isinstance(member, ShortcutName):
                continue
            if not (everything or member.base is None or member.base in stays):
                continue
            shortcut = members.edge(member)
            if shortcut is None or not _is_whole(shortcut, self._listed):
                self._left_out.append(member_name(member))
            else:
                shortcuts[member] = shortcut
                self._compare(member, shortcut)
        named = [*self._named_by(version, own)]
        for member, shortcut in shortcuts.items():
            named += self._named_by(member, shortcut)
        return _Version(own, shortcuts, list(dict.fromkeys(named)))

    def _compare(self, member: Member, manifest: Manifest) -> None:
        """Compare a manifest or shortcut with what the copy has under its name.

        Raises:
            ConflictError: that is another.
        """
        there = self._target.edge(member)
        if there is None:
            return
        if not _is_same(member, manifest, there):
            raise _conflict(member_name(member))
        if there == manifest:
            self._named.update(each.name for each in self._named_by(member, manifest))

    def _named_by(self, member: Member, manifest: Manifest) -> Iterator[_Object]:
        """What a manifest or shortcut names by its digest under the root; packs only where all of them are there."""
        layout = manifest.layout
        yield _Object(objects.layout_name(layout), layout, None, "TD-LAY-008", "TD-LAY-009")
        sums = manifest.tensor_fingerprints
        if isinstance(sums, str):
            yield _Object(objects.fingerprints_name(sums), sums, None, "TD-FPR-001", "TD-FPR-010")
        if _is_whole(manifest, self._listed):
            for pack in manifest.packs:
                if pack.path is not None:
                    yield _Object(pack.path, pack.sha256, pack.size, "TD-MAN-013", "TD-MAN-014")
        for file in () if isinstance(member, ShortcutName) else manifest.files:
            yield _Object(file.path, file.sha256, file.size, "TD-MAN-022", "TD-MAN-029")

    @staticmethod
    def _groups(versions: Iterable[_Version]) -> Iterator[list[_Version]]:
        """Versions whose objects are put together: few enough that little is lost where the copy breaks off."""
        group: list[_Version] = []
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

    # -- objects --------------------------------------------------------------------------------------------------

    def _objects(self, group: Iterable[_Version]) -> None:
        """Have the objects of some versions in the copy, durable and proven."""
        wanted = dict.fromkeys(each for version in group for each in version.objects)
        needed = [each for each in wanted if each not in self._proven]
        with self._store.batch() as batch:
            for _ in ordered_map(partial(self._bring, batch), needed, threads=PARALLEL):
                pass
        self._proven.update(needed)

    def _bring(self, batch: Batch, wanted: _Object) -> None:
        if wanted.name in self._named and self._is_there(wanted):
            with self._lock:
                self._there += 1
                self._step(wanted.size or 0)
            return
        tries = 2 if self._source.remote else 1
        for left in reversed(range(tries)):
            try:
                batch.put(wanted.name, self._counted(wanted))
                break
            except IntegrityError:  # it may have been altered on its way
                if not left:
                    raise
        with self._lock:
            self._put += 1

    def _is_there(self, wanted: _Object) -> bool:
        """True where the copy has an object already."""
        size = self._target.sizes.get(wanted.name)
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

    def _counted(self, wanted: _Object) -> Iterator[memoryview]:
        """An object's bytes, proven, counted, and told as progress."""
        done = 0
        try:
            for part in _proven_parts(self._source, wanted):
                yield part
                done += len(part)
                with self._lock:
                    self._step(len(part) if wanted.size is not None else 0)
        except IntegrityError:
            with self._lock:
                self._done -= done if wanted.size is not None else 0
            raise
        with self._lock:
            self._size += done

    def _step(self, count: int) -> None:
        self._done += count
        if self._progress is not None and count:
            self._progress(self._done, self._total)

    # -- commits --------------------------------------------------------------------------------------------------

    def _commit(self, version: _Version) -> None:
        """Have a version's manifest in the copy, and then the shortcuts to it."""
        number = version.manifest.version
        self._member(number, version.manifest, partial(parse_manifest, version=number))
        for name, shortcut in version.shortcuts.items():
            parse = partial(parse_manifest, version=name.version, base=name.base, tag=name.tag)
            self._member(name, shortcut, parse)

    def _member(self, member: Member, manifest: Manifest, parse: Callable[[bytes], Manifest]) -> None:
        name = member_name(member)
        data = self._reader.checked(name, MAX_MANIFEST)
        if parse(data) != manifest:
            raise IntegrityError("changed while the chain was copied", object=name, rule="TD-OBJ-003")

        def check(other: bytes) -> None:
            if not _is_same(member, manifest, parse(other)):
                raise _conflict(name)

        self._create(name, data, check)
        self._named.update(each.name for each in self._named_by(member, manifest))

    def _create(self, name: str, data: bytes, check: Callable[[bytes], None]) -> None:
        """Create an object and put its signature, unless there is one that `check` accepts."""
        if name not in self._target.sizes and self._store.create(name, data):
            self._put += 1
            self._size += len(data)
        else:
            other = self._store.read(name)
            self._there += 1
            if other != data:
                check(other)
                return
        self._sign(name)

    def _sign(self, name: str) -> None:
        """Have an object's signature in the copy, where it has one."""
        name = signature_name(name)
        if name not in self._listed:
            return
        signature = self._source.read(name)
        if name in self._target.sizes and self._store.read(name) == signature:
            self._there += 1
            return
        self._store.put(name, [signature])
        self._put += 1
        self._size += len(signature)


def _is_same(member: Member, mine: Manifest, other: Manifest) -> bool:
    """True where two manifests, or shortcuts, are the same to whoever reads them (SPEC.md section 11.2)."""
    if isinstance(member, ShortcutName):
        return (mine.layout, mine.fingerprint, mine.base) == (other.layout, other.fingerprint, other.base)
    return mine.same_version(other)


def _proven_parts(store: Store, wanted: _Object) -> Iterator[memoryview]:
    """An object's bytes, which end with an error where they are not those of its digest.

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


def _conflict(name: str) -> ConflictError:
    return ConflictError(
        "is in the copy already, with other contents",
        object=name,
        rule="TD-WRT-006",
        advice="Somebody else has written to the copy: choose another place for it.",
    )
