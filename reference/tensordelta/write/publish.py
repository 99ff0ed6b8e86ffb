"""The writer's procedure: from a state to a durable version (SPEC.md section 11).

Steps of section 11.1: 1 `Snapshot.at`, 2 `Encoder`, 3 `Commit.begin`, 4 and 6 `Commit.create`, 5 `Snapshot.follow`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from ..codecs.fingerprint import U64
from ..errors import MissingError
from ..format.chunk_codec import Piece
from ..format.layout import Layout
from ..format.manifest import Base, Manifest
from ..progress import phase
from ..read.history import Published, describe
from ..read.reader import Reader
from ..state.checkpoint import Checkpoint
from ..state.state import State
from ..threads import Lock
from .clock import Clock
from .commit import Commit, Contents, Files, base_of, check_description, digest_layout, file_entries
from .encoder import Codecs, Comparison, Encoder, Listed, Order, Values
from .plain_packs import changed, check_source, checkpoint_files, file_stamps, plain_entry, same_parts
from .snapshot import Snapshot
from .writer import Place, Writer, overtaken

_LOG = logging.getLogger("tensordelta")


@dataclass(frozen=True, eq=False)
class Tip:
    """The newest version of a chain, as one who publishes pieces has to know it.

    Attributes:
        manifest: its manifest.
        layout: its tensors.
        sums: their fingerprints, uint64 in layout order.
    """

    manifest: Manifest
    layout: Layout
    sums: U64


def tensor_fingerprints(reader: Reader, manifest: Manifest) -> U64:
    """The fingerprints of a version's tensors: those that it tells, else by a scan of its words; see `Chain`."""
    sums = reader.documents.tensor_fingerprints(manifest)
    return reader.load(manifest.version).sums(threads=reader.threads) if sums is None else sums


