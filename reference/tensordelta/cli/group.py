"""The group of commands: what they raise becomes messages and exit codes."""

from __future__ import annotations

import os
import sys

import click

from ..errors import TensorDeltaError
from ..read.verify import fault_facts
from ..tables import Table, printable
from .options import JSON
from .terminal import abandon_stdout, fields, print_json, print_table

_INTERRUPTED = 130
_NO_READER = 141


class Commands(click.Group):
    """Turns what commands raise into messages and exit codes; lists commands in the order of their definition."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> None:
        for stream in (sys.stdout, sys.stderr):
            # A name that the terminal's encoding lacks is no reason to fail.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                super().invoke(context)
            except TensorDeltaError as fault:
                if context.meta.get(JSON):
                    print_json(fault_facts(fault))
                print_table(fault_table(fault), stderr=True, style="bold red")
                context.exit(1)
        except BrokenPipeError:
            abandon_stdout()
            context.exit(_NO_READER)
        except OSError as error:
            abandon_stdout()
            click.echo(f"error: {os_error_text(error)}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            # A version that was being published exists if its manifest does: `log` tells.
            click.echo("interrupted; what was published before, `tensordelta log` shows", err=True)
            context.exit(_INTERRUPTED)


def fault_table(fault: TensorDeltaError) -> Table:
    return fields(
        f"error: {fault.name}",
        ("object", fault.object),
        ("reason", fault.reason),
        ("rule", f"{fault.rule} of SPEC.md"),
        ("advice", fault.advice),
    )


def os_error_text(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return printable(reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}")
