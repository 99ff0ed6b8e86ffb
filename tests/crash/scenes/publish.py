"""A publish: the version exists, or does not, and the next one follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensordelta as td

from .scene import Scene, Spec, left_over, open_chain, use_cache


class Publish(Scene):
    """Publish a state; later publish another one."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.states = {int(version): Path(path) for version, path in spec["states"].items()}
        self.more: dict[str, Any] = spec["more"]
        self.next = Path(spec["next"])
        self.target = max(self.states)

    def work(self, root: Path) -> None:
        use_cache(root / "cache")
        self.chain = open_chain(root / "chain", create=True)
        self.chain.publish(self.states[self.target], layout_change=True, **self.more)

    def again(self, root: Path) -> None:
        if self.target not in self.chain.versions():
            self.chain.publish(self.states[self.target], layout_change=True, **self.more)

    def recover(self, root: Path) -> None:
        """The next process publishes the same again."""
        use_cache(root / "cache")
        chain = open_chain(root / "chain", create=True)
        if self.target not in chain.versions():
            chain.publish(self.states[self.target], layout_change=True, **self.more)

    def check(self, root: Path) -> list[str]:
        use_cache(root / "cache")
        chain = open_chain(root / "chain", create=True)
        versions = chain.versions()
        before = [version for version in self.states if version != self.target]
        if versions not in (before, [*before, self.target]):
            return [f"versions are {versions}"]
        faults = [str(fault) for fault in chain.verify(deep=True).faults]
        number = chain.publish(self.next, layout_change=True).version
        if number != len(versions):
            faults.append(f"the next version is {number}")
        again = open_chain(root / "chain")
        faults += [str(fault) for fault in again.verify(deep=True).faults]
        for version, path in [*((version, self.states[version]) for version in versions), (number, self.next)]:
            if not again.load(version).equals(td.read_state(path)):
                faults.append(f"version {version} is not what was published")
        return faults + left_over(root / "chain")

    def check_end(self, root: Path) -> list[str]:
        """What is wrong after a loss of power when the publish had ended."""
        chain = open_chain(root / "chain")
        return [] if self.target in chain.versions() else ["the version was not durable"]
