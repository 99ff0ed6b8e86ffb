"""What a chain needs of the place where it lives (SPEC.md section 12.1). A store knows names and bytes, no deltas."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from ..errors import MissingError

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


class Entry(NamedTuple):
    """An object in a listing.

    Attributes:
        name: its name.
        size: its bytes.
        modified: when it was last written, in seconds since 1970 by the store's clock; None where the store cannot say.
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
    """Takes objects that belong together; see `Store.batch`. Several threads may put."""

    def put(self, name: str, parts: Parts) -> None:
        """Take an object; it is durable when the batch has ended, if not before. `parts` is read before this returns.

        Raises:
            StoreError: the store failed.
        """


class Store(Protocol):
    """A place for a chain's objects. Several threads may call.

    Each operation raises `StoreError` where the store itself fails: no network, no permission, or still throttled after
    retries. A failure is never reported as an absent object (TD-STO-003). Names are paths of SPEC.md section 4.4;
    listings pass over all other names.
    """

    @property
    def address(self) -> str:
        """The root, as a user writes it."""

    @property
    def exclusive(self) -> bool:
        """True where `create` is one atomic operation of the store: of several writers one succeeds."""

    @property
    def remote(self) -> bool:
        """True where reads cross a network, so that copies of packs are worth a place on this machine's disk."""

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
        """An object's size, or None where there is no such object."""

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        """Names of the objects under a prefix, at any depth and in any order.

        Args:
            prefix: the empty text for all, else it ends with `/`.
            after: only names greater than this one, in the order of their bytes.
        """

    def entries(self, prefix: str) -> Iterator[Entry]:
        """The objects under a prefix, with size and age, for collectors."""

    def put(self, name: str, parts: Parts) -> None:
        """Write an object durably, over one that is there. It appears under its name with all of its bytes."""

    def create(self, name: str, data: bytes) -> bool:
        """Write an object durably if there is none of its name.

        A store that is not `exclusive` looks, puts and reads back (TD-STO-008, TD-STO-009). An answer that got lost is
        settled by reading back (TD-STO-002).

        Returns:
            True if this call wrote the object; False if another has the name. Whoever gets False reads the object and
            decides (SPEC.md section 11.2): a repeated call gets it from its own earlier success as well.
        """

    def batch(self) -> AbstractContextManager[Batch]:
        """A batch for objects that belong together and whose order does not matter.

        All are durable when the block ends without an error. After an error any of them may be there.

        Raises:
            StoreError: at the end of the block, with the names of the objects that could not be put.
        """

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""


class DirectBatch:
    """A batch that puts each object at once, for stores that gain nothing by waiting; a context.

    Args:
        store: where they go.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, name: str, parts: Parts) -> None:
        """Put an object. Raises StoreError."""
        self._store.put(name, parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
