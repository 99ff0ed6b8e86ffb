"""What a chain needs of a store (SPEC.md section 12.1). A store knows names and bytes, but no deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from ..errors import LimitError, MissingError

#: Bytes of an object, in parts that follow one another.
Parts = Iterable[bytes | memoryview]


class NoSuchObject(MissingError):
    """A store has no object of this name.

    It names no rule (`rule` is empty), because a store does not know what the object is needed for: the caller raises a
    `MissingError` with the rule that the absence breaks. A store may raise another `MissingError` instead.

    Args:
        name: the object's name.
        address: the store's.
    """

    def __init__(self, name: str, address: str) -> None:
        super().__init__(f"is not in {address}", object=name, rule="")
        self.address = address

    def __str__(self) -> str:
        return f"{self.name}: {self.object}: {self.reason}. {self.advice}"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.object, self.address)


def read_small(store: Store, name: str, limit: int) -> bytes:
    """An object's bytes, if it has no more than a limit: others may have put it, with any size.

    Raises:
        NoSuchObject: there is no such object.
        LimitError: it has more bytes; none is read.
    """
    with store.open(name) as blob:
        if blob.size > limit:
            raise LimitError(f"{blob.size} bytes, more than {limit}", object=name, rule="TD-LIM-004")
        return bytes(blob.read(0, blob.size))


class StoredObject(NamedTuple):
    """An object in a listing.

    Attributes:
        name: its name.
        size: its bytes.
        modified: when it was last written, in seconds since 1970 by the store's clock; None if that is not known.
    """

    name: str
    size: int
    modified: float | None


class StoredBlob(Protocol):
    """An open object of a store: readable in any order, by several threads."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`.

        Raises:
            IntegrityError: the object ends before.
            StoreError: the store failed.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Batch(Protocol):
    """Takes objects that belong together; see `Store.batch`. Threads may share it."""

    def put(self, name: str, parts: Parts) -> None:
        """Take an object, which is durable when the batch has ended, if not before; reads `parts` before it returns.

        Raises:
            StoreError: the store failed.
        """


class Store(Protocol):
    """A place for a chain's objects.

    Threads may share a store, and what it opens: all methods may be called at the same time. Processes share the
    objects, but not the store: each opens its own, also after a fork.

    Each operation raises `StoreError` if the store itself fails: no network, no permission, or still throttled after
    retries. A failure is never reported as an absent object (TD-STO-003). Names are paths of SPEC.md section 4.4;
    listings leave out all other names.
    """

    @property
    def address(self) -> str:
        """The root, as a user writes it."""

    @property
    def exclusive(self) -> bool:
        """True if `create` is one atomic operation of the store: of several writers exactly one succeeds."""

    @property
    def remote(self) -> bool:
        """True if reads cross a network, so that packs are cached on this machine."""

    @property
    def lists(self) -> bool:
        """True if `names` and `entries` work. A chain in a store that lists nothing is followed by its hint."""

    def read(self, name: str) -> bytes:
        """An object's bytes.

        Raises:
            NoSuchObject: there is no such object.
        """

    def open(self, name: str) -> StoredBlob:
        """An object, to be read in parts.

        Raises:
            NoSuchObject: there is no such object.
        """

    def size(self, name: str) -> int | None:
        """An object's size, or None if there is no such object."""

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """Names of the objects under a prefix, at any depth and in any order.

        Args:
            prefix: the empty text for all, else it ends with `/`.
            after: only names greater than this one, in the order of their bytes.
        """

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """The objects under a prefix, with size and age, for collectors."""

    def put(self, name: str, parts: Parts) -> None:
        """Write an object durably, over one that is there. It appears under its name with all of its bytes."""

    def create(self, name: str, data: bytes) -> bool:
        """Write an object durably if there is none of its name.

        A store that is not `exclusive` looks, puts and reads back (TD-STO-008, TD-STO-009). If an answer was lost, the
        store reads the object back (TD-STO-002).

        Returns:
            True if this call wrote the object; False if the name is taken. The caller then reads the object and decides
            (SPEC.md section 11.2): a repeated call also returns False after its own earlier success.
        """

    def batch(self) -> AbstractContextManager[Batch]:
        """A batch for objects that belong together and whose order does not matter.

        All are durable when the block ends without an error. After an error any of them may be there.

        Raises:
            StoreError: at the end of the block, with the names of the objects that could not be put.
        """

    def delete(self, name: str) -> None:
        """Remove an object, if there is one."""


class DirectBatch(nullcontext[Store]):
    """A batch that puts each object at once, for stores that gain nothing by waiting: the store itself as a context."""
