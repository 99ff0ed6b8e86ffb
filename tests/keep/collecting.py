"""A chain in memory that collectors work on, and the states that its versions are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from clocked_store import ClockedStore
from numpy.typing import NDArray

import tensordelta as td
from tensordelta.keep.collect import Collected

Arrays = dict[str, NDArray[np.generic]]
DAY = 86_400.0


def open_chain(store: ClockedStore, **options: object) -> td.Chain:
    return td.open(store, threads=1, memory=1 << 28, **options)  # type: ignore[arg-type]


class Run:
    """A chain in memory, and the states that its versions are."""

    def __init__(self, versions: int = 0, *, gap: float = 10.0) -> None:
        self.store = ClockedStore()
        self.chain = open_chain(self.store, create=True)
        self.rng = np.random.default_rng(0)
        self.arrays: Arrays = {
            "w": self.rng.integers(0, 1 << 16, 3000, np.uint16),
            "b": np.arange(20, dtype=np.float32),
        }
        self.states: dict[int, Arrays] = {}
        for _ in range(versions):
            self.store.now += gap
            self.publish()

    def publish(self, **how: object) -> int:
        self.arrays = {name: array.copy() for name, array in self.arrays.items()}
        self.arrays["w"][self.rng.choice(3000, 30, replace=False)] += np.uint16(1)
        version = self.chain.publish(self.arrays, layout_change=True, **how).version  # type: ignore[arg-type]
        self.states[version] = self.arrays
        return version

    def collect(self, keep_last: int, *, grace: float = 0.0, **how: object) -> Collected:
        self.store.done.clear()
        return open_chain(self.store).collect(keep_last, grace=grace, **how)  # type: ignore[arg-type]

    def check(self, store: ClockedStore | None = None, *, held: Iterable[int] = ()) -> None:
        """Every listed version can be rebuilt bit for bit, from nothing and from what is held."""
        chain = open_chain(store or self.store)
        for version in chain.versions():
            for start in (None, *held):
                state = td.State.empty() if start is None else self.held(start)
                chain.prepare(state, version).apply()
                assert equal(state, self.states[version]), (start, version)

    def held(self, version: int) -> td.State:
        """A version as a reader holds it that loaded it once."""
        state = td.State.from_arrays(self.states[version]).copy()
        state.sums()
        state.version, state.chain = version, self.chain.id
        return state


def equal(state: td.State, arrays: Arrays) -> bool:
    return state.equals(td.State.from_arrays(arrays))
