"""How far the memory of an adapter's processes grows, on Linux."""

from __future__ import annotations

import re
from pathlib import Path

from .protocol import Memory

_PROC = Path("/proc")
_RESET_PEAK = "5"


def _family(root: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for process in found:
        found.extend(children.get(process, []))
    return found


def _status(process: int, key: str) -> int | None:
    try:
        text = (_PROC / str(process) / "status").read_text(errors="replace")
    except OSError:
        return None
    match = re.search(rf"^{key}:\s+([0-9]+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


class ProcessMemory:
    """The growth of a process and its descendants from now on."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._before: dict[int, int] = {}
        for process in _family(root):
            # The kernel then counts the peak from what is in use now.
            (_PROC / str(process) / "clear_refs").write_text(_RESET_PEAK)
            before = _status(process, "VmRSS")
            if before is not None:
                self._before[process] = before

    def growth(self) -> int:
        """Bytes by which the peaks exceed what was in use at the beginning, all processes together."""
        total = 0
        for process in _family(self._root):
            peak = _status(process, "VmHWM")
            if peak is not None:
                total += max(0, peak - self._before.get(process, 0))
        return total


def measure(root: int) -> Memory | None:
    """Begin to measure the memory of a process; None where the system does not show it."""
    try:
        return ProcessMemory(root)
    except OSError:
        return None
