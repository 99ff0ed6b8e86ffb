"""Many at once: 8 writers of one version against 1, and 16 readers of one delta against 1, on one machine.

    python reference/benchmarks/many.py [--size 256MiB] [--writers 1,8] [--readers 1,16] [--at ADDRESS] [--json FILE]

Each writer is a process that owns some rows of every tensor, as FSDP cuts them, and joins a draft: timed is what the
coordinator sees, from opening the draft over all ranks' encoding and putting to the commit. Each reader is a process
that holds the whole model one version behind: timed is its update, fetched, proven and applied, and how long it takes
until the last one is done. Processes hold their words in memory before the clock starts, and use one thread each unless
`--threads` says otherwise. Bytes are those that go to and come from the store.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The tree that this file lies in is what is measured, whatever is installed.
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import ml_dtypes
import numpy as np
import simulate
from options import parse_size
from timing import machine, note

import tensordelta as td
from tensordelta.stores import Store, StoredBlob, open_store
from tensordelta.tables import Table, bytes_text, percent_text
from tensordelta.write.encoder import Order

PACKAGES = ("tensordelta", "numpy", "msgspec")


# -- counting ----------------------------------------------------------------------------------------------------------


class _Blob:
    def __init__(self, blob: StoredBlob, store: Counting) -> None:
        self._blob = blob
        self._store = store
        self.size = blob.size

    def read(self, offset: int, length: int) -> memoryview:
        self._store.got += length
        return self._blob.read(offset, length)

    def __enter__(self) -> Self:
        self._blob.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._blob.__exit__(*error)


class _Batch:
    def __init__(self, batch: Any, store: Counting) -> None:
        self._batch = batch
        self._store = store

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        parts = list(parts)
        self._store.sent += sum(map(len, parts))
        self._batch.put(name, parts)


class Counting:
    """A store that counts the bytes that come and go.

    Attributes:
        got, sent: bytes so far.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.got = self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, name: str) -> bytes:
        data = self._store.read(name)
        self.got += len(data)
        return data

    def open(self, name: str) -> _Blob:
        return _Blob(self._store.open(name), self)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        parts = list(parts)
        self.sent += sum(map(len, parts))
        self._store.put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self.sent += len(data)
        return self._store.create(name, data)

    @contextmanager
    def batch(self) -> Iterator[_Batch]:
        with self._store.batch() as batch:
            yield _Batch(batch, self)


