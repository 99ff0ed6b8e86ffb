"""Proven bytes: in memory, or in a file of which each block is proven again whenever it is read.

What a process has proven it remembers: a second read of a pack proves the blocks that it takes, and parses no table
again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from ..errors import IntegrityError
from ..format.pack import Pack
from ..progress import current
from ..stores import StoredBlob
from ..threads import Lock

#: Bytes that are proven at once when a part of an object is read: of one of up to so many bytes, and of a larger one.
_BLOCK, _MEDIUM, _LARGE_BLOCK = 1 << 16, 1 << 22, 1 << 18

#: How many packs are remembered, and how many blocks of all of them: some 5 MB of memory.
_MANY, _BLOCKS = 256, 1 << 14
#: Bytes of the largest table that is remembered; what it takes when it is parsed is several times that.
_TABLE = 1 << 17


class Blocks:
    """What proves any block of an object whose SHA-256 was proven: that hash before and after each block.

    A block of other bytes that leads from the one to the other would be a collision of SHA-256.

    Args:
        size: bytes of the object.

    Attributes:
        length: bytes of each block but the last.
    """

    def __init__(self, size: int) -> None:
        self.length = _BLOCK if size <= _MEDIUM else _LARGE_BLOCK
        self._size = size
        self._sha256 = hashlib.sha256()
        self._before: list[hashlib._Hash] = []
        self._after: list[bytes] = []

    def __len__(self) -> int:
        return len(self._after)

    def places(self) -> Iterator[tuple[int, int]]:
        """Offset and length of each block."""
        return ((at, min(self.length, self._size - at)) for at in range(0, self._size, self.length))

    def append(self, block: memoryview) -> None:
        """Hash the next block."""
        self._before.append(self._sha256.copy())
        self._sha256.update(block)
        self._after.append(self._sha256.digest())

    def sha256(self) -> str:
        """SHA-256 of all blocks so far, 64 hex digits."""
        return self._sha256.hexdigest()

    def around(self, offset: int, length: int) -> tuple[int, int]:
        """Offset and length of the blocks that have bytes of a range."""
        start = offset - offset % self.length
        return start, min(-(-(offset + length) // self.length) * self.length, self._size) - start

    def prove(self, offset: int, data: memoryview) -> bool:
        """True if these are the object's bytes from `offset` on; offset and length are those of whole blocks."""
        first = offset // self.length
        sha256 = self._before[first].copy()
        for number, at in enumerate(range(0, len(data), self.length), first):
            sha256.update(data[at : at + self.length])
            if sha256.digest() != self._after[number]:
                return False
        return True


class MemoryBlob:
    """Proven bytes in memory.

    Attributes:
        size: how many.
        blocks: what proves them in a file; None where that was not made.
    """

    def __init__(self, data: memoryview, blocks: Blocks | None = None) -> None:
        self._data = data
        self.size = len(data)
        self.blocks = blocks

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`, or fewer where the object ends."""
        return self._data[offset : offset + length]


class ProvenBlob:
    """An object that is not in memory; each block is proven again whenever it is read.

    Attributes:
        size: bytes of the object.
        blocks: what proves them.
    """

    def __init__(self, open_blob: Callable[[], StoredBlob], size: int, blocks: Blocks, label: str) -> None:
        self._open = open_blob
        self._label = label
        self.size = size
        self.blocks: Blocks | None = blocks
        self._blocks = blocks

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`, or fewer where the object ends."""
        length = min(length, self.size - offset)
        if length <= 0:
            return memoryview(b"")
        start, whole = self._blocks.around(offset, length)
        with self._open() as blob:
            data = blob.read(start, whole)
        if not self._blocks.prove(start, data):
            raise IntegrityError("changed while it was read", object=self._label, rule="TD-SEC-002")
        return data[offset - start : offset - start + length]


def prove(
    open_blob: Callable[[], StoredBlob], *, sha256: str, size: int, keep: bool, label: str
) -> MemoryBlob | ProvenBlob:
    """Read a whole object once, and prove its size and SHA-256.

    Args:
        open_blob: opens the object.
        sha256, size: what the object must have.
        keep: keep the bytes in memory.
        label: how errors name the object.

    Raises:
        IntegrityError: another size or SHA-256.
    """
    blocks = Blocks(size)
    work = current()
    with open_blob() as blob:
        if blob.size != size:
            raise IntegrityError(f"{blob.size} bytes, not {size}", object=label, rule="TD-MAN-013")
        kept = MemoryBlob(blob.read(0, size), blocks) if keep else None
        for place in blocks.places():
            blocks.append((kept or blob).read(*place))
            work.add(place[1])
    if blocks.sha256() != sha256:
        raise IntegrityError(f"its SHA-256 is {blocks.sha256()}", object=label, rule="TD-MAN-013")
    return ProvenBlob(open_blob, size, blocks, label) if kept is None else kept


@dataclass
class ProvenPack:
    """A pack that was proven.

    Whoever has read bytes of its SHA-256 once can prove any block of them later, in whatever file it lies.

    Attributes:
        blocks: what proves them; None where it has to be proven as a whole.
        tables: what was parsed and checked of it, and the bytes of that JSON, by all that the checks depend on.
    """

    blocks: Blocks | None
    tables: dict[Hashable, tuple[Pack, int]] = field(default_factory=dict)

    def keep(self, key: Hashable, pack: Pack, size: int) -> None:
        """Keep what was parsed, if it is small."""
        if size <= _TABLE and len(self.tables) < 2:
            self.tables[key] = pack, size


class Proven:
    """Packs that were proven, by their SHA-256. Several threads may use one object."""

    def __init__(self) -> None:
        self._packs: dict[str, ProvenPack] = {}
        self._blocks = 0
        self._lock = Lock()

    def remember(self, sha256: str, blocks: Blocks | None) -> ProvenPack:
        """Remember a pack that was proven; those that were used least recently are forgotten."""
        if blocks is not None and len(blocks) > _BLOCKS:
            blocks = None
        with self._lock:
            found = self._packs.get(sha256)
            if found is None:
                found = self._packs[sha256] = ProvenPack(blocks)
                self._blocks += len(blocks or ())
            while len(self._packs) > _MANY or self._blocks > _BLOCKS:
                forgotten = self._packs.pop(next(iter(self._packs)))
                self._blocks -= len(forgotten.blocks or ())
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
