"""Orders: how the words of a chunk are numbered (SPEC.md sections 7.2 and 7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..words import DType, Words

Positions = NDArray[np.int64]

#: Words in one numpy call: the temporaries stay in cache.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class ExponentOrder:
    """Words with small base exponents first, sorted stably by that exponent; then the rest as they stand.

    Both sides know the base, so the order costs no byte. `numbers` and `places` are inverse to one another.

    Attributes:
        first: places (word indices in the chunk) of the words that come first, ascending, int64.
        order: the permutation of `first` that sorts it stably by exponent.
    """

    first: Positions
    order: NDArray[np.intp]

    @classmethod
    def of(cls, base: Words, dtype: DType, limit: int) -> ExponentOrder:
        """The order that the base's words give, for exponents below `limit`."""
        assert dtype.exponent is not None
        low, width = dtype.exponent
        found: list[Positions] = []
        fields: list[NDArray[np.unsignedinteger[Any]]] = []
        for start in range(0, len(base), _BLOCK):
            block = base[start : start + _BLOCK]
            places = np.flatnonzero(_below(block, low, width, limit))
            fields.append(_exponents(block[places], low, width))
            places += start
            found.append(places)
        exponents = np.concatenate(fields)
        return cls(np.concatenate(found), np.argsort(exponents, kind="stable"))

    def places(self, numbers: Positions) -> Positions:
        """Places in the chunk of the words with these numbers (strictly increasing)."""
        count = len(self.first)
        split = int(np.searchsorted(numbers, count))
        head = self.first[self.order[numbers[:split]]]
        rest = numbers[split:] - count
        # The k-th word of the rest stands after as many of the first as have fewer than k + 1 of the rest before them.
        rest += np.searchsorted(self.first - np.arange(count), rest, side="right")
        return np.concatenate([head, rest])

    def numbers(self, places: Positions) -> tuple[Positions, NDArray[np.intp]]:
        """Numbers of the words at these places (strictly increasing), ascending, and the permutation that sorts them.

        Returns:
            (numbers, taken): `places[taken]` are the places in the order of `numbers`.
        """
        at = np.searchsorted(self.first, places)
        is_first = np.zeros(len(places), np.bool_)
        inside = at < len(self.first)
        is_first[inside] = self.first[at[inside]] == places[inside]
        rank = np.empty(len(self.first), np.int64)
        rank[self.order] = np.arange(len(self.first))
        numbers = np.where(is_first, 0, len(self.first) + places - at)
        numbers[is_first] = rank[at[is_first]]
        taken = np.argsort(numbers, kind="stable")
        return numbers[taken], taken


def _below(words: Words, low: int, width: int, limit: int) -> NDArray[np.bool_]:
    if limit >> width:
        return np.ones(len(words), np.bool_)
    # Shift the bits above the field out at the top; what is left compares as the field does.
    above = words.dtype.itemsize * 8 - low - width
    bound = words.dtype.type(limit << (low + above))
    below: NDArray[np.bool_] = np.less(words << words.dtype.type(above), bound)
    return below


def _exponents(words: Words, low: int, width: int) -> NDArray[np.unsignedinteger[Any]]:
    field = (words >> words.dtype.type(low)) & words.dtype.type((1 << width) - 1)
    return field.astype(np.uint8 if width <= 8 else np.uint16)


def choose_limit(base: Words, places: Positions, dtype: DType) -> int:
    """A good limit for a chunk: the smallest whose cost is close to that of sorting everything.

    The cost is the entropy of the positions when each exponent has its own density; exponents from the limit on share
    one. Sorting fewer words is faster for both sides.
    """
    assert dtype.exponent is not None
    low, width = dtype.exponent
    stride = max(1, len(base) >> 18)
    size = 1 << width
    total = np.bincount(_exponents(base[::stride], low, width), minlength=size) * float(stride)
    changed = np.bincount(_exponents(base[places], low, width), minlength=size).astype(np.float64)
    total = np.maximum(total, changed)
    each = _entropy(changed, total)
    head = np.cumsum(each)
    rest_changed = changed.sum() - np.cumsum(changed)
    rest_total = total.sum() - np.cumsum(total)
    cost = head + _entropy(rest_changed, rest_total)  # cost[k] is that of limit k + 1
    good = cost <= cost.min() * 1.01 + 64
    return int(np.argmax(good)) + 1


def _entropy(changed: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits to say which `changed` of `total` words changed."""
    share = np.divide(changed, total, out=np.zeros_like(changed), where=total > 0)
    inner = np.clip(share, 1e-12, 1 - 1e-12)
    bits = -total * (inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner))
    return np.where((share <= 0) | (share >= 1), 0.0, bits)
