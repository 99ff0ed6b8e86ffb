"""From the trainer's `submit` to the engine's new weights over a slow link, beside other encodings on the same link.

    python reference/benchmarks/network.py [--size 1GiB] [--density 0.01] [--mbit 100,1000] [--json FILE]

Trainer and engine share nothing but a store behind a link that is throttled in this process: so many Mbit/s each way,
shared by all requests of that way, and so many milliseconds for each request to get there and back. The engine looks
for news at about the same pace whatever the encoding. Clocked is one step at a time, after one that warms up:

| column | from | to |
|---|---|---|
| submit | `submit` is called | it returns and training goes on; the peers publish while it waits |
| visible | `submit` is called | the version can be seen in the store |
| prepared | | fetched, checked and decoded, the engine still serving |
| applied | | the engine has the new weights |
| pause | the engine stops | it goes on |

tensordelta is used as anybody does: `Chain.publisher` and `Chain.follow`, with its digests, fingerprints and manifests.
The peers' bytes are sent as one object and a small marker after it; nothing of them is checked, and neither side of
them touches a disk. Trainer and engine share this machine, so that what one does slows the other down.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import argparse
import gc
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ml_dtypes
import numpy as np
import peers
import simulate
from link import FarStore, Link
from options import parse_size
from timing import machine, note

import tensordelta as td
from tensordelta.tables import Table, bytes_text, percent_text
from tensordelta.write.encoder import Order

PACKAGES = ("tensordelta", "numpy", "msgspec", "zstandard")
PEERS = ("int32+bf16", "xor+zstd-1")
#: Seconds between two looks of the engine.
_POLL = 0.05

Weights = dict[str, np.ndarray]


# -- contestants -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One step on its way: seconds since `submit` was called, and what it took.

    Attributes:
        submit: until training went on.
        visible, prepared, applied: until then.
        pause: that the engine stood still.
        sent, fetched: bytes over the link, up and down.
    """

    submit: float
    visible: float
    prepared: float
    applied: float
    pause: float
    sent: int
    fetched: int


class Ours:
    """tensordelta: the background publisher, and a follower.

    Args:
        store: behind the link.
        weights: published first, and loaded by the engine.
    """

    def __init__(self, store: FarStore, link: Link, weights: Weights, *, order: Order, threads: int) -> None:
        self.name = f"tensordelta, {order} order"
        self._store = store
        self._link = link
        chain = td.open(store, create=True, threads=threads)
        chain.publish(_typed(weights))
        self._publisher = chain.publisher(skip=(), order=order)
        self._engine = td.open(store, threads=threads)
        self._state = self._engine.load()
        self._updates = self._engine.follow(self._state, poll=_POLL)

    def step(self, new: Weights) -> Step:
        up, down = self._link.up.count, self._link.down.count
        typed = _typed(new)
        started = time.perf_counter()
        ticket = self._publisher.submit(typed)
        submitted = time.perf_counter() - started
        update = next(self._updates)
        prepared = time.perf_counter() - started
        update.apply()
        applied = time.perf_counter() - started
        sent, fetched = self._link.up.count - up, self._link.down.count - down
        visible = self._store.created - started
        ticket.result()  # the trainer's snapshot follows what was published; only the next step waits for it
        return Step(submitted, visible, prepared, applied, applied - prepared, sent, fetched)

    def holds(self, wanted: Weights) -> bool:
        return self._state.equals(td.State.from_arrays(_typed(wanted)))

    def close(self) -> None:
        self._publisher.close()


