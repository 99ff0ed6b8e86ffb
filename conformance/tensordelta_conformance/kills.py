"""Operations that are killed on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .protocol import Adapter, AdapterError, Answer, Watch


def _state_of(folder: Path) -> tuple[int, int]:
    """The newest time and the number of everything below a folder: differs once something works in it."""
    newest = count = 0
    try:
        for root, folders, names in os.walk(folder):
            newest = max(newest, Path(root).lstat().st_mtime_ns)
            for name in (*folders, *names):
                count += 1
                newest = max(newest, (Path(root) / name).lstat().st_mtime_ns)
    except OSError:
        # Something went while we looked.
        count = -1
    return newest, count


class _Rehearsal:
    """Kills nothing; notes when a folder first changes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._before = folder, _state_of(folder)
        self.first_change: float | None = None

    def due(self, seconds: float) -> bool:
        if self.first_change is None and _state_of(self._folder) != self._before:
            self.first_change = seconds
        return False


class _AfterStart:
    """Kills so many seconds after the start."""

    def __init__(self, delay: float) -> None:
        self._delay = delay

    def due(self, seconds: float) -> bool:
        return seconds >= self._delay


class _AfterChange(_Rehearsal):
    """Kills so many seconds after the first change of a folder."""

    def __init__(self, folder: Path, delay: float) -> None:
        super().__init__(folder)
        self._delay = delay

    def due(self, seconds: float) -> bool:
        super().due(seconds)
        return self.first_change is not None and seconds - self.first_change >= self._delay


def run_with_kills(
    adapter: Adapter,
    op: str,
    members: Mapping[str, Any],
    folder: Path,
    kills: int,
    timeout: float,
    rehearsal: Callable[[], tuple[Mapping[str, Any], Path]],
    after_kill: Callable[[], None],
) -> Answer:
    """Start an operation that changes `folder`, kill it `kills` times, and let it run to its end.

    Each time goes on from what the kill left. The times are spread over the duration of a whole run, as `rehearsal`
    (the same request on a copy of the folder) shows it. Every other one counts from the first change of the folder,
    because a program that starts slowly does its work in a small part of the run. `after_kill` is called after each.
    Raises AdapterError.
    """
    request, copy = rehearsal()
    seen = _Rehearsal(copy)
    whole = adapter.run_once(op, request, timeout, seen).seconds
    busy = whole - (seen.first_change or 0.0)
    for number in range(kills):
        share = (number + 1) / (kills + 1)
        watch: Watch = _AfterChange(folder, busy * share) if number % 2 == 0 else _AfterStart(whole * share)
        adapter.run_once(op, members, timeout, watch)
        after_kill()
    answer = adapter.run_once(op, members, timeout).answer
    if answer is None:
        raise AdapterError(f"{op} gave no answer")
    return answer
