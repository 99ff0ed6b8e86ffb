"""SGLang: an engine whose weights follow a chain.

    python -m sglang.launch_server --model MODEL --custom-weight-loader tensordelta.sglang.apply

Each update is a small pointer to a version, sent as `/update_weights_from_tensor` with the load format
`tensordelta.sglang.apply`; `tensordelta sglang-follow` sends them. Every rank of the engine reads the chain itself, and
writes the changed words where the model's own loader would put them. This package must be installed where the engine
runs: its entry point lets SGLang answer a failed update with an error, where it would end the server otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pointer import Pointer, pointer

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Pointer", "apply", "pointer", "register"]


def apply(model: nn.Module, named_tensors: list[tuple[str, Tensor]]) -> None:
    """Take an engine's model to the version that a pointer names; SGLang calls it on all ranks of the engine.

    The first pointer finds where the model's loader puts each word, and proves that the model's words are those of a
    version of the chain. From then on a thread of each rank fetches and decodes newer versions while the engine serves,
    and a pointer costs the scatter. All ranks agree before anything is written, and confirm afterwards: if one fails,
    all keep the old version, and SGLang's answer is the error.

    Refused at the first pointer: quantised layers, layers of experts, LoRA, weights that are offloaded or derived from
    others, a draft model's weights; parallelism other than tensor parallelism; a loader that does more than copy.

    Args:
        model: this rank's part of the model.
        named_tensors: one tensor, as `pointer` makes it.

    Raises:
        ValueError: no pointer, ranks with different ones, or an engine that cannot be updated exactly.
        GroupError: a rank failed; it says which, and why. With one rank the error itself is raised.
        TensorDeltaError: the version cannot be read or proven.
        LostError: a rank has died, hangs, or could not go back: the engine must be started again.
        RuntimeError: SGLang has not loaded this package's plugin.
    """
    from .loader import load

    load(model, Pointer.of(named_tensors))


def register() -> None:
    """SGLang's entry point: prepare the processes that have a model."""
    from .plugin import register

    register()
