"""Packs that this process has proven: a second read proves the blocks that it takes, and parses no table again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from ..format.pack import Pack
from ..threads import Lock

#: How many packs are remembered, and the greatest number of blocks of one: at most 8 MB of memory.
_MANY, _BLOCKS = 256, 1024
#: Bytes of the largest table that is remembered; what it takes when it is parsed is several times that.
_TABLE = 1 << 17


@dataclass
class ProvenPack:
    """A pack that was proven.

    Whoever has read bytes of its SHA-256 once can prove any block of them later, in whatever file it lies.

    Attributes:
        digests: SHA-256 of its blocks; None where it has to be proven as a whole.
        tables: what was parsed and checked of it, and the bytes of that JSON, by all that the checks depend on.
    """

    digests: Sequence[bytes] | None
    tables: dict[Hashable, tuple[Pack, int]] = field(default_factory=dict)

    def keep(self, key: Hashable, pack: Pack, size: int) -> None:
        """Keep what was parsed, if it is small."""
        if size <= _TABLE and len(self.tables) < 2:
            self.tables[key] = pack, size


class Proven:
    """Packs that were proven, by their SHA-256. Several threads may use one object."""

    def __init__(self) -> None:
        self._packs: dict[str, ProvenPack] = {}
        self._lock = Lock()

    def remember(self, sha256: str, digests: Sequence[bytes] | None) -> ProvenPack:
        """Remember a pack that was proven; the one that was used least recently is forgotten."""
        if digests is not None and len(digests) > _BLOCKS:
            digests = None
        with self._lock:
            found = self._packs.setdefault(sha256, ProvenPack(digests))
            while len(self._packs) > _MANY:
                del self._packs[next(iter(self._packs))]
            return found

    def of(self, sha256: str) -> ProvenPack | None:
        """A pack that was proven, or None."""
        with self._lock:
            found = self._packs.pop(sha256, None)
            if found is not None:
                self._packs[sha256] = found
            return found


#: Of this process.
PROVEN = Proven()
