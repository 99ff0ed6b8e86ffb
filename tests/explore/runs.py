"""A run of a few tensors, which the tests of questions ask."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

import tensordelta as td


def publish_run(folder: Path, *, order: str = "natural", versions: int = 6) -> td.Chain:
    """A chain of bf16 states, annotated with steps 0, 10, 20 …; version 4 changes nothing in `layers.10.w`."""
    rng = np.random.default_rng(7)
    chain = td.open(folder, create=True)
    weights = {
        name: rng.standard_normal((40, 50)).astype(ml_dtypes.bfloat16)
        for name in ("embed", "layers.2.w", "layers.10.w")
    }
    for version in range(versions):
        for place, words in enumerate(weights.values()):
            if version and not (version == 4 and place == 2):
                at = rng.choice(words.size, 5 + 3 * place, replace=False)
                words.view(np.uint16).reshape(-1)[at] += rng.integers(1, 4, len(at)).astype(np.uint16)
        chain.publish(weights, annotations={"step": str(10 * version)}, order=order)  # type: ignore[arg-type]
    return chain
