"""Commands that read: `log`, `show`, `pull`, `verify`, `diff`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from click.core import ParameterSource

from ..checkout.checkout import Checkout, Pulled
from ..format.keys import PublicKey
from ..format.layout import Layout
from ..format.manifest import Manifest
from ..format.names import CHAIN, parse_manifest_name, parse_shortcut_name
from ..read.published import annotations_text
from ..read.verify import Verification
from ..tables import Table, bytes_text
from ..threads import thread_count
from ..write.diff import Diff, TensorDiff
from ..write.diff import diff as compare
from .following import keep_pulling
from .group import fault_table
from .options import VERSION, json_option, open_chain, reads_packs, threads_option, trusts, usage
from .terminal import Working, count, fields, print_json, print_table


@click.command()
@click.argument("address", metavar="CHAIN")
@trusts
@json_option
def log(address: str, trusted_keys: tuple[PublicKey, ...] | None, max_age: float | None, as_json: bool) -> None:
    """List the versions of CHAIN."""
    opened = open_chain(address, trusted_keys=trusted_keys, max_age=max_age)
    history = opened.log()
    if len(history):
        opened.manifest()  # refuses a newest version that is too old
    if as_json:
        print_json([row.facts() for row in history])
        return
    size = bytes_text(sum(row.size for row in history))
    title = f"{opened.address}: {count(len(history), 'version')}, {size}"
    print_table(history.table(title), expendable=("created (UTC)", "bits/change", "density"))


@click.command()
@click.argument("address", metavar="CHAIN")
@click.argument("version", type=VERSION, required=False)
@trusts
@json_option
def show(
    address: str,
    version: int | None,
    trusted_keys: tuple[PublicKey, ...] | None,
    max_age: float | None,
    as_json: bool,
) -> None:
    """Show a version's manifest, tensors and packs.

    By default the newest version's.
    """
    opened = open_chain(address, trusted_keys=trusted_keys, max_age=max_age)
    manifest = opened.manifest(version)
    layout = opened.layout(manifest.version)
    if as_json:
        totals = {"tensors": len(layout), "words": layout.words, "bytes": layout.nbytes}
        print_json(msgspec.to_builtins(manifest) | totals)
        return
    for index, table in enumerate(_manifest_tables(manifest, layout)):
        if index:
            click.echo()
        print_table(table, abbreviate=True)


@click.command()
@click.argument("address", metavar="CHAIN")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--to", "version", metavar="VERSION", type=VERSION, help="The version wanted; by default the newest.")
@click.option("--allow-rollback", is_flag=True, help="With --trusted-key: go back to a version older than that of DIR.")
@click.option("--follow", is_flag=True, help="Go on to each newer version as it comes; up to VERSION, if --to says so.")
@click.option(
    "--poll",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="With --follow: time between two looks, about; up to four times that while nothing comes.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="With --follow: end with exit code 1 when no version has come for so long.",
)
@click.option(
    "--exec",
    "command",
    metavar="COMMAND",
    help="With --follow: a shell command to run after each version; it finds $TENSORDELTA_VERSION and "
    "$TENSORDELTA_FOLDER.",
)
@trusts
@reads_packs
@json_option
@click.pass_context
def pull(
    context: click.Context,
    address: str,
    folder: Path,
    version: int | None,
    allow_rollback: bool,
    follow: bool,
    poll: float,
    timeout: float | None,
    command: str | None,
    trusted_keys: tuple[PublicKey, ...] | None,
    max_age: float | None,
    allow_sources: tuple[str, ...],
    pack_folders: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Bring DIR to a version of CHAIN; an engine can load DIR.

    A DIR that an earlier pull made is patched in place; a crash leaves the old version or the new one.

    With --follow a line is printed for each version, or a line of JSON; SIGINT and SIGTERM end it between two versions.
    """
    if not follow and (timeout is not None or command is not None or _is_given(context, "poll")):
        raise click.UsageError("--poll, --timeout and --exec go with --follow.")
    with Working("reading what there is") as working:
        opened = open_chain(
            address,
            threads=threads,
            allow_sources=allow_sources,
            pack_folders=pack_folders,
            on_event=working.event,
            trusted_keys=trusted_keys,
            allow_rollback=allow_rollback,
            max_age=max_age,
        )
        if follow:
            keep_pulling(
                opened,
                folder,
                working,
                until=version,
                poll=poll,
                timeout=timeout,
                command=command,
                as_json=as_json,
            )
            return
        pulled = opened.pull(folder, version)
    if as_json:
        facts = {name: getattr(pulled, name) for name in ("version", "route", "size", "seconds")}
        print_json(facts)
    else:
        print_table(_pulled_table(pulled, folder))


