"""Layouts: the tensors of a state without their words (SPEC.md section 4.6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property

import msgspec

from ..codecs.words import DTYPES, DType, elements
from ..errors import IntegrityError, LimitError, MalformedError, UnsupportedError
from . import strict_json
from .names import FormatVersion, Integer, layout_name

#: Greatest size of a layout object, in bytes.
MAX_LAYOUT = 256 * 2**20
#: Greatest number of tensors.
MAX_TENSORS = 2**20
#: Greatest dimension, and greatest product of the dimensions that are not 0.
MAX_ELEMENTS = 2**48
#: Greatest number of dimensions.
MAX_RANK = 16
#: Greatest length of a tensor's name, in bytes.
MAX_NAME = 1024


#: What to do about a tensor of a user's own.
_OWN = "Give the tensor a name, a dtype and a shape that the format has (SPEC.md section 4.6)."


class Tensor(msgspec.Struct, frozen=True):
    """One tensor of a layout: its name, dtype and shape."""

    name: str
    dtype: str
    shape: tuple[Integer, ...]

    @property
    def kind(self) -> DType:
        """The dtype's properties."""
        return DTYPES[self.dtype]

    @property
    def words(self) -> int:
        """Number of words."""
        return DTYPES[self.dtype].words(elements(self.shape))

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.words * DTYPES[self.dtype].word.itemsize


class LayoutDocument(msgspec.Struct, frozen=True):
    """A layout as stored."""

    tensordelta: FormatVersion
    tensors: list[Tensor]


class Layout:
    """The tensors of a state, sorted by name; two layouts are equal iff their lists are.

    Attributes:
        tensors: the tensors, in order; a tensor's index is its place in it.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors: tuple[Tensor, ...] = tuple(tensors)

    @classmethod
    def of(cls, tensors: Iterable[Tensor], *, object: str = "layout") -> Layout:
        """The checked layout of tensors that a user gives, in any order.

        Raises:
            MalformedError, UnsupportedError, LimitError: a tensor or a name that the format does not allow.
        """
        tensors = list(tensors)
        try:
            for tensor in tensors:
                _check_unicode(tensor.name, object)
            layout = cls(sorted(tensors, key=lambda tensor: tensor.name.encode()))
            layout.check(object=object)
        except (MalformedError, UnsupportedError, LimitError) as fault:
            raise type(fault)(fault.reason, object=fault.object, rule=fault.rule, advice=_OWN) from None
        return layout

    def check(self, *, object: str) -> None:
        """Check every rule for tensors, names and shapes.

        Raises:
            MalformedError, UnsupportedError, LimitError: see SPEC.md section 4.6.
        """
        if len(self.tensors) > MAX_TENSORS:
            raise LimitError(f"{len(self.tensors)} tensors, more than 2^20", object=object, rule="TD-LIM-004")
        before: bytes | None = None
        for tensor in self.tensors:
            encoded = tensor.name.encode()
            if not 1 <= len(encoded) <= MAX_NAME:
                raise MalformedError(
                    f"the name {tensor.name[:80]!r} has {len(encoded)} bytes, not 1 to {MAX_NAME}",
                    object=object,
                    rule="TD-LAY-003",
                )
            if encoded == b"__metadata__":
                raise MalformedError("a tensor is named __metadata__", object=object, rule="TD-LAY-004")
            if before is not None and encoded <= before:
                raise MalformedError(
                    f"tensor {tensor.name!r} is not after the one before it", object=object, rule="TD-LAY-002"
                )
            before = encoded
            if tensor.dtype not in DTYPES:
                raise UnsupportedError(
                    f"tensor {tensor.name!r} has dtype {tensor.dtype!r}", object=object, rule="TD-WRD-004"
                )
            self._check_shape(tensor, object)

    @staticmethod
    def _check_shape(tensor: Tensor, object: str) -> None:
        if len(tensor.shape) > MAX_RANK:
            raise LimitError(
                f"tensor {tensor.name!r} has {len(tensor.shape)} dimensions, more than {MAX_RANK}",
                object=object,
                rule="TD-LIM-004",
            )
        product = 1
        for size in tensor.shape:
            product *= size or 1
            if size > MAX_ELEMENTS or product > MAX_ELEMENTS:
                raise LimitError(
                    f"tensor {tensor.name!r} has more than 2^48 elements", object=object, rule="TD-LAY-007"
                )
        if elements(tensor.shape) * tensor.kind.bits % 8:
            raise MalformedError(f"tensor {tensor.name!r} does not fill whole bytes", object=object, rule="TD-WRD-005")

    @classmethod
    def parse(cls, data: bytes, *, sha256: str) -> Layout:
        """Parse a stored layout and check it against its digest.

        Raises:
            IntegrityError: the bytes have another SHA-256.
            MalformedError, UnsupportedError, LimitError: see SPEC.md section 4.6.
        """
        name = layout_name(sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise IntegrityError("SHA-256 differs from its name", object=name, rule="TD-LAY-008")
        document = strict_json.parse_document(data, LayoutDocument, object=name, limit=MAX_LAYOUT, rule="TD-LAY-001")
        layout = cls(document.tensors)
        layout.check(object=name)
        return layout

    def encode(self) -> bytes:
        """The bytes of the layout object."""
        return strict_json.encode(LayoutDocument(strict_json.VERSION, list(self.tensors)))

    @cached_property
    def index(self) -> dict[str, int]:
        """Tensor index by name."""
        return {tensor.name: index for index, tensor in enumerate(self.tensors)}

    @cached_property
    def words(self) -> int:
        """Number of words of the whole state."""
        return sum(tensor.words for tensor in self.tensors)

    @cached_property
    def nbytes(self) -> int:
        """Number of bytes of the whole state."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.tensors == other.tensors

    def __hash__(self) -> int:
        return hash(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        return f"Layout({len(self)} tensors, {self.words} words)"


def _check_unicode(name: str, object: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise MalformedError(f"the name {name[:80]!r} is no Unicode text", object=object, rule="TD-LAY-003") from None
