"""The reader's procedure: from objects under a root to a prepared update (SPEC.md sections 9 and 10).

Each step of section 9.1 is one call here: 1 `Reader.open`, 2 `plan`, 4 `manifest`, 5 `layout`, 6 `check_base`, 7 and 8
`_packs`, 9 to 11 `Preparation.decode`, and 12 is `Update.apply`. Step 3, where keys are configured, is `_verified`. A
member of a route that fails is dropped and the route planned again; the state is not touched before `apply`.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np

from . import objects, pack
from .downloads import Downloads, Wanted
from .errors import (
    ConflictError,
    IntegrityError,
    LimitError,
    MalformedError,
    MissingError,
    TensorDeltaError,
    UntrustedError,
    WrongBaseError,
)
from .events import Event, Listener, emit
from .fetch import KEPT, Sources, prove, prove_download
from .fingerprint import U64, combine, text
from .layout import MAX_LAYOUT, Layout
from .manifest import MAX_MANIFEST, Base, FileEntry, Manifest, PackEntry, parse_manifest
from .members import Members, Together
from .objects import ChainDocument, ShortcutName
from .pack import Blob, Pack
from .preparation import Allocate, Arena, Budget, Preparation, zeros
from .routes import EXACT, Edge, Held, Planner
from .signatures import signature_name
from .state import State
from .stores import Parts, Store
from .stores.cache import PackCache
from .stores.transfer import PARALLEL, part_size
from .threads import ordered_map, thread_count
from .trust import Applied, Trust
from .update import Update

T = TypeVar("T")

#: Members of routes that may fail before a read gives up (TD-RTE-009).
_MAX_FAILED = 128


def default_memory() -> int:
    """The memory budget where none is given: four fifths of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5
    except (ValueError, OSError, AttributeError):
        return 8 << 30


class EdgeFault(Exception):
    """A member of a route failed, with an error of the closed set."""

    def __init__(self, edge: Edge, fault: TensorDeltaError) -> None:
        super().__init__(str(fault))
        self.edge = edge
        self.fault = fault


