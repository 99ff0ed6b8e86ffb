"""A change to the small reader."""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """One mutant.

    Attributes:
        name: what it is called.
        title: what it does wrong, in words.
        module: the module that is changed.
        edits: texts there, and what takes the place of each.
        cases: ids of cases that must fail.
    """

    name: str
    title: str
    module: str
    edits: tuple[tuple[str, str], ...]
    cases: tuple[str, ...]

    def applied(self, source: str) -> str:
        """The module's source with the change.

        Raises:
            ValueError: an old text does not stand there exactly once, so that the change changes nothing, or more.
        """
        for old, new in self.edits:
            if source.count(old) != 1:
                raise ValueError(f"{self.name}: {old!r} stands {source.count(old)} times in {self.module}.py")
            source = source.replace(old, new)
        return source
