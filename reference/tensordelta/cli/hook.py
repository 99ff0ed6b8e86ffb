"""The user's command that `pull --follow --exec` runs after each version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic

import click

from ..stores import absolute

#: Seconds between two looks at a command that runs.
_LOOK = 0.05
#: Seconds from SIGTERM to SIGKILL, for a command that has to end.
_GRACE = 5.0


class Hook:
    """Runs a command of the shell, one version after another.

    The command has a process group of its own, so that all that it started can be ended with it, and no input.

    Args:
        command: a line for `/bin/sh -c`, where quoting and variables work as in a script.
        chain: the chain's address, its $TENSORDELTA_CHAIN; a folder as an absolute path.
        folder: the folder that holds the version, its $TENSORDELTA_FOLDER, as well.
        timeout: seconds after which it is ended, and has failed; None for never.
        stop: ends it when set, as a failure.
        quiet: its output goes to stderr, because it must not mix with ours.

    Attributes:
        failure: how the command for the last version failed; None if it did not.
    """

    def __init__(
        self,
        command: str,
        chain: str,
        folder: Path,
        *,
        timeout: float | None,
        stop: threading.Event,
        quiet: bool,
    ) -> None:
        self._command = command
        self._variables = {"TENSORDELTA_CHAIN": absolute(chain), "TENSORDELTA_FOLDER": absolute(folder)}
        self._timeout = timeout
        self._stop = stop
        self._quiet = quiet
        self.failure: str | None = None

    def run(self, version: int) -> None:
        """Run the command for a version until it ends, and report on stderr if it fails."""
        with subprocess.Popen(
            self._command,
            shell=True,
            env=os.environ | self._variables | {"TENSORDELTA_VERSION": str(version)},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if self._quiet else None,
            process_group=0,
        ) as process:
            try:
                outcome = self._outcome(process)
            except BaseException:  # a second signal
                _send(process, signal.SIGKILL)
                raise
        self.failure = None if outcome is None else f"the command for version {version} {outcome}"
        if self.failure is not None:
            click.echo(self.failure, err=True)

    def _outcome(self, process: subprocess.Popen[bytes]) -> str | None:
        """Wait for the command; says how it failed, None if it did not."""
        until = None if self._timeout is None else monotonic() + self._timeout
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_LOOK)
                if code < 0:
                    return f"was ended by signal {-code}"
                return f"ended with exit code {code}" if code else None
            if self._stop.is_set():
                _end(process)
                return "was ended, since following ends"
            if until is not None and monotonic() >= until:
                _end(process)
                return f"was ended after {self._timeout:g} seconds"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started, gently first."""
    _send(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    _send(process, signal.SIGKILL)


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