class Theirs:
    """One of the other encodings: one object, and a marker after it."""

    def __init__(self, peer: peers.Peer, store: FarStore, link: Link, weights: Weights) -> None:
        self.name = peer.name
        self._peer = peer
        self._store = store
        self._link = link
        self._trainer = weights
        self._engine = {name: words.copy() for name, words in weights.items()}
        self._number = 0

    def step(self, new: Weights) -> Step:
        up, down = self._link.up.count, self._link.down.count
        self._number += 1
        payload, marker = f"packs/{self._number}", f"manifests/{self._number}"
        started = time.perf_counter()

        def publish() -> None:
            encoded = self._peer.encode(self._trainer, new)
            self._store.put(payload, _joined(encoded))
            self._store.create(marker, b"{}")

        trainer = threading.Thread(target=publish)
        trainer.start()
        while self._store.size(marker) is None:
            time.sleep(_POLL)
        with self._store.open(payload) as blob:
            data = blob.read(0, blob.size)
        decoded = self._peer.decode(_split(data))
        prepared = time.perf_counter() - started
        self._peer.apply(decoded, self._engine)
        applied = time.perf_counter() - started
        trainer.join()
        self._trainer = new
        sent, fetched = self._link.up.count - up, self._link.down.count - down
        visible = self._store.created - started
        return Step(visible, visible, prepared, applied, applied - prepared, sent, fetched)

    def holds(self, wanted: Weights) -> bool:
        return all(np.array_equal(self._engine[name], words) for name, words in wanted.items())

    def close(self) -> None:
        pass


def _typed(weights: Weights) -> Weights:
    return {name: words.view(ml_dtypes.bfloat16) for name, words in weights.items()}


def _joined(encoded: peers.Encoded) -> list[bytes | memoryview]:
    """An encoded step as the parts of one object: a header that says what follows, and the payloads."""
    parts: list[bytes | memoryview] = []
    header: dict[str, list[tuple[str, int]]] = {}
    for name, payloads in encoded.items():
        header[name] = []
        for payload in payloads:
            data = payload if isinstance(payload, bytes) else payload.data.cast("B")
            kind = "" if isinstance(payload, bytes) else payload.dtype.str
            header[name].append((kind, len(data)))
            parts.append(data)
    head = json.dumps(header, separators=(",", ":")).encode()
    return [len(head).to_bytes(8, "little"), head, *parts]


