"""A state that is saved: the file has the old state or the new one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import tensordelta as td

from .scene import Scene, Spec

_DAYS = 2 * 86_400


class Save(Scene):
    """Save a state over another one."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.old = td.read_state(spec["old"]).copy()
        self.new = td.read_state(spec["new"]).copy()

    def work(self, root: Path) -> None:
        self.new.save(root / "state.safetensors")

    def check(self, root: Path) -> list[str]:
        for path in root.glob(".*"):  # what is abandoned is removed a day later
            os.utime(path, (time.time() - _DAYS,) * 2)
        return super().check(root)

    def look(self, root: Path) -> list[str]:
        found = td.read_state(root / "state.safetensors")
        return [] if found.equals(self.old) or found.equals(self.new) else ["the file has neither state"]

    def look_after(self, root: Path) -> list[str]:
        faults = [] if td.read_state(root / "state.safetensors").equals(self.new) else ["the file lacks the new state"]
        left = sorted(path.name for path in root.iterdir() if path.name != "state.safetensors")
        return faults + ([f"{left} are left over"] if left else [])
