"""The reader's procedure: from objects under a root to a prepared update (SPEC.md sections 9 and 10).

Each step of section 9.1 is one call here: 1 `Reader.open`, 2 `plan`, 4 `manifest`, 5 `layout`, 6 `check_base`, 7 and 8
`_packs`, 9 to 11 `Preparation.decode`, and 12 is `Update.apply`. Step 3, signatures, comes with keys. A member of a
route that fails is dropped and the route planned again; the state is not touched before `apply`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from . import objects, pack
from .errors import (
    ConflictError,
    IntegrityError,
    LimitError,
    MalformedError,
    MissingError,
    TensorDeltaError,
    WrongBaseError,
)
from .events import Event, Listener, emit
from .fetch import KEPT, Sources, prove
from .fingerprint import U64, combine, text
from .layout import MAX_LAYOUT, Layout
from .manifest import MAX_MANIFEST, Base, FileEntry, Manifest, PackEntry, parse_manifest
from .objects import ChainDocument, ShortcutName
from .pack import Blob, Pack
from .preparation import Allocate, Arena, Budget, Preparation, zeros
from .routes import Edge, Held, Planner
from .state import State
from .store import Store
from .threads import thread_count
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

    Raises:
        MissingError: there is no chain.
        ConflictError: there is another chain than the pinned one.
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
    ) -> None:
        self.store = store
        self.memory = default_memory() if memory is None else memory
        self.threads = thread_count(threads)
        self.sources = sources or Sources()
        self.listener = listener
        self.document = self._open(chain)
        self.chain = self.document.chain
        self._manifests: dict[int, Manifest] = {}
        self._layouts: dict[str, Layout] = {}

    # -- objects --------------------------------------------------------------------------------------------------

    def _open(self, pinned: str | None) -> ChainDocument:
        try:
            data = self._read(objects.CHAIN, objects.MAX_SMALL)
        except MissingError:
            raise MissingError(
                f"there is no chain at {self.store.address}",
                object=objects.CHAIN,
                rule="TD-OBJ-009",
                advice="Check the address, or publish a first version there.",
            ) from None
        document = objects.parse_chain(data)
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
        """
        self._open(self.chain)

    def _read(self, name: str, limit: int) -> bytes:
        size = self.store.size(name)
        if size is not None and size > limit:
            raise LimitError(f"{size} bytes, more than {limit}", object=name, rule="TD-LIM-004")
        return self.store.read(name)

    def versions(self) -> list[int]:
        """The versions that exist, ascending."""
        found = (objects.parse_manifest_name(name) for name in self.store.names(objects.MANIFESTS))
        return sorted(version for version in found if version is not None)

    def shortcuts(self) -> list[ShortcutName]:
        """The shortcuts that are listed."""
        found = (objects.parse_shortcut_name(name) for name in self.store.names(objects.SHORTCUTS))
        return [shortcut for shortcut in found if shortcut is not None]

    def newest(self) -> int | None:
        """The newest version, or None where the chain has none."""
        versions = self.versions()
        return versions[-1] if versions else None

    def manifest(self, version: int) -> Manifest:
        """A version's manifest.

        Raises:
            MissingError: no such version.
            TensorDeltaError: the manifest breaks a rule.
        """
        if version not in self._manifests:
            name = objects.manifest_name(version) if 0 <= version <= objects.MAX_VERSION else f"version {version}"
            try:
                data = self._read(name, MAX_MANIFEST) if 0 <= version <= objects.MAX_VERSION else None
            except MissingError:
                data = None
            if data is None:
                raise MissingError(f"no version {version}", object=name, rule="TD-OBJ-008")
            self._manifests[version] = self._own(parse_manifest(data, version=version), name)
        return self._manifests[version]

    def shortcut(self, shortcut: ShortcutName) -> Manifest:
        """A shortcut.

        Raises:
            TensorDeltaError: it is gone, or breaks a rule.
        """
        name = objects.shortcut_name(*shortcut)
        data = self._read(name, MAX_MANIFEST)
        parsed = parse_manifest(data, version=shortcut.version, base=shortcut.base, tag=shortcut.tag)
        return self._own(parsed, name)

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
                data = self._read(name, MAX_LAYOUT)
            except MissingError as error:
                raise MissingError(error.reason, object=name, rule="TD-LAY-009") from None
            self._layouts[sha256] = Layout.parse(data, sha256=sha256)
        return self._layouts[sha256]

    def tensor_fingerprints(self, manifest: Manifest) -> U64 | None:
        """The sums of a version's tensors, uint64 in layout order; None where its manifest names none.

        Raises:
            MissingError, IntegrityError, MalformedError: see SPEC.md section 4.12.
        """
        if not isinstance(manifest.tensor_fingerprints, str):
            return None
        name = objects.fingerprints_name(manifest.tensor_fingerprints)
        tensors = len(self.layout(manifest.layout))
        size = self.store.size(name)
        if size is not None and size != 8 * tensors:
            raise MalformedError(f"{size} bytes for {tensors} tensors", object=name, rule="TD-FPR-002")
        data = self.store.read(name)
        if hashlib.sha256(data).hexdigest() != manifest.tensor_fingerprints:
            raise IntegrityError("SHA-256 differs from its name", object=name, rule="TD-FPR-001")
        return np.frombuffer(data, "<u8").astype(np.uint64)

    def file(self, entry: FileEntry) -> Blob:
        """A file that lies beside the checkpoint, proven.

        Raises:
            MissingError, IntegrityError: see SPEC.md section 4.9.
        """
        return prove(
            lambda: self.store.open(entry.path),
            sha256=entry.sha256,
            size=entry.size,
            keep=entry.size <= KEPT,
            label=f"{entry.path} ({entry.name})",
        )

    # -- routes and updates ---------------------------------------------------------------------------------------

    def held(self, state: State, sums: U64) -> Held | None:
        """The version that a state is, by its layout and fingerprint; None for the empty state.

        Args:
            state: the state.
            sums: its tensors' fingerprints.

        Raises:
            WrongBaseError: no version of the chain has this state.
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
        if own is not None:
            return Held(own, fingerprint)
        raise WrongBaseError(
            f"no version of the chain has this state (fingerprint {fingerprint})", object="the state", rule="TD-RDR-003"
        )

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

    def planner(self) -> Planner:
        """A planner over the present listing."""
        return Planner(self.versions(), self.shortcuts(), self.manifest, self.shortcut)

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
            WrongBaseError: the state is no version of this chain.
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        started = time.perf_counter()
        target = self.target(version)
        sums = state.sums(threads=self.threads)
        held = self.held(state, sums)
        if held is not None and self._digest(state, target, held.fingerprint) is not None:
            held = Held(target, held.fingerprint)
        elif held is not None and held.version == target:
            # Remembered under the target's number, but not what is there: a copy of the chain went its own way.
            own = self.manifest(target)
            raise WrongBaseError(
                f"held as version {target} with fingerprint {held.fingerprint}, the chain's has {own.fingerprint}",
                object="the state",
                rule="TD-RTE-008",
            )

        def follow(route: Sequence[Edge]) -> Preparation:
            preparation = Preparation(
                state, sums, threads=self.threads, budget=Budget(self.memory), allocate=allocate, arena=arena
            )
            self._follow(preparation, route, held)
            return preparation

        route, preparation = self.along(target, held, follow)
        return self._update(preparation, target, route, started)

    def prepare_edge(self, state: State, edge: Edge) -> Update:
        """Prepare the update over one member, whatever the cheapest route is; for verifiers.

        Raises:
            TensorDeltaError: the member's error.
        """
        started = time.perf_counter()
        sums = state.sums(threads=self.threads)
        preparation = Preparation(state, sums, threads=self.threads, budget=Budget(self.memory))
        self._hop(preparation, edge, None)
        return self._update(preparation, edge.manifest.version, [edge], started)

    def _update(self, preparation: Preparation, target: int, route: Sequence[Edge], started: float) -> Update:
        seconds = time.perf_counter() - started
        size = sum(edge.manifest.size for edge in route)
        emit(Event("prepared", target, size, seconds), self.listener)
        return preparation.finish(
            version=target,
            chain=self.chain,
            route=[edge.name for edge in route],
            size=size,
            seconds=seconds,
            on_applied=lambda update, took: emit(Event("applied", update.version, update.size, took), self.listener),
        )

    def target(self, version: int | None) -> int:
        """The version wanted: the one given, else the newest.

        Raises:
            MissingError: the chain has none.
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
        return newest

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
        planner = self.planner()
        while True:
            route = planner.plan(target, held=held, dropped=dropped)
            try:
                return route, follow(route)
            except EdgeFault as fault:
                dropped[fault.edge.name] = fault.fault
                if len(dropped) == _MAX_FAILED:
                    raise next(iter(dropped.values())) from None

    def _follow(self, preparation: Preparation, route: Sequence[Edge], held: Held | None) -> None:
        digest = None if held is None else held.layout
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
        for entry in manifest.packs:
            if entry.tensors[1] > len(layout):
                raise MalformedError(
                    f"`tensors` is {list(entry.tensors)}, the layout has {len(layout)}",
                    object=object,
                    rule="TD-MAN-010",
                )
        packs: list[tuple[Pack, Blob]] = []
        room = KEPT
        for entry in manifest.packs:
            keep = entry.size <= room
            room -= entry.size if keep else 0
            packs.append(self.pack(entry, manifest, layout, keep=keep))
        pack.check_overlap([each for each, _ in packs], layout, object=object)
        return packs

    def pack(self, entry: PackEntry, manifest: Manifest, layout: Layout, *, keep: bool) -> tuple[Pack, Blob]:
        """One pack, fetched, proven, its table checked."""
        blob = self.sources.fetch(entry, self.store, keep=keep)
        return pack.read_pack(blob, entry, layout, manifest), blob

    def load(self, version: int | None = None, *, allocate: Allocate = zeros) -> State:
        """A version's state, from nothing, in memory of its own."""
        state = State.empty()
        self.prepare(state, version, allocate=allocate).apply()
        return state
