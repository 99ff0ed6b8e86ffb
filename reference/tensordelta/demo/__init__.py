"""A small but real training run, published step by step and followed bit by bit.

`run` trains a network, publishes the bfloat16 weights of every step to a chain, follows the chain as a receiver that
sees nothing else, and compares each of the receiver's words with the trainer's.
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

from ..chain import Chain
from ..errors import IntegrityError
from ..format.names import CHAIN as CHAIN_OBJECT
from ..opening import open
from ..state.state import State
from ..tables import Table, bytes_text, percent_text, ratio_text
from ..write.snapshot import snapshot_folder
from .child import train
from .picture import Row, draw, duration
from .training import Checkpoint

try:
    from safetensors import deserialize
except ModuleNotFoundError:
    raise ImportError(
        "the demo needs the package safetensors: pip install 'tensordelta[demo]'", name="safetensors"
    ) from None


CHAIN, CHECKOUT, PICTURE = "chain", "checkout", "demo.png"
_SHARD = "model.safetensors"
_MARKER = ".tensordelta-demo"
_MARKER_TEXT = "The tensordelta demo made chain {chain}, its checkout and its picture; it may replace them.\n"
_CHAIN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: The files of a run, and those that it leaves when it is killed.
_MADE = re.compile(
    rf"{PICTURE}|{CHAIN}/\.?(chain|latest)\.json(\.[0-9a-f]+)?"
    rf"|{CHAIN}/(manifests|layouts|packs|fingerprints)/\.?[0-9a-f]{{12,64}}(-[0-9a-f]{{16}})?\.[a-z]+(\.[0-9a-f]+)?"
    rf"|{CHECKOUT}/{_SHARD}|{CHECKOUT}/\.tensordelta/.+"
)


@dataclass(frozen=True)
class DemoResult:
    """The result of a run.

    Attributes:
        rows: sizes and times of each step.
        chain: folder of the chain.
        checkout: the pulled folder, with the last step's weights.
        picture: the picture; None without steps of RL, or if matplotlib is not installed.
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
                f"{row.published.changed:,}",
                percent_text(row.published.density),
                bytes_text(row.published.size),
                ratio_text(row.published.ratio),
                f"{row.published.bits_per_change:.2f}",
                duration(row.published.seconds or 0),
                duration(row.apply_seconds),
            ]
            for row in self.rows
        ]
        last = self.rows[-1].published
        weights = f"{last.words:,} weights ({bytes_text(last.nbytes)})"
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
    """Train, publish, follow, compare, and draw.

    Args:
        folder: the folder for chain, checkout and picture; those of an earlier run are replaced.
        steps: number of RL steps; step 0 comes before them.
        seed: of all random numbers.
        report: called with a line of text after each part of the run.
        on_progress: called with what the trainer did, and the share of the training that is done, from 0 to 1.

    Raises:
        FileExistsError: the folder has files that the demo did not make.
        IntegrityError: a word differs.
    """
    identity = str(uuid.uuid4())
    prepare_folder(folder, identity)
    report("training a small network; its weights, and those after each step of RL, are published")
    writer = open(folder / CHAIN, create=True, chain=identity)
    try:
        receiver = open(folder / CHAIN, chain=identity)
        held = State.empty()
        rows: list[Row] = []
        for checkpoint in train(steps=steps, seed=seed, on_progress=on_progress):
            rows.append(_follow(writer, receiver, held, checkpoint))
            report(_line(rows[-1]))
    finally:
        shutil.rmtree(snapshot_folder(writer.id), ignore_errors=True)  # nothing else is published to this chain
    found = receiver.verify(deep=True)
    if not found.ok:
        raise found.faults[0]
    report(f"verified: {len(found.versions)} versions, every object and every edge")
    pulled = receiver.pull(folder / CHECKOUT)
    shard = folder / CHECKOUT / _SHARD
    _compare(str(shard), checkpoint, _words(shard))
    report(f"pulled: {folder / CHECKOUT} loads back as version {pulled.version}, bit by bit")
    return DemoResult(rows, folder / CHAIN, folder / CHECKOUT, _draw(folder / PICTURE, rows))


def prepare_folder(folder: Path, identity: str) -> None:
    """Remove the files of an earlier run.

    Args:
        folder: the folder of the run.
        identity: the id that its chain will have.

    Raises:
        FileExistsError: there are files that the demo did not make; nothing was removed.
    """
    present = [folder / name for name in (CHAIN, CHECKOUT, PICTURE) if os.path.lexists(folder / name)]
    marker = folder / _MARKER
    made = marker.read_text() if marker.is_file() else ""
    for path in (path for each in present for path in (each, *each.rglob("*"))):
        if not made or path.is_symlink() or not (path.is_dir() or _is_ours(path, folder, made)):
            raise FileExistsError(f"{path} is in the way, and the demo did not make it: move it, or name another --dir")
    for path in present:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(_MARKER_TEXT.format(chain=identity))


def _is_ours(path: Path, folder: Path, made: str) -> bool:
    """True for a file of the chain that an earlier run made, and of its checkout."""
    name = path.relative_to(folder).as_posix()
    if name in (f"{CHAIN}/{CHAIN_OBJECT}", f"{CHECKOUT}/.tensordelta/state.json"):
        return all(chain_id in made for chain_id in _CHAIN_ID.findall(path.read_text(errors="replace")))
    return _MADE.fullmatch(name) is not None


def _follow(writer: Chain, receiver: Chain, held: State, checkpoint: Checkpoint) -> Row:
    """Publish a step, bring the receiver's state to it, and compare every word."""
    published = writer.publish(checkpoint.weights, annotations={"step": str(checkpoint.step)})
    update = receiver.prepare(held)
    started = time.perf_counter()
    update.apply()
    applied = time.perf_counter() - started
    _compare(f"step {checkpoint.step}", checkpoint, {name: (each.shape, each.tobytes()) for name, each in held.items()})
    return Row(checkpoint.step, published, applied)


def _words(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of each tensor of a file, as the package safetensors reads it."""
    read: Callable[[bytes], list[tuple[str, Mapping[str, Any]]]] = deserialize
    return {name: (tuple(entry["shape"]), bytes(entry["data"])) for name, entry in read(path.read_bytes())}


def _compare(where: str, checkpoint: Checkpoint, words: Mapping[str, tuple[tuple[int, ...], bytes]]) -> None:
    """Compare shape and bytes of each tensor with the trainer's: as bytes, -0 is not 0, and NaN equals itself."""
    wanted = {name: (weight.shape, weight.tobytes()) for name, weight in checkpoint.weights.items()}
    differ = [name for name in wanted.keys() | words.keys() if wanted.get(name) != words.get(name)]
    if differ:
        raise IntegrityError(
            f"{len(differ)} tensors differ from the trainer's, {min(differ)} among them",
            object=where,
            rule="TD-RDR-007",
            advice="This is a bug of tensordelta: please report it.",
        )


def _line(row: Row) -> str:
    changed = f"{percent_text(row.published.density)} of the weights changed"
    what = "the whole state" if row.published.base is None else changed
    return f"step {row.step}: {what}, published in {bytes_text(row.published.size)}; the receiver has every bit"


def _draw(path: Path, rows: Sequence[Row]) -> Path | None:
    if len(rows) == 1:
        return None
    try:
        draw(path, rows, title="Weights of a small network, published at every RL step")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        return None
    return path
