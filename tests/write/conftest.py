"""What the tests of the writer share."""

from __future__ import annotations

from pathlib import Path

import pytest

import tensordelta as td


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    return td.open(tmp_path / "chain", create=True, threads=1)
