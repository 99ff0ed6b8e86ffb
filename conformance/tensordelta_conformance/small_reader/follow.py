"""Following without a listing: section 10.2."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .chain import Chain
from .documents import Manifest, manifest_name
from .reader import Held, Reader, Update
from .rejection import Rejection, require

#: What a null base counts as beside the versions of others.
NOTHING = -1


class Follower(Reader):
    """A Reader that goes to the version that the hint names, by the names that it gives."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._hint = chain.hint()
        self._named: dict[int, list[tuple[int, str]]] = {}
        for name in [] if self._hint is None else self._hint.shortcuts:
            version, _, base = name.removeprefix("shortcuts/").partition(".")[0].partition("-")
            self._named.setdefault(int(version), []).append((NOTHING if base == "full" else int(base), name))

    def prepare(self, target: int | None, held: Held | None) -> Update:
        """Steps 1 to 11 to a version, or to the one that the hint names."""
        target = self._target(held) if target is None else target
        self._chain.find(target)
        return super().prepare(target, held)

    def _target(self, held: Held | None) -> int:
        """The hinted version, if it exists and is newer than the one held; else the one held."""
        known = None if held is None else held.version
        hinted = None if self._hint is None else self._hint.version
        if hinted is not None and (known is None or hinted > known) and self._chain.find(hinted):
            return hinted
        require(known is not None, "TD-OBJ-008", "the hint names no version", "missing")
        assert known is not None
        return known

    def _route(self, target: int, held: Held | None, failed: Iterable[str]) -> tuple[list[Manifest], bool] | None:
        """The edges to a version, and whether they start at the held state."""
        for start in (held, None) if held is not None else (None,):
            edges = self._reach(target, start, set(failed), {target})
            if edges is not None:
                return edges, start is not None
        return None

    def _reach(
        self, version: int, start: Held | None, failed: Collection[str], seen: set[int]
    ) -> list[Manifest] | None:
        """The edges from `start` to a version, or none; `seen` are the versions that were visited."""
        oldest = NOTHING if start is None else start.version or 0
        for name in self._leading_to(version, oldest):
            edge = None if name in failed else self._edge(name)
            if edge is None:
                continue
            if edge.base is None:
                if start is None:
                    return [edge]
                continue
            found = self._chain.find(edge.base.version)
            if start is not None and self._starts_at(edge.base, start):
                return [edge]
            if not found or edge.base.version < oldest or edge.base.version in seen:
                continue
            seen.add(edge.base.version)
            route = self._reach(edge.base.version, start, failed, seen)
            if route is not None:
                return [*route, edge]
        return None

    def _leading_to(self, version: int, oldest: int) -> list[str]:
        """The names of edges to a version, in the order in which they are tried."""
        named = [name for base, name in sorted(self._named.get(version, [])) if base >= oldest]
        full = [f"shortcuts/{version:012d}-full.json"] if oldest == NOTHING else []
        return list(dict.fromkeys([*named, manifest_name(version), *full]))

    def _edge(self, name: str) -> Manifest | None:
        """A manifest or shortcut; none where it cannot be used."""
        is_shortcut = name.startswith("shortcuts/")
        try:
            edge = self._chain.manifest(name)
            if is_shortcut:
                self._chain.check_shortcut(edge)
            return edge
        except Rejection:
            return None
        except OSError:  # a shortcut is only a name to try
            if not is_shortcut:
                raise
            return None
