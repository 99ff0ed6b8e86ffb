"""TRL's anchors and deltas: one safetensors file a version, in `anchors/` or `deltas/` (SPEC.md appendix C.2).

An anchor has all tensors; a delta has, of each changed one, positions and new values. Two forms are read: that of pull
request 5417 of TRL (`.indices` and `.values`), and that of 5937 (`.idx` and `.val`), which is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..codecs.words import Words, elements
from ..errors import ConflictError, IntegrityError, MissingError, UnsupportedError, WrongBaseError
from ..format.layout import Layout, Tensor
from ..state.checkpoint import write_file
from ..state.state import State
from ..stores import Store
from .format import Found, Marker, Offer, Source, Target
from .objects import Bytes, Shard, malformed, write_shard

_RULE = "appendix C.2"
_STEP = re.compile(r"(anchors|deltas)/step_([0-9]{6,})\.safetensors")
RAW, GAPS = "raw", "gap_delta"
_ENCODINGS = (RAW, GAPS)
#: Words from which on a position does not fit 32 bits with a sign.
_REACH = 1 << 31
#: What the names of positions and values end with, in both forms.
_OLD, _NEW = (".indices", ".values"), (".idx", ".val")

#: The first anchor's number, and how many versions lie from one anchor to the next, as TRL writes them by default.
_FIRST, ANCHOR_EVERY = 1, 10


class _Step:
    """A version of this format, whose header was checked."""

    def __init__(self, source: Source, name: str, id: str, *, is_anchor: bool) -> None:
        self._source, self._name = source, name
        self.id, self.number = id, int(id)
        self._is_anchor = is_anchor
        # A delta does not name its base: it is the step before.
        self.base = None if is_anchor else f"{self.number - 1:06d}"
        with Shard(source, name, rule=_RULE) as shard:
            self.document = shard.digest
            self.metadata = shard.header.metadata
            self._check(shard)

    def _fault(self, reason: str) -> Exception:
        return malformed(reason, object=self._name, rule=_RULE)

    def _number(self, key: str) -> int:
        text = self.metadata.get(key, "")
        if not re.fullmatch("[0-9]{1,18}", text):
            raise self._fault(f"has no number {key!r} in its metadata")
        return int(text)

    def _check(self, shard: Shard) -> None:
        sparse = self.metadata.get("sparse")
        if sparse not in ("True", "False"):
            raise self._fault("does not say whether it is sparse")
        if (sparse == "True") is self._is_anchor:
            where = "anchors" if self._is_anchor else "deltas"
            raise self._fault(f"lies in {where}, and says sparse {sparse}")
        if self.metadata.get("version", "1") != "1":
            raise UnsupportedError(f"has version {self.metadata['version']!r}", object=self._name, rule=_RULE)
        if self._number("model_version") != self.number:
            raise self._fault(f"says that it is step {self.metadata['model_version']}")
        names = sorted(shard.header.entries) if self._is_anchor else self._changed(shard)
        if self._number("num_changed_params") != len(names):
            raise self._fault(f"says {self.metadata['num_changed_params']} parameters, and has {len(names)}")
        counted = self._counted(shard, names)
        if self._number("total_changed_elements") != counted:
            raise self._fault(f"says {self.metadata['total_changed_elements']} changed elements, and has {counted}")
        if self._is_anchor and self._number("total_elements") != counted:
            raise self._fault(f"says {self.metadata['total_elements']} elements, and has {counted}")
        self.names = names

    @property
    def _suffixes(self) -> tuple[str, str]:
        return _OLD if "changed_params" in self.metadata else _NEW

    def _encoding(self) -> str:
        if "changed_params" in self.metadata:
            return RAW
        encoding = self.metadata.get("encoding", "")
        if encoding not in _ENCODINGS:
            raise UnsupportedError(
                f"has positions encoded as {encoding!r}",
                object=self._name,
                rule=_RULE,
                advice="nvCOMP decodes on a GPU alone: have the trainer write `gap_delta`.",
            )
        return encoding

    def _changed(self, shard: Shard) -> list[str]:
        """The names of a delta's parameters; each has positions and values of one length."""
        places, values = self._suffixes
        entries = shard.header.entries
        names = sorted(name.removesuffix(values) for name in entries if name.endswith(values))
        if {*(name + values for name in names), *(name + places for name in names)} != entries.keys():
            raise self._fault(f"has tensors that are no pairs of {places} and {values}")
        if "changed_params" in self.metadata:
            try:
                listed = json.loads(self.metadata["changed_params"])
            except ValueError:
                listed = None
            if not isinstance(listed, list) or len(listed) != len(names) or set(map(str, listed)) != set(names):
                raise self._fault("lists other parameters than it has")
        dtypes = ("I32",) if self._encoding() == RAW else ("U16", "U32")
        for name in names:
            at, new = entries[name + places], entries[name + values]
            if at.dtype not in dtypes or len(at.shape) != 1 or at.shape != new.shape:
                raise self._fault(
                    f"parameter {name!r} has positions {at.dtype} {list(at.shape)} for values {list(new.shape)}"
                )
        return names

    def _counted(self, shard: Shard, names: Iterable[str]) -> int:
        suffix = "" if self._is_anchor else self._suffixes[1]
        return sum(elements(shard.header.entries[name + suffix].shape) for name in names)

    def files(self) -> Mapping[str, bytes]:
        return {}

    def apply(self, held: State | None) -> State:
        with Shard(self._source, self._name, rule=_RULE) as shard:
            if shard.digest != self.document:
                raise self._fault("changed while it was read")
            return self._anchor(shard, held) if self._is_anchor else self._delta(shard, held)

    def _anchor(self, shard: Shard, held: State | None) -> State:
        layout = shard.layout()
        missing = [] if held is None else sorted(held.layout.index.keys() - layout.index.keys())
        if missing:
            raise WrongBaseError(
                f"lacks tensor {missing[0]!r}, which the version before has: anchors that leave out what did not "
                "change look like this, and so do tensors that were dropped",
                object=self._name,
                rule=_RULE,
                advice="Import into a chain of its own, where the anchor is whole.",
            )
        words: dict[str, Words] = {}
        for name, raw in shard.tensors():
            words[name] = np.array(raw, np.uint8).view(layout.tensors[layout.index[name]].kind.word)
        return State(layout, [words[tensor.name] for tensor in layout.tensors])

    def _delta(self, shard: Shard, held: State | None) -> State:
        assert held is not None
        layout = held.layout
        words = [held.words(number) for number in range(len(layout))]
        covered = 0
        for name, places, values in self._pairs(shard):
            number = layout.index.get(name)
            tensor = None if number is None else layout.tensors[number]
            if number is None or tensor is None or tensor.kind.packed:
                raise WrongBaseError(
                    f"changes tensor {name!r}, which the base does not have",
                    object=self._name,
                    rule=_RULE,
                    advice="A delta cannot add tensors: begin at a later anchor, in a chain of its own.",
                )
            if values[0] != tensor.dtype:
                raise WrongBaseError(
                    f"has {values[0]} values for tensor {name!r}, which is {tensor.dtype}",
                    object=self._name,
                    rule=_RULE,
                    advice="Begin at a later anchor, in a chain of its own.",
                )
            covered += tensor.words
            positions = self._positions(name, places, tensor.words)
            new = words[number].copy()
            new[positions] = values[1].view(tensor.kind.word)
            words[number] = new
        if self._number("total_elements") != covered:
            raise WrongBaseError(
                f"says {self.metadata['total_elements']} elements in its parameters, and the base has {covered}",
                object=self._name,
                rule=_RULE,
                advice="The base is another model: begin at a later anchor, in a chain of its own.",
            )
        return State(layout, words)

    def _pairs(self, shard: Shard) -> Iterator[tuple[str, tuple[str, Bytes], tuple[str, Bytes]]]:
        places, values = self._suffixes
        for name in self.names:
            at, new = shard.header.entries[name + places], shard.header.entries[name + values]
            position_bytes = np.array(shard.bytes_of(name + places), np.uint8)
            yield name, (at.dtype, position_bytes), (new.dtype, np.array(shard.bytes_of(name + values), np.uint8))

    def _positions(self, name: str, places: tuple[str, Bytes], words: int) -> Any:
        """A parameter's positions, int64, ascending and within its words."""
        check_reach(name, words)
        dtype, raw = places
        if self._encoding() == RAW:
            positions = raw.view("<i4").astype(np.int64)
        else:
            gaps = raw.view("<u2" if dtype == "U16" else "<u4").astype(np.int64)
            positions = np.cumsum(gaps + 1) - 1
        if positions.size and (
            positions[0] < 0 or positions[-1] >= words or not (positions[:-1] < positions[1:]).all()
        ):
            raise IntegrityError(
                f"the positions in parameter {name!r} do not ascend, or pass its {words:,} elements",
                object=self._name,
                rule=_RULE,
                advice="The file is damaged, or made for another base: begin at a later anchor.",
            )
        return positions


