"""Plans: the route that a reader would take (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..tables import Shown
from .routes import Edge


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
