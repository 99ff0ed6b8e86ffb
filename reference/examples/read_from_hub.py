"""Read a chain from the Hugging Face Hub: what is there, one tensor of it, a folder that an engine can load.

    python read_from_hub.py hf://buckets/OWNER/NAME[/PREFIX] FOLDER

Private buckets need a token: `hf auth login`, or HF_TOKEN. Any other address of a chain does as well.
"""

# %% Open it, and see what there is.
import sys

import tensordelta as td

address, folder = sys.argv[1], sys.argv[2]
chain = td.open(address)
print(chain.log())

# %% One tensor, from the packs that touch it; and how much a whole load would fetch.
layout = chain.layout()
name = layout.tensors[0].name
print(f"{name}: {chain.read(None, name).shape}")
print(chain.plan())

# %% A folder of safetensors files. The first pull fetches everything; after that, only what changed: run this again
# when the chain has a newer version.
pulled = chain.pull(folder)
print(f"version {pulled.version} is in {folder}, {pulled.size:,} bytes were fetched")

# %% Packs that were fetched are kept in a cache, so that the same version in memory costs no download.
state = chain.load()
print(f"{name}: {state[name].dtype} {state[name].shape}, of {layout.nbytes:,} bytes in all")
