"""Blocks: which words of a tensor a holder has, and where they lie in its memory.

What a rank of an engine holds of a tensor is some rows, or some columns of every row: words in equal steps along a few
axes. Its words are found in a list of word indices by divisions, and those of a run by two binary searches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
#: Which of some indices are meant: a part of them, or the places of those.
Chosen = slice | NDArray[np.intp]


@dataclass(frozen=True)
class Block:
    """Words of a tensor: `offset + i_0 * strides[0] + i_1 * strides[1] + …`, where `0 <= i_k < shape[k]`.

    Attributes:
        offset: the index of the first word, in the order of a contiguous tensor.
        shape: words along each axis, each at least 1.
        strides: words from one to the next, descending; the words of an axis end before the next of the axis before.
    """

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        reach = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size < 1 or stride < reach or self.offset < 0:
                raise ValueError(f"no block: words {self.shape} from {self.offset} in steps of {self.strides}")
            reach = (size - 1) * stride + reach

    @property
    def words(self) -> int:
        """How many words it has."""
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        """One more than the index of its last word."""
        return self.offset + self.span

    @property
    def span(self) -> int:
        """Words from its first to its last, both included."""
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def is_run(self) -> bool:
        """True where its words follow each other without a gap."""
        return self.span == self.words

    def count(self, start: int, stop: int) -> int:
        """How many of the words start … stop - 1 of the tensor it has; in a time that depends on its axes alone."""
        return self._before(stop) - self._before(start)

    def _before(self, index: int) -> int:
        """How many of its words come before a word of the tensor."""
        rest, found, each = index - self.offset, 0, self.words
        if rest <= 0:
            return 0
        for size, stride in zip(self.shape, self.strides, strict=True):
            each //= size
            along, rest = divmod(rest, stride)
            if along >= size:
                return found + size * each
            found += along * each
        return found + (1 if rest else 0)

    def find(self, indices: Indices) -> tuple[Chosen, list[Indices]]:
        """Find the indices that are words of the block.

        Args:
            indices: word indices, increasing, int64 of shape (m,).

        Returns:
            Which of them are, and the coordinates of these along each axis, each int64 of shape (k,).
        """
        first, last = (int(each) for each in np.searchsorted(indices, (self.offset, self.stop)))
        rest = indices[first:last] - self.offset
        if self.is_run and len(self.shape) == 1:
            return slice(first, last), [rest]
        inside = np.ones(len(rest), np.bool_)
        coordinates = []
        for size, stride in zip(self.shape, self.strides, strict=True):
            if stride == 1:
                along, rest = rest, np.zeros(0, np.int64)
            else:
                along = rest // stride
                rest = rest - along * stride
            inside &= along < size
            coordinates.append(along)
        if len(rest):
            inside &= rest == 0
        which = np.flatnonzero(inside)
        return which + first, [each[which] for each in coordinates]

    def indices(self) -> Indices:
        """The indices of its words in its order, int64 of shape (words,)."""
        found = np.full(self.shape, self.offset, np.int64)
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            found += (np.arange(size) * stride).reshape(-1, *(1 for _ in self.shape[axis + 1 :]))
        return found.reshape(-1)

    def parts(self, most: int) -> list[Block]:
        """The block in parts of at most `most` words, in its order."""
        if self.words <= most:
            return [self]
        row = self.words // self.shape[0]
        each = max(most // row, 1)
        stride = self.strides[0]
        parts: list[Block] = []
        for start in range(0, self.shape[0], each):
            offset, count = self.offset + start * stride, min(each, self.shape[0] - start)
            if row > most:
                parts += Block(offset, self.shape[1:], self.strides[1:]).parts(most)
            else:
                parts.append(Block(offset, (count, *self.shape[1:]), self.strides))
        return parts

    def is_apart(self, other: Block) -> bool:
        """True where no word is certain to be in both; False where one may be."""
        if self.stop <= other.offset or other.stop <= self.offset:
            return True
        if len(self.shape) != len(other.shape) or self.strides != other.strides:
            return False
        for one, two in zip(_extents(self), _extents(other), strict=True):
            if one is None or two is None:
                return False
            if one[1] <= two[0] or two[1] <= one[0]:
                return True
        return False


def _extents(block: Block) -> list[tuple[int, int] | None]:
    """A block's first and last coordinate along each of its axes, in the tensor; None where it crosses an axis' end."""
    found: list[tuple[int, int] | None] = []
    rest = block.offset
    outer: int | None = None
    for size, stride in zip(block.shape, block.strides, strict=True):
        first, rest = divmod(rest, stride)
        fits = outer is None or (first + size) * stride <= outer
        found.append((first, first + size) if fits else None)
        outer = stride
    if rest and found:  # between two steps of the last axis: no coordinates
        found[-1] = None
    return found


@dataclass(frozen=True)
class Place:
    """A block of a tensor's words, and where they lie in a one-dimensional memory.

    Attributes:
        block: the words in the tensor.
        offset: where the first of them lies.
        strides: from one to the next along each axis of the block, at least 0.
    """

    block: Block
    offset: int
    strides: tuple[int, ...]

    @classmethod
    def of(
        cls, shape: Sequence[int], offset: int, strides: Sequence[int], at: int, at_strides: Sequence[int]
    ) -> Place | None:
        """A place from a view of the tensor and a view of the memory with the same shape, in any order of axes.

        Args:
            shape: words along each axis.
            offset, strides: of the view of the tensor, in words.
            at, at_strides: of the view of the memory, in words.

        Returns:
            The place; None where the views have no words.

        Raises:
            ValueError: a word of the tensor lies in the view twice.
        """
        if 0 in shape:
            return None
        axes = [each for each in zip(strides, shape, at_strides, strict=True) if each[1] > 1]
        axes.sort(key=lambda each: -each[0])
        merged: list[tuple[int, int, int]] = []
        for stride, size, step in axes:
            if merged and merged[-1][0] == stride * size and merged[-1][2] == step * size:
                merged[-1] = stride, merged[-1][1] * size, step
            else:
                merged.append((stride, size, step))
        block = Block(
            offset, tuple(size for _, size, _ in merged) or (1,), tuple(each for each, _, _ in merged) or (1,)
        )
        return cls(block, at, tuple(step for _, _, step in merged) or (1,))

    @classmethod
    def whole(cls, words: int) -> Place | None:
        """The place of a whole tensor that lies in a memory of its own."""
        return cls.of((words,), 0, (1,), 0, (1,))

    def find(self, indices: Indices) -> tuple[Chosen, Indices]:
        """Find the indices that are words of the block.

        Args:
            indices: word indices in the tensor, increasing, int64 of shape (m,).

        Returns:
            Which of them are, and where these lie in the memory, int64 of shape (k,).
        """
        which, coordinates = self.block.find(indices)
        places = np.full(len(coordinates[0]), self.offset, np.int64)
        for along, step in zip(coordinates, self.strides, strict=True):
            places += along if step == 1 else along * step
        return which, places

    def at(self, part: Block) -> int:
        """Where the first word of a part of the block lies."""
        rest, place = part.offset - self.block.offset, self.offset
        for stride, step in zip(self.block.strides, self.strides, strict=True):
            along, rest = divmod(rest, stride)
            place += along * step
        return place