def check_reach(name: str, words: int) -> None:
    """Check that positions in a tensor fit 32 bits with a sign.

    Raises:
        UnsupportedError: they do not.
    """
    if words > _REACH:
        raise UnsupportedError(
            f"tensor {name!r} has {words:,} elements, and positions of this format end at 2^31",
            object=name,
            rule=_RULE,
            advice="Choose another format for this model.",
        )


class TRL:
    """The format of TRL's delta weight sync; see `Format`.

    Args:
        encoding: of the positions that are written: "gap_delta" or "raw".
        full_every: a version of a number that this divides is written as an anchor.
    """

    name = "trl"
    appendix = _RULE
    unproven = (
        "the base of a delta: it is taken to be the step before",
        "any checksum: values and positions that fit are believed",
        "whether a step that is missing changed nothing or was lost",
        "dropped tensors",
    )

    def __init__(self, *, encoding: str = GAPS, full_every: int = ANCHOR_EVERY) -> None:
        if encoding not in _ENCODINGS:
            raise ValueError("trl has the encodings gap_delta and raw")
        self._encoding, self._full_every = encoding, full_every

    def find(self, store: Store, after: str | None, begin: str | None) -> Found:
        steps: dict[int, tuple[str, str, bool]] = {}
        for name in store.names(""):
            match = _STEP.fullmatch(name)
            if match is None:
                continue
            if int(match[2]) in steps:
                raise ConflictError(
                    f"has both an anchor and a delta of step {match[2]}, or two names for it",
                    object=store.address,
                    rule=_RULE,
                    advice="Two runs share the place: remove the files of the one that was abandoned.",
                )
            steps[int(match[2])] = name, match[2], match[1] == "anchors"
        if after is not None and steps and max(steps) < int(after):
            raise ConflictError(
                f"ends with step {max(steps)}, and {after} was imported: another run has taken the place",
                object=store.address,
                rule=_RULE,
                advice="Import that run into a chain of its own.",
            )
        offers: list[Offer] = []
        for number in sorted(steps):
            name, id, is_anchor = steps[number]
            if after is not None and number <= int(after):
                continue
            if after is None and (not is_anchor or id != (begin or id)):
                continue
            if not is_anchor and number != int(after or 0) + 1:
                raise WrongBaseError(
                    f"follows step {after}: whether the steps between changed nothing or were lost, files do not say",
                    object=name,
                    rule=_RULE,
                    advice="Begin at a later anchor, in a chain of its own; or have the trainer write an anchor.",
                )
            offers.append(_Step(store, name, id, is_anchor=is_anchor))
            after = id
        if after is None and steps:
            raise MissingError(
                "has deltas alone",
                object=store.address,
                rule=_RULE,
                advice="Deltas of this format name no base: begin with an anchor.",
            )
        return Found(offers)

    def offer(self, source: Source, id: str) -> _Step:
        for folder in ("anchors", "deltas"):
            name = f"{folder}/step_{id}.safetensors"
            try:
                return _Step(source, name, id, is_anchor=folder == "anchors")
            except MissingError:
                continue
        raise MissingError("is not there", object=f"step_{id}", rule=_RULE)

    def first_base(self) -> None:
        return None

    # -- writing --------------------------------------------------------------------------------------------------

    def name_after(self, id: str | None, version: int, imported: str | None) -> str:
        if id is not None:  # receivers count on
            return f"{int(id) + 1:06d}"
        return f"{_FIRST:06d}" if imported is None else imported

    def marker_names(self, id: str) -> tuple[str, str]:
        return f"anchors/step_{id}.safetensors", f"deltas/step_{id}.safetensors"

    def folder(self, id: str) -> None:
        return None

    def wants_full(self, id: str, held: State, state: State) -> bool:
        dropped = sorted(held.layout.index.keys() - state.layout.index.keys())
        if dropped:
            raise UnsupportedError(
                f"drops tensor {dropped[0]!r}: receivers of anchors keep what these lack",
                object="trl",
                rule=_RULE,
                advice="Export into another place, beginning with this version (--from).",
            )
        return held.layout != state.layout or int(id) % self._full_every == 0

    def _check(self, layout: Layout) -> None:
        for tensor in layout.tensors:
            if tensor.dtype != "BF16":
                raise UnsupportedError(
                    f"tensor {tensor.name!r} is {tensor.dtype}, and TRL writes and takes bf16 alone",
                    object="trl",
                    rule=_RULE,
                    advice="Publish the weights as bf16, or choose another format.",
                )
            check_reach(tensor.name, tensor.words)

    def full(self, target: Target, id: str, state: State, files: Mapping[str, bytes]) -> Marker:
        self._check(state.layout)
        words, count = state.layout.words, len(state.layout)
        path = target.new_file()
        metadata = self._metadata(id, sparse=False, changed=count, listed=words, total=words, encoding=GAPS)
        write_file(path, state.layout, [state.source(number) for number in range(count)], metadata)
        return Marker(f"anchors/step_{id}.safetensors", path)

    def delta(self, target: Target, id: str, base: str, held: State, state: State, changed: Iterable[str]) -> Marker:
        tensors: dict[str, tuple[Tensor, Bytes]] = {}
        count = listed = total = 0
        for name in sorted(changed):
            number = state.layout.index[name]
            old, new = held.words(number), state.words(number)
            positions = np.flatnonzero(old != new)
            if not positions.size:
                continue
            dtype, at = self._encoded(positions)
            tensors[name + _NEW[0]] = Tensor(name + _NEW[0], dtype, (positions.size,)), at.view(np.uint8)
            values = new[positions].view(np.uint8)
            tensors[name + _NEW[1]] = Tensor(name + _NEW[1], "BF16", (positions.size,)), values
            count, listed, total = count + 1, listed + positions.size, total + new.size
        path = target.new_file()
        metadata = self._metadata(id, sparse=True, changed=count, listed=listed, total=total, encoding=self._encoding)
        write_shard(path, tensors, metadata)
        return Marker(f"deltas/step_{id}.safetensors", path)

    def _encoded(self, positions: Any) -> tuple[str, Any]:
        if self._encoding == RAW:
            return "I32", positions.astype("<i4")
        gaps = np.diff(positions, prepend=-1) - 1
        narrow = int(gaps.max()) <= 0xFFFF
        return ("U16", gaps.astype("<u2")) if narrow else ("U32", gaps.astype("<u4"))

    def _metadata(
        self, id: str, *, sparse: bool, changed: int, listed: int, total: int, encoding: str
    ) -> dict[str, str]:
        return {
            "format": "sparse_weight_patch",
            "version": "1",
            "sparse": str(sparse),
            "model_version": str(int(id)),
            "num_changed_params": str(changed),
            "total_changed_elements": str(listed),
            "total_elements": str(total),
            "sparsity": str(1.0 - listed / max(total, 1)),
            "encoding": encoding,
        }
