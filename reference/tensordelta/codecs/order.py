"""Orders: how the words of a chunk are numbered (SPEC.md sections 7.2 and 7.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nonzero import places_where
from .words import DType, Words

Positions = NDArray[np.int64]
#: Places in a group, which has at most 2^24 words: half the memory is read in half the time.
_Places = NDArray[np.int32]

#: Words in one numpy call; so few that the temporaries stay in the processor's cache.
_BLOCK = 1 << 18
#: Adjacent words that a sample takes at once.
_RUN = 1 << 12


@dataclass(frozen=True)
class ExponentOrder:
    """Words with small base exponents first, sorted stably by that exponent; then the rest in their own order.

    Reader and writer both have the base, so the order costs no byte. `numbers` and `places` are inverse to each other.

    Attributes:
        first: places (word indices in the group) of the words that come first, ascending, int32.
        order: the permutation of `first` that sorts it stably by exponent.
    """

    first: _Places
    order: NDArray[np.intp]

    @classmethod
    def of(cls, base: Sequence[Words], dtype: DType, limit: int) -> ExponentOrder:
        """The order that the base's words give, for exponents below `limit`.

        Args:
            base: the words of a group of slices, one after another.
        """
        assert dtype.exponent is not None
        low, width = dtype.exponent
        found: list[Positions] = []
        fields: list[NDArray[np.unsignedinteger[Any]]] = []
        offset = 0
        doubled = np.empty(min(_BLOCK, max(map(len, base))), base[0].dtype)
        for words in base:
            for start in range(0, len(words), _BLOCK):
                block = words[start : start + _BLOCK]
                below = _below(block, low, width, limit, doubled)
                fields.append(_exponents(block.take(below), low, width))
                below += offset + start
                found.append(below)
            offset += len(words)
        first = np.concatenate(found, dtype=np.int32, casting="same_kind")
        return cls(first, np.argsort(np.concatenate(fields), kind="stable"))

    def places(self, numbers: Positions) -> Positions:
        """Places in the group of the words with these numbers (strictly increasing): one ascending run an exponent."""
        count = len(self.first)
        split = int(np.searchsorted(numbers, count))
        found = np.empty(len(numbers), np.int64)
        found[:split] = self.first.take(self.order.take(numbers[:split]))
        rest = np.subtract(numbers[split:], count, out=found[split:])
        # Before the k-th word of the rest lie those of the first that have at most k words of the rest before them.
        rests_before = self.first - np.arange(count, dtype=np.int32)
        rest += np.searchsorted(rests_before, rest.astype(np.int32), side="right")
        return found

    def numbers(self, places: Positions) -> tuple[Positions, NDArray[np.intp]]:
        """Numbers of the words at these places (strictly increasing), ascending, and the permutation that sorts them.

        Returns:
            (numbers, taken): `places[taken]` are the places in the order of `numbers`.
        """
        if not len(self.first):
            return places, np.arange(len(places))
        within = places.astype(np.int32)
        before = np.searchsorted(self.first, within)  # words of the first that lie before each place
        is_first = self.first.take(before, mode="clip") == within
        listed, others = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        # Which of the listed words each of the first is, counted from 1; 0 for none.
        ranks = np.zeros(len(self.first), np.int32)
        ranks[before.take(listed)] = listed + 1
        ranks = ranks.take(self.order)
        head = np.flatnonzero(ranks != 0)
        rest = places.take(others) - before.take(others) + len(self.first)
        return np.concatenate([head, rest]), np.concatenate([ranks.take(head) - 1, others])


def _below(words: Words, low: int, width: int, limit: int, doubled: Words) -> Positions:
    """Indices of the words whose exponent field is less than the limit.

    Args:
        doubled: scratch memory for at least as many words; overwritten.
    """
    if limit >> width:
        return np.arange(len(words))
    # Only the sign bit is above the field. Doubling shifts it out; the rest compares as the field does.
    room = doubled[: len(words)]
    np.add(words, words, out=room)
    return places_where(np.less, room, words.dtype.type(limit << (low + 1)))


def exponents(words: Words, dtype: DType) -> NDArray[np.unsignedinteger[Any]]:
    """The exponent fields of words of a dtype that has one: uint8, or uint16 where the field is wider."""
    assert dtype.exponent is not None
    return _exponents(words, *dtype.exponent)


def _exponents(words: Words, low: int, width: int) -> NDArray[np.unsignedinteger[Any]]:
    field = (words >> words.dtype.type(low)) & words.dtype.type((1 << width) - 1)
    return field.astype(np.uint8 if width <= 8 else np.uint16)


def choose_limit(base: Iterable[Words], old: Words, dtype: DType) -> int:
    """A good limit for a chunk: the smallest whose cost is close to the least, if it puts few words first.

    The cost is the entropy of the positions when each exponent has its own density; exponents from the limit on share
    one. Reader and writer both sort the words that come first, and the smallest exponents bring most of the gain: at
    most a sixteenth of the words comes first.

    Args:
        base: the words of the chunk's slices, one after another.
        old: the base's words where words are listed.
    """
    assert dtype.exponent is not None
    low, width = dtype.exponent
    size = 1 << width
    total = np.zeros(size)
    for words in base:
        sample = _sample(words)
        total += np.bincount(_exponents(sample, low, width), minlength=size) * (len(words) / len(sample))
    changed = np.bincount(exponents(old, dtype), minlength=size).astype(np.float64)
    total = np.maximum(total, changed)
    each = _entropy(changed, total)
    head = np.cumsum(each)
    rest_changed = changed.sum() - np.cumsum(changed)
    rest_total = total.sum() - np.cumsum(total)
    cost = head + _entropy(rest_changed, rest_total)  # cost[k] is that of limit k + 1
    few = np.cumsum(total) <= total.sum() / 16
    few[0] = True
    good = few & (cost <= cost[few].min() * 1.01)
    return int(np.argmax(good)) + 1


def _sample(words: Words) -> Words:
    """About one word in 32, in runs of adjacent words, which are read faster than single words."""
    runs = len(words) // (_RUN * 32)
    if not runs:
        return words[:_RUN]
    rows: Words = words[: runs * _RUN * 32].reshape(runs, -1)[:, :_RUN]
    return rows.reshape(-1)


def _entropy(changed: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits needed to say which `changed` of `total` words changed."""
    share = np.divide(changed, total, out=np.zeros_like(changed), where=total > 0)
    inner = np.clip(share, 1e-12, 1 - 1e-12)
    bits = -total * (inner * np.log2(inner) + (1 - inner) * np.log2(1 - inner))
    return np.where((share <= 0) | (share >= 1), 0.0, bits)
