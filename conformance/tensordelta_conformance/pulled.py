"""The folder that `pull` keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .state import State, StateError, read_state

_WEIGHTS = ".safetensors"
_INDEX = ".safetensors.index.json"


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder, without those of the adapter's own."""
    found = {}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root) / name
            if not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path
    return found


def pulled_state(folder: Path, beside: Mapping[str, str]) -> State | None:
    """The tensors of all safetensors files but those of `beside`; None where there is no such file.

    Raises StateError, also where two files hold a tensor of the same name.
    """
    state: State = {}
    weights = {name: path for name, path in _files(folder).items() if name.endswith(_WEIGHTS) and name not in beside}
    for name, path in sorted(weights.items()):
        try:
            part = read_state(path)
        except StateError as error:
            raise StateError(f"{name}: {error}") from error
        twice = sorted(state.keys() & part.keys())
        if twice:
            raise StateError(f"tensor {twice[0]!r} stands in {name} and in another file")
        state |= part
    return state if weights else None


def file_differences(folder: Path, beside: Mapping[str, str], case_files: Mapping[str, bytes]) -> list[str]:
    """How the files beside the weights differ from those of the version (name -> file of the case)."""
    found = _files(folder)
    problems = []
    for name, file in sorted(beside.items()):
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].read_bytes() != case_files[file]:
            problems.append(f"{name} is not the file of the version")
    for name in sorted(found.keys() - beside.keys()):
        if not name.endswith((_WEIGHTS, _INDEX)):
            problems.append(f"{name} is no file of the version")
    return problems
