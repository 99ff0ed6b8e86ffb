"""The back end of verl's checkpoint engine, called by the released package's own manager and workers.

In place of Ray, threads run what the manager sends to its workers; everything else is verl's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from verl.checkpoint_engine import base
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineManager, CheckpointEngineRegistry
from verl.utils.import_utils import import_external_libs
from verl.workers.config import CheckpointEngineConfig

import tensordelta as td

pytestmark = pytest.mark.slow

Tensors = dict[str, torch.Tensor]


class Group:
    """Workers of one kind, as the manager sees them: a call is a list with a future for each."""

    def __init__(self, engines: list[CheckpointEngine], updates: list[Any], pool: ThreadPoolExecutor) -> None:
        self.engines, self._updates, self._pool = engines, updates, pool
        self.world_size = len(engines)

    def execute_checkpoint_engine(self, method: list[str], **kwargs: list[Any]) -> list[Future[Any]]:
        arguments = [{key: values[rank] for key, values in kwargs.items()} for rank in range(self.world_size)]
        return [
            self._pool.submit(getattr(engine, name), **own)
            for engine, name, own in zip(self.engines, method, arguments, strict=True)
        ]

    def update_weights(self, global_steps: int | None, mode: str | None = None) -> list[Future[Any]]:
        return [self._pool.submit(asyncio.run, update(global_steps)) for update in self._updates]


class Server:
    """A rollout's server: it takes what verl's worker hands it."""

    def __init__(self) -> None:
        self.held: Tensors = {}
        self.wire_format = ""

    async def update_weights(
        self, weights: AsyncIterator[tuple[str, torch.Tensor]], *, global_steps: int, wire_format: str
    ) -> None:
        self.wire_format = wire_format
        self.held = {name: tensor async for name, tensor in weights}


class Replica:
    """What the manager asks of a replica besides the weights: nothing here."""

    workers = ()

    def __getattr__(self, name: str) -> Any:
        async def nothing(**_: Any) -> None:
            pass

        return nothing


class Training:
    """An actor of two ranks and two rollout workers, and verl's manager over them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor, **kwargs: Any) -> None:
        self.weights: Tensors = {}
        self.servers = [Server(), Server()]
        import_external_libs("tensordelta.verl")
        actors, rollouts = (
            [CheckpointEngineRegistry.new("tensordelta", bucket_size=1 << 20, **own, **kwargs) for own in each]
            for each in ([{"is_master": True}, {"is_master": False}], [{}, {}])
        )
        self.actors = Group(actors, [lambda step, own=each: self._send(own, step) for each in actors], pool)
        workers = [
            SimpleNamespace(checkpoint_engine=each, server_adapter=server)
            for each, server in zip(rollouts, self.servers, strict=True)
        ]
        receive = base.CheckpointEngineWorker.update_weights
        self.rollouts = Group(rollouts, [lambda step, own=each: receive(own, step) for each in workers], pool)
        monkeypatch.setattr(base, "RayWorkerGroup", lambda **_: self.rollouts)
        monkeypatch.setattr(base.ray, "get", lambda futures: [each.result() for each in futures])
        config = CheckpointEngineConfig(backend="tensordelta", custom_backend_module="tensordelta.verl")
        self._manager = CheckpointEngineManager(config, self.actors, [Replica()])

    async def _send(self, engine: CheckpointEngine, step: int) -> dict[str, float]:
        return await engine.send_weights(iter(self.weights.items()), global_steps=step)

    def update(self, step: int) -> dict[str, float]:
        return self._manager.update_weights(global_steps=step)

    def close(self) -> None:
        for engine in (*self.actors.engines, *self.rollouts.engines):
            engine.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "chain")


def _weights() -> Tensors:
    torch.manual_seed(0)
    return {
        "model.layers.0.weight": torch.randn(40, 30),
        "model.norm.weight": torch.randn(30).to(torch.bfloat16),
        "model.scale": torch.tensor(2.0, dtype=torch.float32),
        "model.steps": torch.arange(5),
    }


