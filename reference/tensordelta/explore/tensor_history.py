"""When and how much one tensor changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, overload

from ..errors import MissingError
from ..read.reader import Reader
from ..tables import Shown
from .changes import Changes
from .diff import TensorDiff, tensor_diff

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TensorChange:
    """What a version changed in one tensor, against the version before.

    Attributes:
        version, before: the two versions.
        step: the training step that the version is annotated with; None if with none.
        created: when it was published, as its manifest says.
        words: the tensor's number of words; 0 where neither version has it.
        changed: how many of them differ; of an added tensor, how many are not zero.
        density: the share of the words that changed.
        status: "kept", "added", "dropped", "reshaped" (another dtype or shape), or "absent" from both versions.
    """

    version: int
    before: int
    step: str | None
    created: str
    words: int
    changed: int
    density: float
    status: str


class TensorHistory(Shown, Sequence[TensorChange]):
    """When and how much one tensor changed: a row for each version but the first, ascending.

    `pandas.DataFrame(history)` and `polars.DataFrame(history)` take it as it is.

    Attributes:
        name: the tensor's name.

    Example:
        >>> chain.history("w")[0].density
        0.3333333333333333
    """

    def __init__(self, name: str, rows: Sequence[TensorChange]) -> None:
        self.name = name
        self._rows = rows

    @overload
    def __getitem__(self, index: int) -> TensorChange: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[TensorChange]: ...

    def __getitem__(self, index: int | slice) -> TensorChange | Sequence[TensorChange]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the share of changed words over the versions.

        Args:
            axes: matplotlib's, to draw into; by default those of a new figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there are no rows.

        Example:
            >>> chain.history("w").plot().get_title(loc="left")
            'words changed in w'
        """
        from .pictures import draw_history

        return draw_history(self, axes)


def tensor_history(reader: Reader, versions: Sequence[int], name: str) -> TensorHistory:
    """The history of one tensor over some versions, ascending; errors are those of `Chain.history`."""
    changes = Changes(reader)
    if not any(name in changes.layout(version).index for version in versions):
        raise MissingError(
            f"no version has a tensor {name!r}",
            object=f"tensor {name!r}",
            rule="TD-OBJ-008",
            advice="`list(chain[-1])` names the tensors of the newest version.",
        )
    rows: list[TensorChange] = []
    for before, version in pairwise(versions):
        old, new = changes.layout(before), changes.layout(version)
        index = new.index.get(name)
        changed = 0 if index is None else int(changes.between(before, version, [name])[index])
        found = tensor_diff(old, new, name, changed) or TensorDiff(name, "", (), 0, 0, "absent")
        manifest = changes.manifest(version)
        rows.append(
            TensorChange(
                version,
                before,
                manifest.annotations.get("step"),
                manifest.created,
                found.words,
                found.changed,
                found.density,
                found.status,
            )
        )
    return TensorHistory(name, rows)
