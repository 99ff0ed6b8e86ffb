"""The command line: `tensordelta`, or `python -m tensordelta`.

What a command finds goes to stdout, errors and progress to stderr. Exit codes: 0 done, 1 the data or the machine is at
fault, 2 wrong usage, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import click

from .. import __version__
from .copying import copy
from .group import Commands
from .reading import diff, log, pull, show, verify
from .retention import gc, pin, plan, shortcut, unpin
from .signing import keygen, sign
from .writing import demo, publish


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tensordelta")
def main() -> None:
    """Publish, read and verify chains of model weights that hold only what changed.

    CHAIN is where a chain lies: a folder, hf://buckets/OWNER/NAME[/PREFIX], s3://BUCKET/PREFIX, gs://... or az://...
    CHECKPOINT is a safetensors file, or a Hugging Face folder of them.

    Exit codes: 0 done; 1 the data or the machine is at fault; 2 wrong usage.
    """


for _command in (demo, publish, log, show, pull, verify, diff, plan, shortcut, gc, pin, unpin, copy, keygen, sign):
    main.add_command(_command)
