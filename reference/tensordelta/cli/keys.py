"""Commands about keys: `keygen`, `sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..format.keys import SecretKey
from ..results import fields_table
from ..write.keys import write_key_pair
from .kinds import ADDRESS, VERSION
from .options import json_option, key_option, needed, open_chain, pins, threads_option
from .terminal import Working, count, print_result


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def keygen(file: Path, as_json: bool) -> None:
    """Make a key to sign with.

    FILE gets the secret key, which only its owner can read, and FILE.pub the public key, for readers. Both are PEM;
    existing files are never overwritten.
    """
    with needed():
        public, public_file = write_key_pair(file)
    facts = {"secret": str(file), "public": str(public_file), "keyid": public.id, "key": public.raw.hex()}
    table = fields_table(
        "made an Ed25519 key",
        ("secret", str(file)),
        ("public", str(public_file)),
        ("as hex", public.raw.hex()),
        ("key id", public.id),
    )
    print_result(as_json, facts, table)


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@key_option(required=True)
@click.option(
    "--version",
    "versions",
    metavar="VERSION",
    type=VERSION,
    multiple=True,
    help="Only this version, and shortcuts to it; may be repeated.",
)
@pins
@threads_option
@json_option
def sign(address: str, key: SecretKey, versions: tuple[int, ...], as_json: bool, **opening: Any) -> None:
    """Sign an existing CHAIN.

    Its versions and the shortcuts to them are signed as well. Readers will trust what you sign: check it first with
    `verify --deep`. With --trusted-key only objects that such a key has signed are signed, which is how to replace
    a key.
    """
    with Working("reading what there is"):
        opened = open_chain(address, **opening)
        with needed():
            signed = opened.sign(key, versions or None)
    title = f"signed {count(len(signed), 'object')}" if signed else "nothing to do: all of it is signed by this key"
    print_result(as_json, {"keyid": key.public.id, "signed": signed}, fields_table(title, ("key id", key.public.id)))