def _served(weights: Tensors) -> Tensors:
    return {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor for name, tensor in weights.items()
    }


def _are_equal(one: Tensors, two: Tensors) -> bool:
    """Names in any order; dtypes, shapes and bits."""
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype
        and one[name].shape == two[name].shape
        and td.torch.as_array(one[name]).tobytes() == td.torch.as_array(two[name]).tobytes()
        for name in one
    )


def test_every_rollout_worker_gets_what_the_actor_sent(
    root: str, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    training = Training(monkeypatch, pool, root=root)
    training.weights = _weights()
    metrics = training.update(7)
    assert metrics["tensordelta/version"] == 0
    for step in (8, 9):
        training.weights["model.layers.0.weight"][step, step] += 1
        metrics = training.update(step)
        assert metrics["tensordelta/changed"] == 1
        for server in training.servers:
            assert server.wire_format == "named_tensors"
            assert _are_equal(server.held, _served(training.weights))
    training.close()
    chain = td.open(root)
    assert [chain.manifest(version).annotations["step"] for version in chain.versions()] == ["7", "8", "9"]
    assert chain.verify(deep=True).ok


def test_tensors_that_were_handed_over_keep_their_words(
    root: str, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    training = Training(monkeypatch, pool, root=root)
    training.weights = _weights()
    training.update(0)
    held, before = training.servers[0].held, _served(training.weights)
    training.weights["model.layers.0.weight"] += 1
    training.update(1)
    training.close()
    assert _are_equal(held, before)


def test_a_worker_takes_the_version_of_its_update_and_no_other(
    root: str, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    """The chain has versions of another run, and gets one more between the preparation and the weights."""
    other = {name: tensor + 1 for name, tensor in _served(_weights()).items()}
    chain = td.open(root, create=True)
    chain.publish(other)
    training = Training(monkeypatch, pool, root=root)
    training.weights = _weights()
    noted = base.CheckpointEngineManager.build_process_group

    def and_another(self: CheckpointEngineManager, rollout: Any) -> None:
        noted(self, rollout)
        chain.publish({name: tensor + 2 for name, tensor in other.items()})

    monkeypatch.setattr(base.CheckpointEngineManager, "build_process_group", and_another)
    training.update(1)
    training.close()
    assert all(_are_equal(server.held, _served(training.weights)) for server in training.servers)


def test_a_restarted_rollout_worker_gets_everything(
    root: str, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    training = Training(monkeypatch, pool, root=root)
    training.weights = _weights()
    training.update(0)
    weights = training.weights
    training.close()
    again = Training(monkeypatch, pool, root=root)
    again.weights = weights
    again.weights["model.norm.weight"][3] += 1
    again.update(1)
    again.close()
    assert all(_are_equal(server.held, _served(weights)) for server in again.servers)
    assert td.open(root).newest() == 1


def test_without_a_version_the_workers_stop_waiting(
    root: str, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    """The actor fails; the workers keep what they have."""
    training = Training(monkeypatch, pool, root=root, timeout=0.5)
    training.weights = _weights()
    training.update(0)
    held = training.servers[0].held

    async def fails(*_: Any) -> dict[str, float]:
        raise RuntimeError("the optimizer diverged")

    monkeypatch.setattr(training, "_send", fails)
    with pytest.raises(RuntimeError, match="diverged"):
        training.update(1)
    failed = training.rollouts.update_weights(1)
    for each in failed:
        assert isinstance(each.exception(), TimeoutError)
    training.close()
    assert training.servers[0].held is held


def test_a_dtype_that_torch_lacks_is_refused(root: str) -> None:
    import_external_libs("tensordelta.verl")
    with pytest.raises(ValueError, match="'bf16', which torch lacks"):
        CheckpointEngineRegistry.new("tensordelta", bucket_size=1, root=root, dtype="bf16")