@click.command()
@click.argument("address", metavar="CHAIN|DIR")
@click.option("--deep", is_flag=True, help="Rebuild every version over every edge, and prove each.")
@trusts
@reads_packs
@json_option
@click.pass_context
def verify(
    context: click.Context,
    address: str,
    deep: bool,
    trusted_keys: tuple[PublicKey, ...] | None,
    max_age: float | None,
    allow_sources: tuple[str, ...],
    pack_folders: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Check every object of CHAIN, or every word of a pulled DIR.

    Exits with 1 where something is at fault. With --trusted-key, missing and bad signatures of CHAIN are faults.
    """
    if Checkout.is_checkout(address) and not Path(address, CHAIN).exists():
        with Working("checking every word"):
            with usage():
                threads = thread_count(threads)
            version, faults = Checkout(address).verify(threads=threads)
        found = Verification([version], faults)
        subject = f"version {version}"
    else:
        with Working("checking") as working:
            opened = open_chain(
                address,
                threads=threads,
                allow_sources=allow_sources,
                pack_folders=pack_folders,
                trusted_keys=trusted_keys,
                max_age=max_age,
            )
            found = opened.verify(deep=deep, progress=working.count)
        subject = count(len(found.versions), "version")
    if as_json:
        print_json(found.facts())
    else:
        faults_text = count(len(found.faults), "fault") if found.faults else "no fault"
        print_table(fields(f"{address}: {subject}, {faults_text}"))
        for fault in found.faults:
            click.echo()
            print_table(fault_table(fault), style="bold red")
    if not found.ok:
        context.exit(1)


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@threads_option
@json_option
def diff(old: Path, new: Path, threads: int | None, as_json: bool) -> None:
    """Show what changed between two checkpoints, tensor by tensor."""
    with Working("comparing"):
        with usage():
            threads = thread_count(threads)
        difference = compare(old, new, threads=threads)
    if as_json:
        print_json(_diff_facts(difference))
    else:
        print_table(difference.table(), expendable=("shape", "dtype"), free_text=48)


def _manifest_tables(manifest: Manifest, layout: Layout) -> Iterator[Table]:
    base = "none: the whole state" if manifest.base is None else f"version {manifest.base.version}"
    yield fields(
        f"version {manifest.version} of chain {manifest.chain}",
        ("base", base),
        ("created", manifest.created),
        ("fingerprint", manifest.fingerprint),
        ("layout", manifest.layout),
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
            f"{pack.tensors[0]} to {pack.tensors[1] - 1}",
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
        return fields(f"{folder} holds version {pulled.version} already")
    return fields(
        f"pulled version {pulled.version} into {folder}",
        ("route", ", ".join(map(step_text, pulled.route))),
        ("packs", bytes_text(pulled.size)),
        ("took", f"{pulled.seconds:.2f} s"),
    )


def step_text(name: str) -> str:
    """A member of a route in few words: its version, and the base of a shortcut."""
    version, shortcut = parse_manifest_name(name), parse_shortcut_name(name)
    if shortcut is not None:
        return f"{shortcut.version} (shortcut from {'nothing' if shortcut.base is None else shortcut.base})"
    return name if version is None else str(version)


def _diff_facts(difference: Diff) -> dict[str, object]:
    def tensor_facts(tensor: TensorDiff) -> dict[str, object]:
        names = ("name", "dtype", "shape", "words", "changed", "density", "status")
        return {name: getattr(tensor, name) for name in names}

    return {
        "changed": difference.changed,
        "words": difference.words,
        "density": difference.density,
        "bytes": difference.nbytes,
        "size": difference.size,
        "ratio": difference.ratio,
        "bits_per_change": difference.bits_per_change,
        "tensors": [tensor_facts(tensor) for tensor in difference.tensors],
    }
