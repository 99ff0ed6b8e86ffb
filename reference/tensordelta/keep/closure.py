"""The closure of versions: what must be kept so that each of them can be rebuilt (SPEC.md sections 10 and 13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from ..errors import MissingError, TensorDeltaError, UnsupportedError, WrongBaseError
from ..format.manifest import Base, Manifest
from ..read.listing import Members, member_name
from ..read.routes import Fault, Planner, check_base


class Closure:
    """Versions that can be rebuilt over one another.

    Args:
        members: the manifests and shortcuts that are listed.
        is_usable: True if what an edge needs is there.
        unusable: members that no version is rebuilt over, by name, with the reason.
        has_base: True if the base of an edge is available anyway, so that no version has to be kept for it.

    Attributes:
        versions: the versions of the closure.
    """

    def __init__(
        self,
        members: Members,
        is_usable: Callable[[Manifest], bool],
        *,
        unusable: Mapping[str, TensorDeltaError] | None = None,
        has_base: Callable[[Base], bool] = lambda base: False,
    ) -> None:
        self._members = members
        self._is_usable = is_usable
        self._unusable = dict(unusable or {})
        self._has_base = has_base
        self.versions: set[int] = set()

    def read(self, versions: Iterable[int]) -> None:
        """Read whatever leads to some versions, several objects at once."""
        self._members.read(member for version in versions for member in self._members.leading_to(version))

    def add(self, version: int) -> set[int]:
        """Add a version and what it needs: an edge from nothing or from the closure, or else the cheapest route.

        Returns:
            The version, and those on its route if it needs one.

        Raises:
            UnsupportedError: no route leads to it here, but one may for a reader that knows more.
            TensorDeltaError: no route leads to it, or a base that `has_base` looked at is another.
        """
        needed = {version} if version in self.versions or self._is_reached(version) else self._route(version)
        self.versions |= needed
        return needed

    def _is_reached(self, version: int) -> bool:
        """True if one edge leads to a version from nothing, from the closure, or from a base that needs no keeping."""
        for member in self._members.leading_to(version):
            name = member_name(member)
            manifest = None if name in self._unusable else self._members.edge(member)
            if manifest is None or not self._is_usable(manifest):
                continue
            if manifest.base is None:
                return True
            if manifest.base.version in self.versions:
                with suppress(WrongBaseError):
                    check_base(manifest, self._members, object=name)
                    return True
            elif self._has_base(manifest.base):
                return True
        return False

    def _route(self, version: int) -> set[int]:
        """The versions on the cheapest route to a version whose edges are all usable."""
        dropped: dict[str, Fault] = dict(self._unusable)
        while True:
            try:
                route = Planner(self._members).plan(version, dropped=dropped)
            except TensorDeltaError:
                for fault in (*dropped.values(), *self._members.faults):
                    if isinstance(fault, UnsupportedError):
                        raise fault from None
                raise
            lost = {
                edge.name: MissingError("packs of it are gone", object=edge.name, rule="TD-MAN-014")
                for edge in route
                if not self._is_usable(edge.manifest)
            }
            if not lost:
                return {edge.manifest.version for edge in route}
            dropped |= lost
