"""What `submit` costs a trainer: its blocking time, CPU and memory, from numpy and from torch, beside TRL's way.

    python reference/benchmarks/submit.py [--size 500MB] [--device cpu|cuda] [--json FILE]

Each row is a process of its own, which holds a bf16 model of that size and changes a share of its words before each
step. Rows that need torch are left out where it is absent. TRL's way is what its delta weight sync does: a copy of all
weights to the host, a comparison with the copy before, and a safetensors file of int32 positions and bf16 values. As
its blocking time only the copy counts, as if a thread did the rest. On a CUDA device, "full copy" is the plain copy of
all weights to pinned host memory, which every way needs that compares on the host.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from os import environ
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from memory import Watch
from numpy.typing import NDArray
from options import in_process, parser_for_ways, write_rows
from timing import note

import tensordelta as td

#: Elements of a layer's tensor: 8 MiB of bf16.
_LAYER = (4096, 1024)
#: Share of the model that is one embedding.
_EMBEDDING = 8

Words = NDArray[np.uint16]


@dataclass(frozen=True)
class Row:
    """What one way costs; seconds of each round.

    Attributes:
        name: of the way.
        blocking: how long the trainer is held up.
        whole: from the beginning until all is stored.
        cpu: processor time of all threads, until all is stored.
        peak: most bytes of anonymous memory in a step, the model and what is kept from step to step included.
        held: bytes of anonymous memory before the first step: interpreter, libraries and model.
        stored: bytes put in each step.
        bus: bytes that came from the device in each step.
        device: most bytes of the device's memory next to the model; None without one.
    """

    name: str
    blocking: list[float]
    whole: list[float]
    cpu: list[float]
    peak: int
    held: int
    stored: int
    bus: int
    device: int | None = None


class Model:
    """Words of a bf16 model, and a trainer that changes the same share of them in each step."""

    def __init__(self, size: int, density: float) -> None:
        rng = np.random.default_rng(0)
        rows = max(1, size // _EMBEDDING // (2 * _LAYER[1]))
        layers = max(1, (size - 2 * rows * _LAYER[1]) // (2 * _LAYER[0] * _LAYER[1]))
        shapes = {"embedding": (rows, _LAYER[1])} | {f"layers.{layer}": _LAYER for layer in range(layers)}
        # Bits of small normal numbers: sign and mantissa at random, exponents near one another.
        self.words: dict[str, Words] = {
            name: rng.integers(0, 1 << 16, shape, np.uint16) & np.uint16(0x83FF) | np.uint16(0x3C00)
            for name, shape in shapes.items()
        }
        self.hits = {
            name: np.sort(rng.choice(words.size, int(words.size * density), replace=False))
            for name, words in self.words.items()
        }

    @property
    def nbytes(self) -> int:
        return sum(words.nbytes for words in self.words.values())

    @property
    def changed(self) -> int:
        return sum(len(hit) for hit in self.hits.values())

    def train(self) -> None:
        for name, words in self.words.items():
            words.reshape(-1)[self.hits[name]] ^= 1


@dataclass
class Way:
    """One way to publish: `submit` holds the trainer up, and gives what waits until all is stored."""

    train: Callable[[], object]
    submit: Callable[[], Callable[[], int]]
    bus: int = 0


@contextmanager
def from_numpy(model: Model, folder: Path, threads: int) -> Iterator[Way]:
    """`chain.publisher()` over arrays."""
    chain = td.open(folder, create=True, threads=threads)
    arrays = {name: words.view(ml_dtypes.bfloat16) for name, words in model.words.items()}
    with chain.publisher(skip=()) as publisher:

        def submit() -> Callable[[], int]:
            ticket = publisher.submit(arrays)
            return lambda: ticket.result().size

        yield Way(model.train, submit)


@contextmanager
def from_torch(
    model: Model, folder: Path, threads: int, *, device: str = "cpu", snapshot: Any = "device"
) -> Iterator[Way]:
    """`tensordelta.torch.Publisher` over a module."""
    import tensordelta.torch as tdt

    module, train = _module(model, device)
    chain = td.open(folder, create=True, threads=threads)
    with tdt.Publisher(chain, module, skip=(), snapshot=snapshot) as publisher:

        def submit() -> Callable[[], int]:
            ticket = publisher.submit()
            return lambda: ticket.result().size

        yield Way(train, submit, 0 if device == "cpu" else 8 * model.changed)  # a position, two words


@contextmanager
def trl(model: Model, folder: Path, threads: int, *, device: str = "cpu") -> Iterator[Way]:
    """A copy of all on the host, then int32 positions and bf16 values."""
    import torch
    from safetensors.torch import save_file

    module, train = _module(model, device)
    folder.mkdir()
    held: dict[str, torch.Tensor] = {}
    steps = iter(range(1 << 30))

    def submit() -> Callable[[], int]:
        copied = {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.named_parameters()}

        def store() -> int:
            found: dict[str, torch.Tensor] = {}
            for name, tensor in copied.items():
                if name in held:
                    new, old = tensor.view(torch.int16).reshape(-1), held[name].view(torch.int16).reshape(-1)
                    hit = (new != old).nonzero().reshape(-1)
                    found[f"{name}.positions"], found[f"{name}.values"] = hit.to(torch.int32), new[hit]
                else:
                    found[name] = tensor
            held.clear()
            held.update(copied)
            path = folder / f"{next(steps)}.safetensors"
            save_file(found, path)
            return path.stat().st_size

        return store

    yield Way(train, submit, 0 if device == "cpu" else model.nbytes)


@contextmanager
def full_copy(model: Model, folder: Path, threads: int, *, device: str) -> Iterator[Way]:
    """All weights to pinned host memory, and nothing else."""
    import torch

    module, train = _module(model, device)
    host = {name: torch.empty_like(tensor, device="cpu", pin_memory=True) for name, tensor in module.named_parameters()}

    def submit() -> Callable[[], int]:
        for name, tensor in module.named_parameters():
            host[name].copy_(tensor.detach(), non_blocking=True)
        torch.cuda.synchronize()
        return lambda: 0

    yield Way(train, submit, model.nbytes)


def _module(model: Model, device: str) -> tuple[Any, Callable[[], object]]:
    """The words as a module of torch, and its trainer; on the CPU over the same memory."""
    import torch

    module = torch.nn.Module()
    hits = {}
    for name, words in model.words.items():
        tensor = torch.from_numpy(words.view(np.int16)).view(torch.bfloat16).to(device)
        module.register_parameter(name.replace(".", "_"), torch.nn.Parameter(tensor))
        hits[name.replace(".", "_")] = torch.from_numpy(model.hits[name]).to(device)
    if device == "cpu":
        return module, model.train

    def train() -> None:
        for name, parameter in module.named_parameters():
            flat = parameter.detach().view(torch.int16).reshape(-1)
            flat[hits[name]] ^= 1
        torch.cuda.synchronize()

    return module, train


WAYS: dict[str, Callable[..., Any]] = {
    "numpy": from_numpy,
    "torch": from_torch,
    "torch, snapshot on the host": lambda *given, **more: from_torch(*given, snapshot="host", **more),
    "TRL's way": trl,
    "full copy": full_copy,
}


def measure(name: str, options: argparse.Namespace) -> Row:
    """Measure one way, in this process."""
    on_cuda = options.device != "cpu"
    model = Model(options.size, options.density)
    more = {"device": options.device} if name != "numpy" else {}
    row = Row(name, [], [], [], 0, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="tensordelta-submit-", dir=options.folder) as folder:
        environ["TENSORDELTA_CACHE"] = str(Path(folder, "cache"))
        if name != "numpy":
            import torch

            torch.set_num_threads(options.threads)
        with WAYS[name](model, Path(folder, "chain"), options.threads, **more) as way, Watch() as watch:
            if on_cuda:
                torch.cuda.reset_peak_memory_stats()
                on_device = torch.cuda.memory_allocated()
            stored = 0
            for number in range(-2, options.rounds):  # a full version and a delta warm up
                way.train()
                cpu, begun = time.process_time(), time.perf_counter()
                wait = way.submit()
                blocking = time.perf_counter() - begun
                stored = wait()
                if number >= 0:
                    row.blocking.append(blocking)
                    row.whole.append(time.perf_counter() - begun)
                    row.cpu.append(time.process_time() - cpu)
            device = torch.cuda.max_memory_allocated() - on_device if on_cuda else None
        return Row(name, row.blocking, row.whole, row.cpu, watch.peak, watch.start, stored, way.bus, device)


def print_rows(rows: list[Row], nbytes: int, options: argparse.Namespace) -> None:
    """Print the figures, and what they are to TRL's."""
    print(f"submit of {nbytes / 1e6:.0f} MB of bf16, {options.density:.2%} changed, {options.threads} threads")
    print(f"\n{'medians':<30}{'blocking':>10}{'whole':>10}{'CPU':>10}{'memory':>12}{'stored':>12}", end="")
    print(f"{'over the bus':>14}{'on the device':>15}" if options.device != "cpu" else "")
    for row in rows:
        times = "".join(f"{statistics.median(each):>8.3f} s" for each in (row.blocking, row.whole, row.cpu))
        print(f"{row.name:<30}{times}{(row.peak - row.held) / 1e6:>9.0f} MB{row.stored / 1e6:>9.2f} MB", end="")
        print(f"{row.bus / 1e6:>11.1f} MB{(row.device or 0) / 1e6:>12.0f} MB" if options.device != "cpu" else "")
    peer = next((row for row in rows if row.name == "TRL's way"), None)
    if peer is not None:
        print("\nTRL's way is so many times")
        print(f"{'':<30}{'blocking':>10}{'whole':>10}{'CPU':>10}{'memory':>12}{'stored':>12}")
        for row in rows:
            if row.stored and row is not peer:
                pairs = [(peer.blocking, row.blocking), (peer.whole, row.whole), (peer.cpu, row.cpu)]
                times = "".join(f"{statistics.median(one) / statistics.median(two):>10.2f}" for one, two in pairs)
                memory = (peer.peak - peer.held) / max(row.peak - row.held, 1)
                print(f"{row.name:<30}{times}{memory:>12.2f}{peer.stored / row.stored:>12.2f}")


def main(arguments: list[str] | None = None) -> int:
    """Print tables, and write JSON where it is asked for."""
    parser = parser_for_ways(__doc__, list(WAYS), "torch's model")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    if options.way:
        print(json.dumps(asdict(measure(options.way, options))))
        return 0
    names = ["numpy"]
    if find_spec("torch") is not None:
        names += ["torch", "TRL's way"]
        names += ["torch, snapshot on the host", "full copy"] if options.device == "cuda" else []
    else:
        note("torch is not installed: only numpy is measured")
    rows = [Row(**in_process(name, given)) for name in names]
    print_rows(rows, Model(options.size, 0).nbytes, options)
    write_rows(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
