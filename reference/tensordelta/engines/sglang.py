"""An SGLang server whose custom weight loader is `tensordelta.sglang.apply`."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .errors import ServerError
from .server import Server, named_later

#: The loader, as the server was given it.
LOADER = "tensordelta.sglang.apply"

#: The name of the one tensor that is sent.
NAME = "tensordelta"

#: Of SGLang's error where a session is begun while there is one.
_IN_SESSION = "already open"


class SglangServer(Server):
    """A server started with `--custom-weight-loader tensordelta.sglang.apply`.

    `update` does it all; the other methods are the routes that it uses. Needs torch, to write the tensor that is sent.

    Args:
        url, chain, key, timeout, patience: see `Server`; `key` is the admin key where the server has one.
        options: more fields of the pointer that is sent, beside the chain's address and the version.

    Raises:
        ImportError: torch is not installed.
    """

    _missing = "Check that it is an SGLang server, of release 0.5.23 or a newer one."

    def __init__(
        self,
        url: str,
        chain: str | os.PathLike[str],
        *,
        key: str | None = None,
        timeout: float = 600.0,
        patience: float = 60.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(url, chain, key=key, timeout=timeout, patience=patience, options=options)
        self._pointer(0)  # so that what it needs is missed before the server is paused

    def weight_version(self) -> str:
        return str(self._client.get("model_info").get("weight_version"))

    def ranks(self) -> int:
        """The size of tensor parallelism."""
        return int(self._client.get("server_info").get("tp_size", 1))

    def pause(self) -> None:
        # Requests that wait keep nothing of the old weights: their prefixes are computed again.
        self._client.post("pause_generation", {"mode": "retract"})

    def resume(self) -> None:
        self._client.post("continue_generation", {"torch_empty_cache": False})

    def begin_update(self) -> None:
        """Begin a session; SGLang refuses a second one."""
        self._client.post("begin_weight_update", {"selector": "target"})

    def update_weights(self, version: int) -> None:
        """In a session: have every rank take a version, drop what is cached, and name the weights by the version."""
        self._client.post(
            "update_weights_from_tensor",
            {
                "serialized_named_tensors": [self._pointer(version)] * self.ranks(),
                "load_format": LOADER,
                "selector": "target",
                "flush_cache": True,
                "weight_version": str(version),
            },
        )

    def _pointer(self, version: int) -> str:
        return pickled({**self.options, "root": self.chain, "version": version})

    def end_update(self) -> None:
        """End a session."""
        self._client.post("end_weight_update", {})

    def _meet(self) -> None:
        if not self.met:  # the server cannot be asked whether a driver that was killed has left it paused
            self.resume()

    def _is_paused(self) -> bool:
        return False

    def _begin(self) -> bool:
        try:
            self.begin_update()
        except ServerError as error:
            if _IN_SESSION not in error.cause:
                raise
            return False
        return True

    def _write(self, version: int) -> None:
        try:
            self.update_weights(version)
        except BaseException:
            with suppress(ServerError):  # a session stays open when its update fails
                self.end_update()
            raise
        with named_later():
            self.end_update()


def pickled(pointer: Mapping[str, Any]) -> str:
    """What is sent to each rank: a uint8 tensor that holds a pointer as JSON.

    It is pickled whole, not as a handle of shared memory as SGLang's own serializer does it, so that it may come from
    another machine.

    Returns:
        The pickle of `[(NAME, tensor)]`, in base64.

    Raises:
        ImportError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("driving an SGLang server needs torch: pip install 'tensordelta[torch]'") from error
    tensor = torch.frombuffer(bytearray(json.dumps(pointer).encode()), dtype=torch.uint8)
    return base64.b64encode(pickle.dumps([(NAME, tensor)])).decode()
