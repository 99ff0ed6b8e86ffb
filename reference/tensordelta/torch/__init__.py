"""Torch: tensors in and out of chains, and a model's weights under the names that engines know (extra `torch`).

Nothing else of the package imports torch; wherever the package takes arrays it takes tensors, and asks this package.

    >>> import tensordelta.torch as tdt
    >>> chain.publish(tdt.named_weights(model))                              # doctest: +SKIP
    >>> weights = tdt.load(chain, device="cuda")                             # doctest: +SKIP
"""

try:
    import torch as _torch  # noqa: F401 - for the message where it is absent
except ImportError as error:
    raise ImportError("tensors need torch: pip install 'tensordelta[torch]'") from error

from .device_state import DeviceState, part_of, whole
from .group import Ranks
from .publisher import Publisher
from .rank import Rank
from .tensors import as_array, from_array, load, mirror, named_tensors, packed
from .weights import named_weights

__all__ = [
    "DeviceState",
    "Publisher",
    "Rank",
    "Ranks",
    "as_array",
    "from_array",
    "load",
    "mirror",
    "named_tensors",
    "named_weights",
    "packed",
    "part_of",
    "whole",
]
