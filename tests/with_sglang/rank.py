"""One rank of an SGLang engine on the CPU: everything that writes weights is SGLang's own, and nothing generates.

`run` is the process. A rank has the scheduler's manager of updates, its worker's way to read what was sent, the model
runner's updater, and a model that SGLang's loader has loaded. The CPU kernels are missing, so no forward pass works.
"""

from __future__ import annotations

import hashlib
import multiprocessing.connection
import pickle
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import plugins  # noqa: F401 - before the rest of SGLang
import torch

# isort: split
import sglang.srt.models.registry  # noqa: F401 - imports every model, once for all ranks
from sglang.srt import runtime_context
from sglang.srt.configs.device_config import DeviceConfig
from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed.parallel_state import (
    init_distributed_environment,
    initialize_model_parallel,
)
from sglang.srt.layers.quantization.unquant import UnquantizedLinearMethod
from sglang.srt.managers import io_struct
from sglang.srt.managers.scheduler_components.weight_updater import SchedulerWeightUpdaterManager
from sglang.srt.managers.tp_worker import BaseTpWorker
from sglang.srt.model_executor.model_runner_components.weight_updater import WeightUpdater
from sglang.srt.model_loader.loader import get_model_loader
from sglang.srt.server_args import ServerArgs

import tensordelta.sglang as tds
from tensordelta.sglang import loader
from tensordelta.stores import FolderStore
from tensordelta.torch.device_state import TensorWrite

LOADER = "tensordelta.sglang.apply"


class Packed(UnquantizedLinearMethod):
    """A method that puts a layer's weights into another form after loading."""


