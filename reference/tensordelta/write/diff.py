"""Differences between two states, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..state.state import State, read_state
from ..tables import Shown
from ..threads import thread_count
from .encoder import Comparison, Encoder


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
        tensors: every tensor of either state, by name.
        changed, words: of the new state.
        nbytes: bytes of the new state.
        size: bytes of the packs of a delta in natural order.
    """

    tensors: Sequence[TensorDiff]
    changed: int
    words: int
    nbytes: int
    size: int

    @property
    def density(self) -> float:
        """Share of the words that changed."""
        return self.changed / self.words if self.words else 0.0

    @property
    def bits_per_change(self) -> float:
        """Bits of a delta for each changed word."""
        return self.size * 8 / self.changed if self.changed else 0.0

    @property
    def ratio(self) -> float:
        """How many times smaller a delta is than the new state."""
        return self.nbytes / self.size if self.size else 0.0


def diff(
    old: State | Mapping[str, NDArray[Any]] | str | os.PathLike[str],
    new: State | Mapping[str, NDArray[Any]] | str | os.PathLike[str],
    *,
    threads: int | None = None,
) -> Diff:
    """Compare two states, or checkpoints.

    Args:
        old, new: states, mappings of arrays, safetensors files or Hugging Face folders.
        threads: how many jobs run at once.

    Raises:
        MissingError, MalformedError, UnsupportedError, LimitError: a checkpoint cannot be read.
        IntegrityError: another process wrote to a checkpoint's file meanwhile.
        ValueError: no arrays by name.
    """
    before, after = _state(old), _state(new)
    compared = Comparison.of_states(before, after, layout_digest="0" * 64)  # of the same size as any other
    encoder = Encoder(compared, threads=thread_count(threads))
    size = sum(built.entry.size for built in encoder.packs())
    tensors: list[TensorDiff] = []
    for index, tensor in enumerate(after.layout.tensors):
        held = before.layout.index.get(tensor.name)
        status = "added" if held is None else "kept" if before.layout.tensors[held] == tensor else "reshaped"
        changed = encoder.changed_of[index]
        tensors.append(TensorDiff(tensor.name, tensor.dtype, tensor.shape, tensor.words, changed, status))
    for tensor in before.layout.tensors:
        if tensor.name not in after.layout.index:
            tensors.append(TensorDiff(tensor.name, tensor.dtype, tensor.shape, tensor.words, 0, "dropped"))
    tensors.sort(key=lambda each: each.name.encode())
    return Diff(tensors, encoder.changed, after.layout.words, after.layout.nbytes, size)


def _state(what: State | Mapping[str, NDArray[Any]] | str | os.PathLike[str]) -> State:
    if isinstance(what, State):
        return what
    return read_state(what) if isinstance(what, (str, os.PathLike)) else State.from_arrays(what)
