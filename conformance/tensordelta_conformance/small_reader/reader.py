"""Routes, and updates that are prepared, applied and undone: sections 9.3 and 10."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .chain import Chain
from .documents import Base, Manifest, manifest_name
from .fingerprint import state_fingerprint
from .rejection import Rejection, require
from .state import State


@dataclass(frozen=True)
class Held:
    """What a Reader holds; `version` is what it remembers of it."""

    state: State
    version: int | None = None

    @cached_property
    def fingerprint(self) -> int:
        """The fingerprint of the state, from a scan."""
        return state_fingerprint(self.state)


@dataclass(frozen=True)
class Update:
    """A prepared update. No word of the old state is written over, so that undo only goes back to it."""

    before: Held | None
    after: Held

    def apply(self, held: Held | None) -> Held:
        """What is held after step 12."""
        require(_state(held) == _state(self.before), "TD-APP-001", "the update is for another state", "wrong-base")
        return self.after

    def undo(self, held: Held | None) -> Held | None:
        """What was held before it."""
        require(_state(held) == self.after.state, "TD-APP-001", "the update was not the last", "wrong-base")
        return self.before


def _state(held: Held | None) -> State:
    return {} if held is None else held.state


class Reader:
    """A Reader of whole states, over the cheapest routes."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def prepare(self, target: int | None, held: Held | None) -> Update:
        """Steps 1 to 11 to a version, or to the newest, over the cheapest route that holds."""
        chain = self._chain
        chain.id()
        if target is None:
            require(chain.versions, "TD-OBJ-008", "the chain has no version", "missing")
            target = chain.versions[-1]
        require(target in chain.versions, "TD-OBJ-008", f"no version {target}", "missing")
        own = chain.manifest(manifest_name(target))
        if held is not None and chain.describes(own, held.state, held.fingerprint):
            return Update(held, Held(held.state, target))
        failed: dict[str, Rejection] = {}
        while True:
            found = self._route(target, held, failed)
            if found is None:
                raise next(iter(failed.values()), self._no_route(own))
            edges, from_held = found
            state = _state(held) if from_held else {}
            for edge in edges:
                try:
                    chain.check_edge(edge)
                    state = chain.follow(edge, state)
                except Rejection as fault:
                    fault.object = fault.object or edge.name
                    failed[edge.name] = fault
                    break
            else:
                return Update(held, Held(state, target))

    def _no_route(self, own: Manifest) -> Rejection:
        """The error of a manifest on the way that cannot be read, or `missing`."""
        edge = own
        try:
            while edge.base is not None and edge.base.version in self._chain.versions:
                edge = self._chain.manifest(manifest_name(edge.base.version))
        except Rejection as fault:
            return fault
        return Rejection("missing", "TD-RTE-006", "no route", own.name)

    def _route(self, target: int, held: Held | None, failed: Iterable[str]) -> tuple[list[Manifest], bool] | None:
        """The cheapest route without the edges that failed, and whether it starts at the held state."""
        best: dict[int, tuple[int, int, list[Manifest], bool]] = {}
        for version in (each for each in self._chain.versions if each <= target):
            ways = []
            for edge in (each for each in self._edges_to(version) if each.name not in failed):
                if edge.base is None:
                    ways.append((edge.cost, 1, [edge], False))
                elif held is not None and self._starts_at(edge.base, held):
                    ways.append((edge.cost, 1, [edge], True))
                elif edge.base.version in best:
                    cost, length, edges, from_held = best[edge.base.version]
                    ways.append((cost + edge.cost, length + 1, [*edges, edge], from_held))
            if ways:
                best[version] = min(ways, key=lambda way: way[:2])
        return (best[target][2], best[target][3]) if target in best else None

    def _edges_to(self, version: int) -> list[Manifest]:
        """The edges that lead to a version: its manifest, and the shortcuts that count."""
        try:
            edges = [self._chain.manifest(manifest_name(version))]
        except Rejection:
            return []
        for name in (name for to, name in self._chain.shortcuts if to == version):
            try:
                shortcut = self._chain.manifest(name)
                self._chain.check_shortcut(shortcut)
            except Rejection:
                continue
            edges.append(shortcut)
        return edges

    def _starts_at(self, base: Base, held: Held) -> bool:
        """True if an edge from this base starts at the held state."""
        return base.version == held.version or self._chain.describes(base, held.state, held.fingerprint)
