"""Peak memory of publishing from files and of pulling, each in a process that does nothing else.

`peaks` runs this file anew for each step and gathers what the steps print. Counted is anonymous memory (RssAnon of
/proc/self/status): pages of mapped files are the kernel's to take back, and are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_STATUS = Path("/proc/self/status")
_INTERVAL = 0.002
#: Disk needed, in sizes of the model: two checkpoints, the full version, and the writer's snapshot, with some slack.
_DISK = 4
#: Memory needed to make the checkpoints, in sizes of the model.
_MEMORY = 2.2


@dataclass(frozen=True)
class Peak:
    """What one step needed.

    Attributes:
        step: "publish full", "publish delta", "pull full" or "pull delta".
        peak: greatest anonymous memory of the process, in bytes, the interpreter and its libraries included.
        start: anonymous memory before the step, in bytes.
        changed: number of words listed by the version.
        seconds: how long the step took.
    """

    step: str
    peak: int
    start: int
    changed: int
    seconds: float


def obstacle(size: int) -> str | None:
    """Why memory cannot be measured here, or None."""
    if _anonymous() is None:
        return "this system does not tell a process's anonymous memory"
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < _DISK * size:
        return f"needs {_DISK * size / 2**30:.0f} GiB of disk, there are {free / 2**30:.0f}"
    available = _available()
    if available is not None and available < _MEMORY * size:
        return f"needs {_MEMORY * size / 2**30:.0f} GiB of memory to make its checkpoints, {available / 2**30:.0f} free"
    return None


def peaks(size: int, *, density: float, threads: int, environment: Mapping[str, str]) -> list[Peak]:
    """Measure on two synthetic checkpoints of `size` bytes, written to a temporary folder.

    Args:
        size: bytes of a checkpoint.
        density: share of the words that change.
        threads: given to the chain.
        environment: in which the processes run.

    Raises:
        subprocess.CalledProcessError: a step failed.
    """
    found: list[Peak] = []
    with tempfile.TemporaryDirectory(prefix="tensordelta-memory-") as temporary:
        folder = Path(temporary)
        chain, engine = folder / "chain", folder / "engine"
        steps = [folder / f"step_{step}.safetensors" for step in range(2)]
        settings = {**environment, "TENSORDELTA_CACHE": str(folder / "cache")}

        def step(name: str, *arguments: object) -> None:
            command = [sys.executable, __file__, *map(str, arguments)]
            result = subprocess.run(command, env=settings, check=True, stdout=subprocess.PIPE, text=True)
            if name:
                found.append(Peak(name, **json.loads(result.stdout)))

        step("", "write", folder, size, density)
        step("publish full", "publish", chain, threads, steps[0])
        steps[0].unlink()
        step("publish delta", "publish", chain, threads, steps[1])
        steps[1].unlink()
        shutil.rmtree(folder / "cache")
        step("pull full", "pull", chain, threads, engine, 0)
        step("pull delta", "pull", chain, threads, engine, 1)
    return found


class Watch:
    """Follows the process's anonymous memory from a thread of its own."""

    def __init__(self) -> None:
        self.start = self.peak = _anonymous() or 0
        self.seconds = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        while not self._done.wait(_INTERVAL):
            self.peak = max(self.peak, _anonymous() or 0)

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._begun
        self._done.set()
        self._thread.join()


def _anonymous() -> int | None:
    """Anonymous memory of this process, in bytes."""
    return _field(_STATUS, "RssAnon:")


def _available() -> int | None:
    """Memory that the machine can still give, in bytes."""
    return _field(Path("/proc/meminfo"), "MemAvailable:")


def _field(path: Path, name: str) -> int | None:
    try:
        with path.open() as file:
            return next((int(line.split()[1]) << 10 for line in file if line.startswith(name)), None)
    except OSError:
        return None


def _write(folder: Path, size: int, density: float) -> None:
    """Write both checkpoints, tensor by tensor."""
    import simulate

    from tensordelta.format.layout import Tensor
    from tensordelta.state.checkpoint import shard_header

    for step, state in enumerate(simulate.pair(size, density=density, regime="master_fp32")):
        tensors = [Tensor(name, "BF16", words.shape) for name, words in state.items()]
        with (folder / f"step_{step}.safetensors").open("wb") as file:
            file.write(shard_header(tensors, {}))
            for tensor in tensors:
                file.write(state.pop(tensor.name).data)


def _publish(address: Path, threads: int, checkpoint: Path) -> dict[str, Any]:
    import tensordelta as td

    with Watch() as watch:
        published = td.open(address, create=True, threads=threads).publish(checkpoint)
    return {"peak": watch.peak, "start": watch.start, "changed": published.changed, "seconds": watch.seconds}


def _pull(address: Path, threads: int, folder: Path, version: int) -> dict[str, Any]:
    import tensordelta as td

    with Watch() as watch:
        chain = td.open(address, threads=threads)
        chain.pull(folder, version)
    changed = chain.manifest(version).changed
    return {"peak": watch.peak, "start": watch.start, "changed": changed, "seconds": watch.seconds}


def _main(action: str, *arguments: str) -> None:
    if action == "write":
        _write(Path(arguments[0]), int(arguments[1]), float(arguments[2]))
    elif action == "publish":
        print(json.dumps(_publish(Path(arguments[0]), int(arguments[1]), Path(arguments[2]))))
    else:
        print(json.dumps(_pull(Path(arguments[0]), int(arguments[1]), Path(arguments[2]), int(arguments[3]))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One part of what run.py measures, in a process of its own.")
    parser.add_argument("action", choices=["write", "publish", "pull"])
    parser.add_argument("arguments", nargs="*", help="as run.py gives them")
    options = parser.parse_args()
    _main(options.action, *options.arguments)
