"""tensordelta: publish, read and verify chains of model weights that hold only what changed.

    >>> import tensordelta as td
    >>> chain = td.open("run-1", create=True)                                # doctest: +SKIP
    >>> chain.publish(td.read_state("step_0.safetensors"))                   # doctest: +SKIP
    >>> state = chain.load()                                                 # doctest: +SKIP

The format is specified in SPEC.md; this package is its reference implementation.
"""

from .background import BackgroundPublisher, Ticket
from .chain import Chain, open
from .checkout import Checkout, Pulled
from .difference import Diff, TensorDiff, diff
from .draft import Draft
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
from .events import Event
from .follow import Follower
from .history import History
from .layout import Layout, Tensor
from .manifest import Manifest
from .pins import Pin
from .plan import Plan
from .published import Published
from .retention import Collected
from .shards import Slice
from .state import State, read_state
from .stores import FolderStore, Store
from .transfer import Copied, copy
from .update import Patch, Update
from .verify import Verification

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
    "LimitError",
    "MalformedError",
    "Manifest",
    "MissingError",
    "Patch",
    "Pin",
    "Plan",
    "Published",
    "Pulled",
    "Slice",
    "State",
    "Store",
    "StoreError",
    "Tensor",
    "TensorDeltaError",
    "TensorDiff",
    "Ticket",
    "UnsupportedError",
    "UntrustedError",
    "Update",
    "Verification",
    "WrongBaseError",
    "__version__",
    "copy",
    "diff",
    "open",
    "read_state",
]
