"""A copy: what has arrived is a chain, the same call goes on, and the copy is then as one that never ended early."""

from __future__ import annotations

from pathlib import Path

import tensordelta as td
from tensordelta.keep.copy import copy

from .scene import Scene, Spec, garbage, left_over, open_chain, wrong_versions


class Copy(Scene):
    """Copy a chain to another folder, where a part of it may be already."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.source = Path(spec["chain"])
        self.states = {int(version): td.read_state(path) for version, path in spec["states"].items()}
        self.before: list[int] = spec["before"]
        self.versions: list[int] = spec["versions"]

    def work(self, root: Path) -> None:
        copy(self.source, root / "copy", self.versions)

    def look(self, root: Path) -> list[str]:
        try:
            versions = open_chain(root / "copy").versions()
        except td.MissingError:
            return ["the copy that was there is gone"] if self.before else []
        faults = wrong_versions(root / "copy", self.states)
        if versions[: len(self.before)] != self.before or versions != self.versions[: len(versions)]:
            faults.append(f"versions are {versions}")
        return faults

    def look_after(self, root: Path) -> list[str]:
        faults = wrong_versions(root / "copy", self.states) + left_over(root / "copy")
        if open_chain(root / "copy").versions() != self.versions:
            faults.append("not all versions were copied")
        if len(self.states) == len(self.versions) and not garbage(self.source):
            one, other = (_bytes(each) for each in (self.source, root / "copy"))
            if one != other:
                names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
                faults.append(f"these objects differ: {names}")
        return faults


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
