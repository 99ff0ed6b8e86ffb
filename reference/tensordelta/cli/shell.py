"""The command that teaches shells to complete the others: `completion`."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from ..results import fields_table
from .terminal import print_table

#: Where each shell looks for completions, below the home folder, and what its user does then.
_PLACES = {
    "bash": (".local/share/bash-completion/completions/tensordelta", "Start a new shell. (Needs bash-completion.)"),
    "zsh": (".zfunc/_tensordelta", "Have `fpath+=~/.zfunc; autoload -Uz compinit; compinit` in ~/.zshrc."),
    "fish": (".config/fish/completions/tensordelta.fish", "Start a new shell."),
}


@click.command()
@click.argument("shell", type=click.Choice(list(_PLACES)))
@click.option("--install", is_flag=True, help="Write it where SHELL looks for completions.")
@click.pass_context
def completion(context: click.Context, shell: str, install: bool) -> None:
    """Print or install what has SHELL complete commands."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "tensordelta", "_TENSORDELTA_COMPLETE").source()
    if not install:
        click.echo(script)
        return
    place, then = _PLACES[shell]
    path = Path.home() / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{script}{os.linesep}")
    print_table(fields_table(f"{shell} completes tensordelta by {path}", ("then", then)))
