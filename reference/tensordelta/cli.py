"""The command line: `tensordelta`, or `python -m tensordelta`.

What a command finds goes to stdout, errors and progress to stderr. Exit codes: 0 done, 1 the data or the machine is at
fault, 2 wrong usage, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click
import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from . import __version__, chain, objects
from .chain import Chain
from .checkout import Checkout, Pulled
from .checkpoint import open_checkpoint
from .difference import Diff, TensorDiff
from .difference import diff as compare
from .encoder import Order, Values
from .errors import TensorDeltaError
from .events import Event
from .layout import Layout
from .manifest import Manifest
from .publish import Published, annotations_text, check_source
from .tables import Table, bytes_text, percent_text, printable, ratio_text
from .threads import thread_count
from .verify import Verification, fault_facts

if TYPE_CHECKING:
    from rich.progress import Progress

_Command = TypeVar("_Command", bound=Callable[..., Any])

_JSON = "tensordelta.json"
_INTERRUPTED = 130
_NO_READER = 141
_SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
#: Seconds of work that need no sign of life.
_PATIENCE = 1.0


class _Commands(click.Group):
    """Turns what commands raise into messages and exit codes; lists commands in the order of their definition."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> None:
        for stream in (sys.stdout, sys.stderr):
            # A name that the terminal's encoding lacks is no reason to fail.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                super().invoke(context)
            except TensorDeltaError as fault:
                if context.meta.get(_JSON):
                    _print_json(fault_facts(fault))
                _print(_fault_table(fault), stderr=True, style="bold red")
                context.exit(1)
        except BrokenPipeError:
            _abandon_stdout()
            context.exit(_NO_READER)
        except OSError as error:
            _abandon_stdout()
            click.echo(f"error: {_os_error_text(error)}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            # A version that was being published exists if its manifest does: `log` tells.
            click.echo("interrupted; what was published before, `tensordelta log` shows", err=True)
            context.exit(_INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tensordelta")
def main() -> None:
    """Publish, read and verify chains of model weights that hold only what changed.

    CHAIN is the folder of a chain. CHECKPOINT is a safetensors file, or a Hugging Face folder of them.

    Exit codes: 0 done; 1 the data or the machine is at fault; 2 wrong usage.
    """


# -- options that several commands share ------------------------------------------------------------------------------


def _remember_json(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    context.meta[_JSON] = value
    return value


def _scheme(context: click.Context, parameter: click.Parameter, schemes: tuple[str, ...]) -> tuple[str, ...]:
    for scheme in schemes:
        if not scheme.isalnum():
            raise click.BadParameter(f"{scheme!r} is no scheme; write hf, for instance")
    return schemes


_json = click.option(
    "--json", "as_json", is_flag=True, callback=_remember_json, help="Print the facts as JSON, and nothing else."
)
_threads = click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many jobs run at once; by default $TENSORDELTA_THREADS, or all cores.",
)
_version = click.IntRange(min=0, max=objects.MAX_VERSION)


def _reads_packs(command: _Command) -> _Command:
    for option in (
        click.option(
            "--packs-from",
            "pack_folders",
            multiple=True,
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="A folder whose safetensors files may stand in for packs that have the same bytes; may be repeated.",
        ),
        click.option(
            "--allow-source",
            "allow_sources",
            metavar="SCHEME",
            multiple=True,
            callback=_scheme,
            help="Allow packs to be taken from public sources of this scheme, such as hf; may be repeated.",
        ),
        _threads,
    ):
        command = option(command)
    return command


def _open(address: str, *, threads: int | None = None, **options: Any) -> Chain:
    with _usage():
        return chain.open(address, threads=thread_count(threads), **options)


@contextmanager
def _usage() -> Iterator[None]:
    """Report a `ValueError` of arguments as wrong usage; errors of the data are `ValueError`s of their own kind."""
    try:
        yield
    except TensorDeltaError:
        raise
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None


# -- commands ---------------------------------------------------------------------------------------------------------


@main.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="tensordelta-demo",
    show_default=True,
    help="Where chain, pulled checkpoint and picture go.",
)
@click.option(
    "--steps", metavar="N", type=click.IntRange(min=1), default=10, show_default=True, help="How many steps of RL."
)
def demo(folder: Path, steps: int) -> None:
    """Train a small network, publish each step, prove every bit.

    The network is a language model that RL trains. A receiver that sees nothing but the chain follows it. Takes half a
    minute, and draws a picture where matplotlib is installed.
    """
    from . import demo as demonstration

    with _Working("training") as working:
        result = demonstration.run(folder, steps=steps, report=working.say, on_progress=working.share)
    click.echo()
    _print(result.table())
    click.echo()
    if result.picture is None:
        click.echo("no picture, since matplotlib is not installed: pip install 'tensordelta[demo]'")
    else:
        click.echo(f"picture: {result.picture}")
    click.echo(f"the chain is yours to look at: tensordelta log {shlex.quote(str(result.chain))}")


@main.command()
@click.argument("address", metavar="CHAIN")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--step", metavar="N", type=click.IntRange(min=0), help="The training step; short for --annotation step=N."
)
@click.option("--annotation", "pairs", metavar="KEY=VALUE", multiple=True, help="Say more of it; may be repeated.")
@click.option("--full", is_flag=True, help="Publish the whole state, not a delta.")
@click.option("--plain", is_flag=True, help="Publish the whole state as its safetensors files stand.")
@click.option("--source", metavar="URI", help="With --plain: where these files lie publicly (hf://ORG/MODEL@COMMIT).")
@click.option(
    "--values",
    type=click.Choice(["step", "replace"]),
    default="step",
    show_default=True,
    help="step is smallest; replace may be applied twice.",
)
@click.option(
    "--order",
    type=click.Choice(["natural", "exponent"]),
    default="natural",
    show_default=True,
    help="natural is fastest; exponent is smallest.",
)
@_reads_packs
@_json
def publish(
    address: str,
    checkpoint: Path,
    step: int | None,
    pairs: tuple[str, ...],
    full: bool,
    plain: bool,
    source: str | None,
    values: Values,
    order: Order,
    allow_sources: tuple[str, ...],
    pack_folders: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Publish CHECKPOINT as the next version of CHAIN.

    The first version is whole, and makes the chain; later ones hold what changed since the newest version.
    """
    annotations = _annotations(pairs, step)
    if order == "exponent" and values == "replace":
        raise click.UsageError("--order exponent does not go with --values replace.")
    if plain and (order, values) != ("natural", "step"):
        raise click.UsageError("--order and --values do not go with --plain, which publishes files as they stand.")
    if source is not None:
        if not plain:
            raise click.UsageError("--source goes with --plain.")
        with _usage():
            check_source(source)
    open_checkpoint(checkpoint)  # what cannot be read makes no chain
    with _Working("reading what there is") as working:
        opened = _open(
            address,
            create=True,
            threads=threads,
            allow_sources=allow_sources,
            pack_folders=pack_folders,
            on_event=working.event,
        )
        published = opened.publish(
            checkpoint, annotations=annotations, full=full, plain=plain, source=source, values=values, order=order
        )
    if as_json:
        _print_json(published.facts())
    else:
        _print(_published_table(published))


def _annotations(pairs: Iterable[str], step: int | None) -> dict[str, str]:
    annotations: dict[str, str] = {}
    for pair in (*([f"step={step}"] if step is not None else []), *pairs):
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE.", param_hint="--annotation")
        if key in annotations:
            raise click.BadParameter(f"{key!r} is given twice.", param_hint="--annotation")
        if any("\ud800" <= letter <= "\udfff" for letter in pair):
            raise click.BadParameter(f"{pair!r} is not UTF-8.", param_hint="--annotation")
        annotations[key] = value
    objects.check_annotations(annotations, object="the annotations")
    return annotations


@main.command()
@click.argument("address", metavar="CHAIN")
@_json
def log(address: str, as_json: bool) -> None:
    """List the versions of CHAIN."""
    opened = _open(address)
    history = opened.log()
    if as_json:
        _print_json([row.facts() for row in history])
        return
    size = bytes_text(sum(row.size for row in history))
    title = f"{opened.address}: {_count(len(history), 'version')}, {size}"
    _print(history.table(title), expendable=("created (UTC)", "bits/change", "density"))


@main.command()
@click.argument("address", metavar="CHAIN")
@click.argument("version", type=_version, required=False)
@_json
def show(address: str, version: int | None, as_json: bool) -> None:
    """Show a version's manifest, tensors and packs.

    By default the newest version's.
    """
    opened = _open(address)
    manifest = opened.manifest(version)
    layout = opened.layout(manifest.version)
    if as_json:
        totals = {"tensors": len(layout), "words": layout.words, "bytes": layout.nbytes}
        _print_json(msgspec.to_builtins(manifest) | totals)
        return
    for index, table in enumerate(_manifest_tables(manifest, layout)):
        if index:
            click.echo()
        _print(table, abbreviate=True)


@main.command()
@click.argument("address", metavar="CHAIN")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--to", "version", metavar="VERSION", type=_version, help="The version wanted; by default the newest.")
@_reads_packs
@_json
def pull(
    address: str,
    folder: Path,
    version: int | None,
    allow_sources: tuple[str, ...],
    pack_folders: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Bring DIR to a version of CHAIN; an engine can load DIR.

    A DIR that an earlier pull made is patched in place; a crash leaves the old version or the new one.
    """
    with _Working("reading what there is") as working:
        opened = _open(
            address, threads=threads, allow_sources=allow_sources, pack_folders=pack_folders, on_event=working.event
        )
        pulled = opened.pull(folder, version)
    if as_json:
        facts = {name: getattr(pulled, name) for name in ("version", "route", "size", "seconds")}
        _print_json(facts)
    else:
        _print(_pulled_table(pulled, folder))


@main.command()
@click.argument("address", metavar="CHAIN|DIR")
@click.option("--deep", is_flag=True, help="Rebuild every version over every edge, and prove each.")
@_reads_packs
@_json
@click.pass_context
def verify(
    context: click.Context,
    address: str,
    deep: bool,
    allow_sources: tuple[str, ...],
    pack_folders: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Check every object of CHAIN, or every word of a pulled DIR.

    Exits with 1 where something is at fault.
    """
    if Checkout.is_checkout(address) and not Path(address, objects.CHAIN).exists():
        with _Working("checking every word"):
            with _usage():
                threads = thread_count(threads)
            version, faults = Checkout(address).verify(threads=threads)
        found = Verification([version], faults)
        subject = f"version {version}"
    else:
        with _Working("checking") as working:
            opened = _open(address, threads=threads, allow_sources=allow_sources, pack_folders=pack_folders)
            found = opened.verify(deep=deep, progress=working.count)
        subject = _count(len(found.versions), "version")
    if as_json:
        _print_json(found.facts())
    else:
        faults_text = _count(len(found.faults), "fault") if found.faults else "no fault"
        _print(_fields(f"{address}: {subject}, {faults_text}"))
        for fault in found.faults:
            click.echo()
            _print(_fault_table(fault), style="bold red")
    if not found.ok:
        context.exit(1)


@main.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@_threads
@_json
def diff(old: Path, new: Path, threads: int | None, as_json: bool) -> None:
    """Show what changed between two checkpoints, tensor by tensor."""
    with _Working("comparing"):
        with _usage():
            threads = thread_count(threads)
        difference = compare(old, new, threads=threads)
    if as_json:
        _print_json(_diff_facts(difference))
    else:
        _print(difference.table(), expendable=("shape", "dtype"), free_text=48)


# -- what the commands show -------------------------------------------------------------------------------------------


def _fields(title: str, *rows: tuple[str, str]) -> Table:
    return Table(title, ["<", "<"], rows)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _published_table(published: Published) -> Table:
    made = "the whole state" if published.base is None else f"a delta to version {published.base}"
    return _fields(
        f"published version {published.version}, {made}",
        ("changed", f"{published.changed:,} of {published.words:,} words ({percent_text(published.density)})"),
        ("size", f"{bytes_text(published.size)}; the state has {bytes_text(published.nbytes)}"),
        ("ratio", f"{ratio_text(published.ratio)} smaller"),
        ("bits/change", f"{published.bits_per_change:.2f}" if published.changed else "-"),
        ("packs", f"{published.packs:,}"),
        ("fingerprint", published.fingerprint),
        ("annotations", annotations_text(published.annotations) or "-"),
        ("took", f"{published.seconds or 0:.2f} s"),
    )


def _manifest_tables(manifest: Manifest, layout: Layout) -> Iterator[Table]:
    base = "none: the whole state" if manifest.base is None else f"version {manifest.base.version}"
    yield _fields(
        f"version {manifest.version} of chain {manifest.chain}",
        ("base", base),
        ("created", manifest.created),
        ("fingerprint", manifest.fingerprint),
        ("layout", manifest.layout),
        ("changed", f"{manifest.changed:,} words"),
        ("size", f"{bytes_text(manifest.size)} of packs"),
        ("features", ", ".join(manifest.features) or "-"),
        ("annotations", annotations_text(manifest.annotations) or "-"),
    )
    kinds: dict[str, list[int]] = {}
    for tensor in layout.tensors:
        kind = kinds.setdefault(tensor.dtype, [0, 0, 0])
        for index, amount in enumerate((1, tensor.words, tensor.nbytes)):
            kind[index] += amount
    rows = [[dtype, f"{count:,}", f"{words:,}", bytes_text(size)] for dtype, (count, words, size) in kinds.items()]
    if len(rows) != 1:
        rows.append(["all", f"{len(layout):,}", f"{layout.words:,}", bytes_text(layout.nbytes)])
    yield Table(_count(len(layout), "tensor"), ["<dtype", "tensors", "words", "size"], rows)
    packs = [
        [
            str(index),
            pack.content,
            f"{pack.tensors[0]} to {pack.tensors[1] - 1}",
            f"{pack.changed:,}",
            bytes_text(pack.size),
            pack.path or ", ".join(pack.sources or []),
        ]
        for index, pack in enumerate(manifest.packs)
    ]
    yield Table(_count(len(packs), "pack"), ["pack", "<content", "tensors", "changed", "size", "<object"], packs)
    if manifest.files:
        files = [[file.name, bytes_text(file.size), file.path] for file in manifest.files]
        yield Table(_count(len(files), "file"), ["<file", "size", "<object"], files)


def _pulled_table(pulled: Pulled, folder: Path) -> Table:
    if not pulled.route:
        return _fields(f"{folder} holds version {pulled.version} already")
    return _fields(
        f"pulled version {pulled.version} into {folder}",
        ("route", ", ".join(map(_step_text, pulled.route))),
        ("packs", bytes_text(pulled.size)),
        ("took", f"{pulled.seconds:.2f} s"),
    )


def _step_text(name: str) -> str:
    """A member of a route in few words: its version, and the base of a shortcut."""
    version, shortcut = objects.parse_manifest_name(name), objects.parse_shortcut_name(name)
    if shortcut is not None:
        return f"{shortcut.version} (shortcut from {'nothing' if shortcut.base is None else shortcut.base})"
    return name if version is None else str(version)


def _diff_facts(difference: Diff) -> dict[str, object]:
    def tensor_facts(tensor: TensorDiff) -> dict[str, object]:
        names = ("name", "dtype", "shape", "words", "changed", "density", "status")
        return {name: getattr(tensor, name) for name in names}

    return {
        "changed": difference.changed,
        "words": difference.words,
        "density": difference.density,
        "bytes": difference.nbytes,
        "size": difference.size,
        "ratio": difference.ratio,
        "bits_per_change": difference.bits_per_change,
        "tensors": [tensor_facts(tensor) for tensor in difference.tensors],
    }


def _fault_table(fault: TensorDeltaError) -> Table:
    return _fields(
        f"error: {fault.name}",
        ("object", fault.object),
        ("reason", fault.reason),
        ("rule", f"{fault.rule} of SPEC.md"),
        ("advice", fault.advice),
    )


def _os_error_text(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return printable(reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}")


# -- terminals and pipes ----------------------------------------------------------------------------------------------


def _print_json(facts: Mapping[str, object] | Sequence[object]) -> None:
    click.echo(json.dumps(facts, indent=2))


def _print(
    table: Table,
    *,
    stderr: bool = False,
    style: str = "bold",
    expendable: Iterable[str] = (),
    free_text: int = 24,
    abbreviate: bool = False,
) -> None:
    """Print a table: fitted to a terminal, or complete and plain into a pipe or file.

    Args:
        style: of the title.
        expendable: headings of columns to leave out of a terminal that is too narrow, in that order.
        free_text: characters to leave to a column of text before others are left out; longer text is folded.
        abbreviate: shorten digests where a terminal is too narrow; their first digits tell them apart.
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
    if _width(table) <= console.width:  # as it is, since rich takes seconds for the log of a long chain
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
    """Columns of a terminal that a table needs, if columns of text get so many at most."""
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
    """A table for a terminal that is too narrow for some of its texts."""
    shown = RichTable(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(table.headings), header_style="dim"
    )
    for column, heading in zip(table.columns, table.headings, strict=True):
        left = column.startswith("<")
        shown.add_column(heading, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for row in table.rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    return shown


def _abandon_stdout() -> None:
    """Have Python not complain at exit that what is still buffered cannot be written."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _Working:
    """A sign of life on a terminal's stderr while work lasts, from its second second on.

    Args:
        doing: what is being done.
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        """Say what a chain did last."""
        self._update(description=f"{event.kind} version {event.version}")

    def count(self, done: int, total: int) -> None:
        """Show a share of the work as done."""
        self._update(completed=done, total=total)

    def share(self, message: str, done: float) -> None:
        """Show what was done last, and a share of the work, from 0 to 1."""
        self._update(description=message, completed=done, total=1.0)

    def say(self, text: str) -> None:
        """Print a line of output above the sign of life."""
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
