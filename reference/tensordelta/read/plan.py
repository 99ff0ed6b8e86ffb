"""Plans: the route that a reader would take (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..tables import Table, bytes_text
from .routes import Edge


@dataclass(frozen=True, repr=False)
class Plan:
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

    def facts(self) -> dict[str, object]:
        """The fields that `--json` prints."""
        return {
            "version": self.version,
            "base": self.base,
            "size": self.size,
            "edges": [
                {
                    "object": edge.name,
                    "from": edge.base,
                    "to": edge.manifest.version,
                    "size": edge.manifest.size,
                    "changed": edge.manifest.changed,
                    "packs": len(edge.manifest.packs),
                }
                for edge in self.edges
            ],
        }

    def table(self) -> Table:
        """The route as a table."""
        start = "nothing" if self.base is None else f"version {self.base}"
        title = f"from {start} to version {self.version}: {bytes_text(self.size)}"
        rows = [
            [
                "nothing" if edge.base is None else str(edge.base),
                str(edge.manifest.version),
                bytes_text(edge.manifest.size),
                f"{edge.manifest.changed:,}",
                str(len(edge.manifest.packs)),
                edge.name,
            ]
            for edge in self.edges
        ]
        return Table(title, ["from", "to", "size", "changed", "packs", "<object"], rows)

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()
