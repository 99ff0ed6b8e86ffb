"""Chunks: their entries in the chunk table, and what is checked of them (SPEC.md section 6.3).

`check` needs no byte of the chunk's streams; `chunk_codec` decodes and encodes those.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..codecs import compression, positions
from ..codecs.words import DTYPES, DType
from ..errors import LimitError, MalformedError, UnsupportedError
from . import strict_json
from .layout import Layout
from .names import Fingerprint, Integer

#: Greatest number of words of a chunk.
MAX_WORDS = 2**27
#: Greatest number of words of a group of slices in exponent order, which readers sort at once.
MAX_GROUP = 2**24


def count_words(slices: Iterable[tuple[int, int, int]]) -> int:
    """Number of words of some slices."""
    return sum(stop - start for _, start, stop in slices)


class Natural(msgspec.Struct, frozen=True, tag_field="codec", tag="natural", forbid_unknown_fields=True):
    """Words are numbered in their own order (SPEC.md section 7.2)."""


class Exponent(msgspec.Struct, frozen=True, tag_field="codec", tag="exponent", forbid_unknown_fields=True):
    """In each group of slices, words with base exponents below `limit` come first (SPEC.md section 7.3)."""

    limit: Annotated[int, Meta(ge=1, le=2**11)]
    groups: list[Annotated[int, Meta(ge=1, le=strict_json.MAX_INTEGER)]] | UnsetType = UNSET


class Gap(msgspec.Struct, frozen=True, tag_field="codec", tag="gap", forbid_unknown_fields=True):
    """Distances between listed words (SPEC.md section 7.4)."""

    shift: Literal[0, 4, 8]


class Bitmap(msgspec.Struct, frozen=True, tag_field="codec", tag="bitmap", forbid_unknown_fields=True):
    """One bit a word (SPEC.md section 7.5)."""


class All(msgspec.Struct, frozen=True, tag_field="codec", tag="all", forbid_unknown_fields=True):
    """Every word is listed (SPEC.md section 7.6)."""


class Step(msgspec.Struct, frozen=True, tag_field="codec", tag="step", forbid_unknown_fields=True):
    """Differences to the base's words (SPEC.md section 7.7)."""


class Replace(msgspec.Struct, frozen=True, tag_field="codec", tag="replace", forbid_unknown_fields=True):
    """The new words themselves (SPEC.md section 7.8)."""


class Span(NamedTuple):
    """Words start … stop - 1 of a tensor."""

    tensor: int
    start: int
    stop: int


class Chunk(msgspec.Struct, frozen=True, dict=True):
    """A chunk's entry in the chunk table."""

    dtype: str
    slices: list[tuple[Integer, Integer, Integer]]
    changed: Integer
    order: Natural | Exponent
    positions: Gap | Bitmap | All
    values: Step | Replace
    compression: str
    result: Fingerprint

    @property
    def kind(self) -> DType:
        """Properties of the chunk's dtype."""
        return DTYPES[self.dtype]

    @cached_property
    def words(self) -> int:
        """Number of words of the chunk's space."""
        return count_words(self.slices)

    @property
    def groups(self) -> list[list[tuple[int, int, int]]]:
        """The slices by group: in exponent order, the words of one are sorted together; else all are in one."""
        if isinstance(self.order, Natural) or isinstance(self.order.groups, UnsetType):
            return [self.slices]
        ends = list(accumulate(self.order.groups))
        return [self.slices[end - count : end] for count, end in zip(self.order.groups, ends, strict=True)]

    @property
    def memory(self) -> int:
        """Greatest number of bytes that decoding allocates, including streams and temporaries."""
        word = self.kind.word.itemsize
        total = self.changed * (4 * 8 + 6 * word)
        if isinstance(self.positions, Gap):
            total += 10 * positions.max_gaps(self.changed, self.words, self.positions.shift)
        if isinstance(self.positions, Bitmap):
            total += self.words * (10 + word)
        elif isinstance(self.order, Exponent):
            total += max(map(count_words, self.groups)) * (10 + word)
        return total


_CODECS = {
    "order": ("natural", "exponent"),
    "positions": ("gap", "bitmap", "all"),
    "values": ("step", "replace"),
}


def parse(value: Any, *, object: str) -> Chunk:
    """Parse an entry of a chunk table.

    Raises:
        MalformedError: a field is absent or of the wrong type, or a parameter of a known codec is wrong.
        UnsupportedError: an unknown dtype, codec or compression.
    """
    if isinstance(value, dict):
        for field, known in _CODECS.items():
            codec = value.get(field)
            name = codec.get("codec") if isinstance(codec, dict) else None
            if isinstance(name, str) and name not in known:
                raise UnsupportedError(f"the {field} codec {name!r}", object=object, rule="TD-CHK-012")
    chunk = strict_json.convert(value, Chunk, object=object, rule="TD-CHK-002", refine=_field_rule)
    if chunk.dtype not in DTYPES:
        raise UnsupportedError(f"dtype {chunk.dtype!r}", object=object, rule="TD-CHK-010")
    if chunk.compression not in compression.KNOWN:
        raise UnsupportedError(f"compression {chunk.compression!r}", object=object, rule="TD-CHK-015")
    return chunk


