"""How results are shown: the table and the facts of each kind.

The classes ask `tables.as_table` and `tables.as_facts`, so that no layer below knows how its results look.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

from .checkout.checkout import Pulled
from .errors import StoreError, TensorDeltaError, machine_advice
from .explore.diff import Diff
from .explore.stats import Stats
from .explore.tensor_history import TensorHistory
from .explore.version import Version
from .format.layout import Layout, Tensor
from .format.layout_change import LayoutChange
from .format.manifest import Manifest
from .keep.collect import Collected
from .keep.copy import Copied
from .keep.pins import Pin
from .read.history import History, Overview, Published
from .read.routes import Plan
from .read.verify import Verification
from .state.folder import names_text
from .state.state import State
from .tables import (
    Table,
    as_facts,
    as_table,
    bytes_text,
    ends,
    natural,
    percent_text,
    printable,
    ratio_text,
)

#: Tensors that the table of a difference lists.
_DIFFER = 20


def fields_table(title: str, *rows: tuple[str, str]) -> Table:
    """A table of names and values."""
    return Table(title, ["<", "<"], rows)


def annotations_text(annotations: Mapping[str, str]) -> str:
    """Annotations in one line: step=420, run=a."""
    return ", ".join(f"{key}={value}" for key, value in annotations.items())


def _fields(result: object, names: str) -> dict[str, object]:
    """Attributes of a result by name; sequences become lists."""
    values = {name: getattr(result, name) for name in names.split()}
    return {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in values.items()}


@as_table.register
def _(fault: TensorDeltaError) -> Table:
    return fields_table(
        f"error: {fault.name}",
        ("object", fault.object),
        ("reason", fault.reason),
        ("rule", f"{fault.rule} of SPEC.md"),
        ("advice", fault.advice),
    )


@as_facts.register
def _(fault: TensorDeltaError) -> dict[str, object]:
    return {"error": fault.name, "object": fault.object, "rule": fault.rule, "message": str(fault)}


@as_facts.register
def _(error: OSError) -> dict[str, object]:
    """The store's failure, or the machine's: outside the closed set, without a rule."""
    if isinstance(error, StoreError):
        return {"error": "store", "object": error.object, "rule": None, "message": str(error)}
    name = None if error.filename is None else os.fsdecode(error.filename)
    return {"error": "machine", "object": name, "rule": None, "message": machine_text(error)}


def machine_text(error: OSError) -> str:
    """What failed on this machine and what to do about it, in one line."""
    reason = error.strerror or str(error) or type(error).__name__
    message = reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
    advice = machine_advice(error)
    return printable(f"{message}. {advice}" if advice else message)


@as_table.register
def _(state: State) -> Table:
    return _layout_table(state.layout, repr(state))


@as_table.register
def _(version: Version) -> Table:
    notes = annotations_text(version.annotations)
    return _layout_table(version.layout, f"{version!r}, {notes}" if notes else repr(version))


def _layout_table(layout: Layout, title: str) -> Table:
    return tensors_table(layout.tensors, title)


def tensors_table(tensors: Sequence[Tensor], title: str, *, whole: bool = False) -> Table:
    """Tensors with their sizes: with `whole` all of them, else of many the first and the last."""
    head, omitted, tail = (tensors, 0, ()) if whole else ends(tensors)
    rows = [[each.name, each.dtype, str(list(each.shape)), bytes_text(each.nbytes)] for each in (*head, *tail)]
    return Table(title, ["<tensor", "<dtype", "<shape", "size"], _with_gap(rows, len(head), omitted))


def _with_gap(rows: Sequence[Sequence[str]], at: int, omitted: int | None) -> list[Sequence[str]]:
    """Rows with one that says how many are left out; unchanged where none is."""
    if omitted == 0:
        return list(rows)
    text = "… older ones" if omitted is None else f"… {omitted:,} more"
    return [*rows[:at], [text, *[""] * (len(rows[0]) - 1)], *rows[at:]]


@as_table.register
def _(diff: Diff) -> Table:
    return diff_table(diff)


def diff_table(diff: Diff, *, whole: bool = False) -> Table:
    """The tensors that differ, and the total; of many, unless `whole`, the most changed and those that came or went."""
    differ = [each for each in diff.tensors if each.changed or each.status != "kept"]
    head, omitted, _ = (differ, 0, ()) if whole else ends(differ, head=_DIFFER, tail=0)
    told = [each for each in differ[len(head) :] if each.status != "kept"][:_DIFFER]
    omitted -= len(told)
    rows: list[Sequence[str]] = [
        [
            each.name,
            each.dtype,
            str(list(each.shape)),
            f"{each.changed:,}",
            percent_text(each.density),
            "" if each.status == "kept" else each.status,
        ]
        for each in (*head, *told)
    ]
    rows = _with_gap(rows, len(rows), omitted)
    rows.append(["total", "", f"{diff.words:,} words", f"{diff.changed:,}", percent_text(diff.density), ""])
    title = f"{len(differ)} of {len(diff.tensors)} tensors differ"
    if diff.old and diff.new:
        title = f"from {diff.old} to {diff.new}: {title}"
    if diff.size is not None:
        title += f"; as a delta {bytes_text(diff.size)}, {diff.bits_per_change:.2f} bits per change"
    return Table(title, ["<tensor", "<dtype", "<shape", "changed", "density", "<status"], rows)


@as_facts.register
def _(diff: Diff) -> dict[str, object]:
    tensors = [_fields(tensor, "name dtype shape words changed density status") for tensor in diff.tensors]
    return {
        "changed": diff.changed,
        "words": diff.words,
        "density": diff.density,
        "bytes": diff.nbytes,
        **_fields(diff, "size ratio bits_per_change old new"),
        "tensors": tensors,
    }


@as_table.register
def _(manifest: Manifest) -> Table:
    base = "full" if manifest.base is None else f"version {manifest.base.version}"
    return Table(
        f"version {manifest.version} from {base}",
        ["<field", "<value"],
        [
            ["chain", manifest.chain],
            ["version", str(manifest.version)],
            ["base", base],
            ["created", manifest.created],
            ["fingerprint", manifest.fingerprint],
            ["layout", manifest.layout],
            ["listed words", f"{manifest.changed:,}"],
            ["size of packs", f"{manifest.size:,} bytes"],
            ["features", ", ".join(manifest.features) or "-"],
            *([f"annotation {key}", value] for key, value in manifest.annotations.items()),
            *([f"pack {index}", f"{pack.label}, {pack.size:,} bytes"] for index, pack in enumerate(manifest.packs)),
            *([f"file {file.name}", f"{file.size:,} bytes"] for file in manifest.files),
        ],
    )


def _manifest_html(manifest: Manifest) -> str:
    return as_table(manifest).html()


# The format knows no tables, and a notebook asks the object itself.
Manifest._repr_html_ = _manifest_html  # type: ignore[attr-defined]


@as_table.register
def _(published: Published) -> Table:
    left_out = f"; not taken: {names_text(published.left_out)}" if published.left_out else ""
    return _versions_table([published], f"published version {published.version}{left_out}")


@as_facts.register
def _(published: Published) -> dict[str, object]:
    names = "version base size changed words density ratio seconds fingerprint packs created"
    return _fields(published, names) | {
        "annotations": dict(published.annotations),
        "timings": None if published.timings is None else asdict(published.timings),
        "layout_change": None if published.layout_change is None else as_facts(published.layout_change),
        "left_out": [asdict(each) for each in published.left_out],
    }


@as_facts.register
def _(change: LayoutChange) -> dict[str, object]:
    return _fields(change, "dropped added retyped reshaped")


@as_table.register
def _(history: History) -> Table:
    return history_table(history, "versions")


def history_table(
    history: History, title: str, *, whole: bool = False, more: Mapping[str, Mapping[int, str]] | None = None
) -> Table:
    """The versions of a chain: with `whole` all of them, else of many the first, the newest, and the total.

    Args:
        history: the versions.
        title: above the table.
        whole: list all.
        more: texts for further columns, by heading and version.
    """
    head, omitted, tail = (history, 0, ()) if whole else ends(history)
    size = sum(row.size for row in history)
    return _versions_table(
        [*head, *tail],
        title,
        (len(head), omitted),
        (size, sum(row.nbytes for row in history) / size if size else 0.0),
        more or {},
    )


@as_table.register
def _(overview: Overview) -> Table:
    omitted: int | None = 0
    if overview.tail:
        shown = len(overview.head) + len(overview.tail)
        omitted = None if overview.versions is None else overview.versions - shown
    return _versions_table(
        [*overview.head, *overview.tail],
        f"chain {overview.chain} at {overview.address}",
        (len(overview.head), omitted),
        (overview.size, None),
    )


@as_facts.register
def _(overview: Overview) -> dict[str, object]:
    rows = {name: [as_facts(row) for row in getattr(overview, name)] for name in ("head", "tail")}
    return _fields(overview, "chain address versions size") | rows


@as_table.register
def _(history: TensorHistory) -> Table:
    words = max((row.words for row in history), default=0)
    changed = sum(1 for row in history if row.changed)
    title = f"{history.name}: {words:,} words, changed by {changed} of {len(history)} versions"
    head, omitted, tail = ends(history)
    rows = [
        [
            str(row.version),
            row.step or "",
            f"{row.changed:,}",
            percent_text(row.density),
            row.created[:19].replace("T", " "),
            "" if row.status == "kept" else row.status,
        ]
        for row in (*head, *tail)
    ]
    rows = [list(row) for row in _with_gap(rows, len(head), omitted)]
    columns = ["version", "step", "changed", "density", "<created (UTC)", "<status"]
    return Table(title, columns, rows)


@as_facts.register
def _(history: TensorHistory) -> dict[str, object]:
    return {"name": history.name, "versions": [asdict(row) for row in history]}


@as_table.register
def _(stats: Stats) -> Table:
    """Tensor by tensor, over all versions."""
    changed: dict[str, list[int]] = {}
    for name, count, words in zip(*(stats[column].tolist() for column in ("tensor", "changed", "words")), strict=True):
        total = changed.setdefault(name, [0, 0, 0])
        for index, amount in enumerate((count > 0, count, words)):
            total[index] += amount
    names = sorted(changed, key=natural)
    head, omitted, tail = ends(names)
    rows = [
        [name, f"{times:,}", f"{count:,}", percent_text(count / words if words else 0.0)]
        for name in (*head, *tail)
        for times, count, words in (changed[name],)
    ]
    versions = len(set(stats["version"].tolist()))
    title = f"{len(names):,} tensors over {versions:,} versions: {len(stats['version']):,} rows"
    columns = ["<tensor", "versions that changed it", "changed", "mean density"]
    return Table(title, columns, _with_gap(rows, len(head), omitted))


@as_facts.register
def _(stats: Stats) -> dict[str, object]:
    return {name: column.tolist() for name, column in stats.items()}


def _versions_table(
    versions: Sequence[Published],
    title: str,
    gap: tuple[int, int | None] = (0, 0),
    total: tuple[int | None, float | None] = (None, None),
    more: Mapping[str, Mapping[int, str]] = MappingProxyType({}),
) -> Table:
    """A table of versions.

    Args:
        versions: those that are shown.
        title: above the table.
        gap: before which of them others are left out, and how many; None if that is not known. The total follows
            where it is known and there are such.
        total: bytes of all versions, and how many times smaller than the whole states that is, where they are known.
        more: texts for further columns, by heading and version.
    """
    columns = "version|base|changed|density|size|ratio|bits/change|<created (UTC)|<annotations".split("|")
    if any(row.layout_change is not None for row in versions):
        columns.append("<layout")
    rows: list[Sequence[str]] = [
        [
            str(row.version),
            "full" if row.base is None else str(row.base),
            f"{row.changed:,}",
            percent_text(row.density),
            bytes_text(row.size),
            ratio_text(row.ratio),
            f"{row.bits_per_change:.2f}" if row.changed else "-",
            row.created[:19].replace("T", " "),
            annotations_text(row.annotations),
            "" if row.layout_change is None else row.layout_change.short,
        ][: len(columns)]
        + [texts.get(row.version, "") for texts in more.values()]
        for row in versions
    ]
    columns += [f"<{heading}" for heading in more]
    at, omitted = gap
    rows = _with_gap(rows, at, omitted)
    if omitted:
        size, ratio = total
        sizes = ["" if size is None else bytes_text(size), "" if ratio is None else ratio_text(ratio)]
        rows.append([f"{len(versions) + omitted:,} in all", "", "", "", *sizes, *[""] * (len(columns) - 6)])
    return Table(title, columns, rows)


@as_table.register
def _(plan: Plan) -> Table:
    start = "nothing" if plan.base is None else f"version {plan.base}"
    rows = [
        [
            "nothing" if edge.base is None else str(edge.base),
            str(edge.manifest.version),
            bytes_text(edge.manifest.size),
            f"{edge.manifest.changed:,}",
            str(len(edge.manifest.packs)),
            edge.name,
        ]
        for edge in plan.edges
    ]
    title = f"from {start} to version {plan.version}: {bytes_text(plan.size)}"
    return Table(title, ["from", "to", "size", "changed", "packs", "<object"], rows)


@as_facts.register
def _(plan: Plan) -> dict[str, object]:
    edges = [
        {
            "object": edge.name,
            "from": edge.base,
            "to": edge.manifest.version,
            "size": edge.manifest.size,
            "changed": edge.manifest.changed,
            "packs": len(edge.manifest.packs),
        }
        for edge in plan.edges
    ]
    return {**_fields(plan, "version base size"), "edges": edges}


@as_facts.register
def _(pulled: Pulled) -> dict[str, object]:
    passed_over = [as_facts(fault) for fault in pulled.passed_over]
    return _fields(pulled, "version route size seconds scanned repaired left_alone") | {"passed_over": passed_over}


@as_table.register
def _(found: Verification) -> Table:
    rows = [[fault.name, fault.object, fault.rule, f"{fault.reason}. {fault.advice}"] for fault in found.faults]
    title = f"{len(found.versions)} versions, " + ("no fault" if found.ok else f"{len(rows)} faults")
    return Table(title, ["<error", "<object", "<rule", "<what is wrong"], rows)


@as_facts.register
def _(found: Verification) -> dict[str, object]:
    return {"ok": found.ok, "versions": list(found.versions), "faults": [as_facts(fault) for fault in found.faults]}


@as_table.register
def _(pin: Pin) -> Table:
    return Table(f"pin {pin.name}", ["<pin", "version", "<until (UTC)"], [[pin.name, str(pin.version), pin.until]])


@as_facts.register
def _(pin: Pin) -> dict[str, object]:
    """`expires` is in seconds since 1970."""
    return _fields(pin, "name version expires")


@as_table.register
def _(collected: Collected) -> Table:
    would = "would go" if collected.dry_run else "went"
    rows = [("dropped", f"{_versions(collected.dropped)} {would}"), ("kept", _versions(collected.kept))]
    if collected.supporting:
        advice = f": {collected.advice}" if collected.advice else ""
        rows.append(("supporting", f"{_versions(collected.supporting)}{advice}"))
    if collected.lost:
        lost = f"{_versions(collected.lost)} could not be rebuilt, so no version goes; `verify` tells why"
        rows.append(("lost", lost))
    rows += ((name, "a pin that breaks a rule: no version goes while it is young") for name in collected.broken_pins)
    rows += ((name, "breaks a rule, so nothing but versions goes") for name in collected.unreadable)
    rows.append(("objects", f"{len(collected.objects):,} {would}, {bytes_text(collected.size)}"))
    rows += ((f"pin {pin.name}", f"version {pin.version}, until {pin.until}") for pin in collected.pins)
    return fields_table("what a collector would do" if collected.dry_run else "collected", *rows)


@as_facts.register
def _(collected: Collected) -> dict[str, object]:
    names = "kept pins broken_pins supporting leaning lost unreadable dropped objects size dry_run seconds advice"
    return _fields(collected, names) | {"pins": [as_facts(pin) for pin in collected.pins]}


def _versions(versions: Sequence[int]) -> str:
    """Versions in a few words: 3 versions (1, 5 to 6)."""
    runs: list[tuple[int, int]] = []
    for version in versions:
        if runs and runs[-1][1] == version - 1:
            runs[-1] = (runs[-1][0], version)
        else:
            runs.append((version, version))
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    if len(shown) > 8:
        shown = [*shown[:4], "…", *shown[-3:]]
    count = f"{len(versions):,} version{'' if len(versions) == 1 else 's'}"
    return f"{count} ({', '.join(shown)})" if shown else "no version"


@as_table.register
def _(copied: Copied) -> Table:
    ends = " to ".join(map(str, sorted({*copied.versions[:1], *copied.versions[-1:]})))
    rows = [("versions", f"{len(copied.versions):,}" + (f" ({ends})" if ends else ""))]
    if copied.supporting:
        rows.append(("supporting", ", ".join(map(str, copied.supporting))))
    rows.append(("shortcuts", f"{copied.shortcuts:,}"))
    if copied.left_out:
        rows.append(("left out", ", ".join(copied.left_out)))
    rows += [
        ("put", f"{copied.put:,} objects, {bytes_text(copied.size)}"),
        ("there already", f"{copied.there:,} objects"),
        ("took", f"{copied.seconds:.2f} s"),
    ]
    return fields_table(f"copied chain {copied.chain}", *rows)


@as_facts.register
def _(copied: Copied) -> dict[str, object]:
    return _fields(copied, "chain versions supporting shortcuts left_out put there size seconds")
