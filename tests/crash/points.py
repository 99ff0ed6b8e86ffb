"""The steps that a process takes on disk.

They are the calls that the package makes to change files (rename, link, unlink, mkdir, rmdir, utime, fsync,
allocation), each write to a file and each write of words, through a map or by position.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tensordelta.checkout import staging

_CALLS = (
    *("replace", "rename", "link", "unlink", "mkdir", "rmdir", "chmod", "utime"),
    *("fsync", "posix_fallocate", "ftruncate", "sendfile"),
)
#: Calls that need room on the disk; a disk that is full refuses them.
_GROWING = frozenset({"replace", "rename", "link", "mkdir", "fsync", "posix_fallocate", "sendfile"})
#: Flags of `os.open` that make a file.
_MAKES = os.O_CREAT


class Step(NamedTuple):
    """A step.

    Attributes:
        label: what is done, in words.
        name: the file that the system would name in an error; None where it names none.
        comes: True before it is done; False amid it, or after it.
        grows: it needs room on the disk.
        reads: it changes nothing, and may only be a step at which the process is stopped.
    """

    label: str
    name: str | None = None
    comes: bool = False
    grows: bool = False
    reads: bool = False


class Steps:
    """Calls a function at every step of this process; installed once, switched by `act`."""

    def __init__(self) -> None:
        self.act: Callable[[Step], None] | None = None
        self.synced: Callable[[int], None] | None = None
        self.real: dict[str, Callable[..., object]] = {}

    def step(self, step: Step) -> None:
        if self.act is not None:
            self.act(step)

    def install(self) -> None:
        """Have the calls of this process be steps."""
        for name in _CALLS:
            self.real[name] = getattr(os, name)
            setattr(os, name, self._call(name))
        opened = io.open
        for module in (io, builtins):
            module.open = lambda *args, **more: self._open(opened, *args, **more)
        self.real["open"] = os.open
        os.open = self._open_descriptor
        staging.map_words = self._map(staging.map_words)
        written = os.pwrite
        os.pwrite = lambda descriptor, data, offset: self._pwrite(written, descriptor, data, offset)

    def _call(self, name: str) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            if self.act is None:
                # Nothing here loses power in earnest, so that nothing needs to wait for the disk.
                return None if name == "fsync" else self.real[name](*args, **more)
            label = f"{name} {args[0]}"
            named = None if isinstance(args[0], int) else os.fsdecode(args[0])  # type: ignore[arg-type]
            grows = name in _GROWING and not (name == "fsync" and _is_folder(args[0]))
            self.step(Step(f"before {label}", named, comes=True, grows=grows))
            if name == "fsync":
                if self.synced is not None:
                    self.synced(args[0])  # type: ignore[arg-type]
                result = None
            else:
                result = self.real[name](*args, **more)
            self.step(Step(f"after {label}", named))
            return result

        return call

    def _open_descriptor(self, path: object, flags: int, *args: object, **more: object) -> object:
        if self.act is not None and not flags & _MAKES:
            self.step(Step(f"before opening {path}", comes=True, reads=True))
        if self.act is None or not flags & _MAKES:
            return self.real["open"](path, flags, *args, **more)
        self.step(Step(f"before creating {path}", os.fsdecode(path), comes=True, grows=True))  # type: ignore[arg-type]
        return self.real["open"](path, flags, *args, **more)

    def _open(self, opened: Callable[..., io.IOBase], file: object, mode: str = "r", *args: object, **more: object):
        if self.act is None or not set(mode) & set("wxa"):
            return opened(file, mode, *args, **more)
        named = None if isinstance(file, int) else os.fsdecode(file)  # type: ignore[arg-type]
        self.step(Step(f"before creating {file}", named, comes=True, grows=True))
        result = _Writer(opened(file, mode, *args, **more), self)
        self.step(Step(f"after creating {file}", named))
        return result

    def _pwrite(self, written: Callable[..., int], descriptor: int, data: memoryview, offset: int) -> int:
        half = max(1, len(data) // 2)  # the caller writes the rest
        self.step(Step("before words are written", comes=True, grows=True))
        count = written(descriptor, data[:half], offset)
        self.step(Step("amid words", grows=True))
        return count

    def _map(self, map_words: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def mapped(path: Path, *, writable: bool = False) -> np.ndarray:
            words = map_words(path, writable=writable)
            return words.view(_Mapped) if writable else words

        return mapped


def _is_folder(descriptor: object) -> bool:
    """True for the descriptor of a folder, whose names need no room when they are synced."""
    return isinstance(descriptor, int) and stat.S_ISDIR(os.fstat(descriptor).st_mode)


class _Writer:
    """A file opened for writing, whose writes go out in two halves."""

    def __init__(self, file: io.IOBase, steps: Steps) -> None:
        self._file, self._steps = file, steps

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B") if not isinstance(data, str) else data
        half = len(view) // 2
        label = f"a write to {self._file.name}"
        for part in (view[:half], view[half:]):
            self._file.write(part)
            self._file.flush()
            self._steps.step(Step(label, comes=True, grows=True))
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        result = self._file.truncate(size)
        self._steps.step(Step(f"after truncating {self._file.name}"))
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
        STEPS.step(Step("before words are written"))
        words[where[:half]] = values[:half]
        STEPS.step(Step("amid words"))
        words[where[half:]] = values[half:]
        STEPS.step(Step("after words are written"))


STEPS = Steps()
