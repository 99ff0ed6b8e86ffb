"""Published versions: what a chain says of one of them, and of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import overload

from ..errors import TensorDeltaError
from ..events import Timings
from ..format.layout import Layout
from ..format.layout_change import LayoutChange
from ..format.manifest import Manifest
from ..format.names import fingerprints_name, layout_name, manifest_name
from ..state.folder import LeftOut
from ..tables import Shown, ends
from .reader import Reader

#: Versions that an overview reads where the store lists nothing.
_NEWEST = 20


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
        timings: where `seconds` went; None where nothing was written for it.
        layout_change: how its tensors differ from those of the version before; None where they do not, or where there
            is no version before.
        left_out: what publishing did not take of the checkpoint's folder, and why. No chain holds this, so it is empty
            for a version that was read back.
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
    timings: Timings | None = None
    layout_change: LayoutChange | None = None
    left_out: Sequence[LeftOut] = ()

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


def describe(
    manifest: Manifest,
    layout: Layout,
    change: LayoutChange | None,
    *,
    size: int,
    seconds: float | None,
    timings: Timings | None = None,
) -> Published:
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
        timings=timings,
        layout_change=change,
    )


def layout_change(reader: Reader, version: int) -> LayoutChange | None:
    """How a version's tensors differ from those of the version before; None where they do not, or where there is none.

    Raises:
        MissingError: no such version.
        TensorDeltaError: a manifest or layout of the two cannot be read.
    """
    manifest = reader.documents.manifest(version)
    before = reader.documents.newest(below=version)
    return None if before is None else _change(reader, reader.documents.manifest(before), manifest)


def _change(reader: Reader, before: Manifest, manifest: Manifest) -> LayoutChange | None:
    if before.layout == manifest.layout:
        return None
    return LayoutChange.between(reader.documents.layout(before.layout), reader.documents.layout(manifest.layout))


class History(Shown, Sequence[Published]):
    """The versions of a chain, ascending."""

    def __init__(self, rows: Sequence[Published]) -> None:
        self._rows = rows

    @classmethod
    def of(cls, reader: Reader) -> History:
        """Read a chain's history.

        A version's size is that of its manifest and of all objects that it is the first to name. Where the store lists
        nothing, the versions are those to which the hint leads, and their sizes those of packs and files.
        """
        versions = list(reader.documents.signed(reader.documents.versions()))
        lists = reader.store.lists
        sizes = {entry.name: entry.size for entry in reader.store.entries("")} if versions and lists else {}
        rows: list[Published] = []
        seen: set[str] = set()
        before: Manifest | None = None
        for version in versions:
            manifest = reader.documents.manifest(version)
            if not lists:
                named = {pack.path: pack.size for pack in manifest.packs if pack.path is not None}
                named |= {file.path: file.size for file in manifest.files}
                sizes |= {name: each for name, each in named.items() if name not in seen}
                seen |= named.keys()
            size = sizes.pop(manifest_name(version), 0)
            size += sum(sizes.pop(name, 0) for name in named_objects(manifest))
            layout = reader.documents.layout(manifest.layout)
            change = None if before is None else _change(reader, before, manifest)
            rows.append(describe(manifest, layout, change, size=size, seconds=None))
            before = manifest
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


@dataclass(frozen=True, repr=False)
class Overview(Shown):
    """A chain in short: its first and its newest versions. Other manifests are not read, however long the chain is.

    Attributes:
        chain, address: the chain's id, and the address of its store.
        versions: how many versions there are; None where the store lists nothing, and there are more than were read.
        size: bytes of all objects of the store; None where it lists nothing.
        head, tail: the first versions, and the newest ones; all are in `head` where there are few. The size of one
            counts what the version before it does not name.
    """

    chain: str
    address: str
    versions: int | None
    size: int | None
    head: Sequence[Published]
    tail: Sequence[Published]

    @classmethod
    def of(cls, reader: Reader) -> Overview:
        """Read the ends of a chain; where the store lists nothing, the newest end."""
        documents, store = reader.documents, reader.store
        sizes: dict[str, int] = {}
        if store.lists:
            listed = documents.versions()
            sizes = {entry.name: entry.size for entry in store.entries("")} if listed else {}
            head, omitted, tail = ends(listed)
            before = listed[-len(tail) - 1] if omitted else None
            count: int | None = len(listed)
        else:
            listed = list(islice(documents.lineage(), _NEWEST + 1))[::-1]
            head, tail = (listed, []) if len(listed) <= _NEWEST else ([], listed[1:])
            before, count = (listed[0], None) if tail else (None, len(listed))
        shown = [list(_rows(reader, versions, base, sizes)) for versions, base in ((head, None), (tail, before))]
        return cls(reader.chain, store.address, count, sum(sizes.values()) if store.lists else None, *shown)


def _rows(reader: Reader, versions: Sequence[int], before: int | None, sizes: Mapping[str, int]) -> Iterator[Published]:
    """Some versions that follow one another; the one before the first is known, or there is none."""
    documents = reader.documents
    held: Manifest | None = None
    with suppress(TensorDeltaError):  # which is no fault of the versions that are shown
        held = None if before is None else documents.manifest(before)
    for version in documents.signed(versions):
        manifest = documents.manifest(version)
        known = set() if held is None else set(named_objects(held))
        named = {pack.path: pack.size for pack in manifest.packs if pack.path is not None}
        named |= {file.path: file.size for file in manifest.files}
        size = sizes.get(manifest_name(version), 0)
        size += sum(sizes.get(name, named.get(name, 0)) for name in {*named_objects(manifest)} - known)
        change = None if held is None else _change(reader, held, manifest)
        yield describe(manifest, documents.layout(manifest.layout), change, size=size, seconds=None)
        held = manifest


def named_objects(manifest: Manifest) -> list[str]:
    """Names of the objects under the root that a manifest names."""
    names = [layout_name(manifest.layout)]
    names += (pack.path for pack in manifest.packs if pack.path is not None)
    names += (file.path for file in manifest.files)
    if isinstance(manifest.tensor_fingerprints, str):
        names.append(fingerprints_name(manifest.tensor_fingerprints))
    return names
