"""A version to look at: a mapping of names to tensors, each of which is read when it is asked for."""

from __future__ import annotations

from collections.abc import Collection, ItemsView, Iterator, Mapping, ValuesView
from typing import Any

from numpy.typing import NDArray

from ..codecs.fingerprint import U64
from ..codecs.words import to_array
from ..errors import MissingError
from ..format.layout import Layout
from ..format.manifest import Manifest
from ..read import part
from ..read.reader import Reader
from ..state.state import State
from ..tables import as_table
from ..write.publish import tensor_fingerprints


class Version(Mapping[str, NDArray[Any]]):
    """A version of a chain: names to arrays, as `chain[3]` gives it.

    Nothing but its manifest and layout is read before a tensor is asked for, and then only the packs that have words
    of it. `values()` and `items()` load the version once. An array is yours to change. Versions are equal to each
    other, and to states and mappings of arrays, where all tensors have the same bits.

    Several threads may use one object.

    Args:
        reader: of the chain.
        version: the version's number.

    Attributes:
        reader: of the chain.
        version: the version's number.
        manifest: its manifest.

    Raises:
        MissingError: no such version.
        TensorDeltaError: its manifest cannot be read.

    Example:
        >>> version = chain[-1]
        >>> version["w"], version.annotations
        (array([0, 5, 2]), {'step': '20'})
    """

    def __init__(self, reader: Reader, version: int) -> None:
        self.reader = reader
        self.version = version
        self.manifest: Manifest = reader.documents.manifest(version)

    @property
    def layout(self) -> Layout:
        """Its tensors, with dtypes and shapes."""
        return self.reader.documents.layout(self.manifest.layout)

    @property
    def annotations(self) -> dict[str, str]:
        """What its publisher said about it, such as {"step": "420"}."""
        return dict(self.manifest.annotations)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all its words, 16 hex digits (SPEC.md section 8)."""
        return self.manifest.fingerprint

    @property
    def address(self) -> str:
        """The address of its chain."""
        return self.reader.store.address

    def sums(self) -> U64:
        """Fingerprint of each tensor, uint64 in the order of the layout."""
        return tensor_fingerprints(self.reader, self.manifest)

    def load(self) -> State:
        """Its state in memory; errors are those of `Chain.load`."""
        return self.reader.load(self.version)

    def part(self, names: Collection[str]) -> State:
        """Some of its tensors, in memory.

        Raises:
            MissingError: it has no such tensor, or there is no route to it.
            TensorDeltaError: every route failed; the error of the first one.
        """
        if frozenset(names) == self.layout.index.keys():
            return self.load()
        words = part.read_tensors(self.reader, self.version, names) if names else {}
        layout = Layout(tensor for tensor in self.layout.tensors if tensor.name in words)
        return State(layout, [words[tensor.name] for tensor in layout.tensors])

    def is_beside(self, other: Version) -> bool:
        """True if both are versions of one chain at one address."""
        return (self.reader.chain, self.address) == (other.reader.chain, other.address)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One tensor, read only from the packs that have words of it.

        Raises:
            KeyError: the version has no such tensor.
            TensorDeltaError: every route failed; the error of the first one.
        """
        index = self.layout.index.get(name)
        if index is None:
            raise KeyError(name)
        tensor = self.layout.tensors[index]
        return to_array(part.read_tensors(self.reader, self.version, [name])[name], tensor.kind, tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.index)

    def __len__(self) -> int:
        return len(self.layout)

    def __contains__(self, name: object) -> bool:
        return name in self.layout.index

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def values(self) -> ValuesView[NDArray[Any]]:
        """All tensors; the version is loaded once."""
        return self.load().values()

    def items(self) -> ItemsView[str, NDArray[Any]]:
        """All names and tensors; the version is loaded once."""
        return self.load().items()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Version):
            return self.layout == other.layout and self.fingerprint == other.fingerprint
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.keys() == other.keys() and self.load() == other

    def __repr__(self) -> str:
        layout = self.layout
        return (
            f"Version({self.version} of {self.address}: {len(layout)} tensors, {layout.words:,} words, "
            f"{layout.nbytes:,} bytes)"
        )

    def _repr_html_(self) -> str:
        return as_table(self).html()


def in_any_order(reader: Reader) -> Reader:
    """A reader of the same chain that may go back, for questions whose answers become nobody's weights (TD-SIG-005)."""
    trust = reader.trust
    return reader if trust is None else reader.trusting(trust.unbound(max_age=trust.max_age))


def pick(reader: Reader, index: int) -> Version:
    """A version by its number, or, where the index is negative, counted from the newest, which is -1.

    Raises:
        TypeError: it is no number.
        MissingError: no such version.
    """
    if not isinstance(index, int) or isinstance(index, bool):
        raise TypeError(f"a version is an int, not {index!r}: chain[3] is version 3, and chain[-1] the newest")
    if index == -1:
        return Version(reader, reader.target(None))
    if index >= 0:
        return Version(reader, index)
    versions = list(reader.documents.signed(reader.documents.versions()))
    if -index > len(versions):
        raise MissingError(
            f"the chain has {len(versions):,} versions, so there is none at {index}",
            object=f"version {index}",
            rule="TD-OBJ-008",
            advice="chain[-1] is the newest version; `log` lists all of them.",
        )
    return Version(reader, versions[index])
