"""The words that were submitted last, and the changes to them that are not committed yet.

Changes are found where the weights are: tensors on the CPU by numpy, which is faster there, others by torch on their
device, from which only the changed words come to the host. They are kept in a log, one entry for each submitted step,
until a version that holds them is committed. Therefore nothing is lost with a step that fails or is superseded: its
changes are composed with those of the next step.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codecs import fingerprint
from ..codecs.fingerprint import U64
from ..codecs.words import Words
from ..format import layout as layouts
from ..format.chunk import Span
from ..format.chunk_codec import Piece
from ..format.layout import Layout
from ..threads import ordered_map
from ..write.encoder import compare, cut
from .tensors import dtype_of

#: Where the snapshot lies: where the weights are, or in host memory.
Place = Literal["device", "host"]

#: Torch's integers by the size of a word in bytes: the signed ones, for which devices have all operations.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: Words that a device compares at a time; the flags of so many need as many bytes.
_BLOCK = 1 << 26


class LayoutChangedError(Exception):
    """The weights have other names, dtypes or shapes than those that were submitted before."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor of a model, or the part of it that this process submits.

    Attributes:
        tensor: name, dtype and shape of the whole tensor.
        start: how many words of the tensor precede the part.
        words: the words of the part, one-dimensional, as integers; empty for none.
    """

    tensor: layouts.Tensor
    start: int
    words: Tensor

    @classmethod
    def of(cls, name: str, part: Tensor, shape: Iterable[int], start: int) -> Weight:
        """A weight.

        Args:
            name: of the tensor.
            part: consecutive elements of it, in any shape.
            shape: of the whole tensor.
            start: how many elements of it precede them.

        Raises:
            ValueError: a dtype that the format lacks, or a tensor without memory.
        """
        if part.is_meta:
            raise ValueError(f"tensor {name!r} has no memory: its model was made on the device `meta`")
        kind = dtype_of(part.dtype)
        sizes = tuple(shape)
        if kind.packed and sizes:
            sizes = (*sizes[:-1], sizes[-1] * 8 // kind.bits)
        flat = part.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return cls(layouts.Tensor(name, kind.name, sizes), start, flat.view(_INTEGERS[kind.word.itemsize]))

    @property
    def stop(self) -> int:
        """The word after the part's last one."""
        return self.start + len(self.words)


class Found(NamedTuple):
    """What changed in one part of a tensor; `indices` count from the part's start, uint32; None for all its words."""

    indices: NDArray[np.uint32] | None
    old: Words
    new: Words


#: What changed in the parts of a ledger, by their numbers.
Changes = dict[int, Found]


@dataclass
class _Entry:
    """Changes from one step to another.

    Attributes:
        number: of the last step whose changes these are.
        changes: what changed.
    """

    number: int
    changes: Changes


