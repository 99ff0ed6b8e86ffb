"""Commands for other projects' weight deltas: `import` and `export`, and what `publish --watch` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .. import bridges
from ..chain import Chain
from ..errors import ConflictError
from ..stores import open_store
from ..tables import bytes_text
from .kinds import ADDRESS, SIDE, VERSION, Count, Seconds
from .options import (
    Command,
    encodes,
    json_option,
    needed,
    open_chain,
    pins,
    reads_packs,
    together,
    usage,
    writes,
)
from .signals import stopped_by_signals
from .terminal import Working, print_json

_NAMES = click.Choice(list(bridges.FORMATS))


poll_options = together(
    click.option("--poll", metavar="SECONDS", type=Seconds(min=0), default=1.0, show_default=True),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=Seconds(min=0),
        help="Give up after so long without a new version.",
    ),
)


def followed(command: Command) -> Command:
    """Options of a command that may go on with what appears later."""
    return together(
        click.option("--follow", is_flag=True, help="Go on with versions that appear later; a signal ends it."),
        poll_options,
    )(command)


class _Output:
    """What `import` and `export` print: a line a version; with `--json`, but not with `--follow`, one object."""

    def __init__(self, working: Working, *, as_json: bool, follow: bool) -> None:
        self._working, self._as_json, self._lines = working, as_json, follow or not as_json
        self._notes: list[str] = []
        self._versions: list[dict[str, object]] = []
        self._follow = follow

    def note(self, text: str) -> None:
        self._notes.append(text)
        if self._lines:
            self._working.say(json.dumps({"note": text}) if self._as_json else text)

    def version(self, facts: dict[str, object], line: str) -> None:
        self._versions.append(facts)
        if self._lines:
            self._working.say(json.dumps(facts) if self._as_json else line)
        if self._follow:  # which may last for weeks
            self._versions.clear()

    def end(self, nothing: str, facts: dict[str, object]) -> None:
        if self._as_json and not self._lines:
            print_json(facts | {"notes": self._notes, "versions": self._versions})
        elif not self._versions and not self._follow:
            self._working.say(nothing)


@contextmanager
def _store(address: str) -> Iterator[Any]:
    with usage(), needed():
        store = open_store(address)
    if bridges.is_chain(store):
        raise ConflictError(
            "is a chain, not a folder of another format",
            object=address,
            rule="appendix C",
            advice="Write `import FORMAT SRC CHAIN` and `export FORMAT CHAIN DST`, in this order.",
        )
    yield store


@click.command("import")
@click.argument("name", metavar="FORMAT", type=_NAMES)
@click.argument("source", metavar="SRC", type=ADDRESS)
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.option(
    "--base",
    type=SIDE,
    metavar="CHECKPOINT",
    help="What the deltas of SRC begin with, where SRC has no full version: the engines' model.",
)
@click.option("--from", "begin", metavar="NAME", help="The full version to begin with, or the name of --base in SRC.")
@followed
@encodes
@writes
@json_option
def import_(
    name: str,
    source: str,
    address: str,
    base: str | None,
    begin: str | None,
    follow: bool,
    poll: float,
    timeout: float | None,
    order: Any,
    values: Any,
    as_json: bool,
    **opening: Any,
) -> None:
    """Publish the deltas of another project.

    Each version in SRC becomes one of CHAIN. FORMAT is trl, slime (also of miles, SGLang's /pull_weights and stitch),
    modelexpress or skyrl. SRC is a folder, or a place such as those of chains. Every version is proven with what the
    format gives; what it does not give is printed first. A repeated import goes on where the last one ended.
    """
    if timeout is not None and not follow:
        raise click.UsageError("--timeout goes with --follow.")
    format = bridges.new_format(name)
    with Working("reading what there is") as working, _store(source) as store, needed():

        def opened(create: bool) -> Chain:
            return open_chain(address, create=create, **opening)

        output = _Output(working, as_json=as_json, follow=follow)
        output.note(f"not proven, since {name} does not give it: {'; '.join(format.unproven)}")
        with usage():
            importer = bridges.Importer(
                format, store, opened, base=base, begin=begin, order=order, values=values, say=output.note
            )
        with stopped_by_signals() as stop:
            found = importer.follow(poll=poll, timeout=timeout, stop=stop) if follow else importer.all()
            for imported in found:
                output.version(_imported_facts(imported), _imported_line(imported))
        output.end(f"nothing new after {importer.after}", {"format": name, "unproven": list(format.unproven)})


@click.command("export")
@click.argument("name", metavar="FORMAT", type=_NAMES)
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.argument("target", metavar="DST", type=ADDRESS)
@click.option("--encoding", metavar="NAME", help="Of trl: gap_delta or raw; of slime: xor or overwrite.")
@click.option("--checksum", metavar="NAME", help="Of slime: xxh3-128, blake3 or adler32.")
@click.option(
    "--full-every",
    metavar="N",
    type=Count(min=1),
    help="Write each version whose number N divides in full; trl: 10 by default, slime: none.",
)
@click.option("--from", "begin", metavar="VERSION", type=VERSION, help="The first version; by default the oldest.")
@followed
@pins
@reads_packs
@json_option
def export(
    name: str,
    address: str,
    target: str,
    encoding: str | None,
    checksum: str | None,
    full_every: int | None,
    begin: int | None,
    follow: bool,
    poll: float,
    timeout: float | None,
    as_json: bool,
    **opening: Any,
) -> None:
    """Write versions as another project does.

    Each version of CHAIN becomes one in DST. FORMAT is trl, slime (also for miles, SGLang's /pull_weights and stitch),
    modelexpress or skyrl. DST is a folder, or a place such as those of chains. A version is read back before it becomes
    visible, whole. A repeated export goes on where the last one ended.
    """
    if timeout is not None and not follow:
        raise click.UsageError("--timeout goes with --follow.")
    with usage():
        format = bridges.new_format(name, encoding=encoding, checksum=checksum, full_every=full_every)
    with Working("reading what there is") as working, _store(target) as store, needed():
        chain = open_chain(address, **opening)
        output = _Output(working, as_json=as_json, follow=follow)
        exporter = bridges.Exporter(format, chain, store, begin=begin)
        with stopped_by_signals() as stop:
            found = exporter.follow(poll=poll, timeout=timeout, stop=stop) if follow else exporter.all()
            for exported in found:
                output.version(_exported_facts(exported), _exported_line(exported))
                if stop.is_set():
                    break
        output.end(f"nothing new after version {exporter.version}", {"format": name})


def watch(
    address: str,
    folder: Path,
    *,
    marker: str | None,
    settle: float | None,
    poll: float,
    timeout: float | None,
    as_json: bool,
    publishing: dict[str, Any],
    **opening: Any,
) -> None:
    """Publish each checkpoint that appears in a folder, until a signal or the timeout ends it."""
    with Working("waiting for checkpoints") as working:
        chain = open_chain(address, create=True, **opening)
        settled = {} if settle is None else {"settle": settle}

        def say(note: str) -> None:
            working.say(json.dumps({"note": note}) if as_json else note)

        watcher = bridges.Watcher(folder, chain, marker=marker, publishing=publishing, say=say, **settled)
        with stopped_by_signals() as stop:
            for watched in watcher.follow(poll=poll, timeout=timeout, stop=stop):
                published = watched.published
                facts = {"id": watched.id, **published.facts()}
                line = f"{watched.id}: version {published.version}, {bytes_text(published.size)}"
                working.say(json.dumps(facts) if as_json else f"{line} in {watched.seconds:.2f} s")


def _imported_facts(imported: bridges.Imported) -> dict[str, object]:
    return {"id": imported.id, "base_id": imported.base, **imported.published.facts()}


def _imported_line(imported: bridges.Imported) -> str:
    published = imported.published
    made = "full" if imported.base is None else f"a delta to {imported.base}"
    line = f"{imported.id}, {made}: version {published.version}, {bytes_text(published.size)}"
    return f"{line} in {imported.seconds:.2f} s"


def _exported_facts(exported: bridges.Exported) -> dict[str, object]:
    return {
        "version": exported.version,
        "id": exported.id,
        "base_id": exported.base,
        "size": exported.size,
        "seconds": exported.seconds,
    }


def _exported_line(exported: bridges.Exported) -> str:
    made = "full" if exported.base is None else f"a delta to {exported.base}"
    line = f"version {exported.version}: {exported.id}, {made}, {bytes_text(exported.size)}"
    return f"{line} in {exported.seconds:.2f} s"
