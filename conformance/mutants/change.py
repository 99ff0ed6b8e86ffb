"""A change to the small reader."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Change(NamedTuple):
    """One mutant.

    Attributes:
        name: what it is called.
        title: what it does wrong, in words.
        edits: texts of the small reader, and what takes the place of each.
        cases: ids of cases that must fail.
    """

    name: str
    title: str
    edits: tuple[tuple[str, str], ...]
    cases: tuple[str, ...]

    def apply(self, folder: Path) -> list[str]:
        """Change a copy of the small reader; gives the names of the modules that are changed.

        Raises:
            ValueError: an old text does not stand there exactly once, so that the change changes nothing, or more.
        """
        changed = []
        for old, new in self.edits:
            found = {path: path.read_text(encoding="utf-8").count(old) for path in sorted(folder.glob("*.py"))}
            if sum(found.values()) != 1:
                raise ValueError(f"{self.name}: {old!r} stands {sum(found.values())} times in the small reader")
            path = next(path for path, times in found.items() if times)
            path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
            changed.append(path.stem)
        return changed


def change(name: str, title: str, old: str, new: str, *cases: str, also: tuple[tuple[str, str], ...] = ()) -> Change:
    """A mutant in which one text of the small reader, or a few, are replaced."""
    return Change(name, title, ((old, new), *also), cases)
