"""The notebooks of `reference/examples`: executed as a reader executes them, and kept with what they printed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "reference/examples").glob("*.ipynb"))
#: Of a notebook's metadata: the SHA-256 of the code whose outputs it has.
KEY = "executed"


def execute(path: Path) -> Any:
    """Run all cells of a notebook in a fresh kernel, in an empty folder; gives a copy with the new outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OMP_NUM_THREADS"] = "1"
        kernel = dict(os.environ, TENSORDELTA_CACHE=f"{folder}/cache", TMPDIR=folder, IPYTHONDIR=folder)
        kernel["TQDM_DISABLE"] = "1"  # progress of what takes longer than a second, on a busy machine, is no output
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            coalesce_streams=True,
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],
        )
        client.execute(env=kernel)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        KEY: digest(notebook),
    }
    return notebook


def digest(notebook: Any) -> str:
    """SHA-256 of a notebook's code."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\n# %%\n".join(code).encode()).hexdigest()


def save(notebook: Any, path: Path) -> None:
    """Write a notebook with its outputs, as Jupyter does."""
    nbformat.write(notebook, path)
