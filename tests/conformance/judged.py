"""What the tests of the judge share: states, chains, and a step of a writer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from generate.builder import Builder
from generate.cases import state_file
from generate.model import Model
from generate.scenes import line, walk
from tensordelta_conformance.judge import Snapshot, Tensor, Violation, judge

SIGNATURE = json.dumps({"tensordelta": "1.0-rc.1", "sig": "A" * 86 + "=="}).encode()

STATES = walk(4)


def states(models: Mapping[int, Model]) -> dict[int, dict[str, Tensor]]:
    return {version: state_of(model) for version, model in models.items()}


def state_of(model: Model) -> dict[str, Tensor]:
    return {name: Tensor(each.dtype, tuple(each.shape), each.words) for name, each in model.items()}


def rules(found: Iterable[Violation]) -> set[str]:
    return {each.requirement for each in found}


def kept_chain() -> Builder:
    """Four versions; version 3 is reached from nothing, too."""
    builder = line(STATES)
    builder.full(3, STATES[3], shortcut="", files=[builder.file("config.json", b"{}")])
    return builder


class Step:
    """One step of a writer: a chain before and after it, and its request and answer."""

    def __init__(self, root: Path, before: Builder | None = None) -> None:
        self.root = root
        self.published: dict[int, dict[str, Tensor]] = {}
        if before is not None:
            before.write(root)
            self.published = states(before.models)
        self.before = Snapshot.of(root)

    def rules(self, after: Builder | None = None, **how: Any) -> set[str]:
        """The requirements that the step broke, once its objects are written."""
        if after is not None:
            after.write(self.root)
            self.published |= states(after.models)
        return rules(judge(self.root, before=self.before, published=self.published, **how))

    def state(self, model: Model) -> str:
        """The state to publish, as a file."""
        path = self.root.parent / "state.safetensors"
        path.write_bytes(state_file(model))
        return str(path)

    def publish(self, model: Model, **members: Any) -> dict[str, Any]:
        return {"op": "publish", "chain": str(self.root), "state": self.state(model), **members}
