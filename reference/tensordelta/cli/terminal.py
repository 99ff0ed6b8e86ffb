"""Output: tables that fit a terminal, JSON, and progress while a command works."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..progress import Phase, View
from ..tables import Table, bytes_text, printable

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

#: Columns of a terminal in which progress shows the total as well.
_WIDE = 100
_SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
#: The key of a context's `meta` that says whether `--json` is given.
JSON = "tensordelta.json"


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


def print_error(sentence: str) -> None:
    """Print what is wrong and what to do about it: in one line, which a terminal folds between words."""
    text = printable(sentence)
    if sys.stderr.isatty():
        console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        console.print(Text.assemble(("error: ", "bold red"), text), overflow="fold")
    else:
        click.echo(f"error: {text}", err=True)


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


class Working(View):
    """Progress on stderr while a command works for more than a second; a context manager.

    Nothing is shown where stderr is no terminal, nor with `--json`.

    Args:
        doing: describes the work, until the library says more.
    """

    def __init__(self, doing: str) -> None:
        super().__init__()
        self._own = Phase(doing, unit="steps")
        self._seen = sys.stderr.isatty() and not click.get_current_context().meta.get(JSON)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._shown: Phase | None = None

    def __enter__(self) -> Self:
        self.phases.append(self._own)
        return super().__enter__() if self._seen else self

    def __exit__(self, *raised: object) -> None:
        if self._seen:
            super().__exit__(*raised)

    def show(self, phase: Phase) -> None:
        if self._progress is None:
            self._progress = _progress()
            self._progress.start()
        if phase is not self._shown or self._task is None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(phase.doing, total=phase.total, counted=phase.unit)
            self._shown = phase
        self._progress.update(self._task, description=phase.doing, total=phase.total, completed=phase.done)
        self._progress.refresh()

    def hide(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = self._shown = None

    def share(self, message: str, done: float) -> None:
        """Show a message, and how much of the work is done, from 0 to 1."""
        self._own.doing, self._own.total = message, 1000
        self._own.add(int(1000 * done) - self._own.done)

    def say(self, text: str) -> None:
        """Print a line of output above the progress."""
        with self.lock:
            self.hide()
            click.echo(printable(text))


def _progress() -> Progress:
    """A bar of rich: what is done, per cent, bytes, their rate, and the time left."""
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    wide = console.width >= _WIDE

    class Counted(ProgressColumn):
        """Bytes done of all, bytes a second, and the time left; for other work, how long it has taken."""

        def render(self, task: Task) -> Text:
            return Text(counted(task, wide=wide))

    return Progress(
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20 if wide else 10),
        TaskProgressColumn(show_speed=False),
        Counted(),
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def counted(task: Task, *, wide: bool) -> str:
    """How much of a task is done, how fast, and how long the rest takes."""
    unit, parts = task.fields["counted"], []
    if unit == "bytes":
        done = bytes_text(task.completed)
        parts.append(done if task.total is None or not wide else f"{done} of {bytes_text(task.total)}")
        if task.speed:
            parts.append(f"{bytes_text(task.speed)}/s")
    elif unit != "steps":
        parts.append(f"{task.completed:,.0f}" + ("" if task.total is None else f" of {task.total:,.0f}") + f" {unit}")
    if task.time_remaining is not None:
        parts.append(f"{duration_text(task.time_remaining)} left")
    elif task.elapsed is not None:
        parts.append(duration_text(task.elapsed))
    return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """A time in minutes and seconds: 1:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
