"""A chain's whole life in each kind of store: through Python, and through the command line in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import all_tensors, changed, contents, save
from hub_server import Hub
from pages import GUIDE, block
from places import S3

import tensordelta as td

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@dataclass
class Place:
    """Where a chain may live.

    Attributes:
        address: as a user writes it.
        options: `store_options` of `open`.
        environment: the same for a process.
    """

    address: str
    options: dict[str, Any] | None
    environment: dict[str, str]

    def open(self, **more: Any) -> td.Chain:
        return td.open(self.address, store_options=self.options, **more)

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tensordelta", *map(str, arguments)]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(params=["folder", "hub", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(str(tmp_path / "chain"), None, {})
    if request.param == "hub":
        hub: Hub = request.getfixturevalue("hub")
        bucket = request.getfixturevalue("bucket")
        hub.token = "secret"
        options = {"endpoint": hub.address, "token": "secret"}
        return Place(f"hf://buckets/{bucket}/runs/one", options, {"HF_ENDPOINT": hub.address, "HF_TOKEN": "secret"})
    s3: S3 = request.getfixturevalue("s3")
    return Place(f"s3://{s3.bucket()}/runs/one", dict(s3.options), s3.environment)


@pytest.fixture
def steps(tmp_path: Path) -> list[Path]:
    """Three checkpoints of a run; a tensor of each is too large to come with its size."""
    rng = np.random.default_rng(7)
    shards = {
        FIRST: {"w": rng.integers(0, 2**16, (400, 500), np.uint16), "bias": np.zeros(7, np.float32)},
        SECOND: {"v": rng.normal(size=3000).astype(np.float32)},
    }
    folders = []
    for step in range(3):
        folders.append(save(tmp_path / f"step_{step}", shards, {"config.json": b'{"step": %d}' % step}))
        shards = changed(shards, rng, 0.02)
    return folders


def test_python(place: Place, steps: list[Path], tmp_path: Path, remember: Callable[[str], None]) -> None:
    with pytest.raises(td.MissingError) as caught:
        place.open()
    assert caught.value.rule == "TD-OBJ-009"
    chain = place.open(create=True)
    assert chain.address == place.address and chain.versions() == []

    assert chain.publish(steps[0]).base is None
    done = chain.publish(steps[1], annotations={"step": "1"})
    assert done.base == 0 and done.ratio > 5

    remember("another machine")
    reader = place.open(chain=chain.id)
    assert reader.versions() == [0, 1] and reader.newest() == 1
    state = reader.load(0)
    assert state.equals(td.read_state(steps[0]))
    update = reader.prepare(state, 1)
    assert update.route == ("manifests/000000000001.json",)
    update.apply()
    assert state.equals(td.read_state(steps[1]))
    assert np.array_equal(reader.read(1, "bias"), td.read_state(steps[1])["bias"])

    folder = tmp_path / "pulled"
    assert reader.pull(folder).version == 1
    assert all_tensors(folder) == all_tensors(steps[1])
    chain.publish(steps[2], values="replace")
    assert reader.wait(2, timeout=10) == 2
    assert reader.pull(folder).route == ("manifests/000000000002.json",)
    assert all_tensors(folder) == all_tensors(steps[2])
    assert contents(folder)["config.json"] == b'{"step": 2}'

    checked = reader.verify(deep=True)
    assert checked.ok and checked.versions == [0, 1, 2]
    rows = reader.log()
    assert [row.base for row in rows] == [None, 0, 1] and rows[1].annotations == {"step": "1"}
    assert rows[1].size == done.size

    # The next writer has no snapshot on its machine, and goes on with the chain.
    remember("a third machine")
    assert place.open(create=True).publish(steps[0]).base == 2
    assert place.open().load().equals(td.read_state(steps[0]))


@pytest.fixture
def remember(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Take the cache folder of another machine."""
    return lambda machine: monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / machine))


def test_the_first_example_of_the_guide(place: Place, tmp_path: Path) -> None:
    """It runs as it stands, with another address."""
    make = block(GUIDE, "python", "State.from_arrays(state).save(")
    example = block(GUIDE, "python", "chain.wait(version=1")
    assert example.count('td.open("run-1", create=True)') == 1
    code = make + example.replace('"run-1"', repr(place.address))
    environment = os.environ | place.environment
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert td.read_state(tmp_path / "out.safetensors").equals(td.read_state(tmp_path / "step_1.safetensors"))
    assert [row.version for row in place.open().log()] == [0, 1]


def test_plain_files(place: Place, steps: list[Path], tmp_path: Path) -> None:
    """A checkpoint's files as they stand: in the store they are the same files, and a pull gives them back."""
    chain = place.open(create=True)
    chain.publish(steps[0], plain=True)
    chain.publish(steps[1])
    reader = place.open()
    reader.pull(tmp_path / "pulled", 0)
    assert all_tensors(tmp_path / "pulled") == all_tensors(steps[0])
    assert reader.load().equals(td.read_state(steps[1])) and reader.verify().ok


