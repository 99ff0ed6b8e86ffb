"""A chain's packs and files: fetched from the root or another place, and proven (SPEC.md sections 4.8 and 4.9).

A pack is identified by its digest: any place may have its bytes, which are proven before they are parsed. Small packs
are kept in memory. Of a large one the digest of each block is kept, and proves what is read of it later.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from ..errors import IntegrityError, MalformedError, MissingError, StoreError, TensorDeltaError, UntrustedError
from ..events import Listener
from ..format import pack
from ..format.layout import Layout
from ..format.manifest import TENSORS, FileEntry, Manifest, PackEntry
from ..format.names import PACKS
from ..format.pack import Blob, Pack
from ..format.strict_json import KEPT as KEPT_JSON
from ..format.strict_json import PARSING
from ..state.index import SUFFIX
from ..stores import FileBlob, Parts, Store, in_cache
from ..stores.cache import CachedBlob, PackCache
from ..stores.disk import Disk
from ..stores.download import PARALLEL, Downloader, Downloads, Wanted, part_size
from ..stores.hub import public_file
from ..stores.web import WebSource
from .budget import Budget
from .proven import PROVEN, MemoryBlob, ProvenBlob, ProvenPack, prove

_LOG = logging.getLogger("tensordelta")

_Proven = MemoryBlob | ProvenBlob

#: Bytes of the largest pack that a reader of few tensors keeps in memory.
_SMALL = 1 << 20
#: Bytes of packs that one update keeps in memory.
KEPT = 64 << 20


class SourceError(StoreError):
    """A public source failed, and no place that answered has the pack.

    Only the edge that needs the pack fails: a route without it may be found. This error is raised where none is.
    """

    @classmethod
    def of(cls, failure: StoreError) -> SourceError:
        """The same failure as an error of an edge."""
        return cls(failure.address, failure.operation, failure.object, failure.cause, failure.advice)


# -- proven bytes -------------------------------------------------------------------------------------------------


def _prove_file(path: Path, entry: PackEntry, keep: bool) -> _Proven:
    return prove(lambda: FileBlob(path), sha256=entry.sha256, size=entry.size, keep=keep, label=entry.label)


def _prove_download(downloads: Downloads, wanted: Wanted, *, keep: bool, label: str) -> _Proven:
    """An object of a remote store, downloaded and proven. A damaged one is downloaded a second time."""
    downloaded = 0
    while True:
        blob: CachedBlob | None = None
        try:
            blob = downloads.take(wanted, anew=downloaded > 0)
            return prove(partial(_same, blob), sha256=wanted.sha256, size=wanted.size, keep=keep, label=label)
        except IntegrityError:
            downloads.drop(wanted)
            _LOG.info("%s came damaged, and is fetched again", label)
            # A file that was in the cache before may be damaged on this machine: that is no fault of the download.
            downloaded += 1 if blob is None or blob.fresh else 0
            if downloaded == 2:
                raise


def _same(blob: CachedBlob) -> CachedBlob:
    return blob


# -- other places than the root -----------------------------------------------------------------------------------


class Sources:
    """The places other than the root that the user allows a reader to take packs from.

    Args:
        schemes: schemes of a pack's `sources` that may be used, such as "hf"; none by default.
        folders: folders whose files, under any name, may be packs of the chain.
    """

    def __init__(self, schemes: Iterable[str] = (), folders: Iterable[str | Path] = ()) -> None:
        self.schemes = frozenset(schemes)
        self.folders = tuple(Path(folder) for folder in folders)

    def files(self, entry: PackEntry) -> Iterator[Path]:
        """The files that have a pack's size, the likely ones first."""
        for folder in self.folders:
            named = [folder / entry.name] if entry.content == TENSORS and isinstance(entry.name, str) else []
            named += [folder / f"{entry.sha256}{SUFFIX}", folder / "packs" / f"{entry.sha256}{SUFFIX}"]
            others = sorted(folder.iterdir()) if folder.is_dir() else []
            for path in dict.fromkeys((*named, *others)):
                if path.is_file() and path.stat().st_size == entry.size:
                    yield path

    def allowed(self, entry: PackEntry) -> list[str]:
        """The sources of a pack whose scheme is allowed; one without a scheme is skipped."""
        sources = entry.sources if isinstance(entry.sources, list) else []
        return [source for source in sources if "://" in source and source.partition("://")[0] in self.schemes]


