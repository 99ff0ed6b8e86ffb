"""Ends a process at every step that it takes on disk, and looks at what is left.

Run by test_crash.py as a process of its own: `python crash_driver.py SPEC.json`. Each trial works on a fresh copy of a
folder. A forked child does the work and dies at its N-th step; N grows until it lives. Steps are the calls that the
package makes to change files (rename, link, unlink, mkdir, rmdir, utime, fsync, allocation), each write to a file and
each write of words, through a map or by position; writes are done in two halves, with a step between them.

There are three ways to end: "kill" (SIGKILL), "interrupt" (KeyboardInterrupt) and "error" (the disk fails). A fourth
way, "power", ends nothing, but keeps for every step what a disk would hold if the machine lost power then: names and
bytes that were not synced may be there, or not, or in part.
"""

from __future__ import annotations

import builtins
import errno
import gc
import io
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from folders import PRIVATE, contents

import tensordelta as td
from tensordelta.checkout import staging
from tensordelta.checkout.checkout import Checkout

_CALLS = ("replace", "link", "unlink", "mkdir", "rmdir", "utime", "fsync", "posix_fallocate", "ftruncate")


# -- steps -------------------------------------------------------------------------------------------------------------


class Steps:
    """Calls a function at every step of this process; installed once, switched by `act`."""

    def __init__(self) -> None:
        self.act: Callable[[str], None] | None = None
        self.synced: Callable[[int], None] | None = None
        self.real: dict[str, Callable[..., object]] = {}

    def step(self, label: str) -> None:
        if self.act is not None:
            self.act(label)

    def install(self) -> None:
        for name in _CALLS:
            self.real[name] = getattr(os, name)
            setattr(os, name, self._call(name))
        opened = io.open
        for module in (io, builtins):
            module.open = lambda *args, **more: self._open(opened, *args, **more)
        staging.map_words = self._map(staging.map_words)
        written = os.pwrite
        os.pwrite = lambda descriptor, data, offset: self._pwrite(written, descriptor, data, offset)

    def _call(self, name: str) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            if self.act is None:
                # Nothing here loses power in earnest, so that nothing needs to wait for the disk.
                return None if name == "fsync" else self.real[name](*args, **more)
            label = f"{name} {args[0]}"
            self.step(f"before {label}")
            if name == "fsync":
                if self.synced is not None:
                    self.synced(args[0])
                result = None
            else:
                result = self.real[name](*args, **more)
            self.step(f"after {label}")
            return result

        return call

    def _open(self, opened: Callable[..., io.IOBase], file: object, mode: str = "r", *args: object, **more: object):
        if self.act is None or not set(mode) & set("wxa"):
            return opened(file, mode, *args, **more)
        self.step(f"before creating {file}")
        result = _Writer(opened(file, mode, *args, **more), self)
        self.step(f"after creating {file}")
        return result

    def _pwrite(self, written: Callable[..., int], descriptor: int, data: memoryview, offset: int) -> int:
        half = max(1, len(data) // 2)  # the caller writes the rest
        self.step("before words are written")
        count = written(descriptor, data[:half], offset)
        self.step("amid words")
        return count

    def _map(self, map_words: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def mapped(path: Path, *, writable: bool = False) -> np.ndarray:
            words = map_words(path, writable=writable)
            return words.view(_Mapped) if writable else words

        return mapped


class _Writer:
    """A file opened for writing, whose writes go out in two halves."""

    def __init__(self, file: io.IOBase, steps: Steps) -> None:
        self._file, self._steps = file, steps

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B") if not isinstance(data, str) else data
        half = len(view) // 2
        for part in (view[:half], view[half:]):
            self._file.write(part)
            self._file.flush()
            self._steps.step(f"a write to {self._file.name}")
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        result = self._file.truncate(size)
        self._steps.step(f"after truncating {self._file.name}")
        return result

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Mapped(np.ndarray):
    """Words of a mapped file, which are written in two halves."""

    def __setitem__(self, key: object, value: object) -> None:
        words = self.view(np.ndarray)
        if STEPS.act is None:
            words[key] = value
            return
        where = np.arange(len(words))[key]
        values = np.broadcast_to(np.asarray(value), where.shape)
        half = len(where) // 2
        STEPS.step("before words are written")
        words[where[:half]] = values[:half]
        STEPS.step("amid words")
        words[where[half:]] = values[half:]
        STEPS.step("after words are written")


STEPS = Steps()


# -- ways to end -------------------------------------------------------------------------------------------------------


def end_at(number: int, how: str) -> Callable[[str], None]:
    """Ends the process at its `number`-th step."""
    count = 0

    def act(label: str) -> None:
        nonlocal count
        count += 1
        if count != number:
            return
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        STEPS.act = None
        if how == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.EIO, "the disk fails", label)

    return act


def forked(work: Callable[[], None], number: int, how: str) -> str:
    """Do the work in a child that ends at its `number`-th step: "killed", "raised", or "done" where it took fewer."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            STEPS.act = end_at(number, how)
            work()
            code = 0
        except (KeyboardInterrupt, OSError) as error:
            code = 1 if isinstance(error, KeyboardInterrupt) or error.errno == errno.EIO else 3
            if code == 3:
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return "killed"
    return {0: "done", 1: "raised"}.get(os.WEXITSTATUS(status), "failed")


# -- a disk that loses power -------------------------------------------------------------------------------------------


class Disk:
    """What is durable under a folder: bytes since the last sync of a file, names since the last sync of a folder.

    A rename is one change of the file system, so the names of an image are all durable ones, or all present ones.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[int, int] = {}  # inode -> descriptor, which keeps the inode from being used again
        self._bytes: dict[int, tuple[bytes, int]] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._folders: dict[int, str] = {}
        for folder, _, names in os.walk(root):
            inode = self._see(Path(folder))
            self._names[inode] = self._listing(Path(folder))
            for name in names:
                inode = self._see(Path(folder, name))
                self._bytes[inode] = self._now(inode)

    def _see(self, path: Path) -> int:
        status = path.lstat()
        if status.st_ino not in self._files:
            self._files[status.st_ino] = os.open(path, os.O_RDONLY)
        return status.st_ino

    def _listing(self, folder: Path) -> dict[str, int]:
        return {each.name: self._see(each) for each in folder.iterdir()}

    def _now(self, inode: int) -> tuple[bytes, int]:
        status = os.fstat(self._files[inode])
        return os.pread(self._files[inode], status.st_size, 0), status.st_mtime_ns

    def synced(self, descriptor: int) -> None:
        """A file or folder was synced."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self.root):
            return
        inode = self._see(path)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._names[inode] = self._listing(path)
        else:
            self._bytes[inode] = self._now(inode)

    def images(self, target: Path, seed: int) -> dict[str, Path]:
        """Folders as they might be after the power is back."""
        rng = random.Random(seed)
        made: dict[str, Path] = {}
        for kind in ("synced only", "names first", "bytes first", "torn", "torn, names first"):
            folder = made[kind] = target / kind.replace(" ", "-")
            self._build(self.root, self.root.stat().st_ino, folder, kind, rng)
        return made

    def _build(self, path: Path | None, inode: int, target: Path, kind: str, rng: random.Random) -> None:
        target.mkdir()
        present = kind in ("names first", "torn, names first")
        if present:
            assert path is not None
            names = self._listing(path)
        else:
            names = self._names.get(inode, {})
        for name, each in names.items():
            if stat.S_ISDIR(os.fstat(self._files[each]).st_mode):
                self._build(path / name if present else None, each, target / name, kind, rng)
                continue
            durable, now = self._bytes.get(each, (b"", 0)), self._now(each)
            data, time = durable
            if kind == "bytes first":
                data, time = now
            elif kind.startswith("torn"):
                data, time = self._torn(durable[0], now[0], rng), rng.choice((durable, now))[1]
            (target / name).write_bytes(data)
            os.utime(target / name, ns=(time, time))

    @staticmethod
    def _torn(durable: bytes, now: bytes, rng: random.Random) -> bytes:
        """Bytes of which some parts reached the disk."""
        size = rng.choice((len(durable), len(now)))
        parts = [bytearray(each.ljust(size, b"\0")[:size]) for each in (durable, now)]
        return b"".join(rng.choice(parts)[at : at + 4] for at in range(0, size, 4))

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)


# -- what is tried -----------------------------------------------------------------------------------------------------


def open_chain(folder: Path, **more: object) -> td.Chain:
    return td.open(folder, threads=1, **more)


class Pull:
    """Bring a folder from one version to another."""

    def __init__(self, spec: dict[str, object]) -> None:
        self.chain = open_chain(Path(spec["chain"]))
        self.target: int = spec["target"]
        self.held: int | None = spec["held"]
        self.new = contents(Path(spec["new"]))
        self.old = contents(Path(spec["old"])) if spec["old"] else {}
        self.damaged = contents(Path(spec["damaged"])) if "damaged" in spec else None
        self.checks = 0

    def work(self, root: Path) -> None:
        self.chain.pull(root / "out", self.target)

    def recover(self, root: Path) -> None:
        """What the next process does first, whatever it wants."""
        with suppress(*[td.WrongBaseError] if self.damaged else []):
            Checkout(root / "out").open(self.chain._reader)

    def check(self, root: Path) -> list[str]:
        """What is wrong, before the next pull or after it; every other time the pull comes first."""
        self.checks += 1
        faults = self._look(root) if self.checks % 2 else []
        self.work(root)
        held = contents(root / "out")
        if held != self.new:
            faults.append(f"after the next pull, {difference(held, self.new)}")
        left = sorted(path.name for path in (root / "out" / PRIVATE).iterdir())
        if left != ["lock", "state.json"]:
            faults.append(f"{left} are left over")
        return faults

    def _look(self, root: Path) -> list[str]:
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


class Publish:
    """Publish a state; later publish another one."""

    def __init__(self, spec: dict[str, object]) -> None:
        self.states = {int(version): Path(path) for version, path in spec["states"].items()}
        self.more: dict[str, object] = spec["more"]
        self.next = Path(spec["next"])
        self.target = max(self.states)

    def _cache(self, root: Path) -> None:
        os.environ["TENSORDELTA_CACHE"] = str(root / "cache")

    def work(self, root: Path) -> None:
        self._cache(root)
        open_chain(root / "chain", create=True).publish(self.states[self.target], layout_change=True, **self.more)

    def recover(self, root: Path) -> None:
        """The next process publishes the same again."""
        self._cache(root)
        chain = open_chain(root / "chain", create=True)
        if self.target not in chain.versions():
            chain.publish(self.states[self.target], layout_change=True, **self.more)

    def check(self, root: Path) -> list[str]:
        self._cache(root)
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
        return faults

    def check_end(self, root: Path) -> list[str]:
        """What is wrong after a loss of power when the publish had ended."""
        chain = open_chain(root / "chain")
        return [] if self.target in chain.versions() else ["the version was not durable"]


def difference(one: dict[str, bytes | None], other: dict[str, bytes | None]) -> str:
    """Names of what differs."""
    return f"these differ: {[name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]}"


# -- trials ------------------------------------------------------------------------------------------------------------


class Trials:
    """All trials of one task in one way."""

    def __init__(self, task: Pull | Publish, template: Path, scratch: Path) -> None:
        self.task = task
        self._template = template
        self._scratch = scratch
        self.ended = 0
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

    def ends(self, how: str, stride: int) -> None:
        """End at every `stride`-th step."""
        number = 1
        while True:
            root = self._fresh(self._template, "root")
            result = forked(lambda root=root: self.task.work(root), number, how)
            self._checked(root, f"{how} at step {number} ({result})", self.task.check)
            if result == "failed":
                self.failures.append(f"{how} at step {number}: the process failed")
            if result in ("done", "failed"):
                return
            self.ended += 1
            number += stride

    def twice(self, stride: int) -> None:
        """Kill the work at every `stride`-th step, and after each the recovery at each of its steps."""
        number = 1
        while True:
            broken = self._fresh(self._template, "broken")
            if forked(lambda root=broken: self.task.work(root), number, "kill") != "killed":
                return
            self.ended += 1
            again = 1
            while True:
                root = self._fresh(broken, "root")
                result = forked(lambda root=root: self.task.recover(root), again, "kill")
                self._checked(root, f"killed at step {number}, recovery at step {again} ({result})", self.task.check)
                if result != "killed":
                    if result == "failed":
                        self.failures.append(f"killed at step {number}: the recovery failed")
                    break
                self.ended += 1
                again += 1
            number += stride

    def power(self, stride: int) -> None:
        """Lose power at every `stride`-th step."""
        root = self._fresh(self._template, "live")
        self._power(root, self.task.work, stride, "the work")
        for kind, path in self._ended.items():
            self._checked(path, f"after the end, {kind}", self.task.check_end)

    def power_twice(self, stride: int) -> None:
        """Kill the work at every `stride`-th step, and after each lose power at some steps of the recovery."""
        number = 1
        while True:
            broken = self._fresh(self._template, "broken")
            if forked(lambda root=broken: self.task.work(root), number, "kill") != "killed":
                return
            self.ended += 1
            root = self._fresh(broken, "live")
            self._power(root, self.task.recover, 3, f"the recovery from a kill at step {number}")
            number += stride

    def _power(self, root: Path, work: Callable[[Path], None], stride: int, what: str) -> None:
        disk = Disk(root)
        images: list[tuple[str, str, Path]] = []
        place = Path(tempfile.mkdtemp(dir=self._scratch))
        steps = 0

        def act(label: str) -> None:
            nonlocal steps
            steps += 1
            if steps % stride:
                return
            STEPS.act = None
            target = place / str(steps)
            target.mkdir()
            images.extend((f"{steps}, {label}", kind, path) for kind, path in disk.images(target, steps).items())
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
        self.ended += len(images)


def main(spec: dict[str, object]) -> dict[str, object]:
    """Do what a spec says; gives the number of times that the work ended early, and what was wrong afterwards."""
    STEPS.install()
    staging._ARENA = 64  # so that the tests' small states take the way of large ones
    scratch = Path(tempfile.mkdtemp(dir=spec["scratch"]))
    task = (Pull if spec["kind"] == "pull" else Publish)(spec)
    trials = Trials(task, Path(spec["template"]), scratch)
    gc.disable()  # so that a child shares its parent's memory
    gc.freeze()
    for how, stride in spec["ways"].items():
        if how in ("twice", "power", "power_twice"):
            getattr(trials, how)(stride)
        else:
            trials.ends(how, stride)
    shutil.rmtree(scratch)
    return {"ends": trials.ended, "failures": trials.failures[:20], "failed": len(trials.failures)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
