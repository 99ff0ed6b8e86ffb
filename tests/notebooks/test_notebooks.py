"""The notebooks of `reference/examples` run, and what they show in the tree is what they print.

`python -m tests.notebooks` executes them and keeps the outputs. The one with torch runs in the environment that
`.ci/trainers` makes, where TENSORDELTA_TRAINERS=required and no other one runs.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

running = pytest.importorskip("notebooks.running", reason="nbclient is not installed")
nbformat = running.nbformat

TRAINERS = os.environ.get("TENSORDELTA_TRAINERS") == "required"
#: A notebook of more bytes is too large to be read, and to be kept in every clone.
MOST = 300_000

every = pytest.mark.parametrize("path", running.NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook: Any) -> list[list[str]]:
    """What kinds of outputs each cell has."""
    return [
        [f"{each.output_type} {' '.join(sorted(each.get('data', {})))}{each.get('name', '')}" for each in cell.outputs]
        for cell in code_cells(notebook)
    ]


def test_there_are_six() -> None:
    assert [path.name[:2] for path in running.NOTEBOOKS] == [f"{number}_" for number in range(1, 7)]


@every
def test_outputs_are_those_of_the_code(path: Path) -> None:
    notebook = read(path)
    assert notebook.metadata[running.KEY] == running.digest(notebook), (
        "edited, and not executed: python -m tests.notebooks"
    )
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@every
def test_nothing_in_the_tree_is_an_error_a_warning_or_of_one_machine(path: Path) -> None:
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result", "update_display_data")
            assert output.get("name") != "stderr", output.text
            text = str({**output.get("data", {}), "image/png": "", "": output.get("text", "")})
            assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|Users|var)/|0x[0-9a-f]{6,}", text), text
    assert path.stat().st_size < MOST


@every
def test_links_lead_to_files(path: Path) -> None:
    for cell in read(path).cells:
        for target in re.findall(r"\]\(([^)#]+)", cell.source) if cell.cell_type == "markdown" else ():
            assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.slow
@every
def test_it_runs_from_a_fresh_kernel(path: Path) -> None:
    needs_torch = "import torch" in path.read_text()
    if needs_torch != TRAINERS or (needs_torch and find_spec("transformers") is None):
        pytest.skip("runs in the environment of .ci/trainers" if needs_torch else "runs in that of the other tests")
    assert kinds(running.execute(path)) == kinds(read(path)), "it shows something else now: python -m tests.notebooks"
