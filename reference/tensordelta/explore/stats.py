"""What changed in every tensor at every version, as columns that pandas and polars take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..format.layout import Layout
from ..read.reader import Reader
from ..tables import Shown
from .changes import Changes
from .diff import TensorDiff, tensor_diffs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEP = re.compile(r"-?[0-9]{1,18}")


class Stats(Shown, dict[str, "NDArray[Any]"]):
    """What changed in every tensor at every version: columns by name, one row for each tensor of each version.

    A dict of numpy arrays of one length, which `pandas.DataFrame(stats)` and `polars.DataFrame(stats)` take as it is:
    "version" and "before" (int64: the version, and the one that it is compared with), "tensor" and "dtype" (text),
    "words" and "changed" (int64), "density" (float64: their ratio) and "status" (text; see `TensorDiff`); and "step"
    (int64), where each version is annotated with a whole number as its step. The first version has nothing before it,
    and no rows. Rows are sorted by version, then by name in natural order.

    Example:
        >>> table = chain.stats()
        >>> {name: column.tolist() for name, column in table.items() if name in ("version", "tensor", "changed")}
        {'version': [1], 'tensor': ['w'], 'changed': [1]}
    """

    def plot(self, axes: Axes | None = None, *, depth: int | None = None) -> Axes:
        """Draw a heat map: the share of changed words, layer by layer, over the steps or versions.

        Args:
            axes: matplotlib's, to draw into; by default those of a new figure.
            depth: how many parts of a name make a row: with 2, `layers.3.mlp.weight` belongs to `layers.3`. By default
                so many that there are at most 60 rows.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there are no rows.

        Example:
            >>> chain.stats().plot().get_xlabel()
            'step'
        """
        from .pictures import draw_stats

        return draw_stats(self, axes, depth=depth)


def stats(reader: Reader, versions: Sequence[int]) -> Stats:
    """The table over some versions, ascending; errors are those of `Chain.stats`."""
    changes = Changes(reader)
    known: dict[tuple[str, str], _Tensors] = {}
    pairs = list(pairwise(versions))
    tensors: list[_Tensors] = []
    changed: list[NDArray[np.int64]] = []
    for before, version in pairs:
        counts = changes.between(before, version)
        key = (changes.manifest(before).layout, changes.manifest(version).layout)
        if key not in known:
            known[key] = _Tensors(changes.layout(before), changes.layout(version))
        tensors.append(known[key])
        changed.append(known[key].ordered(counts))
    sizes = [len(each) for each in changed]
    columns = {
        "version": np.repeat(np.array([version for _, version in pairs], np.int64), sizes),
        "before": np.repeat(np.array([before for before, _ in pairs], np.int64), sizes),
        **{name: _joined([getattr(each, name) for each in tensors], object) for name in ("tensor", "dtype")},
        "words": _joined([each.words for each in tensors], np.int64),
        "changed": _joined(changed, np.int64),
    }
    columns["density"] = columns["changed"] / np.maximum(columns["words"], 1)
    columns["status"] = _joined([each.status for each in tensors], object)
    steps = [changes.manifest(version).annotations.get("step", "") for _, version in pairs]
    if steps and all(map(_STEP.fullmatch, steps)):
        columns["step"] = np.repeat(np.array(list(map(int, steps)), np.int64), sizes)
    return Stats(columns)


class _Tensors:
    """What is the same at all versions of two layouts: the columns of their tensors, in natural order of names."""

    def __init__(self, old: Layout, new: Layout) -> None:
        rows: list[TensorDiff] = tensor_diffs(old, new, np.zeros(len(new), np.int64))
        self.tensor = np.array([row.name for row in rows], object)
        self.dtype = np.array([row.dtype for row in rows], object)
        self.words = np.array([row.words for row in rows], np.int64)
        self.status = np.array([row.status for row in rows], object)
        # The place of a dropped tensor is behind the last one of the layout.
        self._places = np.array([new.index.get(row.name, len(new)) for row in rows], np.int64)

    def ordered(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts of the new layout's tensors, in the order of the rows."""
        return np.append(counts, 0)[self._places]


def _joined(parts: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])
