"""The writer's procedure: from a state to a durable version (SPEC.md sections 11 and 12).

Steps of section 11.1: 1 and 2 `Publisher._base` and the encoder, 3 `_put…`, 4 `_commit`, 5 and 6 `_after`. The
snapshot is a checkout of the chain in a cache folder of this machine. It moves by pulling what was just published, so
that it is never ahead of the chain, and every version was decoded once before the next is made of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from msgspec import UNSET, structs

from . import ijson, objects
from .checkout import Checkout
from .checkpoint import DEFAULT_SHARD, INDEX, INDEX_SUFFIX, Checkpoint, Shard, build_index, read_index
from .encoder import Encoder, Order, Values
from .errors import ConflictError, IntegrityError, MalformedError, TensorDeltaError, WrongBaseError
from .events import Event, emit
from .fetch import Sources
from .fingerprint import U64, combine, text
from .layout import Layout
from .manifest import TENSORS, Base, FileEntry, Manifest, PackEntry, parse_manifest
from .objects import LatestDocument
from .reader import Reader
from .state import State
from .store import FileBlob
from .tables import Table, bytes_text, percent_text, ratio_text

_LOG = logging.getLogger("tensordelta")
_CACHE = "TENSORDELTA_CACHE"
_READ = 1 << 22


@dataclass(frozen=True, repr=False)
class Published:
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

    def facts(self) -> dict[str, object]:
        """The fields that `--json` prints."""
        return {
            "version": self.version,
            "base": self.base,
            "size": self.size,
            "changed": self.changed,
            "words": self.words,
            "density": self.density,
            "ratio": self.ratio,
            "seconds": self.seconds,
            "fingerprint": self.fingerprint,
            "packs": self.packs,
            "created": self.created,
            "annotations": dict(self.annotations),
        }

    def __repr__(self) -> str:
        return versions_table([self], f"published version {self.version}").text()

    def _repr_html_(self) -> str:
        return versions_table([self], f"published version {self.version}").html()


def versions_table(rows: Sequence[Published], title: str) -> Table:
    """Versions as a table."""
    columns = [
        "version",
        "base",
        "changed",
        "density",
        "size",
        "ratio",
        "bits/change",
        "<created (UTC)",
        "<annotations",
    ]
    cells = [
        [
            str(row.version),
            "full" if row.base is None else str(row.base),
            f"{row.changed:,}",
            percent_text(row.density),
            bytes_text(row.size),
            ratio_text(row.ratio),
            f"{row.bits_per_change:.2f}" if row.changed else "-",
            row.created[:19].replace("T", " "),
            annotations_text(row.annotations),
        ]
        for row in rows
    ]
    return Table(title, columns, cells)


def annotations_text(annotations: Mapping[str, str]) -> str:
    """Annotations in words: step=420, run=a."""
    return ", ".join(f"{key}={value}" for key, value in annotations.items())


def snapshot_folder(chain: str) -> Path:
    """Where the writer keeps its copy of the last published state: $TENSORDELTA_CACHE, or the user's cache folder."""
    cache = os.environ.get(_CACHE)
    root = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tensordelta")
    return root.expanduser() / chain