def test_a_place_of_another_kind_of_thing(place: Place, tmp_path: Path) -> None:
    """A chain has a place of its own: where something else lies, none is made."""
    from tensordelta.stores import open_store

    open_store(place.address, options=place.options).put("model.safetensors", [b"x"])
    with pytest.raises(td.ConflictError) as caught:
        place.open(create=True)
    assert caught.value.rule == "TD-STO-010" and place.address in str(caught.value)


@pytest.mark.slow
def test_command_line(place: Place, steps: list[Path], tmp_path: Path) -> None:
    done = place.run("log", place.address)
    assert done.returncode == 1 and "there is no chain at " in done.stderr
    for step, folder in enumerate(steps):
        done = place.run("publish", place.address, folder, "--step", str(step), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["version"] == step
    done = place.run("log", place.address, "--json")
    assert [row["annotations"]["step"] for row in json.loads(done.stdout)] == ["0", "1", "2"]
    done = place.run("show", place.address, "1")
    assert done.returncode == 0 and "version 1" in done.stdout
    folder = tmp_path / "pulled"
    for version in ("0", "2"):
        done = place.run("pull", place.address, folder, "--to", version)
        assert done.returncode == 0, done.stderr
        assert all_tensors(folder) == all_tensors(steps[int(version)])
    done = place.run("verify", place.address, "--deep")
    assert done.returncode == 0 and "3 versions, no fault" in done.stdout
    assert done.stderr == ""


FULL = """
import gc, resource, sys
import numpy as np
import tensordelta as td

chain = td.open(sys.argv[1], create=True)
state = {"w": np.random.default_rng(0).integers(0, 1 << 32, 1_000_000, np.uint32)}
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
for attempt in (lambda: chain.publish(state), lambda: td.open(sys.argv[1]).pull(sys.argv[2])):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limit[1]))  # the nearest kin of a full disk
    try:
        attempt()
        print("done")
    except td.TensorDeltaError as fault:
        print(fault.name)
    except OSError as error:
        print("OSError")
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    gc.collect()  # until then the client that failed keeps the storage of the tests' hub to itself
    print(chain.versions(), td.Checkout.is_checkout(sys.argv[2]))
    attempt()
print(chain.versions(), chain.verify().ok, td.open(sys.argv[1]).load().equals(td.State.from_arrays(state)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["hub", "s3"], indirect=True)
def test_a_disk_that_is_full(place: Place, tmp_path: Path) -> None:
    """A publish goes on in memory or fails as the machine does; nothing half done stays, and with room it succeeds."""
    arguments = [sys.executable, "-c", FULL, place.address, str(tmp_path / "pulled")]
    environment = os.environ | place.environment
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600)
    lines = done.stdout.splitlines()
    if place.address.startswith("s3"):  # the Hub's client takes files only
        assert (lines[:2], lines[-1]) == (["done", "[0] False"], "[0, 1] True True"), done.stderr
    else:
        assert (lines[:2], lines[-1]) == (["OSError", "[] False"], "[0] True True"), done.stderr
    assert lines[2] == "OSError"


@pytest.mark.slow
def test_a_server_that_is_not_there(steps: list[Path]) -> None:
    """The command line says what failed and what to do, in one line and without a traceback."""
    environment = {"AWS_ENDPOINT": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "x"}
    environment |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    place = Place("s3://bucket/run", None, environment)
    for arguments in (["log", place.address], ["publish", place.address, steps[0]]):
        done = place.run(*arguments)
        assert done.returncode == 1 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: s3://bucket/run: ") and "Check the network" in line


def test_an_address_of_no_kind() -> None:
    for address in ("ftp://host/chain", "hf://org/model", "hf://buckets/onlyowner", "hf://buckets/a/b/../c", "s3://"):
        with pytest.raises(ValueError, match=address.split(":")[0]):
            td.open(address)
    with pytest.raises(ValueError, match="option"):
        td.open("folder", store_options={"endpoint": "x"})
    with pytest.raises(ValueError, match="option"):
        td.open("hf://buckets/me/b", store_options={"region": "x"})


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ImportError, match=r"pip install 'tensordelta\[cloud\]'"):
        td.open("s3://bucket/chain")


def test_retention(place: Place, steps: list[Path]) -> None:
    """Ages come from the store's own clock; what is kept loads, also for who holds what went."""
    chain = place.open(create=True)
    for step in steps:
        chain.publish(step)
    held = chain.load(0)
    chain.shortcut(None, 2)
    chain.pin(1, "eval")
    assert [(pin.name, pin.version, pin.written is not None) for pin in chain.pins()] == [("eval", 1, True)]
    assert chain.collect(1).objects == []
    assert place.open().collect(1, grace=0).kept == [1, 2]
    chain.unpin("eval")
    done = json.loads(place.run("gc", place.address, "--keep-last", "1", "--grace", "0", "--json").stdout)
    assert done["dropped"] == [0, 1] and done["supporting"] == []
    reader = place.open()
    assert reader.versions() == [2] and reader.verify(deep=True).ok
    reader.prepare(held).apply()
    assert held.equals(td.read_state(steps[2]))
