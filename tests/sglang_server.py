"""A server that answers as SGLang's routes for new weights do, with the loader `tensordelta.sglang.apply` behind them.

The statuses and bodies are those of SGLang 0.5.23. What is sent is unpickled with a part of the list of what that
release allows.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
from typing import Any

import torch
from engine_server import EngineServer, Gone, Reply, Weights

_ALLOWED = {("builtins", "list"), ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2")}


class SglangRoutes(EngineServer):
    """One SGLang server.

    Args:
        arrays: the weights that it is started with.
        ranks: the size of tensor parallelism.

    Attributes:
        weights: what it serves.
        name: `weight_version`.
        paused: how it was paused, None where it is not.
        active: whether there is a session.
        flushed: how often the caches were dropped.
        sent: what was posted to `update_weights_from_tensor`.
        pointers: what the loader got, on any rank.
    """

    def __init__(self, arrays: dict[str, Any], ranks: int = 1) -> None:
        super().__init__()
        self._arrays = arrays
        self._ranks = ranks
        self.sent: list[dict[str, Any]] = []
        self.pointers: list[dict[str, Any]] = []

    def reset(self) -> None:
        self.weights = Weights(self._arrays)
        self.name = "default"
        self.paused: str | None = None
        self.active = False
        self.flushed = 0

    def serve(self, method: str, route: str, query: dict[str, str], body: Any) -> Reply:
        match method, route:
            case "GET", "model_info":
                return 200, {"model_path": "model", "weight_version": self.name}
            case "GET", "server_info":
                return 200, {"tp_size": self._ranks}
            case "POST", "pause_generation":
                self.paused = body.get("mode", "abort")
                return 200, {"message": "Generation paused successfully.", "status": "ok"}
            case "POST", "continue_generation":
                self.paused = None
                return 200, {"message": "Generation continued successfully.", "status": "ok"}
            case "POST", "begin_weight_update":
                if self.active:
                    return _failed("a weight-update session is already open; call end_weight_update() first")
                self.active = True
                return 200, {"success": True, "message": "Success"}
            case "POST", "update_weights_from_tensor":
                return self._update(body)
            case "POST", "end_weight_update":
                if not self.active:
                    return _failed("no weight-update session is open; call begin_weight_update() first")
                self.active = False
                return 200, {"success": True, "message": "Success"}
        return 404, {"detail": "Not Found"}

    def _update(self, body: dict[str, Any]) -> Reply:
        self.sent.append(body)
        if not self.active:
            return _failed("update_weights_from_tensor must run between begin_weight_update() and end_weight_update()")
        for rank in range(self._ranks):
            ((_, tensor),) = unpickled(base64.b64decode(body["serialized_named_tensors"][rank], validate=True))
            assert tensor.dtype == torch.uint8 and tensor.ndim == 1
            pointer = json.loads(bytes(tensor.tolist()))
            self.pointers.append(pointer)
            self.weights.meet(pointer["root"])
            self.weights.take(pointer["version"])
        if body["flush_cache"]:
            if self.paused != "retract":
                return _failed(
                    "Weights were updated, but the cache was not flushed because requests are still running or queued. "
                    "Retract or finish them, then call /flush_cache."
                )
            self.flushed += 1
        self.name = body["weight_version"]
        return 200, {"success": True, "message": f"Success Weight version updated to {self.name}."}

    def refuse(self, error: Exception) -> Reply:
        """An error of a loader ends the scheduler, and with it the server."""
        raise Gone


def unpickled(data: bytes) -> Any:
    """The objects in a pickle that names nothing but what SGLang allows."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("torch.storage", "_load_from_bytes"):
                return lambda storage: torch.load(io.BytesIO(storage), weights_only=True)
            if (module, name) not in _ALLOWED:
                raise RuntimeError(f"Blocked unsafe global ({module}.{name}) during pickle deserialization")
            return super().find_class(module, name)

    return Unpickler(io.BytesIO(data)).load()


def _failed(message: str) -> Reply:
    return 400, {"success": False, "message": message}