class Reader:
    """Reads one chain.

    Args:
        store: where it lies.
        chain: the chain id that is expected, if the caller has pinned one.
        memory: the memory budget in bytes.
        threads: how many chunks are decoded at once.
        sources: places beside the root that may have packs.
        listener: told of events.
        cache: where packs of a store that is far away lie on this machine; by default this user's.
        trust: the keys that have to have signed what is read; None to read without signatures.

    Raises:
        MissingError: there is no chain.
        ConflictError: there is another chain than the pinned one.
        UntrustedError: it is not signed by a trusted key.
    """

    def __init__(
        self,
        store: Store,
        *,
        chain: str | None = None,
        memory: int | None = None,
        threads: int | None = None,
        sources: Sources | None = None,
        listener: Listener | None = None,
        cache: PackCache | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.store = store
        self.trust = trust
        self.memory = default_memory() if memory is None else memory
        self.threads = thread_count(threads)
        self.sources = sources or Sources()
        self.listener = listener
        self._cache = (cache or PackCache()) if store.remote else None
        self._local = threading.local()
        self.document = self._open(chain)
        self.chain = self.document.chain
        self._manifests: dict[int, Manifest] = {}
        self._layouts: dict[str, Layout] = {}
        #: What was listed last.
        self._names: tuple[list[int], list[ShortcutName]] = [], []

    # -- objects --------------------------------------------------------------------------------------------------

    def _open(self, pinned: str | None) -> ChainDocument:
        try:
            document = self._signed(objects.CHAIN, objects.MAX_SMALL, objects.parse_chain)
        except MissingError:
            raise MissingError(
                f"there is no chain at {self.store.address}",
                object=objects.CHAIN,
                rule="TD-OBJ-009",
                advice="Check the address, or publish a first version there.",
            ) from None
        if pinned is not None and document.chain != pinned:
            raise ConflictError(
                f"is chain {document.chain}, not {pinned}",
                object=objects.CHAIN,
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

    def trusting(self, trust: Trust | None, *, store: Store | None = None, cache: PackCache | None = None) -> Reader:
        """A reader of the same chain that trusts otherwise, and has verified nothing yet.

        Args:
            trust: its keys; None to read without signatures.
            store: another way to the same objects.
            cache: another place for packs.

        Raises:
            UntrustedError: the chain is not signed by a trusted key.
        """
        return Reader(
            self.store if store is None else store,
            chain=self.chain,
            memory=self.memory,
            threads=self.threads,
            sources=self.sources,
            listener=self.listener,
            cache=cache or self._cache,
            trust=trust,
        )

    def unbound(self) -> Reader:
        """A reader of the same chain for a writer's own use: it may go from any version to any other (TD-SIG-005)."""
        return self if self.trust is None else self.trusting(self.trust.unbound())

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
            return self._read(signature_name(name), objects.MAX_SMALL)
        except MissingError:
            return None

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
        start = None if after is None else objects.manifest_name(after)
        names = self._listed(objects.MANIFESTS, unsigned=unsigned, after=start)
        found = (objects.parse_manifest_name(name) for name in names)
        return sorted(version for version in found if version is not None)

    def shortcuts(self, *, unsigned: bool = False, after: int | None = None) -> list[ShortcutName]:
        """The shortcuts that are listed; where keys are configured, those that have a signature (TD-SIG-004).

        Args:
            unsigned: all shortcuts in any case.
            after: only those to versions greater than this one; a long chain is listed in part then.
        """
        start = None if after is None else objects.shortcut_name(after, None)
        names = self._listed(objects.SHORTCUTS, unsigned=unsigned, after=start)
        found = (objects.parse_shortcut_name(name) for name in names)
        return [each for each in found if each is not None and (after is None or each.version > after)]

    def newest(self) -> int | None:
        """The newest version, or None where the chain has none."""
        versions = self.versions()
        return versions[-1] if versions else None

    def manifest(self, version: int) -> Manifest:
        """A version's manifest.

        Raises:
            MissingError: no such version.
            UntrustedError: keys are configured, and none of them has signed it.
            TensorDeltaError: the manifest breaks a rule.
        """
        if version not in self._manifests:
            name = objects.manifest_name(version) if 0 <= version <= objects.MAX_VERSION else f"version {version}"
            try:
                if not 0 <= version <= objects.MAX_VERSION:
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
        name = objects.manifest_name(version)
        data = self._read(name, MAX_MANIFEST)
        return self._own(parse_manifest(data, version=version), name), data

    def shortcut(self, shortcut: ShortcutName) -> Manifest:
        """A shortcut.

        Raises:
            TensorDeltaError: it is gone, or breaks a rule.
        """
        name = objects.shortcut_name(*shortcut)
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
            name = objects.layout_name(sha256)
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
        name = objects.fingerprints_name(sha256)
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

    def file(self, entry: FileEntry) -> Blob:
        """A file that lies beside the checkpoint, proven.

        Raises:
            MissingError, IntegrityError: see SPEC.md section 4.9.
        """
        keep, label = entry.size <= KEPT, f"{entry.path} ({entry.name})"
        with self._downloads() as downloads:
            if downloads is not None:
                wanted = Wanted(entry.path, entry.sha256, entry.size)
                return prove_download(downloads, wanted, keep=keep, label=label)
        return prove(lambda: self.store.open(entry.path), sha256=entry.sha256, size=entry.size, keep=keep, label=label)

    # -- routes and updates ---------------------------------------------------------------------------------------

    def held(self, state: State, sums: U64) -> Held | None:
        """The version that a state is, by its layout and fingerprint.

        None for the empty state, and for one that is no version of the chain: no edge starts from either, so that the
        route starts from nothing (SPEC.md section 10). A state that remembers its version is held as that version, and
        edges from it fail if it is not.

        Args:
            state: the state.
            sums: its tensors' fingerprints.
        """
        fingerprint = text(combine(sums))
        own = state.version if state.chain == self.chain and state.known else None
        if own is not None:
            digest = self._digest(state, own, fingerprint)
            if digest is not None:
                return Held(own, fingerprint, digest)
        if not len(state.layout):
            return None
        versions = self.versions()
        for version in reversed(versions):
            digest = self._digest(state, version, fingerprint)
            if digest is not None:
                return Held(version, fingerprint, digest)
        for base in self._bases(versions):
            try:
                if base.fingerprint == fingerprint and self.layout(base.layout) == state.layout:
                    return Held(base.version, fingerprint, base.layout)
            except TensorDeltaError:
                continue
        return None if own is None else Held(own, fingerprint)

    def _digest(self, state: State, version: int, fingerprint: str) -> str | None:
        """The digest of a version's layout, where the version is this state."""
        try:
            own = self.manifest(version)
            return own.layout if own.fingerprint == fingerprint and self.layout(own.layout) == state.layout else None
        except TensorDeltaError:
            return None

    def _bases(self, versions: Sequence[int]) -> Iterator[Base]:
        """The bases of edges that start from versions whose own manifests are gone (SPEC.md section 13)."""
        listed = frozenset(versions)
        reads: list[Callable[[], Manifest]] = [partial(self.manifest, version) for version in reversed(versions)]
        reads += (
            partial(self.shortcut, shortcut)
            for shortcut in self.shortcuts()
            if shortcut.base is not None and shortcut.base not in listed and shortcut.version in listed
        )
        for read in reads:
            try:
                base = read().base
            except TensorDeltaError:
                continue
            if base is not None and base.version not in listed:
                yield base

    def members(
        self, versions: Iterable[int] | None = None, shortcuts: Iterable[ShortcutName] | None = None
    ) -> Members:
        """The members of a listing, by default the present one, to be read as far as they are needed."""
        together: Together | None = None
        if self.store.remote:
            together = partial(ordered_map, lambda read: read(), threads=PARALLEL)
        return Members(
            self.versions() if versions is None else versions,
            self.shortcuts() if shortcuts is None else shortcuts,
            self.manifest,
            self.shortcut,
            together,
        )

    def planner(self, held: Held | None = None) -> Planner:
        """A planner over the present listing.

        Args:
            held: what the reader has, if it is on its way to a newer version. Of a long chain that was listed before,
                only what leads to versions after the held one is listed anew then: a follower asks for what is new.
        """
        versions, shortcuts = self._names
        if held is not None and len(versions) + len(shortcuts) > EXACT:
            after = held.version
            versions = [version for version in versions if version <= after] + self.versions(after=after)
            shortcuts = [each for each in shortcuts if each.version <= after] + self.shortcuts(after=after)
        else:
            versions, shortcuts = self.versions(), self.shortcuts()
        self._names = versions, shortcuts
        return Planner(self.members(versions, shortcuts))

    def prepare(
        self, state: State, version: int | None = None, *, allocate: Allocate = zeros, arena: Arena | None = None
    ) -> Update:
        """Prepare the update that takes a state to a version; the state is only read.

        Args:
            state: what is held; the empty state for nothing.
            version: the target, by default the newest.
            allocate: gives memory for tensors that are built anew.
            arena: gives memory for the decoded words of others.

        Raises:
            MissingError: no such version, or no route to it.
            WrongBaseError: the state is not the version that it remembers to be, or was updated meanwhile.
            UntrustedError: keys are configured, and the version is not signed, or not one to go to (see `admit`).
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        started = time.perf_counter()
        target = self.target(version)
        self.admit(target, state)
        generation = state.generation
        sums = state.sums(threads=self.threads)
        held = self.held(state, sums)
        if held is not None and self._digest(state, target, text(combine(sums))) is not None:
            held = Held(target, held.fingerprint)
        elif held is not None and held.version == target:
            # Remembered under the target's number, but not what is there: no edge to the target starts from it.
            held = None

        def follow(route: Sequence[Edge]) -> Preparation:
            preparation = Preparation(
                state, sums, threads=self.threads, budget=self._budget(), allocate=allocate, arena=arena
            )
            try:
                self._follow(preparation, route, held)
            except EdgeFault:
                _check_still(state, generation, target)  # then it is no fault of the edge's
                raise
            return preparation

        route, preparation = self.along(target, held, follow)
        update = self._update(preparation, target, route, started)
        _check_still(state, generation, target)
        return update

    def prepare_edge(self, state: State, edge: Edge) -> Update:
        """Prepare the update over one member, whatever the cheapest route is; for verifiers.

        Raises:
            TensorDeltaError: the member's error.
        """
        started = time.perf_counter()
        sums = state.sums(threads=self.threads)
        preparation = Preparation(state, sums, threads=self.threads, budget=self._budget())
        self._hop(preparation, edge, None)
        return self._update(preparation, edge.manifest.version, [edge], started)

    def _update(self, preparation: Preparation, target: int, route: Sequence[Edge], started: float) -> Update:
        seconds = time.perf_counter() - started
        size = sum(edge.manifest.size for edge in route)
        emit(Event("prepared", target, size, seconds), self.listener)
        return preparation.finish(
            version=target,
            chain=self.chain,
            layout_digest=(route[-1].manifest if route else self.manifest(target)).layout,
            route=[edge.name for edge in route],
            size=size,
            seconds=seconds,
            on_applied=self._applied,
        )

    def _applied(self, update: Update, took: float) -> None:
        self.remember(update.version)
        emit(Event("applied", update.version, update.size, took), self.listener)

    def target(self, version: int | None) -> int:
        """The version wanted: the one given, else the newest.

        Raises:
            MissingError: the chain has none.
            UntrustedError: the newest is older than it may be (TD-SIG-008).
        """
        if version is not None:
            if not isinstance(version, int):
                raise TypeError(f"a version is an int, not {version!r}")
            return version
        newest = self.newest()
        if newest is None:
            raise MissingError(
                "the chain has no version yet",
                object=objects.MANIFESTS,
                rule="TD-OBJ-008",
                advice="Publish one, or wait.",
            )
        self.check_age(newest)
        return newest

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

    def along(self, target: int, held: Held | None, follow: Callable[[Sequence[Edge]], T]) -> tuple[Sequence[Edge], T]:
        """Follow the cheapest route to a version; where a member fails, the next cheapest without it.

        Args:
            target: the version wanted.
            held: what the reader has, if anything.
            follow: does the work along a route; raises `EdgeFault` for the member that failed.

        Raises:
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        dropped: dict[str, TensorDeltaError] = {}
        followed = 0
        planner = self.planner(held if held is not None and held.version < target else None)
        while True:
            try:
                route = planner.plan(target, held=held, dropped=dropped)
            except TensorDeltaError:
                again = self._again(planner)
                if again is planner:
                    raise
                planner = again
                continue
            try:
                return route, follow(route)
            except EdgeFault as fault:
                dropped[fault.edge.name] = fault.fault
                followed += 1
                if followed == _MAX_FAILED:
                    raise next(iter(dropped.values())) from None
                if isinstance(fault.fault, MissingError):
                    planner = self._again(planner)

    def _again(self, planner: Planner) -> Planner:
        """A planner over a new listing, where that differs: a collector may have been there (SPEC.md section 13)."""
        fresh = self.planner()
        return planner if fresh.members.listed == planner.members.listed else fresh

    def _follow(self, preparation: Preparation, route: Sequence[Edge], held: Held | None) -> None:
        digest = None if held is None else held.layout
        with self.ahead((edge.manifest.version, entry) for edge in route for entry in edge.manifest.packs):
            for edge in route:
                try:
                    digest = self._hop(preparation, edge, digest)
                except TensorDeltaError as fault:
                    raise EdgeFault(edge, fault) from None

    def _hop(self, preparation: Preparation, edge: Edge, digest: str | None) -> str:
        """Steps 5 to 11 for one edge; gives the digest of its layout."""
        started = time.perf_counter()
        manifest = edge.manifest
        layout = self.layout(manifest.layout)
        base = manifest.base
        if base is not None:
            base_layout = None if base.layout == digest else self.layout(base.layout)
            preparation.check_base(base, base_layout, object=edge.name)
        packs = self.packs(manifest, layout, object=edge.name)
        emit(Event("fetched", manifest.version, manifest.size, time.perf_counter() - started), self.listener)
        preparation.fit(layout, full=base is None)
        preparation.decode(packs, manifest, object=edge.name)
        return manifest.layout

    def packs(self, manifest: Manifest, layout: Layout, *, object: str) -> list[tuple[Pack, Blob]]:
        """A manifest's packs: fetched, proven, their tables checked."""
        self.check_ranges(manifest, layout, object=object)
        packs: list[tuple[Pack, Blob]] = []
        room = KEPT
        for entry in manifest.packs:
            keep = entry.size <= room
            room -= entry.size if keep else 0
            packs.append(self.pack(entry, manifest, layout, keep=keep))
        pack.check_overlap([each for each, _ in packs], layout, object=object)
        return packs

    def check_ranges(self, manifest: Manifest, layout: Layout, *, object: str) -> None:
        """Check that no pack entry passes the end of the layout.

        Raises:
            MalformedError: one does.
        """
        for entry in manifest.packs:
            if entry.tensors[1] > len(layout):
                raise MalformedError(
                    f"`tensors` is {list(entry.tensors)}, the layout has {len(layout)}",
                    object=object,
                    rule="TD-MAN-010",
                )

    def pack(self, entry: PackEntry, manifest: Manifest, layout: Layout, *, keep: bool) -> tuple[Pack, Blob]:
        """One pack, fetched, proven, its table checked."""
        with self._downloads() as downloads:
            blob = self.sources.fetch(entry, self.store, keep=keep, downloads=downloads)
        return pack.read_pack(blob, entry, layout, manifest), blob

    # -- downloads ------------------------------------------------------------------------------------------------

    @contextmanager
    def ahead(self, entries: Iterable[tuple[int, PackEntry]]) -> Iterator[None]:
        """Have packs of a far store on their way while the block runs; whatever this thread reads comes from them.

        Args:
            entries: packs in the order in which they will be read, each with the version that needs it.
        """
        if self._cache is None:
            yield
            return
        wanted = [
            Wanted(entry.path, entry.sha256, entry.size, version)
            for version, entry in entries
            if entry.path is not None and not self.sources.has_candidate(entry)
        ]
        outer = getattr(self._local, "downloads", None)
        part = part_size(self.memory)
        with Downloads(self.store, self._cache, wanted, part=part, listener=self.listener) as downloads:
            self._local.downloads = downloads
            try:
                yield
            finally:
                self._local.downloads = outer

    def keep(self, sha256: str, parts: Parts) -> None:
        """Keep a pack that was put into a far store, so that it need not come back."""
        if self._cache is not None:
            self._cache.put(sha256, parts)

    @contextmanager
    def _downloads(self) -> Iterator[Downloads | None]:
        """This thread's downloads; None where the store is near."""
        if self._cache is None or getattr(self._local, "downloads", None) is not None:
            yield getattr(self._local, "downloads", None)
            return
        with self.ahead(()):
            yield self._local.downloads

    def _budget(self) -> Budget:
        """The memory budget, less what is in flight from a far store."""
        return Budget(self.memory - (0 if self._cache is None else PARALLEL * part_size(self.memory)))

    def load(self, version: int | None = None, *, allocate: Allocate = zeros) -> State:
        """A version's state, from nothing, in memory of its own."""
        state = State.empty()
        self.prepare(state, version, allocate=allocate).apply()
        return state


def _check_still(state: State, generation: int, target: int) -> None:
    """Check that a state is still the one that an update was prepared from.

    Raises:
        WrongBaseError: another update was applied to it, or undone.
    """
    with state.lock:  # one that is being applied counts as well
        if state.generation == generation:
            return
    raise WrongBaseError(
        "the state was updated while this update was prepared",
        object=objects.manifest_name(target),
        rule="TD-APP-001",
        advice="Prepare the update again from the state as it is now.",
    )
