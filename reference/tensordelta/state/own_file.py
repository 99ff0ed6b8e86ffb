"""A small file of a checkpoint: where it may lie, and how it is read.

A checkpoint may come from another user, and its files may be links. One that leads to a file of this user, such as a
key, would publish it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ..errors import LimitError
from ..stores.regular import open_regular

#: Bytes that a file of a checkpoint may have, other than a safetensors file.
MAX_FILE = 64 * 2**20
_READ = 1 << 22
#: In these the kernel makes up what files hold.
_KERNEL = (Path("/proc"), Path("/sys"))


class OwnFolder:
    """A checkpoint's folder, and the places to which links in it may lead.

    These are the folder itself and, for a snapshot in a cache of the Hugging Face Hub
    (`REPOSITORY/snapshots/REVISION`), `REPOSITORY/blobs`.

    Args:
        path: of the folder; links in this path itself are followed, because the user chose it.
    """

    def __init__(self, path: Path) -> None:
        root = Path(os.path.realpath(path))
        self._path = path
        self._places = [root]
        for folder in (root, *root.parents):  # a part of a pipeline is a folder in its snapshot
            if folder.parent.name == "snapshots":
                self._places.append(folder.parent.parent / "blobs")

    def real(self, name: str) -> Path | None:
        """Where a file of this name lies, with no link in the path; None if that is at no place of the checkpoint."""
        real = Path(os.path.realpath(self._path / name))
        if any(real.is_relative_to(place) for place in _KERNEL):
            return None
        return real if any(real.is_relative_to(place) for place in self._places) else None


@dataclass(frozen=True)
class OwnFile:
    """A small file, opened anew for each use. It is read up to the size that it has when it is opened.

    Attributes:
        path: its path, for messages.
        real: the same without links. A link that takes this place is not followed.
        limit: bytes that it may have.
    """

    path: Path
    real: Path
    limit: int = MAX_FILE

    @classmethod
    def given(cls, path: Path) -> OwnFile:
        """A file that a user names; links are followed, because the user chose it."""
        return cls(path, Path(os.path.realpath(path)), 1 << 40)

    @property
    def size(self) -> int:
        """Its bytes now."""
        return self.real.lstat().st_size

    def read(self, most: int | None = None) -> bytes:
        """Its bytes, or as many of the first ones.

        Raises:
            OSError: it cannot be read, or is no regular file.
            LimitError: it is larger than its limit.
        """
        with self._opened() as (file, size):
            return file.read(size if most is None else min(size, most))

    def parts(self) -> Iterator[bytes]:
        """Its bytes in parts. Raises as `read` does."""
        with self._opened() as (file, left):
            while left and (part := file.read(min(left, _READ))):
                left -= len(part)
                yield part

    @contextmanager
    def _opened(self) -> Iterator[tuple[BufferedReader, int]]:
        try:
            descriptor = open_regular(self.real)
        except OSError as error:
            error.filename = str(self.path)
            raise
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size > self.limit:
                raise LimitError(
                    f"has {size:,} bytes, and a file beside the weights may have {self.limit:,}",
                    object=str(self.path),
                    rule="TD-PCK-014",
                    advice="Write it again, or move it out of the folder.",
                )
            yield file, size
