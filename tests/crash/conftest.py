"""The chain that all of these tests work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from .worlds import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `checkpoints/V`, the chain of them, and `pulled/V`; nobody changes it."""
    return make_world(tmp_path_factory.mktemp("world"))
