"""A server that answers as vLLM's routes for RL do, with the back end `tensordelta` behind them.

The statuses and bodies are those of vLLM 0.32; an error of a worker comes through the engine's process as text.
"""

from __future__ import annotations

from typing import Any

from engine_server import EngineServer, Reply, Weights


class VllmRoutes(EngineServer):
    """One vLLM server of one rank.

    Args:
        arrays: the weights that it is started with.

    Attributes:
        weights: what it serves.
        name: `weight_version`.
        paused, asleep, active: the scheduler, and whether there is a session.
        dropped: how often the caches were dropped.
        developing: started with VLLM_SERVER_DEV_MODE=1.
        met: the `init_info` of each call.
        prepared: what the ranks say that they have prepared, one answer after another; then, the newest version.
    """

    def __init__(self, arrays: dict[str, Any]) -> None:
        super().__init__()
        self._arrays = arrays
        self.developing = True
        self.met: list[dict[str, Any]] = []
        self.prepared: list[list[int | None]] = []

    def reset(self) -> None:
        self.weights = Weights(self._arrays)
        self.name = "default"
        self.paused = self.asleep = self.active = False
        self.dropped = 0

    def serve(self, method: str, route: str, query: dict[str, str], body: Any) -> Reply:
        if route == "health":
            return 200, {}
        if not self.developing:
            return _error(404, "Not Found", "Not Found")
        match method, route:
            case "GET", "weight_info":
                return 200, {"weight_version": self.name}
            case "GET", "is_paused":
                return 200, {"is_paused": self.paused or self.asleep}
            case "GET", "is_sleeping":
                return 200, {"is_sleeping": self.paused or self.asleep}
            case "POST", "pause":
                if query.get("mode", "abort") not in ("abort", "wait", "keep"):
                    return _error(400, "Bad Request", "1 validation error")
                self.paused = True
                self.dropped += query.get("clear_cache", "true") == "true"
                return 200, {"status": "paused"}
            case "POST", "resume":
                self.paused = False
                return 200, {"status": "resumed"}
            case "POST", "init_weight_transfer_engine":
                assert not self.asleep  # its weights are away
                self.met.append(body["init_info"])
                self.weights.meet(body["init_info"]["chain"])
                return 200, {"message": "Weight transfer initialized"}
            case "POST", "start_weight_update":
                if self.active:
                    raise RuntimeError(
                        "start_weight_update called while a weight update is already active. "
                        "Call finish_weight_update first."
                    )
                self.active = True
                return 200, {"message": "Weight update started"}
            case "POST", "update_weights":
                if not self.active:
                    raise RuntimeError("start_weight_update must be called before update_weights.")
                self.active = False
                self.weights.take(body["update_info"]["version"])
                self.active = True
                return 200, {"message": "Weights updated"}
            case "POST", "finish_weight_update":
                if not self.active:
                    raise RuntimeError("finish_weight_update called without a matching start_weight_update.")
                self.active = False
                if body["weight_version"] is not None:
                    self.name = body["weight_version"]
                return 200, {"message": "Weight update finished"}
            case "POST", "update_weight_version":
                self.name = body["new_version"]
                return 200, {"success": True, "new_version": self.name}
            case "POST", "collective_rpc":
                if body["method"] != "tensordelta_prepared":
                    raise RuntimeError(f"'CPUWorker' object has no attribute '{body['method']}'")
                found = self.prepared.pop(0) if self.prepared else [self.weights.newest()]
                if self.asleep:  # it forgets what it has
                    found = [None] * len(found)
                return 200, {"results": [None if each is None else str(each) for each in found]}
            case "POST", "weight_checker":
                return 200, {"checksums": {"dp0:pp0:pcp0:tp0:a": self.weights.state.fingerprint()}}
        return _error(404, "Not Found", "Not Found")

    def refuse(self, error: Exception) -> Reply:
        return _error(500, "InternalServerError", f"Call to collective_rpc method failed: {error}")

    def update_failing(self, error: Exception) -> None:
        """A fault of `update_weights` in the worker, which ends the session."""
        self.active = False
        raise error


def _error(status: int, kind: str, message: str) -> Reply:
    return status, {"error": {"message": message, "type": kind, "param": None, "code": status}}
