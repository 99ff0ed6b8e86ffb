"""Forks a process for each line of its input, so that tests can kill real writers without waiting for imports.

A line is a job as JSON; the answers are the process's id, and its exit status when it has ended.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

SIZE = 60_000


def state(step: int, run: int = 0) -> dict[str, np.ndarray]:
    """The weights of a step: too many for the first request of a read; each step changes one word in a hundred."""
    words = np.random.default_rng(run).integers(0, 1 << 16, SIZE, np.uint16)
    for number in range(step):
        words[np.random.default_rng([run, number]).integers(0, SIZE, SIZE // 100)] += 1
    return {"w": words, "step": np.array([step, run], np.int64)}


class Zygote:
    """The process that forks others, seen from outside; a context."""

    def __enter__(self) -> Self:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=600)

    def start(self, do: str, **job: Any) -> int:
        """Have a process do a job; gives its id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **job}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def wait(self) -> int:
        """How the process ended: its exit code, or the signal that killed it as a negative number."""
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


# -- what the processes do ---------------------------------------------------------------------------------------------


def _open(job: dict[str, Any], **more: Any) -> Any:
    import tensordelta as td

    os.environ["TENSORDELTA_CACHE"] = job["cache"]
    return td.open(job["address"], store_options=job["options"], threads=1, **more)


def publish(job: dict[str, Any]) -> None:
    """Publish a step under its number; make the chain if there is none."""
    _open(job, create=True).publish(state(job["step"]), version=job["step"], full=job.get("full", False))


def shortcut(job: dict[str, Any]) -> None:
    _open(job).shortcut(job["base"], job["step"])


def collect(job: dict[str, Any]) -> None:
    _open(job).collect(1, grace=0)


def copy(job: dict[str, Any]) -> None:
    import tensordelta as td

    os.environ["TENSORDELTA_CACHE"] = job["cache"]
    td.copy(job["source"], job["address"], target_options=job["options"])


def race(job: dict[str, Any]) -> None:
    """Publish some versions while another does so as well; write down which were a success."""
    import tensordelta as td

    done: list[tuple[int, int]] = []
    step = 0
    while len(done) < job["count"]:
        try:
            published = _open(job, create=True).publish(state(step, job["run"]))
        except (td.ConflictError, ValueError):
            continue
        done.append((published.version, step))
        step += 1
    Path(job["result"]).write_text(json.dumps(done))


def small_files(job: dict[str, Any]) -> None:
    """Publish a step while no file may be larger than some bytes; the failure has to be told as the machine's."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    try:
        publish(job)
    except OSError as error:
        sys.exit(3 if "too large" in str(error) else 4)


JOBS: dict[str, Callable[[dict[str, Any]], None]] = {
    each.__name__: each for each in (publish, shortcut, collect, copy, race, small_files)
}


def _run(job: dict[str, Any]) -> int:
    try:
        JOBS[job["do"]](job)
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _serve() -> None:
    import hf_xet  # noqa: F401 - imported once, for all
    import huggingface_hub.hf_api  # noqa: F401
    import obstore.store  # noqa: F401

    import tensordelta  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(_run(json.loads(line)))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
