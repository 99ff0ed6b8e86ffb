"""Plans: the route that a reader would take, without taking it (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import TensorDeltaError
from ..tables import Shown
from .reader import Reader
from .routes import Edge, Held


@dataclass(frozen=True, repr=False)
class Plan(Shown):
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
