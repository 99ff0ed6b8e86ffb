"""Read a chain from the Hugging Face Hub: what is there, one tensor of it, a folder that an engine can load.

    python read_from_hub.py hf://buckets/OWNER/NAME[/PREFIX] FOLDER

Private buckets need a token: `hf auth login`, or HF_TOKEN. Any other address of a chain does as well.
"""

# %% Open it, and see what there is.
import argparse

import tensordelta as td

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("chain", help="the chain's address")
parser.add_argument("folder", help="where its newest version is pulled to")
options = parser.parse_args()
chain = td.open(options.chain)
print(chain.log())

# %% One tensor, from the packs that touch it; and how much a whole load would fetch.
layout = chain.layout()
name = layout.tensors[0].name
print(f"{name}: {chain.read(None, name).shape}")
print(chain.plan())

# %% A folder of safetensors files. The first pull fetches everything; after that, only what changed: run this again
# when the chain has a newer version.
pulled = chain.pull(options.folder)
print(f"version {pulled.version} is in {options.folder}, {pulled.size:,} bytes were fetched")

# %% Packs that were fetched are kept in a cache, so that the same version in memory costs no download.
state = chain.load()
print(f"{name}: {state[name].dtype} {state[name].shape}, of {layout.nbytes:,} bytes in all")
