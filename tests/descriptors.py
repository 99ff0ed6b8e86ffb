"""Descriptors that this process holds of one folder: those of others come and go, as garbage of tests is collected."""

from __future__ import annotations

from pathlib import Path


def opened_below(folder: Path) -> int:
    """How many descriptors of `folder` and of what lies, or lay, below it."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            held = str(descriptor.readlink())
        except FileNotFoundError:  # the one of this listing, and what another thread closes
            continue
        found += Path(held.removesuffix(" (deleted)")).is_relative_to(folder)
    return found
