"""A small but real training run, published step by step and followed bit by bit.

`run` trains a network by RL, publishes the bfloat16 weights of every step to a chain, follows the chain as a receiver
that sees nothing else, and compares each of the receiver's words with the trainer's.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize

from ..chain import Chain
from ..errors import IntegrityError
from ..format.names import CHAIN as CHAIN_OBJECT
from ..opening import open
from ..state.state import State
from ..tables import Table, bytes_text, percent_text, ratio_text
from ..write.snapshot import snapshot_folder
from . import training
from .picture import Row, draw, duration

CHAIN, CHECKOUT, PICTURE = "chain", "checkout", "demo.png"
_SHARD = "model.safetensors"
_MARKER = ".tensordelta-demo"
_MARKER_TEXT = "The tensordelta demo made chain {chain}, its checkout and its picture; it may replace them.\n"
_CHAIN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: What a run makes, and the files that it may leave behind when it is killed.
_MADE = re.compile(
    rf"{PICTURE}|{CHAIN}/\.?(chain|latest)\.json(\.[0-9a-f]+)?"
    rf"|{CHAIN}/(manifests|layouts|packs|fingerprints)/\.?[0-9a-f]{{12,64}}\.[a-z]+(\.[0-9a-f]+)?"
    rf"|{CHECKOUT}/{_SHARD}|{CHECKOUT}/\.tensordelta/.+"
)


@dataclass(frozen=True)
class DemoResult:
    """What a run of the demo made.

    Attributes:
        rows: what each step took.
        chain: folder of the chain.
        checkout: folder that was pulled; holds the last step's weights.
        picture: the picture; None where matplotlib is not installed.
    """

    rows: Sequence[Row]
    chain: Path
    checkout: Path
    picture: Path | None

    def table(self) -> Table:
        """The steps as a table."""
        columns = ["step", "changed", "density", "size", "ratio", "bits/change", "publish", "apply"]
        cells = [
            [
                str(row.step),
                f"{row.changed:,}",
                percent_text(row.changed / row.words),
                bytes_text(row.size),
                ratio_text(row.raw / row.size),
                f"{row.bits_per_change:.2f}",
                duration(row.publish_seconds),
                duration(row.apply_seconds),
            ]
            for row in self.rows
        ]
        last = self.rows[-1]
        weights = f"{last.words:,} weights ({bytes_text(last.raw)})"
        title = f"{len(self.rows)} versions of {weights}; the receiver has every bit of each"
        return Table(title, columns, cells)


def run(
    folder: Path,
    *,
    steps: int = 10,
    seed: int = 0,
    report: Callable[[str], None],
    on_progress: Callable[[str, float], None] | None = None,
) -> DemoResult:
    """Train, publish, follow, prove, and draw.

    Args:
        folder: where chain, checkout and picture go; those of an earlier run are replaced.
        steps: number of RL steps; step 0 comes before them.
        seed: of everything random.
        report: told what was done, a line at a time.
        on_progress: told what the training does, and how much of the run that makes, from 0 to 1.

    Raises:
        FileExistsError: something is in the way that the demo did not make.
        IntegrityError: a word differs.
    """
    identity = str(uuid.uuid4())
    prepare_folder(folder, identity)
    report("training a small language model; its weights, and those after each step of RL, are published")
    writer = open(folder / CHAIN, create=True, chain=identity)
    try:
        receiver = open(folder / CHAIN, chain=identity)
        held = State.empty()
        rows: list[Row] = []
        for checkpoint in training.train(steps=steps, seed=seed, on_progress=on_progress):
            rows.append(_follow(writer, receiver, held, checkpoint))
            report(_line(rows[-1]))
    finally:
        shutil.rmtree(snapshot_folder(writer.id), ignore_errors=True)  # nobody will publish to this chain again
    found = receiver.verify(deep=True)
    if not found.ok:
        raise found.faults[0]
    report(f"verified: {len(found.versions)} versions, every object and every edge")
    pulled = receiver.pull(folder / CHECKOUT)
    _prove_file(folder / CHECKOUT / _SHARD, checkpoint.weights)
    report(f"pulled: {folder / CHECKOUT} loads back as version {pulled.version}, bit by bit")
    return DemoResult(rows, folder / CHAIN, folder / CHECKOUT, _draw(folder / PICTURE, rows))


def prepare_folder(folder: Path, identity: str) -> None:
    """Make room for a run, by removing what an earlier one made.

    Args:
        folder: where the run will be.
        identity: the id that its chain will have.

    Raises:
        FileExistsError: something is in the way that the demo did not make; nothing was removed.
    """
    there = [folder / name for name in (CHAIN, CHECKOUT, PICTURE) if os.path.lexists(folder / name)]
    marker = folder / _MARKER
    made = marker.read_text() if marker.is_file() else ""
    for path in (path for each in there for path in (each, *each.rglob("*"))):
        if not made or path.is_symlink() or not (path.is_dir() or _is_ours(path, folder, made)):
            raise FileExistsError(f"{path} is in the way, and the demo did not make it: move it, or name another --dir")
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(_MARKER_TEXT.format(chain=identity))


def _is_ours(path: Path, folder: Path, made: str) -> bool:
    """True for a file that an earlier run made, and of the chain that it made."""
    name = path.relative_to(folder).as_posix()
    if name in (f"{CHAIN}/{CHAIN_OBJECT}", f"{CHECKOUT}/.tensordelta/state.json"):
        return all(chain_id in made for chain_id in _CHAIN_ID.findall(path.read_text(errors="replace")))
    return _MADE.fullmatch(name) is not None


def _follow(writer: Chain, receiver: Chain, held: State, checkpoint: training.Checkpoint) -> Row:
    """Publish a step, bring the receiver's state to it, and compare every word."""
    published = writer.publish(checkpoint.weights, annotations={"step": str(checkpoint.step)})
    update = receiver.prepare(held)
    started = time.perf_counter()
    update.apply()
    applied = time.perf_counter() - started
    differ = [name for name in checkpoint.weights.keys() | held.keys() if not _same(name, checkpoint.weights, held)]
    if differ:
        raise _differs(f"step {checkpoint.step}", differ)
    return Row(
        step=checkpoint.step,
        changed=published.changed,
        words=published.words,
        size=published.size,
        raw=published.nbytes,
        bits_per_change=published.bits_per_change,
        publish_seconds=published.seconds or 0.0,
        apply_seconds=applied,
        full=published.base is None,
    )


