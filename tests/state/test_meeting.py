"""Holders that learn what the others of their group have."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.blocks import Block
from tensordelta.state.holder import Holder, Part, Place


class Nowhere:
    key = 0

    def __init__(self) -> None:
        self.key = id(self)


def test_tensors_that_are_cut_alike_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mixture of experts has tens of thousands of tensors of a few shapes, on many ranks."""
    layout = Layout.of(Tensor(f"expert.{number:03d}", "BF16", (16, 64)) for number in range(100))

    def holder(rank: int) -> Holder:
        place = Place.of((16, 4), 4 * rank, (64, 1), 0, (4, 1))
        assert place is not None
        return Holder(layout, {tensor.name: [Part(place, Nowhere())] for tensor in layout.tensors})  # type: ignore[arg-type]

    holders = [holder(rank) for rank in range(16)]
    asked: Counter[str] = Counter()
    is_apart = Block.is_apart

    def counted(self: Block, other: Block) -> bool:
        asked["is_apart"] += 1
        return is_apart(self, other)

    monkeypatch.setattr(Block, "is_apart", counted)
    holders[0].meet([each.blocks for each in holders])
    assert asked["is_apart"] <= 15
    words = np.arange(4, dtype=np.uint16)
    for tensor in range(len(layout)):
        assert holders[0].sums(tensor, np.arange(4), words, words).owned == 4
