"""Imports and exports between every kind of store, through the command line in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from places import S3

import tensordelta as td


@dataclass
class Place:
    """Where chains and exports may lie: the address before a name, options for this process, variables for others."""

    root: str
    options: dict[str, Any] | None
    environment: dict[str, str]

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        command = [sys.executable, "-m", "tensordelta", *map(str, arguments)]
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout


@pytest.fixture(params=["hub", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "hub":
        hub: Hub = request.getfixturevalue("hub")
        bucket = request.getfixturevalue("bucket")
        hub.token = "secret"
        options = {"endpoint": hub.address, "token": "secret"}
        return Place(f"hf://buckets/{bucket}", options, {"HF_ENDPOINT": hub.address, "HF_TOKEN": "secret"})
    s3: S3 = request.getfixturevalue("s3")
    return Place(f"s3://{s3.bucket()}", s3.options, s3.environment)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["trl", "slime", "modelexpress", "skyrl"])
def test_there_and_back(format: str, place: Place, tmp_path: Path) -> None:
    """A chain in a folder, its export in the store, and a chain in the store made of that; then one version more."""
    rng = np.random.default_rng(1)
    words = rng.integers(0, 2**16, (40, 30), dtype=np.uint16)
    chain = td.open(tmp_path / "chain", create=True)

    def publish() -> None:
        words[rng.integers(0, 40, 9), rng.integers(0, 30, 9)] ^= 1
        chain.publish(td.State.from_arrays({"w": words.copy()}, dtypes={"w": "BF16"}))

    for _ in range(3):
        publish()
    exported, back = f"{place.root}/{format}", f"{place.root}/chain-{format}"
    facts = json.loads(place.run("export", format, tmp_path / "chain", exported, "--json"))
    assert [each["version"] for each in facts["versions"]] == [0, 1, 2]
    facts = json.loads(place.run("import", format, exported, back, "--json"))
    assert facts["unproven"] and len(facts["versions"]) == 3
    publish()
    assert place.run("export", format, tmp_path / "chain", exported).startswith("version 3: ")
    assert "version" in place.run("import", format, exported, back).splitlines()[-1]
    opened = td.open(back, store_options=place.options)
    versions = opened.versions()
    assert len(versions) == 4
    assert all(opened.load(mine).equals(chain.load(number)) for number, mine in enumerate(versions))
    assert "nothing new" in place.run("import", format, exported, back)
