"""Small models with random weights, and chains of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import tensordelta as td

Weights = dict[str, torch.Tensor]

_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def make_model(kind: str, folder: Path) -> Weights:
    """A model in a folder.

    Args:
        kind: `qwen2`, with biases, an odd vocabulary and an output layer of its own; `llama`, tied, with one head of
            keys and values; `llama-twice`, the same, whose checkpoint has the tied weight under both names.
        folder: where it goes.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "max_position_embeddings": 256}
    torch.manual_seed(1)
    if kind == "qwen2":
        config = Qwen2Config(
            vocab_size=1003, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False, **sizes
        )
        model = Qwen2ForCausalLM(config)
    else:
        config = LlamaConfig(
            vocab_size=1000, num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True, **sizes
        )
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.bfloat16().save_pretrained(folder)
    words = {f"w{number}": number for number in range(config.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    if kind == "llama-twice":
        weights[_HEAD] = weights[_EMBEDDING].clone()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return weights


def changed(weights: Weights, seed: int, share: float = 0.05, besides: tuple[str, ...] = ()) -> Weights:
    """Weights of which a share of the words of each tensor differs; tied ones stay so."""
    generator = np.random.default_rng(seed)
    after = {}
    for name, tensor in weights.items():
        after[name] = tensor = tensor.clone()
        if name not in besides:
            where = torch.from_numpy(generator.random(tuple(tensor.shape)) < share)
            noise = torch.from_numpy(generator.standard_normal(tuple(tensor.shape))).to(tensor.dtype)
            tensor[where] = (tensor + noise * 0.1)[where]
    if _HEAD in weights and torch.equal(weights[_HEAD], weights[_EMBEDDING]):
        after[_HEAD] = after[_EMBEDDING].clone()
    return after


def publish(chain: td.Chain, weights: Weights, folder: Path, **options: object) -> int:
    """Publish weights with the files of a model's folder."""
    files = {path.name: path for path in folder.iterdir() if path.suffix == ".json"}
    return chain.publish(weights, files=files, layout_change=True, **options).version
