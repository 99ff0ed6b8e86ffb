"""A server that takes each version of a chain by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from contextlib import suppress
from typing import Any

from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest

from ..opening import open
from .engine import CHAIN, init_info

_LOG = logging.getLogger("vllm.tensordelta")  # below vLLM's own, whose handlers it has

#: Seconds between two looks whether all ranks have prepared a version, and how many of them are waited for.
_LOOK, _LOOKS = 0.1, 6000
#: Seconds from one attempt to follow the chain to the next, after one that failed.
_AGAIN = 10.0


def start(engine: Any) -> None:
    """Have a server's engine follow the chain that $TENSORDELTA_CHAIN names; without it, do nothing.

    Args:
        engine: an `AsyncLLM`.
    """
    address = os.environ.get(CHAIN)
    if not address:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _LOG.warning("an engine that is made outside of an event loop does not follow %s by itself", address)
        return
    driver = _Driver(engine, loop, address)
    threading.Thread(target=driver.run, name="tensordelta-driver", daemon=True).start()


class _Driver:
    """Brings an engine to each version of a chain; works in a thread of its own."""

    def __init__(self, engine: Any, loop: asyncio.AbstractEventLoop, address: str) -> None:
        self._engine = weakref.ref(engine)
        self._loop = loop
        self._address = address
        self._reached: int | None = None

    def run(self) -> None:
        """Follow the chain until the engine ends."""
        stop = threading.Event()
        while self._alive():
            try:
                self._call(self._meet())
                _LOG.info("following %s from version %s", self._address, self._reached)
                info = init_info({})
                chain = open(self._address, **info.opening)
                for _ in chain.pursue(self._go, known=lambda: self._reached, poll=info.poll, stop=stop):
                    pass
            except Exception as error:
                if self._alive():
                    with suppress(ValueError):  # a handler whose stream was closed must not end the thread
                        _LOG.warning("following %s: %s", self._address, error)
                    stop.wait(_AGAIN)

    def _alive(self) -> bool:
        engine = self._engine()
        return engine is not None and not engine.errored and not self._loop.is_closed()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _go(self, version: int) -> int | None:
        reached: int | None = self._call(self._update(version))
        if reached is not None:
            self._reached = reached
        return reached

    async def _meet(self) -> None:
        engine: Any = self._engine()
        await engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info={}))
        self._reached = (await engine.collective_rpc("tensordelta_version"))[0]

    async def _update(self, version: int) -> int | None:
        """Bring the engine to a version; requests wait meanwhile, and go on with the new weights.

        Returns:
            The version, or a newer one; None if the engine sleeps, or another driver has paused it.
        """
        engine: Any = self._engine()
        if await engine.is_sleeping():
            return None
        await self._meet()  # after a sleep the weights have to be found anew
        for _ in range(_LOOKS):
            prepared = await engine.collective_rpc("tensordelta_prepared")
            if all(each is not None and each >= version for each in prepared):
                version = min(prepared)
                break
            await asyncio.sleep(_LOOK)
        await engine.pause_generation(mode="keep", clear_cache=True)
        try:
            await engine.start_weight_update()
            await engine.update_weights(WeightTransferUpdateRequest(update_info={"version": version}))
            await engine.finish_weight_update(str(version))
        finally:
            await engine.resume_generation()
        return version
