"""Mutants: the small reader with one change each, which the suite has to see.

A change is what an author of a reader may well get wrong. Each names cases of the suite that must fail under it: not
end in an error, but give a wrong answer. The twins of these cases must pass, so that it is the change that is seen.

A mutant is a copy of the small reader's folder, changed and imported under a name of its own: the small reader itself,
on which the judge is built, stays as it is.
"""

from __future__ import annotations

import importlib
import itertools
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tensordelta_conformance import small_reader

from .change import Change
from .changes_breadth import BREADTH
from .changes_documents import DOCUMENTS
from .changes_follow import FOLLOW
from .changes_further_chain import FURTHER_CHAIN
from .changes_further_documents import FURTHER_DOCUMENTS
from .changes_further_packs import FURTHER_PACKS
from .changes_further_streams import FURTHER_STREAMS
from .changes_further_texts import FURTHER_TEXTS
from .changes_further_words import FURTHER_WORDS
from .changes_packs import PACKS
from .changes_reader import READER
from .changes_slices import SLICES
from .changes_streams import STREAMS

_CHANGES = (*DOCUMENTS, *PACKS, *STREAMS, *READER, *FOLLOW, *SLICES, *BREADTH)
_FURTHER = (
    *FURTHER_TEXTS,
    *FURTHER_DOCUMENTS,
    *FURTHER_PACKS,
    *FURTHER_WORDS,
    *FURTHER_STREAMS,
    *FURTHER_CHAIN,
)

MUTANTS: dict[str, Change] = {change.name: change for change in (*_CHANGES, *_FURTHER)}

_NUMBERS = itertools.count()


def copied(folder: Path) -> Path:
    """A copy of the small reader's modules in a folder."""
    shutil.copytree(Path(small_reader.__path__[0]), folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def adapter_of(change: Change) -> Any:
    """The adapter of a changed copy of the small reader.

    Raises:
        ValueError: the change does not fit the small reader any more.
    """
    name = f"small_reader_copy_{next(_NUMBERS)}"
    with TemporaryDirectory() as temporary:
        folder = copied(Path(temporary, name))
        change.apply(folder)
        spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        assert spec is not None and spec.loader is not None
        package = module_from_spec(spec)
        sys.modules[name] = package
        spec.loader.exec_module(package)
        return importlib.import_module(f"{name}.adapter").Adapter()
