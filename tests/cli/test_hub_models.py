"""Models on the Hub, and in its client's cache, wherever a checkpoint is read; only what is needed is fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from folders import INDEX, changed, save
from hub_server import Hub

import tensordelta as td

OLD, NEW = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"
MODEL = "org/model"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = {"config.json": b"{}", "tokenizer.json": b'{"version": "1.0"}'}
#: What a model has besides, and nobody needs: other weights, other formats, and what is hidden.
BESIDES = {"consolidated.safetensors": b"other weights", "pytorch_model.bin": b"other weights", ".gitattributes": b"x"}


class Place:
    """A folder to work in, and the Hub that has two revisions of a model."""

    def __init__(self, hub: Hub, folder: Path, steps: list[Path]) -> None:
        self.hub, self.folder, self.steps = hub, folder, steps

    def run(self, *arguments: str, code: int = 0, offline: bool = False) -> subprocess.CompletedProcess[str]:
        """Run the command in a process of its own, as the client reads its settings when it is imported."""
        settings = {
            "HF_ENDPOINT": "http://127.0.0.1:9" if offline else self.hub.address,
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        done = subprocess.run(
            [sys.executable, "-m", "tensordelta", *arguments],
            cwd=self.folder,
            env=kept | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done

    @property
    def fetched(self) -> set[str]:
        """Names of the files whose bytes were asked for."""
        asked = (request for request in self.hub.requests if request.startswith("GET") and "/resolve/" in request)
        return {request.rpartition("/")[2] for request in asked}


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def place(hub: Hub, tmp_path: Path) -> Place:
    rng = np.random.default_rng(0)
    shards = {
        FIRST: {"w": rng.normal(size=(8, 3)).astype(ml_dtypes.bfloat16)},
        SECOND: {"v": rng.normal(size=20).astype(np.float32)},
    }
    hub.reset()
    steps = [tmp_path / "old", tmp_path / "new"]
    for step, commit in zip(steps, (OLD, NEW), strict=True):
        save(step, shards, FILES)
        for name, data in ({each.name: each.read_bytes() for each in step.iterdir()} | BESIDES).items():
            hub.add(MODEL, commit, name, data)
        shards = changed(shards, rng, 0.2)
    hub.branches[MODEL]["v1.0"] = OLD
    return Place(hub, tmp_path, steps)


def test_a_model_is_published_with_its_small_files_and_nothing_else(place: Place) -> None:
    done = place.run("publish", "run", f"hf://{MODEL}@{OLD}", "--json")
    assert json.loads(done.stdout)["version"] == 0 and done.stderr == ""
    assert place.fetched == {FIRST, SECOND, INDEX, *FILES}
    place.run("publish", "run", f"hf://{MODEL}")  # the newest commit of its main branch
    chain = td.open(place.folder / "run")
    for version, step in enumerate(place.steps):
        assert chain.load(version) == td.read_state(step)
        assert {file.name for file in chain.manifest(version).files} == {INDEX, *FILES}


def test_a_comparison_fetches_weights_alone_and_once(place: Place) -> None:
    done = place.run("diff", f"hf://{MODEL}@v1.0", f"hf://{MODEL}@main", "--json")
    assert json.loads(done.stdout)["changed"] == td.diff(*place.steps).changed > 0
    assert place.fetched == {FIRST, SECOND, INDEX}
    place.hub.requests.clear()
    again = place.run("diff", f"hf://{MODEL}@v1.0", f"hf://{MODEL}@main", "--json")
    assert again.stdout == done.stdout and place.fetched == set()


def test_a_model_and_a_version_are_compared(place: Place) -> None:
    td.open(place.folder / "run", create=True).publish(place.steps[0])
    assert json.loads(place.run("diff", "run@0", f"hf://{MODEL}@v1.0", "--json").stdout)["changed"] == 0


def test_tensors_of_a_model_are_listed(place: Place) -> None:
    large = td.State.from_arrays({"large": np.zeros(1 << 20, np.float32)})
    large.save(place.folder / "large.safetensors")
    place.hub.add("org/large", NEW, "model.safetensors", (place.folder / "large.safetensors").read_bytes())
    assert "1 tensor, 4.19 MB" in place.run("ls", "hf://org/large").stdout
    assert sum(size for _, size in place.hub.sent) < 200_000, "the headers alone"
    assert json.loads(place.run("ls", f"hf://{MODEL}@v1.0", "--json").stdout)["words"] == 44
    found = json.loads(place.run("ls", f"hf://{MODEL}", "--json").stdout)
    assert [(each["name"], each["dtype"], each["shape"]) for each in found["tensors"]] == [
        ("v", "F32", [20]),
        ("w", "BF16", [8, 3]),
    ]


def test_without_a_network_the_cache_is_read(place: Place) -> None:
    """By the model's address, and by the path of its folder in the cache."""
    place.run("diff", f"hf://{MODEL}", str(place.steps[1]))
    place.hub.requests.clear()
    assert "2 tensors" in place.run("ls", f"hf://{MODEL}", offline=True).stdout
    wanted = td.read_state(place.steps[1])
    place.run("publish", "run", f"hf://{MODEL}", offline=True)
    assert td.open(place.folder / "run").load() == wanted
    folder = place.folder / "hf/hub/models--org--model"
    assert td.read_state(folder) == wanted
    assert td.read_state(folder / "snapshots" / NEW) == wanted
    td.open(place.folder / "other", create=True).publish(folder)
    assert td.open(place.folder / "other").load() == wanted and place.hub.requests == []


@pytest.mark.parametrize(
    ("address", "says", "code"),
    [
        ("hf://org/nothing", "error: hf://org/nothing is no model that this user may see. Check the name", 1),
        (f"hf://{MODEL}@v9", f"error: hf://{MODEL}@v9 has no such revision. Check the name", 1),
        ("hf://org", "'hf://org' is no model: write hf://ORG/MODEL", 2),
        ("hf:/org/model", "'hf:/org/model' is no address: write hf://org/model,", 2),
        ("hf://org/a--..b", "'hf://org/a--..b' is no model:", 2),
    ],
)
def test_what_is_no_model_is_named(place: Place, address: str, says: str, code: int) -> None:
    for command in (["publish", "run", address], ["diff", address, str(place.steps[0])], ["ls", address]):
        done = place.run(*command, code=code)
        assert says in done.stderr.splitlines()[-1]
    assert not (place.folder / "run").exists()


def test_a_model_without_safetensors_is_named(place: Place) -> None:
    place.hub.add("org/gguf", OLD, "model.gguf", b"GGUF")
    done = place.run("publish", "run", "hf://org/gguf", code=1)
    assert done.stderr.startswith("error: hf://org/gguf holds no safetensors file. ")
    assert place.run("ls", "hf://org/gguf", code=1).stderr == done.stderr


def test_a_cache_with_several_revisions_and_no_branch(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--model"
    for name in "ab":
        td.State.from_arrays({"w": np.arange(3)}).save(_made(folder / "snapshots" / name) / "model.safetensors")
    with pytest.raises(td.MissingError, match="holds 2 revisions, and none is its main branch"):
        td.read_state(folder)
    assert list(td.read_state(folder / "snapshots" / "a")) == ["w"]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