class Publisher:
    """Publishes versions of one chain.

    Args:
        reader: of the chain.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._store = reader.store
        self._proven = False
        self._put = 0

    @cached_property
    def _checkout(self) -> Checkout:
        return Checkout(snapshot_folder(self._reader.chain))

    def publish(
        self,
        state: State,
        *,
        version: int | None = None,
        annotations: Mapping[str, str] | None = None,
        full: bool = False,
        values: Values = "step",
        order: Order = "natural",
        files: Mapping[str, bytes | Path] | None = None,
    ) -> Published:
        """Publish a state as the next version: a delta to the newest one, or a full version.

        Args:
            state: what is published.
            version: its number; by default the newest plus one.
            annotations: strings that say more of it.
            full: make a full version.
            values, order: how changed words are written.
            files: the files to lay beside it, by name; None for those of the newest version, as far as they fit.

        Raises:
            ConflictError: a second writer has published this version.
            TensorDeltaError: the newest version cannot be read, to which the delta would be made.
            ValueError: a version that is not greater than the newest, or an illegal combination of codecs.
        """
        started = time.perf_counter()
        number, newest = self._next(version)
        before = self._before(newest, full=full)
        base_manifest = None if full else before
        with ExitStack() as stack:
            base = None
            if base_manifest is not None:
                # Another process of this machine must not move the snapshot while words are compared with it.
                stack.enter_context(self._checkout.locked())
                base = self._base(base_manifest)
            self._put = 0
            layout = self._layout(state.layout, before)
            encoder = Encoder(base, state, layout=layout, values=values, order=order, threads=self._reader.threads)
            entries: list[PackEntry] = []
            for built in encoder.packs():
                self._write(objects.pack_name(built.entry.sha256), *built.parts)
                entries.append(built.entry)
            manifest = self._manifest(number, layout, encoder.sums, entries, before, files, annotations or {})
            if base_manifest is not None:
                held = Base(base_manifest.version, base_manifest.layout, base_manifest.fingerprint)
                manifest = structs.replace(manifest, base=held)
            manifest = structs.replace(manifest, features=encoder.features)
            return self._commit(manifest, state.layout, started)

    def publish_plain(
        self,
        checkpoint: Checkpoint,
        *,
        source: str | None = None,
        version: int | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Published:
        """Publish a checkpoint's safetensors files as they stand: a full version of plain packs.

        Args:
            checkpoint: the checkpoint.
            source: where the same files lie publicly, such as "hf://org/model@commit"; then they are not copied.

        Raises:
            ConflictError: a second writer has published this version.
            ValueError: a source without a commit.
        """
        started = time.perf_counter()
        if source is not None:
            check_source(source)
        number, newest = self._next(version)
        before = self._before(newest, full=True)
        stamps = _stamps(checkpoint)
        self._put = 0
        layout = self._layout(checkpoint.layout, before)
        sums = State(checkpoint.layout, checkpoint.words).sums(threads=self._reader.threads)
        entries = [
            self._plain(shard, checkpoint, layout, source) for shard in checkpoint.shards if shard.header.entries
        ]
        # The snapshot follows from these very files, also where the chain holds none of their bytes.
        folders = {shard.path.parent for shard in checkpoint.shards}
        self._reader.sources = Sources(self._reader.sources.schemes, (*self._reader.sources.folders, *sorted(folders)))
        manifest = self._manifest(
            number, layout, sums, entries, before, checkpoint_files(checkpoint), annotations or {}
        )
        if _stamps(checkpoint) != stamps:
            raise ValueError("the checkpoint's files changed while they were published; nothing was")
        return self._commit(manifest, checkpoint.layout, started)

    # -- steps ----------------------------------------------------------------------------------------------------

    def _next(self, version: int | None) -> tuple[int, int | None]:
        self._reader.check_chain()
        newest = self._reader.newest()
        number = (-1 if newest is None else newest) + 1 if version is None else version
        if newest is not None and number <= newest:
            raise ValueError(f"version {number} is not greater than the newest, {newest}")
        if not 0 <= number <= objects.MAX_VERSION:
            raise ValueError(f"version {number} is out of range")
        return number, newest

    def _before(self, newest: int | None, *, full: bool) -> Manifest | None:
        """The newest version's manifest; a full version does without one that cannot be read."""
        if newest is None:
            return None
        try:
            manifest = self._reader.manifest(newest)
            self._reader.layout(manifest.layout)
        except TensorDeltaError:
            if not full:
                raise
            return None
        return manifest

    def _base(self, manifest: Manifest) -> State:
        """The snapshot, brought to the newest version and proven; rebuilt where it is damaged."""
        folder = str(self._checkout.folder)
        try:
            state = self._snapshot(manifest)
        except TensorDeltaError as fault:
            # A fault of the chain is no reason to lose the snapshot, and would come again.
            if not isinstance(fault, WrongBaseError) and not fault.object.startswith(folder):
                raise
            _LOG.warning("the snapshot in %s is rebuilt: %s", folder, fault)
            self._checkout.clear()
            state = self._snapshot(manifest)
        self._proven = True
        return state

    def _snapshot(self, manifest: Manifest) -> State:
        # The first use in a process proves every word; after that, only proven updates wrote them.
        if not self._proven:
            self._checkout.open(self._reader, scan=True)
        self._checkout.pull(self._reader, manifest.version)
        state = self._checkout.open(self._reader)
        assert state is not None
        return state

    def _layout(self, layout: Layout, before: Manifest | None) -> str:
        """The digest of the layout, put unless the version before has the same."""
        if before is not None and self._reader.layout(before.layout) == layout:
            return before.layout
        data = layout.encode()
        digest = hashlib.sha256(data).hexdigest()
        self._write(objects.layout_name(digest), data)
        return digest

    def _write(self, name: str, *parts: bytes | memoryview) -> None:
        self._store.put(name, parts)
        self._put += sum(map(len, parts))

    def _plain(self, shard: Shard, checkpoint: Checkpoint, layout: str, source: str | None) -> PackEntry:
        digest = hashlib.sha256()
        with FileBlob(shard.path) as blob:
            size = blob.size
            for part in _parts(blob):
                digest.update(part)
        sha256 = digest.hexdigest()
        held = [checkpoint.layout.index[name] for name in shard.header.entries]
        entry = PackEntry(
            sha256=sha256,
            size=size,
            path=None if source else objects.pack_name(sha256),
            content=TENSORS,
            tensors=(min(held, default=0), max(held, default=0) + 1),
            changed=sum(checkpoint.layout.tensors[index].words for index in held),
            sources=[f"{source.rstrip('/')}/{shard.name}"] if source else UNSET,
            name=shard.name if checkpoint.is_folder else DEFAULT_SHARD,
        )
        if not source:
            with FileBlob(shard.path) as blob:
                self._store.put(objects.pack_name(sha256), _same_parts(blob, sha256))
            self._put += size
        return entry

    def _manifest(
        self,
        version: int,
        layout: str,
        sums: U64,
        packs: list[PackEntry],
        before: Manifest | None,
        files: Mapping[str, bytes | Path] | None,
        annotations: Mapping[str, str],
    ) -> Manifest:
        """The manifest of a full version; puts the objects that it names beside packs and layout."""
        fingerprints = sums.astype("<u8").tobytes()
        digest = hashlib.sha256(fingerprints).hexdigest()
        if before is None or before.tensor_fingerprints != digest:
            self._write(objects.fingerprints_name(digest), fingerprints)
        there = {entry.sha256 for entry in before.files} if before else set()
        entries: list[FileEntry] = []
        if before is not None and files is None:
            # An index says where the tensors of one layout lie.
            kept = before.layout == layout
            entries = [entry for entry in before.files if kept or not entry.name.endswith(INDEX_SUFFIX)]
        for name, content in sorted((files or {}).items()):
            data = content.read_bytes() if isinstance(content, Path) else content
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 not in there:
                self._write(objects.file_name(sha256), data)
                there.add(sha256)
            entries.append(FileEntry(name, len(data), sha256, objects.file_name(sha256)))
        return Manifest(
            tensordelta=ijson.VERSION,
            chain=self._reader.chain,
            version=version,
            layout=layout,
            fingerprint=text(combine(sums)),
            base=None,
            packs=packs,
            features=[],
            created=objects.now(),
            annotations=dict(annotations),
            tensor_fingerprints=digest,
            files=entries,
        )

    def _commit(self, manifest: Manifest, layout: Layout, started: float) -> Published:
        """Create the manifest; an earlier try that succeeded counts as this one."""
        data = manifest.encode()
        parse_manifest(data, version=manifest.version)  # a writer publishes only what a reader accepts
        name = objects.manifest_name(manifest.version)
        if not self._store.create(name, data):
            other = self._reader.manifest(manifest.version)
            if not manifest.same_version(other):
                raise ConflictError(
                    "was published by another writer with other contents",
                    object=name,
                    rule="TD-WRT-006",
                    advice="One writer owns a chain: stop the other one, then publish again.",
                )
            manifest = other
        self._put += len(data)
        latest = LatestDocument(ijson.VERSION, manifest.chain, manifest.version)
        self._store.put(objects.LATEST, [ijson.encode(latest)])
        self._after(manifest.version)
        seconds = time.perf_counter() - started
        emit(Event("published", manifest.version, self._put, seconds), self._reader.listener)
        return describe(manifest, layout, size=self._put, seconds=seconds)

    def _after(self, version: int) -> None:
        """Bring the snapshot to what was published; if that fails, it is rebuilt before the next delta."""
        try:
            self._checkout.pull(self._reader, version)
        except (IntegrityError, MalformedError) as fault:
            # What was put does not make what was published: the arrays were written to meanwhile, or the store lies.
            self._proven = False
            advice = "Publish a full version after it, from arrays that nobody writes to."
            raise type(fault)(
                f"version {version} cannot be read back: {fault.reason}",
                object=fault.object,
                rule=fault.rule,
                advice=advice,
            ) from None
        except (TensorDeltaError, OSError) as fault:
            _LOG.warning("the snapshot in %s did not follow and will be rebuilt: %s", self._checkout.folder, fault)
            self._proven = False


