"""tensordelta: publish, read and verify chains of model weights that hold only what changed.

    >>> import tensordelta as td
    >>> chain = td.open("run-1", create=True)                                # doctest: +SKIP
    >>> chain.publish(td.read_state("step_0.safetensors"))                   # doctest: +SKIP
    >>> state = chain.load()                                                 # doctest: +SKIP

The format is specified in SPEC.md; this package is its reference implementation.
"""

from importlib import import_module
from types import ModuleType

from . import results  # noqa: F401  registers how results are shown
from .chain import Chain
from .checkout.checkout import Checkout, Pulled
from .errors import (
    ERRORS,
    ConflictError,
    IntegrityError,
    LimitError,
    MalformedError,
    MissingError,
    StoreError,
    TensorDeltaError,
    UnsupportedError,
    UntrustedError,
    WrongBaseError,
)
from .events import Event, Timings
from .explore.diff import Diff, TensorDiff, diff
from .explore.stats import Stats
from .explore.tensor_history import TensorChange, TensorHistory
from .explore.version import Version
from .format.chunk_codec import Piece
from .format.layout import Layout, Tensor
from .format.layout_change import LayoutChange
from .format.manifest import Manifest
from .keep.collect import Collected
from .keep.copy import Copied, copy
from .keep.pins import Pin
from .live.follow import Follower
from .live.publisher import BackgroundPublisher, Ticket
from .opening import open
from .read.history import History, Published
from .read.routes import Plan
from .read.verify import Verification
from .state.folder import LeftOut
from .state.state import State, read_state
from .state.update import Patch, Update
from .stores import FolderStore, Store
from .write.draft import Draft
from .write.publish import Tip
from .write.shards import Slice


def __getattr__(name: str) -> ModuleType:
    """`td.bridges`, `td.engines`, `td.torch` and `td.trl`, imported when they are first used."""
    if name in ("bridges", "engines", "torch", "trl"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "1.0.0.dev0"

__all__ = [
    "ERRORS",
    "BackgroundPublisher",
    "Chain",
    "Checkout",
    "Collected",
    "ConflictError",
    "Copied",
    "Diff",
    "Draft",
    "Event",
    "FolderStore",
    "Follower",
    "History",
    "IntegrityError",
    "Layout",
    "LayoutChange",
    "LeftOut",
    "LimitError",
    "MalformedError",
    "Manifest",
    "MissingError",
    "Patch",
    "Piece",
    "Pin",
    "Plan",
    "Published",
    "Pulled",
    "Slice",
    "State",
    "Stats",
    "Store",
    "StoreError",
    "Tensor",
    "TensorChange",
    "TensorDeltaError",
    "TensorDiff",
    "TensorHistory",
    "Ticket",
    "Timings",
    "Tip",
    "UnsupportedError",
    "UntrustedError",
    "Update",
    "Verification",
    "Version",
    "WrongBaseError",
    "__version__",
    "copy",
    "diff",
    "open",
    "read_state",
]
