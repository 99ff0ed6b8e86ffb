"""What several tests of followers share."""

from __future__ import annotations

import shutil
from pathlib import Path

from wrapped import weights

import tensordelta as td

#: Seconds between two looks.
POLL = 0.002


def other_chain(root: Path) -> td.Chain:
    """Another run's chain in the place of the one that was there."""
    shutil.rmtree(root)
    chain = td.open(root, create=True)
    for step in range(3):
        chain.publish(weights(step + 5))
    return chain
