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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType, structs
from numpy.typing import NDArray

from . import ijson, objects
from .encoder import Encoder, Order, Stretches, Values, check_codecs
from .errors import (
    ConflictError,
    IntegrityError,
    MalformedError,
    MissingError,
    TensorDeltaError,
    UnsupportedError,
    UntrustedError,
    WrongBaseError,
)
from .fingerprint import U64, combine, scan, text
from .layout import MAX_LAYOUT, Layout, Tensor
from .manifest import CHUNKS, FEATURES, Base, Feature, Manifest, PackEntry
from .objects import ChainId, Fingerprint, FormatVersion, Integer, Sha256, Version
from .publish import Published, Publisher
from .reader import Reader
from .state import State
from .stores.transfer import PARALLEL
from .threads import ordered_map
from .words import DTYPES, Words, dtype_of, to_words

#: Bytes of a pack: few objects for many ranks, and yet a rank's tensors lie apart (SPEC.md section 11.3).
_PACK = 256 << 20
#: Words that one thread scans at a time.
_SCAN = 1 << 22
_MASK = (1 << 64) - 1

_OBJECT = "the draft"


@dataclass(frozen=True, eq=False)
class Slice:
    """A part of a tensor: words that follow one another in the tensor's row-major order, as whole rows do.

    Attributes:
        array: the words, in an array of any shape, taken in row-major order: of the tensor's dtype, or of unsigned
            integers of its word's size (a bfloat16 tensor of torch as `tensor.view(torch.uint16).numpy()`).
        start: how many words of the tensor stand before them; for packed dtypes (F4, F6) a word is a byte.
    """

    array: NDArray[Any]
    start: int


#: What a rank holds: for each name a whole tensor, a slice, or several.
Shard = Mapping[str, "NDArray[Any] | Slice | Sequence[Slice]"]
#: A layout, or what tells one: arrays, or pairs of a dtype and a shape such as ("BF16", (2, 3)).
LayoutLike = Layout | Mapping[str, Any]


