"""What the judge has before it: the folder now and before, the states that were published, the step that was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..small_reader.packs import read_tensors
from ..small_reader.rejection import Rejection
from ..small_reader.state import State, Tensor
from .chain import Chain
from .snapshot import KINDS, Folder, Snapshot, kind_of
from .violations import Findings


class TensorLike(Protocol):
    """A tensor as other programs hold it: its bytes as safetensors stores them."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def data(self) -> bytes: ...


@dataclass
class Case:
    """One call of the judge.

    Attributes:
        folder, now: the objects as they lie there, and their stamps.
        before: their stamps before the step.
        published: the state of each version that is known.
        request, answer: the step; the answer is None where the adapter was killed.
        between: the stamps after each kill.
    """

    folder: Folder
    now: Snapshot
    before: Snapshot
    published: dict[int, State]
    request: Mapping[str, Any]
    answer: Mapping[str, Any] | None
    between: Sequence[Snapshot]
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        self.chain = Chain(self.folder)

    @property
    def operation(self) -> str:
        """`publish`, `shortcut` or `collect`; empty where the step is not known."""
        return str(self.request.get("op", ""))

    @property
    def killed(self) -> bool:
        """Whether the step was killed, and not done again to its end."""
        return bool(self.request) and self.answer is None

    @property
    def succeeded(self) -> bool:
        """Whether the adapter answered that the step is done."""
        return self.answer is not None and self.answer.get("ok") is True

    def written(self, *kinds: str) -> list[str]:
        """The objects of some kinds that are new or have other bytes than before; of all kinds if none is given."""
        wanted = kinds or tuple(KINDS)
        return [
            name
            for name, stamp in sorted(self.now.objects.items())
            if kind_of(name) in wanted
            and (name not in self.before.objects or self.before.objects[name].sha256 != stamp.sha256)
        ]

    def removed(self, *kinds: str) -> list[str]:
        """The objects of some kinds that are gone; of all kinds if none is given."""
        return [name for name in self.before.names(*(kinds or KINDS)) if name not in self.now.objects]

    def new_versions(self) -> list[int]:
        """The versions that did not exist before."""
        return sorted(set(self.now.versions()) - set(self.before.versions()))


def as_state(state: Mapping[str, Tensor | TensorLike]) -> State:
    """A state as this package holds it."""
    return {
        name: tensor if isinstance(tensor, Tensor) else Tensor.of(tensor.dtype, tensor.shape, tensor.data)
        for name, tensor in state.items()
    }


def requested_state(request: Mapping[str, Any]) -> State | None:
    """The state that a request asks to publish; None where it names none, or its file holds none."""
    path = request.get("state")
    if request.get("op") != "publish" or not isinstance(path, str):
        return None
    try:
        return read_tensors(Path(path).read_bytes())
    except Rejection:
        return None
