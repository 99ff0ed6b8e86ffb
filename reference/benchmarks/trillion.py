"""A trillion weights, planned from measured parts: 64 writers, 8 engines of 16 ranks, and a chain of their versions.

    python reference/benchmarks/trillion.py [--tensors 70000] [--density 0.01,0.002] [--json FILE] [--quick]

No machine here holds such a model. Its metadata is real, and so is all that the package does with it: the layout of a
mixture of experts is made and parsed; one writer's changed words are encoded at their real number, with the positions
and steps of a simulated run, and the 63 others' packs are its own with their tensors; the coordinator commits the
descriptors of all; each rank finds its packs and parses their tables; routes are planned; a collector collects. The
store lies in memory, counts requests, and keeps of a pack nothing but its table.

What the bytes of the model would take is computed from costs that the same run measures on a small model. Each line of
the table says which of both it is. Seconds are of one thread's CPU, the best of several rounds where they are costs, so
that other work on the machine counts little; only what waits for requests is on the clock.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from costs import Costs, best, measure_costs, peak
from experts import Cut, Model, Share, shares
from fleet import Reading, Setup, Version, make_version, read_version
from history import Collecting, History, Planning, collect
from options import parse_size
from timing import machine, note

from tensordelta.format.layout import Layout
from tensordelta.stores.download import PARALLEL
from tensordelta.tables import Table, bytes_text, percent_text

PACKAGES = ("tensordelta", "numpy", "msgspec", "zstandard")
BEHIND = (1, 8, 100)

#: What others have published of their own systems, on their own hardware: model, a step, what else they say, source.
PUBLISHED = (
    (
        "stitch",
        "GLM-5.2 FP8, 756 GB",
        "11.7 GB",
        "pause 3.4 s from a CPU image; 27 to 300 s by disk",
        "modal-projects/stitch",
    ),
    ("Fireworks ARC2", "1,024 GiB", "20.3 GiB", "a full version every 20 to 30 steps", "Fireworks"),
    ("verl", "72B", "8.6 to 10.9 GB", "2.1 to 2.6 % changed, 46 bits a change; over NCCL", "verl #6974"),
    ("verl", "235B", "", "11 to 15 s a step, against 246 to 266 s in full", "verl #6974"),
)

# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        line: what it is.
        values: one for each density.
        texts: the same, to be read.
        measured: True where it was, False where it was computed.
        source: on what, or from what.
    """

    line: str
    values: Sequence[float]
    texts: Sequence[str]
    measured: bool
    source: str


@dataclass
class Density:
    """All that was measured at one density."""

    density: float
    costs: Costs
    version: Version
    readings: dict[Cut, Reading]

    @property
    def whole(self) -> Reading:
        """What a rank reads that has words of each tensor: all packs."""
        return self.readings["tensor"]


def measure_density(
    setup: Setup, layout: Layout, shared: Sequence[Share], density: float, size: int, rounds: int
) -> Density:
    """Everything at one density but planning and collecting."""
    costs, changed = measure_costs(size, density, rounds)
    version = make_version(setup, layout, shared, changed, costs)
    cuts: tuple[Cut, ...] = ("expert", "tensor")
    readings = {how: read_version(setup, version, shared, how, rounds) for how in cuts}
    return Density(density, costs, version, readings)


class Rows:
    """Makes the lines of the table, one value for each density."""

    def __init__(self, setup: Setup, each: Sequence[Density]) -> None:
        self.setup, self.each = setup, each
        self.rows: list[Row] = []

    def add(
        self, line: str, value: Callable[[Density], float], text: Callable[[float], str], measured: bool, source: str
    ) -> None:
        values = [float(value(one)) for one in self.each]
        self.rows.append(Row(line, values, [text(one) for one in values], measured, source))


def seconds_text(seconds: float) -> str:
    return (
        f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.1f} ms"
    )


def count_text(count: float) -> str:
    return f"{count:,.0f}"


