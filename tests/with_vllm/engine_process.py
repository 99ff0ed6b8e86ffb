"""An engine of vLLM in a process of its own, which does what it reads: `python engine_process.py DESCRIPTOR`.

Each line of the input is a JSON list of a method's name and its keywords; each line that it writes to the descriptor is
the answer: {"value": …} or {"error": …}. What vLLM's processes print, at any moment and amid lines, is not in its way.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any


class Engine:
    """Methods that can be called from outside."""

    def __init__(self, **arguments: Any) -> None:
        from vllm import LLM
        from vllm.config import WeightTransferConfig

        self._llm = LLM(
            skip_tokenizer_init=True,
            max_model_len=128,
            max_num_seqs=8,
            worker_extension_cls="worker_faults.Faults",
            weight_transfer_config=WeightTransferConfig(backend="tensordelta"),
            **arguments,
        )

    def generate(self, prompts: list[list[int]], tokens: int = 8, anew: bool = True) -> list[Any]:
        """Greedy tokens and the logprobs of the three most probable ones, for each prompt; `anew` with no prefixes."""
        from vllm import SamplingParams

        if anew:
            self._llm.reset_prefix_cache()
        wanted = SamplingParams(temperature=0, max_tokens=tokens, logprobs=3, ignore_eos=True, detokenize=False)
        outputs = self._llm.generate([{"prompt_token_ids": each} for each in prompts], wanted, use_tqdm=False)
        return [
            [
                list(output.outputs[0].token_ids),
                [
                    {str(token): each.logprob.hex() for token, each in step.items()}
                    for step in output.outputs[0].logprobs
                ],
            ]
            for output in outputs
        ]

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each parameter of each rank."""
        found: dict[str, str] = {}
        for each in self._llm.collective_rpc("compute_weight_checksums"):
            found |= each
        return found

    def init(self, **info: Any) -> str:
        self._llm.init_weight_transfer_engine({"init_info": info})
        return self._llm.get_weight_version()

    def update(self, version: int | None = None, name: str | None = None) -> str:
        self._llm.start_weight_update()
        self._llm.update_weights({"update_info": {} if version is None else {"version": version}})
        self._llm.finish_weight_update(name)
        return self._llm.get_weight_version()

    def weight_version(self) -> str:
        return self._llm.get_weight_version()

    def start(self) -> None:
        self._llm.start_weight_update()

    def finish(self) -> None:
        self._llm.finish_weight_update()

    def rpc(self, name: str, **arguments: Any) -> list[Any]:
        """What each rank answers."""
        return self._llm.collective_rpc(name, kwargs=arguments)


def main() -> None:
    answers = int(sys.argv[1])
    os.set_inheritable(answers, False)
    engine: Engine | None = None
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            if method == "make":
                engine = Engine(**arguments)
                value = None
            else:
                value = getattr(engine, method)(**arguments)
            answer = {"value": value}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        with open(answers, "w", closefd=False) as file:
            file.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
