"""A shortcut: it exists and leads where it says, or does not exist; no version is touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import tensordelta as td

from .scene import Scene, Spec, left_over, open_chain, use_cache, wrong_versions

_DAYS = 2 * 86_400


class Shortcut(Scene):
    """Make a shortcut."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.states = {int(version): td.read_state(path) for version, path in spec["states"].items()}
        self.base: int | None = spec["base"]
        self.target: int = spec["target"]
        self.has_work: bool = spec["work"]
        self.was_there = False

    def work(self, root: Path) -> None:
        use_cache(root / "cache")
        work = root / "work" if self.has_work else None
        open_chain(root / "chain").shortcut(self.base, self.target, work=work)

    def look(self, root: Path) -> list[str]:
        if open_chain(root / "chain").versions() != sorted(self.states):
            return ["versions are gone"]
        return wrong_versions(root / "chain", self.states)

    def check(self, root: Path) -> list[str]:
        # Then nothing is made, and nothing that a disk refused to remove is removed.
        self.was_there = any((root / "chain" / "shortcuts").glob("*.json"))
        for path in (root / "cache").glob(".*"):  # what is abandoned is removed a day later
            os.utime(path, (time.time() - _DAYS,) * 2)
        return super().check(root)

    def look_after(self, root: Path) -> list[str]:
        faults = self.look(root) + left_over(root / "chain")
        chain = open_chain(root / "chain")
        if [edge.base for edge in chain.plan(self.target, self.base).edges] != [self.base]:
            faults.append("there is no shortcut")
        state = td.State.empty() if self.base is None else chain.load(self.base)
        chain.prepare(state, self.target).apply()
        if not state.equals(self.states[self.target]):
            faults.append("the shortcut leads elsewhere")
        abandoned = [path.name for path in (root / "cache").glob(".*")]
        if abandoned and not self.was_there:
            faults.append(f"{abandoned} are left in the cache folder")
        return faults
