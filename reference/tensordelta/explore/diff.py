"""Differences between two states or versions, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..codecs.fingerprint import U64
from ..format.layout import Layout
from ..progress import phase
from ..state.checkpoint import parts
from ..state.state import State, read_state
from ..tables import Shown, natural
from ..threads import thread_count
from ..write.encoder import Comparison, Encoder
from .changes import Changes, Counts
from .version import Version

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What can be compared.
Comparable = State | Version | Mapping[str, NDArray[Any]] | str | os.PathLike[str]


@dataclass(frozen=True)
class TensorDiff:
    """What changed in one tensor.

    Attributes:
        name, dtype, shape: of the tensor, in the new state if it has it.
        words: its number of words.
        changed: how many of them differ; for an added tensor, how many are not zero.
        status: "kept", "added", "dropped" or "reshaped" (another dtype or shape).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    words: int
    changed: int
    status: str

    @property
    def density(self) -> float:
        """Share of the words that changed."""
        return self.changed / self.words if self.words else 0.0


@dataclass(frozen=True, repr=False)
class Diff(Shown):
    """What changed between two states.

    Attributes:
        tensors: every tensor of either state: those with the most changed words first, then in natural order of names.
        changed, words: of the new state.
        nbytes: bytes of the new state.
        size: bytes of the packs of a delta in natural order; of two versions, of those that `new` was published with,
            if it is a delta to `old`, else None.
        old, new: what was compared, in a few words, such as "version 2"; empty for arrays.

    Example:
        >>> found = diff({"w": np.zeros(4, np.float32)}, {"w": np.array([0, 1, 0, 2], np.float32)})
        >>> found["w"].changed, found["w"].density
        (2, 0.5)
    """

    tensors: Sequence[TensorDiff]
    changed: int
    words: int
    nbytes: int
    size: int | None
    old: str = ""
    new: str = ""

    def __getitem__(self, name: str) -> TensorDiff:
        """What changed in one tensor. Raises KeyError if neither state has it."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    @property
    def density(self) -> float:
        """Share of the words that changed."""
        return self.changed / self.words if self.words else 0.0

    @property
    def bits_per_change(self) -> float:
        """Bits of a delta for each changed word; 0 where there is none."""
        return self.size * 8 / self.changed if self.size and self.changed else 0.0

    @property
    def ratio(self) -> float:
        """How many times smaller a delta is than the new state; 0 where there is none."""
        return self.nbytes / self.size if self.size else 0.0

    def plot(self, axes: Axes | None = None, *, most: int = 40) -> Axes:
        """Draw the share of changed words of each tensor, in natural order of names.

        Args:
            axes: matplotlib's, to draw into; by default those of a new figure.
            most: how many tensors are drawn; of more, those with the greatest shares.

        Raises:
            ImportError: matplotlib is not installed.

        Example:
            >>> chain.diff(0, 1).plot().get_title(loc="left")
            'words changed from version 0 to version 1'
        """
        from .pictures import draw_diff

        return draw_diff(self, axes, most=most)


def diff(old: Comparable, new: Comparable, *, threads: int | None = None) -> Diff:
    """Compare two states, versions or checkpoints.

    Two versions of one chain are compared by what lies between them, as `Chain.diff` does. Of a version and something
    else only the tensors are read whose fingerprints differ.

    Args:
        old, new: states, mappings of arrays, versions of chains (`chain[2]`), safetensors files or Hugging Face
            folders.
        threads: how many jobs run at once.

    Raises:
        MissingError, MalformedError, UnsupportedError, LimitError: a checkpoint cannot be read.
        IntegrityError: another process wrote to a checkpoint's file meanwhile.
        TensorDeltaError, StoreError: a version cannot be read.
        ValueError: no arrays by name.

    Example:
        >>> diff({"w": np.zeros(4, np.float32)}, {"w": np.ones(4, np.float32)}).changed
        4
    """
    threads = thread_count(threads)
    if isinstance(old, Version) and isinstance(new, Version) and old.is_beside(new):
        return diff_versions(old, new)
    before, after = _side(old, threads), _side(new, threads)
    equal: frozenset[str] = frozenset()
    if isinstance(old, Version) or isinstance(new, Version):
        equal = _equal(before, after)
    rest = before.without(equal), after.without(equal)
    compared = Comparison.of_states(*rest, layout_digest="0" * 64)  # of the same size as any other
    encoder = Encoder(compared, threads=threads)
    with phase("comparing", rest[1].layout.nbytes):
        size = sum(built.entry.size for built in encoder.packs())
    counts = np.zeros(len(after.layout), np.int64)
    for tensor, changed in zip(rest[1].layout.tensors, encoder.changed_of, strict=True):
        counts[after.layout.index[tensor.name]] = changed
    for index, tensor in enumerate(rest[1].layout.tensors):
        held = before.layout.index.get(tensor.name)
        if held is None or before.layout.tensors[held] != tensor:  # an encoder may list words that are zero
            words = sum(np.count_nonzero(part) for part in parts(rest[1].source(index)))
            counts[after.layout.index[tensor.name]] = words
    return _diff(before.layout, after.layout, counts, size, old=_label(old), new=_label(new))


def diff_versions(old: Version, new: Version) -> Diff:
    """Compare two versions of one chain, without loading both."""
    counts = Changes(new.reader).between(old.version, new.version)
    size = new.manifest.size if new.manifest.starts_from(old.manifest) else None
    return _diff(old.layout, new.layout, counts, size, old=f"version {old.version}", new=f"version {new.version}")


def tensor_diffs(old: Layout, new: Layout, counts: Counts) -> list[TensorDiff]:
    """What changed in every tensor of two layouts, in natural order of names.

    Args:
        old, new: the layouts.
        counts: the changed words of each tensor of the new one.
    """
    changed = dict(zip(new.index, counts.tolist(), strict=True))
    names = sorted(old.index.keys() | new.index.keys(), key=natural)
    found = (tensor_diff(old, new, name, changed.get(name, 0)) for name in names)
    return [each for each in found if each is not None]


def tensor_diff(old: Layout, new: Layout, name: str, changed: int) -> TensorDiff | None:
    """What changed in one tensor of two layouts; None if neither has it."""
    held = old.tensors[old.index[name]] if name in old.index else None
    tensor = new.tensors[new.index[name]] if name in new.index else None
    if tensor is not None:
        status = "added" if held is None else "kept" if held == tensor else "reshaped"
        return TensorDiff(name, tensor.dtype, tensor.shape, tensor.words, changed, status)
    return None if held is None else TensorDiff(name, held.dtype, held.shape, held.words, 0, "dropped")


def _diff(before: Layout, after: Layout, counts: Counts, size: int | None, *, old: str, new: str) -> Diff:
    tensors = sorted(tensor_diffs(before, after, counts), key=lambda each: -each.changed)
    return Diff(tensors, int(counts.sum()), after.words, after.nbytes, size, old, new)


class _Side:
    """A state, or a version of which only what is needed is read."""

    def __init__(self, of: State | Version, threads: int) -> None:
        self._of = of
        self._threads = threads
        self.layout = of.layout

    def sums(self) -> U64:
        """Fingerprints of its tensors."""
        return self._of.sums(threads=self._threads) if isinstance(self._of, State) else self._of.sums()

    def without(self, names: Collection[str]) -> State:
        """The state without some tensors."""
        if isinstance(self._of, Version):
            return self._of.part([name for name in self.layout.index if name not in names])
        if not names:
            return self._of
        kept = [index for index, tensor in enumerate(self.layout.tensors) if tensor.name not in names]
        layout = Layout(self.layout.tensors[index] for index in kept)
        return State(layout, [self._of.source(index) for index in kept], owned=False)


def _side(what: Comparable, threads: int) -> _Side:
    if isinstance(what, str | os.PathLike):
        return _Side(read_state(what), threads)
    return _Side(what if isinstance(what, State | Version) else State.from_arrays(what), threads)


def _equal(old: _Side, new: _Side) -> frozenset[str]:
    """Names of the tensors that are the same by dtype, shape and fingerprint."""
    before, after = old.sums(), new.sums()
    return frozenset(
        tensor.name
        for index, tensor in enumerate(new.layout.tensors)
        if (held := old.layout.index.get(tensor.name)) is not None
        and old.layout.tensors[held] == tensor
        and before[held] == after[index]
    )


def _label(what: Comparable) -> str:
    if isinstance(what, Version):
        return f"version {what.version} of {what.address}"
    return os.fspath(what) if isinstance(what, str | os.PathLike) else ""
