"""The writer's procedure: from a state to a durable version (SPEC.md sections 11 and 12).

Steps of section 11.1: 1 and 2 `Publisher._base` and the encoder, 3 `_put…`, 4 `_commit`, 5 and 6 `_after`. The
snapshot is a checkout of the chain in a cache folder of this machine. It moves by pulling what was just published, so
that it is never ahead of the chain, and every version was decoded once before the next is made of it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from msgspec import UNSET, structs

from . import ijson, objects
from .checkout import Checkout
from .checkpoint import DEFAULT_SHARD, INDEX, INDEX_SUFFIX, Checkpoint, Shard, build_index, read_index
from .chunk import Piece
from .encoder import Encoder, Order, Values
from .errors import ConflictError, IntegrityError, MalformedError, TensorDeltaError, UntrustedError, WrongBaseError
from .events import Event, emit
from .fetch import Sources
from .fingerprint import U64, combine, text
from .layout import Layout
from .manifest import TENSORS, Base, FileEntry, Manifest, PackEntry, check_features, parse_manifest
from .objects import LatestDocument
from .reader import Reader
from .routes import Edge
from .signing import SigningStore, check_signs
from .state import State
from .stores import Batch, FileBlob, cache_root
from .tables import Table, bytes_text, percent_text, ratio_text
from .update import Update

_LOG = logging.getLogger("tensordelta")
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
    return cache_root() / chain


class Publisher:
    """Publishes versions of one chain.

    Args:
        reader: of the chain, one that may go from any version to any other. Over a `SigningStore` versions are signed.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._store = reader.store
        self._signer = reader.store if isinstance(reader.store, SigningStore) else None
        self._proven = False
        self._put = 0
        self._open_batch: Batch | None = None

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
        go_on: Callable[[bool], None] = lambda committing: None,
    ) -> Published:
        """Publish a state as the next version: a delta to the newest one, or a full version.

        A number that is taken already by the same version, published before, counts as success.

        Args:
            state: what is published.
            version: its number; by default the newest plus one.
            annotations: strings that say more of it.
            full: make a full version.
            values, order: how changed words are written.
            files: the files to lay beside it, by name; None for those of the newest version, as far as they fit.
            go_on: called with False before each pack is put, and with True when nothing is left to do but to create the
                manifest. What it raises ends publishing, and nothing of the version becomes visible.

        Raises:
            ConflictError: the version was published with other contents.
            UntrustedError: versions are signed, and the newest one, to which the delta would be made, is not; or this
                version was published before, unsigned, and says something else.
            TensorDeltaError: the newest version cannot be read, to which the delta would be made.
            ValueError: a version that is not greater than the newest, or an illegal combination of codecs.
        """
        started = time.perf_counter()
        number, newest, taken = self._next(version)
        before = self._before(newest, full=full)
        if taken:
            return self._again(number, before, state, started, full=full, files=files, annotations=annotations or {})
        base_manifest = None if full else before
        with ExitStack() as stack:
            base = None
            if base_manifest is not None:
                # Another process of this machine must not move the snapshot while words are compared with it.
                stack.enter_context(self._checkout.locked())
                base = self._base(base_manifest)
            with self._batch():
                layout = self._layout(state.layout, before)
                encoder = Encoder(base, state, layout=layout, values=values, order=order, threads=self._reader.threads)
                entries: list[PackEntry] = []
                for built in encoder.packs():
                    go_on(False)
                    self._write(objects.pack_name(built.entry.sha256), *built.parts)
                    self._reader.keep(built.entry.sha256, built.parts)  # the snapshot follows from it
                    entries.append(built.entry)
                manifest = self._manifest(number, layout, encoder.sums, entries, before, files, annotations or {})
            if base_manifest is not None:
                held = Base(base_manifest.version, base_manifest.layout, base_manifest.fingerprint)
                manifest = structs.replace(manifest, base=held)
            manifest = structs.replace(manifest, features=encoder.features)
            go_on(True)
            return self._commit(manifest, state, before, started)

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
            ConflictError: the version was published with other contents.
            ValueError: a source without a commit.
        """
        started = time.perf_counter()
        if source is not None:
            check_source(source)
        number, newest, taken = self._next(version)
        before = self._before(newest, full=True)
        state = State(checkpoint.layout, checkpoint.words)
        if taken:
            files = checkpoint_files(checkpoint)
            return self._again(number, before, state, started, full=True, files=files, annotations=annotations or {})
        stamps = _stamps(checkpoint)
        with self._batch():
            layout = self._layout(checkpoint.layout, before)
            sums = state.sums(threads=self._reader.threads)
            entries = [
                self._plain(shard, checkpoint, layout, source) for shard in checkpoint.shards if shard.header.entries
            ]
            # The snapshot follows from these very files, also where the chain holds none of their bytes.
            folders = {shard.path.parent for shard in checkpoint.shards}
            self._reader.sources = Sources(
                self._reader.sources.schemes, (*self._reader.sources.folders, *sorted(folders))
            )
            manifest = self._manifest(
                number, layout, sums, entries, before, checkpoint_files(checkpoint), annotations or {}
            )
            if _stamps(checkpoint) != stamps:
                raise ValueError("the checkpoint's files changed while they were published; nothing was")
        return self._commit(manifest, state, before, started)

    # -- steps ----------------------------------------------------------------------------------------------------

    def _next(self, version: int | None) -> tuple[int, int | None, bool]:
        """The version's number, the newest version before it, and whether the number is taken already."""
        check_signs(self._reader)
        self._reader.check_chain()
        versions = self._reader.versions(unsigned=True)
        newest = versions[-1] if versions else None
        if self._signer is not None and newest is not None:
            name = objects.manifest_name(newest)
            if self._reader.signature(name) is None:
                self._signer.settle(name)
        number = (-1 if newest is None else newest) + 1 if version is None else version
        if number in versions:
            at = versions.index(number)
            return number, versions[at - 1] if at else None, True
        if newest is not None and number <= newest:
            raise ValueError(f"version {number} is not greater than the newest, {newest}")
        if not 0 <= number <= objects.MAX_VERSION:
            raise ValueError(f"version {number} is out of range")
        return number, newest, False

    def _again(
        self,
        version: int,
        before: Manifest | None,
        state: State,
        started: float,
        *,
        full: bool,
        files: Mapping[str, bytes | Path] | None,
        annotations: Mapping[str, str],
    ) -> Published:
        """Take a version that exists for an earlier try of this one, if it is that (SPEC.md section 11.2)."""
        layout, sums = state.layout, state.sums(threads=self._reader.threads)
        other, data = self._there(version)
        same = before is not None and self._reader.layout(before.layout) == layout
        digest = before.layout if before is not None and same else hashlib.sha256(layout.encode()).hexdigest()
        mine = structs.replace(
            other,
            layout=digest,
            fingerprint=text(combine(sums)),
            base=None if full or before is None else Base(before.version, before.layout, before.fingerprint),
            files=[entry for entry, _ in _file_entries(before, digest, files)],
            annotations=dict(annotations),
            tensor_fingerprints=hashlib.sha256(sums.astype("<u8").tobytes()).hexdigest(),
        )
        _check_own(mine, other)
        self._vouch(mine, other, data, state, before)
        return describe(other, layout, size=0, seconds=time.perf_counter() - started)

    def _there(self, version: int) -> tuple[Manifest, bytes]:
        """The manifest that was found under a version's number, and its bytes where they are signed."""
        if self._signer is None:
            return self._reader.manifest(version), b""
        self._signer.settle(objects.manifest_name(version))
        return self._reader.unverified(version)

    def _vouch(self, mine: Manifest, other: Manifest, data: bytes, state: State, before: Manifest | None) -> None:
        """Sign a version that an earlier try left unsigned, if it is this very one.

        Others may write to the store: equal fingerprints do not tell that its packs make these words (TD-SEC-001).

        Raises:
            UntrustedError: it says more than this writer would.
            ConflictError: it makes other words.
            TensorDeltaError: it cannot be rebuilt.
        """
        if self._signer is None:
            return
        name = objects.manifest_name(other.version)
        assert self._reader.trust is not None
        with suppress(TensorDeltaError):
            self._reader.trust.verify(data, self._reader.signature(name), object=name)
            return  # signed already
        check_features(other, object=name)
        if (mine.annotations, mine.tensor_fingerprints) != (other.annotations, other.tensor_fingerprints):
            raise UntrustedError(
                "was published already, unsigned, with other annotations",
                object=name,
                rule="TD-SIG-002",
                advice="Look at it, then have it signed if you trust it (`tensordelta sign`).",
            )
        with ExitStack() as stack:
            base = State.empty()
            if other.base is not None:
                assert before is not None
                stack.enter_context(self._checkout.locked())
                base = self._base(before)
            update = self._reader.prepare_edge(base, Edge(name, other))
            if not _makes(update, state):
                raise _conflict(other.version)
        self._signer.sign(name, data)

    def _before(self, newest: int | None, *, full: bool) -> Manifest | None:
        """The newest version's manifest; a full version does without one that cannot be read."""
        if newest is None:
            return None
        if not self._store.exclusive:
            # Another writer may have put its own over one that was read, or even written, here.
            self._reader.forget(newest)
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

    @contextmanager
    def _batch(self) -> Iterator[None]:
        """What is put in this block is durable after it, so that a manifest may name it (TD-OBJ-012, TD-STO-007)."""
        self._put = 0
        try:
            with self._store.batch() as self._open_batch:
                yield
        finally:
            self._open_batch = None

    def _write(self, name: str, *parts: bytes | memoryview) -> None:
        self._send(name, parts)
        self._put += sum(map(len, parts))

    def _send(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        assert self._open_batch is not None
        self._open_batch.put(name, parts)

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
                self._send(objects.pack_name(sha256), _same_parts(blob, sha256))
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
        for entry, content in _file_entries(before, layout, files):
            if content is not None and entry.sha256 not in there:
                self._write(entry.path, content)
                there.add(entry.sha256)
            entries.append(entry)
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

    def _commit(self, manifest: Manifest, state: State, before: Manifest | None, started: float) -> Published:
        """Create the manifest; an earlier try that succeeded counts as this one."""
        data = manifest.encode()
        parse_manifest(data, version=manifest.version)  # a writer publishes only what a reader accepts
        name = objects.manifest_name(manifest.version)
        if not self._store.create(name, data):
            other, found = self._there(manifest.version)
            _check_own(manifest, other)
            self._vouch(manifest, other, found, state, before)
            manifest = other
        self._put += len(data)
        self._hint(manifest)
        self._after(manifest.version)
        seconds = time.perf_counter() - started
        emit(Event("published", manifest.version, self._put, seconds), self._reader.listener)
        return describe(manifest, state.layout, size=self._put, seconds=seconds)

    def _hint(self, manifest: Manifest) -> None:
        """Put latest.json; where that fails, the version is published all the same, and found by listing."""
        latest = LatestDocument(ijson.VERSION, manifest.chain, manifest.version)
        try:
            self._store.put(objects.LATEST, [ijson.encode(latest)])
        except OSError as fault:
            _LOG.warning("version %d is published, but %s was not put: %s", manifest.version, objects.LATEST, fault)

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


def _file_entries(
    before: Manifest | None, layout: str, files: Mapping[str, bytes | Path] | None
) -> list[tuple[FileEntry, bytes | None]]:
    """The entries of the files given, with their contents; by default those of the version before, as far as they fit.

    Args:
        before: the version before.
        layout: the digest of the layout of the version that the files are for.
    """
    if files is None:
        # An index says where the tensors of one layout lie.
        kept = before is not None and before.layout == layout
        entries = before.files if before is not None else []
        return [(entry, None) for entry in entries if kept or not entry.name.endswith(INDEX_SUFFIX)]
    made: list[tuple[FileEntry, bytes | None]] = []
    for name, content in sorted(files.items()):
        data = content.read_bytes() if isinstance(content, Path) else content
        sha256 = hashlib.sha256(data).hexdigest()
        made.append((FileEntry(name, len(data), sha256, objects.file_name(sha256)), data))
    return made


def _check_own(mine: Manifest, other: Manifest) -> None:
    """Check that the manifest found under a version's name makes the same version.

    Raises:
        ConflictError: it does not.
    """
    if not mine.same_version(other):
        raise _conflict(mine.version)


def _conflict(version: int) -> ConflictError:
    return ConflictError(
        "was published already, with other contents",
        object=objects.manifest_name(version),
        rule="TD-WRT-006",
        advice="One writer owns a chain: stop the other one, then publish again.",
    )


def _makes(update: Update, state: State) -> bool:
    """True where an update makes a state, word for word."""
    if update.layout != state.layout:
        return False
    pieces: dict[int, list[Piece]] = {}
    for piece in update.runs():
        pieces.setdefault(piece.tensor, []).append(piece)
    for tensor in range(len(update.layout)):
        words = update.built.get(tensor)
        if words is None:
            held = update.source(tensor)
            assert held is not None
            words = held.copy() if tensor in pieces else held
            for piece in pieces.get(tensor, ()):
                words[slice(piece.start, piece.stop) if piece.indices is None else piece.indices] = piece.new
        if not np.array_equal(words, state.words(tensor)):
            return False
    return True


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
