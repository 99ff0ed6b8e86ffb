"""Where an export writes: a version becomes visible whole, after its bytes were proven, and is recorded."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from ..errors import ConflictError, MissingError
from ..stores import FileBlob, FolderStore, Store, StoredBlob, sync_folder
from ..stores.spool import scratch_folder
from .format import Format, Marker, Source
from .objects import file_parts, read_document

#: The object that says which version of the chain each exported one is.
RECORD = "tensordelta-export.json"
#: How the names of folders begin in which versions are built.
_STAGE = ".export-"


class _Staging:
    """A store, and files on their way to it; see `Target`."""

    def __init__(self, store: Store, work: Path) -> None:
        self._store, self._work = store, work
        self.size = 0

    def put(self, name: str, data: bytes) -> None:
        self.size += len(data)
        self._store.put(name, [data])

    def put_file(self, name: str, path: Path) -> None:
        self.size += path.stat().st_size
        self._store.put(name, file_parts(path))
        path.unlink()

    def new_file(self) -> Path:
        return self._work / secrets.token_hex(8)


class _WithMarker:
    """A version as it will be seen: the objects that were put, and the marker that was not."""

    def __init__(self, store: Source, marker: Marker) -> None:
        self._store, self._marker = store, marker

    def open(self, name: str) -> StoredBlob:
        if name != self._marker.name:
            return self._store.open(name)
        content = self._marker.content
        return _Held(content) if isinstance(content, bytes) else FileBlob(content, object=name)


class _Held:
    """Bytes in memory as an open object."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def read(self, offset: int, length: int) -> memoryview:
        return self._data[offset : offset + length]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Destination:
    """The place of an export, which belongs to one chain and one format.

    Args:
        store: the place.
        format: of the export.
        chain: the chain's id.

    Raises:
        ConflictError: the place has other contents, or the export of another chain or format.
    """

    def __init__(self, store: Store, format: Format, chain: str) -> None:
        self._store, self._format, self._chain = store, format, chain
        self._versions: dict[str, int] = {}
        try:
            record, _ = read_document(store, RECORD, rule=format.appendix)
        except MissingError:
            if next(iter(store.names("")), None) is not None:
                raise self._conflict("has contents that are no export") from None
            self._sweep()
            self._record({})
            return
        if record.get("chain") != chain or record.get("format") != format.name:
            raise self._conflict(f"is an export of chain {record.get('chain')} as {record.get('format')}")
        versions = record.get("versions")
        if not isinstance(versions, dict) or not all(type(version) is int for version in versions.values()):
            raise self._conflict(f"has a {RECORD} that cannot be read")
        self._versions = versions
        self._sweep()

    def _sweep(self) -> None:
        """Remove what exports into this place left that were killed, of which one works at a time."""
        if isinstance(self._store, FolderStore):
            for abandoned in self._store.root.glob(f"{_STAGE}*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            for each in self._store.temporaries():
                self._store.remove_temporary(each.name)

    def _conflict(self, reason: str) -> ConflictError:
        return ConflictError(
            reason,
            object=self._store.address,
            rule=self._format.appendix,
            advice="Export into a place that is empty, or into the one where this export began.",
        )

    def _record(self, versions: dict[str, int]) -> None:
        record = {"format": self._format.name, "chain": self._chain, "versions": versions}
        self._store.put(RECORD, [json.dumps(record).encode()])
        self._versions = versions

    @property
    def address(self) -> str:
        """The place's address."""
        return self._store.address

    def newest(self) -> tuple[str, int] | None:
        """The name of the newest version that is visible, and its version in the chain; None for none.

        Raises:
            ConflictError: a version that is visible is not recorded, or the other way round.
        """
        for id, version in reversed(self._versions.items()):
            if any(self._store.size(name) is not None for name in self._format.marker_names(id)):
                return id, version
            if id != list(self._versions)[-1]:
                raise self._conflict(f"lacks version {id}, which {RECORD} names")
        return None

    def write(self, id: str, version: int, make: Callable[[_Staging], Marker], prove: Callable[[Source], None]) -> int:
        """Write a version, prove it, and make it visible; gives its bytes.

        Args:
            id: its name.
            version: its number in the chain.
            make: writes its objects, and gives the one that makes it visible.
            prove: reads the version as others will.

        Raises:
            ConflictError: there is something under its name.
            Exception: raised by `make` or `prove`; nothing is visible then.
        """
        folder = self._format.folder(id)
        with scratch_folder() as work, self._stage(folder) as stage:
            staging = _Staging(stage, work)
            marker = make(staging)
            prove(_WithMarker(stage, marker))
            self._record({name: each for name, each in self._versions.items() if name != id} | {id: version})
            parts = [marker.content] if isinstance(marker.content, bytes) else file_parts(marker.content)
            size = len(marker.content) if isinstance(marker.content, bytes) else marker.content.stat().st_size
            stage.put(marker.name, parts)
            if stage is not self._store and folder is not None:
                self._move(stage, folder)
        return staging.size + size

    @contextmanager
    def _stage(self, folder: str | None) -> Iterator[Store]:
        """The store where a version is built: beside its place where a folder can be moved there whole."""
        if folder is not None and isinstance(self._store, FolderStore):
            stage = self._store.root / f"{_STAGE}{secrets.token_hex(8)}"
            try:
                yield FolderStore(stage)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
            return
        if folder is not None:  # what an export left that broke off
            for name in list(self._store.names(folder)):
                self._store.delete(name)
        yield self._store

    def _move(self, stage: Store, folder: str) -> None:
        assert isinstance(stage, FolderStore) and isinstance(self._store, FolderStore)
        place = self._store.root / folder.rstrip("/")
        if place.exists():
            raise self._conflict(f"has a folder {folder.rstrip('/')} that this export did not make")
        (stage.root / folder.rstrip("/")).rename(place)
        sync_folder(self._store.root)
