"""The reader's procedure: from objects under a root to a prepared update (SPEC.md sections 9 and 10).

Each step of section 9.1 is one call: 1 the making of `Documents`, 2 `Planner.plan`, 4 `Documents.manifest`, 5
`Documents.layout`, 6 `Preparation.check_base`, 7 and 8 `Packs.of`, 9 and 10 `Preparation.decode`, 11
`Preparation.prove`, and 12 `Update.apply`. Step 3, where keys are configured, is part of every read of a signed object.
An edge that fails is dropped, and the route planned again; the state is not written to before `apply`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from itertools import islice
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from ..codecs.fingerprint import U64, combine, text
from ..errors import MissingError, TensorDeltaError, WrongBaseError
from ..events import Event, Listener, emit
from ..format.names import MANIFESTS, ShortcutName, manifest_name
from ..progress import phase
from ..state.holder import Holder
from ..state.state import State
from ..state.update import Update
from ..stores import Store
from ..stores.cache import PackCache
from ..stores.disk import Disk
from ..stores.download import PARALLEL
from ..threads import ordered_map, thread_count
from .budget import Budget
from .documents import Documents
from .listing import Member, Members
from .packs import Packs, SourceError, Sources, default_memory
from .prepare import Allocate, Arena, Preparation, zeros
from .routes import EXACT, Edge, Fault, Held, Plan, Planner
from .trail import Trail
from .trust import Trust

#: Packs are proven, then decoded.
_PASSES = 2

R = TypeVar("R")
T = TypeVar("T")

#: Edges that may fail before a read gives up (TD-RTE-009).
_MAX_FAILED = 128
#: Edges that may fail because a source did not answer, which may take minutes each.
_MAX_UNANSWERED = 3
#: Versions, and shortcuts from collected versions, that are read to recognize a state.
_MAX_RECOGNIZED = 128


class EdgeFault(Exception):
    """An edge of a route failed."""

    def __init__(self, edge: Edge, fault: Fault) -> None:
        super().__init__(str(fault))
        self.edge = edge
        self.fault = fault


class Followed(NamedTuple, Generic[T]):
    """A route that was followed, what that gave, and without what it was planned: faults, and the names of edges."""

    route: Sequence[Edge]
    result: T
    passed_over: tuple[Fault, ...]
    dropped: tuple[str, ...] = ()


class Reader:
    """Reads one chain.

    Several threads may use one object.

    Args:
        store: where the chain lies.
        chain: the chain id that is expected, if the caller has pinned one.
        memory: the memory budget in bytes; by default four fifths of the machine's memory.
        disk: the disk budget in bytes; by default nine tenths of what is free.
        threads: how many chunks are decoded at once.
        sources: places other than the root that may have packs.
        listener: receives events.
        cache: where this machine keeps packs of a remote store; by default this user's.
        trust: the keys that must have signed what is read; None to read without signatures.

    Attributes:
        store, chain, trust: where the chain lies, its id, and the trusted keys.
        disk: the disk budget.
        documents: everything under the root but packs and files.
        packs: packs and files.

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
        disk: int | None = None,
        threads: int | None = None,
        sources: Sources | None = None,
        listener: Listener | None = None,
        cache: PackCache | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.threads = thread_count(threads)
        self.memory = default_memory() if memory is None else memory
        self.listener = listener
        self.disk = Disk(disk)
        self.packs = Packs(store, memory=self.memory, sources=sources, listener=listener, cache=cache, disk=self.disk)
        self.documents = Documents(store, chain=chain, trust=trust, memory=self.memory)
        self.store, self.chain, self.trust = store, self.documents.chain, trust
        self._reads = PARALLEL if store.remote else 1
        self._lists = store.lists
        # The versions and shortcuts that were listed last.
        self._names: tuple[list[int], list[ShortcutName]] = [], []
        # The listing in which the newest version was found, for the plan of the way to it.
        self._seen: list[int] | None = None

    def trusting(
        self, trust: Trust | None, *, cache: PackCache | None = None, sources: Sources | None = None
    ) -> Reader:
        """A reader of the same chain with other keys, which has verified nothing yet.

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
            disk=self.disk.limit,
            threads=self.threads,
            sources=sources or self.packs.sources,
            listener=self.listener,
            cache=cache or self.packs.cache,
            trust=trust,
        )

    def __reduce__(self) -> tuple[object, ...]:
        """A reader travels as what it was made of: in the other process it has a connection of its own."""
        made_of = (
            self.chain,
            self.memory,
            self.disk.limit,
            self.threads,
            self.packs.sources,
            self.listener,
            None,
            self.trust,
        )
        return _reader, (self.store, *made_of)

    def unbound(self) -> Reader:
        """A reader of the same chain for a writer, which may go from any version to any other (TD-SIG-005).

        One signature is enough for it: it builds on what one holder of a key published, before others have signed that.
        """
        return self if self.trust is None else self.trusting(self.trust.unbound(threshold=1))

    def along_bases(self) -> Reader:
        """This reader, but one that lists nothing to find a route: it goes along the versions' own manifests."""
        made = copy(self)
        made._lists = False
        return made

    def budget(self) -> Budget:
        """A memory budget for one read, without the bytes that downloads may take."""
        return Budget(self.memory - self.packs.in_flight)

    # -- what is held ---------------------------------------------------------------------------------------------

    def held(self, state: State | Holder, sums: U64) -> Held | None:
        """The version that a state is, by its layout and fingerprint.

        Compared are, in this order: the version that the state remembers; the newest 128 versions, newest first; and
        the collected versions from which the edges to these versions, and up to 128 shortcuts, start (SPEC.md section
        13). On a remote store several are read at once. A state that is none of these counts as no version: the route
        starts from nothing, which is always correct. A state that remembers a version is held as that version even if
        it differs, so that edges from it fail.

        Args:
            state: the state; the empty state is no version.
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

        versions = self.recent()
        # An unsigned manifest says nothing, not even that its version was not collected.
        listed = frozenset(versions if self.trust is None else ())

        def as_version(version: int) -> Held | None:
            digest = self._digest(state, version, fingerprint)
            return None if digest is None else Held(version, fingerprint, digest)

        def as_base(member: Member) -> Held | None:
            try:
                base = self.documents.member(member).base
                if base is None or base.version in listed or base.fingerprint != fingerprint:
                    return None
                same = self.documents.layout(base.layout) == state.layout
            except TensorDeltaError:
                return None
            return Held(base.version, fingerprint, base.layout) if same else None

        found = self.first_of(versions, as_version) or self.first_of(versions, as_base)
        if found is None:
            there = frozenset(versions)
            shortcuts = [each for each in self.documents.shortcuts() if each.version in there]
            lost = [each for each in shortcuts if each.base is not None and each.base not in listed]
            found = self.first_of(sorted(lost, key=lambda each: -each.version), as_base)
        return found if found is not None or own is None else Held(own, fingerprint)

    def recent(self) -> list[int]:
        """The versions that a state is compared with, the newest first."""
        if not self.store.lists:
            return list(islice(self.documents.lineage(), _MAX_RECOGNIZED))
        return self.documents.versions()[::-1]

    def first_of(self, candidates: Sequence[R], recognize: Callable[[R], T | None]) -> T | None:
        """The first answer that is not None, over at most 128 candidates; on a remote store several at once."""
        answers = ordered_map(recognize, candidates[:_MAX_RECOGNIZED], threads=self._reads)
        return next((answer for answer in answers if answer is not None), None)

    def _digest(self, state: State | Holder, version: int, fingerprint: str) -> str | None:
        """The digest of a version's layout, where the version is this state; else None."""
        try:
            own = self.documents.manifest(version)
            same = own.fingerprint == fingerprint and self.documents.layout(own.layout) == state.layout
            return own.layout if same else None
        except TensorDeltaError:
            return None

    # -- routes ---------------------------------------------------------------------------------------------------

    def members(
        self, versions: Iterable[int] | None = None, shortcuts: Iterable[ShortcutName] | None = None
    ) -> Members:
        """The members of a listing, by default of the present one; each is read when it is needed."""
        return Members(
            self.documents.versions() if versions is None else versions,
            self.documents.shortcuts() if shortcuts is None else shortcuts,
            self.documents.member,
            self._reads,
        )

    def planner(self, held: Held | None = None, target: int | None = None) -> Planner | Trail:
        """A planner over the present listing, or over what the hint names where nothing can be listed.

        Args:
            target: where the way leads. If it was found as the newest version, its listing counts: a collector may have
                dropped it since, and what it names can still be read (TD-RET-017).
            held: what the reader has, if it goes to a newer version. Of a long chain that was listed before, only what
                leads to versions after the held one is listed then, so that a follower lists little.
        """
        if not self._lists:
            return Trail(self.documents, () if self.store.lists else self.documents.shortcuts())
        versions, shortcuts = self._names
        listing = self.documents
        seen, self._seen = self._seen, None
        if seen is not None and target in seen:
            versions, shortcuts = seen, listing.shortcuts()
        elif held is not None and len(versions) + len(shortcuts) > EXACT:
            after = held.version
            versions = [version for version in versions if version <= after] + listing.versions(after)
            shortcuts = [each for each in shortcuts if each.version <= after] + listing.shortcuts(after)
        else:
            versions, shortcuts = listing.versions(), listing.shortcuts()
        self._names = versions, shortcuts
        return Planner(self.members(versions, shortcuts), self.store)

    def plan(self, version: int, base: int | None) -> Plan:
        """The route of a reader that holds `base`; None for nothing. Only manifests and shortcuts are read.

        Raises:
            MissingError: no such version, or no route.
            UntrustedError: keys are configured, and the version is not signed.
            TensorDeltaError: the error of the edge that failed first.
        """
        held = None
        if self.trust is not None:
            self.documents.manifest(version)  # an unsigned target is an error, not a version to skip (TD-SIG-012)
        if base is not None:
            try:
                own = self.documents.manifest(base)
                held = Held(base, own.fingerprint, own.layout)
                target = self.documents.manifest(version)
                if (own.layout, own.fingerprint) == (target.layout, target.fingerprint):
                    return Plan(version, base, ())
            except TensorDeltaError:  # a version may be held although its manifest was collected
                held = Held(base)
        ahead = held if held is not None and held.version < version else None
        return Plan(version, base, tuple(self.planner(ahead).plan(version, held=held)))

    def target(self, version: int | None, held: int | None = None) -> int:
        """The version to read: the one given, else the newest.

        Args:
            version: the version wanted; None for the newest.
            held: the version that the reader has, if any. Where nothing can be listed, a hint that names none after it
                leads nowhere (TD-FOL-002).

        Raises:
            MissingError: the chain has none.
            UntrustedError: the newest is older than its maximal age (TD-SIG-008), or than what this user has held.
        """
        if version is not None:
            if not isinstance(version, int):
                raise TypeError(f"a version is an int, not {version!r}")
            return version
        if self.store.lists:
            versions = self.documents.versions()
            newest = self.documents.newest_of(versions)
            self._seen = versions
        else:
            newest = self.documents.newest()
            if held is not None and (newest is None or newest < held):
                return held
        if newest is None:
            raise MissingError(
                "the chain has no version yet", object=MANIFESTS, rule="TD-OBJ-008", advice="Publish one, or wait."
            )
        self.documents.check_newest(newest)
        return newest

    def along(
        self,
        target: int,
        held: Held | None,
        follow: Callable[[Sequence[Edge]], T],
        without: Mapping[str, Fault] = MappingProxyType({}),
    ) -> Followed[T]:
        """Follow the cheapest route to a version; where an edge fails, the cheapest route without it.

        Edges that failed are reported: each by a warning and an event.

        Args:
            target: the version wanted.
            held: what the reader has, if anything.
            follow: does the work along a route; raises `EdgeFault` for the edge that failed.
            without: edges that failed elsewhere, by name, with their faults: no route has them.

        Raises:
            TensorDeltaError, SourceError: the error of the edge that failed first, when no route is left.
        """
        with phase("looking for a route"):
            return self._along(target, held, follow, without)

    def _along(
        self,
        target: int,
        held: Held | None,
        follow: Callable[[Sequence[Edge]], T],
        without: Mapping[str, Fault],
    ) -> Followed[T]:
        started = time.perf_counter()
        if held is not None and held.version == target:
            return Followed((), follow(()), ())
        dropped: dict[str, Fault] = dict(without)
        unread: list[TensorDeltaError] = []
        followed = unanswered = 0
        planner = self.planner(held if held is not None and held.version < target else None, target)
        while True:
            try:
                route = planner.plan(target, held=held, dropped=dropped)
            except (TensorDeltaError, SourceError):
                again = self._again(planner, target)
                if again is planner:
                    raise
                planner = again
                continue
            try:
                result = follow(route)
            except EdgeFault as failed:
                dropped[failed.edge.name] = failed.fault
                followed += 1
                unanswered += isinstance(failed.fault, SourceError)
                if followed == _MAX_FAILED or unanswered == _MAX_UNANSWERED:
                    raise next(iter(dropped.values())) from None
                if isinstance(failed.fault, MissingError):
                    unread += planner.faults
                    planner = self._again(planner, target)
            else:
                # A member that cannot be read is on no route.
                faults = {(each.object, each.rule): each for each in (*unread, *planner.faults)}
                passed_over = (*dropped.values(), *faults.values())
                for fault in passed_over:
                    seconds = time.perf_counter() - started
                    emit(Event("passed-over", target, 0, seconds, fault=fault), self.listener)
                return Followed(route, result, passed_over, tuple(dropped))

    def _again(self, planner: Planner | Trail, target: int) -> Planner | Trail:
        """A planner over a new listing, where that differs: a collector may have run (SPEC.md section 13)."""
        fresh = self.planner()
        if target in planner.listed and target not in fresh.listed:
            return planner
        return planner if fresh.listed == planner.listed else fresh

    # -- updates --------------------------------------------------------------------------------------------------

    def prepare(
        self, state: State, version: int | None = None, *, allocate: Allocate = zeros, arena: Arena | None = None
    ) -> Update:
        """Prepare the update that takes a state to a version; the state is only read.

        Args:
            state: what is held; the empty state for nothing.
            version: the target, by default the newest.
            allocate: gives memory for tensors that start as zero words.
            arena: gives memory for the decoded words of other tensors.

        Raises:
            MissingError: no such version, or no route to it.
            WrongBaseError: the state is not the version that it remembers, or was updated meanwhile.
            UntrustedError: keys are configured, and the version is not signed, or may not be read (see `admit`).
            TensorDeltaError, SourceError: the error of the edge that failed first, when no route is left.
        """
        started = time.perf_counter()
        target = self.target(version, state.version if state.chain == self.chain else None)
        self.documents.admit(target, state)
        generation = state.generation
        sums = state.sums(threads=self.threads)
        held = self.held(state, sums)
        if held is not None and self._digest(state, target, text(combine(sums))) is not None:
            held = Held(target, held.fingerprint)
        elif held is not None and held.version == target:
            # The state remembers the target's number and is another state: no edge to the target starts from it.
            held = None

        def follow(route: Sequence[Edge]) -> Preparation:
            preparation = Preparation(
                state, sums, threads=self.threads, budget=self.budget(), allocate=allocate, arena=arena
            )
            try:
                self._follow(preparation, route, held)
            except EdgeFault:
                _check_still(state, generation, target)  # where the state was updated, the edge is not at fault
                raise
            return preparation

        route, preparation, passed_over, _ = self.along(target, held, follow)
        update = self._update(state, preparation, target, route, started, passed_over)
        _check_still(state, generation, target)
        return update

    def prepare_edge(self, state: State, edge: Edge) -> Update:
        """Prepare the update over one edge, whether or not it is on the cheapest route; for verifiers.

        Raises:
            TensorDeltaError, SourceError: the edge's error.
        """
        started = time.perf_counter()
        sums = state.sums(threads=self.threads)
        preparation = Preparation(state, sums, threads=self.threads, budget=self.budget())
        self._hop(preparation, edge, None)
        return self._update(state, preparation, edge.manifest.version, [edge], started)

    def _follow(self, preparation: Preparation, route: Sequence[Edge], held: Held | None) -> None:
        digest = None if held is None else held.layout_digest
        size = sum(edge.manifest.size for edge in route)
        with (
            phase(_reading(route), size, passes=_PASSES),
            self.packs.ahead((edge.manifest.version, entry) for edge in route for entry in edge.manifest.packs),
        ):
            for edge in route:
                try:
                    digest = self._hop(preparation, edge, digest)
                except (TensorDeltaError, SourceError) as fault:
                    raise EdgeFault(edge, fault) from None

    def _hop(self, preparation: Preparation, edge: Edge, digest: str | None) -> str:
        """Steps 5 to 11 for one edge; returns the digest of its layout.

        Args:
            preparation: the state before the edge; afterwards the one after it.
            edge: the edge.
            digest: the digest of the layout before it, where that is known.
        """
        started = time.perf_counter()
        manifest = edge.manifest
        layout = self.documents.layout(manifest.layout)
        base = manifest.base
        if base is not None:
            base_layout = None if base.layout == digest else self.documents.layout(base.layout)
            preparation.check_base(base, base_layout, object=edge.name)
        budget = preparation.budget
        used = budget.used
        packs = self.packs.of(manifest, layout, budget, object=edge.name)
        parsed = budget.used - used
        emit(Event("fetched", manifest.version, manifest.size, time.perf_counter() - started), self.listener)
        preparation.fit(layout, full=base is None)
        preparation.decode(packs)
        preparation.prove(manifest, object=edge.name)
        budget.used -= parsed
        return manifest.layout

    def _update(
        self,
        state: State,
        preparation: Preparation,
        target: int,
        route: Sequence[Edge],
        started: float,
        passed_over: tuple[Fault, ...] = (),
    ) -> Update:
        seconds = time.perf_counter() - started
        size = sum(edge.manifest.size for edge in route)
        emit(Event("prepared", target, size, seconds), self.listener)
        prepared = preparation.finish(
            version=target,
            chain=self.chain,
            layout_digest=(route[-1].manifest if route else self.documents.manifest(target)).layout,
            route=[edge.name for edge in route],
            size=size,
            seconds=seconds,
            passed_over=passed_over,
        )
        return Update(state, prepared, threads=self.threads, on_applied=self._applied)

    def _applied(self, update: Update, took: float) -> None:
        self.documents.remember(update.version)
        emit(Event("applied", update.version, update.size, took), self.listener)

    def load(self, version: int | None = None, *, allocate: Allocate = zeros) -> State:
        """A version's state, from nothing, in memory of its own; errors are those of `prepare`."""
        state = State.empty()
        self.prepare(state, version, allocate=allocate).apply()
        return state


def _reader(store: Store, *made_of: Any) -> Reader:
    names = ("chain", "memory", "disk", "threads", "sources", "listener", "cache", "trust")
    return Reader(store, **dict(zip(names, made_of, strict=True)))


def _reading(route: Sequence[Edge]) -> str:
    versions = [edge.manifest.version for edge in route]
    if len(versions) == 1:
        return f"reading version {versions[0]}"
    return f"reading versions {versions[0]} to {versions[-1]}" if versions else "reading"


def _check_still(state: State, generation: int, target: int) -> None:
    """Check that a state is still the one that an update was prepared from.

    Raises:
        WrongBaseError: another update was applied to it, or undone.
    """
    if state.generation != generation:
        raise WrongBaseError(
            "the state was updated while this update was prepared",
            object=manifest_name(target),
            rule="TD-APP-001",
            advice="Prepare the update again from the state as it is now.",
        )
