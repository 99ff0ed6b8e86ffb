"""Drafts: one version that many writers make together (SPEC.md section 11.3).

A coordinator opens a draft, which fixes the version's number, base and layout, and hands it to the ranks as JSON. Each
rank puts packs of its own words and returns a descriptor: the packs, the slices that it owns, and the sums of their
words, scanned from the words and not from the packs. The coordinator proves that the slices are the whole state, each
word once, and that base and packs lead to it. Only then does it create the manifest.

Objects of a draft that is never committed remain in the store. A collector deletes them after its grace period, which
therefore has to be longer than a draft is open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, cast

import numpy as np
from msgspec import UNSET, UnsetType

from ..codecs.fingerprint import U64, combine, scan, text
from ..errors import (
    ConflictError,
    IntegrityError,
    MalformedError,
    MissingError,
    UnsupportedError,
    WrongBaseError,
)
from ..format import strict_json
from ..format.chunk_codec import Piece
from ..format.layout import MAX_LAYOUT, Layout
from ..format.manifest import Manifest, PackEntry
from ..format.names import fingerprints_name, manifest_name, pack_name
from ..read.history import Published
from ..stores.download import PARALLEL
from ..threads import ordered_map
from .clock import PHASES, Clock
from .commit import Commit, Contents, Files, base_of, check_description, digest_layout, file_entries
from .descriptors import (
    DRAFT,
    Claim,
    Descriptor,
    Document,
    check_claims,
    check_packs,
    list_labels,
    owners,
    read_descriptors,
)
from .encoder import Codecs, Comparison, Encoder, Listed, Order, Stretches, Values, carried
from .shards import LayoutLike, Shard, layout_of, stretches_of
from .writer import Writer

#: Bytes of a pack: few objects for many ranks, but several for a rank of many tensors (SPEC.md section 11.3).
_PACK = 256 << 20
#: Words that one thread scans at a time.
_SCAN = 1 << 22
_MASK = (1 << 64) - 1


class Draft:
    """One version in the making, of which each rank writes a part. Made by `Chain.draft` and `Chain.join`.

    It does not change, so threads may share it: they may encode several shards, or commit, at once.

    Attributes:
        version: its number.
        layout: its tensors.
    """

    def __init__(self, writer: Writer, document: Document, layout: Layout) -> None:
        self._writer = writer
        self._reader = writer.reader
        self._document = document
        self._clock = Clock()
        self.version = document.version
        self.layout = layout

    @classmethod
    def open(
        cls, writer: Writer, layout: LayoutLike | None, *, version: int | None, full: bool, layout_change: bool
    ) -> Draft:
        """A new draft; see `Chain.draft`. Nothing is put."""
        place = writer.place(version, full=full)
        before = place.before
        if layout is not None:
            tensors = layout_of(layout)
        elif before is not None:
            tensors = writer.reader.documents.layout(before.layout)
        else:
            raise ValueError("there is no version before whose layout could be taken: name one")
        if not place.taken:
            writer.check_layout(place, tensors, allowed=layout_change)
        digest = digest_layout(writer.reader, tensors, before)
        document = Document(
            tensordelta=strict_json.VERSION,
            chain=writer.reader.chain,
            version=place.version,
            base=None if full else base_of(before),
            layout_digest=digest,
            before=None if before is None else before.version,
            tensors=UNSET if before is not None and before.layout == digest else list(tensors.tensors),
        )
        draft = cls(writer, document, tensors)
        if document.base is not None and before is not None:
            draft._base_sums(before)
        return draft

    @classmethod
    def join(cls, writer: Writer, data: str | bytes) -> Draft:
        """The draft that `to_json` wrote; see `Chain.join`."""
        reader = writer.reader
        value = strict_json.parse(data.encode() if isinstance(data, str) else data, object=DRAFT, limit=MAX_LAYOUT)
        strict_json.check_version(value, object=DRAFT)
        document = strict_json.convert(value, Document, object=DRAFT, rule="TD-JSN-012")
        if document.chain != reader.chain:
            raise ConflictError(f"is for chain {document.chain}, not {reader.chain}", object=DRAFT, rule="TD-OBJ-011")
        if isinstance(document.tensors, UnsetType):
            layout = reader.documents.layout(document.layout_digest)
        else:
            layout = Layout(document.tensors)
            layout.check(object=DRAFT)
        return cls(writer, document, layout)

    def to_json(self) -> str:
        """The draft as the ranks get it: `Chain.join` reads it."""
        return strict_json.encode(self._document).decode()

    @property
    def base(self) -> int | None:
        """The version that it is a delta to; None for a full version."""
        return None if self._document.base is None else self._document.base.version

    # -- on each rank ---------------------------------------------------------------------------------------------

    def encode(
        self,
        shard: Shard,
        base_shard: Shard | None = None,
        *,
        order: Order = "natural",
        values: Values = "step",
    ) -> dict[str, Any]:
        """Put the packs of the words that this rank owns; they are durable when this returns.

        Ranks share nothing, so a rank that died can be run again. Keep the base's words until the coordinator says
        that the version was committed; then the new ones are the next base.

        Args:
            shard: the words that this rank owns, as they are now; no other thread may write to them meanwhile. Words
                that several ranks hold are in the shard of one.
            base_shard: the same words in the base version, at least; None for a full version. Tensors that the base
                lacks, or has with another dtype or shape, start as zero and need none.
            order: "natural" (fastest), or "exponent" (smallest).
            values: "step" (smallest), or "replace" (applying twice is applying once).

        Returns:
            The descriptor, of JSON's types, for `commit`.

        Raises:
            ValueError: a tensor that the layout lacks, or has with another dtype or shape; words that pass its end or
                are given twice; missing words of the base; or codecs that do not go together.
            MissingError: the base's layout is gone.
            StoreError: the store failed.
        """
        codecs = Codecs(values, order)
        new = stretches_of(self.layout, shard, shard)
        old = self._old(new, base_shard or {})
        zeros = np.zeros(len(self.layout), np.uint64)
        compared = Comparison(self.layout, self._document.layout_digest, old, new, zeros)
        return self._put(Encoder(compared, codecs, threads=self._reader.threads), lambda: self._scan(new))

    def encode_pieces(
        self, pieces: Iterable[Piece], claims: Iterable[tuple[int, int, int, int]], *, values: Values = "step"
    ) -> dict[str, Any]:
        """As `encode`, for a rank that knows which of its words changed, so that none but these are read.

        Args:
            pieces: the changed words among those that this rank owns; see `Listed`. Tensors that the base lacks, or has
                with another dtype or shape, start as zero words.
            claims: the words that this rank owns, changed or not, in slices: tensor, start, stop, and the sum of their
                lanes as they are now, which is that of the base (`Chain.tensor_fingerprints`, for whole tensors) and
                `Piece.sum` of what changed.
            values: see `encode`.

        Returns:
            The descriptor, of JSON's types, for `commit`.

        Raises:
            ValueError: pieces that the layout cannot have, or out of order; or unknown values.
            MissingError: the base's layout is gone.
            StoreError: the store failed.
        """
        fresh = frozenset(range(len(self.layout))) - self._carried.keys()
        listed = Listed(self.layout, self._document.layout_digest, pieces, np.zeros(len(self.layout), np.uint64), fresh)
        encoder = Encoder(listed, Codecs(values), threads=self._reader.threads)
        slices = [(tensor, start, stop, text(each)) for tensor, start, stop, each in sorted(claims) if start < stop]
        return self._put(encoder, lambda: slices)

    def _put(self, encoder: Encoder, slices: Callable[[], list[tuple[int, int, int, str]]]) -> dict[str, Any]:
        """Put an encoder's packs; gives the descriptor."""
        clock = Clock()
        entries: list[PackEntry] = []
        with ExitStack() as storing:
            batch = storing.enter_context(self._reader.store.batch())
            for built in clock.packs(encoder, _PACK):
                with clock.during("put"):
                    batch.put(pack_name(built.entry.sha256), built.parts)
                entries.append(built.entry)
            with clock.during("put"):
                storing.close()
        with clock.during("compare"):
            owned = slices()
        descriptor = Descriptor(
            tensordelta=strict_json.VERSION,
            chain=self._document.chain,
            version=self._document.version,
            base=self._document.base,
            layout_digest=self._document.layout_digest,
            packs=entries,
            features=encoder.features,
            slices=owned,
            changes=[
                (tensor, listed, text(int(encoder.sums[tensor])))
                for tensor, listed in enumerate(encoder.changed_of)
                if listed
            ],
            microseconds={phase: round(1e6 * seconds) for phase, seconds in vars(clock.timings).items()},
        )
        return cast(dict[str, Any], json.loads(strict_json.encode(descriptor)))

    def _old(self, new: Sequence[Stretches], shard: Shard) -> list[Stretches | None]:
        """For each tensor of the layout the base's words under the new ones; None where they start as zero."""
        tensors = self.layout.tensors
        held = stretches_of(self.layout, shard, [tensors[index].name for index in self._carried if new[index]])
        old: list[Stretches | None] = [None] * len(tensors)
        for index in self._carried:
            for start, stop in new[index]:
                gap = held[index].gap(start, stop)
                if gap is not None:
                    name = tensors[index].name
                    raise ValueError(f"base_shard lacks word {gap} of tensor {name!r}, which version {self.base} has")
            old[index] = held[index]
        return old

    def _scan(self, new: Sequence[Stretches]) -> list[tuple[int, int, int, str]]:
        """The slices, with sums of their words; adjacent ones are merged."""
        pieces = [
            (index, at, min(at + _SCAN, stop))
            for index, stretches in enumerate(new)
            for start, stop in stretches
            for at in range(start, stop, _SCAN)
        ]

        def sum_of(piece: tuple[int, int, int]) -> int:
            index, start, stop = piece
            return scan(self.layout.tensors[index].name, new[index].part(start, stop), start=start)

        slices: list[tuple[int, int, int, str]] = []
        sums = ordered_map(sum_of, pieces, threads=self._reader.threads)
        for (index, start, stop), each in zip(pieces, sums, strict=True):
            if slices and slices[-1][:3:2] == (index, start):
                _, start, _, before = slices.pop()
                each += int(before, 16)
            slices.append((index, start, stop, text(each)))
        return slices

    # -- on the coordinator ---------------------------------------------------------------------------------------

    def commit(
        self,
        descriptors: Iterable[Mapping[str, Any] | str | bytes],
        *,
        annotations: Mapping[str, str] | None = None,
        files: Files | None = None,
    ) -> Published:
        """Check what the ranks have put, and commit the version that it makes.

        A descriptor given twice counts once, so that a rank can be run again. If the same words were committed already,
        that is a success. The snapshot of this machine does not move: the coordinator need not have the whole state.
        The result's `seconds` are those since this draft was opened or joined; `timings` are the slowest rank's.

        Args:
            descriptors: what `encode` returned on the ranks, in any order; errors name them by their place.
            annotations: strings that describe the version.
            files: the files that belong to the version, by name; by default those of the version before.

        Raises:
            MissingError: words of the layout that no rank claims, or a pack that is not in the store.
            MalformedError: words that two ranks claim, or a descriptor that contradicts itself.
            WrongBaseError: a rank compared its words with others than the base's, or the base was replaced.
            IntegrityError: packs that do not lead to the words that were scanned.
            ConflictError: a descriptor of another draft, or another writer was faster.
            UntrustedError: the version was published before, unsigned and with other packs or annotations.
            StoreError: the store failed. Nothing is committed then, unless the version exists.
        """
        annotations = {str(key): str(value) for key, value in (annotations or {}).items()}
        check_description(annotations, files)
        clock = Clock.since(self._clock)  # a draft that was not committed may be committed again
        found = read_descriptors(descriptors, self._document)
        for phase in PHASES:  # ranks work at the same time
            clock.add(phase, max((each.microseconds.get(phase, 0) for each in found.values()), default=0) / 1e6)
        claims = sorted(
            Claim(tensor, start, stop, int(each, 16), label)
            for label, descriptor in found.items()
            for tensor, start, stop, each in descriptor.slices
        )
        check_claims(claims, self.layout)
        for label, descriptor in found.items():
            check_packs(descriptor, self.layout, label)
        before = self._before()
        sums = self._prove(claims, found, before)
        self._check_stored(found)
        with Commit.begin(self._writer, self.version, before, clock) as commit:
            if commit.put_layout(self.layout) != self._document.layout_digest:
                raise MalformedError(
                    "its layout has another digest than its ranks use",
                    object=DRAFT,
                    rule="TD-CHK-003",
                    advice="Use one version of this package on all ranks.",
                )
            # Sorted, so that the manifest does not depend on the order in which ranks answered.
            packs = (entry for descriptor in found.values() for entry in descriptor.packs)
            commit.add_stored(sorted(packs, key=lambda entry: (entry.tensors, entry.sha256)))
            contents = Contents(
                self.version,
                self._document.layout_digest,
                sums,
                self._document.base,
                file_entries(before, self._document.layout_digest, files),
                annotations,
                sorted({feature for descriptor in found.values() for feature in descriptor.features}),
            )
            manifest = commit.complete(contents)
        committed = commit.create(manifest, lambda: self._writer.adopt_exactly(manifest))
        return commit.finish(committed, self.layout)

    def _before(self) -> Manifest | None:
        """The manifest of the version before, as it was when the draft was opened.

        Raises:
            WrongBaseError: another version has its number now.
            ConflictError: a later version exists.
        """
        versions = self._writer.versions()
        if versions and self.version not in versions and versions[-1] > self.version:
            raise ConflictError(
                f"version {versions[-1]} was published meanwhile",
                object=manifest_name(self.version),
                rule="TD-OBJ-014",
                advice="One writer owns a chain: stop the other one, then draft again.",
            )
        if self._document.before is None:
            return None
        manifest = self._reader.documents.manifest(self._document.before)
        if self._document.base not in (None, base_of(manifest)):
            raise WrongBaseError(
                "is not the version that the draft was opened on",
                object=manifest_name(manifest.version),
                rule="TD-WRT-001",
                advice="Draft again.",
            )
        return manifest

    def _prove(self, claims: Sequence[Claim], found: Mapping[str, Descriptor], before: Manifest | None) -> U64:
        """The fingerprint of each tensor, proven: base and packs lead to it, tensor by tensor (TD-FPR-008)."""
        new = [0] * len(self.layout)
        for claim in claims:
            new[claim.tensor] = (new[claim.tensor] + claim.sum) & _MASK
        packed = [0] * len(self.layout)
        for descriptor in found.values():
            for tensor, _, each in descriptor.changes:
                packed[tensor] = (packed[tensor] + int(each, 16)) & _MASK
        # The sum of the scanned words less that of the packs' changes: it has to be the base's fingerprint.
        rest = [(mine - listed) & _MASK for mine, listed in zip(new, packed, strict=True)]
        base = self._document.base
        sums = None if base is None or before is None else self._base_sums(before)
        for index in range(len(self.layout)):
            if index not in self._carried:
                if rest[index]:
                    raise IntegrityError(
                        f"the packs do not make the words of tensor {self.layout.tensors[index].name!r}",
                        object=owners(claims, index),
                        rule="TD-FPR-007",
                        advice="The rank's words changed while it encoded them: have it encode again.",
                    )
            elif sums is not None and rest[index] != int(sums[self._carried[index]]):
                raise self._wrong_base(f"tensor {self.layout.tensors[index].name!r}", owners(claims, index))
        if base is not None and sums is None and text(sum(rest)) != base.fingerprint:
            raise self._wrong_base("some tensor", list_labels(list(found)))
        return np.array(new, np.uint64)

    def _wrong_base(self, what: str, object: str) -> WrongBaseError:
        return WrongBaseError(
            f"{what} was not compared with its words in version {self.base}",
            object=object,
            rule="TD-WRT-001",
            advice=f"Have the rank take the words of version {self.base} for its base shard, and encode again.",
        )

    def _base_sums(self, base: Manifest) -> U64 | None:
        """The fingerprints of the base's tensors; None if only their sum is known, and suffices.

        Raises:
            UnsupportedError: the new layout lacks tensors of the base whose part in its fingerprint is unknown.
            MissingError, IntegrityError, MalformedError: the fingerprints object is missing or damaged.
        """
        sums = self._reader.documents.tensor_fingerprints(base)
        if sums is None and len(self._carried) < len(self._reader.documents.layout(base.layout)):
            raise UnsupportedError(
                "has no fingerprints of its tensors, and the new layout lacks some of these",
                object=manifest_name(base.version),
                rule="TD-FPR-004",
                advice="Draft a full version.",
            )
        if sums is not None and text(combine(sums)) != base.fingerprint:
            name = fingerprints_name(cast(str, base.tensor_fingerprints))
            raise IntegrityError(f"does not add up to {base.fingerprint}", object=name, rule="TD-FPR-003")
        return sums

    def _check_stored(self, found: Mapping[str, Descriptor]) -> None:
        """Check that the store has the packs that the manifest will name (TD-OBJ-012)."""
        entries = [(label, entry) for label, descriptor in found.items() for entry in descriptor.packs]
        store = self._reader.store
        sizes = ordered_map(
            lambda each: store.size(pack_name(each[1].sha256)),
            entries,
            threads=PARALLEL if store.remote else 1,
        )
        for (label, entry), size in zip(entries, sizes, strict=True):
            if size is None:
                raise MissingError(
                    f"{label} names it, and the store does not have it",
                    object=entry.label,
                    rule="TD-OBJ-012",
                    advice="Have the rank encode again, into the store of this chain.",
                )
            if size != entry.size:
                raise IntegrityError(
                    f"has {size} bytes; {label} names it with {entry.size}", object=entry.label, rule="TD-MAN-013"
                )

    @cached_property
    def _carried(self) -> dict[int, int]:
        """The tensors that fitting carries over from the base: index -> index in the base's layout (section 5)."""
        if self._document.base is None:
            return {}
        return carried(self._reader.documents.layout(self._document.base.layout), self.layout)

    def __repr__(self) -> str:
        start = "a full version" if self.base is None else f"a delta to version {self.base}"
        return f"Draft(version {self.version}, {start}, {len(self.layout)} tensors)"
