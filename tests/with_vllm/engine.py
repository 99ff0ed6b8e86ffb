"""Engines of vLLM for tests, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

_HERE = Path(__file__).parent


def usual_environment() -> dict[str, str]:
    """The environment of an engine on a machine with few cores."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_HERE), *(each for each in sys.path if each)]),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_COLOR": "0",
        "GLOO_SOCKET_IFNAME": "lo",
    }


class EngineError(Exception):
    """What an engine answered in place of a result."""


class Engine:
    """An engine in a process of its own; methods are those of `engine_process.Engine`.

    Args:
        model: the folder that it loads.
        log: where its output goes.
        environment: more of it.
        arguments: keywords of vLLM's `LLM`.
    """

    def __init__(self, model: Path, log: Path, environment: dict[str, str] | None = None, **arguments: Any) -> None:
        self._log = log
        mine, its = os.pipe()
        self._answers = os.fdopen(mine, encoding="utf-8")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(_HERE / "engine_process.py"), str(its)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[its],
                start_new_session=True,
                env=usual_environment() | (environment or {}),
            )
        os.close(its)
        self.call("make", model=str(model), **arguments)

    def call(self, method: str, /, **arguments: Any) -> Any:
        """What a method answers.

        Raises:
            EngineError: it raised.
        """
        self.send(method, **arguments)
        return self.receive()

    def send(self, method: str, /, **arguments: Any) -> None:
        """Ask for a method, and wait for nothing."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        """The answer to what was asked first."""
        line = self._answers.readline()
        if not line:
            raise EngineError(f"the engine has ended, see {self._log}")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer["value"]

    def __getattr__(self, method: str) -> Any:
        return lambda **arguments: self.call(method, **arguments)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
