"""Updates of a model whose weights are packed: touched layers are loaded and packed anew, from a copy of the weights.

A packed layer has to be loaded as a whole: query, key and value together, with their biases; gate and up together.
Which tensors go together is asked of the model's own loader. vLLM's layerwise reload does the rest, but for layers that
have their weight from another one, such as a tied output layer, which is packed anew here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.meta import to_meta_tensor

from ..chain import Chain
from ..errors import UnsupportedError
from ..format.layout import Layout
from ..state.group import Group, GroupError, LostError, together
from ..state.state import State
from ..state.update import Update
from ..threads import Process
from ..torch import named_tensors
from ..torch.tensors import _TORCH

_LOG = logging.getLogger("vllm.tensordelta")  # below vLLM's own, whose handlers it has
#: Seconds from one attempt to follow the chain to the next, after one that failed.
_AGAIN = 5.0
#: What a layer computes with in place of its weight, where vLLM has packed it.
_PACKED = "cpu_linear"


#: What a layer has: what it computes with in place of its weight, and its tensors with copies of them.
Saved = list[tuple[nn.Module, Any, list[tuple[Tensor, Tensor]]]]


class Reload:
    """One rank of an engine with packed weights, that follows a chain; used as `tensordelta.torch.rank.Rank` is.

    Each rank has a copy of all weights. The first update writes all layers, whatever they had; each later one writes
    the layers of which a tensor has changed.

    Args:
        group: the ranks.
        start: opens the chain.
        model: this rank's part of the model.
        config: the model's `ModelConfig`.
        follow, poll: see `Rank`.

    Attributes:
        chain: what `start` returned.
        version: the version that the ranks have; None before the first update.
        torn: True where it is not known whether all ranks have the same version.

    Raises:
        GroupError: `start` failed in a rank, or the chain lacks tensors of the model. In a group of one the error
            itself is raised.
    """

    def __init__(
        self,
        group: Group,
        start: Callable[[], Chain],
        model: nn.Module,
        config: Any,
        *,
        follow: bool = True,
        poll: float = 1.0,
    ) -> None:
        self._group = group
        self._model, self._config = model, config
        self._state = State.empty()
        self._layers: Layers | None = None
        self._ready: Update | None = None
        self._anew = False
        self._process = Process("the rank")
        self._stop = threading.Event()
        self.version: int | None = None
        self.torn = False
        self.chain = together(group, start)
        self._thread = threading.Thread(target=self._follow, args=(poll,), name="tensordelta-reload", daemon=True)
        if follow:
            self._thread.start()

    @property
    def ready(self) -> Update | None:
        """The update that this rank's thread has prepared; other ranks may have prepared another one, or none."""
        update = self._ready
        return None if update is None or update.stale else update

    def update(self, version: int) -> Update | None:
        """Take all ranks to a version; all of them call this, while the engine computes nothing.

        Returns:
            The update that was applied; None where the ranks have the version already.

        Raises:
            GroupError: a rank could not prepare or apply it; every rank has the old version. In a group of one the
                error itself is raised.
            LostError: a rank hangs, has died, or could not go back: start the engine again.
        """
        self._process.check()
        if self.torn:
            raise LostError("an earlier update lost a rank: start the engine again")
        if self.version == version:
            return None
        update = together(self._group, lambda: self._prepared(version))
        if len(set(self._group.gather(update.fingerprint))) > 1:
            raise GroupError("the ranks have prepared different weights: they must read the same chain")
        if self._layers is None or self._layers.layout != update.layout:
            self._layers = together(self._group, lambda: Layers(self._model, self._config, update.layout))
        layers = self._layers
        names = layers.touched(self._changed(update))
        before = together(self._group, lambda: layers.save(names))
        self.torn = self._anew = True  # what fails is not tried again as it was prepared
        try:
            together(self._group, lambda: self._write(layers, update, names))
        except LostError:
            raise
        except Exception:
            try:
                together(self._group, lambda: self._take_back(layers, update, before))
            except Exception as error:
                raise LostError("a rank could not go back to the old version: start the engine again") from error
            self.torn = False
            raise
        self.torn = self._anew = False
        self.version = version
        return update

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._process.is_here and self._thread.is_alive():
            self._thread.join()

    def _prepared(self, version: int) -> Update:
        ready = self.ready
        if ready is not None and ready.version == version and not self._anew:
            return ready
        return self.chain.prepare(self._state, version)

    def _changed(self, update: Update) -> list[str]:
        """The tensors whose words differ from those that the model has; all before the first update."""
        if self.version is None or self._state.layout != update.layout:
            return [tensor.name for tensor in update.layout.tensors]
        indices = {*update.built, *(piece.tensor for piece in update.runs())}
        return [update.layout.tensors[index].name for index in sorted(indices)]

    def _write(self, layers: Layers, update: Update, names: list[str]) -> None:
        update.apply()
        layers.load(self._state, names)

    def _take_back(self, layers: Layers, update: Update, before: Saved) -> None:
        layers.restore(before)
        if self._state.version == update.version:
            update.undo()

    def _follow(self, poll: float) -> None:
        while not self._stop.is_set():
            try:
                for update in self.chain.follow(self._state, poll=poll, stop=self._stop):
                    self._ready = update
                    del update
            except Exception as error:
                with suppress(ValueError):  # a handler whose stream was closed must not end the thread
                    _LOG.warning("following the chain: %s", error)
                self._stop.wait(_AGAIN)