def table_rows(setup: Setup, layout: Layout, each: Sequence[Density], layout_cost: tuple[int, float, int]) -> list[Row]:
    """Lines about a version, its writers and its readers."""
    rows = Rows(setup, each)
    share = layout.nbytes / setup.writers
    size, parse, most = layout_cost
    small = "the small model's"

    def changed(one: Density) -> float:
        return one.version.delta.changed

    rows.add("layout", lambda _: size, bytes_text, True, f"{len(layout):,} tensors, {layout.words:,} words")
    rows.add("  parsed in", lambda _: parse, seconds_text, True, "Layout.parse")
    rows.add("  memory of that", lambda _: most, bytes_text, True, "peak of Python's memory")
    rows.add("full version", lambda one: one.version.full.size, bytes_text, False, f"words x {small} bytes a word")
    rows.add("  packs", lambda one: len(one.version.full.packs), count_text, False, "at 256 MiB each")
    rows.add("  chunk tables", lambda one: one.costs.full_table * layout.words, bytes_text, False, f"words x {small}")
    rows.add(
        "delta",
        lambda one: one.version.delta.size,
        bytes_text,
        True,
        f"one writer's words encoded, natural order; x {setup.writers}",
    )
    rows.add("  words changed", changed, count_text, True, "the same")
    rows.add("  bits a change", lambda one: 8 * one.version.delta.size / changed(one), lambda x: f"{x:.2f}", True, "")
    rows.add(
        "  in exponent order",
        lambda one: one.costs.bits["exponent"] * changed(one) / 8,
        bytes_text,
        False,
        f"changes x {small} bits",
    )
    rows.add("  packs", lambda one: len(one.version.delta.packs), count_text, True, "")
    rows.add("  chunks", lambda one: one.whole.table_chunks, count_text, True, "")
    rows.add("  manifest", lambda one: len(one.version.delta.encode()), bytes_text, True, "")
    rows.add("  manifest and tables", lambda one: one.whole.table, bytes_text, True, "all JSON of the version")
    rows.add(
        "    parsed in", lambda one: one.whole.parse, seconds_text, True, "parse_manifest, read_pack, check_overlap"
    )
    rows.add("    memory of that", lambda one: one.whole.parse_peak, bytes_text, True, "peak; all tables are kept")

    rows.add(
        "a writer compares and encodes",
        lambda one: encode_seconds(one, share),
        seconds_text,
        False,
        f"its {bytes_text(share)} at {small} rate, one thread",
    )
    encoded = "Draft.encode_pieces, one writer at full size"
    rows.add("  or encodes the changes it knows", lambda one: one.version.encode_pieces, seconds_text, True, encoded)
    rows.add("  sums of what it owns", lambda one: share / one.costs.scan, seconds_text, False, "scan rate")
    rows.add("  puts", lambda one: len(one.version.delta.packs) / setup.writers, count_text, True, "")
    rows.add("coordinator: draft", lambda one: one.version.draft, seconds_text, True, "Chain.draft")
    rows.add("  descriptors of all writers", lambda one: one.version.descriptors, bytes_text, True, "as JSON")
    rows.add("  commit", lambda one: one.version.commit, seconds_text, True, "Draft.commit, requests not counted")
    rows.add("  requests", lambda one: sum(one.version.requests.values()), count_text, True, "draft and commit")
    for rate in setup.gbit:
        rows.add(
            f"submit to visible, {rate:g} Gbit/s",
            partial(visible_seconds, setup, share, rate),
            seconds_text,
            False,
            "compare + put + sums + draft + commit, one after the other",
        )
    cut_rows(rows, "expert", "experts")
    cut_rows(rows, "tensor", "rows of each expert")
    return rows.rows


