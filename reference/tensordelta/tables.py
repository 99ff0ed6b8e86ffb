"""Tables of text and HTML, and the dispatchers that make them of results; `results` registers how."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import TypeVar

T = TypeVar("T")

_NUMBER = re.compile(r"([0-9]+)")
#: Letters of a cell that a notebook keeps in one line.
_NARROW = 24
#: Rows of a table from which on only the first and the last are shown, and how many of these.
_LONG, _HEAD, _TAIL = 40, 10, 10


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: a line above the table.
        columns: headings; a column whose heading begins with `<` is aligned to the left. Empty headings are not shown,
            nor is a column without text in any row.
        rows: cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def headings(self) -> list[str]:
        """The headings without marks."""
        return [column.removeprefix("<") for column in self.columns]

    def text(self) -> str:
        """The table in plain text."""
        shown = self._shown()
        lefts = [self.columns[column].startswith("<") for column in shown]
        cells = [[printable(row[column]) for column in shown] for row in self._lines()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(row, widths, lefts, strict=True)
            ).rstrip()
            for row in cells
        ]
        return "\n".join([printable(self.title), *(lines if shown else ())])

    def html(self) -> str:
        """The table for a notebook."""
        shown = self._shown()

        def style(side: str, cell: str) -> str:
            whole = len(cell) <= _NARROW and (" " in cell or "-" in cell)
            return f"text-align:{side};white-space:nowrap" if whole else f"text-align:{side}"

        def line(tag: str, row: Sequence[str]) -> str:
            cells = ((row[column], "left" if self.columns[column].startswith("<") else "right") for column in shown)
            return "".join(f'<{tag} style="{style(side, cell)}">{html.escape(cell)}</{tag}>' for cell, side in cells)

        tags = ["td"] * len(self.rows)
        if any(self.headings):
            tags.insert(0, "th")
        lines = "".join(f"<tr>{line(tag, row)}</tr>" for tag, row in zip(tags, self._lines(), strict=False))
        return f"<p>{html.escape(self.title)}</p>" + (f"<table>{lines}</table>" if shown else "")

    def _shown(self) -> list[int]:
        """The columns that have text."""
        return [column for column in range(len(self.columns)) if any(row[column] for row in self.rows)]

    def _lines(self) -> list[Sequence[str]]:
        """The headings, if there are any, and the rows."""
        return [*([self.headings] if any(self.headings) else []), *self.rows]


@singledispatch
def as_table(result: object) -> Table:
    """A result as a table."""
    raise TypeError(f"{type(result).__name__} has no table")


@singledispatch
def as_facts(result: object) -> dict[str, object]:
    """A result as the fields that `--json` prints."""
    raise TypeError(f"{type(result).__name__} has no facts")


def ends(rows: Sequence[T], *, head: int = _HEAD, tail: int = _TAIL) -> tuple[Sequence[T], int, Sequence[T]]:
    """The first rows of a table, the number of those that are left out, and the last ones.

    Example:
        >>> ends(range(100), head=1, tail=2)
        (range(0, 1), 97, range(98, 100))
    """
    if len(rows) <= max(_LONG, head + tail):
        return rows, 0, rows[:0]
    return rows[:head], len(rows) - head - tail, rows[len(rows) - tail :]


class Shown:
    """A result that is shown as its table, at a prompt and in a notebook."""

    __slots__ = ()

    def table(self, title: str | None = None) -> Table:
        """The result as a table, under a title of your own or its usual one."""
        table = as_table(self)
        return table if title is None else replace(table, title=title)

    def facts(self) -> dict[str, object]:
        """The fields that `--json` prints."""
        return as_facts(self)

    def __repr__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()


def printable(text: str) -> str:
    """Text with control characters escaped: anyone may have written names and annotations, and terminals obey them.

    Example:
        >>> printable("a\\x1b[2J")
        'a\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts names as people count: layers.2 before layers.10.

    Example:
        >>> sorted(["layers.10", "layers.2", "embed"], key=natural)
        ['embed', 'layers.2', 'layers.10']
    """
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _NUMBER.split(name) if part]


def bytes_text(count: float) -> str:
    """A size to three digits: 1.50 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{_three_digits(count)} {unit}"
        count /= 1000
    return f"{_three_digits(count)} TB"


def percent_text(share: float) -> str:
    """A share to three digits: 0.640 %."""
    return f"{_three_digits(100 * share)} %" if share else "0 %"


def ratio_text(ratio: float) -> str:
    """How many times smaller: 113.6x."""
    return f"{ratio:,.1f}x" if ratio < 999.95 else f"{ratio:,.0f}x"


def _three_digits(number: float) -> str:
    return f"{number:#.3g}".rstrip(".")
