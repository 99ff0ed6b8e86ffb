"""Publishing from TRL and from any `transformers` Trainer, in two lines (SPEC.md section 11).

    from tensordelta.trl import PublishCallback

    trainer = GRPOTrainer(…, callbacks=[PublishCallback("hf://buckets/me/run")])

`PublishCallback` is for trainers whose engines follow the chain by themselves; `WeightTransfer` is for TRL's
`AsyncGRPOTrainer`, which tells its engines when to take new weights.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("trainers need torch and transformers: pip install 'tensordelta[trl]'") from error

from ..chain import Chain
from ..codecs import fingerprint
from ..engines import Server, VllmServer, update_servers
from ..format.layout import Layout, Tensor
from ..format.layout_change import LayoutChange
from ..format.names import now
from ..live.publisher import Ticket
from ..opening import open
from ..read.history import Published
from ..state.state import State
from ..torch import named_weights
from ..write.writer import layout_conflict

__all__ = ["PublishCallback", "WeightTransfer"]

Address = str | os.PathLike[str] | Chain


class PublishCallback(TrainerCallback):
    """Publishes a model's weights while it is trained, as versions of a chain.

    When training begins, the weights as they are then become a version, unless the chain's newest version is these
    very weights. After that every `every`-th step becomes one, and the last step. A trainer that is resumed from an
    older checkpoint goes on in the same chain: its weights become the next version, whose annotation `step` goes back.

    Each version is annotated with `step`; with `time`, in UTC; and with `loss`, where the trainer logged one with this
    step. The model's configuration and tokenizer lie beside the weights, so that an engine can load a pulled folder.

    Steps are published in the background (see `Chain.publisher`). If the store is slower than the trainer, `queue`
    steps wait, one by default, each in memory for a copy of the weights; a newer step replaces the one that has waited
    longest, which then becomes no version. So the chain may lack some of the `every`-th steps, but never the last one.

    What was submitted is published also when training fails: before the interpreter exits, which waits up to a minute
    for that and says what was lost, or by `close` where it goes on. A process that is killed loses steps that wait; the
    chain is whole then, too.

    Every rank has a callback of its own, and takes part where the weights have to be gathered; only the rank that
    `state.is_world_process_zero` names opens the chain and publishes.

    Args:
        address: the chain's address, where a new chain is made if there is none; or a chain.
        every: steps from one version to the next, unless the store is too slow for that.
        dtype: the dtype that engines serve; floating-point weights are cast to it.
        opening: keywords for `tensordelta.open`, such as {"key": "run.key"}.
        publishing: keywords for `Chain.publisher`, such as `keep=100` or `queue=4`; `layout_change=True` for a chain
            that so far has another model.

    Raises:
        ValueError: `every` is not positive.
    """

    def __init__(
        self,
        address: Address,
        every: int = 1,
        *,
        dtype: torch.dtype = torch.bfloat16,
        opening: Mapping[str, Any] | None = None,
        **publishing: Any,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}, not a positive number")
        self._address = address
        self._every = every
        self._dtype = dtype
        self._opening = opening or {}
        self._publishing = publishing
        self._output: _Output | None = None
        self._awaits_loss = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the chain, and publish the weights that training starts from.

        Raises:
            ConflictError: the chain's newest version is of another model, by its tensors.
        """
        self.close()
        model = kwargs["model"]
        if state.is_world_process_zero:
            files = _files(model, kwargs.get("processing_class"), self._dtype)
            self._output = _Output(self._address, self._opening, {"files": files, **self._publishing})
        try:
            # All ranks take part twice: in comparing the weights, and in submitting them.
            with _drained(_weights(model, self._dtype)) as weights:
                published = self._output is not None and self._output.is_newest(weights)
            with _drained(_weights(model, self._dtype)) as weights:
                if self._output is not None and not published:
                    self._output.submit(weights, _annotations(state))
        except BaseException:
            self.close()
            raise

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Publish the step, at once or when its loss is logged, which is before the next step begins."""
        if state.global_step % self._every and not control.should_training_stop:
            return
        self._awaits_loss = True
        if not control.should_log:
            self._submit(state, kwargs["model"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Publish the step whose loss this is."""
        self._submit(state, kwargs["model"], loss=(logs or {}).get("loss"))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Publish the step before, if another callback has prevented that it was logged."""
        self._submit(state, kwargs["model"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Publish what is left, and close the chain."""
        self._submit(state, kwargs["model"])
        self.close()

    def close(self) -> None:
        """Publish what was submitted; `on_train_end` does it as well, which is not called when training fails.

        Raises:
            TensorDeltaError, OSError: of a step that could not be published.
        """
        self._awaits_loss = False
        if self._output is not None:
            output, self._output = self._output, None
            output.close()

    def _submit(self, state: TrainerState, model: torch.nn.Module, loss: float | None = None) -> None:
        if not self._awaits_loss:
            return
        self._awaits_loss = False
        with _drained(_weights(model, self._dtype)) as weights:
            if self._output is not None:
                self._output.submit(weights, _annotations(state, loss=loss))


