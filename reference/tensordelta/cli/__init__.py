"""The command line: `tensordelta`, or `python -m tensordelta`; needs the extra `cli` (click and rich).

Results go to stdout, errors and progress to stderr. Exit codes: 0 done, 1 the data, the store or the machine is at
fault, 2 wrong usage, 130 interrupted, 141 the reader of the output is gone.
"""

from __future__ import annotations

import os
import sys

import click

from .. import __version__
from ..errors import TensorDeltaError, machine_advice
from ..tables import as_facts, as_table, printable
from . import engines, keep, keys, read, write
from .options import JSON
from .terminal import abandon_stdout, print_json, print_table

_INTERRUPTED = 130
_NO_READER = 141


class _Commands(click.Group):
    """Turns what commands raise into messages and exit codes; lists commands in the order of their definition."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> None:
        for stream in (sys.stdout, sys.stderr):
            # A name with letters that the terminal's encoding lacks must not fail a command.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                super().invoke(context)
            except TensorDeltaError as fault:
                if context.meta.get(JSON):
                    print_json(as_facts(fault))
                print_table(as_table(fault), stderr=True, style="bold red")
                context.exit(1)
        except BrokenPipeError:
            abandon_stdout()
            context.exit(_NO_READER)
        except OSError as error:
            abandon_stdout()
            click.echo(f"error: {_text(error)}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            # A version whose publishing was interrupted exists if its manifest does.
            click.echo("interrupted; `tensordelta log` lists what was published before", err=True)
            context.exit(_INTERRUPTED)


def _text(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    message = reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
    advice = machine_advice(error)
    return printable(f"{message}. {advice}" if advice else message)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tensordelta")
def main() -> None:
    """Publish, read and verify chains of model weights that hold only what changed.

    CHAIN is where a chain is: a folder, hf://buckets/OWNER/NAME[/PREFIX], s3://BUCKET/PREFIX, gs://... or az://...
    CHECKPOINT is a safetensors file, or a Hugging Face folder of them.

    Exit codes: 0 done; 1 the data, the store or the machine is at fault; 2 wrong usage.
    """


for _command in (
    *(write.demo, write.publish),
    *(read.log, read.show, read.pull, read.verify, read.diff, read.plan),
    *(engines.vllm_follow, engines.sglang_follow),
    *(write.shortcut, keep.gc, keep.pin, keep.unpin, keep.copy),
    *(keys.keygen, keys.sign),
):
    main.add_command(_command)
