"""Chunks grow with the change (SPEC.md appendix B): what is gathered into each, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from tensordelta.format.chunk_codec import Piece
from tensordelta.format.layout import Layout, Tensor
from tensordelta.write import gathering

LEAST = 64
SHARE = 16
SPACE = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of few words, so that few make a large version."""
    for name, value in [("_LISTED", LEAST), ("_LISTED_EXPONENT", LEAST), ("_LISTED_DENSE", LEAST)]:
        monkeypatch.setattr(gathering, name, value)
    monkeypatch.setattr(gathering, "_SHARE", SHARE)
    monkeypatch.setattr(gathering, "_SPACE", SPACE)


def piece(tensor: int, start: int, words: int, listed: int) -> Piece:
    if listed == words:
        return Piece(tensor, start, start + words, None, None, np.zeros(words, np.uint16))
    indices = start + np.arange(listed, dtype=np.int64)
    return Piece(tensor, start, start + words, indices, None, np.arange(listed).astype(np.uint16))


def chunks(layout: Layout, found: list[Piece]) -> list[list[Piece]]:
    return list(gathering.gather(found, layout, lambda tensor: tensor % 3 == 2, lambda tensor: tensor % 2 == 0))


def tensors(count: int) -> Layout:
    return Layout(
        Tensor(f"t{index:04d}", "BF16" if index < count // 2 else "F16", (1 << 30,)) for index in range(count)
    )


def listed(chunk: list[Piece]) -> int:
    return sum(len(each.new) for each in chunk)


def words_of(pieces: list[Piece]) -> Iterator[tuple[int, int, int]]:
    """Each listed word, and its new word."""
    for each in pieces:
        yield from ((each.tensor, int(place), int(new)) for place, new in zip(each.places, each.new, strict=True))


@examples(100)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([1, 5, 40, 63, 64, 65, 97, 300, 1000]), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    )
)
def test_every_word_is_in_one_chunk_of_its_kind(sizes: list[tuple[int, int, int]]) -> None:
    layout = tensors(6)
    found, at = [], 0
    for tensor, count, sparse in sorted(sizes, key=lambda size: size[0]):
        found.append(piece(tensor, at, count << (4 * sparse), count))
        at += count << 12
    made = chunks(layout, found)
    assert [each for chunk in made for each in words_of(chunk)] == list(words_of(found))
    covered = [(each.tensor, each.start, each.stop) for chunk in made for each in chunk]
    for (tensor, _, stop), (after, start, _) in pairwise(covered):
        assert (tensor, stop) <= (after, start)
    for chunk in made:
        kinds = {
            (layout.tensors[each.tensor].dtype, each.tensor % 3 == 2, each.tensor % 2, each.indices is None)
            for each in chunk
        }
        assert len(kinds) == 1
        assert sum(each.stop - each.start for each in chunk) <= SPACE or len(chunk) == 1


def test_chunks_grow_so_that_they_stay_few() -> None:
    layout = tensors(2)
    found = [piece(0, start << 4, 1 << 4, 10) for start in range(100_000)]  # a million listed words
    made = chunks(layout, found)
    assert len(made) < SHARE * (2 + np.log(1_000_000 / (SHARE * LEAST)))
    before = 0
    for chunk in made:
        assert listed(chunk) <= max(LEAST, before // SHARE) * 3 // 2
        before += listed(chunk)
    assert max(map(listed, made)) > 100 * LEAST


def test_chunks_of_few_changes_end_with_their_space() -> None:
    layout = tensors(2)
    made = chunks(layout, [piece(0, start << 18, 1 << 18, 1) for start in range(40)])
    assert [listed(chunk) for chunk in made] == [4] * 10


def test_the_last_words_go_to_the_chunk_before() -> None:
    layout = tensors(2)
    made = chunks(layout, [piece(0, start << 10, 1 << 10, 16) for start in range(4 + 1)])
    assert [listed(chunk) for chunk in made] == [80]
    made = chunks(layout, [piece(0, start << 10, 1 << 10, 16) for start in range(4 + 3)])
    assert [listed(chunk) for chunk in made] == [64, 48]