def check_source(source: str) -> None:
    """Check that a source says which bytes it means.

    Raises:
        ValueError: no URI with a commit.
    """
    if "://" not in source or "@" not in source:
        raise ValueError(f"the source {source!r} names no commit: write hf://ORG/MODEL@COMMIT")


def describe(manifest: Manifest, layout: Layout, *, size: int, seconds: float | None) -> Published:
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
    )


def checkpoint_files(checkpoint: Checkpoint) -> dict[str, bytes | Path] | None:
    """The files to lay beside a checkpoint; None for a single file, which says nothing of them.

    There is an index among them where file names do not follow from the tensors.
    """
    if not checkpoint.is_folder:
        return None
    files: dict[str, bytes | Path] = {
        name: path for name, path in checkpoint.files.items() if not name.endswith(INDEX_SUFFIX)
    }
    if {shard.name for shard in checkpoint.shards} != {DEFAULT_SHARD}:
        name, shard_of = checkpoint.index or INDEX, checkpoint.shard_of
        path = checkpoint.files.get(name)
        # Readers lay tensors out by the index, so one that does not agree with the files is written anew.
        kept = path is not None and read_index(path.read_bytes(), object=str(path)) == shard_of
        files[name] = path if path is not None and kept else build_index(shard_of, checkpoint.layout.nbytes)
    return files


def _stamps(checkpoint: Checkpoint) -> list[tuple[int, int, int]]:
    """What tells whether a checkpoint's files are still the same."""
    status = [shard.path.stat() for shard in checkpoint.shards]
    return [(each.st_ino, each.st_size, each.st_mtime_ns) for each in status]


def _same_parts(blob: FileBlob, sha256: str) -> Iterator[memoryview]:
    """A file's bytes, which end with an error where they are no longer those of the digest."""
    digest = hashlib.sha256()
    for part in _parts(blob):
        digest.update(part)
        yield part
    if digest.hexdigest() != sha256:
        raise ValueError("the checkpoint's files changed while they were published; nothing was")


def _parts(blob: FileBlob) -> Iterator[memoryview]:
    for offset in range(0, blob.size, _READ):
        yield blob.read(offset, min(_READ, blob.size - offset))
