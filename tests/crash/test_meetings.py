"""Two processes that meet: one is stopped at some step, the other one works, and then the first goes on.

- Two pulls into one folder: it is at one of the two versions, whole, and no copy of it says that it is whole when it is
  not.
- A pull while a collector drops its version: it ends with the right words, or says `missing` and leaves the folder.
- A publish, while others publish and a collector without a grace period runs: it commits a version that can be read, or
  none, or says that the version cannot be read. The next publish goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .cases import MEETINGS
from .harm import ends

#: More steps than these take longer than CI has.
_STRIDES = {
    "two pulls into a new folder": 61,
    "two pulls in place": 29,
    "two pulls over layouts": 67,
    "a follower and a pull": 83,
    "a pull and gc": 31,
    "a first pull and gc": 59,
    "a pull of the newest and gc": 71,
    "a publish and gc": 53,
    "a publish, another writer and gc": 67,
    "a publish, many versions and gc": 71,
}


@pytest.mark.parametrize("name", MEETINGS)
def test_one_is_stopped_while_the_other_works(world: Path, tmp_path: Path, name: str) -> None:
    stride = _STRIDES[name]
    assert ends(MEETINGS[name], world, tmp_path, {"stop": stride}) >= MEETINGS[name].steps / stride


@pytest.mark.slow
@pytest.mark.parametrize("name", MEETINGS)
def test_one_is_stopped_at_more_steps(world: Path, tmp_path: Path, name: str) -> None:
    assert ends(MEETINGS[name], world, tmp_path, {"stop": 23}) >= MEETINGS[name].steps / 23