def cut_rows(rows: Rows, how: Cut, name: str) -> None:
    """Lines about ranks that have their experts in one way."""
    setup = rows.setup

    def reading(one: Density) -> Reading:
        return one.readings[how]

    def of_changes(each: Callable[[Costs], float]) -> Callable[[Density], float]:
        """What the small model takes for a changed word, times the rank's."""
        return lambda one: held_changes(one, how) * each(one.costs) / one.costs.changed

    rows.add(f"a rank with {name}: its words", lambda one: 2 * reading(one).words[0], bytes_text, True, "")
    most = "packs with a tensor that it has; the most of all ranks"
    rows.add("  fetches", lambda one: max(reading(one).nbytes), bytes_text, True, most)
    shared = "if a writer puts experts and the rest into the same packs"
    rows.add("    of one shard a writer", lambda one: max(reading(one).one_shard), bytes_text, True, shared)
    rows.add("  packs", lambda one: max(reading(one).packs), count_text, True, "")
    rows.add(
        f"  requests of all {setup.engines * setup.ranks}",
        lambda one: setup.engines * (sum(reading(one).packs) + 2 * setup.ranks),
        count_text,
        False,
        "packs, latest.json and the manifest of each rank",
    )
    rows.add("  manifest and its tables", lambda one: reading(one).table, bytes_text, True, "")
    rows.add("    parsed in", lambda one: reading(one).parse, seconds_text, True, "and checked for overlap")
    rows.add("    memory of that", lambda one: reading(one).parse_peak, bytes_text, True, "peak")
    decoded = "of chunks with words that it has"
    rows.add("  decodes listed words", lambda one: reading(one).listed, count_text, True, decoded)
    for rate in setup.gbit:
        rows.add(
            f"  visible to prepared, {rate:g} Gbit/s",
            partial(prepared_seconds, setup, how, rate),
            seconds_text,
            False,
            "2 requests + fetch + prepare, one after the other",
        )
    per_word = "its changed words x the small model's"
    included = "listed words x the small model's; SHA-256 and tables included"
    rows.add("    of that preparing", partial(prepare_seconds, how), seconds_text, False, included)
    scatter = f"{per_word} scatter, one thread, host memory"
    rows.add("  pause", of_changes(lambda costs: costs.apply), seconds_text, False, scatter)
    rows.add("  a prepared update", of_changes(lambda costs: costs.memory), bytes_text, False, f"memory: {per_word}")
    rows.add("    while it prepares", of_changes(lambda costs: costs.peak), bytes_text, False, f"peak: {per_word}")
    rows.add("  its places of all tensors", lambda one: reading(one).held, bytes_text, True, "peak: Holder, and meet")
    rows.add("    made in", lambda one: reading(one).holder, seconds_text, True, "Holder")
    rows.add("    meets the others in", lambda one: reading(one).meet, seconds_text, True, "Holder.meet")


def encode_seconds(one: Density, nbytes: float) -> float:
    return nbytes * one.costs.encode / one.costs.nbytes


def visible_seconds(setup: Setup, share: float, gbit: float, one: Density) -> float:
    """From `encode` on the writers to the manifest; requests of the coordinator go in rounds of `PARALLEL`."""
    put = one.version.delta.size / setup.writers / (gbit * 1e9 / 8)
    waits = coordinator_waits(one.version.requests) * setup.latency
    return encode_seconds(one, share) + put + share / one.costs.scan + one.version.draft + one.version.commit + waits


def coordinator_waits(requests: dict[str, int]) -> float:
    """Requests one after the other: sizes of packs are asked for several at once."""
    alone = sum(count for kind, count in requests.items() if kind != "size")
    return alone + requests.get("size", 0) / PARALLEL


def held_changes(one: Density, how: Cut) -> float:
    """Changed words that a rank has: as many of its words as of all."""
    return one.readings[how].words[0] * one.version.delta.changed / one.version.layout.words


