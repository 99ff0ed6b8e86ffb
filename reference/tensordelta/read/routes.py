"""Routes: the cheapest way from what a reader holds to a version (SPEC.md section 10).

The planner knows names and manifests, and no store. In a chain of few members it reads backwards from the target, until
no other route can be cheaper. In a long chain it plans on names and likely costs first, reads the members of the best
route, and plans again, until it has read the whole route.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import MissingError, StoreError, TensorDeltaError, UntrustedError, WrongBaseError
from ..format.manifest import Base, Manifest, check_features
from ..format.names import ShortcutName, manifest_name, parse_manifest_name
from ..stores import Store
from ..tables import Shown
from .absence import no_version
from .listing import Arc, Member, Members, member_name

#: The error of an edge: one of the closed set, or the failure of a source that has a pack of it.
Fault = TensorDeltaError | StoreError

#: Manifests and shortcuts that are read to find a route of least cost; in a chain of no more it is always found.
EXACT = 256

#: Factors on the likely costs of unread edges, before and after `EXACT` reads: none is read for a smaller gain.
_DOUBT, _MORE_DOUBT = 1.1, 4.0
#: Objects that are read before planning again, at least.
_BATCH = 16


class Held(NamedTuple):
    """The version that a reader holds, with the fingerprint and the layout's digest of its state where they are known.

    A part of a state has no fingerprint to compare; it is proven tensor by tensor.
    """

    version: int
    fingerprint: str | None = None
    layout_digest: str | None = None

    def is_base(self, base: Base) -> bool:
        """True where an edge starts from this state, under any version number."""
        return self.layout_digest is not None and (self.layout_digest, self.fingerprint) == (
            base.layout,
            base.fingerprint,
        )


@dataclass(frozen=True)
class Edge:
    """One member of a route: a manifest or shortcut, by its object's name."""

    name: str
    manifest: Manifest

    @property
    def base(self) -> int | None:
        """The version it starts from; None for nothing."""
        return None if self.manifest.base is None else self.manifest.base.version


class _ReadEnoughError(Exception):
    """The search would read more objects than it may."""


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """The route to a version.

    Attributes:
        version: where it ends.
        base: the version that the reader holds; None for nothing.
        edges: its edges in order; empty where the version is held already.
    """

    version: int
    base: int | None
    edges: Sequence[Edge]

    @property
    def size(self) -> int:
        """Bytes of its packs."""
        return sum(edge.manifest.size for edge in self.edges)

    @property
    def route(self) -> tuple[str, ...]:
        """Names of its manifests and shortcuts."""
        return tuple(edge.name for edge in self.edges)


class Planner:
    """Plans routes over a listing. For one thread at a time.

    Args:
        members: the members of the listing; some may have been read already.
        store: where they lie, for errors.
    """

    def __init__(self, members: Members, store: Store | None = None) -> None:
        self.members = members
        self._store = store

    @property
    def faults(self) -> Sequence[TensorDeltaError]:
        """Of members that could not be read."""
        return self.members.faults

    @property
    def listed(self) -> frozenset[Member]:
        """All members of the listing."""
        return self.members.listed

    def plan(self, target: int, *, held: Held | None = None, dropped: dict[str, Fault] | None = None) -> Sequence[Edge]:
        """The cheapest route to `target`, in bytes of packs; empty if it is held already.

        In a chain of more than `EXACT` members it may be another good route, where finding the cheapest would take more
        reads than that (TD-RTE-010).

        A member with unknown features, or whose base disagrees, stays in the graph: it fails when it is on the cheapest
        route, so that its error is reported in the order of SPEC.md section 10.

        Args:
            target: the version wanted.
            held: the version that the reader has, if any.
            dropped: the members that failed before, in that order, with their errors; no route has one of them. Those
                that fail here are added.

        Raises:
            MissingError: no such version, or no route.
            TensorDeltaError, StoreError: the error of a member that failed, or of a manifest that cannot be read.
        """
        failed = {} if dropped is None else dropped
        if held is not None and held.version == target:
            return ()
        if target not in self.members:
            raise no_version(target, self._store, object=manifest_name(target))
        self.members.own(target)
        gone: list[TensorDeltaError] = []
        while (route := _Search(self.members, target, held, failed, gone).cheapest()) is not None:
            faults = self._faults(route, held)
            if not faults:
                return route
            failed.update(faults)
        broken = (
            fault
            for fault in self.members.faults
            # An unsigned manifest counts as absent (TD-SIG-015).
            if parse_manifest_name(fault.object) is not None and not isinstance(fault, UntrustedError)
        )
        for fault in (*failed.values(), *broken):
            raise fault
        causes = [*self.members.faults, *gone]
        cause = f"; {causes[0].object}: {causes[0].reason}" if causes else ""
        raise MissingError(
            f"no route leads to version {target}{cause}", object=manifest_name(target), rule="TD-RTE-006"
        )

    def _faults(self, route: Sequence[Edge], held: Held | None) -> dict[str, TensorDeltaError]:
        """The members of a route of which the manifests show that they would fail, in order."""
        faults: dict[str, TensorDeltaError] = {}
        for edge in route:
            try:
                check_features(edge.manifest, object=edge.name)
                if edge.manifest.base is not None:
                    if edge is route[0]:
                        self._check_held(edge, edge.manifest.base, held)
                    check_base(edge.manifest, self.members, object=edge.name)
            except TensorDeltaError as fault:
                faults[edge.name] = fault
        return faults

    @staticmethod
    def _check_held(edge: Edge, base: Base, held: Held | None) -> None:
        assert held is not None
        if held.fingerprint is not None and base.fingerprint != held.fingerprint:
            raise WrongBaseError(
                f"it starts from fingerprint {base.fingerprint}, the state held has {held.fingerprint}",
                object=edge.name,
                rule="TD-RDR-003",
            )


