"""vLLM's API server as a process, in the environment that has vLLM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tensordelta.engines import VllmServer

#: Seconds for which a server may start: minutes on a busy machine.
_START = 900.0


class ApiServer:
    """A server of the model in a folder; a context, in which it answers.

    Attributes:
        url: where.
    """

    def __init__(self, python: str, model: Path, tokenizer: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--model", str(model), "--tokenizer", str(tokenizer), "--served-model-name", str(model)]
        self._command += ["--dtype", "bfloat16", "--max-model-len", "512", "--enforce-eager"]
        self._command += ["--weight-transfer-config", json.dumps({"backend": "tensordelta"})]
        self._model = str(model)
        self._routes = VllmServer(self.url, "")

    def __enter__(self) -> Self:
        environment = {
            "VLLM_SERVER_DEV_MODE": "1",  # the routes for new weights, and for checksums
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        with suppress(ProcessLookupError):  # its engine may outlive it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait(self) -> None:
        until = time.monotonic() + _START
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=30):
                    return
            except OSError:
                assert self._process.poll() is None, f"vLLM did not start:\n{self._log.read_text()[-6000:]}"
                assert time.monotonic() < until, f"vLLM does not answer:\n{self._log.read_text()[-6000:]}"
                time.sleep(0.5)

    def version(self) -> str:
        """What it calls its weights."""
        return self._routes.weight_version()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each parameter."""
        return self._routes.checksums()

    def answer(self, prompt: list[int]) -> dict[str, Any]:
        """Greedy tokens, and the logprobs of the five most probable ones."""
        wanted = {"model": self._model, "prompt": prompt, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
        body = json.dumps(wanted | {"logprobs": 5, "return_token_ids": True}).encode()
        request = urllib.request.Request(f"{self.url}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as reply:
            choice = json.load(reply)["choices"][0]
        return {"tokens": choice["token_ids"], "logprobs": choice["logprobs"]}