class Ledger:
    """The words last submitted, a log of what changed since the base, and what a step changes against the base.

    One thread submits, while another one takes the pieces of a step that was submitted.

    Args:
        layout: of the whole model.
        starts: for each tensor how many of its words precede those that this process submits.
        memory: for each tensor these words, on the CPU; they are the ledger's own from now on.
        base: the version whose words these are; None to begin with a full version.
        sums: the fingerprints of these words, uint64 in layout order; zeros without a base.
        place: where they lie from now on.
        threads: how many compare.

    Attributes:
        base: the version that was committed last; None while none was.
        torn: True if an error left words and log in disagreement: the next step has to begin another ledger.
    """

    def __init__(
        self,
        layout: Layout,
        starts: list[int],
        memory: list[Tensor],
        base: int | None,
        sums: U64,
        *,
        place: Place,
        threads: int,
    ) -> None:
        self.layout = layout
        self.base = base
        self.torn = False
        self._starts = starts
        self._memory = memory
        self._sums = sums
        self._place: Place = place
        self._threads = threads
        self._log: list[_Entry] = []
        self._steps = 0
        self._lock = threading.Lock()  # held where memory and log change together
        ends = [start + len(words) for start, words in zip(starts, memory, strict=True)]
        self._parts = list(cut(layout, [[each] for each in zip(starts, ends, strict=True)]))
        self._parts_of: list[list[int]] = [[] for _ in layout.tensors]
        for number, part in enumerate(self._parts):
            self._parts_of[part.tensor].append(number)

    @classmethod
    def copied(cls, weights: Iterable[Weight], *, place: Place, threads: int) -> Ledger:
        """A ledger that begins with a full version: of these weights, which are copied one after another."""
        found = [(each.tensor, each.start, _copy(each.words, place)) for each in weights]
        found.sort(key=lambda each: each[0].name.encode())
        layout = Layout.of((tensor for tensor, _, _ in found), object="the model")
        ledger = cls(
            layout,
            [start for _, start, _ in found],
            [words for _, _, words in found],
            None,
            np.zeros(len(layout), np.uint64),
            place=place,
            threads=threads,
        )
        ledger._steps = 1
        return ledger

    # -- submitting -----------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """The number of the step that was submitted last, with which `pieces` is called."""
        return self._steps

    def submit(self, weights: Iterable[Weight]) -> int:
        """Find what changed, and take it over.

        Args:
            weights: the whole model's, or this process's parts of it, in any order.

        Returns:
            The number of the step.

        Raises:
            LayoutChangedError: they are not those of this ledger.
        """
        with self._lock:
            self._steps += 1
            entry = _Entry(self._steps, {})
            self._log.append(entry)

        for _ in ordered_map(
            lambda job: self._take(entry.changes, *job), self._jobs(weights, entry.changes), threads=self._threads
        ):
            pass
        return entry.number

    def _jobs(self, weights: Iterable[Weight], changes: Changes) -> Iterator[tuple[int, Tensor]]:
        """Jobs for threads: the number of a part, and the words of its tensor. What lies on a device is taken at once.

        Raises:
            LayoutChangedError: see `submit`.
        """
        missing = set(range(len(self.layout)))
        for weight in weights:
            index = self.layout.index.get(weight.tensor.name)
            if (
                index not in missing
                or self.layout.tensors[index] != weight.tensor
                or (self._starts[index], len(self._memory[index])) != (weight.start, len(weight.words))
            ):
                raise LayoutChangedError
            missing.remove(index)
            if _is_on_host(weight.words):
                yield from ((number, weight.words) for number in self._parts_of[index])
            else:
                self._take_there(changes, index, weight.words)
        if missing:
            raise LayoutChangedError

    def _take(self, changes: Changes, number: int, words: Tensor) -> None:
        """Take over a part of a tensor on the CPU, and note what changed."""
        part = self._parts[number]
        mine, here = self._array(part.tensor), self._here(part)
        piece = compare(part, mine[here], words[here].numpy().view(mine.dtype))
        if piece is not None:
            assert piece.old is not None
            indices = None if piece.indices is None else (piece.indices - part.start).astype(np.uint32)
            with self._changing():
                changes[number] = Found(indices, piece.old, piece.new)
                mine[here][slice(None) if indices is None else indices] = piece.new

    def _take_there(self, changes: Changes, tensor: int, words: Tensor) -> None:
        """As `_take`, for all parts of a tensor, on the device where it lies."""
        self._settle(tensor, words.device)
        for start in range(0, len(words), _BLOCK):  # a block holds whole parts
            self._take_block(changes, tensor, words[start : start + _BLOCK], start)

    def _take_block(self, changes: Changes, tensor: int, words: Tensor, start: int) -> None:
        mine = self._memory[tensor][start : start + len(words)]
        before = mine.to(words.device)
        hit = (before != words).nonzero().reshape(-1)
        if not len(hit):
            return
        new = words[hit]
        word = self.layout.tensors[tensor].kind.word
        places = _to_host(hit.to(torch.int32)).view(np.uint32)
        old_words, new_words = _to_host(before[hit]).view(word), _to_host(new).view(word)
        with self._changing():
            for number in self._parts_of[tensor]:
                here = self._here(self._parts[number])
                if start <= here.start < start + len(words):
                    begin, end = np.searchsorted(places, [here.start - start, here.stop - start]).tolist()
                    if begin < end:
                        indices = places[begin:end] - np.uint32(here.start - start)
                        changes[number] = Found(indices, old_words[begin:end], new_words[begin:end])
            if mine.device == hit.device:
                mine[hit] = new
            else:
                mine.numpy().view(word)[places] = new_words

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change log and memory together, the log first: what it lists can be taken back in any case."""
        with self._lock:
            try:
                yield
            except BaseException:
                self.torn = True
                raise

    def _here(self, part: Span) -> slice:
        """A part's words in the memory of its tensor."""
        return slice(part.start - self._starts[part.tensor], part.stop - self._starts[part.tensor])

    def _settle(self, tensor: int, device: torch.device) -> None:
        """Move the memory of a tensor to where it belongs, when its first words come."""
        mine = self._memory[tensor]
        if self._place == "device" and mine.device != device:
            self._memory[tensor] = mine.to(device)
        elif self._place == "host" and device.type == "cuda" and not mine.is_pinned():
            self._memory[tensor] = mine.pin_memory()

    def _array(self, tensor: int) -> Words:
        array: Words = self._memory[tensor].numpy().view(self.layout.tensors[tensor].kind.word)
        return array

    # -- steps that are not committed -----------------------------------------------------------------------------

    def compact(self, needed: Collection[int]) -> None:
        """Compose entries of the log, but for those that end with a step that is still to be published."""
        with self._lock:
            log: list[_Entry] = []
            for entry in self._log:
                if log and log[-1].number not in needed:
                    log[-1] = _Entry(entry.number, _composed([log[-1].changes, entry.changes]))
                else:
                    log.append(entry)
            self._log = log

    def pieces(self, step: int) -> Iterator[Piece]:
        """What a step changes against the base, or all its words if there is none; in an encoder's order."""
        if self.base is None:
            for number, part in enumerate(self._parts):
                piece = compare(part, None, self._words(number, step))
                if piece is not None:
                    yield piece
            return
        changes = _composed(self._entries(step))
        for number in sorted(changes):
            yield self._piece(number, changes[number])

    def claims(self, sums: U64) -> list[tuple[int, int, int, int]]:
        """The words of this process, as `Draft.encode_pieces` wants them: tensor, start, stop, and their sum."""
        return [
            (tensor, start, start + len(words), int(sums[tensor]))
            for tensor, (start, words) in enumerate(zip(self._starts, self._memory, strict=True))
            if len(words)
        ]

    def sums(self, step: int) -> U64:
        """The fingerprints of these words, from the entries of the log as they were found, not as they are composed."""
        sums = self._sums.copy()
        if self.base is None:
            for number, part in enumerate(self._parts):
                name = self.layout.tensors[part.tensor].name
                words = self._words(number, step)
                fingerprint.add_to(sums, part.tensor, fingerprint.scan(name, words, start=part.start))
            return sums
        for changes in self._entries(step):
            for number, found in changes.items():
                tensor = self._parts[number].tensor
                each = self._piece(number, found).sums(self.layout.tensors[tensor].name).change
                fingerprint.add_to(sums, tensor, each)
        return sums

    def commit(self, step: int, base: int, sums: U64) -> None:
        """Move the base to a version that was committed: that of a step.

        Args:
            step: its number.
            base: the version.
            sums: see the constructor.
        """
        with self._lock:
            self._log = [entry for entry in self._log if entry.number > step]
            self.base = base
            self._sums = sums

    def restart(self) -> None:
        """Begin anew with a full version."""
        with self._lock:
            self.base = None
            self._sums = np.zeros(len(self.layout), np.uint64)

    def _entries(self, step: int) -> list[Changes]:
        with self._lock:
            return [entry.changes for entry in self._log if entry.number <= step]

    def _words(self, number: int, step: int) -> Words:
        """A copy of a part's words, as they were at a step: what changed since is taken back."""
        part = self._parts[number]
        with self._lock:
            memory = self._memory[part.tensor][self._here(part)]
            words: Words = _to_host(memory.clone()).view(self.layout.tensors[part.tensor].kind.word)
            for entry in reversed(self._log):
                found = entry.changes.get(number)
                if entry.number > step and found is not None:
                    words[slice(None) if found.indices is None else found.indices] = found.old
        return words

    def _piece(self, number: int, found: Found) -> Piece:
        part: Span = self._parts[number]
        indices = None if found.indices is None else found.indices.astype(np.int64) + part.start
        return Piece(*part, indices, found.old, found.new)


