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
from .manifest import Manifest, check_features
from .objects import ShortcutName, manifest_name, shortcut_name


class Held(NamedTuple):
    """The version that a reader holds, and the fingerprint of its state."""

    version: int
    fingerprint: str


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
            TensorDeltaError: the first error met, where it is why no route is left.
        """
        failed = dict(dropped or {})
        faults = list(failed.values())
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
                own = self._own(node, step.edges)
                settled.add(node)
            except TensorDeltaError as fault:
                faults.append(fault)
                continue
            for edge in self._edges(node, own, failed, faults):
                queue_cost = step.cost + edge.manifest.size
                heapq.heappush(queue, Step(queue_cost, next(order), edge.base, (edge, *step.edges)))
        if faults:
            raise faults[0]
        raise MissingError(f"no route leads to version {target}", object=manifest_name(target), rule="TD-RTE-006")

    def _own(self, node: int, edges: tuple[Edge, ...]) -> Manifest:
        """The manifest that makes a version, after checking that the edge starting there means the same state."""
        if node not in self._versions:
            raise MissingError(
                f"version {node}, from which {edges[0].name} starts, is gone",
                object=manifest_name(node),
                rule="TD-RTE-003",
            )
        own = self._read_manifest(node)
        if edges:
            base = edges[0].manifest.base
            assert base is not None
            if (base.layout, base.fingerprint) != (own.layout, own.fingerprint):
                raise WrongBaseError(
                    f"its base is not what version {node}'s own manifest says", object=edges[0].name, rule="TD-RTE-002"
                )
        return own

    @staticmethod
    def _check_held(edge: Edge, held: Held) -> None:
        base = edge.manifest.base
        assert base is not None
        if base.fingerprint != held.fingerprint:
            raise WrongBaseError(
                f"it starts from fingerprint {base.fingerprint}, the state held has {held.fingerprint}",
                object=edge.name,
                rule="TD-RDR-003",
            )

    def _edges(
        self, node: int, own: Manifest, failed: Mapping[str, TensorDeltaError], faults: list[TensorDeltaError]
    ) -> list[Edge]:
        """The usable members that lead to a version; what is unusable goes to `faults`."""
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
            try:
                manifest = self._read_shortcut(shortcut)
                check_shortcut(manifest, own, object=name)
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
