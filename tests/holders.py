"""Holders of a state in arrays, and groups of them in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from tensordelta.format.layout import Layout
from tensordelta.state.blocks import Indices, Place
from tensordelta.state.group import LostError
from tensordelta.state.holder import Holder, Part

T = TypeVar("T")


class ArrayMemory:
    """Words in an array."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    @property
    def key(self) -> object:
        return self.words.ctypes.data

    def take(self, places: Indices) -> np.ndarray:
        return self.words.take(places)

    def view(self, offset: int, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
        steps = [stride * self.words.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(self.words[offset:], shape, steps).copy().reshape(-1)

    def write(self, places: Indices, old: np.ndarray, new: np.ndarray) -> ArrayWrite:
        return ArrayWrite(self.words, places, old, new)


class ArrayWrite:
    def __init__(self, words: np.ndarray, places: Indices, old: np.ndarray, new: np.ndarray) -> None:
        self.words, self.places, self.old, self.new = words, places, old, new

    @property
    def nbytes(self) -> int:
        return self.places.nbytes + self.old.nbytes + self.new.nbytes

    def do(self) -> None:
        self.words[self.places] = self.new

    def take_back(self) -> None:
        self.words[self.places] = self.old


#: Of an array the piece that a holder has, such as some columns of it; the piece is a view.
Cut = Callable[[np.ndarray], np.ndarray]


def words_of(array: np.ndarray) -> np.ndarray:
    return array.view(np.dtype(f"u{array.itemsize}"))


def cut_out(array: np.ndarray, cut: Cut) -> tuple[Part, np.ndarray] | None:
    """A part with a copy of a piece of an array, in memory of its own, and that memory in the piece's shape."""
    words = words_of(array)
    piece = cut(words)
    own = piece.copy(order="C")
    offset = (piece.ctypes.data - words.ctypes.data) // words.itemsize if piece.size else 0
    counts = [stride // words.itemsize for stride in piece.strides]
    steps = [stride // words.itemsize for stride in own.strides]
    place = Place.of(piece.shape, offset, counts, 0, steps)
    return None if place is None else (Part(place, ArrayMemory(own.reshape(-1))), own)


class Threads:
    """A group of holders of which each runs in a thread; `member` gives one of them its end."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.values: dict[int, Any] = {}

    def member(self, rank: int) -> Member:
        return Member(self, rank)

    def run(self, work: Callable[[int], T]) -> list[T | Exception]:
        """Do work in all members at once; returns what each returned, or raised."""
        results: list[T | Exception] = [RuntimeError("not run")] * self.size

        def one(rank: int) -> None:
            try:
                results[rank] = work(rank)
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


class Member:
    def __init__(self, group: Threads, rank: int) -> None:
        self.group, self.rank, self.size = group, rank, group.size

    def gather(self, value: Any) -> list[Any]:
        try:
            self.group.values[self.rank] = value
            self.group.barrier.wait()
            found = [self.group.values[rank] for rank in range(self.size)]
            self.group.barrier.wait()
        except threading.BrokenBarrierError:
            raise LostError("another holder is gone") from None
        return found

    def sum(self, values: np.ndarray) -> np.ndarray:
        return np.sum(self.gather(values), axis=0, dtype=np.uint64)


class Shards:
    """A holder with copies of pieces of a state's arrays.

    Args:
        layout: the state's.
        arrays: its arrays.
        cuts: by tensor name the pieces that it has, each in memory of its own.
        group: its group; by default it is alone.

    Attributes:
        holder: the holder.
        pieces: by name the memories, in the shape of the pieces.
    """

    def __init__(
        self, layout: Layout, arrays: Mapping[str, np.ndarray], cuts: Mapping[str, Sequence[Cut]], group: Any = None
    ) -> None:
        self.cuts = cuts
        parts: dict[str, list[Part]] = {}
        self.pieces: dict[str, list[np.ndarray]] = {}
        for name, each in cuts.items():
            made = [part for part in (cut_out(arrays[name], cut) for cut in each) if part is not None]
            parts[name] = [part for part, _ in made]
            self.pieces[name] = [piece for _, piece in made]
        self.holder = Holder(layout, parts, group=group)

    def is_of(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """True where all pieces are those of a state."""
        for name, cuts in self.cuts.items():
            wanted = [piece for piece in (cut(words_of(arrays[name])) for cut in cuts) if piece.size]
            if not all(np.array_equal(*pair) for pair in zip(self.pieces[name], wanted, strict=True)):
                return False
        return True
