"""The command that moves chains between stores: `copy`."""

from __future__ import annotations

import click

from ..format.keys import PublicKey
from ..format.names import MAX_VERSION
from ..keep.copy import copy as copy_chain
from .options import VERSION, json_option, needed, trusted_keys_option, usage
from .terminal import Working, print_json, print_table


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--from", "first", metavar="VERSION", type=VERSION, help="The first version; by default the oldest.")
@click.option("--to", "last", metavar="VERSION", type=VERSION, help="The last version; by default the newest.")
@click.option("--quick", is_flag=True, help="Take what DST has in the right size for right, instead of reading it.")
@trusted_keys_option
@json_option
def copy(
    source: str,
    target: str,
    first: int | None,
    last: int | None,
    quick: bool,
    trusted_keys: tuple[PublicKey, ...] | None,
    as_json: bool,
) -> None:
    """Copy a chain, or a range of its versions, from SRC to DST.

    Every object is proven on its way. DST is empty, or has an earlier copy: what is there is passed over. A range that
    begins with a delta brings what this needs to be read.
    """
    versions = None
    if first is not None or last is not None:
        versions = range(first or 0, (MAX_VERSION if last is None else last) + 1)
        if not versions:
            raise click.UsageError(f"no version is from {first} to {last}.")
    with Working("copying") as working, usage(), needed():
        copied = copy_chain(source, target, versions, quick=quick, trusted_keys=trusted_keys, progress=working.count)
    if as_json:
        print_json(copied.facts())
    else:
        print_table(copied.table())
