"""What the tests of questions ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import publish_run

import tensordelta as td


@pytest.fixture
def run(tmp_path: Path) -> td.Chain:
    """Six versions of two layers and an embedding."""
    return publish_run(tmp_path / "run")
