"""The command line: `tensordelta`, or `python -m tensordelta`; needs the extra `cli` (click and rich).

Results go to stdout, errors and progress to stderr. With `--json`, stdout has one JSON object whatever fails, with
`ok: false` and the faults. Exit codes: 0 done, 1 the data, the store or the machine is at
fault, 2 wrong usage, 130 interrupted, 141 the reader of the output is gone.
"""

from __future__ import annotations

import itertools
import sys
from contextlib import suppress
from typing import Any

import click

from .. import __version__
from ..errors import TensorDeltaError
from ..results import machine_text
from ..tables import as_facts
from . import bridges, engines, keep, keys, look, read, shell, write
from .examples import EXAMPLES
from .terminal import JSON, abandon_stdout, print_error, print_failure

_INTERRUPTED = 130
#: What a command leaves that is interrupted.
_AFTER = {
    "publish": "the chain has this version if `log` lists it; else publish again",
    "shortcut": "call it again to make the shortcut",
    "pull": "the folder has the old version or the new one; pull again to go on",
    "gc": "the chain is whole; call it again to go on",
    "copy": "call it again to go on",
    "sign": "call it again to sign the rest",
}
_NO_READER = 141


class _Commands(click.Group):
    """Turns what commands raise into messages and exit codes; lists commands in the order of their definition."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def _run(self, context: click.Context) -> None:
        try:
            super().invoke(context)
        except click.NoSuchOption as error:
            place = error.option_name
            if place.removeprefix("-").isdecimal():
                reason = f"{place} is no version: CHAIN@{place} counts from the newest one, in `diff` and `ls`."
                raise click.UsageError(reason, error.ctx) from None
            raise

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in their groups."""
        width = formatter.width - 6 - max(map(len, self.commands))
        for heading, commands in _GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(each.name or "", each.get_short_help_str(width)) for each in commands])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        # Asked of the words: what is wrong with an option is found before another one is parsed.
        as_json = "--json" in itertools.takewhile(lambda word: word != "--", args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            _print_failure(error, as_json=as_json)
            raise
        context.meta[JSON] = as_json
        return context

    def invoke(self, context: click.Context) -> None:
        """Invoke a command; with `--json`, standard output has one object with `ok: false` whatever fails."""
        as_json = context.meta[JSON]
        for stream in (sys.stdout, sys.stderr):
            # A name with letters that the terminal's encoding lacks must not fail a command.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                self._run(context)
            except (BrokenPipeError, click.exceptions.Exit, click.Abort):
                raise
            except BaseException as error:
                _print_failure(error, as_json=as_json)
                raise
        except TensorDeltaError as fault:
            with suppress(OSError):  # nobody can read it
                print_error(fault.sentence)
            context.exit(1)
        except BrokenPipeError:
            abandon_stdout()
            context.exit(_NO_READER)
        except OSError as error:
            abandon_stdout()
            with suppress(OSError):
                print_error(machine_text(error))
            context.exit(1)
        except KeyboardInterrupt:
            with suppress(OSError):
                click.echo(
                    f"interrupted; {_AFTER.get(context.invoked_subcommand or '', 'nothing was changed')}", err=True
                )
            context.exit(_INTERRUPTED)


def _print_failure(error: BaseException, *, as_json: bool) -> None:
    if not as_json:
        return
    if isinstance(error, OSError | TensorDeltaError):
        fault = as_facts(error)
    else:
        kinds = {click.UsageError: "usage", click.ClickException: "machine", KeyboardInterrupt: "interrupted"}
        kind = next((name for each, name in kinds.items() if isinstance(error, each)), "internal")
        text = error.format_message() if isinstance(error, click.ClickException) else str(error) or repr(error)
        fault = {"error": kind, "object": None, "rule": None, "message": text}
    print_failure(fault)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`tensordelta COMMAND --help` has examples of each.",
)
@click.version_option(__version__, prog_name="tensordelta")
def main() -> None:
    """Publish, read and verify chains of model weights that hold only what changed.

    \b
    CHAIN is where a chain is:
      a folder; hf://buckets/OWNER/NAME[/PREFIX]; s3://BUCKET/PREFIX, gs://... or
      az://...; or, to read only, https://HOST/PATH
    CHAIN@VERSION is one of its versions:
      RUN@2; RUN@newest; RUN@-2, the one before the newest
    CHECKPOINT is a safetensors file, or a Hugging Face folder:
      a folder of this machine, also one in the cache of the Hub's client; or
      hf://ORG/MODEL[@REVISION], of which only what is needed is fetched

    Results go to standard output, progress and errors to standard error. With --json a command prints one object.

    \b
    Exit codes:
      0 done; 1 the data, the store or the machine is at fault; 2 wrong usage;
      130 interrupted; 141 the reader of the output is gone
    Environment:
      TENSORDELTA_CACHE    the folder for the last published states, downloaded
                           packs and what was held of signed chains;
                           ~/.cache/tensordelta by default
      TENSORDELTA_CACHE_BYTES   how much of it downloaded packs may take
      TENSORDELTA_THREADS  how many jobs run at once; all cores by default
      HF_TOKEN, HF_ENDPOINT, HF_HOME, AWS_...   as the clients of the stores use them
    """


_GROUPS = {
    "Begin": (write.demo, shell.completion),
    "Publish": (write.publish, write.shortcut),
    "Look": (look.log, look.ls, read.show, read.diff, read.plan),
    "Read": (read.pull, read.verify),
    "Engines": (engines.vllm_follow, engines.sglang_follow),
    "Bridges": (bridges.import_, bridges.export),
    "Keep": (keep.gc, keep.pin, keep.unpin, keep.copy),
    "Sign": (keys.keygen, keys.sign),
}
for _group in _GROUPS.values():
    for _command in _group:
        _examples = "".join(f"\n  {line}" for line in EXAMPLES[_command.name or ""].splitlines())
        _command.epilog = f"\b\nExamples:{_examples}"
        main.add_command(_command)
