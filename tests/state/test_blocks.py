"""Blocks of a tensor's words: views of numpy say what is in them, and where."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensordelta.state.blocks import Block, Place


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """A view of the word indices of a tensor: slices of its axes, in any order."""
    indices = np.arange(math.prod(shape)).reshape(shape)
    cuts = []
    for size in shape:
        start = draw(st.integers(0, size - 1))
        cuts.append(slice(start, draw(st.integers(start + 1, size)), draw(st.integers(1, 3))))
    return indices[tuple(cuts)].transpose(draw(st.permutations(range(len(shape)))))


def strides(view: np.ndarray) -> list[int]:
    return [stride // view.itemsize for stride in view.strides]


shapes = st.lists(st.integers(1, 6), max_size=4).map(tuple)


@given(st.data())
def test_a_place_knows_which_words_it_has_and_where_they_lie(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    view = data.draw(views(shape))
    memory = np.arange(5, 5 + view.size).reshape(view.shape)
    place = Place.of(view.shape, int(view.flat[0]), strides(view), 5, strides(memory))
    assert place is not None
    lies = dict(zip(view.ravel().tolist(), memory.ravel().tolist(), strict=True))
    asked = np.array(sorted(data.draw(st.sets(st.integers(0, math.prod(shape) - 1)))), np.int64)
    which, places = place.find(asked)
    assert dict(zip(asked[which].tolist(), places.tolist(), strict=True)) == {
        index: lies[index] for index in asked.tolist() if index in lies
    }
    assert sorted(place.block.indices().tolist()) == sorted(lies)
    assert place.block.words == view.size


@given(st.data())
def test_the_parts_of_a_block_are_small_and_make_it_up(data: st.DataObject) -> None:
    view = data.draw(views(data.draw(shapes)))
    place = Place.of(view.shape, int(view.flat[0]), strides(view), 0, strides(np.zeros(view.shape, np.int64)))
    assert place is not None
    most = data.draw(st.integers(1, 20))
    parts = place.block.parts(most)
    assert max(part.words for part in parts) <= most
    assert [index for part in parts for index in part.indices().tolist()] == place.block.indices().tolist()
    for part in parts:
        (_, (lies, *_)) = place.find(part.indices()[:1])
        assert place.at(part) == lies


@given(st.data())
def test_the_words_of_a_block_in_a_range_are_counted(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    view = data.draw(views(shape))
    place = Place.of(view.shape, int(view.flat[0]), strides(view), 0, [0] * view.ndim)
    assert place is not None
    start, stop = sorted(data.draw(st.integers(0, math.prod(shape))) for _ in range(2))
    assert place.block.count(start, stop) == sum(start <= each < stop for each in view.ravel().tolist())


def test_words_of_a_vast_block_are_counted_without_memory() -> None:
    """Columns of a matrix of 2^40 words: no list of its words is made."""
    block = Block(1 << 10, (1 << 20, 1 << 10), (1 << 20, 1))
    assert block.count(0, 1 << 40) == 1 << 30
    assert block.count(0, 1 << 10) == 0
    assert block.count((1 << 39) + (1 << 10) + 5, (1 << 39) + (1 << 20)) == (1 << 10) - 5


@given(st.data())
def test_blocks_that_are_apart_share_no_word(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    found = []
    for _ in range(2):
        view = data.draw(views(shape))
        place = Place.of(view.shape, int(view.flat[0]), strides(view), 0, [0] * view.ndim)
        assert place is not None
        found.append((place.block, set(view.ravel().tolist())))
    (one, words), (other, more) = found
    assert one.is_apart(other) == other.is_apart(one)
    assert not (one.is_apart(other) and words & more)


def test_columns_of_two_ranks_are_apart() -> None:
    """The case that ranks with row-parallel layers have: intervals overlap, columns do not."""
    one, other = Block(0, (64, 128), (256, 1)), Block(128, (64, 128), (256, 1))
    assert one.is_apart(other)
    assert not one.is_apart(Block(100, (64, 128), (256, 1)))


def test_neighbouring_axes_become_one_run() -> None:
    place = Place.of((4, 3, 2), 6, (6, 2, 1), 10, (6, 2, 1))
    assert place == Place(Block(6, (24,), (1,)), 10, (1,))
    assert place.block.is_run
    assert Place.of((4, 0), 0, (1, 1), 0, (1, 1)) is None


@pytest.mark.parametrize(
    "block", [(0, (2, 2), (1, 1)), (0, (2, 3), (2, 1)), (-1, (2,), (1,)), (0, (0,), (1,)), (0, (2, 2), (1, 4))]
)
def test_a_block_with_a_word_twice_is_refused(block: tuple[int, tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="no block"):
        Block(*block)