class Publisher:
    """Publishes versions of one chain. Several threads may call it: they publish one after another.

    Everything that belongs to one publish is in its `Commit`. Drafts and shortcuts of the same chain need not wait.

    Args:
        writer: of the chain.
        turns: the lock that all publishers of a chain in this process have in common, as they have the snapshot; by
            default one of its own.
    """

    def __init__(self, writer: Writer, turns: Lock | None = None) -> None:
        self._writer = writer
        self._reader = writer.reader
        self._turns = turns or Lock(threading.RLock)  # a listener may publish
        self._snapshot = Snapshot(writer.reader)

    def publish(
        self,
        state: State,
        *,
        version: int | None = None,
        annotations: Mapping[str, str] | None = None,
        full: bool = False,
        layout_change: bool = False,
        values: Values = "step",
        order: Order = "natural",
        files: Files | None = None,
        go_on: Callable[[bool], None] = lambda committing: None,
    ) -> Published:
        """Publish a state as the next version: a delta to the newest one, or a full version.

        If the number is taken by the same version, published before, that counts as success. Where neither the cache
        folder nor memory can hold the version before, or an object is gone without which it cannot be read, a full
        version is made.

        Args:
            state: what to publish. No other thread may write to it meanwhile.
            version: its number; by default the newest plus one.
            annotations: strings that describe it.
            full: make a full version.
            layout_change: it may have other tensors than the version before.
            values, order: how changed words are written; see `Codecs`.
            files: the files that belong to it, by name; None for those of the newest version that still fit.
            go_on: called with False before each pack is put, and with True when only the manifest is left to create.
                What it raises ends publishing, and nothing of the version becomes visible.

        Raises:
            ConflictError: the version was published with other contents, or another process uses the snapshot; or the
                state has other tensors than the version before, and `layout_change` is not set.
            IntegrityError: the files that the state lies in changed meanwhile.
            UntrustedError: versions are signed, and one of this number is there that is not.
            TensorDeltaError: the newest version, to which the delta would be made, cannot be read; or the version just
                published cannot be read back.
            ValueError: a version that is not greater than the newest, or an illegal combination of codecs.
            StoreError: the store failed.
        """
        clock = Clock()
        codecs = Codecs(values, order)
        check_description(annotations, files)
        with ExitStack() as stack:
            stack.enter_context(phase("looking for the newest version"))
            stack.enter_context(self._turns)
            place = self._writer.place(version, full=full)
            before = place.before
            base = None if full else base_of(before)
            if place.taken:
                return self._again(place, state, base, files, annotations, clock)
            self._writer.check_layout(place, state.layout, allowed=layout_change)
            old = None
            if not full and before is not None:
                with clock.during("snapshot"):
                    try:
                        old = stack.enter_context(self._snapshot.at(before))
                    except MissingError as fault:  # a delta to it could not be read either
                        _LOG.warning("version %d cannot be read, so the next one is full: %s", before.version, fault)
                        before = self._writer.without_lost_files(before)
                base = None if old is None else base  # a full version needs nothing to compare with
            with Commit.begin(self._writer, place.version, before, clock) as commit:
                digest = commit.put_layout(state.layout)
                with clock.during("compare"):
                    sums = None if old is None else old.sums(threads=self._reader.threads)
                compared = Comparison.of_states(old, state, digest, sums)
                encoder = Encoder(compared, codecs, threads=self._reader.threads)
                with phase(f"writing version {place.version}", state.layout.nbytes):
                    for built in clock.packs(encoder):
                        go_on(False)
                        commit.put_pack(built.entry, built.parts)
                        self._snapshot.expect(built)
                entries = file_entries(before, digest, files)
                contents = Contents(place.version, digest, encoder.sums, base, entries, annotations, encoder.features)
                manifest = commit.complete(contents)
            state.check_files()
            go_on(True)
            return self._commit(commit, manifest, state, encoder, clock)

    def tip(self) -> Tip | None:
        """The newest version, for `publish_pieces`; None if there is none. See `Chain.tip`."""
        manifest = self._writer.place(None, full=False).before
        if manifest is None:
            return None
        return Tip(
            manifest, self._reader.documents.layout(manifest.layout), tensor_fingerprints(self._reader, manifest)
        )

    def publish_pieces(
        self,
        pieces: Iterable[Piece],
        base: Tip | None,
        layout: Layout | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        layout_change: bool = False,
        values: Values = "step",
        files: Files | None = None,
        go_on: Callable[[bool], None] = lambda committing: None,
    ) -> tuple[Published, Tip]:
        """Publish the next version from its changed words; see `Chain.publish_pieces`.

        The snapshot stays as it is: the next `publish` brings it to the newest version.

        Args:
            go_on: see `publish`.
        """
        clock = Clock()
        if (layout is None) == (base is None):
            raise ValueError("a delta has the layout of its base; a full version needs one, and no base")
        tensors = base.layout if base is not None else layout
        assert tensors is not None
        check_description(annotations, files)
        with self._turns:
            place = self._writer.place(None, full=base is None)
            if base is not None and base_of(place.before) != base_of(base.manifest):
                raise overtaken(base.manifest.version, place.before)
            self._writer.check_layout(place, tensors, allowed=layout_change)
            with Commit.begin(self._writer, place.version, place.before, clock) as commit:
                digest = commit.put_layout(tensors)
                if base is None:
                    listed = Listed.full(tensors, digest, pieces)
                else:
                    listed = Listed(tensors, digest, pieces, base.sums)
                encoder = Encoder(listed, Codecs(values), threads=self._reader.threads)
                for built in clock.packs(encoder):
                    go_on(False)
                    commit.put_pack(built.entry, built.parts)
                start = None if base is None else base_of(base.manifest)
                entries = file_entries(place.before, digest, files)
                contents = Contents(place.version, digest, encoder.sums, start, entries, annotations)
                manifest = commit.complete(contents)
            go_on(True)
            committed = commit.create(manifest, self._writer.adopt)
            return commit.finish(committed, tensors), Tip(committed, tensors, encoder.sums)

    def publish_plain(
        self,
        checkpoint: Checkpoint,
        *,
        source: str | None = None,
        version: int | None = None,
        annotations: Mapping[str, str] | None = None,
        layout_change: bool = False,
    ) -> Published:
        """Publish a checkpoint's safetensors files as they stand: a full version of plain packs.

        Args:
            checkpoint: the checkpoint. Its files may not change meanwhile.
            source: where the same files lie publicly, such as "hf://org/model@commit"; they are not copied then.
            version, annotations, layout_change: as for `publish`.

        Raises:
            ConflictError: as for `publish`.
            IntegrityError: the files changed meanwhile.
            UntrustedError: versions are signed, and one of this number is there that is not.
            ValueError: a source without a commit, or a version that is not greater than the newest.
            StoreError: the store failed.
        """
        clock = Clock()
        if source is not None:
            check_source(source)
        check_description(annotations, None)
        with phase("looking for the newest version"), self._turns:
            place = self._writer.place(version, full=True)
            state = State(checkpoint.layout, checkpoint.words)
            files = checkpoint_files(checkpoint)
            if place.taken:
                return self._again(place, state, None, files, annotations, clock)
            self._writer.check_layout(place, state.layout, allowed=layout_change)
            stamps = file_stamps(checkpoint)
            with Commit.begin(self._writer, place.version, place.before, clock) as commit:
                digest = commit.put_layout(checkpoint.layout)
                with clock.during("compare"):
                    sums = state.sums(threads=self._reader.threads)
                size = sum(shard.file.size for shard in checkpoint.shards if shard.header.entries)
                with phase(f"writing version {place.version}", size, passes=1 if source else 2):
                    for shard in checkpoint.shards:
                        if shard.header.entries:
                            entry = plain_entry(shard, checkpoint, source)
                            commit.put_pack(entry, same_parts(shard.file, entry.sha256))
                entries = file_entries(place.before, digest, files)
                contents = Contents(place.version, digest, sums, None, entries, annotations)
                manifest = commit.complete(contents)
                if file_stamps(checkpoint) != stamps:
                    raise changed(checkpoint.shards[0].path.parent)
                state.check_files()
            return self._commit(commit, manifest, state, checkpoint, clock)

    def _commit(
        self,
        commit: Commit,
        manifest: Manifest,
        state: State,
        made_of: Encoder | Checkpoint,
        clock: Clock,
    ) -> Published:
        """Create the manifest, and move the snapshot to its version."""
        committed = commit.create(manifest, self._writer.adopt)
        with clock.during("snapshot"):
            self._snapshot.follow(committed, made_of)
        return commit.finish(committed, state.layout)

    def _again(
        self,
        place: Place,
        state: State,
        base: Base | None,
        files: Files | None,
        annotations: Mapping[str, str] | None,
        clock: Clock,
    ) -> Published:
        """The success of an earlier call for a version whose number is taken, if it published this very version."""
        digest = digest_layout(self._reader, state.layout, place.before)
        sums = state.sums(threads=self._reader.threads)
        entries = file_entries(place.before, digest, files)
        mine = Contents(place.version, digest, sums, base, entries, annotations).manifest(self._reader.chain)
        found = self._writer.adopt(mine)
        change = self._writer.layout_change(place.before, state.layout)
        return describe(found, state.layout, change, size=0, seconds=clock.seconds)
