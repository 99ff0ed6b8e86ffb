"""A pull: the folder holds the old version or the new one, whole."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from folders import PRIVATE, contents

import tensordelta as td
from tensordelta.checkout.checkout import Checkout

from .scene import Scene, Spec, open_chain


class Pull(Scene):
    """Bring a folder from one version to another."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.chain = open_chain(Path(spec["chain"]))
        self.target: int = spec["target"]
        self.held: int | None = spec["held"]
        self.new = contents(Path(spec["new"]))
        self.old = contents(Path(spec["old"])) if spec["old"] else {}
        self.damaged = contents(Path(spec["damaged"])) if "damaged" in spec else None

    def work(self, root: Path) -> None:
        self.chain.pull(root / "out", self.target)

    def recover(self, root: Path) -> None:
        """What the next process does first, whatever it wants."""
        with suppress(*[td.WrongBaseError] if self.damaged else []):
            Checkout(root / "out").open(self.chain._reader)

    def look_after(self, root: Path) -> list[str]:
        held = contents(root / "out")
        faults = [] if held == self.new else [f"after the next pull, {difference(held, self.new)}"]
        left = sorted(path.name for path in (root / "out" / PRIVATE).iterdir())
        return faults + ([] if left == ["lock", "state.json"] else [f"{left} are left over"])

    def look(self, root: Path) -> list[str]:
        """What is wrong before the next pull: the folder holds one of the two versions, whole."""
        folder = root / "out"
        try:
            state = Checkout(folder).open(self.chain._reader)
        except td.WrongBaseError:
            return [] if contents(folder) == self.damaged else ["the damaged folder was changed"]
        version = None if state is None else state.version
        if version not in (self.held, self.target):
            return [f"the folder holds version {version}"]
        expected = self.new if version == self.target else self.old
        if contents(folder) != expected:
            return [f"as version {version}, {difference(contents(folder), expected)}"]
        if version is None:
            return []
        seen, faults = Checkout(folder).verify(threads=1)
        return [f"version {seen}: {fault}" for fault in faults] + ([] if seen == version else [f"version {seen}"])

    def check_end(self, root: Path) -> list[str]:
        """What is wrong after a loss of power when the pull had ended."""
        state = Checkout(root / "out").open(self.chain._reader)
        return [] if state is not None and state.version == self.target else ["the pull was not durable"]


def difference(one: dict[str, bytes | None], other: dict[str, bytes | None]) -> str:
    """Names of what differs."""
    return f"these differ: {[name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]}"
