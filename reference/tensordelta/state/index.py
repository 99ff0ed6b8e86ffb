"""The index of a checkpoint of several files, as Hugging Face writes it: which file has which tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..errors import MalformedError
from ..format import strict_json
from ..format.names import is_path

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
INDEX = "model.safetensors.index.json"

#: Bytes that an index may have.
_MAX_INDEX = 64 * 2**20


def read_index(data: bytes, *, object: str) -> dict[str, str]:
    """The weight map of a Hugging Face index: tensor name -> file name.

    Raises:
        MalformedError: no weight map, or one that names a file outside the folder.
    """
    try:
        if len(data) > _MAX_INDEX or strict_json.depth(data) > strict_json.MAX_DEPTH:
            raise ValueError
        weight_map = json.loads(data)["weight_map"]
        pairs = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MalformedError(
            "no weight map", object=object, rule="TD-PCK-014", advice="Write the index again."
        ) from None
    for file in dict.fromkeys(pairs.values()):
        if not is_path(file) or not file.endswith(SUFFIX):
            raise MalformedError(
                f"names the file {file!r}", object=object, rule="TD-PTH-001", advice="Write the index again."
            )
    return pairs


def build_index(shard_of: Mapping[str, str], total_size: int) -> bytes:
    """A Hugging Face index for these shards."""
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(shard_of.items()))}
    return json.dumps(index, indent=2).encode() + b"\n"
