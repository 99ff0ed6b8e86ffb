"""Metadata at scale: how long opening and planning take in a long chain of a large model, and how much is read.

    python reference/benchmarks/metadata.py [--versions 10000] [--tensors 100000] [--json FILE]

The chain is simulated in memory and has no packs, which planning never reads: a layout of many tensors, versions that
are deltas to the one before, skip deltas over 8 and 64 versions, and a full shortcut every so often. An edge over s
versions has s^0.75 times the bytes of one over a single version, give or take a tenth. Deltas come in packs of 1 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from simulated import SimulatedStore

import tensordelta as td
from tensordelta.format import strict_json
from tensordelta.format.documents import ChainDocument, LatestDocument
from tensordelta.format.layout import Layout, Tensor
from tensordelta.format.names import CHAIN as CHAIN_OBJECT
from tensordelta.format.names import (
    LATEST,
    MANIFESTS,
    SHORTCUTS,
    layout_name,
    manifest_name,
    parse_manifest_name,
    parse_shortcut_name,
    shortcut_name,
)
from tensordelta.live.watch import Watch
from tensordelta.read.routes import EXACT

CHAIN = "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90"
CREATED = "2026-11-20T12:00:00Z"
WORDS = 10**12
DELTA = 10 * 10**9
FULL = 1400 * 10**9
PACK = 10**9
SKIP = (8, 64)
GROWTH = 0.75
#: Versions that are new to a follower.
NEW = 3


def simulate(versions: int, tensors: int, *, full_every: int, seed: int = 0) -> SimulatedStore:
    """A chain of so many versions, as the module says."""
    rng = random.Random(seed)
    store = SimulatedStore()
    layout = Layout.of(
        Tensor(f"model.layers.{index:06d}.weight", "BF16", (WORDS // tensors,)) for index in range(tensors)
    )
    data = layout.encode()
    digest = hashlib.sha256(data).hexdigest()
    store.objects[layout_name(digest)] = data
    store.objects[CHAIN_OBJECT] = strict_json.encode(ChainDocument(strict_json.VERSION, CHAIN, CREATED))

    def edge(version: int, base: int | None) -> bytes:
        size = FULL if base is None else DELTA * (version - base) ** GROWTH
        size = int(min(size, FULL) * rng.uniform(0.9, 1.1))
        start = "null" if base is None else f'{{"version":{base},"layout":"{digest}","fingerprint":"{base:016x}"}}'
        count = -(-size // PACK)
        packs = ",".join(_pack(rng, size * number // count, size * (number + 1) // count) for number in range(count))
        return (
            f'{{"tensordelta":"1.0-rc.1","chain":"{CHAIN}","version":{version},"layout":"{digest}",'
            f'"fingerprint":"{version:016x}","base":{start},"packs":[{packs}],"features":[],"created":"{CREATED}"}}'
        ).encode()

    for version in range(versions):
        store.objects[manifest_name(version)] = edge(version, version - 1 if version else None)
        for span in SKIP:
            if version and version % span == 0:
                store.objects[shortcut_name(version, version - span)] = edge(version, version - span)
        if version and full_every and version % full_every == 0:
            store.objects[shortcut_name(version, None)] = edge(version, None)
    store.objects[LATEST] = strict_json.encode(LatestDocument(strict_json.VERSION, CHAIN, versions - 1))
    return store


def _pack(rng: random.Random, start: int, stop: int) -> str:
    digest = f"{rng.getrandbits(256):064x}"
    return (
        f'{{"sha256":"{digest}","size":{stop - start},"path":"packs/{digest}.safetensors","content":"chunks",'
        f'"tensors":[[0,100]],"changed":{(stop - start) // 2}}}'
    )


@dataclass(frozen=True)
class Row:
    """What one reader needs.

    Attributes:
        case: what it holds, in words.
        full_every: versions between two full shortcuts; 0 for none but the first version.
        list_seconds, seconds: of the listing, and of opening and planning once listed.
        reads: objects read.
        edges: members of the route.
        size: bytes of the route.
        least: bytes of the cheapest route there is.
    """

    case: str
    full_every: int
    list_seconds: float
    seconds: float
    reads: int
    edges: int
    size: int
    least: int


def least_cost(store: SimulatedStore, target: int, held: int | None) -> int:
    """Bytes of the cheapest route, by reading everything."""
    cost: dict[int | None, int] = {None: 0}
    if held is not None:
        cost[held] = 0
    edges: list[tuple[int, int | None, int]] = []
    for name, data in store.objects.items():
        if name.startswith((MANIFESTS, SHORTCUTS)):
            value = json.loads(data)
            base = None if value["base"] is None else value["base"]["version"]
            edges.append((value["version"], base, sum(pack["size"] for pack in value["packs"])))
    for version, base, size in sorted(edges, key=lambda each: each[0]):
        if version != held and base in cost:
            cost[version] = min(cost.get(version, size + cost[base]), size + cost[base])
    return cost[target]


def measure(store: SimulatedStore, case: str, full_every: int, target: int, base: int | None) -> Row:
    """Open the chain anew and plan a route."""
    started = time.perf_counter()
    names = [*store.names(MANIFESTS), *store.names(SHORTCUTS)]
    listing = time.perf_counter() - started
    assert names
    store.requests.clear()
    started = time.perf_counter()
    chain = td.open(store, threads=1)
    plan = chain.plan(target, base)
    seconds = time.perf_counter() - started - listing
    reads = store.requests["read"]
    return Row(case, full_every, listing, seconds, reads, len(plan.edges), plan.size, least_cost(store, target, base))


def poll(store: SimulatedStore, new: int) -> tuple[dict[str, int], dict[str, int]]:
    """Requests of a follower that looks for a newer version, where there is none, and where some are new.

    With new versions, what it takes to plan the route to the newest one is counted as well.
    """
    target = max(filter(None, map(parse_manifest_name, store.objects)))
    floor = target - new
    hidden = {name: data for name, data in store.objects.items() if _leads_beyond(name, floor)}
    for name in hidden:
        del store.objects[name]
    store.objects[LATEST] = strict_json.encode(LatestDocument(strict_json.VERSION, CHAIN, floor))
    chain = td.open(store, threads=1)
    watch = Watch(chain._reader, floor)
    watch.look()
    chain.plan(floor, floor - 1)
    store.requests.clear()
    watch.look()
    nothing = dict(store.requests)
    store.objects |= hidden
    store.objects[LATEST] = strict_json.encode(LatestDocument(strict_json.VERSION, CHAIN, target))
    store.requests.clear()
    chain.plan(watch.look()[-1], floor)
    return nothing, dict(store.requests)


def _leads_beyond(name: str, version: int) -> bool:
    shortcut = parse_shortcut_name(name)
    found = parse_manifest_name(name) if shortcut is None else shortcut.version
    return found is not None and found > version


def _text(requests: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in requests.items()) or "no request"


def main(arguments: list[str] | None = None) -> int:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--versions", type=int, default=10_000, metavar="N")
    parser.add_argument("--tensors", type=int, default=100_000, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    target = options.versions - 1
    behind = [None, *(target - count for count in (1, 5, 100, 5000) if count <= target)]
    for full_every in (1000, 0):
        print(f"simulating {options.versions:,} versions …", file=sys.stderr, flush=True)
        store = simulate(options.versions, options.tensors, full_every=full_every)
        for base in behind:
            case = "from nothing" if base is None else f"{target - base:,} behind"
            rows.append(measure(store, case, full_every, target, base))
    started = time.perf_counter()
    chain = td.open(store, threads=1)
    tensors = len(chain.layout())
    layout = time.perf_counter() - started
    nothing, some = poll(store, NEW)
    print(f"{options.versions:,} versions, skip deltas over {SKIP[0]} and {SKIP[1]}, {tensors:,} tensors")
    print(f"exact within {EXACT} reads; the layout takes {layout:.2f} s, once\n")
    print("fulls       reader          listing  open+plan   objects read   edges   bytes against the least")
    for row in rows:
        fulls = f"1 in {row.full_every:,}" if row.full_every else "first only"
        print(
            f"{fulls:<12}{row.case:<15}{row.list_seconds:>7.3f} s {row.seconds:>8.3f} s "
            f"{row.reads:>14,} {row.edges:>7,} {row.size / row.least:>12.3f}"
        )
    print(f"\none poll, nothing new: {_text(nothing)}")
    print(f"one poll, {NEW} new versions, and the plan to the newest: {_text(some)}")
    if options.json:
        facts = {
            "rows": [asdict(row) for row in rows],
            "layout_seconds": layout,
            "poll": [nothing, some],
            "tensors": tensors,
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
