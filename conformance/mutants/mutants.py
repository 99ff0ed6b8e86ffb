"""Mutants: the small reader with one change each, which the suite has to see.

A change is what an author of a reader may well get wrong. Each names cases of the suite that must fail under it: not
end in an error, but give a wrong answer. The twins of these cases must pass, so that it is the change that is seen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .change import Change
from .changes_documents import DOCUMENTS
from .changes_packs import PACKS
from .changes_reader import READER
from .changes_streams import STREAMS

_HERE = Path(__file__).parent
_MODULES = ("documents", "codecs", "reader", "protocol", "adapter")

MUTANTS: dict[str, Change] = {change.name: change for change in (*DOCUMENTS, *PACKS, *STREAMS, *READER)}


def adapter_of(change: Change) -> Any:
    """The adapter of the small reader with a change, in modules of its own.

    Raises:
        ValueError: the change does not fit the source any more.
    """
    package = ModuleType(f"mutant_{change.name.replace('-', '_')}")
    package.__path__ = []
    sys.modules[package.__name__] = package
    for name in _MODULES:
        path = _HERE / f"{name}.py"
        source = path.read_text(encoding="utf-8")
        if name == change.module:
            source = change.applied(source)
        module = ModuleType(f"{package.__name__}.{name}")
        module.__package__ = package.__name__
        sys.modules[module.__name__] = module
        exec(compile(source, f"{path.name} of {change.name}", "exec"), module.__dict__)
    return sys.modules[f"{package.__name__}.adapter"].Adapter()
