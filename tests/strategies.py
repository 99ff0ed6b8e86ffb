"""Hypothesis strategies for layouts, states and pairs of states, and a store in memory.

Words come from a seeded generator and a pool of telling bit patterns, so that examples are cheap to draw and still hold
-0, NaN payloads, wraps and steps of every size. `HYPOTHESIS_PROFILE=slow` looks deeper.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import slow_reader
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tensordelta.codecs.words import DTYPES, Words
from tensordelta.errors import MissingError
from tensordelta.format.layout import Layout, Tensor
from tensordelta.read.proven import MemoryBlob
from tensordelta.state.state import State
from tensordelta.stores import DirectBatch, StoredObject

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "slow"
DENSITIES = (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)
CHAIN = "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90"


def examples(count: int) -> settings:
    """Settings for a property: so many examples, many more in the slow profile."""
    return settings(
        max_examples=count * (20 if DEEP else 1),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


# -- words ---------------------------------------------------------------------------------------------------------


def telling(dtype: str) -> Words:
    """Bit patterns at the edges of a dtype: zero, -0, 1, -1, halves, infinities and NaN with payloads."""
    kind = DTYPES[dtype]
    w = kind.word_bits
    patterns = [0, 1, 2, 2**w - 1, 2**w - 2, 2 ** (w - 1), 2 ** (w - 1) - 1, 2 ** (w - 1) + 1]
    if kind.exponent is not None:
        low, width = kind.exponent
        exponent = (2**width - 1) << low
        patterns += [exponent, exponent | 1, exponent | 1 << (low - 1), exponent | 2 ** (w - 1) | 1, 1 << low]
    return np.array(patterns, kind.word)


def random_words(rng: np.random.Generator, dtype: str, count: int) -> Words:
    """Words of which a part is telling, a part near in exponent, and a part anything."""
    kind = DTYPES[dtype]
    anything = rng.integers(0, 2**kind.word_bits, count, dtype=np.uint64).astype(kind.word)
    pool = telling(dtype)
    which = rng.integers(0, 3, count)
    words = np.where(which == 0, pool[rng.integers(0, len(pool), count)], anything)
    zero = rng.random() < 0.2
    return np.where((which == 2) & zero, 0, words).astype(kind.word)


def stepped(rng: np.random.Generator, words: Words, density: float) -> Words:
    """The words after a training step: about this share of them differ, by steps of every size."""
    w = words.dtype.itemsize * 8
    count = len(words) if density == 1 else int(rng.binomial(len(words), density))
    at = rng.choice(len(words), count, replace=False)
    pool = np.array([1, 2**w - 1, 2, 2**w - 2, 3, 2**w - 3, 2 ** (w - 1), 2 ** (w - 1) - 1], np.uint64)
    big = rng.integers(1, 2**w, count, dtype=np.uint64)
    small = pool[np.minimum(rng.geometric(0.4, count) - 1, len(pool) - 1)]
    steps = np.where(rng.random(count) < 0.1, big, small).astype(words.dtype)
    new = words.copy()
    new[at] += steps  # never 0, so each of these words differs; wraps are wanted
    return new


# -- layouts and states --------------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(["w", "model.embed_tokens.weight", "é", "😀", "\uffff", "a" * 1024, "a/b", "a.b", "\x00", '"\\']),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw: st.DrawFn, name: str, *, dtypes: Iterable[str] = tuple(DTYPES), most: int = 300) -> Tensor:
    """A tensor: scalars, empty ones and whole bytes of packed elements among them."""
    dtype = draw(st.sampled_from(sorted(dtypes)))
    form = draw(st.sampled_from(["vector", "vector", "matrix", "scalar", "empty", "long"]))
    if form == "scalar":
        shape: tuple[int, ...] = ()
    elif form == "empty":
        shape = draw(st.sampled_from([(0,), (3, 0), (0, 2**40), (1, 0, 5)]))
    elif form == "long":
        shape = (1,) * 15 + (draw(st.integers(1, 4)),)
    elif form == "matrix":
        shape = (draw(st.integers(1, 12)), draw(st.integers(1, max(1, most // 12))))
    else:
        shape = (draw(st.integers(1, most)),)
    if math.prod(shape) * DTYPES[dtype].bits % 8:  # packed elements that fill no whole bytes
        shape = (*shape, 4)
        shape = shape if len(shape) <= 16 else shape[1:]
    return Tensor(name, dtype, shape)


@st.composite
def layouts(draw: st.DrawFn, *, dtypes: Iterable[str] = tuple(DTYPES), most: int = 300) -> Layout:
    """A layout: none, some, or many tiny tensors."""
    chosen = draw(st.lists(names, unique=True, max_size=6))
    if draw(st.integers(0, 9)) == 0:
        return Layout.of(Tensor(f"tiny.{index}", "BF16", (index % 3,)) for index in range(60))
    return Layout.of([draw(tensors(name, dtypes=dtypes, most=most)) for name in chosen])


def words_for(rng: np.random.Generator, layout: Layout) -> list[Words]:
    return [random_words(rng, tensor.dtype, tensor.words) for tensor in layout.tensors]


generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def states(draw: st.DrawFn, *, dtypes: Iterable[str] = tuple(DTYPES), most: int = 300) -> State:
    """A state."""
    layout = draw(layouts(dtypes=dtypes, most=most))
    return State(layout, words_for(draw(generators), layout))


@dataclass(frozen=True)
class Pair:
    """A state, and the one after a step."""

    old: State
    new: State


@st.composite
def pairs(draw: st.DrawFn, *, dtypes: Iterable[str] = tuple(DTYPES), refit: bool = True, most: int = 300) -> Pair:
    """Two states of one run. With `refit`, tensors may come, go, and change dtype or shape between them."""
    old = draw(states(dtypes=dtypes, most=most))
    rng = draw(generators)
    density = draw(st.sampled_from(DENSITIES))
    fresh = draw(st.sampled_from(DENSITIES))
    after: list[tuple[Tensor, Words]] = []
    for index, tensor in enumerate(old.layout.tensors):
        fate = draw(st.sampled_from(["keep", "keep", "keep", "drop", "change"])) if refit else "keep"
        if fate == "keep":
            after.append((tensor, stepped(rng, old.words(index), density)))
        elif fate == "change":
            other = draw(tensors(tensor.name, dtypes=dtypes, most=most))
            after.append((other, _sparse(rng, other, fresh)))
    if refit:
        taken = set(old.layout.index)
        for name in draw(st.lists(names.filter(lambda name: name not in taken), unique=True, max_size=2)):
            other = draw(tensors(name, dtypes=dtypes, most=most))
            after.append((other, _sparse(rng, other, fresh)))
    after.sort(key=lambda each: each[0].name.encode())
    return Pair(old, State(Layout.of(tensor for tensor, _ in after), [words for _, words in after]))


def _sparse(rng: np.random.Generator, tensor: Tensor, density: float) -> Words:
    words = random_words(rng, tensor.dtype, tensor.words)
    words[rng.random(len(words)) >= density] = 0
    return words


def slow(state: State) -> slow_reader.State:
    """A state as the slow reader has it."""
    return {
        tensor.name: slow_reader.Tensor(tensor.dtype, tensor.shape, state.words(index).tolist())
        for index, tensor in enumerate(state.layout.tensors)
    }


# -- a store in memory ---------------------------------------------------------------------------------------------


class _Blob(MemoryBlob):
    def __enter__(self) -> _Blob:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class MemoryStore(dict[str, bytes]):
    """A store that is a mapping of names to bytes; the slow reader reads it as it is."""

    address = "memory"
    exclusive = True
    lists = True
    remote = False

    def read(self, name: str) -> bytes:
        try:
            return self[name]
        except KeyError:
            raise MissingError("no such object", object=name, rule="TD-MAN-014") from None

    def open(self, name: str) -> _Blob:
        return _Blob(memoryview(self.read(name)))

    def size(self, name: str) -> int | None:
        return len(self[name]) if name in self else None

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return (name for name in list(self) if name.startswith(prefix) and (after is None or name > after))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return (StoredObject(name, len(self[name]), None) for name in self.names(prefix))

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self[name] = b"".join(parts)

    def create(self, name: str, data: bytes) -> bool:
        return self.setdefault(name, data) is data

    def batch(self) -> DirectBatch:
        return DirectBatch(self)

    def delete(self, name: str) -> None:
        self.pop(name, None)

    def add(self, prefix: str, data: bytes, suffix: str = "") -> str:
        """Put an object under its digest; gives the digest."""
        digest = hashlib.sha256(data).hexdigest()
        self[f"{prefix}{digest}{suffix}"] = data
        return digest
