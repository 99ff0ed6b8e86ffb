"""Commands that keep inference servers at the newest version: `vllm-follow`, `sglang-follow`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..tables import as_facts
from .kinds import ADDRESS, VERSION, Seconds
from .options import json_option, needed, open_chain, trusts, usage
from .signals import stopped_by_signals
from .terminal import Working

if TYPE_CHECKING:
    from ..engines import Served, Server

Command = TypeVar("Command", bound=Callable[..., Any])

#: Where the server's API key is looked for: other users can see the arguments of a process.
_KEY = "TENSORDELTA_SERVER_KEY"


def _object(context: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    if not isinstance(found, dict):
        raise click.BadParameter(f"{text!r} is no JSON object.")
    return found


def _drives(command: Command) -> Command:
    """The argument and the options of a command that drives a server."""
    for option in reversed(
        (
            click.argument("address", metavar="CHAIN", type=ADDRESS),
            click.option("--server", "url", metavar="URL", required=True, help="The server, such as http://host:8000."),
            click.option(
                "--engine-chain",
                metavar="ADDRESS",
                help="The chain's address as the server's processes open it; by default CHAIN.",
            ),
            click.option(
                "--engine-options",
                metavar="JSON",
                callback=_object,
                help="More of how they follow it, as an object: what the plug-in takes beside the chain's address.",
            ),
            click.option("--to", "until", metavar="VERSION", type=VERSION, help="End when VERSION is served."),
            click.option(
                "--poll",
                metavar="SECONDS",
                type=Seconds(min=0, min_open=True),
                default=1.0,
                show_default=True,
                help="Approximate time between two looks; up to four times that while nothing is published.",
            ),
            click.option(
                "--timeout",
                metavar="SECONDS",
                type=Seconds(min=0),
                help="End with exit code 1 after so long without a new version.",
            ),
            click.option(
                "--patience",
                metavar="SECONDS",
                type=Seconds(min=0),
                default=60.0,
                show_default=True,
                help="How long another driver's pause is respected; then the server is taken over.",
            ),
            trusts,
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command("vllm-follow")
@_drives
def vllm_follow(**options: Any) -> None:
    """Keep a vLLM server at the newest version of CHAIN.

    The server is started with VLLM_SERVER_DEV_MODE=1 and --weight-transfer-config '{"backend":"tensordelta"}', and
    reads CHAIN itself. Each update pauses it, and requests in flight go on with the new weights.

    It prints a line for each version, or a line of JSON; SIGINT and SIGTERM end it between two updates. A server that
    does not answer is waited for; one that refuses a version four times ends it with exit code 1, and serves on. Its
    API key, if it needs one, comes from $TENSORDELTA_SERVER_KEY.
    """
    from ..engines import VllmServer

    _follow(VllmServer, **options)


@click.command("sglang-follow")
@_drives
def sglang_follow(**options: Any) -> None:
    """Keep an SGLang server at the newest version of CHAIN.

    The server is started with --custom-weight-loader tensordelta.sglang.apply, and reads CHAIN itself. Each update
    pauses it, and requests in flight go on with the new weights. Needs torch.

    Otherwise as `vllm-follow`. $TENSORDELTA_SERVER_KEY is the admin key where the server has one.
    """
    from ..engines import SglangServer

    _follow(SglangServer, **options)


def _follow(
    kind: Callable[..., Server],
    address: str,
    url: str,
    engine_chain: str | None,
    engine_options: dict[str, Any],
    until: int | None,
    poll: float,
    timeout: float | None,
    patience: float,
    as_json: bool,
    **opening: Any,
) -> None:
    from ..engines import follow_server

    with Working("looking for versions") as working:
        opened = open_chain(address, **opening)
        with usage(), needed():
            server = kind(
                url,
                engine_chain or opened.address,
                key=os.environ.get(_KEY),
                patience=patience,
                options=engine_options,
            )
        with stopped_by_signals() as stop:
            for served in follow_server(opened, server, poll=poll, timeout=timeout, until=until, stop=stop):
                working.say(json.dumps(as_facts(served)) if as_json else _line(served))


def _line(served: Served) -> str:
    if served.pause is None:
        return f"version {served.version}: served already"
    return f"version {served.version}: served after a pause of {served.pause:.3f} s"
