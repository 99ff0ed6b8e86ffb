"""The ranges of tensors in a pack's entry (SPEC.md section 4.8)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import tensordelta as td
from tensordelta.format.manifest import PackEntry, ranges_of


def entry(ranges: list[tuple[int, int]]) -> PackEntry:
    return PackEntry("1" * 64, 1, "packs/x", "chunks", ranges, 1)


@examples(200)
@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_hold_these_tensors_and_no_others(tensors: set[int]) -> None:
    ranges = ranges_of(tensors)
    assert {each for first, stop in ranges for each in range(first, stop)} == tensors
    assert all(stop < first for (_, stop), (first, _) in itertools.pairwise(ranges))
    assert {each for each in range(62) if entry(ranges).may_hold(each)} == tensors


def test_near_ranges_are_joined_where_there_would_be_very_many() -> None:
    tensors = [*range(0, 40_000, 2), *range(50_000, 60_000, 50)]
    ranges = ranges_of(tensors)
    assert len(ranges) < 1_024
    assert all(entry(ranges).may_hold(each) for each in tensors)
    assert not entry(ranges).may_hold(45_000)


def test_each_writer_of_a_large_mixture_of_experts_names_its_own_alone() -> None:
    """60 layers of 384 experts, of which writers have every 16th: each rank would else fetch the packs of all."""
    experts = [(layer, expert) for layer in range(60) for expert in map(int, sorted(map(str, range(384))))]
    owned = [
        [3 * at + part for at, (_, each) in enumerate(experts) if each % 16 == writer for part in range(3)]
        for writer in range(2)
    ]
    assert all(sum(stop - first for first, stop in ranges_of(each)) == len(each) for each in owned)


@pytest.mark.parametrize(("names", "fetched"), [(["a"], 0), (["c", "e"], 0), (["b"], 1), (["b", "d"], 1)])
def test_a_part_is_read_without_the_packs_around_it(tmp_path: Path, names: list[str], fetched: int) -> None:
    """Two packs, one of `a`, `c` and `e`, and one of `b` and `d`, which lie between them: the other is not needed."""
    weights = {name: np.full(9, index, np.float32) for index, name in enumerate("abcde", 1)}
    chain = td.open(tmp_path / "chain", create=True)
    draft = chain.draft(weights, layout_change=True)
    ranks = [{name: weights[name] for name in group} for group in ("ace", "bd")]
    draft.commit([chain.join(draft.to_json()).encode(rank) for rank in ranks])
    packs = chain.manifest().packs
    assert [pack.tensors for pack in packs] == [[(0, 1), (2, 3), (4, 5)], [(1, 2), (3, 4)]]
    (tmp_path / "chain" / str(packs[1 - fetched].path)).unlink()
    part = td.open(tmp_path / "chain").load_part(names)
    assert all(np.array_equal(part[name], weights[name]) for name in names)