# -- packs and files ----------------------------------------------------------------------------------------------


class _Thread(threading.local):
    """What a thread has under way."""

    downloads: Downloads | None = None


class Packs:
    """Reads a chain's packs and files.

    Several threads may use one object; each has its own downloads (see `ahead`).

    Args:
        store: where the chain lies.
        memory: the memory budget in bytes.
        sources: places other than the root that may have packs.
        listener: receives the events of downloads.
        cache: where this machine keeps packs of a remote store; by default this user's.
        disk: the disk budget.
    """

    def __init__(
        self,
        store: Store,
        *,
        memory: int,
        sources: Sources | None = None,
        listener: Listener | None = None,
        cache: PackCache | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.sources = sources or Sources()
        self.cache = (cache or PackCache()) if store.remote else None
        self.disk = disk or Disk()
        self._store = store
        self._listener = listener
        self._part = part_size(memory)
        self._thread = _Thread()

    @property
    def in_flight(self) -> int:
        """The bytes of memory that downloads may take at once."""
        return 0 if self.cache is None else PARALLEL * self._part

    def of(
        self,
        manifest: Manifest,
        layout: Layout,
        budget: Budget,
        entries: Sequence[PackEntry] | None = None,
        *,
        object: str,
    ) -> list[tuple[Pack, Blob]]:
        """A manifest's packs, or those of some entries: fetched, proven, their tables checked.

        The budget has what the parsed tables take.
        """
        check_ranges(manifest, layout, object=object)
        packs: list[tuple[Pack, Blob]] = []
        room = KEPT
        for entry in manifest.packs if entries is None else entries:
            keep = entry.size <= room
            room -= entry.size if keep else 0
            packs.append(self.pack(entry, manifest, layout, budget, keep=keep))
        pack.check_overlap([each for each, _ in packs], layout, object=object)
        return packs

    def pack(
        self, entry: PackEntry, manifest: Manifest, layout: Layout, budget: Budget, *, keep: bool
    ) -> tuple[Pack, Blob]:
        """One pack: fetched, proven, its table checked.

        Raises:
            LimitError: the parsed table would pass the memory budget.
            SourceError: it lies in no place that answered, and a source failed.
            TensorDeltaError: it cannot be had, or breaks a rule.
        """
        blob = self.fetch(entry, keep=keep)
        return pack.read_pack(blob, entry, layout, manifest, parsing=partial(_count, budget, entry)), blob

    def part_of(self, entry: PackEntry, manifest: Manifest, layout: Layout, budget: Budget) -> tuple[Pack, Blob]:
        """As `pack`, for a reader of few tensors, which may come back for others.

        Of a pack under a root on this machine that this process has proven before, only the blocks that are read are
        proven again, when they are read. A small table is not parsed again.
        """
        known = PROVEN.of(entry.sha256)
        blob: _Proven | None = self._by_blocks(entry, known)
        if blob is None:
            keep = entry.size <= _SMALL and budget.used + entry.size <= budget.limit // 8
            if keep:
                budget.take(entry.size, object=entry.label)
            blob = self.fetch(entry, keep=keep)
        if known is None:
            known = PROVEN.remember(entry.sha256, blob.blocks)
        key = msgspec.json.encode(entry), manifest.layout, tuple(manifest.features)
        found = known.tables.get(key)
        if found is not None:
            _count(budget, entry, found[1])
            return found[0], blob
        used = budget.used
        table = pack.read_pack(blob, entry, layout, manifest, parsing=partial(_count, budget, entry))
        known.keep(key, table, (budget.used - used) // KEPT_JSON)
        return table, blob

    def _by_blocks(self, entry: PackEntry, known: ProvenPack | None) -> ProvenBlob | None:
        """A pack under a root on this machine that was proven before, to be read block by block."""
        name, blocks = entry.path, None if known is None else known.blocks
        if blocks is None or name is None or self.cache is not None or self._store.size(name) != entry.size:
            return None
        return ProvenBlob(lambda: self._store.open(name), entry.size, blocks, entry.label)

    def file(self, entry: FileEntry) -> _Proven:
        """A file that belongs next to the checkpoint, proven.

        Raises:
            MissingError, IntegrityError: see SPEC.md section 4.9.
        """
        wanted = Wanted(entry.path, entry.sha256, entry.size)
        label = f"{entry.path} ({entry.name})"
        return self._object(wanted, keep=entry.size <= KEPT, label=label, altered="TD-MAN-022", absent="TD-MAN-029")

    def fetch(self, entry: PackEntry, *, keep: bool) -> _Proven:
        """A pack's proven bytes: from the root, a folder of the user's, or an allowed source.

        Args:
            entry: the pack.
            keep: keep the bytes in memory.

        Raises:
            IntegrityError: the root, or an allowed source, gave other bytes.
            SourceError: no place that answered has the pack, and a source failed.
            MissingError: no place has it.
            UntrustedError: it has only sources that are not allowed.
        """
        faults: list[Exception] = []
        near_to_far = (self._from_root, self._from_folders, self._from_sources)
        if self.cache is not None:
            near_to_far = (self._from_folders, self._from_root, self._from_sources)
        for place in near_to_far:
            blob = place(entry, keep, faults)
            if blob is not None:
                for fault in faults:
                    _LOG.warning("another place has what one has not: %s", fault)
                return blob
        raise self._nowhere(entry, faults)

    def _nowhere(self, entry: PackEntry, faults: Sequence[Exception]) -> TensorDeltaError | SourceError:
        """The error to raise for a pack that no place has (SPEC.md section 4.8)."""
        for kind in (IntegrityError, SourceError, MissingError):
            for fault in faults:
                if isinstance(fault, kind):
                    return fault
        allowed = self.sources.allowed(entry)
        if allowed:
            return MissingError(f"could not be had from {allowed}", object=entry.label, rule="TD-MAN-018")
        return UntrustedError(
            f"lies only at {entry.sources}, of which none is allowed",
            object=entry.label,
            rule="TD-MAN-017",
            advice="Allow the scheme (allow_sources=…, --allow-source), or name a folder that holds the file.",
        )

    def _from_root(self, entry: PackEntry, keep: bool, faults: list[Exception]) -> _Proven | None:
        if entry.path is None:
            return None
        wanted = Wanted(entry.path, entry.sha256, entry.size)
        try:
            return self._object(wanted, keep=keep, label=entry.label, altered="TD-MAN-013", absent="TD-MAN-014")
        except (MissingError, IntegrityError) as fault:
            faults.append(fault)
            return None

    def _from_folders(self, entry: PackEntry, keep: bool, faults: list[Exception]) -> _Proven | None:
        for path in self.sources.files(entry):
            try:
                return _prove_file(path, entry, keep)
            except (IntegrityError, OSError):  # some other file of this size
                continue
        return None

    def _from_sources(self, entry: PackEntry, keep: bool, faults: list[Exception]) -> _Proven | None:
        for source in self.sources.allowed(entry):
            if source.startswith(("https://", "http://")):
                blob = self._from_web(source, entry, keep, faults)
                if blob is not None:
                    return blob
                continue
            for anew in (False, True):  # the client's cache may be damaged
                try:
                    path = public_file(source, anew=anew)
                    if path is None:
                        break
                    return _prove_file(path, entry, keep)
                except StoreError as failure:
                    faults.append(SourceError.of(failure))
                    break
                except IntegrityError as fault:
                    faults.append(fault)
        return None

    def _from_web(self, source: str, entry: PackEntry, keep: bool, faults: list[Exception]) -> _Proven | None:
        """A pack of a web server, by way of this machine's cache."""
        wanted = Wanted(f"{PACKS}source", entry.sha256, entry.size)
        try:
            with Downloads(WebSource(source), self.cache or PackCache(), part=self._part) as downloads:
                return _prove_download(downloads, wanted, keep=keep, label=entry.label)
        except StoreError as failure:
            faults.append(SourceError.of(failure))
        except IntegrityError as fault:
            faults.append(IntegrityError(fault.reason, object=entry.label, rule="TD-MAN-013"))
        except (MissingError, ValueError):  # it has no such file, or the source is no URL
            pass
        return None

    def _object(self, wanted: Wanted, *, keep: bool, label: str, altered: str, absent: str) -> _Proven:
        """An object under the root, proven.

        Args:
            wanted: the object.
            keep: keep the bytes in memory.
            label: how errors name it.
            altered, absent: the rules that are broken where it has other bytes, or does not exist.
        """
        try:
            with self._downloads() as downloads:
                if downloads is not None:
                    try:
                        with in_cache("the cache folder"):
                            return _prove_download(downloads, wanted, keep=keep, label=label)
                    except (TensorDeltaError, StoreError):
                        raise
                    except OSError as error:  # this machine's cache has no room, or cannot be written to
                        whole = isinstance(self._store, Downloader)  # which reads no part of an object
                        if whole and wanted.size > KEPT:
                            raise
                        _LOG.warning("%s is read without the cache of this machine: %s", label, error)
                        keep = keep or whole
            return prove(
                lambda: self._store.open(wanted.name), sha256=wanted.sha256, size=wanted.size, keep=keep, label=label
            )
        except MissingError as fault:
            raise MissingError(fault.reason, object=label, rule=absent) from None
        except IntegrityError as fault:
            raise IntegrityError(fault.reason, object=label, rule=altered) from None

    # -- downloads ------------------------------------------------------------------------------------------------

    @contextmanager
    def ahead(self, entries: Iterable[tuple[int, PackEntry]]) -> Iterator[None]:
        """Download packs of a remote store in the background while the block runs, for the calling thread.

        Args:
            entries: packs in the order in which they will be read, each with the version that needs it.

        Raises:
            LimitError: those that the cache lacks would pass the disk budget that the user set.
        """
        if self.cache is None:
            yield
            return
        wanted = [
            Wanted(entry.path, entry.sha256, entry.size, version)
            for version, entry in entries
            if entry.path is not None and next(self.sources.files(entry), None) is None
        ]
        folder = self.cache.folder
        # Where the user sets no budget, what the cache has no room for is read without it: see `_object`.
        if folder is not None and self.disk.limit is not None:
            needed = sum(each.size for each in wanted if not (folder / each.sha256).exists())
            self.disk.check(needed, folder, object="the packs of the route")
        outer = self._thread.downloads
        with Downloads(self._store, self.cache, wanted, part=self._part, listener=self._listener) as downloads:
            self._thread.downloads = downloads
            try:
                yield
            finally:
                self._thread.downloads = outer

    @contextmanager
    def _downloads(self) -> Iterator[Downloads | None]:
        """The calling thread's downloads; None where the store is not remote."""
        if self.cache is None or self._thread.downloads is not None:
            yield self._thread.downloads
            return
        with self.ahead(()):
            yield self._thread.downloads

    def keep(self, sha256: str, parts: Parts) -> None:
        """Keep a pack that was put into a remote store in this machine's cache, so that it need not be downloaded."""
        if self.cache is not None:
            self.cache.put(sha256, parts)


def _count(budget: Budget, entry: PackEntry, size: int) -> None:
    """Count the memory of a pack's table, of so many bytes of JSON, before it is parsed.

    Raises:
        LimitError: it would pass the budget.
    """
    budget.check(size * PARSING, object=entry.label, rule="TD-LIM-008")
    budget.take(size * KEPT_JSON, object=entry.label, rule="TD-LIM-008")


def check_ranges(manifest: Manifest, layout: Layout, *, object: str) -> None:
    """Check that no pack entry names a tensor that the layout lacks.

    Raises:
        MalformedError: one does.
    """
    for entry in manifest.packs:
        first, stop = entry.tensors[-1]
        if stop > len(layout):
            raise MalformedError(
                f"`tensors` has the range {[first, stop]}, the layout has {len(layout)}",
                object=object,
                rule="TD-MAN-001",
            )


def free_memory() -> int:
    """Bytes of memory that this machine, or this container, has free; 0 where that is not known."""
    try:
        text = Path("/proc/meminfo").read_text()
        free = next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return 0
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free, 0)


def default_memory() -> int:
    """The memory budget where the user sets none: four fifths of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5
    except (ValueError, OSError, AttributeError):
        return 8 << 30
