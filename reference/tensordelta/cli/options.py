"""Options that several commands have, and how a command opens its chain.

A command takes those of its options that `open_chain` takes as `**opening`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import opening
from ..chain import Chain
from ..errors import TensorDeltaError, UntrustedError
from ..explore.version import Version
from ..format.keys import PublicKey, SecretKey
from ..format.names import CHAIN, MAX_VERSION
from ..stores.models import is_model
from ..threads import thread_count
from ..write.keys import public_key, secret_key
from .kinds import Count, Seconds

Command = TypeVar("Command", bound=Callable[..., Any])
K = TypeVar("K", PublicKey, SecretKey)

_CHAIN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: A version, or a place from the end, behind `@`.
_PLACE = re.compile(r"newest|-?[0-9]{1,12}")


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator for several options, which `--help` lists in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _scheme(context: click.Context, parameter: click.Parameter, schemes: tuple[str, ...]) -> tuple[str, ...]:
    for scheme in schemes:
        if not scheme.isalnum():
            raise click.BadParameter(f"{scheme!r} is no scheme; write hf, for instance")
    return schemes


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the facts as JSON, and nothing else, also where something fails."
)
threads_option = click.option(
    "--threads",
    metavar="N",
    type=Count(min=1),
    help="How many jobs run at once; by default $TENSORDELTA_THREADS, or all cores.",
)
whole_option = click.option("--all", "whole", is_flag=True, help="List all on a terminal too, however many there are.")


def version_or(word: str) -> Callable[[click.Context, click.Parameter, str], int | None]:
    """A callback that parses a version, or a word for None."""

    def convert(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
        if value == word:
            return None
        if not value.isascii() or not value.isdecimal() or int(value) > MAX_VERSION:
            raise click.BadParameter(f"{value!r} is neither a version nor `{word}`.")
        return int(value)

    return convert


def _read_key(read: Callable[[str], K], value: str) -> K:
    try:
        with needed():
            return read(value)
    except UntrustedError:
        raise
    except OSError as error:
        raise click.BadParameter(f"{value}: {error.strerror or error}.") from None
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def _public_keys(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[PublicKey, ...] | None:
    return tuple(_read_key(public_key, value) for value in values) or None


def _secret_key(context: click.Context, parameter: click.Parameter, path: str | None) -> SecretKey | None:
    # A file only: other users can see the arguments of a process.
    return None if path is None else _read_key(lambda value: secret_key(Path(value)), path)


def _chain_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _CHAIN_ID.fullmatch(value.lower()):
        raise click.BadParameter(f"{value!r} is no chain id; `tensordelta show` prints one.")
    return None if value is None else value.lower()


def key_option(*, required: bool) -> Callable[[Command], Command]:
    return click.option(
        "--key",
        metavar="FILE",
        required=required,
        callback=_secret_key,
        help="Sign with the Ed25519 secret key in FILE; `keygen` makes one.",
    )


trusted_keys_options = together(
    click.option(
        "--trusted-key",
        "trusted_keys",
        metavar="FILE|HEX",
        multiple=True,
        callback=_public_keys,
        help="Read only what this Ed25519 public key has signed; may be repeated.",
    ),
    click.option(
        "--threshold",
        metavar="N",
        type=Count(min=1),
        default=1,
        help="How many of the keys of --trusted-key must have signed; 1 by default.",
    ),
)
max_age_option = click.option(
    "--max-age",
    metavar="SECONDS",
    type=Seconds(min=0),
    help="With --trusted-key: refuse a newest version that is older.",
)


chain_id_option = click.option(
    "--chain-id",
    "chain",
    metavar="UUID",
    callback=_chain_id,
    help="Refuse any other chain than the one with this id, which `show` prints.",
)
#: What a command may read of a chain.
pins = together(chain_id_option, trusted_keys_options)
trusts = together(pins, max_age_option)
reads_packs = together(
    threads_option,
    click.option(
        "--allow-source",
        "allow_sources",
        metavar="SCHEME",
        multiple=True,
        callback=_scheme,
        help="Allow packs to be read from public sources of this scheme, such as hf; may be repeated.",
    ),
    click.option(
        "--packs-from",
        "pack_folders",
        multiple=True,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="A folder whose safetensors files are used for packs that have the same bytes; may be repeated.",
    ),
)
#: How changed words are written.
encodes = together(
    click.option(
        "--values",
        type=click.Choice(["step", "replace"]),
        default="step",
        show_default=True,
        help="step is smallest; replace may be applied twice.",
    ),
    click.option(
        "--order",
        type=click.Choice(["natural", "exponent"]),
        default="natural",
        show_default=True,
        help="natural is fastest; exponent is smallest.",
    ),
)
#: How a command signs what it writes, and what it may read of the chain for that.
writes = together(
    key_option(required=False),
    pins,
    reads_packs,
)


def open_chain(address: str, *, threads: int | None = None, **options: Any) -> Chain:
    before, at, version = address.rpartition("@")
    if at and _PLACE.fullmatch(version) and not Path(address).exists():
        raise click.UsageError(
            f"{address} names a version, and this wants a chain: write {before}, and the version by itself, as in "
            f"`show {before} {version}` and `pull {before} DIR --to {version}`."
        )
    with usage(), needed():
        return opening.open(address, threads=thread_count(threads), **options)


def side(text: str, **opening: Any) -> Version | Path | str:
    """What `diff` compares: RUN@VERSION, a chain's address for its newest version, or a checkpoint.

    A path that exists is one, whatever its name.
    """
    if is_model(text):
        return text
    path = Path(text)
    address, at, place = text.rpartition("@")
    if at and _PLACE.fullmatch(place) and not path.exists():
        return open_chain(address, **opening)[-1 if place == "newest" else int(place)]
    if at and (Path(address) / CHAIN).is_file() and not path.exists():
        raise click.UsageError(f"{text}: a version is a number that `log` lists, `newest`, or -1, -2 from the end.")
    if "://" in text or ((path / CHAIN).is_file() and not any(path.glob("*.safetensors"))):
        return open_chain(text, **opening)[-1]
    return path


@contextmanager
def needed() -> Iterator[None]:
    """Report a package that is not installed, and which an address or a signature needs."""
    try:
        yield
    except ImportError as error:
        raise click.ClickException(f"{error}.") from None


@contextmanager
def usage() -> Iterator[None]:
    """Report a `ValueError` as wrong usage; errors of the data, some of which are `ValueError`s too, pass through."""
    try:
        yield
    except TensorDeltaError:
        raise
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