class Layers:
    """Which layers of a model the tensors of a checkpoint go to.

    Args:
        model: this rank's part of the model; it may not compute meanwhile.
        config: its `ModelConfig`.
        layout: the checkpoint's tensors.

    Attributes:
        layout: as given.

    Raises:
        UnsupportedError: the checkpoint lacks tensors of the model, or the loader combines some of them.
    """

    def __init__(self, model: nn.Module, config: Any, layout: Layout) -> None:
        self.layout = layout
        self._model, self._config = model, config
        names = {layer: name for name, layer in model.named_modules()}
        own = {layer: {_storage(each) for each in _tensors(layer).values() if each.numel()} for layer in names}
        recorder = _Recorder(layout)
        with self._reloading():
            recorder.record(model)
        self._layers = recorder.layers
        #: By layer those that have its weight and are loaded with nothing of their own.
        self._followers: dict[nn.Module, list[nn.Module]] = {}
        #: Pairs of layers that were loaded with tensors of their own, which vLLM found to be equal.
        self._equal: list[tuple[nn.Module, nn.Module]] = []
        loaded = list(self._layers)
        for number, owner in enumerate(loaded):
            self._equal += [(owner, other) for other in loaded[:number] if own[owner] & own[other]]
            self._followers[owner] = [each for each in names if each not in self._layers and own[owner] & own[each]]
        recorder.check((each for followers in self._followers.values() for each in followers), names)

    def touched(self, names: Iterable[str]) -> list[str]:
        """All tensors of the layers to which some tensors go, in the order of the layout."""
        wanted, before = set(names), -1
        while len(wanted) > before:
            before = len(wanted)
            for tensors in self._layers.values():
                if wanted & tensors.keys():
                    wanted |= tensors.keys()
        return [tensor.name for tensor in self.layout.tensors if tensor.name in wanted]

    def load(self, state: State, names: list[str]) -> None:
        """Load tensors of a state, which are those of whole layers.

        Raises:
            UnsupportedError: two tensors differ that the model has as one.
        """
        for pair in self._equal:
            one, other = (next(iter(self._layers[layer])) for layer in pair)
            if not np.array_equal(state.words(self.layout.index[one]), state.words(self.layout.index[other])):
                raise UnsupportedError(
                    f"it differs from {other!r}, and the engine has both as one, because they were equal when it "
                    "was started",
                    object=f"tensor {one!r}",
                    rule="TD-RDR-013",
                    advice="Start the engine again, on the new version.",
                )
        with torch.no_grad(), self._reloading():
            wanted = set(names)
            self._model.load_weights((name, tensor) for name, tensor in named_tensors(state) if name in wanted)
        for layer in self._of(names):
            for follower in self._followers[layer]:
                follower.quant_method.process_weights_after_loading(follower)

    def save(self, names: list[str]) -> Saved:
        """What the layers of some tensors have now."""
        return [
            (layer, layer.__dict__.get(_PACKED), [(each, each.detach().clone()) for each in _tensors(layer).values()])
            for owner in self._of(names)
            for layer in (owner, *self._followers[owner])
        ]

    def restore(self, saved: Saved) -> None:
        """Give layers back what they had."""
        with torch.no_grad():
            for layer, packed, tensors in saved:
                if packed is not None:
                    setattr(layer, _PACKED, packed)
                for tensor, copy in tensors:
                    tensor.data.copy_(copy)

    def _of(self, names: Iterable[str]) -> list[nn.Module]:
        wanted = set(names)
        return [layer for layer, tensors in self._layers.items() if wanted & tensors.keys()]

    @contextmanager
    def _reloading(self) -> Iterator[None]:
        """A context in which the model can be loaded; layers that were not are put back as they were."""
        with _quiet():
            initialize_layerwise_reload(self._model)
            try:
                yield
            finally:
                finalize_layerwise_reload(self._model, self._config)