def check_base(manifest: Manifest, members: Members, *, object: str) -> None:
    """Check that an edge starts from what its base's own manifest says, where that can be read.

    Raises:
        WrongBaseError: layout or fingerprint differ.
    """
    base = manifest.base
    if base is not None and base.version in members:
        try:
            own = members.own(base.version)
        except TensorDeltaError:
            return  # the state held proves the base; only a manifest that disagrees makes the edge fail
        if (base.layout, base.fingerprint) != (own.layout, own.fingerprint):
            raise WrongBaseError(
                f"its base is not what version {own.version}'s own manifest says", object=object, rule="TD-RTE-002"
            )


class _Search:
    """One search for a route without the members that failed.

    Args:
        members: the members of the listing.
        target, held: where the route ends, and where it may start.
        failed: names of the members that may not be on it.
        gone: receives an error for each version without manifest from which an edge starts.
    """

    def __init__(
        self,
        members: Members,
        target: int,
        held: Held | None,
        failed: Mapping[str, Fault],
        gone: list[TensorDeltaError],
    ) -> None:
        self._members = members
        self._target = target
        self._held = held
        self._failed = failed
        self._gone = gone

    def cheapest(self) -> Sequence[Edge] | None:
        """The cheapest route; None where there is none."""
        if self._members.count(self._target) <= EXACT:
            return self._exact()
        likely = self._likely()
        if likely is None:  # there is none by the names, but manifests may start from other versions
            return self._exact()
        cost = sum(edge.manifest.size for edge in likely)
        matter = self._matter(cost)
        if matter is None:
            return likely
        self._members.read(matter)
        try:
            return self._exact(cost, EXACT) or likely
        except _ReadEnoughError:
            return self._edges(self._best(math.inf)) or likely

    # -- reading everything that may be on the route ------------------------------------------------------------------

    def _exact(self, bound: float = math.inf, room: int | None = None) -> Sequence[Edge] | None:
        """The cheapest route, found by reading backwards from the target every version nearer than its start.

        Args:
            bound: only a route that is cheaper than this is looked for.
            room: the number of objects that may have been read at the end; None for any.

        Raises:
            _ReadEnoughError: it would be more.
        """
        queue: list[tuple[int, int, int, int | None]] = [(0, 0, 0, self._target)]
        onward: dict[int | None, tuple[Member, int]] = {}
        least: dict[int | None, tuple[int, int]] = {self._target: (0, 0)}
        settled: set[int] = set()
        pushed = 0
        while queue:
            cost, hops, _, node = heapq.heappop(queue)
            if node is None or self._is_held(node):
                return self._edges(self._along(onward, node))
            if node in settled:
                continue
            settled.add(node)
            members = self._leading_to(node)
            to_read = self._members.unread([node, *members]) if members else []
            if room is not None and self._members.reads + len(to_read) > room:
                raise _ReadEnoughError
            if not self._exists(node, onward):
                continue
            self._members.read(members, self._soon(node) if room is None else ())
            for member in members:
                manifest = self._members.edge(member)
                if manifest is None:
                    continue
                start = self._start(manifest)
                found = (cost + manifest.size, hops + 1)
                if found[0] < bound and found < least.get(start, (math.inf, 0)):
                    pushed += 1
                    least[start], onward[start] = found, (member, node)
                    heapq.heappush(queue, (*found, pushed, start))
        return None

    def _soon(self, node: int) -> list[Member]:
        """What leads to the versions just before a node: the search comes to nearly all that are newer than the held.

        A remote store gives them in the time of one.
        """
        if self._held is None or self._held.version >= node:
            return []
        before = self._members.just_before(node, self._members.threads - 1)
        return [each for version in before if version > self._held.version for each in self._leading_to(version)]

    def _leading_to(self, node: int) -> list[Member]:
        """The members that lead to a version and did not fail."""
        members = self._members.leading_to(node)
        return [member for member in members if member_name(member) not in self._failed] if self._failed else members

    def _is_held(self, node: int | None) -> bool:
        return self._held is not None and node == self._held.version

    def _start(self, manifest: Manifest) -> int | None:
        """The node from which a member leads, held state included."""
        base = manifest.base
        if base is None:
            return None
        return self._held.version if self._held is not None and self._held.is_base(base) else base.version

    def _exists(self, node: int, onward: Mapping[int | None, tuple[Member, int]]) -> bool:
        """True where a version's own manifest exists and can be read; else no route passes through the version."""
        if node not in self._members:
            reason = f"version {node}, from which {member_name(onward[node][0])} starts, is gone"
            self._gone.append(MissingError(reason, object=manifest_name(node), rule="TD-RTE-003"))
            return False
        try:
            self._members.own(node)
        except TensorDeltaError:
            return False
        return True

    def _along(self, onward: Mapping[int | None, tuple[Member, int]], start: int | None) -> list[Member]:
        """The members of a route that was found, from its start."""
        route: list[Member] = []
        node = start
        while node != self._target:
            member, node = onward[node]
            route.append(member)
        return route

    def _edges(self, route: Iterable[Member] | None) -> Sequence[Edge] | None:
        """A route of members that have been read and can be used."""
        if route is None:
            return None
        edges: list[Edge] = []
        for member in route:
            manifest = self._members.edge(member)
            assert manifest is not None
            edges.append(Edge(member_name(member), manifest))
        return tuple(edges)

    # -- planning on names ------------------------------------------------------------------------------------------

    def _likely(self) -> Sequence[Edge] | None:
        """A route that is likely to be the cheapest, all of it read; None where there is none by the names."""
        while True:
            route = self._best(_DOUBT if self._members.reads < EXACT else _MORE_DOUBT)
            if route is None:
                return None
            # Backwards, since a manifest near the target may start from another version than assumed.
            unread = self._members.unread(reversed(route))
            if not unread:
                if all(self._members.edge(member) is not None for member in route):
                    return self._edges(route)
                continue
            self._members.read(self._samples(route) or unread[: max(_BATCH, self._members.reads)])

    def _samples(self, route: Sequence[Member]) -> list[Member]:
        """The last edge on a route of each kind of which none was read."""
        samples: dict[tuple[int, str], Member] = {}
        for member in route:
            version = member.version if isinstance(member, ShortcutName) else member
            for arc in self._members.arcs(version):
                if arc.member == member and arc.size is None and not self._members.is_known(arc.kind):
                    samples[arc.kind] = member
        return list(samples.values())

    def _best(self, doubt: float) -> list[Member] | None:
        """The cheapest route by known and likely costs.

        Args:
            doubt: the factor on likely costs; with infinity only members that were read count.
        """
        held = None if self._held is None else self._held.version
        least: dict[int | None, tuple[float, int]] = {None: (0.0, 0)}
        if held is not None:
            least[held] = (0.0, 0)
        back: dict[int, tuple[Member, int | None]] = {}
        rates: dict[tuple[int, str], float] = {}
        arcs = self._members.arcs
        for version in self._members.until(self._target):
            if version == held or (doubt == math.inf and not self._members.is_ready(version)):
                continue
            cost, hops = math.inf, 0
            for member, base, size, kind, scale in self._usable(version) if self._failed else arcs(version):
                if size is None:
                    if kind not in rates:
                        rates[kind] = self._members.rate(kind, doubt)
                    bytes_ = rates[kind] * scale
                else:
                    base, bytes_ = self._from(member, base), size
                before = least.get(base)
                if before is None:
                    continue
                found = before[0] + bytes_
                if found < cost or (found == cost and before[1] + 1 < hops):
                    cost, hops = found, before[1] + 1
                    back[version] = member, base
            if cost < math.inf:
                least[version] = cost, hops
        if self._target not in least:
            return None
        route: list[Member] = []
        node: int | None = self._target
        while node is not None and node != held:
            member, node = back[node]
            route.append(member)
        return route[::-1]

    def _usable(self, version: int) -> Iterable[Arc]:
        """The edges into a version that may be usable, and did not fail."""
        arcs = self._members.arcs(version)
        return [arc for arc in arcs if member_name(arc.member) not in self._failed] if self._failed else arcs

    def _from(self, member: Member, base: int | None) -> int | None:
        """The node from which an edge that was read leads, held state included."""
        if self._held is None or base is None:
            return base
        manifest = self._members.found(member)
        return base if manifest is None else self._start(manifest)

    def _matter(self, bound: float) -> list[Member] | None:
        """The members that must be read to know whether a route is cheaper than `bound`; None if they are too many."""
        queue: list[tuple[float, int]] = [(0.0, self._target)]
        settled: set[int] = set()
        matter: dict[Member, None] = {}
        while queue:
            cost, node = heapq.heappop(queue)
            if node in settled or node not in self._members:
                continue
            settled.add(node)
            matter.update(dict.fromkeys(self._members.unread(self._leading_to(node))))
            if self._members.reads + len(matter) > EXACT:
                return None
            for member, base, size, kind, scale in self._usable(node):
                start = base if size is None else self._from(member, base)
                bytes_ = self._members.rate(kind, 1.0) * scale if size is None else size
                if start is not None and not self._is_held(start) and cost + bytes_ < bound:
                    heapq.heappush(queue, (cost + bytes_, start))
        return list(matter)
