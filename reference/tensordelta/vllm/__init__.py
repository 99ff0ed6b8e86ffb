"""vLLM: an engine whose weights follow a chain.

    TENSORDELTA_CHAIN=hf://buckets/me/run vllm serve MODEL --weight-transfer-config '{"backend":"tensordelta"}'

With this package in the engine's environment vLLM knows the weight-transfer back end `tensordelta`. Where
`TENSORDELTA_CHAIN` names a chain, the server takes each version of it by itself. Without that variable something else
has to say which chain and when: `tensordelta vllm-follow` over HTTP, a trainer, or in one process:

    llm = LLM(MODEL, weight_transfer_config=WeightTransferConfig(backend="tensordelta"))
    llm.init_weight_transfer_engine({"init_info": {"chain": "hf://buckets/me/run"}})
    …
    llm.start_weight_update()
    llm.update_weights({"update_info": {"version": 7}})
    llm.finish_weight_update()
    llm.reset_prefix_cache()

Every rank of the engine reads the chain itself. A thread of it fetches and decodes newer versions while the engine
serves, and an update writes the changed words where the model's own loader would put them. All ranks agree before
anything is written, and confirm afterwards: if one fails, all keep the old version, which is served on.

On a CPU vLLM packs the weights of linear layers, and their words are found nowhere. There each rank keeps a copy of the
weights, and touched layers are loaded and packed anew. `TENSORDELTA_UNPACKED=1`, set when the engine starts, keeps vLLM
from packing: updates are faster then, no copy is kept, and linear layers are slower.
"""

__all__ = ["register"]


def register() -> None:
    """vLLM's entry point, called in each of its processes: register the back end; calling it again does nothing."""
    from .plugin import register

    register()
