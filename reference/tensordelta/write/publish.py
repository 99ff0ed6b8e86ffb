"""The writer's procedure: from a state to a durable version (SPEC.md sections 11 and 12).

Steps of section 11.1: 1 `Snapshot.at`, 2 `Encoder`, 3 `Publisher._write`, 4 `_commit`, 5 `_after`, 6 `_hint`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from msgspec import structs

from ..codecs.fingerprint import U64, combine, text
from ..errors import ConflictError, TensorDeltaError, UntrustedError
from ..events import Event, emit
from ..format import strict_json
from ..format.chunk_codec import Piece
from ..format.layout import Layout
from ..format.manifest import Base, FileEntry, Manifest, PackEntry, check_features, parse_manifest
from ..format.names import (
    LATEST,
    MAX_VERSION,
    LatestDocument,
    file_name,
    fingerprints_name,
    layout_name,
    manifest_name,
    now,
    pack_name,
)
from ..read.packs import Sources
from ..read.published import Published, describe
from ..read.reader import Reader
from ..read.routes import Edge
from ..state.checkpoint import INDEX_SUFFIX, Checkpoint, Shard
from ..state.state import State
from ..state.update import Update
from ..stores import Batch, FileBlob
from .encoder import Encoder, Order, Values
from .plain_packs import check_source, checkpoint_files, file_stamps, plain_entry, same_parts
from .signing import SigningStore, check_signs
from .snapshot import Snapshot

_LOG = logging.getLogger("tensordelta")


class Publisher:
    """Publishes versions of one chain. Several threads may call it; they publish one after another.

    Args:
        reader: of the chain, one that may go from any version to any other. Over a `SigningStore` versions are signed.
        turns: the lock that all publishers of a chain in this process share, for they share the snapshot.
    """

    def __init__(self, reader: Reader, turns: threading.Lock | None = None) -> None:
        self._turns = turns or threading.Lock()
        self._reader = reader
        self._store = reader.store
        self._signer = reader.store if isinstance(reader.store, SigningStore) else None
        self._snapshot = Snapshot(reader)
        self._put = 0
        self._open_batch: Batch | None = None

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
        with ExitStack() as stack:
            stack.enter_context(self._turns)
            number, newest, taken = self._next(version)
            before = self._before(newest, full=full)
            annotations = annotations or {}
            if taken:
                return self._again(number, before, state, started, full=full, files=files, annotations=annotations)
            base_manifest, base = None if full else before, None
            if base_manifest is not None:
                # Another process of this machine must not move the snapshot while words are compared with it.
                stack.enter_context(self._snapshot.checkout.locked())
                base = self._snapshot.at(base_manifest)
            with self._batch():
                layout = self._layout(state.layout, before)
                encoder = Encoder(base, state, layout=layout, values=values, order=order, threads=self._reader.threads)
                entries: list[PackEntry] = []
                for built in encoder.packs():
                    go_on(False)
                    self._write(pack_name(built.entry.sha256), *built.parts)
                    self._reader.packs.keep(built.entry.sha256, built.parts)  # the snapshot follows from it
                    entries.append(built.entry)
                manifest = self._manifest(number, layout, encoder.sums, entries, before, files, annotations)
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
        if source is not None:
            check_source(source)
        with self._turns:
            return self._publish_plain(checkpoint, source, version, annotations or {})

    def _publish_plain(
        self, checkpoint: Checkpoint, source: str | None, version: int | None, annotations: Mapping[str, str]
    ) -> Published:
        started = time.perf_counter()
        number, newest, taken = self._next(version)
        before = self._before(newest, full=True)
        state = State(checkpoint.layout, checkpoint.words)
        if taken:
            files = checkpoint_files(checkpoint)
            return self._again(number, before, state, started, full=True, files=files, annotations=annotations)
        stamps = file_stamps(checkpoint)
        with self._batch():
            layout = self._layout(checkpoint.layout, before)
            sums = state.sums(threads=self._reader.threads)
            entries = [self._plain(shard, checkpoint, source) for shard in checkpoint.shards if shard.header.entries]
            # The snapshot follows from these very files, also where the chain holds none of their bytes.
            folders = {shard.path.parent for shard in checkpoint.shards}
            self._reader.packs.sources = Sources(
                self._reader.packs.sources.schemes, (*self._reader.packs.sources.folders, *sorted(folders))
            )
            manifest = self._manifest(number, layout, sums, entries, before, checkpoint_files(checkpoint), annotations)
            if file_stamps(checkpoint) != stamps:
                raise ValueError("the checkpoint's files changed while they were published; nothing was")
        return self._commit(manifest, state, before, started)

    # -- steps ----------------------------------------------------------------------------------------------------

    def _next(self, version: int | None) -> tuple[int, int | None, bool]:
        """The version's number, the newest version before it, and whether the number is taken already."""
        check_signs(self._reader)
        self._reader.documents.check_chain()
        versions = self._reader.documents.versions(unsigned=True)
        newest = versions[-1] if versions else None
        if self._signer is not None and newest is not None:
            name = manifest_name(newest)
            if self._reader.documents.signature(name) is None:
                self._signer.settle(name)
        number = (-1 if newest is None else newest) + 1 if version is None else version
        if number in versions:
            at = versions.index(number)
            return number, versions[at - 1] if at else None, True
        if newest is not None and number <= newest:
            raise ValueError(f"version {number} is not greater than the newest, {newest}")
        if not 0 <= number <= MAX_VERSION:
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
        same = before is not None and self._reader.documents.layout(before.layout) == layout
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
            return self._reader.documents.manifest(version), b""
        self._signer.settle(manifest_name(version))
        return self._reader.documents.unverified(version)

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
        name = manifest_name(other.version)
        assert self._reader.trust is not None
        with suppress(TensorDeltaError):
            self._reader.trust.verify(data, self._reader.documents.signature(name), object=name)
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
                stack.enter_context(self._snapshot.checkout.locked())
                base = self._snapshot.at(before)
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
            self._reader.documents.forget(newest)
        try:
            manifest = self._reader.documents.manifest(newest)
            self._reader.documents.layout(manifest.layout)
        except TensorDeltaError:
            if not full:
                raise
            return None
        return manifest

    def _layout(self, layout: Layout, before: Manifest | None) -> str:
        """The digest of the layout, put unless the version before has the same."""
        if before is not None and self._reader.documents.layout(before.layout) == layout:
            return before.layout
        data = layout.encode()
        digest = hashlib.sha256(data).hexdigest()
        self._write(layout_name(digest), data)
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

    def _plain(self, shard: Shard, checkpoint: Checkpoint, source: str | None) -> PackEntry:
        entry = plain_entry(shard, checkpoint, source)
        if not source:
            with FileBlob(shard.path) as blob:
                self._send(pack_name(entry.sha256), same_parts(blob, entry.sha256))
            self._put += entry.size
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
            self._write(fingerprints_name(digest), fingerprints)
        there = {entry.sha256 for entry in before.files} if before else set()
        entries: list[FileEntry] = []
        for entry, content in _file_entries(before, layout, files):
            if content is not None and entry.sha256 not in there:
                self._write(entry.path, content)
                there.add(entry.sha256)
            entries.append(entry)
        return Manifest(
            tensordelta=strict_json.VERSION,
            chain=self._reader.chain,
            version=version,
            layout=layout,
            fingerprint=text(combine(sums)),
            base=None,
            packs=packs,
            features=[],
            created=now(),
            annotations=dict(annotations),
            tensor_fingerprints=digest,
            files=entries,
        )

    def _commit(self, manifest: Manifest, state: State, before: Manifest | None, started: float) -> Published:
        """Create the manifest; an earlier try that succeeded counts as this one."""
        data = manifest.encode()
        parse_manifest(data, version=manifest.version)  # a writer publishes only what a reader accepts
        name = manifest_name(manifest.version)
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
        latest = LatestDocument(strict_json.VERSION, manifest.chain, manifest.version)
        try:
            self._store.put(LATEST, [strict_json.encode(latest)])
        except OSError as fault:
            _LOG.warning("version %d is published, but %s was not put: %s", manifest.version, LATEST, fault)

    def _after(self, version: int) -> None:
        """Move the snapshot."""
        self._snapshot.follow(version)


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
        made.append((FileEntry(name, len(data), sha256, file_name(sha256)), data))
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
        object=manifest_name(version),
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
