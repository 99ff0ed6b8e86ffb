"""Commands that keep, delete and copy: `gc`, `pin`, `unpin`, `copy`."""

from __future__ import annotations

from typing import Any

import click

from ..format.keys import PublicKey
from ..format.names import MAX_VERSION
from ..keep.copy import copy as copy_chain
from ..results import fields_table
from ..stores import absolute
from .kinds import ADDRESS, VERSION, Count, Seconds
from .options import chain_id_option, json_option, needed, open_chain, pins, usage
from .terminal import Working, print_result


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.option("--keep-last", metavar="N", type=Count(min=1), required=True, help="Keep the newest N versions.")
@click.option("--keep-every", metavar="K", type=Count(min=1), help="Also keep versions that K divides.")
@click.option("--keep", metavar="VERSION", type=VERSION, multiple=True, help="Also keep this version; may be repeated.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=Seconds(min=0),
    help="How long what was dropped can still be read; by default, and at least, what the chain says (a day). "
    "0: nothing reads or writes the chain now.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@pins
@json_option
def gc(
    address: str,
    keep_last: int,
    keep_every: int | None,
    keep: tuple[int, ...],
    grace: float | None,
    dry_run: bool,
    as_json: bool,
    **opening: Any,
) -> None:
    """Drop versions of CHAIN, and what only they need.

    Every version that is kept can be rebuilt, at any moment. Pinned versions are kept, and those over which others are
    rebuilt, unless there is a full shortcut to the oldest wanted version. The packs of a dropped version go with a
    later call, when the grace period has passed.
    """
    with Working("looking for what may be deleted"):
        opened = open_chain(address, **opening)
        with usage():
            done = opened.collect(keep_last, keep_every=keep_every, keep=keep, grace=grace, dry_run=dry_run)
    print_result(as_json, done.facts(), done.table())


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.argument("version", type=VERSION)
@click.argument("name", metavar="NAME")
@click.option("--expires", metavar="SECONDS", type=Count(min=0), help="Seconds until it expires; by default never.")
@chain_id_option
@json_option
def pin(address: str, version: int, name: str, expires: int | None, chain: str | None, as_json: bool) -> None:
    """Keep a version of CHAIN from `gc`; NAME says what for.

    With the NAME of an existing pin it renews or moves that pin.
    """
    opened = open_chain(address, chain=chain)
    with usage():
        pinned = opened.pin(version, name, expires)
    until = "until it is removed" if expires is None else f"for {expires:,} s"
    facts = {"name": name, "version": version, "seconds": expires}
    print_result(as_json, facts, fields_table(f"pinned version {pinned.version} as {name} {until}"))


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.argument("name", metavar="NAME")
@chain_id_option
@json_option
def unpin(address: str, name: str, chain: str | None, as_json: bool) -> None:
    """Remove a pin; `gc --dry-run` lists the pins."""
    opened = open_chain(address, chain=chain)
    with usage():
        opened.unpin(name)
    print_result(as_json, {"name": name}, fields_table(f"removed the pin {name}"))


@click.command()
@click.argument("source", metavar="SRC", type=ADDRESS)
@click.argument("target", metavar="DST", type=ADDRESS)
@click.option("--from", "first", metavar="VERSION", type=VERSION, help="The first version; by default the oldest.")
@click.option("--to", "last", metavar="VERSION", type=VERSION, help="The last version; by default the newest.")
@click.option("--quick", is_flag=True, help="Do not read what DST has already in the right size.")
@pins
@json_option
def copy(
    source: str,
    target: str,
    first: int | None,
    last: int | None,
    quick: bool,
    chain: str | None,
    trusted_keys: tuple[PublicKey, ...] | None,
    threshold: int,
    as_json: bool,
) -> None:
    """Copy a chain, or a range of its versions, from SRC to DST.

    Every object is checked on the way. DST is empty or has an earlier copy, whose objects are skipped, so that an
    interrupted copy can be resumed. A range that begins with a delta includes what this needs to be read.
    """
    if absolute(source) == absolute(target):
        raise click.UsageError("SRC and DST are the same place.")
    versions = None
    if first is not None or last is not None:
        versions = range(first or 0, (MAX_VERSION if last is None else last) + 1)
        if not versions:
            raise click.UsageError(f"no version is from {first} to {last}.")
    with Working("copying"), usage(), needed():
        copied = copy_chain(
            source,
            target,
            versions,
            quick=quick,
            chain=chain,
            trusted_keys=trusted_keys,
            threshold=threshold,
        )
    print_result(as_json, copied.facts(), copied.table())
