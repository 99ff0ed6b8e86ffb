"""What the tests of the suite share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for a chain."""
    folder = tmp_path / "chain"
    folder.mkdir()
    return folder
