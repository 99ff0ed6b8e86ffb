"""An engine of vLLM, and the ways in which new weights come into it; `engine.py` runs this file anew for each engine.

    python served.py CHAIN FOLDER --ranks 2 --ways tensordelta,reload,patches

It serves version 0 of a chain, goes to each newer one in each of the ways, and prints what that took as JSON. Each way
has what it needs in memory before the pause begins: no way waits for a network or a disk in it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from timing import note

import tensordelta as td

_PROMPTS = [[1, 2, 3, 4, 5], [7, 8, 9], [100, 200, 300, 400]]
#: Comes before the result, because vLLM prints as well.
MARK = "\x02result "


class Worker:
    """What is added to vLLM's workers, each of which has one rank's part of the model."""

    model_runner: Any
    reload_weights: Any

    def watch_memory(self) -> None:
        """Have the process's peak counted from here on."""
        Path("/proc/self/clear_refs").write_text("5")

    def memory(self) -> dict[str, int]:
        """Bytes of this process: its part of what is resident (PSS), what is resident, and the peak of that."""
        found = {"pss": "Pss:", "resident": "Rss:"}
        rollup, status = Path("/proc/self/smaps_rollup").read_text(), Path("/proc/self/status").read_text()
        return {name: _kilobytes(rollup, field) for name, field in found.items()} | {
            "peak": _kilobytes(status, "VmHWM:")
        }

    def keep_state(self, address: str) -> None:
        """Have version 0 in host memory."""
        self._chain = td.open(address)
        self._state = self._chain.load(0)

    def prepare_state(self, version: int) -> None:
        """Prepare an update of the state in host memory."""
        self._update = self._chain.prepare(self._state, version)

    def write_state(self) -> None:
        """Apply it, and have the model's own loader copy the state into the parameters."""
        self._update.apply()
        self._load()

    def hold_weights(self, version: int) -> None:
        """Have all weights of a version in memory."""
        if self._state.version != version:
            self._chain.prepare(self._state, version).apply()

    def write_weights(self) -> None:
        """Load all weights layer by layer, as vLLM's weight transfer does."""
        from tensordelta.torch import named_tensors

        self.reload_weights(weights_iterator=iter(list(named_tensors(self._state))))

    def hold_patches(self, version: int) -> None:
        """Have the changes to a version in memory, as vLLM takes them."""
        import numpy as np
        import torch
        from vllm.model_executor.model_loader.checkpoint_weight_patch import CheckpointWeightPatch

        update = self._chain.prepare(self._state, version)
        self._patches = [
            CheckpointWeightPatch(
                patch.name,
                tuple(patch.shape),
                torch.bfloat16,
                torch.from_numpy(patch.values.view(np.int16)).view(torch.bfloat16),
                torch.from_numpy(patch.indices),
            )
            for patch in update.patches()
        ]
        update.apply()

    def write_patches(self) -> None:
        """Have vLLM write them."""
        from vllm.model_executor.model_loader.checkpoint_weight_patch import load_checkpoint_weight_patches

        load_checkpoint_weight_patches(self.model_runner.get_model(), self._patches)

    def _load(self) -> None:
        import torch

        from tensordelta.torch import named_tensors

        with torch.no_grad():
            self.model_runner.get_model().load_weights(named_tensors(self._state))


def _kilobytes(text: str, field: str) -> int:
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(field))


class Way:
    """A way in which new weights come into an engine.

    Args:
        llm: the engine, which has version 0.
        address: of a chain, which gets one version after another.
    """

    def __init__(self, llm: Any, address: Path) -> None:
        self._llm, self._address = llm, address

    def begin(self) -> None:
        """Do what is done once."""
        self._llm.collective_rpc("keep_state", args=(str(self._address),))

    def prepare(self, version: int) -> None:
        """Do what is done while the engine serves."""
        raise NotImplementedError

    def write(self, version: int) -> None:
        """Do what is done in the pause."""
        raise NotImplementedError


class Ours(Way):
    """The back end `tensordelta`."""

    def begin(self) -> None:
        self._llm.init_weight_transfer_engine({"init_info": {"chain": str(self._address), "poll": 0.1}})
        self.write(0)

    def prepare(self, version: int) -> None:
        while not all(each == version for each in self._llm.collective_rpc("tensordelta_prepared")):
            time.sleep(0.05)

    def write(self, version: int) -> None:
        self._llm.start_weight_update()
        self._llm.update_weights({"update_info": {"version": version}})
        self._llm.finish_weight_update()