def _field_rule(fault: str) -> str | None:
    if " - at `$.order.groups" in fault:
        found = strict_json.field_rule(fault) or "TD-ORD-006"
        return "TD-CHK-013" if found == "TD-JSN-012" else found
    if any(f" - at `$.{field}" in fault for field in _CODECS):
        return "TD-CHK-014" if "unknown field" in fault else "TD-CHK-013"
    return strict_json.field_rule(fault)


def check(chunk: Chunk, layout: Layout, *, object: str) -> None:
    """Check slices, bounds and the combination of codecs against the layout.

    Raises:
        MalformedError, LimitError: see SPEC.md sections 6.3 and 7.11.
    """
    _check_slices(chunk, layout, object)
    exponent = isinstance(chunk.order, Exponent)
    if chunk.words > MAX_WORDS:
        raise LimitError(f"{chunk.words} words, more than 2^27", object=object, rule="TD-CHK-016")
    if not 1 <= chunk.changed <= chunk.words:
        raise MalformedError(f"{chunk.changed} of {chunk.words} words listed", object=object, rule="TD-CHK-011")
    if isinstance(chunk.order, Exponent):
        if chunk.kind.exponent is None:
            raise MalformedError(f"{chunk.dtype} has no exponent field", object=object, rule="TD-ORD-003")
        if chunk.order.limit > 1 << chunk.kind.exponent[1]:
            raise MalformedError(f"the limit {chunk.order.limit} is too great", object=object, rule="TD-ORD-004")
        if not isinstance(chunk.order.groups, UnsetType) and sum(chunk.order.groups) != len(chunk.slices):
            raise MalformedError(
                f"groups of {sum(chunk.order.groups)} of {len(chunk.slices)} slices", object=object, rule="TD-ORD-006"
            )
        if max(map(count_words, chunk.groups)) > MAX_GROUP:
            raise LimitError("a group of more than 2^24 words", object=object, rule="TD-ORD-005")
        if isinstance(chunk.values, Replace):
            raise MalformedError("replace in exponent order", object=object, rule="TD-VAL-006")
    if isinstance(chunk.positions, All):
        if exponent:
            raise MalformedError("positions `all` in exponent order", object=object, rule="TD-POS-012")
        if chunk.changed != chunk.words:
            raise MalformedError("positions `all`, but not all words listed", object=object, rule="TD-POS-011")


def _check_slices(chunk: Chunk, layout: Layout, object: str) -> None:
    if not chunk.slices:
        raise MalformedError("a chunk without slices", object=object, rule="TD-CHK-002")
    before = end = (-1, 0)
    for tensor, start, stop in chunk.slices:
        if tensor >= len(layout):
            raise MalformedError(f"tensor {tensor} of {len(layout)}", object=object, rule="TD-CHK-008")
        if start >= stop:
            raise MalformedError(f"the slice {[tensor, start, stop]} is empty", object=object, rule="TD-CHK-007")
        if stop > layout.tensors[tensor].words:
            raise MalformedError(
                f"the slice {[tensor, start, stop]} ends past the tensor's {layout.tensors[tensor].words} words",
                object=object,
                rule="TD-CHK-008",
            )
        if layout.tensors[tensor].dtype != chunk.dtype:
            raise MalformedError(
                f"a chunk of {chunk.dtype} over a tensor of {layout.tensors[tensor].dtype}",
                object=object,
                rule="TD-CHK-009",
            )
        if (tensor, start) < before:
            raise MalformedError("the slices are not sorted", object=object, rule="TD-CHK-004")
        if (tensor, start) < end:
            raise MalformedError("two slices overlap", object=object, rule="TD-CHK-005")
        before, end = (tensor, start), (tensor, stop)


def stream_names(chunk: Chunk) -> tuple[set[str], set[str]]:
    """Names of the streams that a chunk has, and of those that it may have, depending on its codes."""
    required: set[str] = set()
    if isinstance(chunk.positions, Gap):
        required |= {"gaps", "low"} if chunk.positions.shift else {"gaps"}
    elif isinstance(chunk.positions, Bitmap):
        required.add("bitmap")
    planes = range(chunk.kind.word.itemsize)
    if isinstance(chunk.values, Replace):
        return required | {f"values.{plane}" for plane in planes}, set()
    return required | {"codes"}, {f"escapes.{plane}" for plane in planes}
