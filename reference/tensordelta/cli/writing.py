"""Commands that write: `demo`, `publish`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import click

from ..format.keys import PublicKey, SecretKey
from ..format.names import check_annotations
from ..read.published import Published, annotations_text
from ..state.checkpoint import open_checkpoint
from ..tables import Table, bytes_text, percent_text, ratio_text
from ..write.encoder import Order, Values
from ..write.plain_packs import check_source
from .options import encodes, json_option, open_chain, usage, writes
from .terminal import Working, fields, print_json, print_table


@click.command()
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
@click.argument("address", metavar="CHAIN")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--step", metavar="N", type=click.IntRange(min=0), help="The training step; short for --annotation step=N."
)
@click.option("--annotation", "pairs", metavar="KEY=VALUE", multiple=True, help="Say more of it; may be repeated.")
@click.option("--full", is_flag=True, help="Publish the whole state, not a delta.")
@click.option("--plain", is_flag=True, help="Publish the whole state as its safetensors files stand.")
@click.option("--source", metavar="URI", help="With --plain: where these files lie publicly (hf://ORG/MODEL@COMMIT).")
@encodes
@writes
@json_option
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
    key: SecretKey | None,
    trusted_keys: tuple[PublicKey, ...] | None,
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
    if trusted_keys is not None and key is None:
        raise click.UsageError("--trusted-key goes with --key: what is not signed is nothing to those who trust keys.")
    if source is not None:
        if not plain:
            raise click.UsageError("--source goes with --plain.")
        with usage():
            check_source(source)
    open_checkpoint(checkpoint)  # what cannot be read makes no chain
    with Working("reading what there is") as working:
        opened = open_chain(
            address,
            create=True,
            threads=threads,
            allow_sources=allow_sources,
            pack_folders=pack_folders,
            on_event=working.event,
            key=key,
            trusted_keys=trusted_keys,
        )
        published = opened.publish(
            checkpoint, annotations=annotations, full=full, plain=plain, source=source, values=values, order=order
        )
    if as_json:
        print_json(published.facts())
    else:
        print_table(_published_table(published))


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


def _published_table(published: Published) -> Table:
    made = "the whole state" if published.base is None else f"a delta to version {published.base}"
    return fields(
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
