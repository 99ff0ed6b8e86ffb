"""The demo: a run into an empty folder, a run over an earlier one, and what it never does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensordelta as td
from tensordelta import demo
from tensordelta.demo import child
from tensordelta.write.snapshot import snapshot_folder

PNG = b"\x89PNG\r\n\x1a\n"


def run_demo(*arguments: str, folder: Path) -> str:
    package = str(Path(td.__file__).parents[1])
    paths = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tensordelta", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(output: str) -> list[list[str]]:
    """The cells of the table's rows, which begin with a step."""
    table = output[output.index("bits/change") :].splitlines()[1:]
    return [re.split(r"  +", line.strip()) for line in table if re.match(r" *\d+  ", line)]


@pytest.mark.slow
def test_the_demo_runs_twice(tmp_path: Path) -> None:
    outputs = [run_demo("demo", "--steps", str(steps), folder=tmp_path) for steps in (3, 1)]
    for output, steps in zip(outputs, (3, 1), strict=True):
        assert [row[0] for row in rows(output)] == [str(step) for step in range(steps + 1)]
        assert output.count("the receiver has every bit") == steps + 2  # each step's line, and the table's title
        assert "verified: " in output
        assert "loads back" in output
        assert "tensordelta-demo/demo.png" in output
    for step, changed, _, size, ratio, bits, publish, apply in rows(outputs[0])[1:]:
        assert int(step) > 0
        assert 0 < int(changed.replace(",", "")) < 3_294_720 * 0.05
        assert size.endswith(" kB")
        assert float(ratio.removesuffix("x")) > 30
        assert 4 < float(bits) < 16
        assert publish.endswith("s")
        assert apply.endswith("s")

    folder = tmp_path / "tensordelta-demo"
    assert (folder / "demo.png").read_bytes().startswith(PNG)
    log = json.loads(run_demo("log", str(folder / "chain"), "--json", folder=tmp_path))
    assert [(row["version"], row["annotations"]) for row in log] == [(0, {"step": "0"}), (1, {"step": "1"})]
    assert td.read_state(folder / "checkout").equals(td.open(folder / "chain").load())


def test_the_trainer_has_one_thread_and_the_publisher_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads of BLAS wait for one another most of the time on a machine that other programs keep busy."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(child, "_send", _send_threads)
    seen: list[tuple[str, float]] = []
    with pytest.raises(RuntimeError, match="the trainer ended with exit code 0"):
        list(child.train(steps=1, seed=0, on_progress=lambda message, done: seen.append((message, done))))
    assert seen == [("1 1", 0.5)]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7" and "OMP_NUM_THREADS" not in os.environ


def _send_threads(sending: Connection, steps: int, seed: int) -> None:
    sending.send((f"{os.environ['OPENBLAS_NUM_THREADS']} {os.environ['OMP_NUM_THREADS']}", 0.5))
    sending.close()


# -- with a trainer that takes no time --------------------------------------------------------------------------------


def train(*, steps: int, seed: int, on_progress: Any = None) -> Iterator[demo.Checkpoint]:
    random = np.random.default_rng(seed)
    master = random.standard_normal(5000).astype(np.float32)
    master[0] = 0
    for step in range(steps + 1):
        weights = {"w": master.astype(ml_dtypes.bfloat16).reshape(50, 100), "v": np.zeros(3, ml_dtypes.bfloat16)}
        yield demo.Checkpoint(step, weights)
        master[1:] += random.standard_normal(4999).astype(np.float32) * 1e-4


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "train", train)


def test_a_run_makes_chain_checkout_and_picture(quick: None, tmp_path: Path) -> None:
    lines: list[str] = []
    result = demo.run(tmp_path, steps=2, report=lines.append)
    chain = td.open(tmp_path / "chain")
    assert [row.published.changed for row in result.rows] == [row.changed for row in chain.log()]
    assert [row.published.size for row in result.rows] == [row.size for row in chain.log()]
    assert [row.published.base for row in result.rows] == [None, 0, 1]
    assert {(row.published.words, row.published.nbytes) for row in result.rows} == {(5003, 10006)}
    last = list(train(steps=2, seed=0))[-1].weights
    assert chain.load()["w"].tobytes() == last["w"].tobytes()
    assert td.read_state(tmp_path / "checkout")["w"].tobytes() == last["w"].tobytes()
    assert result.picture == tmp_path / "demo.png"
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)
    assert sum("step" in line for line in lines) >= 3
    assert not snapshot_folder(chain.id).exists(), "the demo leaves nothing in the user's cache"


def test_without_matplotlib_all_but_the_picture(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = demo.run(tmp_path, steps=1, report=lambda line: None)
    assert result.picture is None
    assert len(result.rows) == 2
    assert not (tmp_path / "demo.png").exists()


@pytest.mark.parametrize("bit", [0, 15])
def test_a_receiver_with_one_other_bit_is_found_out(
    bit: int, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit 15 of the first word makes 0 to -0, which are equal as numbers."""
    real = td.Chain.publish

    def publish(self: td.Chain, state: dict[str, Any], **options: Any) -> td.Published:
        published = real(self, state, **options)
        if published.version == 1:
            state["w"].view(np.uint16)[0, 0] ^= 1 << bit
        return published

    monkeypatch.setattr(td.Chain, "publish", publish)
    with pytest.raises(td.IntegrityError, match="step 1"):
        demo.run(tmp_path, steps=2, report=lambda line: None)


def test_an_earlier_run_is_replaced_and_nothing_else(quick: None, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    demo.run(tmp_path, steps=1, report=lambda line: None)
    first = td.open(tmp_path / "chain").id
    demo.run(tmp_path, steps=1, report=lambda line: None)
    assert td.open(tmp_path / "chain").id != first
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_chain_in_the_place_of_an_earlier_run_stays(quick: None, tmp_path: Path) -> None:
    demo.run(tmp_path, steps=0, report=lambda line: None)
    shutil.rmtree(tmp_path / "chain")
    chain = td.open(tmp_path / "chain", create=True)
    with pytest.raises(FileExistsError, match=r"chain/chain\.json"):
        demo.run(tmp_path, steps=0, report=lambda line: None)
    assert td.open(tmp_path / "chain").id == chain.id


@pytest.mark.parametrize("place", ["chain/notes.txt", "chain/packs/notes.safetensors", "checkout/config.json"])
def test_a_file_in_the_way_stops_the_run_before_it_removes_anything(quick: None, tmp_path: Path, place: str) -> None:
    demo.run(tmp_path, steps=0, report=lambda line: None)
    (tmp_path / place).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=re.escape(place)):
        demo.run(tmp_path, steps=0, report=lambda line: None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_chain_that_the_demo_did_not_make_stays(quick: None, tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": np.ones(10, np.float32)})
    with pytest.raises(FileExistsError, match="--dir"):
        demo.run(tmp_path, steps=0, report=lambda line: None)
    assert td.open(tmp_path / "chain").id == chain.id
    assert chain.verify().ok


def test_a_picture_that_the_demo_did_not_make_stays(quick: None, tmp_path: Path) -> None:
    (tmp_path / "demo.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"demo\.png"):
        demo.run(tmp_path, steps=0, report=lambda line: None)
    assert (tmp_path / "demo.png").read_text() == "mine"