class HostCopy(Way):
    """A state in host memory that is updated, and then copied into the parameters by the model's loader."""

    def prepare(self, version: int) -> None:
        self._llm.collective_rpc("prepare_state", args=(version,))

    def write(self, version: int) -> None:
        self._llm.collective_rpc("write_state")


class Reload(Way):
    """vLLM's layerwise reload of all weights, from host memory."""

    def prepare(self, version: int) -> None:
        self._llm.collective_rpc("hold_weights", args=(version,))

    def write(self, version: int) -> None:
        self._llm.collective_rpc("write_weights")


class Patches(Way):
    """vLLM's own patches of a checkpoint's tensors."""

    def prepare(self, version: int) -> None:
        self._llm.collective_rpc("hold_patches", args=(version,))

    def write(self, version: int) -> None:
        self._llm.collective_rpc("write_patches")


WAYS: dict[str, type[Way]] = {"tensordelta": Ours, "host copy": HostCopy, "reload": Reload, "patches": Patches}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start an engine, and take it through the versions in each way.

    Returns:
        `ways`: by name the seconds of `begin`, and of `prepare` and the pause for each version, and what the engine
        answers at the last one. `memory`: of each worker, `before` and `after` the first way.
    """
    source, live = td.open(options.chain), options.folder / "live"
    model = options.folder / "model"
    source.pull(model, 0)
    last = source.newest()
    assert last is not None
    llm = start(model, options.ranks)
    answers(llm)
    llm.collective_rpc("watch_memory")
    before = llm.collective_rpc("memory")
    found: dict[str, Any] = {"ways": {}}
    td.copy(options.chain, live, range(1))
    ways = [(name, WAYS[name](llm, live)) for name in options.ways]
    for number, (name, way) in enumerate(ways):
        note(f"{options.ranks} ranks, {name}")
        begun = time.perf_counter()
        way.begin()
        row: dict[str, Any] = {"begin": time.perf_counter() - begun, "prepare": [], "pause": []}
        if number:  # the engine has the last version: back, by a reload, which takes less memory than a full update
            llm.collective_rpc("write_weights")
        for version in range(1, last + 1):
            td.copy(options.chain, live, range(version + 1), quick=True)
            begun = time.perf_counter()
            way.prepare(version)
            ready = time.perf_counter()
            way.write(version)
            row["pause"].append(time.perf_counter() - ready)
            row["prepare"].append(ready - begun)
        if not number:
            found["memory"] = {"before": before, "after": llm.collective_rpc("memory")}
        found["ways"][name] = row | {"answers": answers(llm)}
    return found


def start(model: Path, ranks: int) -> Any:
    """An engine that knows the back end."""
    for name, value in {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }.items():
        os.environ.setdefault(name, value)
    from vllm import LLM
    from vllm.config import WeightTransferConfig

    return LLM(
        model=str(model),
        tensor_parallel_size=ranks,
        dtype="bfloat16",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=8,
        worker_extension_cls="served.Worker",
        weight_transfer_config=WeightTransferConfig(backend="tensordelta"),
    )


def answers(llm: Any) -> list[Any]:
    """Greedy tokens with the log-probabilities of the three most probable ones."""
    from vllm import SamplingParams

    llm.reset_prefix_cache()
    wanted = SamplingParams(temperature=0, max_tokens=8, logprobs=3, ignore_eos=True, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": each} for each in _PROMPTS], wanted, use_tqdm=False)
    return [
        (list(each.token_ids), [{token: found.logprob for token, found in step.items()} for step in each.logprobs])
        for output in outputs
        for each in output.outputs
    ]


def main() -> int:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("chain", type=Path, help="of a model that vLLM knows; it is only read")
    parser.add_argument("folder", type=Path, help="an empty one, for the model and a copy of the chain")
    parser.add_argument("--ranks", type=int, default=1, help="the size of tensor parallelism")
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS), help="one after another")
    print(MARK + json.dumps(measure(parser.parse_args())), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
