"""Descriptors: what the ranks of a draft say that they have put (SPEC.md section 11.3).

A rank gets the draft as one JSON document and returns another one, its descriptor. Descriptors are checked here against
the draft and one another; the packs are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, structs

from ..errors import ConflictError, MalformedError, MissingError, UnsupportedError
from ..format import strict_json
from ..format.layout import Layout, Tensor
from ..format.manifest import CHUNKS, FEATURES, Base, Feature, PackEntry
from ..format.names import ChainId, Fingerprint, FormatVersion, Integer, Sha256, Version, is_pack_name

#: How errors name the document that ranks get.
DRAFT = "the draft"


class Document(msgspec.Struct, frozen=True, omit_defaults=True, rename={"layout_digest": "layout"}):
    """A draft, as ranks get it.

    Attributes:
        opened: when, in seconds since 1970 by the clock of the machine that did.
        before: the newest version when the draft was opened; also of a full version, for its files.
        tensors: the layout, unless it is the one of `before`.
    """

    tensordelta: FormatVersion
    chain: ChainId
    version: Version
    opened: Integer
    base: Base | None
    layout_digest: Sha256
    before: Version | None
    tensors: list[Tensor] | UnsetType = UNSET


class Descriptor(msgspec.Struct, frozen=True, rename={"layout_digest": "layout"}):
    """What one rank has put.

    Attributes:
        slices: the words that it owns: tensor, start, stop, and the sum of these words' lanes.
        changes: for each tensor of which its packs list words: tensor, listed words, what they add to its fingerprint.
        microseconds: what each phase took (`Clock`); a rank that was run again took another time for the same.
    """

    tensordelta: FormatVersion
    chain: ChainId
    version: Version
    base: Base | None
    layout_digest: Sha256
    packs: list[PackEntry]
    features: list[Feature]
    slices: list[tuple[Integer, Integer, Integer, Fingerprint]]
    changes: list[tuple[Integer, Integer, Fingerprint]]
    microseconds: dict[str, Integer] = {}

    def same_packs(self, other: Descriptor) -> bool:
        """True where another one says that the same was put, under whatever names."""
        return self._comparable() == other._comparable()

    def _comparable(self) -> Descriptor:
        packs = [structs.replace(entry, path=None) for entry in self.packs]
        return structs.replace(self, microseconds={}, packs=packs)


class Claim(msgspec.Struct, frozen=True, order=True):
    """A slice, and the descriptor that claims it."""

    tensor: int
    start: int
    stop: int
    sum: int
    label: str


def read_descriptors(descriptors: Iterable[Mapping[str, Any] | str | bytes], draft: Document) -> dict[str, Descriptor]:
    """The descriptors of a draft, by the labels that errors name them by; repeated ones are left out.

    Raises:
        MalformedError, UnsupportedError: one is not JSON, lacks a field, or is of another format version.
        ConflictError: one belongs to another draft.
    """
    found: dict[str, Descriptor] = {}
    for number, each in enumerate(descriptors):
        label = f"descriptor {number}"
        if isinstance(each, Mapping):
            value = dict(each)
        else:
            data = each.encode() if isinstance(each, str) else each
            value = strict_json.parse(data, object=label, limit=len(data))
        strict_json.check_version(value, object=label)
        descriptor = strict_json.convert(value, Descriptor, object=label, rule="TD-JSN-012")
        if any(map(descriptor.same_packs, found.values())):
            continue
        if (descriptor.chain, descriptor.version, descriptor.base, descriptor.layout_digest) != (
            draft.chain,
            draft.version,
            draft.base,
            draft.layout_digest,
        ):
            raise ConflictError(
                f"belongs to another draft (version {descriptor.version} of chain {descriptor.chain})",
                object=label,
                rule="TD-WRT-001",
                advice=f"Have the rank join this draft of version {draft.version} and encode again.",
            )
        found[label] = descriptor
    return found


def check_claims(claims: Sequence[Claim], layout: Layout) -> None:
    """Check that sorted claims cover every word of a layout exactly once.

    Raises:
        MalformedError: a word claimed twice, or outside the layout.
        MissingError: a word that no descriptor claims.
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


def check_packs(descriptor: Descriptor, layout: Layout, label: str) -> None:
    """Check a descriptor's packs against the changes that it lists and the words that it claims.

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
        if entry.content != CHUNKS or entry.path is None or not is_pack_name(entry.path, entry.sha256):
            raise MalformedError(f"{entry.label} is no pack of a rank", object=label, rule="TD-PTH-006")
        for first, stop in entry.tensors:
            if not {first, stop - 1} <= listed.keys():
                raise MalformedError(
                    f"{entry.label} holds tensors {first} to {stop - 1}, of which it lists no words",
                    object=label,
                    rule="TD-MAN-030",
                )
    if sum(entry.changed for entry in descriptor.packs) != sum(count for _, count, _ in descriptor.changes):
        reason = "its packs list another number of words than its changes"
        raise MalformedError(reason, object=label, rule="TD-MAN-011")
    unknown = set(descriptor.features) - FEATURES
    if unknown:
        raise UnsupportedError(f"needs the feature {min(unknown)!r}", object=label, rule="TD-MAN-004")


def owners(claims: Iterable[Claim], tensor: int) -> str:
    """Names of the descriptors that claim words of a tensor."""
    labels = {claim.label for claim in claims if claim.tensor == tensor}
    return list_labels(sorted(labels, key=lambda label: (len(label), label)))


def list_labels(labels: Sequence[str]) -> str:
    """Labels in one text; of more than eight, the first seven and how many follow."""
    shown = labels if len(labels) <= 8 else [*labels[:7], f"{len(labels) - 7} more"]
    return ", ".join(shown)
