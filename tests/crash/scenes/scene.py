"""What all scenes have, and what must hold of every chain."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensordelta as td

from ..endings import Outcome

Spec = Mapping[str, Any]


class Scene:
    """Some work on a folder.

    Args:
        spec: what is done, in JSON.
    """

    def __init__(self, spec: Spec) -> None:
        self.checks = 0

    def work(self, root: Path) -> None:
        """Do the work in a folder."""
        raise NotImplementedError

    def again(self, root: Path) -> None:
        """Do it once more, with the same objects, after it failed in this process."""
        self.work(root)

    def recover(self, root: Path) -> None:
        """What the next process does first, whatever it wants."""
        self.work(root)

    def look(self, root: Path) -> list[str]:
        """What is wrong before the work is done again."""
        raise NotImplementedError

    def look_after(self, root: Path) -> list[str]:
        """What is wrong after the work was done again."""
        raise NotImplementedError

    def meanwhile(self, root: Path) -> list[str]:
        """Do what others do while the work is stopped; gives what is wrong then."""
        raise NotImplementedError

    def late(self, root: Path, outcome: Outcome) -> list[str]:
        """What is wrong after the work has gone on and ended. The outcome's fault is the error that it raised."""
        raise NotImplementedError

    def check(self, root: Path) -> list[str]:
        """What is wrong, before the work is done again or after it; every other time it is done again at once."""
        self.checks += 1
        faults = self.look(root) if self.checks % 2 else []
        self.work(root)
        return faults + self.look_after(root)

    def check_end(self, root: Path) -> list[str]:
        """What is wrong after a loss of power when the work had ended."""
        return self.look_after(root)


def open_chain(folder: Path, **more: object) -> td.Chain:
    """A chain that is read and written by one thread."""
    return td.open(folder, threads=1, **more)


def use_cache(folder: Path) -> None:
    """Have the writer's snapshots lie in a folder."""
    os.environ["TENSORDELTA_CACHE"] = str(folder)


def wrong_versions(folder: Path, states: Mapping[int, td.State], *, verify: bool = True) -> list[str]:
    """What is wrong with a chain: each listed version has to load, bit for bit; `verify` has to find no fault."""
    chain = open_chain(folder)
    faults = [str(fault) for fault in chain.verify(deep=True).faults] if verify else []
    for version in chain.versions():
        if not chain.load(version).equals(states[version]):
            faults.append(f"version {version} is not what was published")
    return faults


def garbage(folder: Path) -> list[str]:
    """Files in the folder of a chain that nothing in it names; all of it is looked at, also what no listing shows.

    Layouts are left out: they stay for ever.
    """
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    named = {"chain.json", "latest.json"}
    for name in files:
        if Path(name).parent.name not in ("manifests", "shortcuts") or Path(name).name.startswith("."):
            continue
        document = json.loads((folder / name).read_bytes())
        named |= {name, f"layouts/{document['layout']}.json", f"fingerprints/{document['tensor_fingerprints']}.bin"}
        named |= {entry["path"] for kind in ("packs", "files") for entry in document.get(kind, ()) if "path" in entry}
    return sorted(name for name in files - named if not name.startswith("layouts/"))


def left_over(folder: Path) -> list[str]:
    """What a collector leaves in a chain that no version needs."""
    open_chain(folder).collect(1000, grace=0)
    left = garbage(folder)
    return [f"{left} are left over"] if left else []
