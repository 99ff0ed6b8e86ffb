"""Models that follow a chain, on one rank of an engine."""

from __future__ import annotations

import json
import logging
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import torch
from torch import nn

from ..chain import Chain
from ..opening import open
from ..state.group import Alone, Group, GroupError
from ..torch.device_state import DeviceState
from ..torch.group import Ranks
from ..torch.places import record
from ..torch.rank import Rank
from .pointer import Pointer

_LOG = logging.getLogger("tensordelta")

#: What a user can do instead.
_ADVICE = "Have the engine load a pulled folder for each version, by `/update_weights_from_disk`."
#: Widths of parallelism that must be 1, and what they are called.
_WIDTHS = {
    "pp_size": "pipeline parallelism",
    "attn_dp_size": "attention data parallelism",
    "attn_cp_size": "context parallelism",
    "moe_ep_size": "expert parallelism",
}
#: Where a checkpoint names a head that a model has as its embedding, the loader passes over it.
_TIED = {"lm_head.weight": "model.embed_tokens.weight"}


class _Followed:
    """A model that follows a chain."""

    def __init__(self, model: nn.Module, pointer: Pointer, group: Group) -> None:
        self._source = _source(pointer)
        self._memory = _memory(model)

        def start() -> tuple[Chain, DeviceState]:
            _check(model)
            chain = open(pointer.root, **pointer.opening.keywords())
            layout = chain.layout(pointer.version)
            tied = _TIED if getattr(model.config, "tie_word_embeddings", False) else None
            parts = record(model, model.load_weights, layout, tied=tied)
            return chain, DeviceState(layout, parts, group=group)

        self.rank = Rank(group, start, follow=pointer.follow, poll=pointer.poll, scan_every=pointer.scan_every)

    def is_of(self, model: nn.Module, pointer: Pointer) -> bool:
        """True while the model's weights lie where they lay, and the pointer differs in its version alone."""
        return self._source == _source(pointer) and self._memory == _memory(model)


_followed: weakref.WeakKeyDictionary[nn.Module, _Followed] = weakref.WeakKeyDictionary()
_group: Group | None = None
_answers = False


def load(model: nn.Module, pointer: Pointer) -> None:
    """Take this rank's part of a model to a version, together with the other ranks; see `tensordelta.sglang.apply`."""
    if not _answers:
        raise RuntimeError(
            "SGLang has not loaded tensordelta's plugin: install tensordelta in the engine's environment, and where "
            "SGLANG_PLUGINS is set, name it there"
        )
    _check_parallelism()
    began = time.monotonic()
    with torch.inference_mode(False), torch.no_grad():  # what is made now is used in other modes later
        followed = _agreed(model, pointer, _engine(pointer.timeout))
        update = followed.rank.update(pointer.version)
    changed = 0 if update is None else update.changed
    _LOG.info("version %d: %d words written, %.3f s", pointer.version, changed, time.monotonic() - began)


def forget(model: nn.Module | None = None) -> None:
    """Take a model's weights for unknown, or those of all models: the next pointer proves them anew."""
    for each in [model] if model is not None else list(_followed):
        followed = _followed.pop(each, None)
        if followed is not None:
            followed.rank.close()


@contextmanager
def answering() -> Iterator[None]:
    """A context in which `load` may raise, because the caller answers the error."""
    global _answers
    _answers = True
    try:
        yield
    finally:
        _answers = False


def _agreed(model: nn.Module, pointer: Pointer, group: Group) -> _Followed:
    """The model as it follows the pointer's chain; begun anew by all ranks where one of them has to."""
    followed = _followed.get(model)
    goes_on = followed is not None and followed.is_of(model, pointer)
    answers = [json.loads(each) for each in group.gather(json.dumps([pointer.text, goes_on]))]
    if len({text for text, _ in answers}) > 1:
        raise GroupError("the ranks were sent different pointers: send one to all of them")
    if followed is not None and all(each for _, each in answers):
        return followed
    forget(model)
    _followed[model] = found = _Followed(model, pointer, group)
    return found


def _engine(timeout: float) -> Group:
    """The ranks of the engine: a group of its own, because the engine's groups wait for half an hour."""
    global _group
    if _group is None:
        from sglang.srt.runtime_context import get_parallel

        ranks = get_parallel().tp_group.ranks
        _group = Alone() if len(ranks) == 1 else Ranks(ranks, timeout=timeout)
    return _group


def _source(pointer: Pointer) -> Pointer:
    """What the pointers of one engine have in common."""
    return msgspec.structs.replace(pointer, version=0)


def _memory(model: nn.Module) -> list[tuple[int, torch.Size]]:
    """Where a model's weights lie: layers that are processed after loading may get others."""
    return [(each.data_ptr(), each.shape) for each in model.parameters()]


# -- what cannot be updated exactly ----------------------------------------------------------------------------------


def _check_parallelism() -> None:
    """Refuse ranks that share the model in ways that were never tried.

    Raises:
        ValueError: they do.
    """
    from sglang.srt.runtime_context import get_parallel

    parallel = get_parallel()
    for width, name in _WIDTHS.items():
        if getattr(parallel, width) > 1:
            raise ValueError(f"the engine uses {name}, with which updates were never tried: use tensor parallelism")


def _check(model: nn.Module) -> None:
    """Refuse a model whose answers come from other words than those that its loader copies.

    Raises:
        ValueError: it says which.
    """
    from sglang.srt.layers.quantization.unquant import UnquantizedEmbeddingMethod, UnquantizedLinearMethod
    from sglang.srt.utils.offloader import NoopOffloader, get_offloader

    if not isinstance(get_offloader(), NoopOffloader):
        raise ValueError(f"the engine offloads weights. {_ADVICE}")
    if hasattr(model, "post_load_weights"):
        raise ValueError(f"{type(model).__name__} computes more weights from those that are loaded. {_ADVICE}")
    for name, module in model.named_modules():
        method = getattr(module, "quant_method", None)
        if method is not None and type(method) not in (UnquantizedEmbeddingMethod, UnquantizedLinearMethod):
            raise ValueError(f"{name} is processed after loading, by {type(method).__name__}. {_ADVICE}")
