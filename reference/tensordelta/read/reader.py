"""The reader's procedure: from objects under a root to a prepared update (SPEC.md sections 9 and 10).

Each step of section 9.1 is one call: 1 the making of a `Reader`, 2 `Planner.plan`, 4 `manifest`, 5 `layout`, 6
`Preparation.check_base`, 7 and 8 `packs`, 9 to 11 `Preparation.decode`, and 12 is `Update.apply`. Step 3, where keys
are configured, is within those that read what is signed. A member of a route that fails is dropped and the route
planned again; the state is not touched before `apply`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from ..codecs.fingerprint import U64, combine, text
from ..errors import MissingError, TensorDeltaError, WrongBaseError
from ..events import Event, Listener, emit
from ..format.manifest import Base, Manifest
from ..format.names import MANIFESTS, ShortcutName, manifest_name
from ..state.state import State
from ..state.update import Update
from ..stores import Store
from ..stores.cache import PackCache
from ..stores.download import PARALLEL, part_size
from ..threads import ordered_map, thread_count
from .listing import Members, Together
from .packs import PackReader
from .prepare import Allocate, Arena, Budget, Preparation, zeros
from .routes import EXACT, Edge, Held, Planner
from .sources import Sources, UnansweredError, told
from .trust import Trust

T = TypeVar("T")

#: Members of routes that may fail before a read gives up (TD-RTE-009).
_MAX_FAILED = 128
#: Members whose sources did not answer, each after some time, before it gives up as well.
_MAX_UNANSWERED = 3


class EdgeFault(Exception):
    """A member of a route failed, with an error of the closed set."""

    def __init__(self, edge: Edge, fault: TensorDeltaError) -> None:
        super().__init__(str(fault))
        self.edge = edge
        self.fault = fault


class Reader(PackReader):
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
        self.threads = thread_count(threads)
        super().__init__(
            store, chain=chain, memory=memory, sources=sources, listener=listener, cache=cache, trust=trust
        )
        #: What was listed last.
        self._names: tuple[list[int], list[ShortcutName]] = [], []

    def trusting(
        self, trust: Trust | None, *, cache: PackCache | None = None, sources: Sources | None = None
    ) -> Reader:
        """A reader of the same chain that trusts otherwise, and has verified nothing yet.

        Args:
            trust: its keys; None to read without signatures.
            cache: another place for packs.
            sources: other places that may have packs.

        Raises:
            UntrustedError: the chain is not signed by a trusted key.
        """
        return Reader(
            self.store,
            chain=self.chain,
            memory=self.memory,
            threads=self.threads,
            sources=sources or self.sources,
            listener=self.listener,
            cache=cache or self._cache,
            trust=trust,
        )

    def unbound(self) -> Reader:
        """A reader of the same chain for a writer's own use: it may go from any version to any other (TD-SIG-005)."""
        return self if self.trust is None else self.trusting(self.trust.unbound())

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
                object=MANIFESTS,
                rule="TD-OBJ-008",
                advice="Publish one, or wait.",
            )
        self.check_age(newest)
        return newest

    def along(self, target: int, held: Held | None, follow: Callable[[Sequence[Edge]], T]) -> tuple[Sequence[Edge], T]:
        """Follow the cheapest route to a version; where a member fails, the next cheapest without it.

        Args:
            target: the version wanted.
            held: what the reader has, if anything.
            follow: does the work along a route; raises `EdgeFault` for the member that failed.

        Raises:
            TensorDeltaError: the error of the route first chosen, when no other is left.
            StoreError: where that is a source that did not answer.
        """
        dropped: dict[str, TensorDeltaError] = {}
        followed = unanswered = 0
        planner = self.planner(held if held is not None and held.version < target else None)
        while True:
            try:
                route = planner.plan(target, held=held, dropped=dropped)
            except TensorDeltaError as fault:
                again = self._again(planner)
                if again is planner:
                    raise told(fault) from None
                planner = again
                continue
            try:
                return route, follow(route)
            except EdgeFault as fault:
                dropped[fault.edge.name] = fault.fault
                followed += 1
                unanswered += isinstance(fault.fault, UnansweredError)
                if followed == _MAX_FAILED or unanswered == _MAX_UNANSWERED:
                    raise told(next(iter(dropped.values()))) from None
                if isinstance(fault.fault, MissingError) and not isinstance(fault.fault, UnansweredError):
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
        object=manifest_name(target),
        rule="TD-APP-001",
        advice="Prepare the update again from the state as it is now.",
    )
