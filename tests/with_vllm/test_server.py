"""A vLLM server that follows a chain by itself: one flag, and one variable that names the chain."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine import usual_environment
from runs import Run

pytestmark = pytest.mark.slow

PROMPTS = [[1, 2, 3, 4, 5], [7, 8, 9], [100, 200, 300, 400, 500, 600, 700]]


class Server:
    """A server of vLLM in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def version(self) -> str:
        version: str = self.ask("weight_info")["weight_version"]
        return version

    def complete(self, prompt: list[int], tokens: int = 8) -> dict[str, Any]:
        body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 3}
        more = {"ignore_eos": True, "return_tokens_as_token_ids": True}
        choice: dict[str, Any] = self.ask("v1/completions", body | more)["choices"][0]
        return choice

    def wait(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so, while the server runs."""
        for _ in range(6000):
            try:
                if reached():
                    return
            except urllib.error.URLError:
                pass
            if self._process.poll() is not None:
                raise AssertionError("the server has ended")
            time.sleep(0.1)
        raise AssertionError("the server took too long")


@contextmanager
def server(model: Path, log: Path, environment: dict[str, str], *arguments: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    more = ["--served-model-name", "m", "--max-model-len", "128", "--max-num-seqs", "8", *arguments]
    variables = usual_environment() | {"VLLM_SERVER_DEV_MODE": "1"} | environment  # it is asked what it has
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *more], stdout=output, stderr=output, start_new_session=True, env=variables
        )
    try:
        found = Server(process, port)
        found.wait(lambda: found.ask("health") is None)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_one_flag_is_all(tmp_path: Path) -> None:
    """Plain weights of one rank, compiled: biases, an odd vocabulary, untied."""
    run = Run.of("qwen2", tmp_path, versions=1)
    chain = {"TENSORDELTA_CHAIN": str(run.chain.address), "TENSORDELTA_OPTIONS": '{"poll": 0.2, "scan_every": 2}'}
    flag = ("--weight-transfer-config", '{"backend":"tensordelta"}')
    environment = {"TENSORDELTA_UNPACKED": "1"}
    with server(run.folder / "model", tmp_path / "server.log", environment | chain, *flag) as following:
        following.wait(lambda: following.version() == "0")
        before = [following.complete(prompt) for prompt in PROMPTS]
        version = 0
        with ThreadPoolExecutor() as pool:
            for _ in range(3):  # each is published while requests are worked on, which go on with the new weights
                long = [pool.submit(following.complete, prompt, 110) for prompt in PROMPTS for _ in range(4)]
                version = run.publish_next()
                following.wait(lambda: following.version() == str(version))  # noqa: B023
                assert all(len(each.result()["logprobs"]["tokens"]) == 110 for each in long)
        after = [following.complete(prompt) for prompt in PROMPTS]
        checksums = following.ask("weight_checker", {"action": "checksum"})["checksums"]
    assert [each["text"] for each in before] != [each["text"] for each in after]

    with server(run.folder_of(version), tmp_path / "fresh.log", environment) as fresh:
        assert fresh.ask("weight_checker", {"action": "checksum"})["checksums"] == checksums
        for prompt, each in zip(PROMPTS, after, strict=True):
            found = fresh.complete(prompt)
            assert (found["text"], found["logprobs"]) == (each["text"], each["logprobs"])
