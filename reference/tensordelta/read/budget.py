"""A reader's memory budget (SPEC.md section 9.2)."""

from __future__ import annotations

from ..errors import LimitError


class Budget:
    """A reader's memory budget, in bytes. It is asked before memory is allocated."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, amount: int, *, object: str, rule: str = "TD-LIM-002") -> None:
        """Reserve memory.

        Raises:
            LimitError: it would pass the budget.
        """
        self.check(amount, object=object, rule=rule)
        self.used += amount

    def check(self, amount: int, *, object: str, rule: str = "TD-LIM-002") -> None:
        """Check that there is room for a short time.

        Raises:
            LimitError: it would pass the budget.
        """
        if self.used + amount > self.limit:
            raise LimitError(
                f"needs {self.used + amount:,} bytes of memory, the budget is {self.limit:,}",
                object=object,
                rule=rule,
                advice="Raise the budget (memory=…), or take a route with smaller steps.",
            )