def prepare_seconds(how: Cut, one: Density) -> float:
    """Of listed words that a rank has, and of those that it decodes for its chunks' sake."""
    costs, mine = one.costs, held_changes(one, how)
    # A holder of a 16th decodes all: what is left of its seconds without its own words are those of others' words.
    foreign = max(costs.prepare_rows - costs.prepare / 16, 0.0) / (costs.changed * 15 / 16)
    return mine * costs.prepare / costs.changed + max(one.readings[how].listed - mine, 0.0) * foreign


def prepared_seconds(setup: Setup, how: Cut, gbit: float, one: Density) -> float:
    fetch = max(one.readings[how].nbytes) / (gbit * 1e9 / 8)
    waits = 2 + -(-max(one.readings[how].packs) // PARALLEL)
    return waits * setup.latency + fetch + prepare_seconds(how, one)


def requests_text(requests: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(requests.items()) if kind != "listed name")


def planning_table(setup: Setup, plans: Sequence[Planning]) -> Table:
    cells = [
        [
            "nothing new" if not plan.behind else f"{plan.behind} behind",
            requests_text(plan.requests),
            bytes_text(plan.nbytes),
            seconds_text(plan.cpu),
            seconds_text(plan.seconds),
            str(plan.edges),
            bytes_text(plan.size),
        ]
        for plan in plans
    ]
    waiting = f"and waiting, {1e3 * setup.latency:g} ms"
    columns = ["<", "<requests", "read", "CPU", waiting, "edges", "packs of the route"]
    return Table(f"a look and the plan, {setup.versions} versions; measured", columns, cells)


def collecting_table(setup: Setup, found: Collecting) -> Table:
    waits = sum(found.requests.get(kind, 0) for kind in ("put", "list"))
    waits += sum(found.requests.get(kind, 0) for kind in ("read", "delete")) // PARALLEL
    cells = [
        ["objects in the chain", count_text(found.listed), "measured"],
        ["versions dropped", count_text(found.dropped), f"measured; the newest {setup.keep_last} are kept"],
        ["objects deleted", count_text(found.deleted), "measured"],
        ["requests", requests_text(found.requests), "measured; 1,000 names a listing"],
        ["read", bytes_text(found.nbytes), "measured; manifests"],
        ["CPU", seconds_text(found.cpu), "measured"],
        ["memory", bytes_text(found.peak), "measured; peak"],
        [
            f"at {1e3 * setup.latency:g} ms a request",
            seconds_text(found.cpu + waits * setup.latency),
            f"computed: CPU + requests, reads and deletes {PARALLEL} at once",
        ],
    ]
    return Table("a collection, in two runs", ["<", "", "<"], cells)


def costs_table(each: Sequence[Density]) -> Table:
    lines: list[tuple[str, Callable[[Costs], float]]] = [
        ("compare and encode", lambda costs: costs.nbytes / costs.encode),
        ("prepare, holder of all", lambda costs: costs.nbytes / costs.prepare),
        ("prepare, holder of a 16th", lambda costs: costs.nbytes / costs.prepare_rows),
        ("scatter", lambda costs: costs.nbytes / costs.apply),
        ("SHA-256", lambda costs: costs.sha256),
        ("scan", lambda costs: costs.scan),
    ]
    cells = [[name, *(f"{rate(one.costs) / 1e9:.2f}" for one in each)] for name, rate in lines]
    cells.append(["bits a change, natural", *(f"{one.costs.bits['natural']:.2f}" for one in each)])
    cells.append(["bits a change, exponent", *(f"{one.costs.bits['exponent']:.2f}" for one in each)])
    title = f"costs of {bytes_text(each[0].costs.nbytes)}, GB of model for a second of CPU, one thread, best of several"
    return Table(title, ["<", *(percent_text(one.density) for one in each)], cells)


def published_table() -> Table:
    columns = ["<whose", "<model", "<a step", "<what they say", "<source"]
    return Table(
        "published by others, of their own systems; not measured here", columns, [list(each) for each in PUBLISHED]
    )


# -- the program -------------------------------------------------------------------------------------------------------

FULL_SIZE = Model()
SMALL = Model(
    layers=4, experts=32, hidden=256, width=64, dense=512, latent=(64, 64), query=256, keys=256, attended=256,
    vocabulary=1024,
)  # fmt: skip


def numbers(text: str) -> list[float]:
    found = [float(each) for each in text.split(",")]
    if not all(each > 0 for each in found):
        raise argparse.ArgumentTypeError("give numbers greater than 0")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tensors", type=int, metavar="N", help="of the model, about; by default those of 384 experts")
    parser.add_argument("--density", type=numbers, default=[0.01, 0.002], metavar="A,B", help="shares that change")
    parser.add_argument("--latency", type=float, default=20.0, metavar="MS", help="of a request; default 20")
    parser.add_argument("--gbit", type=numbers, default=[1.0, 10.0, 25.0], metavar="A,B", help="links; default 1,10,25")
    parser.add_argument("--size", type=parse_size, default=None, metavar="BYTES", help="of the small model; 256MiB")
    parser.add_argument("--versions", type=int, default=None, metavar="N", help="of the chain; default 130")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which the best counts; default 3")
    parser.add_argument("--quick", action="store_true", help="a model of some million weights, to try the program")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    model, writers, ranks = (SMALL, 8, 4) if options.quick else (FULL_SIZE, 64, 16)
    if options.tensors is not None:
        model = model.of_tensors(options.tensors, writers)
    versions = options.versions or (110 if options.quick else 130)
    if versions <= max(BEHIND):
        parser.error(f"--versions must be greater than {max(BEHIND)}")
    setup = Setup(model, writers, 2 if options.quick else 8, ranks, versions, 32, options.latency / 1e3, options.gbit)
    size = options.size or parse_size("4MiB" if options.quick else "256MiB")

    with tempfile.TemporaryDirectory(prefix="tensordelta-trillion-") as scratch:
        os.environ["TENSORDELTA_CACHE"] = scratch
        note("the layout")
        layout = model.layout()
        data = layout.encode()
        digest = hashlib.sha256(data).hexdigest()
        seconds, _ = best(lambda: Layout.parse(data, sha256=digest), options.rounds)
        layout_cost = len(data), seconds, peak(lambda: Layout.parse(data, sha256=digest))
        shared = shares(layout, model.experts, writers)
        each = [measure_density(setup, layout, shared, density, size, options.rounds) for density in options.density]
        note(f"a chain of {versions} versions")
        history = History(setup, each[0].version)
        plans = []
        for behind in (0, *BEHIND):
            note(f"planning, {behind} behind")
            plans.append(history.plan(behind))
        note("collecting")
        collected = collect(history)

    rows = table_rows(setup, layout, each, layout_cost)
    columns = ["<", *(percent_text(density) for density in options.density), "<", "<of what"]
    cells = [[row.line, *row.texts, "measured" if row.measured else "computed", row.source] for row in rows]
    title = f"{layout.words:,} words in {len(layout):,} tensors, {writers} writers, {setup.engines} x {ranks} ranks"
    tables = [
        costs_table(each),
        Table(title, columns, cells),
        planning_table(setup, plans),
        collecting_table(setup, collected),
        published_table(),
    ]
    print("\n\n".join(table.text() for table in tables))
    if options.json:
        facts = {
            "machine": machine(PACKAGES),
            "settings": {**setup._asdict(), "model": asdict(model), "size": size, "rounds": options.rounds},
            "densities": options.density,
            "costs": [asdict(one.costs) for one in each],
            "rows": [asdict(row) for row in rows],
            "readings": [{how: asdict(reading) for how, reading in one.readings.items()} for one in each],
            "coordinator": [one.version.requests for one in each],
            "planning": [asdict(plan) for plan in plans],
            "collecting": asdict(collected),
            "published": PUBLISHED,
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
