"""The layers of the package: import-linter's contracts in pyproject.toml hold, and break where they should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tensordelta

_PACKAGE = Path(tensordelta.__file__).parent
_CONFIG = Path(__file__).parent.parent / "pyproject.toml"

#: A module, an import that it must not have, and the contract that says so.
_PLANTED = {
    "a lower layer imports a higher one": ("read/routes.py", "from ..write.encoder import Encoder", "layers"),
    "a store imports the state": ("stores/folder.py", "from ..state.state import State", "layers"),
    "a module stands outside the layers": ("helpers.py", "", "layers"),
    "a codec opens files": ("codecs/values.py", "from pathlib import Path", "sans-io"),
    "the format opens files": ("format/pack.py", "import mmap", "sans-io"),
    "a store reads manifests": ("stores/hub.py", "from ..format.manifest import Manifest", "stores"),
}


def _broken(package: Path) -> list[str]:
    """Ids of the contracts that a copy of the package breaks."""
    found = []
    for contract in ("layers", "sans-io", "stores"):
        command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
        command += ["--config", str(_CONFIG), "--no-cache", "--contract", contract]
        path = os.pathsep.join([str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, cwd=package.parent
        )
        assert done.returncode == 0 or "BROKEN" in done.stdout, done.stdout + done.stderr
        if done.returncode:
            found.append(contract)
    return found


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package."""
    return shutil.copytree(_PACKAGE, tmp_path / "tensordelta", ignore=shutil.ignore_patterns("__pycache__"))


def test_the_contracts_hold(package: Path) -> None:
    assert _broken(package) == []


@pytest.mark.parametrize("planted", _PLANTED)
def test_a_wrong_import_breaks_a_contract(package: Path, planted: str) -> None:
    module, line, contract = _PLANTED[planted]
    with (package / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert contract in _broken(package)


def test_the_top_floor_is_small() -> None:
    """A module stands in the folder of its layer, but for at most eight."""
    modules = {path.name for path in _PACKAGE.glob("*.py")} - {"__init__.py"}
    assert len(modules) <= 8, modules


#: What only some users need is imported when it is used.
_LAZY = ["click", "cryptography", "huggingface_hub", "matplotlib", "obstore", "pytest", "rich", "safetensors"]


def test_the_library_loads_only_what_it_needs() -> None:
    code = f"import sys, tensordelta; print(sorted({set(_LAZY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "absent", "message"),
    [
        ("torch", "torch", "tensors need torch: pip install 'tensordelta[torch]'"),
        ("trl", "torch", "trainers need torch and transformers: pip install 'tensordelta[trl]'"),
        ("trl", "transformers", "trainers need torch and transformers: pip install 'tensordelta[trl]'"),
    ],
)
def test_what_is_absent_is_named_with_its_extra(module: str, absent: str, message: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; import tensordelta.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"
