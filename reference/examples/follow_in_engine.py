"""Follow a chain from an engine's loop: updates are prepared while it serves, and applied between two batches.

    python follow_in_engine.py CHAIN STEP

Serves until the weights of training step STEP are there. CHAIN is where publish_from_training.py publishes.
"""

# %% Load the newest version; the engine serves from these very arrays.
import argparse
import time

import numpy as np

import tensordelta as td

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("chain", help="the chain's address")
parser.add_argument("step", type=int, help="the training step to serve until")
options = parser.parse_args()
deadline = time.monotonic() + 60
while True:
    try:
        chain = td.open(options.chain)
        break
    except td.MissingError:  # the trainer has not begun
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
chain.wait(0, timeout=60)
weights = chain.load()


def serve(batch):
    """An answer of the engine: its weights are read here, and written nowhere but in `apply`."""
    up, down = (weights[name].astype(np.float32) for name in ("up.weight", "down.weight"))
    return np.maximum(batch @ up.T, 0) @ down.T


def step():
    return int(chain.manifest(weights.version).annotations["step"])


# %% The loop. A thread looks for newer versions, fetches, proves and decodes them; `apply` only writes the words that
# changed, and does nothing where no update is ready.
rng = np.random.default_rng(1)
batches = 0
print(f"version {weights.version}, step {step()}")
with td.Follower(chain, weights, poll=0.1) as follower:
    while step() < options.step:
        serve(rng.normal(size=(32, 64)).astype(np.float32))
        batches += 1
        started = time.perf_counter()
        update = follower.apply()
        if update is not None:
            pause = time.perf_counter() - started
            print(f"version {weights.version}, step {step()}: {update.changed:,} words, pause {1e3 * pause:.2f} ms")
print(f"{batches} batches were served")

# %% The weights are those of the chain, bit for bit.
assert weights.equals(chain.load(weights.version))
