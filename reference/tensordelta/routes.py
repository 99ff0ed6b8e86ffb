"""Routes: the cheapest way from what a reader holds to a version (SPEC.md section 10).

The planner reads backwards from the target. It knows names and manifests, not where they come from, and reads only
those that lie on the way.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .errors import ConflictError, MissingError, TensorDeltaError, WrongBaseError
from .manifest import Base, Manifest, check_features
from .objects import ShortcutName, manifest_name, shortcut_name


class Held(NamedTuple):
    """The version that a reader holds, the fingerprint of its state, and its layout's digest where that is known."""

    version: int
    fingerprint: str
    layout: str | None = None

    def is_base(self, base: Base) -> bool:
        """True where an edge starts from this very state, whatever number its base has."""
        return self.layout is not None and (self.layout, self.fingerprint) == (base.layout, base.fingerprint)


@dataclass(frozen=True)
class Edge:
    """One member of a route: a manifest or shortcut, by its object's name."""

    name: str
    manifest: Manifest

    @property
    def base(self) -> int | None:
        """The version it starts from; None for nothing."""
        return None if self.manifest.base is None else self.manifest.base.version


class Step(NamedTuple):
    """An entry of the queue: an edge waits until the version it starts from is reached."""

    cost: int
    order: int
    node: int | None
    edges: tuple[Edge, ...]


