"""Proven bytes: in memory, or in a file of which each block is proven again whenever it is read.

What a process has proven it remembers: a second read of a pack proves the blocks that it takes, and parses no table
again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from ..errors import IntegrityError
from ..format.pack import Blob, Pack
from ..progress import current
from ..stores import StoredBlob
from ..threads import Lock

#: Bytes of a large pack that are read, and proven, at once.
_BLOCK = 1 << 18

#: How many packs are remembered, and the greatest number of blocks of one: at most 8 MB of memory.
_MANY, _BLOCKS = 256, 1024
#: Bytes of the largest table that is remembered; what it takes when it is parsed is several times that.
_TABLE = 1 << 17


class MemoryBlob:
    """Proven bytes in memory."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`, or fewer where the object ends."""
        return self._data[offset : offset + length]


class ProvenBlob:
    """An object that is too large for memory; each block is proven again whenever it is read.

    Attributes:
        size: bytes of the object.
        digests: SHA-256 of its blocks.
    """

    def __init__(self, open_blob: Callable[[], StoredBlob], size: int, digests: Sequence[bytes], label: str) -> None:
        self._open = open_blob
        self.digests = digests
        self._label = label
        self.size = size

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`, or fewer where the object ends."""
        length = min(length, self.size - offset)
        if length <= 0:
            return memoryview(b"")
        first, last = offset // _BLOCK, (offset + length - 1) // _BLOCK
        start = first * _BLOCK
        with self._open() as blob:
            data = blob.read(start, min((last + 1) * _BLOCK, self.size) - start)
        for block in range(first, last + 1):
            at = block * _BLOCK - start
            if hashlib.sha256(data[at : at + _BLOCK]).digest() != self.digests[block]:
                raise IntegrityError("changed while it was read", object=self._label, rule="TD-SEC-002")
        return data[offset - start : offset - start + length]


def prove(open_blob: Callable[[], StoredBlob], *, sha256: str, size: int, keep: bool, label: str) -> Blob:
    """Read a whole object once, and prove its size and SHA-256.

    Args:
        open_blob: opens the object.
        sha256, size: what the object must have.
        keep: keep the bytes in memory.
        label: how errors name the object.

    Raises:
        IntegrityError: another size or SHA-256.
    """
    digest = hashlib.sha256()
    digests: list[bytes] = []
    work = current()
    with open_blob() as blob:
        if blob.size != size:
            raise IntegrityError(f"{blob.size} bytes, not {size}", object=label, rule="TD-MAN-013")
        kept: memoryview | None = None
        if keep:
            kept = blob.read(0, size)
            digest.update(kept)
            work.add(size)
        else:
            for offset in range(0, size, _BLOCK):
                block = blob.read(offset, min(_BLOCK, size - offset))
                digest.update(block)
                digests.append(hashlib.sha256(block).digest())
                work.add(len(block))
    if digest.hexdigest() != sha256:
        raise IntegrityError(f"its SHA-256 is {digest.hexdigest()}", object=label, rule="TD-MAN-013")
    return MemoryBlob(kept) if kept is not None else ProvenBlob(open_blob, size, digests, label)


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
