"""Tables: how chains, versions and differences show themselves, in a notebook and in a terminal."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: one line above it.
        columns: headings; those that begin with `<` are aligned to the left.
        rows: cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def headings(self) -> list[str]:
        """The headings as shown."""
        return [column.removeprefix("<") for column in self.columns]

    def text(self) -> str:
        """The table in plain text."""
        cells = [self.headings, *self.rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if column.startswith("<") else cell.rjust(width)
                for cell, width, column in zip(row, widths, self.columns, strict=True)
            ).rstrip()
            for row in cells
        ]
        return "\n".join([self.title, *lines])

    def html(self) -> str:
        """The table for a notebook."""
        sides = ["left" if column.startswith("<") else "right" for column in self.columns]

        def line(tag: str, cells: Sequence[str]) -> str:
            return "".join(
                f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )

        body = "".join(f"<tr>{line('td', row)}</tr>" for row in self.rows)
        return f"<p>{html.escape(self.title)}</p><table><tr>{line('th', self.headings)}</tr>{body}</table>"


def bytes_text(count: float) -> str:
    """A size in words: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def percent_text(share: float) -> str:
    """A share in words: 0.64 %."""
    return f"{100 * share:.3g} %"