class Planner:
    """Plans routes over a listing of names.

    Args:
        versions: the versions whose manifests were listed.
        shortcuts: the shortcuts that were listed.
        read_manifest: reads and parses a version's manifest.
        read_shortcut: reads and parses a shortcut.
    """

    def __init__(
        self,
        versions: Iterable[int],
        shortcuts: Iterable[ShortcutName],
        read_manifest: Callable[[int], Manifest],
        read_shortcut: Callable[[ShortcutName], Manifest],
    ) -> None:
        self._versions = frozenset(versions)
        self._shortcuts: dict[int, list[ShortcutName]] = {}
        for shortcut in sorted(set(shortcuts), key=lambda each: (each.version, each.base or -1, each.tag or "")):
            self._shortcuts.setdefault(shortcut.version, []).append(shortcut)
        self._read_manifest = read_manifest
        self._read_shortcut = read_shortcut
        self._read_before: dict[ShortcutName, Manifest | TensorDeltaError] = {}

    def plan(
        self, target: int, *, held: Held | None = None, dropped: Mapping[str, TensorDeltaError] | None = None
    ) -> Sequence[Edge]:
        """The cheapest route to `target`, in bytes of packs; empty if it is held already.

        Args:
            target: the version wanted.
            held: the version that the reader has, if any.
            dropped: members that failed before, with their errors; the route goes around them.

        Raises:
            MissingError: no such version, or no route.
            TensorDeltaError: the error of the first member that a route would need, or the target's manifest's own.
        """
        failed = dict(dropped or {})
        faults = list(failed.values())
        unreadable: list[TensorDeltaError] = []
        if held is not None and held.version == target:
            return ()
        if target not in self._versions:
            raise MissingError(f"no version {target}", object=manifest_name(target), rule="TD-OBJ-008")
        order = itertools.count()
        queue = [Step(0, next(order), target, ())]
        settled: set[int] = set()
        while queue:
            step = heapq.heappop(queue)
            node = step.node
            if node is None:
                return step.edges
            try:
                if held is not None and node == held.version:
                    self._check_held(step.edges[0], held)
                    return step.edges
                if node in settled:
                    continue
                own = self._own(node, step.edges, unreadable)
                if own is None:
                    continue
                settled.add(node)
            except WrongBaseError as fault:
                faults.append(fault)
                continue
            for edge in self._edges(node, own, failed, faults, unreadable):
                base = edge.manifest.base
                start = held.version if held is not None and base is not None and held.is_base(base) else edge.base
                queue_cost = step.cost + edge.manifest.size
                heapq.heappush(queue, Step(queue_cost, next(order), start, (edge, *step.edges)))
        if faults:
            raise faults[0]
        cause = f"; {unreadable[0].object}: {unreadable[0].reason}" if unreadable else ""
        raise MissingError(
            f"no route leads to version {target}{cause}", object=manifest_name(target), rule="TD-RTE-006"
        )

    def _own(self, node: int, edges: tuple[Edge, ...], unreadable: list[TensorDeltaError]) -> Manifest | None:
        """The manifest that makes a version, after checking that the edge starting there means the same state.

        None where it cannot be read: then no route passes through. The target's own error is raised.
        """
        if node not in self._versions:
            reason = f"version {node}, from which {edges[0].name} starts, is gone"
            unreadable.append(MissingError(reason, object=manifest_name(node), rule="TD-RTE-003"))
            return None
        try:
            own = self._read_manifest(node)
        except TensorDeltaError as fault:
            if not edges:
                raise
            unreadable.append(fault)
            return None
        if edges:
            self._check_base(edges[0], own)
        return own

    def _check_held(self, edge: Edge, held: Held) -> None:
        base = edge.manifest.base
        assert base is not None
        if base.fingerprint != held.fingerprint:
            raise WrongBaseError(
                f"it starts from fingerprint {base.fingerprint}, the state held has {held.fingerprint}",
                object=edge.name,
                rule="TD-RDR-003",
            )
        if base.version in self._versions:
            try:
                own = self._read_manifest(base.version)
            except TensorDeltaError:
                return  # the state held proves the base; only a manifest that says otherwise could spoil it
            self._check_base(edge, own)

    @staticmethod
    def _check_base(edge: Edge, own: Manifest) -> None:
        base = edge.manifest.base
        assert base is not None
        if (base.layout, base.fingerprint) != (own.layout, own.fingerprint):
            raise WrongBaseError(
                f"its base is not what version {own.version}'s own manifest says", object=edge.name, rule="TD-RTE-002"
            )

    def _shortcut(self, shortcut: ShortcutName, own: Manifest, name: str) -> Manifest | TensorDeltaError:
        """A shortcut that counts, or why it does not; read once, however often it is planned again."""
        if shortcut not in self._read_before:
            try:
                manifest = self._read_shortcut(shortcut)
                check_shortcut(manifest, own, object=name)
                self._read_before[shortcut] = manifest
            except TensorDeltaError as fault:
                self._read_before[shortcut] = fault
        return self._read_before[shortcut]

    def _edges(
        self,
        node: int,
        own: Manifest,
        failed: Mapping[str, TensorDeltaError],
        faults: list[TensorDeltaError],
        unreadable: list[TensorDeltaError],
    ) -> list[Edge]:
        """The usable members that lead to a version; what cannot be used goes to `faults`, or to `unreadable`."""
        edges: list[Edge] = []
        name = manifest_name(node)
        if name not in failed:
            try:
                check_features(own, object=name)
                edges.append(Edge(name, own))
            except TensorDeltaError as fault:
                faults.append(fault)
        for shortcut in self._shortcuts.get(node, ()):
            name = shortcut_name(*shortcut)
            if name in failed:
                continue
            manifest = self._shortcut(shortcut, own, name)
            if isinstance(manifest, TensorDeltaError):
                unreadable.append(manifest)
                continue
            try:
                check_features(manifest, object=name)
                edges.append(Edge(name, manifest))
            except TensorDeltaError as fault:
                faults.append(fault)
        return edges


def check_shortcut(shortcut: Manifest, own: Manifest, *, object: str) -> None:
    """Check that a shortcut leads to the state that the version's own manifest makes.

    Raises:
        ConflictError: another chain, layout or fingerprint.
    """
    if (shortcut.chain, shortcut.layout, shortcut.fingerprint) != (own.chain, own.layout, own.fingerprint):
        raise ConflictError(
            f"disagrees with version {own.version} on chain, layout or fingerprint",
            object=object,
            rule="TD-MAN-025",
        )
