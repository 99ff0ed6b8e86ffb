"""What a small model costs on this machine: the unit costs from which plans for a large one are computed."""

from __future__ import annotations

import gc
import hashlib
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import ml_dtypes
import numpy as np
import simulate
from ranks import holding, holding_rows
from simulated import SimulatedStore
from timing import note

import tensordelta as td
from tensordelta.codecs import fingerprint
from tensordelta.codecs.words import Words
from tensordelta.format.chunk import Span
from tensordelta.format.chunk_codec import Piece
from tensordelta.tables import bytes_text, percent_text
from tensordelta.write.encoder import Codecs, Comparison, Encoder, Order, compare

T = TypeVar("T")

#: Words of a stretch of which changed words are taken again and again, and how many of these there are at most.
STRETCH, STRETCHES = 1 << 22, 64


def best(work: Callable[[], T], rounds: int) -> tuple[float, T]:
    """The least seconds of CPU that work took, and what it gave last."""
    least = float("inf")
    for _ in range(rounds):
        gc.collect()
        started = time.process_time()
        result = work()
        least = min(least, time.process_time() - started)
    return least, result


def peak(work: Callable[[], object]) -> int:
    """The most bytes of memory that work took at once, Python's objects and arrays."""
    gc.collect()
    tracemalloc.start()
    try:
        result = work()
        most = tracemalloc.get_traced_memory()[1]
        del result
    finally:
        tracemalloc.stop()
    return most


@dataclass(frozen=True)
class Costs:
    """What the small model costs, at one density; seconds are the best of several, one thread.

    Attributes:
        nbytes, changed: of the small model, and of its words.
        encode: seconds of comparing, encoding and hashing all of it, natural order.
        bits: of packs, for each changed word, by order.
        prepare: seconds of a holder of all of it: packs fetched from memory, hashed, tables parsed, chunks decoded.
        prepare_rows: the same of a holder of a 16th of each tensor.
        apply: seconds of the scatter.
        memory, peak: bytes that the prepared update keeps, and that preparing took at most.
        sha256, scan: bytes a second.
        full: bytes of packs of a full version, for each word.
        full_table: bytes of its headers, for each word.
    """

    nbytes: int
    changed: int
    encode: float
    bits: dict[Order, float]
    prepare: float
    prepare_rows: float
    apply: float
    memory: int
    peak: int
    sha256: float
    scan: float
    full: float
    full_table: float


def measure_costs(size: int, density: float, rounds: int) -> tuple[Costs, list[Piece]]:
    """The costs of a small model; and changed words of it, for `pieces`."""
    note(f"costs of {bytes_text(size)} at {percent_text(density)}")
    pair = simulate.pair(size, density=density, regime="master_fp32")
    old, new = (
        td.State.from_arrays({name: each.view(ml_dtypes.bfloat16) for name, each in one.items()}) for one in pair
    )
    digest = hashlib.sha256(old.layout.encode()).hexdigest()
    sums = old.sums(threads=1)
    made: dict[Order, tuple[float, tuple[int, int]]] = {}

    def encode(base: td.State | None, order: Order) -> tuple[int, int, int]:
        encoder = Encoder(Comparison.of_states(base, new, digest, None if base is None else sums), Codecs(order=order))
        packs = [(each.entry.size, len(each.parts[0])) for each in encoder.packs()]
        return encoder.changed, sum(each for each, _ in packs), sum(each for _, each in packs)

    orders: tuple[Order, ...] = ("natural", "exponent")
    for order in orders:
        seconds, (changed, nbytes, _) = best(partial(encode, old, order), rounds if order == "natural" else 1)
        made[order] = seconds, (changed, nbytes)
    words = old.layout.words
    _, full, table = encode(None, "natural")

    store = SimulatedStore()
    chain = td.open(store, create=True, threads=1)
    for base, state in ((None, old), (old, new)):
        draft = chain.draft(state.layout)
        draft.commit([draft.encode(dict(state.items()), None if base is None else dict(base.items()))])
    rows = {name: each.reshape(-1).copy() for name, each in pair[0].items()}
    manifest = chain.manifest(0)
    holders = holding(old.layout, rows), holding_rows(old.layout, rows, 0, 16)
    for holder in holders:
        holder.hold(0, chain.id, (manifest.layout, manifest.fingerprint))
    prepare, update = best(lambda: chain.prepare(holders[0], 1), rounds)
    apply = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        update.apply()
        apply = min(apply, time.process_time() - started)
        update.undo()
    memory = update.memory
    del update
    prepare_rows, _ = best(lambda: chain.prepare(holders[1], 1), rounds)
    block = np.random.default_rng(0).integers(0, 1 << 16, 1 << 24, np.uint16)
    hashing, _ = best(lambda: hashlib.sha256(block.data).digest(), rounds)
    scanning, _ = best(lambda: fingerprint.scan("block", block), rounds)
    costs = Costs(
        nbytes=old.layout.nbytes,
        changed=made["natural"][1][0],
        encode=made["natural"][0],
        bits={order: 8 * each[1] / each[0] for order, (_, each) in made.items()},
        prepare=prepare,
        prepare_rows=prepare_rows,
        apply=apply,
        memory=memory,
        peak=peak(lambda: chain.prepare(holders[0], 1)),
        sha256=block.nbytes / hashing,
        scan=block.nbytes / scanning,
        full=full / words,
        full_table=table / words,
    )
    flat = [np.concatenate([each.reshape(-1) for each in one.values()]) for one in pair]
    return costs, templates(*flat)


def templates(old: Words, new: Words) -> list[Piece]:
    """Changed words of stretches of a model, which is repeated where it is too small."""
    count = min(max(len(old) // STRETCH, 1), STRETCHES)
    old, new = (np.resize(each, max(len(each), STRETCH)) for each in (old, new))
    found = []
    for number in range(count):
        start = (len(old) - STRETCH) * number // max(count - 1, 1)  # from all over the model
        part = slice(start, start + STRETCH)
        piece = compare(Span(0, 0, STRETCH), old[part], new[part])
        assert piece is not None
        found.append(piece)
    return found
