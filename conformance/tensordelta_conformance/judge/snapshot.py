"""The folder of a chain: its objects, and what they were at one time (SPEC.md sections 4.1 and 12.2)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..small_reader.documents import MANIFEST_NAME, SHORTCUT_NAME

KINDS = {
    "chain": re.compile(r"chain\.json"),
    "latest": re.compile(r"latest\.json"),
    "layout": re.compile(r"layouts/[0-9a-f]{64}\.json"),
    "pack": re.compile(r"packs/[0-9a-f]{64}-[0-9a-f]{16}\.safetensors"),
    "manifest": MANIFEST_NAME,
    "shortcut": SHORTCUT_NAME,
    "fingerprints": re.compile(r"fingerprints/[0-9a-f]{64}\.bin"),
    "file": re.compile(r"files/[0-9a-f]{64}-[0-9a-f]{16}"),
    "copy": re.compile(rf"retired/({MANIFEST_NAME.pattern}|{SHORTCUT_NAME.pattern})"),
    "signature": re.compile(r"signatures/[0-9a-f]{64}-[0-9a-f]{16}\.json"),
    "pin": re.compile(r"pins/[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\.json"),
}
CHANGEABLE = ("latest", "pin")
"""The kinds that a Writer may overwrite and remove at any time."""
BY_DIGEST = ("layout", "pack", "fingerprints", "file")
"""The kinds whose names have the digest of the bytes, and that section 13 protects."""


def kind_of(name: str) -> str | None:
    """The kind of an object by the table of section 4.1; None where no pattern matches."""
    return next((kind for kind, pattern in KINDS.items() if pattern.fullmatch(name)), None)


def is_temporary(name: str) -> bool:
    """Whether a name is hidden, as those of temporary files are."""
    return any(part.startswith(".") for part in name.split("/"))


class Folder(Mapping[str, bytes]):
    """The objects of a folder store, read when they are asked for, and then kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = dict(_files(root))
        self._read: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if name not in self._read:
            self._read[name] = self._files[name].read_bytes()
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def names(self, prefix: str) -> list[str]:
        """The names of the objects whose names begin with a prefix."""
        return [name for name in self._files if name.startswith(prefix)]

    def size(self, name: str) -> int | None:
        """The size of an object; None if it does not exist."""
        return self._files[name].stat().st_size if name in self._files else None

    def read(self, name: str) -> bytes:
        """The bytes of an object."""
        return self[name]

    def stamp(self, name: str) -> Stamp:
        """What an object is now."""
        status = self._files[name].stat()
        digest = hashlib.sha256(self[name]).hexdigest()
        return Stamp(digest, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Stamp:
    """An object at one time: the SHA-256 of its bytes, and what the file system says of its age."""

    sha256: str
    size: int
    modified: int


@dataclass(frozen=True)
class Snapshot:
    """All objects of a folder at one time, by name.

    Attributes:
        pins: the bytes of the pins: what they held counts although they are gone since.
        edges: the bytes of manifests, shortcuts and copies of these, likewise.
    """

    objects: dict[str, Stamp]
    pins: dict[str, bytes] = field(default_factory=dict)
    edges: dict[str, bytes] = field(default_factory=dict)

    @staticmethod
    def of(root: Path) -> Snapshot:
        """What lies under a root now."""
        return Snapshot.of_folder(Folder(root))

    @staticmethod
    def of_folder(folder: Folder) -> Snapshot:
        """What lies in a folder now."""
        pins = {name: folder[name] for name in folder if kind_of(name) == "pin"}
        edges = {name: folder[name] for name in sorted(folder) if kind_of(name) in ("manifest", "shortcut", "copy")}
        return Snapshot({name: folder.stamp(name) for name in folder}, pins, edges)

    def names(self, *kinds: str) -> list[str]:
        """The names of the objects of some kinds, in order."""
        return sorted(name for name in self.objects if kind_of(name) in kinds)

    def versions(self) -> list[int]:
        """The versions that exist, in order."""
        return sorted(int(name[10:22]) for name in self.names("manifest"))


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Regular files, and links to such inside the root; folders that are links are not followed."""
    real = root.resolve()
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            inside = not path.is_symlink() or path.resolve().is_relative_to(real)
            if inside and path.is_file():
                yield path.relative_to(root).as_posix(), path
