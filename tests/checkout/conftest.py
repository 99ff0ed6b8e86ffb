"""A chain of two versions, for tests of pulled folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from checkouts import FILES, shards
from folders import changed, save

import tensordelta as td


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chain and its `checkpoints/V`: version 1 changes a few words of version 0."""
    root = tmp_path_factory.mktemp("world")
    first = shards()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path_factory.mktemp("world-cache")))
        chain = td.open(root / "chain", create=True, threads=1)
        chain.publish(save(root / "checkpoints" / "0", first, FILES))
        chain.publish(save(root / "checkpoints" / "1", changed(first, np.random.default_rng(2), 0.05), FILES))
    return root


@pytest.fixture
def chain(world: Path, tmp_path: Path) -> td.Chain:
    """A copy of that chain, and of the checkpoints, in the test's own folder."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    return td.open(tmp_path / "chain", threads=1)