def _composed(entries: Iterable[Changes]) -> Changes:
    """What some entries, one after another, change together; words that are back to what they were are left out."""
    result: Changes = {}
    for changes in entries:
        for number, then in changes.items():
            first = result.pop(number, None)
            both = then if first is None else _compose(first, then)
            if len(both.new):
                result[number] = both
    return result


def _compose(first: Found, then: Found) -> Found:
    """The old words of the first, the new words of the second."""
    one, two = (
        np.arange(len(each.new), dtype=np.uint32) if each.indices is None else each.indices for each in (first, then)
    )
    indices = np.union1d(one, two)
    at_one, at_two = np.searchsorted(indices, one), np.searchsorted(indices, two)
    old, new = np.empty(len(indices), first.old.dtype), np.empty(len(indices), first.old.dtype)
    old[at_two] = then.old
    old[at_one] = first.old
    new[at_one] = first.new
    new[at_two] = then.new
    differ = old != new
    return Found(indices[differ], old[differ], new[differ])


def _is_on_host(words: Tensor) -> bool:
    return bool(words.device.type == "cpu")


def _copy(words: Tensor, place: Place) -> Tensor:
    """A copy of words where the snapshot lies."""
    if place == "device" or _is_on_host(words):
        return words.clone()
    copied = torch.empty(len(words), dtype=words.dtype, pin_memory=words.device.type == "cuda")
    copied.copy_(words)
    return copied


def _to_host(words: Tensor) -> NDArray[Any]:
    """Words in host memory: from a CUDA device through pinned memory, which is what its bus is fast with."""
    if words.device.type == "cuda":
        host = torch.empty(len(words), dtype=words.dtype, pin_memory=True)
        host.copy_(words)
        words = host
    array: NDArray[Any] = words.cpu().numpy()
    return array
