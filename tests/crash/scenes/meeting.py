"""Two processes that meet: one is stopped at some step, the other one works, and the first goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

from folders import PRIVATE, contents

import tensordelta as td
from tensordelta.format.names import manifest_name

from ..endings import Outcome
from .pull import Pull
from .scene import Scene, Spec, left_over, open_chain, use_cache, wrong_versions


class TwoPulls(Pull):
    """Pulls of two processes into one folder, to different versions; with `follow` the first one follows."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.other: int = spec["other"]
        self.follows: bool = spec["follow"]
        self.whole = {int(version): contents(Path(path)) for version, path in spec["whole"].items()}

    def work(self, root: Path) -> None:
        if self.follows:
            for _ in self.chain.follow_folder(root / "out", until=self.target, poll=0):
                pass
        else:
            super().work(root)

    def meanwhile(self, root: Path) -> list[str]:
        # What a copy of the folder says of itself, for no lock keeps anyone from making one.
        (root / "out").mkdir(exist_ok=True)
        shutil.copytree(root / "out", root / "copy")
        faults = self._said(root / "copy")
        try:
            self.chain.pull(root / "out", self.other)
        except td.ConflictError:  # the first one has the lock
            return faults
        return faults + self._said(root / "out")

    def late(self, root: Path, outcome: Outcome) -> list[str]:
        faults = self._said(root / "out")
        if outcome.fault is not None and not outcome.fault.startswith("conflict: "):
            faults.append(f"the first one failed: {outcome.fault}")
        held = contents(root / "out")
        if held not in (self.whole[self.target], self.whole[self.other]):
            faults.append("the folder is at neither version")
        left = sorted(path.name for path in (root / "out" / PRIVATE).iterdir())
        return faults + ([] if left == ["lock", "state.json"] else [f"{left} are left over"])

    def _said(self, folder: Path) -> list[str]:
        """What is wrong with what a folder says of itself: if it is whole, it has the files of the version it names."""
        try:
            version, faults = td.Checkout(folder).verify(threads=1)
        except td.MissingError:  # it says that it holds no version
            return []
        if faults or contents(folder) == self.whole[version]:
            return []
        return [f"{folder.name} says that it is version {version}, and has other files"]


class PullMeetsCollector(Pull):
    """A pull of a version that a collector drops meanwhile."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.whole = {int(version): contents(Path(path)) for version, path in spec["whole"].items()}

    def work(self, root: Path) -> None:
        open_chain(root / "chain").pull(root / "out", self.target)

    def meanwhile(self, root: Path) -> list[str]:
        open_chain(root / "chain").collect(1, grace=0)
        return []

    def late(self, root: Path, outcome: Outcome) -> list[str]:
        held = contents(root / "out")
        faults: list[str] = []
        if outcome.fault is None:
            if held != self.new:
                faults.append("the pull succeeded, and the folder is not as pulled")
        elif not outcome.fault.startswith("missing: ") or outcome.fault.endswith(". "):
            faults.append(f"the pull failed with {outcome.fault}")
        elif held != self.old:
            faults.append("the pull failed, and the folder has changed")
        chain = open_chain(root / "chain")
        pulled = chain.pull(root / "out")
        if contents(root / "out") != self.whole[pulled.version]:
            faults.append("the next pull does not go on")
        return faults


class PublishMeetsOthers(Scene):
    """A publish that is stopped, while other processes publish, and a collector without a grace period runs."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.states = {int(version): td.read_state(path) for version, path in spec["states"].items()}
        self.mine = td.read_state(spec["mine"])
        self.others: list[td.State] = [td.read_state(path) for path in spec["others"]]

    def work(self, root: Path) -> None:
        use_cache(root / "cache")
        open_chain(root / "chain").publish(self.mine, layout_change=True)

    def meanwhile(self, root: Path) -> list[str]:
        use_cache(root / "other cache")
        chain = open_chain(root / "chain")
        for state in self.others:
            chain.publish(state, layout_change=True, full=True)
        chain.collect(1, grace=0)
        return []

    def late(self, root: Path, outcome: Outcome) -> list[str]:
        chain = open_chain(root / "chain")
        faults: list[str] = []
        said = outcome.fault or ""
        lost = [each for each in chain.versions() if f"{manifest_name(each)} was created, which names it and" in said]
        for version in chain.versions():
            if version in lost:  # the publish says so
                continue
            try:
                found = chain.load(version)
            except td.TensorDeltaError as fault:
                faults.append(f"version {version} is listed and cannot be read: {fault}")
                continue
            if not any(map(found.equals, [self.mine, *self.states.values(), *self.others])):
                faults.append(f"version {version} is not what was published")
        if outcome.fault is None and not any(chain.load(each).equals(self.mine) for each in chain.versions()):
            # A collector may have dropped it, after others were published.
            if not self.others:
                faults.append("the publish succeeded, and there is no such version")
        elif outcome.fault is not None and outcome.fault.partition(":")[0] not in ("conflict", "missing", "store"):
            faults.append(f"the publish failed with {outcome.fault}")
        if faults:
            return faults
        use_cache(root / "cache")
        number = chain.publish(self.mine, layout_change=True).version
        if not open_chain(root / "chain").load(number).equals(self.mine):
            faults.append("the next publish does not go on")
        if lost:
            open_chain(root / "chain").collect(1, grace=0)
        states = {version: chain.load(version) for version in chain.versions()}
        return faults + wrong_versions(root / "chain", states) + left_over(root / "chain")
