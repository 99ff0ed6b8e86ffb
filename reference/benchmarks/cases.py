"""Cases: consecutive states of one model, which all is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tensordelta.codecs.words import Words
from tensordelta.state.state import State


@dataclass(frozen=True)
class Change:
    """The changed words of one tensor."""

    tensor: int
    indices: NDArray[np.int64]
    old: Words
    new: Words


@dataclass(frozen=True)
class Case:
    """Consecutive states of one model.

    Attributes:
        label: how tables call it.
        source: what the JSON says of where it comes from.
        states: at least two, of one layout.
    """

    label: str
    source: Mapping[str, object]
    states: Sequence[State]

    @property
    def nbytes(self) -> int:
        """Bytes of the model."""
        return self.states[0].layout.nbytes

    @cached_property
    def changes(self) -> list[Change]:
        """The step from the first state to the second, tensor by tensor."""
        base, new = self.states[:2]
        found: list[Change] = []
        for tensor in range(len(new.layout)):
            old_words, new_words = base.words(tensor), new.words(tensor)
            indices = np.flatnonzero(old_words != new_words)
            if len(indices):
                found.append(Change(tensor, indices, old_words[indices], new_words[indices]))
        return found

    @cached_property
    def changed(self) -> int:
        """Number of words that the first step changes."""
        return sum(len(change.indices) for change in self.changes)

    @property
    def density(self) -> float:
        """Share of the words that the first step changes."""
        return self.changed / self.states[0].layout.words

    def near(self, density: float) -> bool:
        """Whether a target set for this density is one for this case."""
        return density / 2 <= self.density <= 2 * density

    def facts(self) -> dict[str, object]:
        """What the JSON holds."""
        return {
            "label": self.label,
            "source": dict(self.source),
            "words": self.states[0].layout.words,
            "bytes": self.nbytes,
            "tensors": len(self.states[0].layout),
            "changed": self.changed,
            "density": self.density,
        }


def owned(state: State) -> State:
    """The same memory as a state that remembers its fingerprint, since nobody else writes it."""
    return State(state.layout, [state.words(tensor) for tensor in range(len(state.layout))])


def in_memory(case: Case) -> Case:
    """The first step of a case, its states in memory and their fingerprints known."""
    states = [state if case.source["kind"] == "synthetic" else state.copy() for state in case.states[:2]]
    for state in states:
        state.sums()
    return Case(case.label, case.source, states)


def arrays(state: State) -> dict[str, Words]:
    """A state as the other encodings take it."""
    return {tensor.name: state.words(index) for index, tensor in enumerate(state.layout.tensors)}