# -- processes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a process is to be.

    Attributes:
        address: of the chain.
        models: files of the two states.
        number, of: which one it is, of how many.
        threads: of each.
        order: of what it writes.
    """

    address: str
    models: tuple[str, str]
    number: int
    of: int
    threads: int
    order: Order


def _rows(state: td.State, number: int, of: int) -> dict[str, td.Slice]:
    """A writer's rows of each tensor, in memory of its own."""
    shard: dict[str, td.Slice] = {}
    for name, array in state.items():
        each = -(-len(array) // of)
        start = min(number * each, len(array))
        shard[name] = td.Slice(array[start : start + each].copy(), start * (array.size // len(array)))
    return shard


def writer(pipe: Connection, task: Task) -> None:
    """Encode drafts, each with the other model as its base; ends when the pipe does."""
    shards = [_rows(td.read_state(path), task.number, task.of) for path in task.models]
    store = Counting(open_store(task.address))
    chain = td.open(store, threads=task.threads)
    pipe.send(None)
    while (text := pipe.recv()) is not None:
        store.sent = 0
        started = time.perf_counter()
        draft = chain.join(text)
        new, base = shards[draft.version % 2], None if draft.base is None else shards[draft.base % 2]
        descriptor = draft.encode(new, base, order="natural" if base is None else task.order)
        pipe.send((descriptor, time.perf_counter() - started, store.sent))


def reader(pipe: Connection, task: Task) -> None:
    """Update a state from version 0 to 1, and back; ends when the pipe does."""
    held = {name: array.copy() for name, array in td.read_state(task.models[0]).items()}
    pipe.send(None)
    while pipe.recv() is not None:
        store = Counting(open_store(task.address))
        started = time.perf_counter()
        chain = td.open(store, threads=task.threads)
        update = chain.prepare(held, 1)
        prepared = time.perf_counter()
        update.apply()
        done = time.perf_counter()
        update.undo()
        pipe.send((done - started, done - prepared, store.got))


class Crew:
    """Processes that wait for work, ready and with their words in memory; a context."""

    def __init__(self, work: Callable[[Connection, Task], None], tasks: Sequence[Task]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self._processes = []
        for task in tasks:
            mine, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, task), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self._processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def all(self, message: object) -> list[Any]:
        """Tell all the same; gives their answers."""
        for pipe in self.pipes:
            pipe.send(message)
        return [pipe.recv() for pipe in self.pipes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self._processes:
            process.join()


# -- what is measured --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writers:
    """One version by so many writers.

    Attributes:
        writers: how many.
        seconds: of each round, from opening the draft to its commit.
        slowest: of each round, the slowest writer's join, encoding and putting.
        commit: of each round, the commit.
        sent: bytes put for the delta, by all.
        packs: of the delta.
        full_seconds, full_sent: the same for the full version before, once.
    """

    writers: int
    seconds: list[float]
    slowest: list[float]
    commit: list[float]
    sent: int
    packs: int
    full_seconds: float
    full_sent: int


@dataclass(frozen=True)
class Readers:
    """One delta for so many readers.

    Attributes:
        readers: how many.
        seconds: of each round, until the last has applied.
        each: of each round, the median reader's own time, and of that the apply.
        got: bytes that all of them read, in the first round.
    """

    readers: int
    seconds: list[float]
    each: list[float]
    apply: list[float]
    got: int


def measure_writers(address: str, tasks: Sequence[Task], layout: td.Layout, rounds: int) -> Writers:
    """Make a chain, a full version and one delta for each round."""
    store = Counting(open_store(address))
    chain = td.open(store, create=True, threads=tasks[0].threads)
    note(f"{len(tasks)} writers get ready")
    seconds, slowest, commits, sent = [], [], [], []
    with Crew(writer, tasks) as crew:
        for _ in range(rounds + 1):
            store.sent = 0
            started = time.perf_counter()
            draft = chain.draft(layout)
            answers = crew.all(draft.to_json())
            encoded = time.perf_counter()
            done = draft.commit([descriptor for descriptor, _, _ in answers])
            ended = time.perf_counter()
            seconds.append(ended - started)
            slowest.append(max(took for _, took, _ in answers))
            commits.append(ended - encoded)
            sent.append(store.sent + sum(each for _, _, each in answers))
    return Writers(
        len(tasks),
        seconds[1:],
        slowest[1:],
        commits[1:],
        sent[1],
        done.packs,
        full_seconds=seconds[0],
        full_sent=sent[0],
    )


def measure_readers(tasks: Sequence[Task], rounds: int) -> Readers:
    """Have all readers update at once."""
    note(f"{len(tasks)} readers get ready")
    seconds, each, apply, got = [], [], [], 0
    with Crew(reader, tasks) as crew:
        for number in range(rounds):
            started = time.perf_counter()
            answers = crew.all(number)
            seconds.append(time.perf_counter() - started)
            each.append(statistics.median(took for took, _, _ in answers))
            apply.append(statistics.median(took for _, took, _ in answers))
            got = got or sum(read for _, _, read in answers)
    return Readers(len(tasks), seconds, each, apply, got)


# -- the program -------------------------------------------------------------------------------------------------------


def counts(text: str) -> list[int]:
    """Numbers of processes: 1,8."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} are no numbers of processes")
    return found


def seconds_text(seconds: float) -> str:
    return f"{seconds:.3f} s"


def writers_table(rows: Sequence[Writers], title: str) -> Table:
    columns = ["writers", "seconds", "slowest writer", "commit", "sent", "packs", "full version", "sent"]
    cells = [
        [
            str(row.writers),
            *(seconds_text(statistics.median(each)) for each in (row.seconds, row.slowest, row.commit)),
            bytes_text(row.sent),
            str(row.packs),
            seconds_text(row.full_seconds),
            bytes_text(row.full_sent),
        ]
        for row in rows
    ]
    return Table(title, columns, cells)


def readers_table(rows: Sequence[Readers], title: str) -> Table:
    columns = ["readers", "until the last", "each", "of that apply", "read by all", "by each"]
    cells = [
        [
            str(row.readers),
            *(seconds_text(statistics.median(each)) for each in (row.seconds, row.each, row.apply)),
            bytes_text(row.got),
            bytes_text(row.got / row.readers),
        ]
        for row in rows
    ]
    return Table(title, columns, cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print tables, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=256 << 20, metavar="BYTES", help="of the model (256MiB)")
    parser.add_argument("--density", type=float, default=0.01, help="share of the words that change (0.01)")
    parser.add_argument("--writers", type=counts, default=[1, 8], metavar="N,…", help="(1,8)")
    parser.add_argument("--readers", type=counts, default=[1, 16], metavar="N,…", help="(1,16)")
    parser.add_argument("--threads", type=int, default=1, help="of each process (1)")
    parser.add_argument("--order", choices=["natural", "exponent"], default="natural", help="(natural)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (3)")
    parser.add_argument("--at", metavar="ADDRESS", help="where chains are made; by default a temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)

    writers: list[Writers] = []
    readers: list[Readers] = []
    with tempfile.TemporaryDirectory(prefix="tensordelta-many-") as scratch:
        os.environ["TENSORDELTA_CACHE"] = str(Path(scratch, "cache"))
        at = options.at or scratch
        note("making two models")
        models = (str(Path(scratch, "old.safetensors")), str(Path(scratch, "new.safetensors")))
        pair = simulate.pair(options.size, density=options.density, regime="master_fp32")
        changed = sum(int(np.count_nonzero(pair[0][name] != pair[1][name])) for name in pair[0])
        for path, each in zip(models, pair, strict=True):
            td.State.from_arrays({name: array.view(ml_dtypes.bfloat16) for name, array in each.items()}).save(path)
        del pair
        layout = td.read_state(models[0]).layout

        def tasks(address: str, count: int) -> list[Task]:
            return [Task(address, models, number, count, options.threads, options.order) for number in range(count)]

        for count in options.writers:
            address = f"{at}/written-by-{count}"
            writers.append(measure_writers(address, tasks(address, count), layout, options.rounds))
        for count in options.readers:
            readers.append(measure_readers(tasks(address, count), options.rounds))

    model = f"{bytes_text(layout.nbytes)}, {percent_text(changed / layout.words)} of the words changed"
    kind = (
        f"{options.order} order, {options.threads} thread(s) each, {'a folder' if options.at is None else options.at}"
    )
    print(writers_table(writers, f"many writers of one delta: {model}, {kind}").text())
    print()
    print(readers_table(readers, f"many readers of one delta: {model}, written by {options.writers[-1]}").text())
    if options.json:
        facts = {
            "machine": machine(PACKAGES),
            "bytes": layout.nbytes,
            "words": layout.words,
            "changed": changed,
            "threads": options.threads,
            "order": options.order,
            "writers": [asdict(row) for row in writers],
            "readers": [asdict(row) for row in readers],
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
