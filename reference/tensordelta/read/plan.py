"""Plans: the route that a reader would take, without taking it (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import TensorDeltaError
from ..tables import Table, bytes_text
from .reader import Reader
from .routes import Edge, Held


@dataclass(frozen=True, repr=False)
class Plan:
    """The route to a version.

    Attributes:
        version: where it ends.
        base: the version that the reader holds; None for nothing.
        edges: its members in order; empty where the version is held already.
    """

    version: int
    base: int | None
    edges: Sequence[Edge]

    @property
    def size(self) -> int:
        """Bytes of packs that it takes."""
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


def plan(reader: Reader, version: int, base: int | None) -> Plan:
    """Plan the route of a reader that holds `base`.

    Raises:
        MissingError: no such version, or no route.
        UntrustedError: keys are configured, and the version is not signed.
        TensorDeltaError: the error of the member that failed first.
    """
    held = None
    if reader.trust is not None:
        reader.manifest(version)  # one without signature is none that a planner passes over (TD-SIG-002)
    if base is not None:
        try:
            own = reader.manifest(base)
            held = Held(base, own.fingerprint, own.layout)
            target = reader.manifest(version)
            if (own.layout, own.fingerprint) == (target.layout, target.fingerprint):
                return Plan(version, base, ())
        except TensorDeltaError:  # it may be held although its manifest is gone
            held = Held(base)
    ahead = held if held is not None and held.version < version else None
    return Plan(version, base, tuple(reader.planner(ahead).plan(version, held=held)))
