"""Routes where nothing can be listed: from a version back along bases, by GET alone (SPEC.md section 10.2).

What the hint names is tried, and never believed: each manifest and shortcut is read, and checked as everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..errors import MissingError, StoreError, TensorDeltaError, UntrustedError, WrongBaseError
from ..format.manifest import Manifest, check_features
from ..format.names import ShortcutName, manifest_name
from .documents import Documents
from .listing import Member, check_shortcut, member_name
from .routes import Edge, Fault, Held

#: Versions that are walked through before a read gives up.
FARTHEST = 4096


class Trail:
    """Plans routes with the names that the hint gives. For one thread at a time.

    Args:
        documents: of the chain.
        shortcuts: the names to try.
    """

    def __init__(self, documents: Documents, shortcuts: Iterable[ShortcutName] = ()) -> None:
        self._documents = documents
        self._named: dict[int, list[ShortcutName]] = {}
        for name in shortcuts:
            self._named.setdefault(name.version, []).append(name)
        self._shortcuts: dict[ShortcutName, Manifest | None] = {}
        self._faults: list[TensorDeltaError] = []  # of manifests on the way that exist and cannot be read

    @property
    def faults(self) -> Sequence[TensorDeltaError]:
        """Of manifests on the way that exist and cannot be read."""
        return self._faults

    @property
    def listed(self) -> frozenset[Member]:
        """The names to try."""
        return frozenset(name for names in self._named.values() for name in names)

    def plan(self, target: int, *, held: Held | None = None, dropped: dict[str, Fault] | None = None) -> Sequence[Edge]:
        """A route to `target`, preferably with few edges; empty if it is held already.

        Args:
            target: the version wanted.
            held: the version that the reader has, if any.
            dropped: the members that failed before, with their errors; no route has one of them. Those that fail here
                are added.

        Raises:
            MissingError: no such version, or no route.
            TensorDeltaError, StoreError: the error of a member that failed, or of the target's own manifest.
        """
        failed = {} if dropped is None else dropped
        if held is not None and held.version == target:
            return ()
        self._documents.manifest(target)
        for start in (held, None) if held is not None else (None,):
            route = self._walk(target, start, failed)
            if route is not None:
                return route
        for fault in (*failed.values(), *self._faults):
            raise fault
        raise MissingError(f"no route leads to version {target}", object=manifest_name(target), rule="TD-RTE-006")

    def _walk(self, target: int, start: Held | None, failed: dict[str, Fault]) -> Sequence[Edge] | None:
        """A route from `start`, found backwards: where no way leads on, the last choice is made anew."""
        way: list[tuple[Edge | None, Iterator[Member]]] = [(None, self._leading_to(target, start))]
        seen = {target}
        while way:
            edge = next(self._edges(way[-1][1], start, failed, seen), None)
            if edge is None:
                way.pop()
                continue
            base = edge.manifest.base
            if base is None or _starts(start, edge):
                return (edge, *(each for each, _ in reversed(way) if each is not None))
            seen.add(base.version)
            way.append((edge, self._leading_to(base.version, start)))
        return None

    def _leading_to(self, version: int, start: Held | None) -> Iterator[Member]:
        """The members that lead to a version, the longest edge first."""
        named = sorted(self._named.get(version, ()), key=lambda each: -1 if each.base is None else each.base)
        yield from (each for each in named if start is None or (each.base is not None and each.base >= start.version))
        yield version
        full = ShortcutName(version, None, None)
        if start is None and full not in named:
            yield full

    def _edges(
        self, members: Iterator[Member], start: Held | None, failed: dict[str, Fault], seen: set[int]
    ) -> Iterator[Edge]:
        """The members that lead on."""
        for member in members:
            name = member_name(member)
            manifest = None if name in failed else self._read(member)
            if manifest is None:
                continue
            edge = Edge(name, manifest)
            try:
                check_features(manifest, object=name)
                if self._leads_on(edge, start, seen):
                    yield edge
            except TensorDeltaError as fault:
                failed[name] = fault

    def _read(self, member: Member) -> Manifest | None:
        """A manifest that exists, or a shortcut where it can be used."""
        if not isinstance(member, ShortcutName):
            return self._documents.manifest(member)
        if member not in self._shortcuts:
            found: Manifest | None = None
            try:
                found = self._documents.shortcut(member)
                check_shortcut(found, self._documents.manifest(member.version), object=member_name(member))
            except (TensorDeltaError, StoreError):  # it was a name to try
                found = None
            self._shortcuts[member] = found
        return self._shortcuts[member]

    def _leads_on(self, edge: Edge, start: Held | None, seen: set[int]) -> bool:
        """True where an edge starts from what is held, from nothing, or from a version that a route may pass through.

        Raises:
            WrongBaseError: its base is not what the base's own manifest says.
        """
        base = edge.manifest.base
        if base is None:
            return start is None
        starts = _starts(start, edge)
        if not starts and (base.version in seen or len(seen) >= FARTHEST):
            return False
        if not starts and start is not None and base.version < start.version:
            return False
        try:
            own = self._documents.manifest(base.version)
        except TensorDeltaError as fault:
            if not starts and not isinstance(fault, MissingError | UntrustedError):
                self._faults.append(fault)
            return starts
        if (base.layout, base.fingerprint) != (own.layout, own.fingerprint):
            raise WrongBaseError(
                f"its base is not what version {own.version}'s own manifest says", object=edge.name, rule="TD-RTE-002"
            )
        return True


def _starts(start: Held | None, edge: Edge) -> bool:
    """True where an edge starts from what is held."""
    base = edge.manifest.base
    return start is not None and base is not None and (base.version == start.version or start.is_base(base))