def _split(data: memoryview) -> peers.Encoded:
    """The step in an object's bytes."""
    stop = 8 + int.from_bytes(data[:8], "little")
    encoded: peers.Encoded = {}
    at = stop
    for name, parts in json.loads(bytes(data[8:stop])).items():
        found: list[Any] = []
        for kind, length in parts:
            view = data[at : at + length]
            found.append(np.frombuffer(view, kind) if kind else bytes(view))
            at += length
        encoded[name] = tuple(found)
    return encoded


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A contestant over a link: medians over the rounds, each column by itself.

    Attributes:
        link: Mbit/s.
        rounds: each step.
    """

    name: str
    link: float
    rounds: Sequence[Step]

    def median(self, column: str) -> float:
        return float(statistics.median(getattr(each, column) for each in self.rounds))

    def facts(self) -> dict[str, object]:
        """What the JSON holds."""
        columns = ("submit", "visible", "prepared", "applied", "pause", "sent", "fetched")
        medians = {column: self.median(column) for column in columns}
        return {"name": self.name, "mbit": self.link, **medians, "rounds": [asdict(each) for each in self.rounds]}


def _contestants(options: argparse.Namespace, link: Link, old: Weights) -> Iterator[Ours | Theirs]:
    """The contestants one after the other, each with a store of its own, at the first weights."""
    with tempfile.TemporaryDirectory(prefix="tensordelta-network-", dir=options.folder) as temporary:
        folder = Path(temporary)
        # Steps come again: what was fetched once is not to be found here the next time.
        os.environ.update(TENSORDELTA_CACHE=str(folder / "cache"), TENSORDELTA_CACHE_BYTES="0")
        for order in options.orders:
            note(f"publishing and loading the first version, {order} order")
            ours = Ours(FarStore(folder / "store", link), link, old, order=order, threads=options.threads)
            yield ours
            ours.close()
            del ours
            for used in ("store", "cache"):
                shutil.rmtree(folder / used)
        for peer in peers.peers():
            if peer.name in PEERS:
                yield Theirs(peer, FarStore(folder / peer.name, link), link, old)


def measure(options: argparse.Namespace) -> tuple[list[Row], dict[str, object]]:
    """All contestants over all links. One after the other, since several do not fit into memory.

    Raises:
        AssertionError: an engine did not get the right weights.
    """
    note("simulating two checkpoints")
    states = simulate.pair(options.size, density=options.density, regime=options.regime)
    old, new = states
    changed = sum(int(np.count_nonzero(old[name] != new[name])) for name in old)
    words = sum(each.size for each in old.values())
    rows: list[Row] = []
    link = Link()
    for each in _contestants(options, link, old):
        count = 0
        for mbit in options.mbit:
            steps: list[Step] = []
            for number in range(options.rounds + 1):
                note(f"{each.name}, {mbit:g} Mbit/s, " + (f"round {number}" if number else "to warm up"))
                # There and back again: each step has the same changed words.
                count += 1
                following = states[count % 2]
                gc.collect()
                link.throttle(mbit, options.latency / 1e3)
                step = each.step(following)
                link.throttle(None, 0.0)
                if number:
                    steps.append(step)
                elif not each.holds(following):
                    raise AssertionError(f"{each.name}: wrong weights")
            rows.append(Row(each.name, mbit, steps))
        del each
    return rows, {"words": words, "bytes": 2 * words, "changed": changed, "density": changed / words}


def table(rows: Sequence[Row], mbit: float) -> Table:
    """The contestants over one link, the fastest first."""
    chosen = sorted((row for row in rows if row.link == mbit), key=lambda row: row.median("applied"))
    columns = ("submit", "visible", "prepared", "applied")
    cells = [
        [
            row.name,
            bytes_text(row.median("sent")),
            *(f"{row.median(column):.2f} s" for column in columns),
            f"{1e3 * row.median('pause'):.0f} ms",
        ]
        for row in chosen
    ]
    return Table(f"{mbit:g} Mbit/s", ["<", "sent", *columns, "pause"], cells)


def _rates(text: str) -> list[float]:
    rates = [float(each) for each in text.split(",")]
    if not all(rate > 0 for rate in rates):
        raise argparse.ArgumentTypeError("a link lets something through")
    return rates


def main(arguments: list[str] | None = None) -> int:
    """Print tables, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=1 << 30, metavar="BYTES", help="of the model; default 1GiB")
    parser.add_argument("--density", type=float, default=0.01, metavar="SHARE", help="of words that change in a step")
    parser.add_argument("--regime", choices=("master_fp32", "pure_bf16"), default="master_fp32")
    parser.add_argument("--mbit", type=_rates, default=[100.0, 1000.0], metavar="N,N", help="links; default 100,1000")
    parser.add_argument("--latency", type=float, default=10.0, metavar="MS", help="of each request; default 10")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--orders", type=lambda text: text.split(","), default=["natural", "exponent"], metavar="A,B")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of tensordelta; the peers have one")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where store and caches go; default /dev/shm, or tmp"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures as JSON as well; - for stdout alone"
    )
    options = parser.parse_args(arguments)
    if options.folder is None and _has_room(Path("/dev/shm"), 4 * options.size):
        options.folder = Path("/dev/shm")
    rows, model = measure(options)
    settings = {name: getattr(options, name) for name in ("size", "density", "regime", "latency", "rounds", "threads")}
    facts = {
        "machine": machine(PACKAGES),
        "settings": settings | {"poll_seconds": _POLL, "in_memory": options.folder == Path("/dev/shm")},
        "model": model,
        "rows": [row.facts() for row in rows],
    }
    text = json.dumps(facts, indent=2)
    if options.json == Path("-"):
        print(text)
        return 0
    if options.json:
        options.json.write_text(text + "\n")
    print(
        f"{bytes_text(float(str(model['bytes'])))} of bf16, "
        f"{percent_text(float(str(model['density'])))} of the words changed; "
        f"{options.latency:g} ms for each request; medians of {options.rounds}\n"
    )
    print("\n\n".join(table(rows, mbit).text() for mbit in options.mbit))
    return 0


def _has_room(folder: Path, needed: int) -> bool:
    try:
        return shutil.disk_usage(folder).free > needed
    except OSError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
