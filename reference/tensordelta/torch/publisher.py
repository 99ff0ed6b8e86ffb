"""Publishing a model from where its weights are (SPEC.md section 11).

    with Publisher(chain, model) as publisher:
        for step in range(steps):
            train()
            publisher.submit(step)

`submit` finds what changed since the last call and returns; a thread encodes and puts that. No other words leave the
weights' device, and no other words of the model are copied or read on the host.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..chain import Chain
from ..codecs import fingerprint
from ..codecs.fingerprint import U64
from ..errors import MissingError
from ..format import layout as layouts
from ..format.layout import Layout
from ..format.layout_change import LayoutChange
from ..live.caretaker import Upkeep
from ..live.publisher import StepQueue, Ticket
from ..read.history import Published
from ..write.draft import Draft
from ..write.encoder import Values
from ..write.publish import Tip
from ..write.writer import layout_conflict, overtaken
from .fsdp import Outcome, Ranks, shards
from .ledger import LayoutChangedError, Ledger, Place, Weight
from .weights import named_weights

_LOG = logging.getLogger("tensordelta")


@dataclass(frozen=True, eq=False)
class _Submitted:
    """A step of a ledger; or why this rank does not have it; and how long finding it took."""

    ledger: Ledger | None
    number: int
    error: Exception | None = None
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _Tried:
    """A step whose commit may have failed with an error, and may have been done all the same.

    Attributes:
        ledger, number: the step.
        sums: fingerprints of the tensors of its version; None where these are the ledger's, or are not known here.
    """

    ledger: Ledger
    number: int
    sums: U64 | None = None


@dataclass(frozen=True)
class _Opening:
    """What the leader says when a step begins.

    Attributes:
        adopted: the version that the step before became although its commit ended with an error.
        full: the step becomes a full version.
        draft: of the version.
    """

    adopted: int | None
    full: bool
    draft: str


class Publisher(StepQueue[_Submitted]):
    """Publishes a model's weights as versions of a chain while it is trained; a context.

    A copy of the words that were submitted last lies where the weights are. `submit` compares the weights with it, and
    takes only the changed words to the host. A thread publishes them; a step that fails, or that a newer one
    supersedes, loses nothing, because its changes go into the next version. Each version is the model's weights at
    some `submit`, cast, bit for bit. The first version of a chain is full. A chain that has versions is continued:
    the first `submit` loads and proves the newest one (whole, on each rank), then only changes go. A model with other
    names, dtypes or shapes than the newest version is refused; with `layout_change` the next version is full, which is
    logged.

    At the end of the block what was submitted is published, also when the block raises.

    With FSDP2 (parameters are `DTensor`s, torch.distributed has more than one rank) every rank makes a publisher and
    calls `submit` and `close` alike; each rank finds, encodes and puts the changes of its own rows, and rank 0 commits.
    Nothing is gathered but parameters that are not sharded by rows, each of which is logged. No step is superseded
    then: `submit` waits while `queue` steps wait, and an error surfaces in `result`, `flush` and `close` only. With
    DistributedDataParallel rank 0 alone makes a publisher.

    Args:
        chain: the chain; no other publisher may write to it.
        model: the model, in whatever wraps it; see `named_weights`.
        dtype: see `named_weights`.
        snapshot: where the copy lies: "device", where the weights are; or "host", in pinned memory, from which it goes
            to the device in blocks for each comparison.
        values: "step" (smallest), or "replace" (applying twice is applying once).
        files: the files to lay next to the weights, by name; by default those of the newest version.
        layout_change: see `Chain.publish`; for all steps.
        queue: steps that may wait, each with its changes alone; a newer step supersedes the one that waits longest.
        keep, full_every, skip, grace: see `Chain.publisher`.
        timeout: seconds for which ranks wait for one another.

    Raises:
        TensorDeltaError: the newest version cannot be read.
        ValueError: arguments that make no sense; or the chain was opened with trusted keys and no key to sign with.
    """

    def __init__(
        self,
        chain: Chain,
        model: nn.Module,
        *,
        dtype: torch.dtype | Callable[[str, Tensor], torch.dtype] | None = torch.bfloat16,
        snapshot: Place = "device",
        values: Values = "step",
        files: Mapping[str, bytes | Path] | None = None,
        layout_change: bool = False,
        queue: int = 1,
        keep: int | None = None,
        full_every: int | None = None,
        skip: Iterable[int] = (8, 64),
        grace: float | None = None,
        timeout: float = 600.0,
    ) -> None:
        if snapshot not in get_args(Place):
            raise ValueError(f"snapshot is {snapshot!r}, not one of {get_args(Place)}")
        self._chain = chain
        self._model = model
        self._dtype = dtype
        self._place: Place = snapshot
        self._values: Values = values
        self._files = files
        self._layout_change = layout_change
        self._ledger: Ledger | None = None
        self._tried: _Tried | None = None
        self._tip: Tip | None = None  # the newest version; with ranks, only its number is known
        ranks = self._ranks = Ranks.of(model, timeout)
        self._newest = self._find_newest() if ranks is None else ranks.lead(self._find_newest)
        self._resume_from = self._newest
        super().__init__(
            chain,
            self._publish_alone if ranks is None else self._publish_with_ranks,
            Upkeep(keep, full_every, tuple(skip), grace),
            queue=queue,
            values=values,
            order="natural",
            every=ranks is not None,
        )
        if ranks is not None and not ranks.is_leader:
            with self._changed:
                self._caretaker.close(abandon=True)  # the leader's looks after the chain

    # -- the trainer's side ---------------------------------------------------------------------------------------

    def submit(self, step: object = None, *, annotations: Mapping[str, object] | None = None) -> Ticket:
        """Take the model's weights as they are; returns when what changed is found. They may be written to then.

        Args:
            step: if given, the version's annotation `step`.
            annotations: what else to say of the version, such as {"loss": 0.25}.

        Raises:
            TensorDeltaError, OSError: of a step before that could not be published; it surfaces once, and these weights
                are not taken. Submit again: nothing is lost.
            ConflictError: the model has other tensors than the newest version, and `layout_change` is not set. These
                weights are not taken; the same model as before can be submitted again.
            MalformedError, LimitError, ValueError: weights that the format does not have.
            RuntimeError: the publisher is closed.
        """
        with self._submitting:
            self._check_open()
            said = {} if step is None else {"step": step}
            ticket = Ticket(self, {str(key): str(value) for key, value in {**said, **(annotations or {})}.items()})
            began = time.perf_counter()
            try:
                work = self._find()
            except Exception as error:
                if self._ranks is not None:  # the others wait for this rank's part of the step
                    self._room(ticket)
                    self._append(ticket, _Submitted(self._ledger, 0, error))
                raise
            work = replace(work, seconds=time.perf_counter() - began)
            self._room(ticket)
            self._append(ticket, work)
            self._compact()
            return ticket

    def close(self, *, upkeep: bool = True) -> None:
        """Publish what was submitted, make the shortcuts that are due, collect, and end; see `BackgroundPublisher`."""
        try:
            super().close(upkeep=upkeep)
        finally:
            self._ledger = None
            if self._ranks is not None and self._process.is_here:
                self._ranks.close()

    # -- finding what changed -------------------------------------------------------------------------------------

    def _find(self) -> _Submitted:
        """Find what changed since the last step; begin anew where nothing can be compared."""
        if self._resume_from is not None:
            self._ledger = self._resumed(self._resume_from)
            self._resume_from = None
        if self._ledger is not None and not self._ledger.torn:
            try:
                return _Submitted(self._ledger, self._ledger.submit(self._weights()))
            except LayoutChangedError:
                layout = Layout.of((weight.tensor for weight in self._weights()), object="the model")
                self._check_change("the step before", self._ledger.layout, layout)
        self._ledger = None  # its memory goes before that of the next one comes, unless a step of it waits
        self._ledger = Ledger.copied(self._weights(), place=self._place, threads=self._chain.threads)
        return _Submitted(self._ledger, self._ledger.steps)

    def _weights(self) -> Iterator[Weight]:
        """The model's weights, or this rank's part of them."""
        parts = shards(named_weights(self._model, self._dtype), self._ranks)
        return (Weight.of(part.name, part.part, part.shape, part.start) for part in parts)

    def _resumed(self, version: int) -> Ledger | None:
        """A ledger of the newest version's words; None if the model has another layout."""
        tensors: list[layouts.Tensor] = []
        plan: dict[str, tuple[int, int, torch.dtype]] = {}
        for weight in self._weights():
            tensors.append(weight.tensor)
            plan[weight.tensor.name] = weight.start, weight.stop, weight.words.dtype
        layout = Layout.of(tensors, object="the model")
        if layout != self._chain.layout(version):
            self._check_change(f"version {version}", self._chain.layout(version), layout)
            return None
        try:
            state = self._chain.load(version)
        except MissingError as fault:
            _LOG.warning("version %d cannot be read, so the next one is full: %s", version, fault)
            return None
        memory: list[Tensor] = []
        sums = np.zeros(len(layout), np.uint64)
        for index, tensor in enumerate(layout.tensors):
            start, stop, dtype = plan[tensor.name]
            words = state.words(index)[start:stop]
            if self._ranks is not None:
                words = words.copy()
                sums[index] = fingerprint.scan(tensor.name, words, start=start)
            memory.append(torch.from_numpy(words.view(f"i{words.itemsize}")).view(dtype))
        if self._tip is not None and self._ranks is None:
            sums = self._tip.sums
        starts = [plan[tensor.name][0] for tensor in layout.tensors]
        return Ledger(layout, starts, memory, version, sums, place=self._place, threads=self._chain.threads)

    def _check_change(self, before: str, old: Layout, new: Layout) -> None:
        """Check that the model may have other tensors than before; log that the next version is a full one then.

        Raises:
            ConflictError: it may not.
        """
        change = LayoutChange.between(old, new)
        if change is None:
            return
        if not self._layout_change:
            raise layout_conflict("the model", before, change)
        _LOG.warning("the model has another layout than %s, so the next version is a full one: %s", before, change)

    def _compact(self) -> None:
        """Compose what failed and superseded steps left."""
        assert self._ledger is not None
        with self._changed:
            steps = [step.work for step in (*self._waiting, self._current) if step is not None]
            needed = {step.number for step in steps if step.ledger is self._ledger}
            if self._tried is not None:
                needed.add(self._tried.number)
        self._ledger.compact(needed)

    # -- publishing -----------------------------------------------------------------------------------------------

    def _find_newest(self) -> int | None:
        self._tip = self._chain.tip()
        return None if self._tip is None else self._tip.manifest.version

    def _made_all_the_same(self) -> Tip | None:
        """The version that the step before became although its commit ended with an error; None if it did not."""
        if self._tried is None:
            return None
        ledger, sums = self._tried.ledger, self._tried.sums
        tip = self._chain.tip()
        if tip is None or tip.manifest.version == self._newest or tip.layout != ledger.layout:
            return None
        return tip if np.array_equal(tip.sums, ledger.sums(self._tried.number) if sums is None else sums) else None

    def _settle(self, adopted: int | None) -> None:
        """Move the base to the version that the step before became, if it did."""
        if adopted is not None and self._tried is not None:
            ledger, number = self._tried.ledger, self._tried.number
            ledger.commit(number, adopted, ledger.sums(number))
            self._newest = adopted
        self._tried = None

    def _publish_alone(
        self, work: _Submitted, annotations: Mapping[str, str], go_on: Callable[[bool], None]
    ) -> Published:
        ledger = work.ledger
        assert ledger is not None
        made = self._made_all_the_same()
        if made is not None:
            self._tip = made
        self._settle(None if made is None else made.manifest.version)

        def trying(committing: bool) -> None:
            go_on(committing)
            if committing:
                self._tried = _Tried(ledger, work.number)

        with self._full_after_loss(ledger):
            published, self._tip = self._chain.publish_pieces(
                ledger.pieces(work.number),
                None if ledger.base is None else self._tip,
                ledger.layout if ledger.base is None else None,
                annotations=annotations,
                layout_change=self._layout_change,
                values=self._values,
                files=self._files,
                go_on=trying,
            )
        self._tried = None
        self._newest = published.version
        ledger.commit(work.number, published.version, self._tip.sums)
        return _with_finding(published, work.seconds)

    @contextmanager
    def _full_after_loss(self, ledger: Ledger) -> Iterator[None]:
        """Have the next version be full where the store lost what the version of the block, or one before it, names."""
        try:
            yield
        except MissingError:
            self._tried = None
            ledger.restart()
            raise

    def _publish_with_ranks(
        self, work: _Submitted, annotations: Mapping[str, str], go_on: Callable[[bool], None]
    ) -> Published:
        """As `_publish_alone`, on each rank: in step with the others, by messages that all of them exchange alike."""
        ranks, ledger, chain = self._ranks, work.ledger, self._chain
        assert ranks is not None

        def own_base() -> int | None:
            if work.error is not None:
                raise work.error
            assert ledger is not None
            return ledger.base

        bases = ranks.gather(own_base)
        opening = ranks.lead(lambda: self._open_draft(ledger, bases))
        assert ledger is not None  # else the leader would have raised the error of this rank
        self._settle(opening.adopted)
        if opening.full:
            ledger.restart()

        def encode() -> tuple[dict[str, Any], U64]:
            sums = ledger.sums(work.number)
            draft = chain.join(opening.draft)
            return draft.encode_pieces(ledger.pieces(work.number), ledger.claims(sums), values=self._values), sums

        mine = Outcome.of(encode)
        answers = ranks.gather(lambda: mine.get()[0])
        go_on(True)
        self._tried = _Tried(ledger, work.number)
        with self._full_after_loss(ledger):
            published = ranks.lead(lambda: self._commit_draft(chain.join(opening.draft), answers, annotations))
        self._tried = None
        self._newest = published.version
        ledger.commit(work.number, published.version, mine.get()[1])
        return _with_finding(published, work.seconds)

    def _open_draft(self, ledger: Ledger | None, bases: list[Outcome[int | None]]) -> _Opening:
        """Open the draft of a step; on the leader."""
        found = {base.get() for base in bases}
        assert ledger is not None
        made = self._made_all_the_same()
        adopted = None if made is None else made.manifest.version
        if adopted is not None and self._tried is not None and self._tried.ledger is ledger:
            found = {adopted}
        base = found.pop() if len(found) == 1 else None  # ranks that begin anew have none, and others have to follow
        draft = self._chain.draft(ledger.layout, full=base is None, layout_change=self._layout_change)
        if base is not None and draft.base != base:
            raise overtaken(base, None if draft.base is None else self._chain.manifest(draft.base))
        return _Opening(adopted, base is None, draft.to_json())

    def _commit_draft(
        self, draft: Draft, answers: list[Outcome[dict[str, Any]]], annotations: Mapping[str, str]
    ) -> Published:
        """Commit what the ranks have put; on the leader."""
        tried, self._tried = self._tried, None
        descriptors = [answer.get() for answer in answers]
        sums = np.zeros(len(draft.layout), np.uint64)
        for descriptor in descriptors:
            for tensor, _, _, each in descriptor["slices"]:
                fingerprint.add_to(sums, tensor, int(each, 16))
        assert tried is not None
        self._tried = _Tried(tried.ledger, tried.number, sums)
        return draft.commit(descriptors, annotations=annotations, files=self._files)


def _with_finding(published: Published, seconds: float) -> Published:
    """A version, with the time that `submit` took to find its changes."""
    assert published.timings is not None
    return replace(published, timings=replace(published.timings, compare=published.timings.compare + seconds))
