"""A vLLM server whose weight-transfer back end is `tensordelta`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from time import monotonic
from typing import Any

from .errors import ServerError, ServerUnavailableError
from .server import Server, named_later

#: Seconds between two looks whether all ranks have prepared a version.
_LOOK = 0.1
#: Of vLLM's error where a session is begun while there is one.
_IN_SESSION = "already active"


class VllmServer(Server):
    """A server started with `VLLM_SERVER_DEV_MODE=1` and `--weight-transfer-config '{"backend":"tensordelta"}'`.

    `update` does it all; the other methods are the routes that it uses.

    Args:
        url, chain, key, timeout, patience: see `Server`.
        options: more fields of the back end's `init_info`, beside the chain's address.
        lead: seconds for which the server may prepare a version while it serves; after that it is paused all the same.
    """

    _missing = (
        "If it is a vLLM server, start it with VLLM_SERVER_DEV_MODE=1, without which it has no routes for new weights."
    )

    def __init__(
        self,
        url: str,
        chain: str | os.PathLike[str],
        *,
        key: str | None = None,
        timeout: float = 600.0,
        patience: float = 60.0,
        options: Mapping[str, Any] | None = None,
        lead: float = 60.0,
    ) -> None:
        super().__init__(url, chain, key=key, timeout=timeout, patience=patience, options=options)
        self._lead = lead

    def weight_version(self) -> str:
        return str(self._client.get("weight_info").get("weight_version"))

    def set_weight_version(self, name: str) -> None:
        """Name the weights, without changing them."""
        self._client.post("update_weight_version", {"new_version": name})

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each parameter of each rank, as hex, under vLLM's own names."""
        return dict(self._client.post("weight_checker", {"action": "checksum"})["checksums"])

    def init(self) -> None:
        """Have the back end open the chain and find the version that the loaded weights are."""
        self._client.post("init_weight_transfer_engine", {"init_info": {**self.options, "chain": self.chain}})

    def prepared(self) -> list[int | None]:
        """The newest version that each rank can take at once; None for a rank that knows of none."""
        found = self._client.post("collective_rpc", {"method": "tensordelta_prepared"}).get("results") or []
        return [int(each) if str(each).isdecimal() else None for each in found]

    def is_paused(self) -> bool:
        """True where the server is paused, or asleep."""
        return bool(self._client.get("is_paused").get("is_paused"))

    def pause(self) -> None:
        # Requests that wait keep nothing of the old weights: their prefixes are computed again.
        self._client.post("pause", mode="keep", clear_cache="true")

    def resume(self) -> None:
        self._client.post("resume")

    def start_update(self) -> None:
        """Begin a session; vLLM refuses a second one."""
        self._client.post("start_weight_update")

    def update_weights(self, version: int) -> None:
        """In a session: have every rank take a version. If one cannot, the session ends."""
        self._client.post("update_weights", {"update_info": {"version": version}})

    def finish_update(self, version: int) -> None:
        """End a session, and name the weights by the version."""
        self._client.post("finish_weight_update", {"weight_version": str(version)})

    def _meet(self) -> None:
        try:
            self.init()
        except ServerUnavailableError:
            raise
        except ServerError as error:
            raise type(error)(self.url, "opening the chain", error.cause, error.advice) from error

    def _prepared(self, version: int, at_most: int) -> int:
        follows = self.options.get("follow", True)  # else it prepares what an update names
        until = monotonic() + self._lead
        while follows:
            try:
                ranks = [-1 if each is None else each for each in self.prepared()]
            except ServerUnavailableError:
                raise
            except ServerError:  # the update itself will say what is wrong
                break
            if ranks and min(ranks) >= version:
                return min(ranks) if min(ranks) <= at_most else version
            if monotonic() >= until:
                break
            time.sleep(_LOOK)
        return version

    def _is_paused(self) -> bool:
        if not self.is_paused():
            return False
        # vLLM says of a server that is paused that it sleeps, too; but with sleep the back end forgets what it has.
        if None in self.prepared():
            cause = "the server is asleep, or was paused before it followed the chain"
            raise ServerUnavailableError(self.url, "an update", cause, "Wake it up, or resume it.")
        return True

    def _begin(self) -> bool:
        try:
            self.start_update()
        except ServerError as error:
            if _IN_SESSION not in error.cause:
                raise
            return False
        if not self.is_paused():  # another driver has resumed the server after its own update
            self.pause()
        return True

    def _write(self, version: int) -> None:
        self.update_weights(version)
        with named_later():
            self.finish_update(version)
