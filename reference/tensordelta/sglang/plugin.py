"""What SGLang's updater does differently: a failed update is answered, and other writers of weights are noticed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger("tensordelta")

#: What a server calls the loader.
LOADER = "tensordelta.sglang.apply"

#: Modules of SGLang: the first is imported in a scheduler's process before plugins are loaded, the others later.
_SCHEDULER = "sglang.srt.managers.scheduler"
_MANAGER = "sglang.srt.managers.scheduler_components.weight_updater"
_UPDATER = "sglang.srt.model_executor.model_runner_components.weight_updater"
#: Methods of the updater that write weights in ways of their own.
_WRITERS = ("update_weights_from_disk", "load_weights_from_distributed", "update_weights_from_ipc")

Answer = tuple[bool, str]


def register() -> None:
    """Register hooks, which imports the updater, in processes that may have a model; do nothing in others."""
    if _SCHEDULER not in sys.modules:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(f"{_UPDATER}.WeightUpdater.update_weights_from_tensor", answered, HookType.AROUND)
    for method in _WRITERS:
        HookRegistry.register(f"{_UPDATER}.WeightUpdater.{method}", noticed, HookType.AROUND)
    resume = f"{_MANAGER}.SchedulerWeightUpdaterManager.resume_memory_occupation"
    HookRegistry.register(resume, resumed, HookType.AROUND)


def answered(update: Callable[..., Answer], updater: Any, named_tensors: Any, load_format: str | None = None) -> Answer:
    """Call `WeightUpdater.update_weights_from_tensor`; an error of ours becomes its answer.

    SGLang's scheduler ends the server at an exception. That is right for one alone: a rank that is lost, so that it is
    not known any more which weights the ranks have.

    Raises:
        LostError: a rank is lost.
    """
    from ..state.group import LostError
    from . import loader

    if load_format != LOADER:
        return noticed(update, updater, named_tensors, load_format)
    if updater.get_model_runner().is_draft_worker:
        return True, "A draft model keeps its weights."
    try:
        with loader.answering():
            return update(updater, named_tensors, load_format)
    except LostError:
        raise
    except Exception as error:
        _LOG.warning("the update failed, and the old version is served on: %s", error)
        return False, f"{type(error).__name__}: {error}; the old version is served on"


def noticed(write: Callable[..., Any], updater: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a method of the updater that writes weights; the next pointer proves them anew."""
    from . import loader

    loader.forget(updater.get_model())
    return write(updater, *args, **kwargs)


def resumed(resume: Callable[..., Any], manager: Any, *args: Any, **kwargs: Any) -> Any:
    """Take memory again that was released, whose contents may be lost; the next pointer proves all weights anew."""
    from . import loader

    loader.forget()
    return resume(manager, *args, **kwargs)
