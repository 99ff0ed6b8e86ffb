"""Histories: what a chain's manifests say of its versions, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from ..format.manifest import Manifest
from ..format.names import fingerprints_name, layout_name, manifest_name
from ..tables import Table
from .published import Published, describe, versions_table
from .reader import Reader


class History(Sequence[Published]):
    """The versions of a chain, ascending."""

    def __init__(self, rows: Sequence[Published]) -> None:
        self._rows = rows

    @classmethod
    def of(cls, reader: Reader) -> History:
        """Read a chain's history.

        A version's size is that of its manifest and of all objects that it is the first to name.
        """
        versions = reader.documents.versions()
        sizes = {entry.name: entry.size for entry in reader.store.entries("")} if versions else {}
        rows: list[Published] = []
        for version in versions:
            manifest = reader.documents.manifest(version)
            size = sizes.pop(manifest_name(version), 0)
            size += sum(sizes.pop(name, 0) for name in named_objects(manifest))
            rows.append(describe(manifest, reader.documents.layout(manifest.layout), size=size, seconds=None))
        return cls(rows)

    @overload
    def __getitem__(self, index: int) -> Published: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Published]: ...

    def __getitem__(self, index: int | slice) -> Published | Sequence[Published]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Published]:
        return iter(self._rows)

    def table(self, title: str = "versions") -> Table:
        """The history as a table."""
        return versions_table(self._rows, title)

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()


def named_objects(manifest: Manifest) -> list[str]:
    """Names of the objects under the root that a manifest names."""
    names = [layout_name(manifest.layout)]
    names += (pack.path for pack in manifest.packs if pack.path is not None)
    names += (file.path for file in manifest.files)
    if isinstance(manifest.tensor_fingerprints, str):
        names.append(fingerprints_name(manifest.tensor_fingerprints))
    return names
