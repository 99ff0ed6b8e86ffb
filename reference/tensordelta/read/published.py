"""What a chain tells of a version that was published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..format.layout import Layout
from ..format.manifest import Manifest
from ..tables import Shown


@dataclass(frozen=True, repr=False)
class Published(Shown):
    """A version that was published.

    Attributes:
        version, base: the version, and the one that it is a delta to (None for a full version).
        size: bytes of all objects put for it.
        changed: number of listed words.
        words: number of words of the state.
        nbytes: bytes of the state.
        seconds: how long publishing took; None for a version that was read back from a chain.
        fingerprint: of the state.
        packs: number of packs.
        created: when, as the manifest says.
        annotations: as given.
    """

    version: int
    base: int | None
    size: int
    changed: int
    words: int
    nbytes: int
    seconds: float | None
    fingerprint: str
    packs: int
    created: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Share of the words that are listed."""
        return self.changed / self.words if self.words else 0.0

    @property
    def ratio(self) -> float:
        """How many times smaller than the whole state."""
        return self.nbytes / self.size if self.size else 0.0

    @property
    def bits_per_change(self) -> float:
        """Bits put for each listed word."""
        return self.size * 8 / self.changed if self.changed else 0.0


def describe(manifest: Manifest, layout: Layout, *, size: int, seconds: float | None) -> Published:
    """What a manifest says of its version."""
    return Published(
        version=manifest.version,
        base=None if manifest.base is None else manifest.base.version,
        size=size,
        changed=manifest.changed,
        words=layout.words,
        nbytes=layout.nbytes,
        seconds=seconds,
        fingerprint=manifest.fingerprint,
        packs=len(manifest.packs),
        created=manifest.created,
        annotations=dict(manifest.annotations),
    )
