"""Finding set flags: the same indices as numpy, from the argument alone."""

from __future__ import annotations

import numpy as np
import pytest

from tensordelta.codecs import nonzero


def test_places_are_those_of_its_argument() -> None:
    flags = np.zeros(8, np.bool_)
    flags[7] = True
    other = np.zeros(8, np.bool_)
    other[3] = True
    assert nonzero.places(other).tolist() == [3]
    assert nonzero.places(flags).tolist() == [7]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 1000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_places_are_those_that_numpy_finds(count: int, share: float) -> None:
    flags = np.random.default_rng(count).random(count + 1) < share
    for part in (flags[:count], flags[1:]):  # the second is aligned to no group
        assert nonzero.places(part).tolist() == np.flatnonzero(part).tolist()
        assert nonzero.places(part).dtype == np.int64


def test_a_comparison_leaves_earlier_results_alone() -> None:
    words = np.arange(100, dtype=np.uint16)
    first = nonzero.places_where(np.less, words, np.uint16(3))
    second = nonzero.places_where(np.not_equal, words, words[::-1].copy())
    assert first.tolist() == [0, 1, 2]
    assert len(second) == 100
    assert nonzero.places_where(np.greater, words[:10], np.uint16(8)).tolist() == [9], "fewer flags than before"
