"""All trials of one scene in one way."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .endings import FULL, Outcome, Stopped, Work, forked
from .points import STEPS, Step
from .power import Disk
from .resources import leave_ample_room, leave_room, small_disk
from .scenes import Scene


class Trials:
    """All trials of one scene.

    Attributes:
        ends: how often the work ended early, or its disk failed.
        failures: what was wrong, with the step.
    """

    def __init__(self, task: Scene, template: Path, scratch: Path) -> None:
        self.task = task
        self._template = template
        self._scratch = scratch
        self.ends = 0
        self._ended: dict[str, Path] = {}
        self.failures: list[str] = []

    def _fresh(self, template: Path, name: str) -> Path:
        folder = self._scratch / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder, symlinks=True)
        return folder

    def _checked(self, root: Path, where: str, check: Callable[[Path], list[str]]) -> None:
        try:
            faults = check(root)
        except BaseException:
            faults = [traceback.format_exc()]
        self.failures += [f"{where}: {fault}" for fault in faults]

    def go(self, how: str, stride: int) -> None:
        """Do all trials of one way, at every `stride`-th step."""
        if how in ("twice", "power", "power_twice", "stop", "tmpfs"):
            getattr(self, f"_{how}")(stride)
        else:
            self._once(how, stride)

    def _forked(self, work: Work, number: int, how: str, where: str, again: Work | None = None) -> Outcome:
        outcome = forked(work, number, how, again)
        if outcome.fault is not None:
            self.failures.append(f"{where}: {outcome.fault}")
        self.ends += outcome.early
        return outcome

    def _once(self, how: str, stride: int) -> None:
        number = 1
        while True:
            root = self._fresh(self._template, "root")
            # A disk that failed works again: for every other trial in the same process, too.
            again = (lambda root=root: self.task.again(root)) if how in FULL and number // stride % 2 else None
            where = f"{how} at step {number}"
            outcome = self._forked(lambda root=root: self.task.work(root), number, how, where, again)
            self._checked(root, f"{where} ({outcome.how})", self.task.check)
            if not outcome.early:
                return
            number += stride

    def _tmpfs(self, stride: int) -> None:
        """Leave room for 0 pages on the disk, then for `stride` more each time, until that is enough."""
        pages = 0
        while True:
            root = self._scratch / "small"
            root.mkdir(exist_ok=True)
            with small_disk(root):
                shutil.copytree(self._template, root, symlinks=True, dirs_exist_ok=True)
                leave_room(root, pages)
                where = f"room for {pages} pages"
                outcome = self._forked(lambda root=root: self.task.work(root), pages, "tmpfs", where)
                leave_ample_room(root)
                self._checked(root, f"{where} ({outcome.how})", self.task.check)
            if not outcome.early:
                return
            pages += stride

    def _twice(self, stride: int) -> None:
        """Kill the work at every `stride`-th step, and after each the recovery at each of its steps."""
        for number, broken in self._broken(stride):
            again = 1
            while True:
                root = self._fresh(broken, "root")
                where = f"killed at step {number}, recovery at step {again}"
                outcome = self._forked(lambda root=root: self.task.recover(root), again, "kill", where)
                self._checked(root, f"{where} ({outcome.how})", self.task.check)
                if not outcome.early:
                    break
                again += 1

    def _broken(self, stride: int) -> Iterator[tuple[int, Path]]:
        """Folders in which the work was killed, with the number of the step."""
        number = 1
        while True:
            broken = self._fresh(self._template, "broken")
            if not self._forked(lambda root=broken: self.task.work(root), number, "kill", f"step {number}").early:
                return
            yield number, broken
            number += stride

    def _power(self, stride: int) -> None:
        """Lose power at every `stride`-th step."""
        root = self._fresh(self._template, "live")
        self._lose(root, self.task.work, stride, "the work")
        for kind, path in self._ended.items():
            self._checked(path, f"after the end, {kind}", self.task.check_end)

    def _power_twice(self, stride: int) -> None:
        """Kill the work at every `stride`-th step, and after each lose power at some steps of the recovery."""
        for number, broken in self._broken(stride):
            root = self._fresh(broken, "live")
            self._lose(root, self.task.recover, 3, f"the recovery from a kill at step {number}")

    def _stop(self, stride: int) -> None:
        """Stop the work at every `stride`-th step, have others work meanwhile, and let it go on."""
        number = 1
        while True:
            root = self._fresh(self._template, "root")
            stopped = Stopped(lambda root=root: self.task.work(root), number)
            where = f"stopped at step {number}"
            if stopped.is_stopped:
                self.ends += 1
                self._checked(root, where, self.task.meanwhile)
            outcome = stopped.go_on()
            self._checked(root, f"{where} ({outcome.how}: {outcome.fault})", partial(self.task.late, outcome=outcome))
            if not stopped.is_stopped:
                return
            number += stride

    def _lose(self, root: Path, work: Callable[[Path], None], stride: int, what: str) -> None:
        disk = Disk(root)
        images: list[tuple[str, str, Path]] = []
        place = Path(tempfile.mkdtemp(dir=self._scratch))
        steps = 0

        def act(step: Step) -> None:
            nonlocal steps
            if step.reads:
                return
            steps += 1
            if steps % stride:
                return
            STEPS.act = None
            target = place / str(steps)
            target.mkdir()
            images.extend((f"{steps}, {step.label}", kind, path) for kind, path in disk.images(target, steps).items())
            STEPS.act = act

        STEPS.act, STEPS.synced = act, disk.synced
        try:
            work(root)
        finally:
            STEPS.act = STEPS.synced = None
        target = place / "end"
        target.mkdir()
        self._ended = disk.images(target, 0)
        disk.close()
        for label, kind, path in images:
            self._checked(path, f"power lost in {what} at step {label}, {kind}", self.task.check)
        self.ends += len(images)