def _same(name: str, one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    """True where both have the tensor, with the same words: as integers, so that -0 is not 0 and NaN is itself."""
    if name not in one or name not in other:
        return False
    mine, theirs = one[name], other[name]
    return mine.dtype == theirs.dtype and np.array_equal(mine.view(np.uint16), theirs.view(np.uint16))


def _prove_file(path: Path, weights: Mapping[str, NDArray[Any]]) -> None:
    """Compare a file, as safetensors itself reads it, with the trainer's weights."""
    read: Callable[[bytes], list[tuple[str, Mapping[str, Any]]]] = deserialize
    entries = dict(read(path.read_bytes()))
    differ = [
        name
        for name in weights.keys() | entries.keys()
        if name not in weights
        or name not in entries
        or tuple(entries[name]["shape"]) != weights[name].shape
        or bytes(entries[name]["data"]) != weights[name].tobytes()
    ]
    if differ:
        raise _differs(str(path), differ)


def _differs(where: str, names: Sequence[str]) -> IntegrityError:
    return IntegrityError(
        f"{len(names)} tensors differ from the trainer's, {min(names)} among them",
        object=where,
        rule="TD-RDR-007",
        advice="This is a bug of tensordelta: please report it.",
    )


def _line(row: Row) -> str:
    what = "the whole state" if row.full else f"{percent_text(row.changed / row.words)} of the weights changed"
    return f"step {row.step}: {what}, published in {bytes_text(row.size)}; the receiver has every bit"


def _draw(path: Path, rows: Sequence[Row]) -> Path | None:
    try:
        draw(path, rows, title="Weights of a small language model, published at every RL step")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return None
    return path
