"""Ranks of an engine in a benchmark: holders of words in arrays, or of words that lie nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tensordelta.codecs.fingerprint import U64
from tensordelta.codecs.words import Words
from tensordelta.format.layout import Layout
from tensordelta.state.blocks import Indices, Place
from tensordelta.state.holder import Holder, Part, Write


@dataclass
class ArrayMemory:
    """Words in an array; with none, a place for words that are planned only."""

    words: Words | None = None

    @property
    def key(self) -> object:
        return id(self)

    def _there(self) -> Words:
        assert self.words is not None
        return self.words

    def take(self, places: Indices) -> Words:
        return self._there().take(places)

    def view(self, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Words:
        words = self._there()
        steps = [stride * words.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(words[offset:], shape, steps).copy().reshape(-1)

    def write(self, places: Indices, old: Words, new: Words) -> Write:
        return ArrayWrite(self._there(), places, old, new)


@dataclass
class ArrayWrite:
    """The scatter of new words over old ones in an array."""

    words: Words
    places: Indices
    old: Words
    new: Words

    @property
    def nbytes(self) -> int:
        return self.places.nbytes + self.old.nbytes + self.new.nbytes

    def do(self) -> None:
        self.words[self.places] = self.new

    def take_back(self) -> None:
        self.words[self.places] = self.old


@dataclass(frozen=True)
class Member:
    """One of a group whose others are not there: it prepares, and nobody can agree with it."""

    rank: int
    size: int

    def gather(self, value: str) -> list[str]:
        raise NotImplementedError

    def sum(self, values: U64) -> U64:
        raise NotImplementedError


def planned(layout: Layout, places: Mapping[str, Place], rank: int, ranks: int) -> Holder:
    """A rank that has words in these places, which lie nowhere."""
    parts = {name: [Part(place, ArrayMemory())] for name, place in places.items()}
    return Holder(layout, parts, group=Member(rank, ranks))


def holding(layout: Layout, words: Mapping[str, Words]) -> Holder:
    """A group of one that has all words in arrays, each of shape (n,)."""
    places = {name: Place.whole(len(each)) for name, each in words.items()}
    return Holder(
        layout,
        {name: [Part(place, ArrayMemory(words[name]))] for name, place in places.items() if place is not None},
    )


def holding_rows(layout: Layout, words: Mapping[str, Words], rank: int, ranks: int) -> Holder:
    """One of some ranks that has an equal part of each tensor's words, in the tensor's own array."""
    parts = {}
    for name, each in words.items():
        start, stop = (len(each) * number // ranks for number in (rank, rank + 1))
        place = Place.of((stop - start,), start, (1,), start, (1,))
        if place is not None:
            parts[name] = [Part(place, ArrayMemory(each))]
    return Holder(layout, parts, group=Member(rank, ranks))
