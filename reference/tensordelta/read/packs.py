"""A chain's packs and files: brought from the root or a source, proven, their tables checked (SPEC.md section 4)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..errors import MalformedError
from ..events import Listener
from ..format import pack
from ..format.layout import Layout
from ..format.manifest import FileEntry, Manifest, PackEntry
from ..format.pack import Blob, Pack
from ..stores import Parts, Store
from ..stores.cache import PackCache
from ..stores.download import Downloads, Wanted, part_size
from .documents import RootReader
from .sources import KEPT, Sources, prove, prove_download
from .trust import Trust


def default_memory() -> int:
    """The memory budget where none is given: four fifths of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5
    except (ValueError, OSError, AttributeError):
        return 8 << 30


class PackReader(RootReader):
    """Reads a chain's packs and files as well as what names them.

    Args:
        store, chain, trust: see `RootReader`, errors too.
        memory: the memory budget in bytes.
        sources: places beside the root that may have packs.
        listener: told of events.
        cache: where packs of a store that is far away lie on this machine; by default this user's.
    """

    def __init__(
        self,
        store: Store,
        *,
        chain: str | None = None,
        memory: int | None = None,
        sources: Sources | None = None,
        listener: Listener | None = None,
        cache: PackCache | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.memory = default_memory() if memory is None else memory
        self.sources = sources or Sources()
        self.listener = listener
        self._cache = (cache or PackCache()) if store.remote else None
        self._local = threading.local()
        super().__init__(store, chain=chain, trust=trust)

    def packs(self, manifest: Manifest, layout: Layout, *, object: str) -> list[tuple[Pack, Blob]]:
        """A manifest's packs: fetched, proven, their tables checked."""
        self.check_ranges(manifest, layout, object=object)
        packs: list[tuple[Pack, Blob]] = []
        room = KEPT
        for entry in manifest.packs:
            keep = entry.size <= room
            room -= entry.size if keep else 0
            packs.append(self.pack(entry, manifest, layout, keep=keep))
        pack.check_overlap([each for each, _ in packs], layout, object=object)
        return packs

    def check_ranges(self, manifest: Manifest, layout: Layout, *, object: str) -> None:
        """Check that no pack entry passes the end of the layout.

        Raises:
            MalformedError: one does.
        """
        for entry in manifest.packs:
            if entry.tensors[1] > len(layout):
                raise MalformedError(
                    f"`tensors` is {list(entry.tensors)}, the layout has {len(layout)}",
                    object=object,
                    rule="TD-MAN-010",
                )

    def pack(self, entry: PackEntry, manifest: Manifest, layout: Layout, *, keep: bool) -> tuple[Pack, Blob]:
        """One pack, fetched, proven, its table checked."""
        with self._downloads() as downloads:
            blob = self.sources.fetch(entry, self.store, keep=keep, downloads=downloads)
        return pack.read_pack(blob, entry, layout, manifest), blob

    def file(self, entry: FileEntry) -> Blob:
        """A file that lies beside the checkpoint, proven.

        Raises:
            MissingError, IntegrityError: see SPEC.md section 4.9.
        """
        keep, label = entry.size <= KEPT, f"{entry.path} ({entry.name})"
        with self._downloads() as downloads:
            if downloads is not None:
                wanted = Wanted(entry.path, entry.sha256, entry.size)
                return prove_download(downloads, wanted, keep=keep, label=label)
        return prove(lambda: self.store.open(entry.path), sha256=entry.sha256, size=entry.size, keep=keep, label=label)

    # -- downloads ------------------------------------------------------------------------------------------------

    @contextmanager
    def ahead(self, entries: Iterable[tuple[int, PackEntry]]) -> Iterator[None]:
        """Have packs of a far store on their way while the block runs; whatever this thread reads comes from them.

        Args:
            entries: packs in the order in which they will be read, each with the version that needs it.
        """
        if self._cache is None:
            yield
            return
        wanted = [
            Wanted(entry.path, entry.sha256, entry.size, version)
            for version, entry in entries
            if entry.path is not None and not self.sources.has_candidate(entry)
        ]
        outer = getattr(self._local, "downloads", None)
        part = part_size(self.memory)
        with Downloads(self.store, self._cache, wanted, part=part, listener=self.listener) as downloads:
            self._local.downloads = downloads
            try:
                yield
            finally:
                self._local.downloads = outer

    def keep(self, sha256: str, parts: Parts) -> None:
        """Keep a pack that was put into a far store, so that it need not come back."""
        if self._cache is not None:
            self._cache.put(sha256, parts)

    @contextmanager
    def _downloads(self) -> Iterator[Downloads | None]:
        """This thread's downloads; None where the store is near."""
        if self._cache is None or getattr(self._local, "downloads", None) is not None:
            yield getattr(self._local, "downloads", None)
            return
        with self.ahead(()):
            yield self._local.downloads
