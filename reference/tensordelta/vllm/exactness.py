"""Which engines can be updated so that they answer as one does that was started on the new weights."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.platforms import current_platform

#: Set by the user when the engine starts: linear layers are not packed on a CPU.
UNPACKED = "TENSORDELTA_UNPACKED"

#: What spreads a model over ranks in ways that were never tried, by its size in `ParallelConfig`.
_WIDTHS = {
    "pipeline_parallel_size": "pipeline parallelism",
    "data_parallel_size": "data parallelism",
    "prefill_context_parallel_size": "context parallelism",
    "decode_context_parallel_size": "context parallelism",
}
_PLAIN = (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)


def is_unpacked() -> bool:
    """True where the user keeps vLLM from packing weights on a CPU."""
    return os.environ.get(UNPACKED, "0") not in ("", "0")


def keep_unpacked() -> None:
    """Keep vLLM from packing the weights of linear layers on a CPU; called before the model is made."""
    from vllm import _custom_ops
    from vllm.model_executor.layers import utils

    _custom_ops._supports_onednn = False
    utils.check_cpu_sgl_kernel = lambda *_, **__: False


def packs() -> bool:
    """True where the model has weights packed, so that their words are found nowhere."""
    return bool(current_platform.is_cpu()) and not is_unpacked()


def check_engine(config: Any) -> None:
    """Refuse an engine whose weights cannot be updated exactly, or not in a way that was ever tried.

    Args:
        config: the engine's `VllmConfig`.

    Raises:
        ValueError: it says why.
    """
    for size, name in _WIDTHS.items():
        if getattr(config.parallel_config, size, 1) > 1:
            raise ValueError(f"the engine uses {name}, with which updates were never tried: use tensor parallelism")
    if config.parallel_config.enable_expert_parallel:
        raise ValueError("the engine uses expert parallelism, with which updates were never tried: start it without")
    if config.model_config.quantization is not None:
        raise ValueError(
            f"the engine serves quantised weights ({config.model_config.quantization}), which cannot be updated "
            "exactly yet: serve the plain ones, or have it load a pulled folder for each version"
        )
    if config.lora_config is not None:
        raise ValueError("the engine serves adapters, with which updates were never tried: start it without")
    offload = getattr(config, "offload_config", None)
    if offload is not None and (offload.uva.cpu_offload_gb or offload.prefetch.offload_group_size):
        raise ValueError("the engine offloads weights: start it without")


def check_model(model: nn.Module) -> None:
    """Refuse a model of which a layer answers from other words than those that its loader copies.

    Raises:
        ValueError: it says which layer.
    """
    for name, module in model.named_modules():
        method = getattr(module, "quant_method", None)
        if method is not None and type(method) not in _PLAIN:
            raise ValueError(
                f"{name} is processed after loading ({type(method).__name__}), with which updates were never tried: "
                "have the engine load a pulled folder for each version"
            )
        derives = hasattr(module, "process_weights_after_loading") and type(module) is not Attention
        if derives or getattr(getattr(module, "impl", None), "sinks", None) is not None:
            raise ValueError(
                f"{name} ({type(module).__name__}) derives weights from those that are loaded: "
                "have the engine load a pulled folder for each version"
            )


def tied(model: nn.Module) -> dict[str, str]:
    """Names of a checkpoint's tensors that the model's loader passes over, and of those that it uses in their place."""
    config = getattr(model, "config", None)
    return {"lm_head.weight": "model.embed_tokens.weight"} if getattr(config, "tie_word_embeddings", False) else {}
