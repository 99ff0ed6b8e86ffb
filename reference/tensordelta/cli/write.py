"""Commands that write: `demo`, `publish`, `shortcut`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from ..format.documents import MAX_GRACE, MIN_GRACE
from ..format.names import CHAIN, check_annotations, shortcut_name
from ..read.history import Published
from ..results import annotations_text, fields_table
from ..state.checkpoint import open_checkpoint
from ..state.folder import names_lines
from ..tables import Table, bytes_text, percent_text, ratio_text
from ..write.encoder import Order, Values
from ..write.plain_packs import check_source
from .bridges import poll_options, watch
from .kinds import ADDRESS, SIDE, VERSION, Count, Seconds
from .options import encodes, json_option, needed, open_chain, usage, version_or, writes
from .terminal import Working, print_result, print_table


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="tensordelta-demo",
    show_default=True,
    help="The folder for chain, pulled checkpoint and picture.",
)
@click.option("--steps", metavar="N", type=Count(min=1), default=10, show_default=True, help="How many steps of RL.")
def demo(folder: Path, steps: int) -> None:
    """Train a small network, publish each step, prove every bit.

    RL trains the network to add modulo 97. A receiver that sees nothing but the chain follows it. Takes up to
    half a minute, and draws a picture if matplotlib is installed.
    """
    with needed():
        from .. import demo as demonstration

    with Working("training") as working:
        result = demonstration.run(folder, steps=steps, report=working.say, on_progress=working.share)
    click.echo()
    print_table(result.table())
    click.echo()
    if result.picture is None:
        click.echo("no picture, since matplotlib is not installed: pip install 'tensordelta[demo]'")
    else:
        click.echo(f"picture: {result.picture}")
    click.echo(f"the chain is yours to look at: tensordelta log {shlex.quote(str(result.chain))}")


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.argument("checkpoint", type=SIDE, required=False)
@click.option(
    "--watch",
    "watched",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Instead of CHECKPOINT: publish each checkpoint that appears in DIR, in a folder whose name ends in a number.",
)
@click.option("--marker", metavar="NAME", help="With --watch: a checkpoint is whole when its folder has this file.")
@click.option(
    "--settle",
    metavar="SECONDS",
    type=Seconds(min=0),
    help="With --watch, without --marker: it is whole when nothing has changed for so long; by default 10 seconds.",
)
@poll_options
@click.option("--step", metavar="N", type=Count(min=0), help="The training step; short for --annotation step=N.")
@click.option(
    "--annotation", "pairs", metavar="KEY=VALUE", multiple=True, help="Say more of the version; may be repeated."
)
@click.option("--full", is_flag=True, help="Publish the whole state, not a delta.")
@click.option("--plain", is_flag=True, help="Publish the whole state as copies of its safetensors files.")
@click.option(
    "--allow-layout-change", "layout_change", is_flag=True, help="Allow other tensors than those of the version before."
)
@click.option(
    "--grace",
    metavar="SECONDS",
    type=Count(MIN_GRACE, MAX_GRACE),
    help="Of a new chain: how long what `gc` drops can still be read; by default a day.",
)
@click.option("--source", metavar="URI", help="With --plain: where these files are public (hf://ORG/MODEL@COMMIT).")
@encodes
@writes
@json_option
def publish(
    address: str,
    checkpoint: str | None,
    watched: Path | None,
    marker: str | None,
    settle: float | None,
    poll: float,
    timeout: float | None,
    step: int | None,
    pairs: tuple[str, ...],
    full: bool,
    plain: bool,
    layout_change: bool,
    source: str | None,
    values: Values,
    order: Order,
    as_json: bool,
    **opening: Any,
) -> None:
    """Publish CHECKPOINT as the next version of CHAIN.

    The first version is whole, and makes the chain; later versions hold what changed since the one before. What is
    not taken of a folder is printed. A version with other tensors than the one before needs --allow-layout-change.

    With --watch it goes on, and publishes what appears in DIR (checkpoint-5, step_5, weight_v000005 ...), in the order
    of the numbers, annotated with `step`. Repeated, it goes on after the last one. A signal ends it between two.
    """
    annotations = _annotations(pairs, step)
    if order == "exponent" and values == "replace":
        raise click.UsageError("--order exponent does not go with --values replace.")
    if plain and (order, values) != ("natural", "step"):
        raise click.UsageError("--order and --values do not go with --plain, which publishes copies of the files.")
    if opening["trusted_keys"] is not None and opening["key"] is None:
        raise click.UsageError("--trusted-key goes with --key: readers with trusted keys ignore unsigned versions.")
    if (checkpoint is None) is (watched is None):
        raise click.UsageError("Name a CHECKPOINT, or a folder by --watch.")
    if watched is None and (marker, settle, timeout) != (None, None, None):
        raise click.UsageError("--marker, --settle and --timeout go with --watch.")
    if watched is not None:
        if plain or source is not None or annotations:
            raise click.UsageError("--plain, --source, --step and --annotation go with CHECKPOINT.")
        if marker is not None and settle is not None:
            raise click.UsageError("--settle goes without --marker.")
        publishing = {"full": full, "layout_change": layout_change, "values": values, "order": order}
        waits: dict[str, Any] = {"marker": marker, "settle": settle, "poll": poll, "timeout": timeout}
        watch(address, watched, as_json=as_json, publishing=publishing, **waits, **opening)
        return
    assert checkpoint is not None
    if source is not None:
        if not plain:
            raise click.UsageError("--source goes with --plain.")
        with usage():
            check_source(source)
    if Path(checkpoint, CHAIN).is_file() and Path(address).exists() and not (Path(address) / CHAIN).exists():
        raise click.UsageError(f"the chain comes first: write `publish {checkpoint} {address}`.")
    with Working("reading what there is"):
        with usage():
            open_checkpoint(checkpoint)  # no chain is made for a checkpoint that cannot be read
        opened = open_chain(address, create=True, **opening)
        published = opened.publish(
            checkpoint,
            annotations=annotations,
            full=full,
            layout_change=layout_change,
            plain=plain,
            source=source,
            values=values,
            order=order,
        )
    print_result(as_json, published.facts(), _published_table(published))


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.argument("base", metavar="FROM|full", callback=version_or("full"))
@click.argument("version", metavar="TO", type=VERSION)
@encodes
@click.option("--tag", default="", metavar="TAG", help="Tells encodings of one edge apart: up to 16 of a-z and 0-9.")
@writes
@json_option
def shortcut(
    address: str, base: int | None, version: int, values: Values, order: Order, tag: str, as_json: bool, **opening: Any
) -> None:
    """Make another way to a version of CHAIN.

    It leads from version FROM, or from nothing (full), to version TO. Both states are rebuilt on disk, in the cache
    folder. A shortcut that exists already is left as it is.
    """
    with Working("reading what there is"):
        opened = open_chain(address, **opening)
        with usage():
            made = opened.shortcut(base, version, order=order, values=values, tag=tag)
    name = shortcut_name(version, base, tag or None)
    table = fields_table(
        f"shortcut from {'nothing' if base is None else base} to version {version}",
        ("object", name),
        ("changed", f"{made.changed:,} of {made.words:,} words"),
        ("size", bytes_text(made.size) if made.size else "none: it was there already"),
        ("took", _took(made)),
    )
    print_result(as_json, {"object": name} | made.facts(), table)


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
    check_annotations(annotations, object="the annotations")
    return annotations


def _took(published: Published) -> str:
    spent = "" if published.timings is None else f" ({published.timings})"
    return f"{published.seconds or 0:.2f} s{spent}"


def _published_table(published: Published) -> Table:
    made = "the whole state" if published.base is None else f"a delta to version {published.base}"
    return fields_table(
        f"published version {published.version}, {made}",
        ("changed", f"{published.changed:,} of {published.words:,} words ({percent_text(published.density)})"),
        ("size", f"{bytes_text(published.size)}; the state has {bytes_text(published.nbytes)}"),
        ("ratio", f"{ratio_text(published.ratio)} smaller"),
        ("bits/change", f"{published.bits_per_change:.2f}" if published.changed else "-"),
        ("packs", f"{published.packs:,}"),
        ("fingerprint", published.fingerprint),
        ("annotations", annotations_text(published.annotations) or "-"),
        *([] if published.layout_change is None else [("layout", str(published.layout_change))]),
        *([("not taken", line) for line in names_lines(published.left_out)]),
        ("took", _took(published)),
    )
