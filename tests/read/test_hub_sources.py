"""Weights that lie on the Hugging Face Hub: taken with its own client, where the user allows it, and proven."""

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
from folders import INDEX, all_tensors, changed, contents, save
from hub_server import Hub

import tensordelta as td
from tensordelta.read.packs import Packs, Sources
from tensordelta.stores import FolderStore

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "org/model"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = {"config.json": b"{}", "1_Pooling/config.json": b"{}"}

PULL = """
import json, sys
import tensordelta as td
try:
    chain = td.open(sys.argv[1], allow_sources=json.loads(sys.argv[3]))
    print(json.dumps({"version": chain.pull(sys.argv[2]).version}))
except td.TensorDeltaError as fault:
    print(json.dumps({"error": fault.name, "rule": fault.rule, "reason": fault.reason}))
except td.StoreError as fault:
    print(json.dumps({"error": "store", "object": fault.object, "advice": fault.advice}))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def published(hub: Hub, tmp_path: Path) -> td.Chain:
    """A chain whose version 0 lies on the hub, and whose version 1 is a delta on it."""
    rng = np.random.default_rng(0)
    shards = {
        FIRST: {"w": rng.normal(size=(8, 3)).astype(ml_dtypes.bfloat16)},
        SECOND: {"v": rng.normal(size=20).astype(np.float32)},
    }
    save(tmp_path / "0", shards, FILES)
    save(tmp_path / "1", changed(shards, rng, 0.2), FILES)
    hub.files.clear()
    hub.requests.clear()
    for name in (FIRST, SECOND):
        hub.add(REPOSITORY, COMMIT, name, (tmp_path / "0" / name).read_bytes())
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(tmp_path / "0", plain=True, source=f"hf://{REPOSITORY}@{COMMIT}")
    chain.publish(tmp_path / "1")
    return chain


def pull(chain: td.Chain, tmp_path: Path, endpoint: str, schemes: list[str] | None = None) -> dict[str, object]:
    """Pull into `out` in a process of its own, as the client reads its settings when it is imported."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))} | settings
    python = [sys.executable, "-c", PULL, chain.address, str(tmp_path / "out")]
    done = subprocess.run(
        [*python, json.dumps(["hf"] if schemes is None else schemes)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_weights_come_from_the_hub(hub: Hub, published: td.Chain, tmp_path: Path) -> None:
    assert pull(published, tmp_path, hub.address) == {"version": 1}
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "1")
    assert contents(tmp_path / "out").keys() == {FIRST, SECOND, INDEX, *FILES, "1_Pooling"}
    got = [request for request in hub.requests if request.startswith("GET")]
    assert sorted(got) == [f"GET {REPOSITORY}/resolve/{COMMIT}/{name}" for name in (FIRST, SECOND)]


def test_files_of_a_repository_have_any_name(hub: Hub, tmp_path: Path) -> None:
    weights = {"w": np.arange(6, dtype=np.float32)}
    file = tmp_path / "my model+é.safetensors"
    td.State.from_arrays(weights).save(file)
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(file, plain=True, source=f"hf://{REPOSITORY}@{COMMIT}")
    hub.add(REPOSITORY, COMMIT, file.name, file.read_bytes())
    assert pull(chain, tmp_path, hub.address) == {"version": 0}
    assert td.read_state(tmp_path / "out" / "model.safetensors").equals(td.State.from_arrays(weights))


def test_the_hub_is_not_asked_without_permission(hub: Hub, published: td.Chain, tmp_path: Path) -> None:
    for schemes in ([], ["https"]):
        result = pull(published, tmp_path, hub.address, schemes)
        assert (result["error"], result["rule"]) == ("untrusted", "TD-MAN-017")
    assert hub.requests == []
    assert contents(tmp_path / "out") == {}


def test_altered_weights_are_refused(hub: Hub, published: td.Chain, tmp_path: Path) -> None:
    name = f"{REPOSITORY}/resolve/{COMMIT}/{SECOND}"
    good = hub.files[name]
    for altered in (good[:-1] + bytes([good[-1] ^ 1]), good + b"\0", good[:-1]):
        hub.files[name] = altered
        result = pull(published, tmp_path, hub.address)
        assert (result["error"], result["rule"]) == ("integrity", "TD-MAN-013")
        assert contents(tmp_path / "out") == {}
    # Once they come right again, the wrong ones in the client's cache do no harm.
    hub.files[name] = good
    assert pull(published, tmp_path, hub.address) == {"version": 1}


def test_a_damaged_cache_of_the_client_is_fetched_again(hub: Hub, published: td.Chain, tmp_path: Path) -> None:
    assert pull(published, tmp_path, hub.address) == {"version": 1}
    blobs = [path for path in (tmp_path / "hf").rglob("blobs/*") if path.is_file()]
    assert len(blobs) == 2
    for blob in blobs:
        blob.write_bytes(bytes(blob.stat().st_size))
    (tmp_path / "out").rename(tmp_path / "first")
    assert pull(published, tmp_path, hub.address) == {"version": 1}
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "1")


def test_weights_that_are_gone(hub: Hub, published: td.Chain, tmp_path: Path) -> None:
    hub.files.pop(f"{REPOSITORY}/resolve/{COMMIT}/{SECOND}")
    result = pull(published, tmp_path, hub.address)
    assert (result["error"], result["rule"]) == ("missing", "TD-MAN-018")
    assert contents(tmp_path / "out") == {}


def test_a_hub_that_refuses(hub: Hub, published: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a private repository the Hub says to strangers that there is none."""
    monkeypatch.setattr(hub, "token", "secret")
    result = pull(published, tmp_path, hub.address)
    assert result["error"] == "store" and "your token" in str(result["advice"])
    assert contents(tmp_path / "out") == {}


@pytest.mark.slow  # the client itself tries several times to reach a server
def test_a_hub_that_does_not_answer(published: td.Chain, tmp_path: Path) -> None:
    """It says nothing of what it has: no version is missing, and another place may have the weights."""
    with Hub() as gone:
        address = gone.address
    result = pull(published, tmp_path, address)
    assert result["error"] == "store" and "--packs-from" in str(result["advice"])
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "source",
    ["hf://org/model/file", "hf://org/model@0123abc", "hf://@0123abc/file", "s3://b/x"]
    + [f"hf://org/model@0123abc/{name}" for name in ("../x", "a/../x", "/x", "a//x", "")]
    + ["hf://a/b/c@0123abc/file"],
)
def test_sources_that_name_no_file_are_passed_over(published: td.Chain, source: str) -> None:
    entry = published.manifest(0).packs[0]
    wrong = type(entry)(entry.sha256, entry.size, None, entry.content, entry.tensors, entry.changed, [source])
    with pytest.raises(td.MissingError) as caught:
        Packs(FolderStore(published.address), memory=1 << 20, sources=Sources(["hf", "s3"])).fetch(wrong, keep=True)
    assert caught.value.rule == "TD-MAN-018"
