"""What vLLM does differently where its weights follow a chain."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

_LOG = logging.getLogger("vllm.tensordelta")  # below vLLM's own, whose handlers it has

#: The back end's name.
BACKEND = "tensordelta"
#: Methods of a worker that all ranks carry out in step.
_CALLS = ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")
#: Methods of a worker that write weights in ways of their own, or lose them.
_WRITERS = ("reload_weights", "reset_weights", "sleep")


def register() -> None:
    """Register the back end, and adapt vLLM's classes; calling it again does nothing."""
    if BACKEND in WeightTransferEngineFactory._registry:
        return
    WeightTransferEngineFactory.register_engine(BACKEND, f"{__package__}.engine", "Engine")
    _adapt_workers()
    _adapt_front_ends()
    from . import exactness

    if exactness.is_unpacked():
        exactness.keep_unpacked()


def _is_ours(engine: Any) -> bool:
    return type(engine).__module__ == f"{__package__}.engine"


# -- workers ----------------------------------------------------------------------------------------------------------


def _adapt_workers() -> None:
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    for name in _CALLS:
        setattr(Worker, name, _in_step(getattr(Worker, name)))
    for kind in (Worker, CPUWorker):
        for name in _WRITERS:
            if name in vars(kind):
                setattr(kind, name, _noticed(getattr(kind, name)))
    Worker.tensordelta_version = _version
    Worker.tensordelta_prepared = _prepared


def _in_step(method: Callable[..., None]) -> Callable[..., None]:
    """A worker's method that all ranks carry out, or none of them."""

    @wraps(method)
    def call(worker: Any, *args: Any, **kwargs: Any) -> None:
        engine = worker.weight_transfer_engine
        if not _is_ours(engine):
            return method(worker, *args, **kwargs)
        if method.__name__ == _CALLS[0] and engine.calls.meet(_timeout(engine, kwargs.get("init_info"))):
            engine.forget()
        try:
            return engine.calls.in_step(lambda: method(worker, *args, **kwargs), lambda: _end_session(worker))
        finally:
            if engine.is_torn and engine.calls.group.size > 1:
                # What this rank has is not what the others have: vLLM ends the engine with this process.
                _LOG.critical("the ranks of the engine may have different weights: it ends")
                os._exit(1)

    return call


def _timeout(engine: Any, info: Any) -> float:
    """How long ranks wait for one another; the call itself refuses what is not valid."""
    try:
        timeout: float = engine.parse_init_info(info).timeout
    except (TypeError, ValueError):
        timeout = engine.init_info_cls.timeout
    return timeout


def _end_session(worker: Any) -> None:
    """End the session of a rank that would go on with it; those that failed have done so."""
    worker._weight_update_active = False
    worker.weight_transfer_engine.reset_weight_update_target()


def _noticed(method: Callable[..., Any]) -> Callable[..., Any]:
    """A worker's method after which the weights are not those of the version any more."""

    @wraps(method)
    def call(worker: Any, *args: Any, **kwargs: Any) -> Any:
        engine: Any = getattr(worker, "weight_transfer_engine", None)
        if _is_ours(engine):
            engine.forget()
        return method(worker, *args, **kwargs)

    return call


def _version(worker: Any) -> int | None:
    """The version that a worker has."""
    engine = worker.weight_transfer_engine
    return engine.version if _is_ours(engine) else None


def _prepared(worker: Any) -> int | None:
    """The newest version that a worker can take at once."""
    engine = worker.weight_transfer_engine
    return engine.prepared if _is_ours(engine) else None


# -- front ends -------------------------------------------------------------------------------------------------------


def _adapt_front_ends() -> None:
    """Name the weights by the version, where who drives an update does not, and follow a chain from inside."""
    from vllm.entrypoints.llm import LLM
    from vllm.v1.engine.async_llm import AsyncLLM

    init, finish, create = AsyncLLM.init_weight_transfer_engine, AsyncLLM.finish_weight_update, AsyncLLM.__init__

    async def init_async(self: Any, *args: Any, **kwargs: Any) -> None:
        await init(self, *args, **kwargs)
        await name_async(self)

    async def finish_async(self: Any, weight_version: str | None = None) -> None:
        await finish(self, weight_version)
        if weight_version is None:
            await name_async(self)

    async def name_async(self: Any) -> None:
        if _chosen(self.vllm_config):
            version = (await self.collective_rpc("tensordelta_version"))[0]
            if version is not None:
                await self.update_weight_version(str(version))

    @wraps(create)
    def create_async(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        if _chosen(self.vllm_config):
            from .driver import start

            start(self)

    AsyncLLM.init_weight_transfer_engine = wraps(init)(init_async)
    AsyncLLM.finish_weight_update = wraps(finish)(finish_async)
    AsyncLLM.__init__ = create_async

    init_llm, finish_llm = LLM.init_weight_transfer_engine, LLM.finish_weight_update

    def init_sync(self: Any, *args: Any, **kwargs: Any) -> None:
        init_llm(self, *args, **kwargs)
        name_sync(self)

    def finish_sync(self: Any, weight_version: str | None = None) -> None:
        finish_llm(self, weight_version)
        if weight_version is None:
            name_sync(self)

    def name_sync(self: Any) -> None:
        if _chosen(self.llm_engine.vllm_config):
            version = self.collective_rpc("tensordelta_version")[0]
            if version is not None:
                self.update_weight_version(str(version))

    LLM.init_weight_transfer_engine = wraps(init_llm)(init_sync)
    LLM.finish_weight_update = wraps(finish_llm)(finish_sync)


def _chosen(config: Any) -> bool:
    return config.weight_transfer_config is not None and config.weight_transfer_config.backend == BACKEND
