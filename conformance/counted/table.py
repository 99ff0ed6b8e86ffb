"""The table of a census: kinds of accepted values, and which of them occur."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_SHOWN = 44


@dataclass
class Kind:
    """A kind of accepted value that implementers narrow by mistake.

    Attributes:
        name: which kind.
        least: how many distinct values there have to be.
        needs: values that have to be among them.
        found: a case for each value that occurs.
    """

    name: str
    least: int
    needs: frozenset[str]
    found: dict[str, str] = field(default_factory=dict)

    def note(self, value: object, case: str) -> None:
        """A value of this kind is accepted in a case."""
        self.found.setdefault(str(value), case)

    @property
    def lacks(self) -> str:
        """What is missing; empty where nothing is."""
        absent = sorted(self.needs - set(self.found))
        if absent:
            return f"no {', '.join(absent)}"
        return f"fewer than {self.least}" if len(self.found) < self.least else ""

    @property
    def examples(self) -> Iterator[str]:
        """Two values that are unlike in length, with their cases."""
        values = sorted(self.found, key=lambda value: (len(value), value))
        for value in dict.fromkeys([*values[:1], *values[-1:]]):
            shown = value if len(value) <= _SHOWN else f"{value[: _SHOWN - 20]}… ({len(value)} characters)"
            yield f"{shown.encode('unicode_escape').decode()} ({self.found[value]})"


class Census:
    """All kinds, in the order in which they were made."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []

    def kind(self, name: str, least: int = 2, needs: Iterable[object] = ()) -> Kind:
        """A new kind."""
        wanted = frozenset(map(str, needs))
        self.kinds.append(Kind(name, max(least, len(wanted)), wanted))
        return self.kinds[-1]

    def rows(self) -> Iterator[str]:
        """The table, a line for each kind."""
        width = max(len(kind.name) for kind in self.kinds)
        for kind in self.kinds:
            mark = f"LACKING {kind.lacks}: " if kind.lacks else ""
            yield f"{kind.name:<{width}} {len(kind.found):>5}  {mark}{'; '.join(kind.examples)}"

    @property
    def lacking(self) -> list[Kind]:
        """The kinds that are not met."""
        return [kind for kind in self.kinds if kind.lacks]
