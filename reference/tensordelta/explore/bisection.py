"""The first of some versions for which something holds, found by halving; knows no chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def first(versions: Sequence[int], holds: Callable[[int], object]) -> int | None:
    """The first version for which a predicate holds, if it holds for all later ones as well; None if for none.

    Asked are the newest version, and at most as many more as the number of versions has binary digits.

    Example:
        >>> first([0, 1, 2, 5, 9], lambda version: version >= 3)
        5
    """
    if not versions or not holds(versions[-1]):
        return None
    low, high = 0, len(versions) - 1  # it holds at `high`, and at none below `low`
    while low < high:
        middle = (low + high) // 2
        if holds(versions[middle]):
            high = middle
        else:
            low = middle + 1
    return versions[high]