class Worker(BaseTpWorker):
    """SGLang's worker, with a runner that has no more than an updater."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def forward_batch_generation(self, forward_batch: Any) -> Any:
        raise NotImplementedError

    @property
    def model_runner(self) -> Any:
        return self._runner

    def weight_update_runners(self) -> list[tuple[str, Any]]:
        return [("target", self._runner)]


class Rank:
    """What a rank does when it is asked; the test calls these by name."""

    def __init__(self, rank: int, size: int, port: int, folder: str, options: dict[str, Any]) -> None:
        args = ServerArgs(
            model_path=folder,
            device="cpu",
            dtype="bfloat16",
            skip_tokenizer_init=True,
            disable_custom_all_reduce=True,
            custom_weight_loader=[LOADER],
            **options,
        )
        runtime_context.publish(args, role="scheduler", ranks=runtime_context.SpawnRanks(world_rank=rank))
        meeting = f"tcp://127.0.0.1:{port}"
        init_distributed_environment(size, rank, meeting, local_rank=rank, backend="gloo", timeout=600)
        initialize_model_parallel()
        self._version: str | None = None
        self._patches: list[Any] = []

    def serve(self, folder: str) -> None:
        """Load a model; it is the one that updates are for."""
        loader.forget()
        self._version = None
        config, self._model = _loaded(folder)
        self._runner = runner = SimpleNamespace(is_draft_worker=False, model=self._model)
        runner.weight_updater = WeightUpdater(
            tp_rank=runtime_context.get_parallel().tp_rank,
            device="cpu",
            gpu_id=0,
            model_config=config,
            custom_weight_loaders=[LOADER],
            get_model=lambda: self._model,
            update_model_fields=lambda *_, **__: None,
            recapture_cuda_graph=lambda: None,
            get_model_runner=lambda: runner,
        )
        self._manager = SchedulerWeightUpdaterManager(
            tp_worker=Worker(runner),
            draft_worker=None,
            memory_saver_adapter=mock.Mock(),
            flush_cache=lambda **_: True,
            is_fully_idle=lambda **_: True,
            scheduler=SimpleNamespace(record_weight_version_change=self._take_note, _engine_paused=True),
        )

    def begin(self) -> None:
        """Begin a session."""
        assert self._manager.begin_weight_update(io_struct.BeginWeightUpdateReqInput(selector="target")).success

    def update(self, sent: list[bytes], weight_version: str) -> tuple[bool, str]:
        """In a session: what a driver sends, one payload for each rank."""
        request = io_struct.UpdateWeightsFromTensorReqInput(
            serialized_named_tensors=sent, load_format=LOADER, selector="target", weight_version=weight_version
        )
        with torch.inference_mode():
            answer = self._manager.update_weights_from_tensor(request)
        return answer.success, answer.message

    def end(self) -> None:
        """End a session."""
        assert self._manager.end_weight_update(io_struct.EndWeightUpdateReqInput()).success

    def update_from_disk(self, folder: str) -> tuple[bool, str]:
        """SGLang's own update."""
        return self._runner.weight_updater.update_weights_from_disk(folder, "auto")

    def sleep_and_wake(self) -> None:
        """Release the memory of the weights, and take it again."""
        self._manager.release_memory_occupation(io_struct.ReleaseMemoryOccupationReqInput(tags=["weights"]))
        self._manager.resume_memory_occupation(io_struct.ResumeMemoryOccupationReqInput(tags=["weights"]))

    def become_draft(self) -> None:
        """Be the runner of a draft model."""
        self._runner.is_draft_worker = True

    def quantise(self) -> None:
        """Have one layer processed after loading."""
        next(
            module for name, module in self._model.named_modules() if name.endswith("down_proj")
        ).quant_method = Packed()

    def apply_without_plugin(self, sent: bytes) -> None:
        """Call the loader as SGLang does where it has not loaded the plugin."""
        tds.apply(self._model, pickle.loads(sent))

    def _take_note(self, new_version: str | None) -> None:
        self._version = new_version

    def weight_version(self) -> str | None:
        """What the scheduler knows as the version of the weights."""
        return self._version

    def words(self) -> dict[str, str]:
        """SHA-256 of what the model has, by name."""
        return _words(self._model)

    def fresh_words(self, folder: str) -> dict[str, str]:
        """The same of a model that SGLang loads from a folder now."""
        return _words(_loaded(folder)[1])

    def ready(self) -> int | None:
        """The version that this rank has prepared."""
        update = loader._followed[self._model].rank.ready
        return None if update is None else update.version

    def move(self, name: str) -> None:
        """Put a parameter's words into another memory."""
        parameter = self._model.get_parameter(name)
        parameter.data = parameter.data.clone()

    def flip(self, name: str, word: int) -> None:
        """Flip a bit of a parameter."""
        words = self._model.get_parameter(name).data.view(torch.int16).view(-1)
        words[word] ^= 1

    def fail(self, what: str) -> None:
        """Fail from now on: to `read` from the store, or to `write` the third part of the weights."""
        target, attribute, fault = {
            "read": (FolderStore, "open", _raises(OSError("the disk is gone"))),
            "write": (TensorWrite, "do", _raises(RuntimeError("no memory"), after=2, real=TensorWrite.do)),
        }[what]
        self._patches.append(mock.patch.object(target, attribute, fault))
        self._patches[-1].__enter__()

    def mend(self) -> None:
        """Fail no more."""
        while self._patches:
            self._patches.pop().__exit__(None, None, None)


def _loaded(folder: str) -> tuple[ModelConfig, torch.nn.Module]:
    config = ModelConfig(folder, dtype="bfloat16")
    loaded = get_model_loader(LoadConfig(), config).load_model(model_config=config, device_config=DeviceConfig("cpu"))
    return config, loaded


def _words(model: torch.nn.Module) -> dict[str, str]:
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {
        name: hashlib.sha256(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()).hexdigest()
        for name, tensor in tensors
    }


def _raises(error: Exception, *, after: int = 0, real: Callable[..., Any] | None = None) -> Callable[..., Any]:
    calls = 0

    def fault(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= after:
            return real(*args)
        raise error

    return fault


def run(pipe: multiprocessing.connection.Connection, *where: Any) -> None:
    """Do what comes through the pipe; answer with the result, or with the error that would have ended a server."""
    try:
        rank = Rank(*where)
    except BaseException:
        pipe.send((False, traceback.format_exc()))
        raise
    pipe.send((True, None))
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(rank, method)(*arguments)))
        except Exception as error:
            traceback.print_exc()
            pipe.send((False, f"{type(error).__name__}: {error}"))
