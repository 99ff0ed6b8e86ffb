"""Output: tables that fit a terminal, JSON, and progress while a command works."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..events import Event
from ..tables import Table, printable

if TYPE_CHECKING:
    from rich.progress import Progress

_SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
#: Seconds of work before progress is shown.
_PATIENCE = 1.0


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_json(facts: Mapping[str, object] | Sequence[object]) -> None:
    click.echo(json.dumps(facts, indent=2))


def print_failure(fault: Mapping[str, object]) -> None:
    """Print what failed as one JSON object, in a line, as `pull --follow` prints them; the fault's fields are its own.

    Args:
        fault: `error`, `object`, `rule` and `message`.
    """
    try:
        click.echo(json.dumps({"ok": False, "faults": [fault], **fault}))
    except OSError:  # nobody reads it, but the exit code
        abandon_stdout()


def print_result(as_json: bool, facts: Mapping[str, object] | Sequence[object], table: Table, **look: Any) -> None:
    """Print what a command found: its facts as JSON, or its table (see `print_table`)."""
    if as_json:
        print_json(facts)
    else:
        print_table(table, **look)


def print_table(
    table: Table,
    *,
    stderr: bool = False,
    style: str = "bold",
    expendable: Iterable[str] = (),
    free_text: int = 24,
    abbreviate: bool = False,
) -> None:
    """Print a table: fitted to a terminal; complete and plain to a pipe or file.

    Args:
        style: of the title.
        expendable: headings of columns to omit on a terminal that is too narrow, in that order.
        free_text: width to which columns of text are folded before other columns are omitted.
        abbreviate: shorten digests on a terminal that is too narrow.
    """
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty():
        click.echo(table.text(), err=stderr)
        return
    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    if abbreviate and _width(table) > console.width:
        table = Table(table.title, table.columns, [[_SHA256.sub(r"\1...", cell) for cell in row] for row in table.rows])
    left_out: list[str] = []
    for heading in expendable:
        if _width(table, free_text) <= console.width:
            break
        table = _without(table, heading)
        left_out.append(heading)
    console.print(Text(printable(table.title), style=style))
    if _width(table) <= console.width:  # without rich, which takes seconds for the log of a long chain
        lines = table.text().splitlines()[1:]
        if any(table.headings):
            console.print(Text(lines.pop(0), style="dim"))
        for line in lines:
            click.echo(line, err=stderr)
    else:
        console.print(_folded(table))
    if left_out:
        console.print(Text(f"wider terminals show as well: {', '.join(left_out)}", style="dim"))


def _width(table: Table, free_text: int = sys.maxsize) -> int:
    """Width that a table needs if its columns of text are folded to `free_text`."""
    widths = []
    for index, (column, heading) in enumerate(zip(table.columns, table.headings, strict=True)):
        widest = max(cell_len(printable(cell)) for cell in (heading, *(row[index] for row in table.rows)))
        widths.append(min(widest, free_text) if column.startswith("<") else widest)
    return sum(widths) + 2 * (len(widths) - 1)


def _without(table: Table, heading: str) -> Table:
    at = table.headings.index(heading)
    return Table(
        table.title,
        [*table.columns[:at], *table.columns[at + 1 :]],
        [[*row[:at], *row[at + 1 :]] for row in table.rows],
    )


def _folded(table: Table) -> RichTable:
    """A table whose long texts are folded, for a narrow terminal."""
    shown = RichTable(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(table.headings), header_style="dim"
    )
    for column, heading in zip(table.columns, table.headings, strict=True):
        left = column.startswith("<")
        shown.add_column(heading, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for row in table.rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    return shown


def abandon_stdout() -> None:
    """Keep Python from reporting at exit that buffered output cannot be written."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Working:
    """Progress on stderr while a command works for more than a second, if stderr is a terminal; a context manager.

    Args:
        doing: describes the work.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._timer = threading.Timer(_PATIENCE, self._start)
        self._timer.daemon = True
        self._visible = False

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._progress = _progress()
            self._task = self._progress.add_task(self._doing, total=None)
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._timer.cancel()
            self._timer.join()
            if self._visible:
                self._progress.stop()

    def _start(self) -> None:
        assert self._progress is not None
        with self._lock:
            self._visible = True
            self._progress.start()

    def _update(self, **fields: Any) -> None:
        if self._progress is not None:
            self._progress.update(self._task, **fields)

    def event(self, event: Event) -> None:
        """Show the latest event of a chain, and the share of a download that is done."""
        share = {} if event.total is None else {"completed": event.size, "total": event.total}
        self._update(description=f"{event.kind} version {event.version}", **share)

    def count(self, done: int, total: int) -> None:
        """Show how much of the work is done."""
        self._update(completed=done, total=total)

    def share(self, message: str, done: float) -> None:
        """Show a message, and how much of the work is done, from 0 to 1."""
        self._update(description=message, completed=done, total=1.0)

    def say(self, text: str) -> None:
        """Print a line of output above the progress."""
        with self._lock:
            if self._progress is not None and self._visible:
                self._progress.stop()
            click.echo(printable(text))
            if self._progress is not None and self._visible:
                self._progress.start()


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