class WeightTransfer:
    """Carries weights from TRL's `AsyncGRPOTrainer` to its engines through a chain: its `weight_transfer`.

    Each sync becomes a version: the trainer waits until it is published.

    Args:
        address: the chain's address, where a new chain is made if there is none; or a chain.
        model: the model that is trained, from which come the frozen parameters and the buffers, which TRL does not
            send; or the name or path from which the trainer makes it: then it is read from there once more, to the
            CPU. Frozen parameters may not be sharded, because TRL calls this on the main process only.
        tokenizer: published with the weights, so that an engine can load a pulled folder; none by default.
        dtype: the dtype that engines serve; floating-point weights are cast to it.
        server: addresses of the vLLM servers that take each version, as `VllmServer` says how they are started; or
            servers of another kind, or with options, from `tensordelta.engines`. They generate while weights are
            published, and pause only to write them.
        within: seconds for which a server is asked again that does not answer, or refuses a version.
        on_published: called with each version while the trainer waits, once the servers have taken it.
        opening: keywords for `tensordelta.open`.
        publishing: keywords for `Chain.publisher`.

    Raises:
        ValueError: an address is none of a server.
    """

    def __init__(
        self,
        address: Address,
        *,
        model: torch.nn.Module | str | os.PathLike[str],
        tokenizer: Any = None,
        dtype: torch.dtype = torch.bfloat16,
        server: str | Server | Sequence[str | Server] = (),
        within: float = 300.0,
        on_published: Callable[[Published], None] | None = None,
        opening: Mapping[str, Any] | None = None,
        **publishing: Any,
    ) -> None:
        self._address = address
        self._model: Any = model
        self._tokenizer = tokenizer
        self._dtype = dtype
        self._servers = _servers(server, address)
        self._within = within
        self._on_published = on_published
        self._opening = opening or {}
        self._publishing = publishing
        self._output: _Output | None = None
        self._ticket: Ticket | None = None
        self._syncs = 0

    def init_weight_transfer(self) -> None:
        """Open the chain. Raises what `tensordelta.open` raises, or `transformers` where it cannot read the model."""
        if self._output is None:
            if isinstance(self._model, str | os.PathLike):
                self._model = AutoModelForCausalLM.from_pretrained(self._model, dtype=self._dtype)
            files = _files(self._model, self._tokenizer, self._dtype)
            self._output = _Output(self._address, self._opening, {"files": files, **self._publishing})

    def pause(self) -> None:
        """Do nothing: engines generate until the new version is there."""

    def send_weights(self, iterator: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Submit the weights that TRL sends, and those of the model that it does not.

        Args:
            iterator: names as in the checkpoint, and whole tensors.

        Raises:
            RuntimeError: before `init_weight_transfer`.
            ValueError: a tensor that TRL does not send is sharded.
            TensorDeltaError, OSError: of a version before that could not be published.
        """
        if self._output is None:
            raise RuntimeError("`init_weight_transfer` comes before the first weights")
        with _drained(_cast(iterator, self._dtype)) as sent:
            self._syncs += 1
            self._ticket = self._output.submit(self._whole(sent), {"sync": str(self._syncs), "time": now()})

    def _whole(self, sent: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """What TRL sends, and what it does not."""
        names: set[str] = set()
        for name, tensor in sent:
            names.add(name)
            yield name, tensor
        yield from _weights(self._model, self._dtype, besides=names, gather=False)

    def resume(self) -> None:
        """Wait until the version is published, and the servers have taken it.

        Raises:
            TensorDeltaError, OSError: of publishing it.
            ServerError: a server could not be brought to the version; what that server serves, the error says.
        """
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            published = ticket.result()
            update_servers(self._servers, published.version, within=self._within)
            if self._on_published is not None:
                self._on_published(published)

    def destroy(self) -> None:
        """Publish what was submitted, and close the chain. TRL calls it when training fails as well."""
        if self._output is not None:
            output, self._output = self._output, None
            output.close()


# -- publishing ------------------------------------------------------------------------------------------------------


class _Output:
    """A chain that is open for publishing."""

    def __init__(self, address: Address, opening: Mapping[str, Any], publishing: Mapping[str, Any]) -> None:
        self._chain = address if isinstance(address, Chain) else open(address, create=True, **opening)
        self._layout_change = bool(publishing.get("layout_change"))
        self._publisher = self._chain.publisher(**publishing)

    def is_newest(self, weights: Iterable[tuple[str, torch.Tensor]]) -> bool:
        """True where the chain's newest version is these weights, which are scanned one at a time.

        Raises:
            ConflictError: the newest version has other tensors, and `layout_change` is not set.
        """
        newest = self._chain.newest()
        if newest is None:
            return False
        tensors: list[Tensor] = []
        total = 0
        for name, tensor in weights:
            one = State.from_arrays({name: tensor})
            tensors += one.layout.tensors
            total += fingerprint.combine(one.sums(threads=self._chain.threads))
        change = LayoutChange.between(self._chain.layout(newest), Layout.of(tensors, object="the model"))
        if change is not None and not self._layout_change:
            raise layout_conflict("the model", f"version {newest} of {self._chain.address}", change)
        return change is None and self._chain.manifest(newest).fingerprint == fingerprint.text(total)

    def submit(self, weights: Iterable[tuple[str, torch.Tensor]], annotations: Mapping[str, str]) -> Ticket:
        return self._publisher.submit(weights, annotations=annotations)

    def close(self, *, upkeep: bool = True) -> None:
        self._publisher.close(upkeep=upkeep)


def _annotations(state: TrainerState, *, loss: float | None = None) -> dict[str, str]:
    found = {"step": str(state.global_step), "time": now()}
    return found if loss is None else found | {"loss": f"{loss:.6g}"}


def _files(model: Any, tokenizer: Any, dtype: torch.dtype) -> dict[str, bytes | Path] | None:
    """What an engine needs beside the weights; None where the model has no configuration of `transformers`."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(getattr(bare, "config", None), "save_pretrained"):
        return None
    config = copy.deepcopy(bare.config)
    config.dtype = dtype
    config.architectures = config.architectures or [type(bare).__name__.removeprefix("FSDP")]
    with tempfile.TemporaryDirectory() as folder:
        for each in (config, getattr(bare, "generation_config", None), tokenizer):
            if each is not None:
                each.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def _servers(servers: str | Server | Sequence[str | Server], chain: Address) -> list[Server]:
    """The servers that take a chain's versions; an address alone is a vLLM server's."""
    root = chain.address if isinstance(chain, Chain) else chain
    several = [servers] if isinstance(servers, str | Server) else servers
    return [VllmServer(each, root) if isinstance(each, str) else each for each in several]


# -- a model's weights -----------------------------------------------------------------------------------------------


def _weights(
    model: torch.nn.Module, dtype: torch.dtype, *, besides: Iterable[str] = (), gather: bool = True
) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's weights as `named_weights` gives them, whole.

    Args:
        model: the model, as a trainer wraps it.
        dtype: for floating-point weights.
        besides: names of those to leave out.
        gather: sharded tensors are gathered, for which all ranks have to iterate.

    Raises:
        ValueError: a tensor is sharded, and is not to be gathered.
    """
    left_out = set(besides)
    for name, tensor in named_weights(model, dtype):
        if name in left_out:
            continue
        if not gather and hasattr(tensor, "full_tensor"):
            raise ValueError(f"{name!r} is sharded, and only one rank is here to gather it")
        yield name, _whole(tensor)


def _whole(tensor: Any) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _cast(tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole tensors in the dtype that is served; shards are cast first, so that fewer bytes are gathered."""
    for name, tensor in tensors:
        yield name, _whole(tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach())


@contextmanager
def _drained(weights: Iterator[tuple[str, torch.Tensor]]) -> Iterator[Iterator[tuple[str, torch.Tensor]]]:
    """Weights of which the block takes as many as it needs: where ranks gather, all of them have to take all."""
    try:
        yield weights
    except Exception:
        _drain(weights)
        raise
    _drain(weights)


def _drain(weights: Iterable[object]) -> None:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for _ in weights:
            pass
