"""What a worker of vLLM, which has one rank's part of the model, does with a chain."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from vllm.config import set_current_vllm_config
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from ..chain import Chain
from ..opening import open
from ..state.group import together
from ..torch.device_state import DeviceState
from ..torch.places import record
from ..torch.rank import Rank
from . import exactness
from .calls import Calls
from .reload import Reload

_LOG = logging.getLogger("vllm.tensordelta")  # below vLLM's own, whose handlers it has

#: Names the chain where `init_info` names none, and more of `InitInfo` as a JSON object.
CHAIN = "TENSORDELTA_CHAIN"
OPTIONS = "TENSORDELTA_OPTIONS"


@dataclass
class InitInfo(WeightTransferInitInfo):
    """How an engine follows a chain; what is not given comes from $TENSORDELTA_OPTIONS, a JSON object of the same.

    Attributes:
        chain: its address, as the engine's machine knows it; by default $TENSORDELTA_CHAIN.
        follow: prepare newer versions in a thread as they are published, else only when an update names them.
        poll: seconds between two looks for a newer version, approximately.
        scan_every: at every so many updates all words of the engine are read and proven, before anything is written;
            0 for never. After the first update, words that no update lists are proven in no other way. Packed weights
            cannot be read.
        timeout: seconds that a rank of the engine waits for the others.
        opening: keywords for `tensordelta.open`.
    """

    chain: str | None = None
    follow: bool = True
    poll: float = 1.0
    scan_every: int = 0
    timeout: float = 300.0
    opening: dict[str, Any] = field(default_factory=dict)


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """Which version the engine takes.

    Attributes:
        version: by default the newest one that rank 0 has prepared, or else sees.
    """

    version: int | None = None


class Engine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """vLLM's weight-transfer engine `tensordelta`: one rank's part of a model, which follows a chain.

    Attributes:
        calls: the ranks.
    """

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._info: InitInfo | None = None
        self._followed: Rank | Reload | None = None
        self.calls = Calls(self.parallel_config.world_size, InitInfo.timeout)

    @property
    def version(self) -> int | None:
        """The version that the engine has; None while that is not known."""
        return None if self._followed is None else self._followed.version

    @property
    def prepared(self) -> int | None:
        """The newest version that this rank can take without reading from the chain."""
        if self._followed is None:
            return None
        update = self._followed.ready
        return self.version if update is None else update.version

    @property
    def is_torn(self) -> bool:
        """True where ranks may have different versions: nothing may be served."""
        return self._followed is not None and self._followed.torn

    def parse_init_info(self, init_dict: dict[str, Any]) -> InitInfo:
        """How to follow a chain. Raises ValueError where that is not valid."""
        return init_info(init_dict)

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Open the chain, and find out where the model has its words and which version they are.

        Again with the same `init_info` it does nothing.

        Raises:
            ValueError: no chain is named, or the engine is of a kind that cannot be updated exactly.
            UnsupportedError: the model's loader does more than to copy words.
            WrongBaseError: the model's weights are those of no version of the chain.
            GroupError: a rank failed; it says which, and why.
            TensorDeltaError, StoreError: the chain cannot be read.
        """
        if self._followed is None or init_info != self._info:
            self.forget()
            self._info = init_info
            self._begin()

    def start_weight_update(self) -> None:
        """Do nothing; what is written is agreed upon first."""

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Take the model to a version, together with the other ranks.

        Raises:
            TensorDeltaError, StoreError: the version cannot be read or proven; the model has the old one.
            GroupError: a rank failed; all have the old version.
            LostError: a rank is lost: the engine has to be started again.
        """
        began = time.monotonic()
        followed = self._followed or self._begin()
        version = update_info.version
        if version is None:
            ready = followed.ready
            newest = together(self.calls.group, lambda: followed.chain.newest() if ready is None else ready.version)
            version = int(self.calls.group.gather(str(newest))[0])
        update = followed.update(version)
        changed = 0 if update is None else update.changed
        _LOG.info("version %d: %d words written, %.3f s", version, changed, time.monotonic() - began)

    def finish_weight_update(self) -> None:
        """Do nothing; the update is complete."""

    def shutdown(self) -> None:
        """Stop following."""
        self.forget()

    def forget(self) -> None:
        """Take the model's weights for unknown: the next update proves them anew, or writes all of them."""
        followed, self._followed = self._followed, None
        if followed is not None:
            followed.close()

    def _begin(self) -> Rank | Reload:
        info = self._info = self._info or init_info({})
        exactness.check_engine(self.vllm_config)
        group = self.calls.group
        follow: dict[str, Any] = {"follow": info.follow, "poll": info.poll}
        with torch.inference_mode(False), torch.no_grad(), set_current_vllm_config(self.vllm_config):
            if exactness.packs():
                self._followed = Reload(group, self._open, self.model, self.model_config, **follow)
            else:
                self._followed = Rank(group, self._located, scan_every=info.scan_every, **follow)
        return self._followed

    def _open(self) -> Chain:
        info = self._info
        assert info is not None and info.chain is not None
        exactness.check_model(self.model)
        return open(info.chain, **info.opening)

    def _located(self) -> tuple[Chain, DeviceState]:
        """The chain, and the model's words as a state of its layout."""
        chain = self._open()
        newest = chain.newest()
        if newest is None:
            raise ValueError(f"chain {chain.address} has no version yet: publish the weights that the engine has")
        layout = chain.layout(newest)
        parts = record(self.model, self.model.load_weights, layout, tied=exactness.tied(self.model))
        return chain, DeviceState(layout, parts, group=self.calls.group)


def init_info(given: dict[str, Any]) -> InitInfo:
    """How to follow a chain, from what was given and the environment.

    Raises:
        ValueError: a field that there is not, no chain, or no JSON object in the environment.
    """
    try:
        options = json.loads(os.environ.get(OPTIONS, "{}"))
        info = InitInfo(**{"chain": os.environ.get(CHAIN), **options, **given})
        msgspec.convert(vars(info), InitInfo)
        if info.poll <= 0 or info.timeout <= 0 or info.scan_every < 0:
            raise ValueError("poll and timeout are more than 0 seconds, and scan_every is not negative")
    except (TypeError, ValueError) as error:
        raise ValueError(f"init_info, or {OPTIONS} in the environment, is not valid: {error}") from None
    if not info.chain:
        raise ValueError(f"no chain is named: give its address as `chain` in init_info, or in {CHAIN}")
    return info
