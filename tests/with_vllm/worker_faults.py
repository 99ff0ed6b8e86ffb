"""Faults that a test puts into the workers of an engine; vLLM mixes this class into theirs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import tensordelta as td
from tensordelta.torch.device_state import TensorWrite
from tensordelta.vllm.reload import Layers


class Faults:
    """What a test asks of the workers; all ranks are asked alike."""

    def fault(self, kind: str, rank: int, seconds: float = 0) -> None:
        """Have one rank fail in its next update: once, then it works again."""
        if self.rank == rank:
            getattr(self, f"_{kind}")(seconds)

    def flip(self, parameter: str, word: int, rank: int) -> None:
        """Flip a bit of a word of one rank; again takes it back."""
        if self.rank == rank:
            tensor = dict(self.model_runner.get_model().named_parameters())[parameter]
            tensor.data.view(torch.int16).view(-1)[word] ^= 1

    def _missing(self, _: float) -> None:
        chain = self.weight_transfer_engine._followed.chain
        error = td.MissingError("no such object", object="packs/x", rule="TD-RDR-006")
        _once(chain, "prepare", lambda prepare, *args: _raise(error))

    def _slow(self, seconds: float) -> None:
        chain = self.weight_transfer_engine._followed.chain
        _once(chain, "prepare", lambda prepare, *args: (time.sleep(seconds), prepare(*args))[1])

    def _other(self, _: float) -> None:
        """It believes to have the version before."""
        followed = self.weight_transfer_engine._followed
        state, version = followed.state, followed.version - 1
        before = state.version, state.chain, state.version_digests
        manifest = followed.chain.manifest(version)
        state.hold(version, state.chain, (manifest.layout, manifest.fingerprint))
        self.heal = lambda: state.hold(*before)

    def healed(self, rank: int) -> None:
        if self.rank == rank:
            self.heal()

    def _sum(self, _: float) -> None:
        group = self.weight_transfer_engine._followed.state.group
        _once(group, "sum", lambda add, values: add(values + np.array([0, 1, 0], np.uint64)))

    def _scatter(self, _: float) -> None:
        _in_second_write(lambda: _raise(RuntimeError("amid the scatter")))

    def _die(self, _: float) -> None:
        _in_second_write(lambda: os.kill(os.getpid(), signal.SIGKILL))

    def _load(self, _: float) -> None:
        """It raises when half of the tensors are loaded."""
        model = self.model_runner.get_model()

        def half(load: Callable[..., Any], weights: Any) -> Any:
            weights = list(weights)
            load(iter(weights[: len(weights) // 2]))
            raise RuntimeError("amid the load")

        _once(model, "load_weights", half)

    def _hang(self, seconds: float) -> None:
        """It hangs when it has loaded."""
        _once(Layers, "load", lambda load, *args: (load(*args), time.sleep(seconds)))


def _raise(error: Exception) -> None:
    raise error


def _in_second_write(act: Callable[[], None]) -> None:
    do, calls = TensorWrite.do, []

    def write(self: TensorWrite) -> None:
        calls.append(1)
        if len(calls) == 2:
            TensorWrite.do = do
            act()
        do(self)

    TensorWrite.do = write


def _once(owner: Any, name: str, act: Callable[..., Any]) -> None:
    """Replace a method for one call; what replaces it is given the method first."""
    original, is_own = getattr(owner, name), name in vars(owner)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        if is_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
        return act(original, *args, **kwargs)

    setattr(owner, name, replaced)
