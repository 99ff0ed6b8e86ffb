"""A folder store that tells what is asked of it, and lets a test get in between; and the weights of a small model."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import tensordelta as td
from tensordelta.stores.base import Parts
from tensordelta.stores.folder import FileBlob

WORDS = 20_000


def weights(step: int) -> dict[str, np.ndarray]:
    """Some words of `a` differ from step to step, at other places each time; `b` stays as it is."""
    a = np.random.default_rng(0).standard_normal(WORDS, np.float32)
    for each in range(1, step + 1):
        at = np.random.default_rng(each).choice(WORDS, 50, replace=False)
        a[at] += np.float32(0.5)
    return {"a": a.reshape(100, -1), "b": np.ones(300, np.float16)}


def same(state: td.State, step: int) -> bool:
    """True where a state is that of a step, bit for bit."""
    return state.equals(td.State.from_arrays(weights(step)))


class Wrapped(td.FolderStore):
    """A folder store with a hook before each operation.

    Attributes:
        before, after: called with the operation and the object's name, or prefix; what they raise is what the store
            fails with.
        counts: operations by kind.
        done: names of the objects that were written, in that order.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.counts: Counter[str] = Counter()
        self.done: list[str] = []
        self.before: Callable[[str, str], object] = lambda operation, name: None
        self.after: Callable[[str, str], object] = lambda operation, name: None

    def _ask(self, operation: str, name: str) -> None:
        self.counts[operation] += 1
        self.before(operation, name)

    def open(self, name: str) -> FileBlob:
        self._ask("open", name)
        return super().open(name)

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        self._ask("names", prefix)
        return super().names(prefix, after)

    def put(self, name: str, parts: Parts) -> None:
        self._ask("put", name)
        super().put(name, parts)
        self.done.append(name)
        self.after("put", name)

    def create(self, name: str, data: bytes) -> bool:
        self._ask("create", name)
        created = super().create(name, data)
        self.done.append(name)
        self.after("create", name)
        return created

    def failure(self, operation: str, name: str) -> td.StoreError:
        """What a store raises that cannot be reached."""
        return td.StoreError(self.address, operation, name, "the network is unreachable")

    def fail(self, operation: str, part: str, times: int = 1 << 30) -> Callable[[], int]:
        """Have operations on objects with this in their names fail; gives a function that tells how many have."""
        failed = 0

        def before(asked: str, name: str) -> None:
            nonlocal failed
            if asked == operation and part in name and failed < times:
                failed += 1
                raise self.failure(operation, name)

        self.before = before
        return lambda: failed


class Gate:
    """Holds an operation of a store until it is opened.

    Args:
        store: whose operation.
        operation, part: which, by its kind and a part of the object's name; each later one is let pass.
    """

    def __init__(self, store: Wrapped, operation: str, part: str) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

        def before(asked: str, name: str) -> None:
            if asked == operation and part in name and not self._reached.is_set():
                self._reached.set()
                assert self._open.wait(60)

        store.before = before

    def reached(self) -> None:
        """Wait until the operation is held."""
        assert self._reached.wait(60)

    def open(self) -> None:
        """Let it go on."""
        self._open.set()
