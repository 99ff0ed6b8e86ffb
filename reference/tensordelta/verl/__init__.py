"""A back end of verl's checkpoint engine: weights go from actor to rollout through a chain.

    actor_rollout_ref.rollout.checkpoint_engine.backend=tensordelta
    actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module=tensordelta.verl
    +actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs.tensordelta.root=hf://buckets/me/run

Rank 0 of the actor publishes a version, every rollout worker reads what changed and hands its server whole tensors.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry
from verl.utils.device import get_device_name, get_torch_device

from ..chain import Chain
from ..format.names import now
from ..live.publisher import BackgroundPublisher
from ..opening import open
from ..state.state import State
from ..torch import named_tensors

__all__ = ["ChainCheckpointEngine"]

#: The annotation by which the rollout workers know the version that they wait for.
_TRANSFER = "transfer"


@CheckpointEngineRegistry.register("tensordelta")
class ChainCheckpointEngine(CheckpointEngine):
    """Publishes on the actor's rank 0, reads on each rollout worker.

    verl calls, for each update: `prepare` on all workers, `build_topology` on one, `init_process_group` on all, then
    `send_weights` on the actor's ranks and `receive_weights` on the rollout workers at the same time, `finalize` on
    all. Every update is one version; all workers yield that version, whatever else is in the chain.

    The wire format is verl's "named_tensors": all tensors, whole, in the layout's order, those too that did not change,
    because a rollout that slept has lost its weights. What is fetched is only what changed. Each rollout worker holds
    the model once in host memory; the actor's rank 0 holds it up to three times while it publishes.

    Where sending fails, the rollout workers raise `TimeoutError` after `timeout`; verl undoes nothing on workers that
    have received already.

    Args:
        bucket_size: verl's; not used.
        is_master: verl's; true on the actor's rank 0 alone.
        root: the chain's address, the same for actor and rollout; the actor makes a new chain if there is none.
        dtype: the dtype that is served, as torch names it; floating-point weights of more than eight bits are cast to
            it. None for the dtypes that the actor sends.
        device: where the tensors lie that rollout workers yield; by default on the device that verl uses.
        timeout: seconds for which rollout workers wait for the version.
        opening: keywords for `tensordelta.open`.
        publishing: keywords for `Chain.publisher`, such as {"keep": 50}.

    Raises:
        ValueError: torch has no such dtype.
    """

    wire_format = "named_tensors"

    def __init__(
        self,
        bucket_size: int,
        is_master: bool = False,
        *,
        root: str,
        dtype: str | None = "bfloat16",
        device: str | None = None,
        timeout: float = 600.0,
        opening: Mapping[str, Any] | None = None,
        publishing: Mapping[str, Any] | None = None,
    ) -> None:
        self._is_master = is_master
        self._root = root
        self._dtype = None if dtype is None else _dtype(dtype)
        self._device = device or (get_device_name() if get_torch_device().is_available() else "cpu")
        self._timeout = timeout
        self._opening = dict(opening or {})
        self._publishing = dict(publishing or {})
        self._chain: Chain | None = None
        self._publisher: BackgroundPublisher | None = None
        self._state: State | None = None
        self._transfer: str | None = None
        self._before: int | None = None

    def prepare(self) -> dict[str, Any]:
        """Open the chain, on the actor's rank 0; what the others get to know of it is returned.

        Raises:
            TensorDeltaError, OSError, ValueError: what `tensordelta.open` raises.
        """
        if not self._is_master:
            return {}
        if self._chain is None:
            self._chain = open(self._root, create=True, **self._opening)
        return {"transfer": uuid.uuid4().hex, "before": self._chain.newest()}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, Any]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """What rank 0 prepared, for every worker."""
        actor, rollout = (
            {key: [value] * size for key, value in metadata[0].items()}
            for size in (actor_wg_world_size, rollout_world_size)
        )
        return actor, rollout

    def init_process_group(self, *, transfer: str, before: int | None) -> None:
        """Take note of the update that comes; no processes are connected.

        Args:
            transfer: what the version is annotated with.
            before: the newest version until then; None where there is none.
        """
        self._transfer, self._before = transfer, before

    def finalize(self) -> None:
        """Forget the update; the chain stays open, and a rollout worker keeps the state to read the next one over."""
        self._transfer = None

    def close(self) -> None:
        """Make the shortcuts that are due, and end; verl does not call it, and what was sent is published already."""
        if self._publisher is not None:
            publisher, self._publisher = self._publisher, None
            publisher.close()

    async def send_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None
    ) -> dict[str, float]:
        """Publish the weights as a version, and return when it can be read.

        Args:
            weights: names as in the checkpoint, and whole tensors; every rank iterates, for which the ranks gather.
            global_steps: becomes the annotation `step`.

        Returns:
            On rank 0 `tensordelta/version`, `tensordelta/bytes` (put into the chain) and `tensordelta/changed` (words).

        Raises:
            RuntimeError: before `init_process_group`.
            TensorDeltaError, OSError: the version could not be published.
        """
        sent = self._cast(weights)
        if not self._is_master:
            return {}
        if self._chain is None or self._transfer is None:
            raise RuntimeError("`prepare` and `init_process_group` come before the weights")
        if self._publisher is None:
            self._publisher = self._chain.publisher(**self._publishing)
        annotations = {_TRANSFER: self._transfer, "time": now()}
        if global_steps is not None:
            annotations["step"] = str(global_steps)
        ticket = self._publisher.submit(sent, annotations=annotations)
        published = await asyncio.to_thread(ticket.result)
        return {
            "tensordelta/version": float(published.version),
            "tensordelta/bytes": float(published.size),
            "tensordelta/changed": float(published.changed),
        }

    def _cast(self, weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Tensors in the dtype that is served, on the host; none where this rank only helps to gather them."""
        found = {}
        for name, tensor in weights:
            if self._is_master:
                is_cast = self._dtype is not None and tensor.is_floating_point() and tensor.element_size() > 1
                found[name] = tensor.detach().to(self._dtype if is_cast else tensor.dtype).cpu()
        return found

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """Wait for the version that is sent, and read it, proven as a whole before the first tensor is yielded.

        Yields:
            Name and tensor, all of the version's, in the layout's order; each in memory of its own.

        Raises:
            RuntimeError: before `init_process_group`.
            TimeoutError: it was not published in time.
            TensorDeltaError: it could not be read; the next call starts from what was held before, or from nothing.
            ValueError: a dtype that this torch lacks.
        """
        state = await asyncio.to_thread(self._received)
        for name, tensor in named_tensors(state):
            yield name, tensor.to(self._device, copy=True)

    def _received(self) -> State:
        """The version that is sent, in memory."""
        if self._transfer is None:
            raise RuntimeError("`init_process_group` comes before the weights")
        if self._chain is None:
            self._chain = open(self._root, **self._opening)
        version = self._await(self._chain, self._transfer)
        if self._state is None:
            self._state = self._chain.load(version)
            return self._state
        update = self._chain.prepare(self._state, version)
        state, self._state = self._state, None  # lost, where `apply` fails
        update.apply()
        self._state = state
        return state

    def _await(self, chain: Chain, transfer: str) -> int:
        """The number of the version with this annotation, when it is there."""
        deadline = time.monotonic() + self._timeout
        version = -1 if self._before is None else self._before
        while True:
            version = chain.wait(version + 1, timeout=max(deadline - time.monotonic(), 0.0))
            if chain.manifest(version).annotations.get(_TRANSFER) == transfer:
                return version


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype is {name!r}, which torch lacks: name one such as 'bfloat16'")
    return found