class _Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A draft, as ranks get it.

    Attributes:
        before: the newest version when the draft was opened; also of a full version, for its files.
        tensors: the layout, unless it is the one of `before`.
    """

    tensordelta: FormatVersion
    chain: ChainId
    version: Version
    base: Base | None
    layout: Sha256
    before: Version | None
    tensors: list[Tensor] | UnsetType = UNSET


class _Descriptor(msgspec.Struct, frozen=True):
    """What one rank has put.

    Attributes:
        slices: the words that it owns: tensor, start, stop, and the sum of these words' lanes.
        changes: for each tensor of which its packs list words: tensor, listed words, what they add to its fingerprint.
    """

    tensordelta: FormatVersion
    chain: ChainId
    version: Version
    base: Base | None
    layout: Sha256
    packs: list[PackEntry]
    features: list[Feature]
    slices: list[tuple[Integer, Integer, Integer, Fingerprint]]
    changes: list[tuple[Integer, Integer, Fingerprint]]


class _Claim(msgspec.Struct, frozen=True, order=True):
    """A slice, and the descriptor that claims it."""

    tensor: int
    start: int
    stop: int
    sum: int
    label: str


class Draft:
    """One version in the making, of which each rank writes a part. Made by `Chain.draft` and `Chain.join`.

    Attributes:
        version: its number.
        layout: its tensors.
    """

    def __init__(self, reader: Reader, document: _Document, layout: Layout) -> None:
        self._reader = reader
        self._document = document
        self._started = time.perf_counter()
        self.version = document.version
        self.layout = layout

    @classmethod
    def open(cls, reader: Reader, layout: LayoutLike | None, *, version: int | None, full: bool) -> Draft:
        """A new draft; see `Chain.draft`. Nothing is put."""
        number, previous, before = _Coordinator(reader).begin(version, full=full)
        if layout is not None:
            tensors = _layout_of(layout)
        elif before is not None:
            tensors = reader.layout(before.layout)
        else:
            raise ValueError("there is no version before whose layout could be taken: name one")
        same = before is not None and reader.layout(before.layout) == tensors
        base = None if full or before is None else Base(before.version, before.layout, before.fingerprint)
        document = _Document(
            tensordelta=ijson.VERSION,
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
        value = ijson.parse(data.encode() if isinstance(data, str) else data, object=_OBJECT, limit=MAX_LAYOUT)
        ijson.check_version(value, object=_OBJECT)
        document = ijson.convert(value, _Document, object=_OBJECT, rule="TD-JSN-012")
        if document.chain != reader.chain:
            raise ConflictError(f"is for chain {document.chain}, not {reader.chain}", object=_OBJECT, rule="TD-OBJ-011")
        if isinstance(document.tensors, UnsetType):
            layout = reader.layout(document.layout)
        else:
            layout = Layout(document.tensors)
            layout.check(object=_OBJECT)
        return cls(reader, document, layout)

    def to_json(self) -> str:
        """The draft for the ranks, wherever they are: `Chain.join` takes it."""
        return ijson.encode(self._document).decode()

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
        new = self._stretches(shard, shard)
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
                batch.put(objects.pack_name(built.entry.sha256), built.parts)
                entries.append(built.entry)
        descriptor = _Descriptor(
            tensordelta=ijson.VERSION,
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
        return cast(dict[str, Any], json.loads(ijson.encode(descriptor)))

    def _stretches(self, shard: Shard, names: Iterable[str]) -> list[Stretches]:
        """For each tensor of the layout the words that a shard has of it, as far as it is named."""
        rows = [Stretches([])] * len(self.layout)
        for name in names:
            index = self.layout.index.get(name)
            if index is None:
                raise ValueError(f"the layout has no tensor {name!r}")
            found = _words(self.layout.tensors[index], shard.get(name, ()))
            for (start, words), (later, _) in pairwise(found):
                if start + len(words) > later:
                    raise ValueError(f"word {later} of tensor {name!r} is named twice")
            rows[index] = Stretches(found)
        return rows

    def _old(self, new: Sequence[Stretches], shard: Shard) -> list[Stretches | None]:
        """For each tensor of the layout the base's words under the new ones; None where they start as zero."""
        tensors = self.layout.tensors
        needed = [tensors[index].name for index in self._carried if new[index]]
        held = self._stretches(shard, needed)
        old: list[Stretches | None] = [None] * len(tensors)
        for index in self._carried:
            gap = _gap(held[index], new[index])
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
        found = self._parse(descriptors)
        claims = sorted(
            _Claim(tensor, start, stop, int(each, 16), label)
            for label, descriptor in found.items()
            for tensor, start, stop, each in descriptor.slices
        )
        _check_claims(claims, self.layout)
        for label, descriptor in found.items():
            _check_packs(descriptor, self.layout, label)
        coordinator = _Coordinator(self._reader)
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

    def _parse(self, descriptors: Iterable[Mapping[str, Any] | str | bytes]) -> dict[str, _Descriptor]:
        """The descriptors by the names that errors give them; repeated ones are left out."""
        found: dict[str, _Descriptor] = {}
        own = self._document
        for number, each in enumerate(descriptors):
            label = f"descriptor {number}"
            if isinstance(each, Mapping):
                value = dict(each)
            else:
                data = each.encode() if isinstance(each, str) else each
                value = ijson.parse(data, object=label, limit=len(data))
            ijson.check_version(value, object=label)
            descriptor = ijson.convert(value, _Descriptor, object=label, rule="TD-JSN-012")
            if descriptor in found.values():
                continue
            if (descriptor.chain, descriptor.version, descriptor.base, descriptor.layout) != (
                own.chain,
                own.version,
                own.base,
                own.layout,
            ):
                raise ConflictError(
                    f"belongs to another draft (version {descriptor.version} of chain {descriptor.chain})",
                    object=label,
                    rule="TD-WRT-001",
                    advice=f"Have the rank join this draft of version {own.version} and encode again.",
                )
            found[label] = descriptor
        return found

    def _prove(self, claims: Sequence[_Claim], found: Mapping[str, _Descriptor], before: Manifest | None) -> U64:
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
                        object=_owners(claims, index),
                        rule="TD-FPR-007",
                        advice="The rank's words changed while it encoded them: have it encode again.",
                    )
            elif sums is not None and rest[index] != int(sums[self._carried[index]]):
                raise self._wrong_base(f"tensor {self.layout.tensors[index].name!r}", _owners(claims, index))
        if base is not None and sums is None and text(sum(rest)) != base.fingerprint:
            raise self._wrong_base("some tensor", _names(list(found)))
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
        sums = self._reader.tensor_fingerprints(base)
        if sums is None and len(self._carried) < len(self._reader.layout(base.layout)):
            raise UnsupportedError(
                "has no fingerprints of its tensors, and the new layout lacks some of these",
                object=objects.manifest_name(base.version),
                rule="TD-FPR-004",
                advice="Draft a full version.",
            )
        if sums is not None and text(combine(sums)) != base.fingerprint:
            name = objects.fingerprints_name(cast(str, base.tensor_fingerprints))
            raise IntegrityError(f"does not add up to {base.fingerprint}", object=name, rule="TD-FPR-003")
        return sums

    def _check_stored(self, found: Mapping[str, _Descriptor]) -> None:
        """Check that the packs are where the manifest will say (TD-OBJ-012)."""
        entries = [(label, entry) for label, descriptor in found.items() for entry in descriptor.packs]
        store = self._reader.store
        sizes = ordered_map(
            lambda each: store.size(objects.pack_name(each[1].sha256)),
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
        base = self._reader.layout(self._document.base.layout)
        found = ((index, base.index.get(tensor.name)) for index, tensor in enumerate(self.layout.tensors))
        return {
            index: old for index, old in found if old is not None and base.tensors[old] == self.layout.tensors[index]
        }

    def __repr__(self) -> str:
        start = "a full version" if self.base is None else f"a delta to version {self.base}"
        return f"Draft(version {self.version}, {start}, {len(self.layout)} tensors)"


class _Coordinator(Publisher):
    """Publishes what ranks have put. No one here has the whole state, so no snapshot moves."""

    def begin(self, version: int | None, *, full: bool) -> tuple[int, int | None, Manifest | None]:
        """The version's number, the version before it, and that one's manifest."""
        number, previous, _ = self._next(version)
        return number, previous, self._before(previous, full=full)

    def before(self, document: _Document) -> Manifest | None:
        """The manifest of the version before, as it was when the draft was opened.

        Raises:
            WrongBaseError: another version has its number now.
            ConflictError: a later version exists.
        """
        self._next(None)  # the chain is still the same, and what is owed to its newest version is settled
        versions = self._reader.versions(unsigned=True)
        if versions and document.version not in versions and versions[-1] > document.version:
            raise ConflictError(
                f"version {versions[-1]} was published meanwhile",
                object=objects.manifest_name(document.version),
                rule="TD-OBJ-014",
                advice="One writer owns a chain: stop the other one, then draft again.",
            )
        if document.before is None:
            return None
        manifest = self._reader.manifest(document.before)
        base = document.base
        if base is not None and base != Base(manifest.version, manifest.layout, manifest.fingerprint):
            raise WrongBaseError(
                "is not the version that the draft was opened on",
                object=objects.manifest_name(manifest.version),
                rule="TD-WRT-001",
                advice="Draft again.",
            )
        return manifest

    def put(
        self,
        document: _Document,
        layout: Layout,
        sums: U64,
        packs: list[PackEntry],
        before: Manifest | None,
        files: Mapping[str, bytes | Path] | None,
        annotations: Mapping[str, str],
    ) -> Manifest:
        """Put what the manifest names beside the packs; gives the manifest, without base and features."""
        with self._batch():
            digest = self._layout(layout, before)
            if digest != document.layout:
                raise MalformedError(
                    "its layout has another digest than its ranks were told",
                    object=_OBJECT,
                    rule="TD-CHK-003",
                    advice="Use one version of this package on all ranks.",
                )
            manifest = self._manifest(document.version, digest, sums, packs, before, files, annotations)
        self._put += sum(entry.size for entry in packs)
        return manifest

    def commit(self, manifest: Manifest, layout: Layout, before: Manifest | None, started: float) -> Published:
        """Create the manifest, or find it there."""
        return self._commit(manifest, State(layout, ()), before, started)

    def _vouch(self, mine: Manifest, other: Manifest, data: bytes, state: State, before: Manifest | None) -> None:
        """Sign a version that an earlier try left unsigned, if it says what this one would."""
        if self._signer is None:
            return
        with suppress(TensorDeltaError):
            self._reader.trusting(self._reader.trust).manifest(other.version)
            return  # signed already
        name = objects.manifest_name(other.version)
        if structs.replace(other, created=mine.created) != mine:
            raise UntrustedError(
                "was published already, unsigned, and names other packs or annotations",
                object=name,
                rule="TD-SIG-002",
                advice="Look at it, then have it signed if you trust it (`tensordelta sign`).",
            )
        self._signer.sign(name, data)

    def _after(self, version: int) -> None:
        """Leave the snapshot of this machine as it is; it may be no one's."""


def _layout_of(given: LayoutLike) -> Layout:
    """The layout that arrays, or their dtypes and shapes, tell."""
    if isinstance(given, State):
        return given.layout
    if isinstance(given, Layout):
        return Layout.of(given.tensors, object="the layout")
    tensors: list[Tensor] = []
    for name, each in given.items():
        if isinstance(each, tuple):
            dtype, shape = each
            kind = DTYPES[dtype] if isinstance(dtype, str) and dtype in DTYPES else dtype_of(np.dtype(dtype))
        else:
            kind, shape = dtype_of(np.dtype(each.dtype)), each.shape
        tensors.append(Tensor(name, kind.name, tuple(map(int, shape))))
    return Layout.of(tensors, object="the layout")


def _words(tensor: Tensor, given: NDArray[Any] | Slice | Sequence[Slice]) -> list[tuple[int, Words]]:
    """The words of a tensor that a shard holds, with the places where they begin; empty ones are left out.

    Raises:
        ValueError: they are not of this tensor.
    """
    if isinstance(given, Slice):
        parts = [given]
    elif isinstance(given, Sequence):
        parts = list(given)
    else:
        array = np.asarray(given)
        if array.size != tensor.words or (not tensor.kind.packed and array.shape != tensor.shape):
            raise ValueError(
                f"tensor {tensor.name!r} is {list(tensor.shape)}, the array {list(array.shape)}; a part is a Slice"
            )
        parts = [Slice(array, 0)]
    found: list[tuple[int, Words]] = []
    for part in parts:
        array = np.asarray(part.array)
        if array.dtype.newbyteorder("<") not in (tensor.kind.array, tensor.kind.word):
            raise ValueError(f"tensor {tensor.name!r} is {tensor.dtype}, the array {array.dtype}")
        stop = part.start + array.size
        if not 0 <= part.start <= stop <= tensor.words:
            raise ValueError(f"words {part.start} to {stop - 1} of tensor {tensor.name!r}, which has {tensor.words}")
        if array.size:
            found.append((part.start, to_words(array, tensor.kind)))
    return sorted(found, key=lambda each: each[0])


def _joined(stretches: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending stretches, those that touch as one."""
    begin = end = -1
    for start, stop in stretches:
        if start == end:
            end = stop
            continue
        if end > begin:
            yield begin, end
        begin, end = start, stop
    if end > begin:
        yield begin, end


def _gap(held: Stretches, wanted: Stretches) -> int | None:
    """The first word that is wanted and not held."""
    have = list(_joined(held))
    at = 0
    for start, stop in _joined(wanted):
        while at < len(have) and have[at][1] <= start:
            at += 1
        if at == len(have) or start < have[at][0]:
            return start
        if stop > have[at][1]:
            return have[at][1]
    return None


def _check_claims(claims: Sequence[_Claim], layout: Layout) -> None:
    """Check that sorted claims name every word of a layout once.

    Raises:
        MalformedError: words named twice, or that are none of the layout's.
        MissingError: words that nobody names.
    """
    for claim in claims:
        if claim.tensor >= len(layout) or not claim.start < claim.stop <= layout.tensors[claim.tensor].words:
            raise MalformedError(
                f"claims words {claim.start} to {claim.stop - 1} of tensor {claim.tensor}, which the layout lacks",
                object=claim.label,
                rule="TD-CHK-008",
            )
    at = 0
    for index, tensor in enumerate(layout.tensors):
        end, owner = 0, ""
        while at < len(claims) and claims[at].tensor == index:
            claim = claims[at]
            if claim.start < end:
                raise MalformedError(
                    f"claims words {claim.start} to {min(claim.stop, end) - 1} of tensor {tensor.name!r}; "
                    f"{owner} does too",
                    object=claim.label,
                    rule="TD-MAN-019",
                    advice="Words that several ranks hold have one owner: leave them out of the other ranks' shards.",
                )
            if claim.start > end:
                raise _unclaimed(tensor, end, claim.start)
            end, owner = claim.stop, claim.label
            at += 1
        if end < tensor.words:
            raise _unclaimed(tensor, end, tensor.words)


def _unclaimed(tensor: Tensor, start: int, stop: int) -> MissingError:
    return MissingError(
        f"none claims words {start} to {stop - 1} of tensor {tensor.name!r}",
        object="the descriptors",
        rule="TD-FPR-007",
        advice="Every word has an owner, changed or not: wait for all ranks, and run those that died again.",
    )


def _check_packs(descriptor: _Descriptor, layout: Layout, label: str) -> None:
    """Check that a descriptor's packs list what it says of them, and nothing but words that it claims.

    Raises:
        MalformedError, UnsupportedError: they do not.
    """
    owned: dict[int, int] = {}
    for tensor, start, stop, _ in descriptor.slices:
        owned[tensor] = owned.get(tensor, 0) + stop - start
    listed = {tensor: count for tensor, count, _ in descriptor.changes}
    for tensor, count in listed.items():
        if count > owned.get(tensor, 0):
            name = layout.tensors[tensor].name if tensor < len(layout) else str(tensor)
            raise MalformedError(
                f"its packs list {count} words of tensor {name!r}, of which it claims {owned.get(tensor, 0)}",
                object=label,
                rule="TD-MAN-019",
            )
    for entry in descriptor.packs:
        if entry.content != CHUNKS or entry.path != objects.pack_name(entry.sha256):
            raise MalformedError(f"{entry.label} is no pack of a rank", object=label, rule="TD-PTH-006")
        if not {entry.tensors[0], entry.tensors[1] - 1} <= listed.keys():
            raise MalformedError(
                f"{entry.label} holds tensors {entry.tensors[0]} to {entry.tensors[1] - 1}, of which it lists no words",
                object=label,
                rule="TD-MAN-010",
            )
    if sum(entry.changed for entry in descriptor.packs) != sum(count for _, count, _ in descriptor.changes):
        raise MalformedError("its packs list another number of words than it says", object=label, rule="TD-MAN-011")
    unknown = set(descriptor.features) - FEATURES
    if unknown:
        raise UnsupportedError(f"needs the feature {min(unknown)!r}", object=label, rule="TD-MAN-004")


def _place(entry: PackEntry) -> tuple[tuple[int, int], str]:
    """What packs are sorted by, so that a manifest does not tell in which order ranks answered."""
    return entry.tensors, entry.sha256


def _owners(claims: Iterable[_Claim], tensor: int) -> str:
    """Names of the descriptors that claim words of a tensor."""
    labels = {claim.label for claim in claims if claim.tensor == tensor}
    return _names(sorted(labels, key=lambda label: (len(label), label)))


def _names(labels: Sequence[str]) -> str:
    """Labels in words, some of them where they are many."""
    shown = labels if len(labels) <= 8 else [*labels[:7], f"{len(labels) - 7} more"]
    return ", ".join(shown)
