"""Manifests that were read, kept for the next time that they are needed.

Of a model that many writers publish, a manifest parsed takes some megabytes, and a process follows a chain for weeks.
"""

from __future__ import annotations

from ..format.manifest import Manifest
from ..threads import Lock

#: Packs and ranges of tensors of all manifests that are kept; parsed, each takes some 150 bytes.
ROOM = 1 << 18


class Manifests:
    """The manifests that were used last, by version. Several threads may use one object.

    Args:
        room: packs and ranges of tensors of all that are kept; the one that was used last is kept in any case.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._kept: dict[int, Manifest] = {}
        self._used = 0
        self._lock = Lock()

    def get(self, version: int) -> Manifest | None:
        """A version's manifest; None where it is not kept."""
        with self._lock:
            found = self._kept.pop(version, None)
            if found is not None:
                self._kept[version] = found
            return found

    def keep(self, version: int, manifest: Manifest) -> None:
        """Keep a version's manifest, and forget those that were used least recently if there is no room."""
        with self._lock:
            self._drop(version)
            self._kept[version] = manifest
            self._used += _size(manifest)
            while self._used > self._room and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def forget(self, version: int) -> None:
        """Forget a version's manifest."""
        with self._lock:
            self._drop(version)

    def _drop(self, version: int) -> None:
        found = self._kept.pop(version, None)
        if found is not None:
            self._used -= _size(found)


def _size(manifest: Manifest) -> int:
    return 1 + sum(1 + len(entry.tensors) for entry in manifest.packs)
