"""Drafts: one version that many writers make together (SPEC.md section 11.3).

A coordinator opens a draft, which fixes the version's number, base and layout, and hands it to the ranks as JSON. Each
rank puts packs of its own words and gives back a descriptor: the packs, the slices that it owns, and the sums of their
words, scanned from the words and not from the packs. The coordinator proves that the slices are the whole state, each
word once, and that base and packs lead to it; only then it creates the manifest.

Objects of a draft that is never committed stay behind; a collector takes them after its grace period, which therefore
has to be longer than a draft is open.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from msgspec import UNSET, UnsetType, structs

from ..codecs.fingerprint import U64, combine, scan, text
from ..errors import ConflictError, IntegrityError, MissingError, UnsupportedError, WrongBaseError
from ..format import strict_json
from ..format.layout import MAX_LAYOUT, Layout
from ..format.manifest import Base, Manifest, PackEntry
from ..format.names import fingerprints_name, manifest_name, pack_name
from ..read.published import Published
from ..read.reader import Reader
from ..stores.download import PARALLEL
from ..threads import ordered_map
from .coordinator import Coordinator
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
from .encoder import Encoder, Order, Stretches, Values, check_codecs
from .shards import LayoutLike, Shard, first_gap, layout_of, stretches_of

#: Bytes of a pack: few objects for many ranks, and yet a rank's tensors lie apart (SPEC.md section 11.3).
_PACK = 256 << 20
#: Words that one thread scans at a time.
_SCAN = 1 << 22
_MASK = (1 << 64) - 1


class Draft:
    """One version in the making, of which each rank writes a part. Made by `Chain.draft` and `Chain.join`.

    Attributes:
        version: its number.
        layout: its tensors.
    """

    def __init__(self, reader: Reader, document: Document, layout: Layout) -> None:
        self._reader = reader
        self._document = document
        self._started = time.perf_counter()
        self.version = document.version
        self.layout = layout

    @classmethod
    def open(cls, reader: Reader, layout: LayoutLike | None, *, version: int | None, full: bool) -> Draft:
        """A new draft; see `Chain.draft`. Nothing is put."""
        number, previous, before = Coordinator(reader).begin(version, full=full)
        if layout is not None:
            tensors = layout_of(layout)
        elif before is not None:
            tensors = reader.documents.layout(before.layout)
        else:
            raise ValueError("there is no version before whose layout could be taken: name one")
        same = before is not None and reader.documents.layout(before.layout) == tensors
        base = None if full or before is None else Base(before.version, before.layout, before.fingerprint)
        document = Document(
            tensordelta=strict_json.VERSION,
            chain=reader.chain,
            version=number,
            base=base,
            layout=before.layout if before is not None and same else hashlib.sha256(tensors.encode()).hexdigest(),
            before=None if before is None else previous,
            tensors=UNSET if same else list(tensors.tensors),
        )
        draft = cls(reader, document, tensors)
        if base is not None and before is not None:
            draft._base_sums(before)
        return draft

    @classmethod
    def join(cls, reader: Reader, data: str | bytes) -> Draft:
        """The draft that `to_json` wrote; see `Chain.join`."""
        value = strict_json.parse(data.encode() if isinstance(data, str) else data, object=DRAFT, limit=MAX_LAYOUT)
        strict_json.check_version(value, object=DRAFT)
        document = strict_json.convert(value, Document, object=DRAFT, rule="TD-JSN-012")
        if document.chain != reader.chain:
            raise ConflictError(f"is for chain {document.chain}, not {reader.chain}", object=DRAFT, rule="TD-OBJ-011")
        if isinstance(document.tensors, UnsetType):
            layout = reader.documents.layout(document.layout)
        else:
            layout = Layout(document.tensors)
            layout.check(object=DRAFT)
        return cls(reader, document, layout)

    def to_json(self) -> str:
        """The draft for the ranks, wherever they are: `Chain.join` takes it."""
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

        Nothing is shared with other ranks, so a rank that died is run again. Keep the base's words until the
        coordinator says that the version was committed; then the new ones are the next base.

        Args:
            shard: the words that this rank owns, as they are now. Of words that several ranks hold, one names them.
            base_shard: the same words in the base version, at least; None for a full version. Tensors that the base
                lacks, or has with another dtype or shape, start as zero and need none.
            order: "natural" (fastest), or "exponent" (smallest).
            values: "step" (smallest), or "replace" (applying twice is applying once).

        Returns:
            The descriptor, of JSON's types, for `commit`.

        Raises:
            ValueError: a tensor that the layout lacks, or has otherwise; words that pass its end or are named twice;
                words of the base that are not there; or codecs that do not go together.
            MissingError: the base's layout is gone.
            StoreError: the store failed.
        """
        check_codecs(values, order)
        new = stretches_of(self.layout, shard, shard)
        old = self._old(new, base_shard or {})
        encoder = Encoder.of_part(
            self.layout,
            old,
            new,
            layout=self._document.layout,
            values=values,
            order=order,
            threads=self._reader.threads,
        )
        entries: list[PackEntry] = []
        with self._reader.store.batch() as batch:
            for built in encoder.packs(_PACK):
                batch.put(pack_name(built.entry.sha256), built.parts)
                entries.append(built.entry)
        descriptor = Descriptor(
            tensordelta=strict_json.VERSION,
            chain=self._document.chain,
            version=self._document.version,
            base=self._document.base,
            layout=self._document.layout,
            packs=entries,
            features=encoder.features,
            slices=self._scan(new),
            changes=[
                (tensor, listed, text(int(encoder.sums[tensor])))
                for tensor, listed in enumerate(encoder.changed_of)
                if listed
            ],
        )
        return cast(dict[str, Any], json.loads(strict_json.encode(descriptor)))

    def _old(self, new: Sequence[Stretches], shard: Shard) -> list[Stretches | None]:
        """For each tensor of the layout the base's words under the new ones; None where they start as zero."""
        tensors = self.layout.tensors
        needed = [tensors[index].name for index in self._carried if new[index]]
        held = stretches_of(self.layout, shard, needed)
        old: list[Stretches | None] = [None] * len(tensors)
        for index in self._carried:
            gap = first_gap(held[index], new[index])
            if gap is not None:
                raise ValueError(
                    f"base_shard lacks word {gap} of tensor {tensors[index].name!r}, which version {self.base} has"
                )
            old[index] = held[index]
        return old

    def _scan(self, new: Sequence[Stretches]) -> list[tuple[int, int, int, str]]:
        """The slices, with sums of their words; those that touch are one."""
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
        files: Mapping[str, bytes | Path] | None = None,
    ) -> Published:
        """Check what the ranks have put, and make the version of it.

        The same descriptor twice is one, so that a rank may be asked again; a draft that was committed already by the
        same words is a success.

        Args:
            descriptors: what `encode` returned on the ranks, in any order; errors name them by their place.
            annotations: strings that say more of the version.
            files: the files to lay beside the weights, by name; by default those of the newest version.

        Raises:
            MissingError: words of the layout that no rank claims, or a pack that is not in the store.
            MalformedError: words that two ranks claim, or a descriptor that contradicts itself.
            WrongBaseError: a rank compared its words with others than the base's, or the base was replaced.
            IntegrityError: packs that do not lead to the words that were scanned.
            ConflictError: a descriptor of another draft, or another writer was faster.
            UntrustedError: the version was published before, unsigned, and says something else.
            StoreError: the store failed. Nothing is committed then, unless the version exists.
        """
        found = read_descriptors(descriptors, self._document)
        claims = sorted(
            Claim(tensor, start, stop, int(each, 16), label)
            for label, descriptor in found.items()
            for tensor, start, stop, each in descriptor.slices
        )
        check_claims(claims, self.layout)
        for label, descriptor in found.items():
            check_packs(descriptor, self.layout, label)
        coordinator = Coordinator(self._reader)
        before = coordinator.before(self._document)
        sums = self._prove(claims, found, before)
        self._check_stored(found)
        manifest = structs.replace(
            coordinator.put(
                self._document,
                self.layout,
                sums,
                sorted((entry for descriptor in found.values() for entry in descriptor.packs), key=_place),
                before,
                files,
                {str(key): str(value) for key, value in (annotations or {}).items()},
            ),
            base=self._document.base,
            features=sorted({feature for descriptor in found.values() for feature in descriptor.features}),
        )
        return coordinator.commit(manifest, self.layout, before, self._started)

    def _prove(self, claims: Sequence[Claim], found: Mapping[str, Descriptor], before: Manifest | None) -> U64:
        """The fingerprint of each tensor; base and packs lead to them, tensor by tensor (TD-FPR-008)."""
        new = [0] * len(self.layout)
        for claim in claims:
            new[claim.tensor] = (new[claim.tensor] + claim.sum) & _MASK
        packed = [0] * len(self.layout)
        for descriptor in found.values():
            for tensor, _, each in descriptor.changes:
                packed[tensor] = (packed[tensor] + int(each, 16)) & _MASK
        # What the words that were scanned have more than the packs make; it has to be the base's fingerprint.
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
        """The fingerprints of the base's tensors; None where only their sum is known, and is enough.

        Raises:
            UnsupportedError: tensors of the base go, and nothing tells their part in its fingerprint.
            MissingError, IntegrityError, MalformedError: the object that tells is no good.
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
        """Check that the packs are where the manifest will say (TD-OBJ-012)."""
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
                    f"{label} names it, and it is not there",
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
        base = self._reader.documents.layout(self._document.base.layout)
        found = ((index, base.index.get(tensor.name)) for index, tensor in enumerate(self.layout.tensors))
        return {
            index: old for index, old in found if old is not None and base.tensors[old] == self.layout.tensors[index]
        }

    def __repr__(self) -> str:
        start = "a full version" if self.base is None else f"a delta to version {self.base}"
        return f"Draft(version {self.version}, {start}, {len(self.layout)} tensors)"


def _place(entry: PackEntry) -> tuple[tuple[int, int], str]:
    """What packs are sorted by, so that a manifest does not tell in which order ranks answered."""
    return entry.tensors, entry.sha256
