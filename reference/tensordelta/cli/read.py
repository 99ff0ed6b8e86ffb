"""Commands that read: `show`, `pull`, `verify`, `diff`, `plan`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from ..checkout.checkout import Checkout, Pulled
from ..errors import TensorDeltaError
from ..explore.diff import diff as compare
from ..format.layout import Layout
from ..format.layout_change import LayoutChange
from ..format.manifest import Manifest
from ..format.names import CHAIN, parse_manifest_name, parse_shortcut_name
from ..read.verify import Verification
from ..results import annotations_text, diff_table, fields_table
from ..tables import Table, as_facts, as_table, bytes_text
from ..threads import thread_count
from .hook import Hook
from .kinds import ADDRESS, SIDE, VERSION, Seconds
from .options import json_option, open_chain, pins, reads_packs, side, trusts, usage, version_or, whole_option
from .signals import stopped_by_signals
from .terminal import Working, count, print_failure, print_json, print_result, print_table

#: Names that a line lists.
_NAMES = 8


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.argument("version", type=VERSION, required=False)
@trusts
@json_option
def show(address: str, version: int | None, as_json: bool, **opening: Any) -> None:
    """Show a version's manifest, tensors and packs.

    By default the newest version's.
    """
    opened = open_chain(address, **opening)
    manifest = opened.manifest(version)
    layout = opened.layout(manifest.version)
    change: LayoutChange | None = None
    with suppress(TensorDeltaError):  # the version before is damaged, which is no fault of this one
        change = opened.layout_change(manifest.version)
    if as_json:
        totals = {"tensors": len(layout), "words": layout.words, "bytes": layout.nbytes}
        changed = {"layout_change": None if change is None else as_facts(change)}
        print_json(msgspec.to_builtins(manifest) | totals | changed)
        return
    for index, table in enumerate(_manifest_tables(manifest, layout, change)):
        if index:
            click.echo()
        print_table(table, abbreviate=True)


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--to", "version", metavar="VERSION", type=VERSION, help="The version wanted; by default the newest.")
@click.option("--allow-rollback", is_flag=True, help="With --trusted-key: allow a version older than that of DIR.")
@click.option(
    "--scan/--no-scan",
    default=None,
    help="Check every word that DIR holds first, or none; by default 4 GiB, and as much more as half a minute allows.",
)
@click.option("--follow", is_flag=True, help="Pull each newer version when it is published; with --to, until VERSION.")
@click.option(
    "--poll",
    metavar="SECONDS",
    type=Seconds(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="With --follow: approximate time between two looks; up to four times that while nothing is published.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=Seconds(min=0),
    help="With --follow: end with exit code 1 after so long without a new version.",
)
@click.option(
    "--exec",
    "command",
    metavar="COMMAND",
    help="With --follow: a command for /bin/sh to run after each version, with $TENSORDELTA_VERSION, "
    "$TENSORDELTA_FOLDER and $TENSORDELTA_CHAIN; DIR is not changed while it runs.",
)
@click.option(
    "--exec-timeout",
    metavar="SECONDS",
    type=Seconds(min=0, min_open=True),
    help="With --exec: end the command after so long.",
)
@trusts
@reads_packs
@json_option
@click.pass_context
def pull(
    context: click.Context,
    /,
    address: str,
    folder: Path,
    version: int | None,
    allow_rollback: bool,
    scan: bool | None,
    follow: bool,
    poll: float,
    timeout: float | None,
    command: str | None,
    exec_timeout: float | None,
    as_json: bool,
    **opening: Any,
) -> None:
    """Bring DIR to a version of CHAIN; an engine can load DIR.

    A DIR from an earlier pull is patched in place; a crash leaves the old version or the new one. Where a disk has lost
    words of DIR, the whole version is made anew. So it is with --trusted-key, unless your own last pull with keys left
    DIR as it is. Files of DIR that loaders may take and that no pull made are listed.

    With --follow it prints a line for each version, or a line of JSON; SIGINT and SIGTERM end it between two versions.

    With --exec a command runs for the version that DIR holds first, and for each newer one; of those that are published
    while it runs, for the newest alone. If it fails, that is reported, and following goes on. A signal ends it too.
    The exit code is 1 if the last command failed.
    """
    if not follow and (timeout is not None or command is not None or _is_given(context, "poll")):
        raise click.UsageError("--poll, --timeout and --exec go with --follow.")
    if exec_timeout is not None and command is None:
        raise click.UsageError("--exec-timeout goes with --exec.")
    with Working("reading what there is") as working:
        opened = open_chain(address, allow_rollback=allow_rollback, **opening)
        if follow:
            with stopped_by_signals() as stop:
                hook = None
                if command is not None:
                    hook = Hook(command, opened.address, folder, timeout=exec_timeout, stop=stop, quiet=as_json)
                for pulled in opened.follow_folder(
                    folder, poll=poll, timeout=timeout, until=version, stop=stop, scan=scan
                ):
                    working.say(json.dumps(as_facts(pulled)) if as_json else _line(pulled))
                    if hook is not None:
                        hook.run(pulled.version)
            if hook is not None and hook.failure is not None:
                if as_json:
                    print_failure({"error": "command", "object": command, "rule": None, "message": hook.failure})
                context.exit(1)
            return
        if not folder.exists():
            opened.manifest(version)  # no folder is made for a version that is not there
        pulled = opened.pull(folder, version, scan=scan)
    print_result(as_json, as_facts(pulled), _pulled_table(pulled, folder))


@click.command()
@click.argument("address", metavar="CHAIN|DIR", type=ADDRESS)
@click.option("--deep", is_flag=True, help="Rebuild every version over every edge, and check each.")
@trusts
@reads_packs
@json_option
@click.pass_context
def verify(context: click.Context, /, address: str, deep: bool, as_json: bool, **opening: Any) -> None:
    """Check every object of CHAIN, or every word of a DIR.

    DIR is a folder that `pull` made; where a chain lies in it, both are checked. Exits with 1 where something is at
    fault. With --trusted-key, missing and bad signatures of CHAIN are faults.

    DIR is compared with its own record, which proves nothing where others could write to DIR: `pull --trusted-key`
    compares it with the chain. Files of DIR that loaders may take and that no pull made are listed.
    """
    pulled = Checkout.is_checkout(address)
    if pulled and (opening["trusted_keys"] or opening["max_age"] is not None):
        raise click.UsageError(
            "--trusted-key and --max-age go with CHAIN: the record of a pulled DIR is not signed. "
            "`pull --trusted-key` compares DIR with its chain."
        )
    versions: list[int] = []
    faults: list[TensorDeltaError] = []
    subjects: list[str] = []
    others: tuple[str, ...] = ()
    if pulled:
        with Working("checking every word"):
            with usage():
                threads = thread_count(opening["threads"])
            version, faults = Checkout(address).verify(threads=threads, chain=opening["chain"])
            others = Checkout(address).left_alone()
        versions.append(version)
        subjects.append(f"version {version}")
    if not pulled or Path(address, CHAIN).is_file():
        with Working("checking"):
            opened = open_chain(address, **opening)
            chain = opened.verify(deep=deep)
        versions = sorted({*versions, *chain.versions})
        faults = [*faults, *chain.faults]
        subjects.append(
            f"a chain of {count(len(chain.versions), 'version')}" if pulled else count(len(versions), "version")
        )
    found = Verification(versions, faults)
    if as_json:
        print_json(found.facts() | ({"left_alone": list(others)} if pulled else {}))
    else:
        faults_text = count(len(found.faults), "fault") if found.faults else "no fault"
        print_table(fields_table(f"{address}: {', '.join([*subjects, faults_text])}", *_left_alone(others)))
        for fault in found.faults:
            click.echo()
            print_table(as_table(fault), style="bold red")
    if not found.ok:
        context.exit(1)


@click.command()
@click.argument("old", type=SIDE)
@click.argument("new", type=SIDE)
@whole_option
@pins
@reads_packs
@json_option
def diff(old: str, new: str, whole: bool, as_json: bool, threads: int | None, **opening: Any) -> None:
    """Show what changed from OLD to NEW, tensor by tensor.

    The most changed come first. Each is a checkpoint, or a version of a chain: RUN@2, RUN@newest, or RUN@-2, the
    one before the newest. Of versions of one chain only what lies between them is read; of others only tensors that
    differ.
    """
    with Working("comparing"), usage():
        threads = thread_count(threads)
        sides = [side(each, threads=threads, **opening) for each in (old, new)]
        difference = compare(*sides, threads=threads)
    table = diff_table(difference, whole=whole or not sys.stdout.isatty())
    print_result(as_json, difference.facts(), table, expendable=("shape", "dtype"), free_text=48)


@click.command()
@click.argument("address", metavar="CHAIN", type=ADDRESS)
@click.option(
    "--from",
    "base",
    metavar="VERSION|nothing",
    callback=version_or("nothing"),
    default="nothing",
    show_default=True,
    help="What the reader holds.",
)
@click.option("--to", "version", metavar="VERSION", type=VERSION, help="The version wanted; by default the newest.")
@pins
@json_option
def plan(address: str, base: int | None, version: int | None, as_json: bool, **opening: Any) -> None:
    """Show the route that a reader would take, and what it costs.

    Reads manifests and shortcuts only.
    """
    planned = open_chain(address, **opening).plan(version, base)
    print_result(as_json, planned.facts(), planned.table(), expendable=("packs", "changed"), free_text=55)


def _ranges_text(ranges: Sequence[tuple[int, int]]) -> str:
    """The tensors of a pack."""
    shown = [f"{first} to {stop - 1}" for first, stop in ranges[:3]]
    return ", ".join(shown if len(ranges) <= 3 else [*shown[:2], f"{len(ranges) - 2} more"])


def _manifest_tables(manifest: Manifest, layout: Layout, change: LayoutChange | None) -> Iterator[Table]:
    base = "none: the whole state" if manifest.base is None else f"version {manifest.base.version}"
    yield fields_table(
        f"version {manifest.version} of chain {manifest.chain}",
        ("base", base),
        ("created", manifest.created),
        ("fingerprint", manifest.fingerprint),
        ("layout", manifest.layout),
        *([] if change is None else [("layout change", str(change))]),
        ("changed", f"{manifest.changed:,} words"),
        ("size", f"{bytes_text(manifest.size)} of packs"),
        ("features", ", ".join(manifest.features) or "-"),
        ("annotations", annotations_text(manifest.annotations) or "-"),
    )
    kinds: dict[str, list[int]] = {}
    for tensor in layout.tensors:
        kind = kinds.setdefault(tensor.dtype, [0, 0, 0])
        for index, amount in enumerate((1, tensor.words, tensor.nbytes)):
            kind[index] += amount
    rows = [[dtype, f"{count:,}", f"{words:,}", bytes_text(size)] for dtype, (count, words, size) in kinds.items()]
    if len(rows) != 1:
        rows.append(["all", f"{len(layout):,}", f"{layout.words:,}", bytes_text(layout.nbytes)])
    yield Table(count(len(layout), "tensor"), ["<dtype", "tensors", "words", "size"], rows)
    packs = [
        [
            str(index),
            pack.content,
            _ranges_text(pack.tensors),
            f"{pack.changed:,}",
            bytes_text(pack.size),
            pack.path or ", ".join(pack.sources or []),
        ]
        for index, pack in enumerate(manifest.packs)
    ]
    yield Table(count(len(packs), "pack"), ["pack", "<content", "tensors", "changed", "size", "<object"], packs)
    if manifest.files:
        files = [[file.name, bytes_text(file.size), file.path] for file in manifest.files]
        yield Table(count(len(files), "file"), ["<file", "size", "<object"], files)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _pulled_table(pulled: Pulled, folder: Path) -> Table:
    if not pulled.route:
        return fields_table(f"{folder} holds version {pulled.version} already", *_left_alone(pulled.left_alone))
    return fields_table(
        f"pulled version {pulled.version} into {folder}",
        ("route", ", ".join(map(_edge_text, pulled.route))),
        ("packs", bytes_text(pulled.size)),
        *(("passed over", f"{fault.object}: {fault.args[0]}") for fault in pulled.passed_over),
        *((("repaired", "; ".join(pulled.repaired)),) if pulled.repaired else ()),
        *_left_alone(pulled.left_alone),
        ("took", f"{pulled.seconds:.2f} s"),
    )


def _left_alone(names: Sequence[str]) -> list[tuple[str, str]]:
    """A row for the files that no pull made."""
    if not names:
        return []
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return [("left alone", f"{', '.join(names[:_NAMES])}{more}: made by no pull; loaders may take such files")]


def _edge_text(name: str) -> str:
    """An edge of a route in a few words: its version, and the base of a shortcut."""
    version, shortcut = parse_manifest_name(name), parse_shortcut_name(name)
    if shortcut is not None:
        return f"{shortcut.version} (shortcut from {'nothing' if shortcut.base is None else shortcut.base})"
    return name if version is None else str(version)


def _line(pulled: Pulled) -> str:
    others = "".join(f"; {name} {names}" for name, names in _left_alone(pulled.left_alone))
    if not pulled.route:
        return f"version {pulled.version}: held already{others}"
    repaired = f", repaired: {'; '.join(pulled.repaired)}" if pulled.repaired else ""
    return f"version {pulled.version}: {bytes_text(pulled.size)} in {pulled.seconds:.2f} s{repaired}{others}"
