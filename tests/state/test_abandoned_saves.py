"""What a process leaves that is killed while it saves a state: the next one that saves in the folder removes it."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

import tensordelta as td


def test_what_was_abandoned_goes_a_day_later(tmp_path: Path) -> None:
    state = td.State.from_arrays({"w": np.arange(10, dtype=np.uint16)})
    state.save(tmp_path / "state.safetensors")
    abandoned, fresh, other = (tmp_path / name for name in (".tensordelta-0a.tmp", ".tensordelta-0b.tmp", ".other.tmp"))
    for path, age in ((abandoned, 90_000), (fresh, 60), (other, 90_000)):
        path.write_bytes(b"half a state")
        os.utime(path, (time.time() - age,) * 2)
    state.save(tmp_path / "state.safetensors")
    assert not abandoned.exists() and fresh.exists() and other.exists()


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = td.State.from_arrays({"w": np.arange(10, dtype=np.uint16)})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        state.save(tmp_path / "state.safetensors")
    assert caught.value.filename == str(tmp_path / "state.safetensors")
    assert list(tmp_path.iterdir()) == []
