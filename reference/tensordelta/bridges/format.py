"""What a foreign format is to an import and an export: how its versions are found, read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import MissingError
from ..state.state import State
from ..stores import Store, StoredBlob

#: Annotations of an imported version: the format, the version's name there, the SHA-256 of the document that makes it.
FORMAT, VERSION, DOCUMENT = "foreign-format", "foreign-version", "foreign-document"


class Source(Protocol):
    """Objects by name, such as those of a store."""

    def open(self, name: str) -> StoredBlob:
        """An object, to be read in parts.

        Raises:
            MissingError: there is no such object.
        """


class Target(Protocol):
    """Takes the objects of one version, none of which makes it visible."""

    def put(self, name: str, data: bytes) -> None:
        """Take a small object."""

    def put_file(self, name: str, path: Path) -> None:
        """Take an object that is a file on this machine, which may be removed afterwards."""

    def new_file(self) -> Path:
        """The path of a temporary file that does not exist yet."""


class Offer(Protocol):
    """A version that a foreign folder offers; its documents were read and checked.

    Attributes:
        id: the version's name in its format.
        number: the same as a number, where it is one.
        base: the name of the version that it is a delta to; None for a full version.
        document: SHA-256 of the object that makes the version, in hexadecimal digits.
    """

    @property
    def id(self) -> str: ...
    @property
    def number(self) -> int | None: ...
    @property
    def base(self) -> str | None: ...
    @property
    def document(self) -> str: ...

    def files(self) -> Mapping[str, bytes]:
        """The small files that lie beside a full version's weights, such as config.json; empty for a delta."""

    def apply(self, held: State | None) -> State:
        """The version's state, checked with all that the format gives.

        Args:
            held: the state of the version before, which is only read; None where there is none.

        Raises:
            TensorDeltaError: the bytes are not what the version's document says, or lead to another state.
        """


@dataclass(frozen=True)
class Found:
    """What lies in a foreign folder after a version.

    Attributes:
        offers: the versions that can be read, in order, each a full one or a delta to the one before it.
        unfinished: why the folder's last version cannot be read yet, where its writer has begun and not committed it.
        notes: what else the user has to know.
    """

    offers: Sequence[Offer]
    unfinished: MissingError | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Marker:
    """The object whose appearance makes a version visible.

    Attributes:
        name: its name.
        content: its bytes, or the file on this machine that has them.
    """

    name: str
    content: bytes | Path


class Format(Protocol):
    """A foreign format.

    Attributes:
        name: as on the command line.
        appendix: the section of SPEC.md that maps it.
        unproven: what the format does not give, so that an import cannot prove it; clauses for the user.
    """

    name: str
    appendix: str
    unproven: tuple[str, ...]

    def find(self, store: Store, after: str | None, begin: str | None) -> Found:
        """The versions that follow one.

        Args:
            store: the foreign folder.
            after: the version that was imported last; None for none.
            begin: the full version to begin with, where none was imported; None for the first one.

        Raises:
            MissingError: `after` is None, and there is no full version to begin with.
            WrongBaseError: a delta whose base is not the version before it.
            TensorDeltaError: a document breaks the format.
        """

    def offer(self, source: Source, id: str) -> Offer:
        """One version by its name.

        Raises:
            TensorDeltaError: its document is not there, or breaks the format.
        """

    def first_base(self) -> str | None:
        """The name of the version that an engine's own model is; None where the format does not name it."""

    # -- writing --------------------------------------------------------------------------------------------------

    def name_after(self, id: str | None, version: int, imported: str | None) -> str:
        """The name of a version to write.

        Args:
            id: the name of the version before; None for the first one.
            version: its number in the chain.
            imported: the name under which it was imported from this format; None where it was not.
        """

    def marker_names(self, id: str) -> Sequence[str]:
        """The names of the objects of which one makes a version visible."""

    def folder(self, id: str) -> str | None:
        """The folder whose objects are a version, and no other's; None where a version is one object."""

    def full(self, target: Target, id: str, state: State, files: Mapping[str, bytes]) -> Marker:
        """Write a full version; gives the object that will make it visible.

        Args:
            target: takes the other objects.
            id: the version's name.
            state: its tensors.
            files: the files that belong beside them, such as config.json.

        Raises:
            UnsupportedError: the format cannot hold such a state.
        """

    def delta(self, target: Target, id: str, base: str, held: State, state: State, changed: Iterable[str]) -> Marker:
        """Write a delta; gives the object that will make it visible.

        Args:
            held, state: of the base and of the version; the layouts are equal.
            changed: names of the tensors that may differ.

        Raises:
            UnsupportedError: the format cannot hold such a change.
        """

    def wants_full(self, id: str, held: State, state: State) -> bool:
        """True where a version has to be a full one.

        Args:
            id: its name.
            held, state: of the version before, and of this one.

        Raises:
            UnsupportedError: the format cannot say how the tensors changed.
        """
