"""Publish from a training loop: every step's weights go to a chain in the background, while training goes on.

    python publish_from_training.py CHAIN [STEPS]

CHAIN is a folder, hf://buckets/OWNER/NAME[/PREFIX] or s3://BUCKET/PREFIX.
"""

# %% A small trainer: masters in float32 and AdamW, weights in bfloat16 as engines load them.
import argparse

import ml_dtypes
import numpy as np

import tensordelta as td

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("chain", help="the chain's address; made if there is none")
parser.add_argument("steps", type=int, nargs="?", default=20, help="how many to train (default: %(default)s)")
options = parser.parse_args()
rng = np.random.default_rng(0)
shapes = {"up.weight": (256, 64), "down.weight": (64, 256)}
teacher = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
masters = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
mean = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
square = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def forward(weights, batch):
    hidden = np.maximum(batch @ weights["up.weight"].T, 0)
    return hidden, hidden @ weights["down.weight"].T


def train(step, rate=1e-5):
    """One step of AdamW towards the teacher; gives the loss."""
    batch = rng.normal(size=(128, 64)).astype(np.float32)
    hidden, output = forward(masters, batch)
    error = output - forward(teacher, batch)[1]
    behind = (error @ masters["down.weight"]) * (hidden > 0)
    for name, gradient in (("down.weight", error.T @ hidden), ("up.weight", behind.T @ batch)):
        mean[name] += 0.1 * (gradient - mean[name])
        square[name] += 0.02 * (gradient**2 - square[name])
        first, second = mean[name] / (1 - 0.9**step), square[name] / (1 - 0.98**step)
        masters[name] -= rate * first / (np.sqrt(second) + 1e-8)
    return float(np.mean(error**2))


def weights():
    return {name: master.astype(ml_dtypes.bfloat16) for name, master in masters.items()}


# %% The loop: `submit` copies the weights and returns. If the store is slower than the trainer, steps are left out of
# the chain; the last one never is. An error of the store surfaces at the next `submit`, or at the end.
chain = td.open(options.chain, create=True)
with chain.publisher() as publisher:
    for step in range(1, options.steps + 1):
        loss = train(step)
        publisher.submit(weights(), annotations={"step": step})
    print(f"step {step}: loss {loss:.4f}")

# %% What came of it: each version holds what changed since the one before.
print(chain.log())
