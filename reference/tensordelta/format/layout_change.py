"""How one layout differs from another: tensors that come, go, or get another dtype or shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .layout import Layout

#: Names of tensors that a sentence lists.
_NAMES = 3


@dataclass(frozen=True)
class LayoutChange:
    """How a version's tensors differ from those of the version before.

    Attributes:
        dropped: names of tensors that it lacks.
        added: names of tensors that only it has.
        retyped: names of tensors with another dtype, whatever their shapes.
        reshaped: names of tensors with the same dtype and another shape.
    """

    dropped: Sequence[str] = ()
    added: Sequence[str] = ()
    retyped: Sequence[str] = ()
    reshaped: Sequence[str] = ()

    @classmethod
    def between(cls, old: Layout, new: Layout) -> LayoutChange | None:
        """The change from one layout to another; None if they are equal."""
        if old == new:
            return None
        retyped: list[str] = []
        reshaped: list[str] = []
        for tensor in new.tensors:
            at = old.index.get(tensor.name)
            if at is not None and old.tensors[at] != tensor:
                (reshaped if old.tensors[at].dtype == tensor.dtype else retyped).append(tensor.name)
        return cls(
            tuple(each.name for each in old.tensors if each.name not in new.index),
            tuple(each.name for each in new.tensors if each.name not in old.index),
            tuple(retyped),
            tuple(reshaped),
        )

    @property
    def prefix(self) -> str | None:
        """What was put before all names that changed, or taken away (`-model.`); None if that is not what happened."""
        for sign, old, new in (("", self.dropped, self.added), ("-", self.added, self.dropped)):
            if old and len(old) == len(new):
                prefix = min(new)[: max(0, len(min(new)) - len(min(old)))]
                if prefix and {prefix + name for name in old} == set(new):
                    return sign + prefix
        return None

    def __str__(self) -> str:
        """In a few words: 50 tensors dropped (a, b, c …), 1 added (w)."""
        kinds = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in vars(self).items() if names]
        first, *rest = kinds
        count, _, text = first.partition(" ")
        return ", ".join([f"{count} tensor{'' if count == '1' else 's'} {text}", *rest])

    @property
    def short(self) -> str:
        """In numbers only: 50 dropped, 1 added."""
        return ", ".join(f"{len(names):,} {kind}" for kind, names in vars(self).items() if names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMES]) + (" …" if len(names) > _NAMES else "")
