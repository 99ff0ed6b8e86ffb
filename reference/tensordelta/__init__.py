"""tensordelta: publish, read and verify chains of model weights that hold only what changed.

    >>> import tensordelta as td
    >>> chain = td.open("run-1", create=True)                                # doctest: +SKIP
    >>> chain.publish(td.read_state("step_0.safetensors"))                   # doctest: +SKIP
    >>> state = chain.load()                                                 # doctest: +SKIP

The format is specified in SPEC.md; this package is its reference implementation.
"""

from .chain import Chain, open
from .checkout import Checkout, Pulled
from .difference import Diff, TensorDiff, diff
from .errors import (
    ERRORS,
    ConflictError,
    IntegrityError,
    LimitError,
    MalformedError,
    MissingError,
    TensorDeltaError,
    UnsupportedError,
    UntrustedError,
    WrongBaseError,
)
from .events import Event
from .history import History
from .layout import Layout, Tensor
from .manifest import Manifest
from .publish import Published
from .state import State, read_state
from .store import FolderStore, Store
from .update import Patch, Update
from .verify import Verification

__version__ = "1.0.0.dev0"

__all__ = [
    "ERRORS",
    "Chain",
    "Checkout",
    "ConflictError",
    "Diff",
    "Event",
    "FolderStore",
    "History",
    "IntegrityError",
    "Layout",
    "LimitError",
    "MalformedError",
    "Manifest",
    "MissingError",
    "Patch",
    "Published",
    "Pulled",
    "State",
    "Store",
    "Tensor",
    "TensorDeltaError",
    "TensorDiff",
    "UnsupportedError",
    "UntrustedError",
    "Update",
    "Verification",
    "WrongBaseError",
    "__version__",
    "diff",
    "open",
    "read_state",
]
