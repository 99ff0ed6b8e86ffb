"""`pull --follow`: keeps a folder at the newest version, until it is told to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from ..chain import Chain
from ..checkout.checkout import Pulled
from ..tables import bytes_text
from .terminal import Working

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def keep_pulling(
    chain: Chain,
    folder: Path,
    working: Working,
    *,
    until: int | None,
    poll: float,
    timeout: float | None,
    command: str | None,
    as_json: bool,
) -> None:
    with _ended_by_signals() as stop:
        for pulled in chain.follow_folder(folder, poll=poll, timeout=timeout, until=until, stop=stop):
            working.say(json.dumps(_facts(pulled)) if as_json else _line(pulled))
            if command is not None:
                _run(command, pulled.version, folder, quiet=as_json)


@contextmanager
def _ended_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal does what it always does."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(number: int, frame: FrameType | None) -> None:
        restore()
        stop.set()

    try:
        for number in _SIGNALS:
            signal.signal(number, end)
        yield stop
    finally:
        restore()


def _facts(pulled: Pulled) -> dict[str, object]:
    return {name: getattr(pulled, name) for name in ("version", "route", "size", "seconds")}


def _line(pulled: Pulled) -> str:
    if not pulled.route:
        return f"version {pulled.version}: held already"
    return f"version {pulled.version}: {bytes_text(pulled.size)} in {pulled.seconds:.2f} s"


def _run(command: str, version: int, folder: Path, *, quiet: bool) -> None:
    """Run what the user wants done after each version; if it fails, the next version comes all the same."""
    variables = os.environ | {"TENSORDELTA_VERSION": str(version), "TENSORDELTA_FOLDER": str(folder)}
    # What a user's command says is none of the facts.
    out = sys.stderr.fileno() if quiet else None
    code = subprocess.run(command, shell=True, env=variables, stdout=out, check=False).returncode
    if code:
        click.echo(f"the command for version {version} ended with exit code {code}", err=True)
