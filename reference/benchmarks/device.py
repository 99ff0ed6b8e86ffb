"""What an update costs an engine whose weights lie on a device, beside a copy of all of them.

    python reference/benchmarks/device.py [--size 500MB] [--device cpu|cuda] [--json FILE]

Each row is a process of its own, which holds a bf16 model of that size on the device and goes to the next version of a
chain again and again. `DeviceState` gathers old words on the device and scatters the new ones. "host copy" keeps the
state in memory as well, updates that, and writes the patches to the device. "full copy" is the plain copy of all
weights to the device, from memory that it can read directly: what an engine's pause costs where whole weights are sent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import environ
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from memory import Watch
from options import in_process, parser_for_ways, write_rows
from submit import Model
from timing import note

import tensordelta as td


@dataclass(frozen=True)
class Row:
    """What one way costs an engine; seconds of each round.

    Attributes:
        name: of the way.
        prepare: fetching, decoding and proving, while the engine serves.
        pause: writing the new words, while it does not.
        start: finding out which version the engine has, by reading every word.
        peak: most bytes of anonymous memory of the host, without the model where that is on the host.
        bus: bytes that went to the device in each round.
    """

    name: str
    prepare: list[float]
    pause: list[float]
    start: float
    peak: int
    bus: int


Way = Callable[[dict[str, Any], td.Chain], tuple[float, Callable[[int], tuple[Callable[[], object], int]]]]


def device_state(tensors: dict[str, Any], chain: td.Chain) -> Any:
    """The words lie in the tensors alone."""
    import tensordelta.torch as tdt

    begun = time.perf_counter()
    state = tdt.DeviceState.of(tensors)
    chain.identify(state)
    start = time.perf_counter() - begun

    def prepare(version: int) -> tuple[Callable[[], object], int]:
        update = chain.prepare(state, version)
        return update.apply, update.memory

    return start, prepare


def host_copy(tensors: dict[str, Any], chain: td.Chain) -> Any:
    """The words lie in the tensors, and on the host."""
    import torch

    begun = time.perf_counter()
    state = chain.load(0)
    start = time.perf_counter() - begun

    def prepare(version: int) -> tuple[Callable[[], object], int]:
        update = chain.prepare(state, version)
        patches = []
        for patch in update.patches():
            words = tensors[patch.name].view(torch.int16).view(-1)
            new = torch.from_numpy(patch.values.view(np.int16)).to(words.device)
            patches.append((words, torch.from_numpy(patch.indices).to(words.device), new))

        def apply() -> None:
            update.apply()
            for words, indices, new in patches:
                words[indices] = new

        return apply, sum(indices.nbytes + new.nbytes for _, indices, new in patches)

    return start, prepare


def full_copy(tensors: dict[str, Any], chain: td.Chain) -> Any:
    """All weights, from pinned memory where the device has such."""
    import torch

    pinned = next(iter(tensors.values())).device.type == "cuda"
    sources = {name: torch.empty_like(tensor, device="cpu", pin_memory=pinned) for name, tensor in tensors.items()}

    def prepare(version: int) -> tuple[Callable[[], object], int]:
        def apply() -> None:
            for name, source in sources.items():
                tensors[name].copy_(source, non_blocking=True)

        return apply, sum(source.nbytes for source in sources.values())

    return 0.0, prepare


WAYS: dict[str, Way] = {"DeviceState": device_state, "host copy": host_copy, "full copy": full_copy}


def measure(name: str, options: argparse.Namespace, address: Path) -> Row:
    """Measure one way, in this process."""
    import torch

    torch.set_num_threads(options.threads)
    chain = td.open(address, threads=options.threads)
    # The model comes from a file, so that on the CPU it counts as the engine's memory, and not as the way's.
    held = td.read_state(address.with_name("model.safetensors"))
    tensors = {
        each: torch.from_numpy(np.array(held[each]).view(np.int16)).view(torch.bfloat16).to(options.device)
        for each in held
    }
    del held

    def finish() -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()

    row = Row(name, [], [], 0.0, 0, 0)
    bus = 0
    with Watch() as watch:
        start, prepare = WAYS[name](tensors, chain)
        for version in range(1, options.rounds + 2):  # the first one warms up
            begun = time.perf_counter()
            apply, bus = prepare(version)
            finish()
            ready = time.perf_counter()
            apply()
            finish()
            if version > 1:
                row.prepare.append(ready - begun)
                row.pause.append(time.perf_counter() - ready)
    return Row(name, row.prepare, row.pause, start, watch.peak - watch.start, bus)


def publish(folder: Path, options: argparse.Namespace) -> int:
    """A chain of the model, and the model as a file; returns its size in bytes."""
    model = Model(options.size, options.density)
    arrays = {name: words.view(ml_dtypes.bfloat16) for name, words in model.words.items()}
    td.State.from_arrays(arrays).save(folder / "model.safetensors")
    chain = td.open(folder / "chain", create=True, threads=options.threads)
    chain.publish(arrays)
    for _ in range(options.rounds + 1):
        model.train()
        chain.publish(arrays)
    return model.nbytes


def print_rows(rows: list[Row], nbytes: int, options: argparse.Namespace) -> None:
    """Print the figures, and what a full copy is to them."""
    print(f"update of {nbytes / 1e6:.0f} MB of bf16 on {options.device}, {options.density:.2%} changed, ", end="")
    print(f"{options.threads} threads")
    print(f"\n{'medians':<14}{'start':>10}{'prepare':>12}{'pause':>12}{'host memory':>14}{'to the device':>16}")
    full = next(row for row in rows if row.name == "full copy")
    for row in rows:
        prepare, pause = statistics.median(row.prepare), statistics.median(row.pause)
        print(f"{row.name:<14}{row.start:>8.3f} s{prepare:>10.4f} s{pause:>10.4f} s", end="")
        print(f"{row.peak / 1e6:>11.0f} MB{row.bus / 1e6:>13.1f} MB", end="")
        print(
            f"   a full copy takes {statistics.median(full.pause) / pause:.2f} of the pause" if row is not full else ""
        )


def main(arguments: list[str] | None = None) -> int:
    """Print a table, and write JSON where it is asked for."""
    parser = parser_for_ways(__doc__, list(WAYS), "the engine's model")
    parser.add_argument("--chain", type=Path, help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    if options.way:
        print(json.dumps(asdict(measure(options.way, options, options.chain))))
        return 0
    with tempfile.TemporaryDirectory(prefix="tensordelta-device-", dir=options.folder) as folder:
        environ["TENSORDELTA_CACHE"] = str(Path(folder, "cache"))
        note("publishing")
        nbytes = publish(Path(folder), options)
        rows = [Row(**in_process(name, [*given, "--chain", Path(folder, "chain")])) for name in WAYS]
    print_rows(rows, nbytes, options)
    write_rows(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
