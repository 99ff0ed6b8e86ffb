"""Disks that are full, or fail, few open files and short ones: what is said names a file, and nothing is half done.

The chain or the folder is as before, or has the new version; the same command goes on when the cause is gone, in the
same process, too; and nothing is left behind but what the next command, or a collector, removes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .cases import CASES
from .harm import ends
from .resources import namespace

#: A case of each command, with a stride for the steps at which a disk begins to fail.
_CASES = {
    "pull": ("other layout", 17),
    "pull (repair)": ("to the next version", 31),
    "publish": ("delta", 29),
    "publish in the background": ("shortcuts", 173),
    "shortcut": ("by difference", 23),
    "gc": ("old versions", 3),
    "copy": ("whole", 37),
    "save": ("over another", 1),
}


@pytest.mark.parametrize("command", _CASES)
def test_a_disk_may_be_full(world: Path, tmp_path: Path, command: str) -> None:
    name, stride = _CASES[command]
    assert ends(CASES[command][name], world, tmp_path, {"ENOSPC": stride}) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("command", _CASES)
def test_a_disk_may_fail_or_have_a_quota(world: Path, tmp_path: Path, command: str) -> None:
    name, stride = _CASES[command]
    assert ends(CASES[command][name], world, tmp_path, {"EIO": stride, "EDQUOT": stride}) >= 4


@pytest.mark.parametrize("command", ["pull", "publish", "shortcut", "gc", "copy", "save"])
def test_files_may_be_few_or_short(world: Path, tmp_path: Path, command: str) -> None:
    name, _ = _CASES[command]
    assert ends(CASES[command][name], world, tmp_path, {"files": 3, "size": 307}) >= 2


@pytest.mark.skipif(namespace() is None, reason="the system lets nobody mount here, not even in a namespace")
@pytest.mark.parametrize("command", ["pull", "publish", "copy"])
def test_a_real_disk_may_be_full(world: Path, tmp_path: Path, command: str) -> None:
    name, _ = _CASES[command]
    assert ends(CASES[command][name], world, tmp_path, {"tmpfs": 5}) >= 1
