"""What arguments and options may be: what is wrong with one is said in the words of this command line."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from ..format.names import MAX_VERSION


class Count(click.IntRange):
    """A whole number; click's message would speak of an integer range."""

    name = "whole number"


class Seconds(click.FloatRange):
    """A number that may have a fraction."""

    name = "number"


class _Version(click.ParamType[int]):
    """The number of a version."""

    name = "version"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        text = str(value)
        if not text.isascii() or not text.isdecimal() or int(text) > MAX_VERSION:
            self.fail(f"{text!r} is no version: versions are numbers, which `log` lists.", parameter, context)
        return int(text)


VERSION = _Version()


class _Place(click.ParamType[str]):
    """An address, or something on this machine: shells complete it as a folder, or as a file."""

    def __init__(self, name: str, completed: str) -> None:
        self.name = name
        self._completed = completed

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
        return [CompletionItem(incomplete, type=self._completed)]


#: A chain's address, and what may be a checkpoint as well.
ADDRESS, SIDE = _Place("address", "dir"), _Place("side", "file")
