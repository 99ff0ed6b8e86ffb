"""The sample chain of the JavaScript implementation's page, read by the reference."""

from __future__ import annotations

import base64
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensordelta as td

PAGE = Path(__file__).resolve().parents[2] / "conformance" / "implementations" / "javascript" / "page"


def unpacked(document: dict[str, Any], folder: Path) -> td.Chain:
    for name, content in document.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else base64.b64decode(content["base64"]))
    return td.open(folder)


def test_the_sample_is_sound(tmp_path: Path) -> None:
    chain = unpacked(json.loads((PAGE / "sample.json").read_bytes()), tmp_path)
    assert chain.versions() == list(range(33))
    assert chain.verify(deep=True).ok
    assert chain.manifest(7).annotations == {"step": "7"}


@pytest.mark.slow
def test_the_program_that_writes_it(tmp_path: Path) -> None:
    program = runpy.run_path(str(PAGE / "sample.py"))
    program["main"](str(tmp_path / "sample.json"))
    written = unpacked(json.loads((tmp_path / "sample.json").read_bytes()), tmp_path / "written")
    kept = unpacked(json.loads((PAGE / "sample.json").read_bytes()), tmp_path / "kept")
    assert written.versions() == kept.versions()
    assert written.verify(deep=True).ok
    # The same program and seed; sums of another numpy or processor may round otherwise.
    first, last = written.load(0), written.load(32)
    assert first.equals(kept.load(0))
    changed = sum(int(np.count_nonzero(first[name] != last[name])) for name in first)
    assert 500 < changed < 5000
