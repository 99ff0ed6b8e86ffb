"""Commands about routes and what stays: `plan`, `shortcut`, `gc`, `pin`, `unpin`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from ..format.keys import PublicKey, SecretKey
from ..format.names import MAX_VERSION, shortcut_name
from ..keep.policy import GRACE
from ..tables import bytes_text
from ..write.encoder import Order, Values
from .options import VERSION, encodes, json_option, open_chain, trusted_keys_option, usage, writes
from .terminal import Working, fields, print_json, print_table


def _start(word: str) -> Callable[[click.Context, click.Parameter, str], int | None]:
    """Takes a version, or a word for none."""

    def convert(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
        if value == word:
            return None
        if not value.isascii() or not value.isdecimal() or int(value) > MAX_VERSION:
            raise click.BadParameter(f"{value!r} is neither a version nor `{word}`.")
        return int(value)

    return convert


@click.command()
@click.argument("address", metavar="CHAIN")
@click.option(
    "--from",
    "base",
    metavar="VERSION|nothing",
    callback=_start("nothing"),
    default="nothing",
    show_default=True,
    help="What the reader holds.",
)
@click.option("--to", "version", metavar="VERSION", type=VERSION, help="The version wanted; by default the newest.")
@trusted_keys_option
@json_option
def plan(
    address: str,
    base: int | None,
    version: int | None,
    trusted_keys: tuple[PublicKey, ...] | None,
    as_json: bool,
) -> None:
    """Show the route that a reader would take, and what it costs.

    Reads manifests and shortcuts only.
    """
    planned = open_chain(address, trusted_keys=trusted_keys).plan(version, base)
    if as_json:
        print_json(planned.facts())
    else:
        print_table(planned.table(), expendable=("packs", "changed"), free_text=55)


@click.command()
@click.argument("address", metavar="CHAIN")
@click.argument("base", metavar="FROM|full", callback=_start("full"))
@click.argument("version", metavar="TO", type=VERSION)
@encodes
@click.option("--tag", default="", metavar="TAG", help="Tells encodings of one edge apart: up to 16 of a-z and 0-9.")
@writes
@json_option
def shortcut(
    address: str,
    base: int | None,
    version: int,
    values: Values,
    order: Order,
    tag: str,
    key: SecretKey | None,
    trusted_keys: tuple[PublicKey, ...] | None,
    allow_sources: tuple[str, ...],
    pack_folders: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Make another way to a version of CHAIN.

    It leads from version FROM, or from nothing (full), to version TO. Both states are rebuilt on disk, beside the
    cache. Nothing happens where the shortcut is there already.
    """
    with Working("reading what there is") as working:
        opened = open_chain(
            address,
            threads=threads,
            allow_sources=allow_sources,
            pack_folders=pack_folders,
            on_event=working.event,
            key=key,
            trusted_keys=trusted_keys,
        )
        with usage():
            made = opened.shortcut(base, version, order=order, values=values, tag=tag)
    if as_json:
        print_json({"object": shortcut_name(version, base, tag or None)} | made.facts())
        return
    print_table(
        fields(
            f"shortcut from {'nothing' if base is None else base} to version {version}",
            ("object", shortcut_name(version, base, tag or None)),
            ("changed", f"{made.changed:,} of {made.words:,} words"),
            ("size", bytes_text(made.size) if made.size else "none: it was there already"),
            ("took", f"{made.seconds or 0:.2f} s"),
        )
    )


@click.command()
@click.argument("address", metavar="CHAIN")
@click.option("--keep-last", metavar="N", type=click.IntRange(min=1), required=True, help="Keep the newest N versions.")
@click.option("--keep-every", metavar="K", type=click.IntRange(min=1), help="And versions that K divides.")
@click.option("--keep", metavar="VERSION", type=VERSION, multiple=True, help="And this one; may be repeated.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=GRACE,
    show_default="86400, a day",
    help="Keep everything younger than this, which has to be longer than publishing a version takes.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@trusted_keys_option
@json_option
def gc(
    address: str,
    keep_last: int,
    keep_every: int | None,
    keep: tuple[int, ...],
    grace: float,
    dry_run: bool,
    trusted_keys: tuple[PublicKey, ...] | None,
    as_json: bool,
) -> None:
    """Delete what is no longer wanted of CHAIN.

    Every version that stays can be rebuilt, at any moment. Pinned versions stay, and those over which others are
    rebuilt: a full shortcut to the oldest version wanted lets these go.
    """
    with Working("looking for what may go"):
        opened = open_chain(address, trusted_keys=trusted_keys)
        with usage():
            done = opened.collect(keep_last, keep_every=keep_every, keep=keep, grace=grace, dry_run=dry_run)
    if as_json:
        print_json(done.facts())
    else:
        print_table(done.table())


@click.command()
@click.argument("address", metavar="CHAIN")
@click.argument("version", type=VERSION)
@click.argument("name", metavar="NAME")
@click.option(
    "--expires", metavar="SECONDS", type=click.IntRange(min=0), help="How long it holds; by default until `unpin`."
)
@json_option
def pin(address: str, version: int, name: str, expires: int | None, as_json: bool) -> None:
    """Keep a version of CHAIN from `gc`; NAME says what for.

    Again with the same NAME renews the pin, or moves it.
    """
    opened = open_chain(address)
    with usage():
        pinned = opened.pin(version, name, expires)
    if as_json:
        print_json({"name": name, "version": version, "seconds": expires})
    else:
        until = "until it is removed" if expires is None else f"for {expires:,} s"
        print_table(fields(f"pinned version {pinned.version} as {name} {until}"))


@click.command()
@click.argument("address", metavar="CHAIN")
@click.argument("name", metavar="NAME")
def unpin(address: str, name: str) -> None:
    """Remove a pin; `gc --dry-run` shows which there are."""
    opened = open_chain(address)
    with usage():
        opened.unpin(name)
    print_table(fields(f"removed the pin {name}"))
