"""A collection: each version that is listed loads, those that are kept stay, and nothing is left over."""

from __future__ import annotations

from pathlib import Path

import tensordelta as td

from .scene import Scene, Spec, garbage, open_chain, wrong_versions


class Collect(Scene):
    """Delete old versions."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.states = {int(version): td.read_state(path) for version, path in spec["states"].items()}
        self.keep: int = spec["keep"]
        self.stay: list[int] = spec["stay"]

    def work(self, root: Path) -> None:
        open_chain(root / "chain").collect(self.keep, grace=0)

    def look(self, root: Path) -> list[str]:
        versions = open_chain(root / "chain").versions()
        faults = [f"version {each} is gone" for each in self.stay if each not in versions]
        # A shortcut goes after the version that it leads to, which `verify` tells of.
        return faults + wrong_versions(root / "chain", self.states, verify=False)

    def look_after(self, root: Path) -> list[str]:
        faults = wrong_versions(root / "chain", self.states)
        versions = open_chain(root / "chain").versions()
        if versions != self.stay:
            faults.append(f"versions are {versions}")
        left = garbage(root / "chain")
        return faults + ([f"{left} are left over"] if left else [])
