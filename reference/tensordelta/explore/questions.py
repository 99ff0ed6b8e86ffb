"""What a chain answers about its versions without becoming one of them: the part of its face for people who look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

from numpy.typing import NDArray

from ..codecs.words import to_array
from ..format.names import ShortcutName
from ..read import part
from ..read.history import History, Overview
from ..read.reader import Reader
from ..state.state import State
from ..tables import as_table
from .bisection import first
from .diff import Diff, diff_versions
from .probe import Probe
from .stats import Stats, stats
from .tensor_history import TensorHistory, tensor_history
from .version import Version, in_any_order, pick
from .walk import states

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Questions:
    """Questions about a chain. Several threads may ask.

    A chain is a series of versions: `chain[3]` is version 3, `chain[-1]` the newest, `len(chain)` says how many there
    are, and `for version in chain` goes through them, the oldest first.
    """

    _reader: Reader

    # -- versions to look at --------------------------------------------------------------------------------------

    def __getitem__(self, version: int) -> Version:
        """A version to look at: a mapping of names to tensors, each read when it is asked for.

        Args:
            version: its number; or, negative, its place from the end: -1 is the newest.

        Raises:
            MissingError: no such version.
            TensorDeltaError: its manifest cannot be read.
            TypeError: no number.

        Example:
            >>> chain[1]["w"]
            array([0, 5, 2])
            >>> list(chain[-1])
            ['w']
        """
        return pick(self._reader, version)

    def __len__(self) -> int:
        """How many versions there are; asked of the store each time."""
        return len(self._versions())

    def __bool__(self) -> bool:
        """True, also without a version."""
        return True

    def __iter__(self) -> Iterator[Version]:
        """The versions to look at, ascending."""
        return (Version(self._reader, version) for version in self._versions())

    def __reversed__(self) -> Iterator[Version]:
        """The versions to look at, the newest first."""
        return (Version(self._reader, version) for version in reversed(self._versions()))

    def __contains__(self, version: object) -> bool:
        """True if there is a version of this number."""
        return version in self._versions()

    def _versions(self) -> list[int]:
        return list(self._reader.documents.signed(self._reader.documents.versions()))

    def read(self, version: int | None, name: str) -> NDArray[Any]:
        """One tensor of a version, read only from the packs that have words of it.

        Returns:
            An array of the tensor's dtype and shape, yours to change.

        Raises:
            MissingError: no such version or tensor, or no route.
            TensorDeltaError: every route failed; the error of the first one.

        Example:
            >>> chain.read(0, "w")
            array([0, 1, 2])
        """
        version = self._reader.target(version)
        words = part.read_tensors(self._reader, version, [name])[name]
        layout = self._reader.documents.layout(self._reader.documents.manifest(version).layout)
        tensor = layout.tensors[layout.index[name]]
        return to_array(words, tensor.kind, tensor.shape)

    # -- what changed ---------------------------------------------------------------------------------------------

    def shortcuts(self) -> list[ShortcutName]:
        """Names of the shortcuts, by version and base; with trusted keys, signed or not.

        Example:
            >>> [(shortcut.version, shortcut.base) for shortcut in chain.shortcuts()]
            []
        """
        found = self._reader.documents.shortcuts()
        return sorted(found, key=lambda each: (each.version, -1 if each.base is None else each.base, each.tag or ""))

    def log(self) -> History:
        """All versions, with their sizes; every manifest is read."""
        return History.of(self._reader)

    def diff(self, old: int, new: int | None = None) -> Diff:
        """What changed between two versions, tensor by tensor.

        Of adjacent versions no value is decoded: chunk tables and positions tell. Of others the steps between them are
        added up; only where these are many, or in order `exponent`, one of the two is loaded. `tensordelta.diff`
        compares versions of two chains, or a version and a folder.

        Args:
            old, new: versions, as in `chain[…]`; `new` is by default the newest.

        Raises:
            MissingError: no such version, or no route to one.
            TensorDeltaError: a version cannot be read.

        Example:
            >>> found = chain.diff(0, 1)
            >>> found.changed, found["w"].density
            (1, 0.3333333333333333)
        """
        newest = -1 if new is None else new
        return diff_versions(self[old], self[newest])

    def history(self, name: str) -> TensorHistory:
        """When and how much one tensor changed, version by version; see `diff` for what is read.

        Raises:
            MissingError: no version has such a tensor.
            TensorDeltaError: a version cannot be read.

        Example:
            >>> [(row.version, row.changed) for row in chain.history("w")]
            [(1, 1)]
        """
        return tensor_history(self._reader, self._versions(), name)

    def stats(self) -> Stats:
        """What changed in every tensor at every version: a table that pandas and polars take as it is.

        Raises:
            TensorDeltaError: a version cannot be read.

        Example:
            >>> table = chain.stats()  # pandas.DataFrame(table), polars.DataFrame(table)
            >>> table["tensor"], table["changed"]
            (array(['w'], dtype=object), array([1]))
        """
        return stats(self._reader, self._versions())

    @overload
    def bisect(self, predicate: Callable[[Version], object]) -> int | None: ...

    @overload
    def bisect(self, predicate: Callable[[NDArray[Any]], object], name: str) -> int | None: ...

    def bisect(self, predicate: Callable[[Any], object], name: str | None = None) -> int | None:
        """The first version for which something holds, found by halving: NaN, a norm, a fingerprint.

        It has to hold for all later versions as well. Of a thousand versions about eleven are looked at, the newest
        first.

        Args:
            predicate: called with a version to look at (see `chain[…]`), of which it reads what it needs; or, if there
                is a name, with that tensor.
            name: of a tensor.

        Returns:
            The version; None if it does not hold for the newest.

        Raises:
            MissingError: a version that was looked at lacks the tensor, or there is no route to it.
            TensorDeltaError: a version cannot be read.
            Exception: raised by the predicate.

        Example:
            >>> chain.bisect(lambda w: w.max() >= 5, "w")
            1
        """
        reader = in_any_order(self._reader)
        if name is None:
            return first(self._versions(), lambda version: predicate(Version(reader, version)))
        probe = Probe(reader, name)
        return first(self._versions(), lambda version: predicate(probe.at(version)))

    def states(self, versions: Iterable[int] | None = None, *, in_place: bool = False) -> Iterator[State]:
        """The states of all versions, each made from the one before: n versions cost n deltas.

        Args:
            versions: which, in an order of your own; by default all, ascending.
            in_place: bring one state forward instead of giving a copy each time: less memory, but the state that you
                were given changes with the next one.

        Raises:
            MissingError: no such version, or no route to it.
            TensorDeltaError: a version cannot be read.

        Example:
            >>> [int(state["w"].sum()) for state in chain.states()]
            [3, 7]
        """
        return states(self._reader, self._versions() if versions is None else versions, in_place=in_place)

    # -- how it looks ---------------------------------------------------------------------------------------------

    def plot(self, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
        """Draw the bytes of each version, and the share of words that it changed.

        Args:
            axes: matplotlib's, to draw into; by default those of a new figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the chain has no version.

        Example:
            >>> upper, lower = chain.plot()
            >>> lower.get_xlabel()
            'step'
        """
        from .pictures import draw_chain

        return draw_chain(self.log(), axes)

    def __repr__(self) -> str:
        return as_table(Overview.of(self._reader)).text()

    def _repr_html_(self) -> str:
        return as_table(Overview.of(self._reader)).html()
