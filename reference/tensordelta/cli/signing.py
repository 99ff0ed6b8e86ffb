"""Commands about keys: `keygen`, `sign`."""

from __future__ import annotations

from pathlib import Path

import click

from ..format.keys import PublicKey, SecretKey
from ..write.keys import write_key_pair
from .options import VERSION, json_option, key_option, needed, open_chain, threads_option, trusted_keys_option
from .terminal import Working, count, fields, print_json, print_table


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def keygen(file: Path, as_json: bool) -> None:
    """Make a key to sign with.

    FILE gets the secret key, which only its owner can read; FILE.pub the public one, which readers are given. Both are
    PEM, and what is there is never overwritten.
    """
    with needed():
        public, beside = write_key_pair(file)
    if as_json:
        print_json({"secret": str(file), "public": str(beside), "keyid": public.id, "key": public.raw.hex()})
        return
    print_table(
        fields(
            "made an Ed25519 key",
            ("secret", str(file)),
            ("public", str(beside)),
            ("as hex", public.raw.hex()),
            ("key id", public.id),
        )
    )


@click.command()
@click.argument("address", metavar="CHAIN")
@key_option(required=True)
@click.option(
    "--version",
    "versions",
    metavar="VERSION",
    type=VERSION,
    multiple=True,
    help="Only this version, and shortcuts to it; may be repeated.",
)
@trusted_keys_option
@threads_option
@json_option
def sign(
    address: str,
    key: SecretKey,
    versions: tuple[int, ...],
    trusted_keys: tuple[PublicKey, ...] | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Sign what is there already: CHAIN, its versions, and the shortcuts to them.

    You vouch for it: see to it that `verify --deep` finds no fault. With --trusted-key only what such a key has signed
    is signed again, which is how one key gives way to another.
    """
    with Working("reading what there is"):
        opened = open_chain(address, threads=threads, trusted_keys=trusted_keys)
        with needed():
            signed = opened.sign(key, versions or None)
    if as_json:
        print_json({"keyid": key.public.id, "signed": signed})
        return
    title = f"signed {count(len(signed), 'object')}" if signed else "nothing to do: all of it is signed by this key"
    print_table(fields(title, ("key id", key.public.id)))
