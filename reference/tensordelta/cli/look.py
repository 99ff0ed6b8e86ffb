"""Commands that list: `log` the versions of a chain, `ls` the tensors of one."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from ..chain import Chain
from ..errors import StoreError
from ..explore.version import Version
from ..format.layout import Layout, Tensor
from ..format.names import ShortcutName, shortcut_name
from ..results import history_table, tensors_table
from ..state.state import read_state
from ..stores.models import model_tensors
from ..tables import bytes_text, natural
from ..threads import thread_count
from .kinds import ADDRESS, SIDE
from .options import json_option, open_chain, pins, side, trusts, usage, whole_option
from .terminal import Working, count, print_result


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@whole_option
@click.option("--pins", "with_pins", is_flag=True, help="Name the pins of each version.")
@click.option("--shortcuts", "with_shortcuts", is_flag=True, help="Say from where shortcuts lead to each version.")
@click.option("--layout", "with_layout", is_flag=True, help="Count the tensors and bytes of each version.")
@trusts
@json_option
def log(
    address: str,
    whole: bool,
    with_pins: bool,
    with_shortcuts: bool,
    with_layout: bool,
    as_json: bool,
    **opening: Any,
) -> None:
    """List the versions of CHAIN.

    On a terminal, of many, these are the first, the newest and the total.
    """
    with Working("reading manifests"):
        opened = open_chain(address, **opening)
        history = opened.log()
        if len(history):
            opened.manifest()  # refuses a newest version that is too old
        found = _found(opened, pins=with_pins, shortcuts=with_shortcuts, layout=with_layout)
    size = bytes_text(sum(row.size for row in history))
    title = f"{opened.address}: {count(len(history), 'version')}, {size}"
    table = history_table(history, title, whole=whole or not sys.stdout.isatty(), more=found.texts)
    facts = [row.facts() | {name: each.get(row.version) for name, each in found.facts.items()} for row in history]
    print_result(as_json, facts, table, expendable=("created (UTC)", "bits/change", "density", "ratio"))


@dataclass(frozen=True)
class _Found:
    """What `log` lists of versions besides, by heading and version: for `--json`, and as texts."""

    facts: Mapping[str, Mapping[int, object]]
    texts: Mapping[str, Mapping[int, str]]


def _found(opened: Chain, *, pins: bool, shortcuts: bool, layout: bool) -> _Found:
    facts: dict[str, Mapping[int, object]] = {}
    texts: dict[str, Mapping[int, str]] = {}
    versions = opened.versions()
    if pins:
        names: dict[int, list[str]] = defaultdict(list)
        for pin in opened.pins():
            names[pin.version].append(pin.name)
        facts["pins"] = {version: names[version] for version in versions}
        texts["pins"] = {version: ", ".join(names[version]) for version in versions}
    if shortcuts:
        ways: dict[int, list[ShortcutName]] = defaultdict(list)
        for each in opened.shortcuts():
            ways[each.version].append(each)
        facts["shortcuts"] = {
            version: [{"from": each.base, "object": shortcut_name(*each)} for each in ways[version]]
            for version in versions
        }
        texts["shortcuts"] = {version: ", ".join(map(_from, ways[version])) for version in versions}
    if layout:
        layouts = {version: opened.layout(version) for version in versions}
        facts["tensors"] = {version: len(each) for version, each in layouts.items()}
        facts["bytes"] = {version: each.nbytes for version, each in layouts.items()}
        texts["tensors"] = {version: _layout_text(each) for version, each in layouts.items()}
    return _Found(facts, texts)


def _from(shortcut: ShortcutName) -> str:
    start = "nothing" if shortcut.base is None else shortcut.base
    return f"from {start}" + (f" ({shortcut.tag})" if shortcut.tag else "")


def _layout_text(layout: Layout) -> str:
    return f"{len(layout):,} ({bytes_text(layout.nbytes)})"


@click.command()
@click.argument("what", metavar="CHAIN[@VERSION]|CHECKPOINT", type=SIDE)
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@whole_option
@pins
@json_option
def ls(what: str, patterns: tuple[str, ...], whole: bool, as_json: bool, **opening: Any) -> None:
    """List the tensors of a version, or of a checkpoint.

    Without @VERSION it is the newest, and only its manifest and layout are read. PATTERN selects names as a shell
    does, such as 'layers.3.*'; one without wildcards selects the names that contain it.
    """
    with Working("reading the layout"), usage():
        opening["threads"] = thread_count(None)
        found = side(what, **opening)
        layout = _layout(found)
    chosen = [each for each in layout.tensors if not patterns or any(_matches(each.name, one) for one in patterns)]
    chosen.sort(key=lambda each: natural(each.name))
    name = f"version {found.version} of {found.address}" if isinstance(found, Version) else str(found)
    tensors = [
        {"name": each.name, "dtype": each.dtype, "shape": list(each.shape), "words": each.words, "bytes": each.nbytes}
        for each in chosen
    ]
    facts: dict[str, object] = {
        "version": found.version if isinstance(found, Version) else None,
        "tensors": tensors,
        "words": sum(each.words for each in chosen),
        "bytes": sum(each.nbytes for each in chosen),
    }
    of = "" if len(chosen) == len(layout) else f" of {len(layout):,}"
    title = f"{name}: {count(len(chosen), 'tensor')}{of}, {bytes_text(sum(each.nbytes for each in chosen))}"
    print_result(as_json, facts, tensors_table(chosen, title, whole=whole or not sys.stdout.isatty()), free_text=48)


def _layout(found: Version | Path | str) -> Layout:
    """The tensors of a version or checkpoint, of which no word is read."""
    if isinstance(found, Version):
        return found.layout
    if isinstance(found, Path):
        return read_state(found).layout
    try:
        tensors = model_tensors(found)
    except StoreError:  # without a network the client's cache may have it
        return read_state(found).layout
    return Layout.of((Tensor(name, *info) for name, info in tensors.items()), object=found)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) if any(letter in pattern for letter in "*?[") else pattern in name
