"""Bytes of a step, and seconds to import and export it, in each format of `tensordelta.bridges`, beside the chain.

    python reference/benchmarks/bridges.py [--checkpoints RUN | --size 50MB --density 0.0065] [--steps 5] [--json FILE]

The states of a run (RUN/step_*.safetensors, else a simulated one) are published to a chain, which is exported in each
format; each export is imported into a new chain. A row has the means over the steps after the first version. An export
reads the chain, writes the version and reads it back; an import reads and checks it, and publishes it. Of the chain
itself, publishing a state that lies in memory stands under "export", and preparing and applying its update under
"import". Seconds are of CPU. Everything lies in memory (`/dev/shm`) where there is room; one thread.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# numpy's libraries read these once, when it is loaded.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TENSORDELTA_THREADS"] = "1"
# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import simulate
from options import parse_size
from timing import machine, note

import tensordelta as td
from tensordelta import bridges
from tensordelta.stores import FolderStore
from tensordelta.tables import Table, bytes_text

T = TypeVar("T")

#: Each way: its name, the format, and the options of its export.
WAYS: list[tuple[str, str, dict[str, Any]]] = [
    ("TRL, gap_delta", "trl", {"full_every": 1 << 20}),
    ("TRL, raw", "trl", {"full_every": 1 << 20, "encoding": "raw"}),
    ("slime, xor, xxh3-128", "slime", {}),
    ("slime, overwrite, xxh3-128", "slime", {"encoding": "overwrite"}),
    ("slime, xor, blake3", "slime", {"checksum": "blake3"}),
    ("ModelExpress", "modelexpress", {}),
    ("SkyRL", "skyrl", {}),
]


@dataclass
class Row:
    """What one way takes.

    Attributes:
        name: the way.
        size: bytes of a step.
        export, imported: seconds of CPU of a step.
        full: bytes of the first version.
    """

    name: str
    size: float
    export: float
    imported: float
    full: int


def states(arguments: argparse.Namespace) -> Iterator[td.State]:
    """The states of the run."""
    if arguments.checkpoints is not None:

        def number(path: Path) -> int:
            found = re.search(r"([0-9]+)\.safetensors$", path.name)
            return int(found[1]) if found else -1

        for path in sorted(arguments.checkpoints.glob("step_*.safetensors"), key=number)[: arguments.steps + 1]:
            yield td.read_state(path).copy()
        return
    made = simulate.checkpoints(arguments.size, arguments.steps, density=arguments.density, regime="master_fp32")
    for arrays in made:
        yield td.State.from_arrays(arrays, dtypes=dict.fromkeys(arrays, "BF16")).copy()


def timed(calls: Iterable[Callable[[], T]]) -> tuple[list[T], float]:
    """What calls give, and the mean seconds of CPU of those after the first."""
    results: list[T] = []
    seconds: list[float] = []
    for call in calls:
        started = time.process_time()
        results.append(call())
        seconds.append(time.process_time() - started)
    return results, statistics.mean(seconds[1:])


def measure_chain(run: Sequence[td.State], folder: Path) -> Row:
    """Publish a run, and follow it in memory."""
    chain = td.open(folder, create=True, threads=1)
    published, publishing = timed(partial(chain.publish, state) for state in run)
    held = td.State.empty()

    def take(version: int) -> None:
        chain.prepare(held, version).apply()

    _, taking = timed(partial(take, version) for version in range(len(run)))
    assert held.equals(run[-1])
    size = statistics.mean(each.size for each in published[1:])
    return Row("tensordelta", size, publishing, taking, published[0].size)


def measure(name: str, format: str, options: dict[str, Any], chain: td.Chain, folder: Path) -> Row:
    """Export a chain, and import what came of it."""
    note(name)
    store = FolderStore(folder / "foreign")
    exporter = bridges.Exporter(bridges.new_format(format, **options), chain, store)
    exported, exporting = timed(partial(exporter.write, version) for version in exporter.waiting())

    def opened(create: bool) -> td.Chain:
        return td.open(folder / "chain", create=create, threads=1)

    importer = bridges.Importer(bridges.new_format(format), store, opened)
    imported, importing = timed(partial(importer.take, offer) for offer in importer.look().offers)
    back = td.open(folder / "chain", threads=1)
    last = imported[-1].published.version
    assert back.manifest(last).fingerprint == chain.manifest(exported[-1].version).fingerprint
    shutil.rmtree(folder)
    return Row(name, statistics.mean(each.size for each in exported[1:]), exporting, importing, exported[0].size)


def table(rows: Sequence[Row], title: str) -> Table:
    """The rows as a table."""
    cells = [
        [row.name, bytes_text(round(row.size)), f"{row.export:.2f}", f"{row.imported:.2f}", bytes_text(row.full)]
        for row in rows
    ]
    return Table(title, ["<format", "bytes a step", "export CPU s", "import CPU s", "first version"], cells)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoints", type=Path, metavar="RUN", help="a folder with step_*.safetensors")
    parser.add_argument("--size", type=parse_size, default=parse_size("50MB"), help="of a simulated model")
    parser.add_argument("--density", type=float, default=0.0065, help="share of its words that change at each step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where everything lies for the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    arguments = parser.parse_args()
    memory = Path("/dev/shm")
    parent = arguments.folder or (memory if os.access(memory, os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix="tensordelta-bridges-", dir=parent) as name:
        folder = Path(name)
        os.environ["TENSORDELTA_CACHE"] = str(folder / "cache")
        run = list(states(arguments))
        if len(run) < 2:
            parser.error("a run has at least two states")
        note("tensordelta")
        rows = [measure_chain(run, folder / "chain")]
        chain = td.open(folder / "chain", threads=1)
        changed = statistics.mean(chain.manifest(version).changed for version in range(1, len(run)))
        rows += [measure(*way, chain, folder / "way") for way in WAYS]
    layout = run[0].layout
    title = (
        f"a model of {bytes_text(layout.nbytes)}, {changed / layout.words:.2%} changed at each of {len(run) - 1} steps"
    )
    print(table(rows, title).text())
    if arguments.json:
        facts = {
            "machine": machine(["tensordelta", "numpy", "xxhash", "blake3"]),
            "run": {"bytes": layout.nbytes, "words": layout.words, "changed": changed, "steps": len(run) - 1},
            "rows": [asdict(row) for row in rows],
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