class _Recorder:
    """Asks a model's loader where tensors go, while the model's layers have no memory.

    Attributes:
        layers: by layer the names of the tensors that go to it, in order.
    """

    def __init__(self, layout: Layout) -> None:
        self.layers: dict[nn.Module, dict[str, None]] = {}
        self._layout = layout
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []
        #: By layer and parameter, how many elements it has, and how many of them were loaded or are padding.
        self._elements: dict[tuple[nn.Module, str], tuple[int, int]] = {}

    def record(self, model: nn.Module) -> None:
        """Have the model's loader load all tensors; nothing is written.

        Raises:
            UnsupportedError: the loader combines tensors.
        """
        loaders: list[tuple[Any, Any]] = []
        for layer in model.modules():
            for name, parameter in layer._parameters.items():
                if parameter is not None:
                    self._elements[layer, name] = parameter.numel(), 0
            for name, tensor in _tensors(layer).items():
                loader = getattr(tensor, "weight_loader", None)
                if loader is not None:
                    loaders.append((tensor, loader))
                    tensor.weight_loader = partial(self._load, layer, name, _unwrapped(loader))
        try:
            model.load_weights(self._tensors())
        finally:
            for tensor, loader in loaders:
                tensor.weight_loader = loader

    def check(self, followers: Iterable[nn.Module], names: Mapping[nn.Module, str]) -> None:
        """Check that all layers were given all of their parameters, but for those that have them from others.

        Raises:
            UnsupportedError: the checkpoint lacks some.
        """
        followers = set(followers)
        for (layer, name), (elements, loaded) in self._elements.items():
            if loaded < elements and not (layer in followers and not loaded):
                raise UnsupportedError(
                    f"it has no weights for {names[layer]}.{name} of the engine's model, or a part of them only",
                    object="the version",
                    rule="TD-RDR-013",
                    advice="Publish all tensors of the checkpoint that the engine was started with.",
                )

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for entry in self._layout.tensors:
            tensor = torch.empty(entry.shape, dtype=_TORCH[entry.dtype], device="meta")
            self._names[_storage(tensor)] = entry.name
            self._kept.append(tensor)  # an id of a storage is its own only while the storage exists
            yield entry.name, tensor

    def _load(
        self,
        layer: nn.Module,
        parameter: str,
        loader: Callable[..., Any],
        target: Tensor,
        source: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Stand in for a parameter's loader: call it with tensors without memory."""
        name = self._names.get(_storage(source))
        if name is None:
            raise UnsupportedError(
                "the model's loader combines tensors before it loads them",
                object=f"parameter {parameter!r} of {type(layer).__name__}",
                rule="TD-RDR-013",
                advice="Have the engine load a pulled folder for each version.",
            )
        self.layers.setdefault(layer, {})[name] = None
        with _Written() as written:
            result = loader(target if target.is_meta else to_meta_tensor(target), source, *args, **kwargs)
        elements, loaded = self._elements.get((layer, parameter), (0, 0))
        self._elements[layer, parameter] = elements, loaded + written.elements
        return result


class _Written(TorchDispatchMode):
    """Counts the elements that are written, padding included."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.ops.aten.copy_.default, torch.ops.aten.fill_.Scalar, torch.ops.aten.zero_.default):
            self.elements += args[0].numel()
        return func(*args, **(kwargs or {}))


def _unwrapped(loader: Any) -> Any:
    """A loader without what vLLM has put around it for the reload."""
    while getattr(loader, "__name__", "") == "online_process_loader":
        loader = loader.__wrapped__
    return loader


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    found = (*layer._parameters.items(), *layer._buffers.items())
    return {name: tensor for name, tensor in found if tensor is not None}


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without vLLM's warnings of layers that are not loaded, which is most of them on purpose."""
    logger = logging.getLogger("vllm.model_executor.model_loader.reload.layerwise")

    def wanted(record: logging.LogRecord) -> bool:
        return "Failed to load weights" not in str(record.msg)

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
