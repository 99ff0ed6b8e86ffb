"""Writes sample.json: the chain that the page opens when a person has none.

    python page/sample.py page/sample.json

A residual network of 12 blocks learns addition modulo 31 in numpy, with AdamW on float32 master weights. The rate
warms up, then falls; it is lower for earlier blocks, and the embedding stays frozen for the first ten steps. What is
published are the weights in bfloat16. The file has each object of the chain by name, as text or in base64.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import tensordelta as td

STEPS, BLOCKS, WIDTH, MODULUS, BATCH = 32, 12, 16, 31, 256
UNFROZEN = 10

Arrays = dict[str, Any]


def initial(random: np.random.Generator) -> Arrays:
    def normal(*shape: int) -> Any:
        return (random.standard_normal(shape) * 0.5 / math.sqrt(shape[-1])).astype(np.float32)

    weights = {"model.embed.weight": normal(2 * MODULUS, WIDTH), "lm_head.weight": normal(MODULUS, WIDTH)}
    for block in range(BLOCKS):
        at = f"model.layers.{block}"
        weights[f"{at}.norm.weight"] = np.ones(WIDTH, np.float32)
        weights[f"{at}.mlp.up.weight"] = normal(2 * WIDTH, WIDTH)
        weights[f"{at}.mlp.down.weight"] = normal(WIDTH, 2 * WIDTH)
    return weights


def gradients(weights: Arrays, left: Any, right: Any) -> Arrays:
    """Of the cross-entropy of left + right, which are numbers below MODULUS."""
    found: Arrays = {}
    embed, head = weights["model.embed.weight"], weights["lm_head.weight"]
    x = embed[left] + embed[right + MODULUS]
    passed = []
    for block in range(BLOCKS):
        at = f"model.layers.{block}"
        scaled = x * weights[f"{at}.norm.weight"]
        hidden = np.maximum(scaled @ weights[f"{at}.mlp.up.weight"].T, 0)
        passed.append((x, scaled, hidden))
        x = x + hidden @ weights[f"{at}.mlp.down.weight"].T
    logits = x @ head.T
    errors = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors /= errors.sum(axis=1, keepdims=True)
    errors[np.arange(len(left)), (left + right) % MODULUS] -= 1
    errors /= len(left)
    found["lm_head.weight"] = errors.T @ x
    back = errors @ head
    for block in reversed(range(BLOCKS)):
        at = f"model.layers.{block}"
        x, scaled, hidden = passed[block]
        found[f"{at}.mlp.down.weight"] = back.T @ hidden
        inner = (back @ weights[f"{at}.mlp.down.weight"]) * (hidden > 0)
        found[f"{at}.mlp.up.weight"] = inner.T @ scaled
        inner = inner @ weights[f"{at}.mlp.up.weight"]
        found[f"{at}.norm.weight"] = (inner * x).sum(axis=0)
        back = back + inner * weights[f"{at}.norm.weight"]
    found["model.embed.weight"] = np.zeros_like(embed)
    np.add.at(found["model.embed.weight"], left, back)
    np.add.at(found["model.embed.weight"], right + MODULUS, back)
    return found


def rate(step: int, name: str) -> float:
    if name.startswith("model.embed") and step <= UNFROZEN:
        return 0.0
    depth = int(name.split(".")[2]) if ".layers." in name else BLOCKS
    over_time = min(1.0, step / 6) * (0.15 + 0.85 * math.cos(math.pi / 2 * step / STEPS) ** 2)
    return 1e-5 * over_time * 0.8 ** (BLOCKS - depth)


def training() -> Iterator[Arrays]:
    """The published weights before the first step, and after each."""
    random = np.random.default_rng(7)
    master = initial(random)
    means = {name: np.zeros_like(array) for name, array in master.items()}
    squares = {name: np.zeros_like(array) for name, array in master.items()}
    for step in range(STEPS + 1):
        if step > 0:
            left, right = random.integers(0, MODULUS, (2, BATCH))
            for name, gradient in gradients(master, left, right).items():
                means[name] = 0.9 * means[name] + 0.1 * gradient
                squares[name] = 0.999 * squares[name] + 0.001 * gradient**2
                move = (means[name] / (1 - 0.9**step)) / (np.sqrt(squares[name] / (1 - 0.999**step)) + 1e-8)
                master[name] = (master[name] - np.float32(rate(step, name)) * (move + 0.01 * master[name])).astype(
                    np.float32
                )
        yield {name: array.astype(ml_dtypes.bfloat16) for name, array in master.items()}


def stored(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def main(target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "sample")
        chain = td.open(root, create=True)
        for step, weights in enumerate(training()):
            chain.publish(weights, annotations={"step": str(step)})
        chain.shortcut(0, 16)
        chain.shortcut(16, 32)
        objects = {
            path.relative_to(root).as_posix(): stored(path.read_bytes())
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
    Path(target).write_text(json.dumps(objects, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
