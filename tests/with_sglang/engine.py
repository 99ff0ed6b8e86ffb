"""An SGLang engine on the CPU for tests: its ranks in processes of their own, and the models that it serves."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import tensordelta.sglang as tds

Weights = dict[str, np.ndarray]

_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "vocab_size": 1003,  # of which the second of two ranks has fewer
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
}
#: Tied embeddings and one key-value head, which every rank has.
LLAMA = {
    **_SMALL,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
#: Untied embeddings, biases.
QWEN2 = {
    **_SMALL,
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
#: Norms to whose weights the loader adds one.
GEMMA = {
    **_SMALL,
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
}
#: Norms to whose weights the model adds one, in a buffer that it keeps.
GEMMA2 = {
    **GEMMA,
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "query_pre_attn_scalar": 16,
    "sliding_window": 32,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}


def random_weights(config: Mapping[str, Any], seed: int = 0) -> Weights:
    """A model's weights by the names of its checkpoint, bfloat16."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        own = {"q": heads * config["head_dim"], "k": kv, "v": kv}
        for each, size in own.items():
            shapes[f"{layer}.self_attn.{each}_proj.weight"] = (size, hidden)
            if config["model_type"] == "qwen2":
                shapes[f"{layer}.self_attn.{each}_proj.bias"] = (size,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, heads * config["head_dim"])
        shapes[f"{layer}.mlp.gate_proj.weight"] = shapes[f"{layer}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (hidden, inner)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if config["model_type"] == "gemma2":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        shapes |= {f"{layer}.{each}.weight": (hidden,) for each in norms}
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.1, shape).astype(ml_dtypes.bfloat16) for name, shape in shapes.items()}


def changed(weights: Weights, seed: int, share: float = 0.01) -> Weights:
    """The same weights, of which this share of the words is other bits, whatever they stand for; one at least."""
    rng = np.random.default_rng(seed)
    result = {}
    for name, array in weights.items():
        words = array.reshape(-1).view(np.uint16).copy()
        at = rng.permutation(len(words))[: max(1, round(share * len(words)))]
        words[at] ^= rng.integers(1, 1 << 16, len(at), np.uint16)
        result[name] = words.view(ml_dtypes.bfloat16).reshape(array.shape)
    return result


def files(config: Mapping[str, Any]) -> dict[str, bytes]:
    """What an engine needs beside the weights."""
    return {"config.json": json.dumps(config).encode()}


def save(folder: Path, config: Mapping[str, Any], weights: Weights) -> Path:
    """A folder that an engine can load."""
    folder.mkdir(parents=True)
    for name, data in files(config).items():
        (folder / name).write_bytes(data)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Engine:
    """An engine of `size` ranks, as a context; every call goes to all ranks at once.

    Args:
        size: how many ranks.
        folder: of any model.
        options: SGLang's, in place of tensor parallelism.
    """

    def __init__(self, size: int, folder: Path, **options: Any) -> None:
        here = str(Path(__file__).parent)
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if here not in paths:  # for the process that imports SGLang once, of which the ranks are forks
            os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, paths)])
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["rank"])
        self.size = size
        self._pipes, self.processes = [], []
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for number in range(size):
            pipe, other = context.Pipe()
            where = number, size, port, str(folder), options or {"tp_size": size}
            process = context.Process(target=_run, args=(other, *where), daemon=True)
            process.start()
            other.close()
            self._pipes.append(pipe)
            self.processes.append(process)
        for number in range(size):
            success, error = self._receive(number)
            assert success, error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
            process.kill()

    def call(self, method: str, *arguments: Any, ranks: Sequence[int] | None = None) -> list[Any]:
        """Call a method of `rank.Rank` on all ranks, or on some; their results.

        Raises:
            RuntimeError: a rank raised, which ends a real server.
        """
        meant = range(self.size) if ranks is None else ranks
        for number in meant:
            self._pipes[number].send((method, arguments))
        answers = [self._receive(number) for number in meant]
        for success, result in answers:
            if not success:
                raise RuntimeError(result)
        return [result for _, result in answers]

    def update(self, root: object, version: int, **options: Any) -> str | None:
        """Send a pointer to all ranks, as a driver does it; the error that the server answers, or None."""
        return self.send([tds.pointer(str(root), version, **options)] * self.size, str(version))

    def send(self, tensors: Sequence[Any], weight_version: str) -> str | None:
        """Send tensors, those of each rank, in a session; the error that the server answers, or None."""
        self.call("begin")
        answers = self.call("update", [pickle.dumps(each) for each in tensors], weight_version)
        self.call("end")
        assert len({success for success, _ in answers}) == 1, answers  # a server has only rank 0's
        success, message = answers[0]
        return None if success else message

    def _receive(self, number: int) -> tuple[bool, Any]:
        if not self._pipes[number].poll(600):
            raise TimeoutError(f"rank {number} does not answer")
        success, result = self._pipes[number].recv()
        return success, result


def _run(*arguments: Any) -> None:
    import rank  # here, because the test's own process needs no SGLang

    rank.run(*arguments)
