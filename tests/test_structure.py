"""Dependencies point one way: a module imports only from rooms below its own, and the core knows nothing of files."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

_PACKAGE = Path(__file__).parent.parent / "reference" / "tensordelta"

#: Rooms that get bytes and arrays and give objects: what they may import of the package, and no file in sight.
_CORE = {
    "words": set(),
    "flags": set(),
    "errors": set(),
    "ijson": {"errors"},
    "objects": {"errors", "ijson"},
    "layout": {"errors", "ijson", "objects", "words"},
    "fingerprint": {"words"},
    "codecs.fault": {"errors"},
    "codecs.order": {"flags", "words"},
    "codecs.positions": {"codecs.fault"},
    "codecs.values": {"codecs.fault", "words"},
    "codecs.compression": {"codecs.fault"},
    "comparison": {"flags", "words"},
    "container": {"errors", "ijson", "objects", "words"},
    "chunk": {"codecs.compression", "codecs.positions", "errors", "ijson", "layout", "objects", "words"},
    "pieces": {"codecs", "codecs.compression", "codecs.order", "codecs.positions", "codecs.values"}
    | {"chunk", "errors", "fingerprint", "layout", "words"},
    "manifest": {"errors", "ijson", "objects", "tables"},
    "signatures": {"errors", "ijson", "objects"},
    "trust": {"errors", "manifest", "objects", "signatures"},
    "pack": {"chunk", "container", "errors", "ijson", "layout", "manifest", "objects", "pieces", "words"},
    "members": {"errors", "manifest", "objects"},
    "routes": {"errors", "manifest", "members", "objects"},
}
_FILES = {"os", "pathlib", "io", "mmap", "shutil", "tempfile", "socket", "urllib", "huggingface_hub"}


def _name(path: Path) -> str:
    parts = path.relative_to(_PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_name(path): path for path in _PACKAGE.rglob("*.py")}


def _imports(name: str) -> tuple[set[str], set[str]]:
    """Modules of the package that a module imports, wherever in it, and the others."""
    own: set[str] = set()
    other: set[str] = set()
    is_package = _MODULES[name].name == "__init__.py"
    for node in ast.walk(ast.parse(_MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            other |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            other.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".") if name else []
            up = node.level - (1 if is_package else 0)
            base = parts[: len(parts) - up] if up else parts
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                deeper = ".".join([*base, alias.name])
                own.add(deeper if deeper in _MODULES else ".".join(base))
    return own, other


def test_no_circle() -> None:
    TopologicalSorter({name: _imports(name)[0] - {name} for name in _MODULES}).prepare()


@pytest.mark.parametrize("name", sorted(_CORE))
def test_the_core_knows_only_what_lies_below(name: str) -> None:
    own, other = _imports(name)
    assert own <= _CORE[name], own - _CORE[name]
    assert not other & _FILES


def test_a_store_knows_nothing_of_deltas() -> None:
    for name in _MODULES:
        if name.split(".")[0] == "stores":
            own = {each for each in _imports(name)[0] if each.split(".")[0] != "stores"}
            assert own <= {"errors", "objects"}, (name, own)


_LAZY = {"huggingface_hub": {"fetch", "stores.hub"}, "obstore": {"stores.cloud"}, "pytest": {"stores.testing"}}


def test_clients_of_stores_are_imported_where_they_are_needed() -> None:
    """Each by the module that speaks to it alone, and not before an address needs it."""
    for package, rooms in _LAZY.items():
        assert {name for name in _MODULES if package in _imports(name)[1]} == rooms
    code = f"import sys, tensordelta.cli; print(sorted({set(_LAZY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
