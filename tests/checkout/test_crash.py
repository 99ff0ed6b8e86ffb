"""Whatever instant a process dies at, the next one finds the old version or the new one, and goes on.

The deaths are those of crash_driver.py, a process of its own for each test: it forks a child for every step at which
one may die, and compares what is left, byte by byte, with what pulls and publishes make that never died.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from folders import all_tensors, changed, contents, flip, save

import tensordelta as td

DRIVER = Path(__file__).with_name("crash_driver.py")


def checkpoints(root: Path) -> list[Path]:
    """Versions 0 to 5: sparse changes, then every word, then other tensors, shards and files, then sparse again."""
    rng = np.random.default_rng(7)
    shards: dict[str, dict[str, np.ndarray]] = {
        "model-00001-of-00002.safetensors": {
            "embed": rng.normal(size=(9, 7)).astype(ml_dtypes.bfloat16),
            "norm": np.ones(5, np.float32),
        },
        "model-00002-of-00002.safetensors": {
            "head": rng.normal(size=(7, 9)).astype(np.float32),
            "mask": rng.integers(0, 255, 21).astype(np.uint8),
        },
    }
    files = {"config.json": b"{}", "tokenizer.json": b"[1]", "extra": b"file", "1_Pooling/config.json": b"pool"}
    folders = [save(root / "0", shards, files)]
    for version, share in ((1, 0.1), (2, 0.05), (3, 1.0)):
        shards = changed(shards, rng, share)
        folders.append(save(root / str(version), shards, files))
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    (embed, norm), (head, mask) = (arrays.values() for arrays in shards.values())
    embed = np.ascontiguousarray(embed.reshape(7, 9))
    shards = {names[0]: {"bias": norm, "norm": norm + 1}, names[1]: {"embed": embed, "mask": mask}, names[2]: {}}
    shards[names[2]] = {"extra.weight": head * 2, "zero": np.zeros(0, np.float64)}
    # A folder becomes a file, a file becomes a folder, one file is new, one is changed, one goes.
    files = {"config.json": b'{"v": 4}', "1_Pooling": b"file", "extra/a/config.json": b"e", "merges.txt": b"m"}
    folders.append(save(root / "4", shards, files))
    folders.append(save(root / "5", changed(shards, rng, 0.1), files))
    return folders


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `checkpoints/V`, the chain of them, and `pulled/V`, each pulled at once into a new folder."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(root / "cache"))
        chain = td.open(root / "chain", create=True, threads=1)
        for version, folder in enumerate(checkpoints(root / "checkpoints")):
            chain.publish(folder, layout_change=True)
            chain.pull(root / "pulled" / str(version), version)
            assert all_tensors(root / "pulled" / str(version)) == all_tensors(folder)
    yield root


def drive(tmp_path: Path, spec: Mapping[str, object], ways: Mapping[str, int], *, disk: bool = False) -> int:
    """Run the driver; gives how often the work ended early, after checking that it never did harm.

    Args:
        spec: what is done.
        ways: how it ends, at every how many-th step.
        disk: on the file system of `tmp_path`, else in memory where there is such a file system: losses of power are
            played either way.
    """
    memory = Path("/dev/shm")
    quick = memory.is_dir() and os.access(memory, os.W_OK) and not disk
    with tempfile.TemporaryDirectory(dir=memory if quick else tmp_path) as scratch:
        (tmp_path / "spec.json").write_text(json.dumps({**spec, "scratch": scratch, "ways": ways}))
        python = [sys.executable, str(DRIVER), str(tmp_path / "spec.json")]
        paths = os.pathsep.join(filter(None, [str(DRIVER.parents[1]), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(python, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert not report["failures"], f"{report['failed']} failures:\n" + "\n".join(report["failures"])
    return report["ends"]


# -- pull --------------------------------------------------------------------------------------------------------------

#: From which version to which, and the least number of steps that such a pull takes on disk.
PULLS = {
    "first": (None, 0, 120),
    "in place": (0, 1, 50),
    "several hops": (0, 2, 50),
    "every word": (2, 3, 50),
    "other layout": (3, 4, 120),
    "hops over layouts": (1, 5, 120),
    "rollback": (5, 1, 120),
}


def pull_spec(world: Path, tmp_path: Path, name: str) -> dict[str, object]:
    held, target, _ = PULLS[name]
    template = tmp_path / "template"
    template.mkdir()
    if held is not None:
        shutil.copytree(world / "pulled" / str(held), template / "out")
    return {
        "kind": "pull",
        "chain": str(world / "chain"),
        "template": str(template),
        "held": held,
        "target": target,
        "old": None if held is None else str(world / "pulled" / str(held)),
        "new": str(world / "pulled" / str(target)),
    }


@pytest.mark.parametrize("name", PULLS)
def test_a_pull_may_die(world: Path, tmp_path: Path, name: str) -> None:
    ends = drive(tmp_path, pull_spec(world, tmp_path, name), {"kill": 5})
    assert ends >= PULLS[name][2] / 5


@pytest.mark.slow
@pytest.mark.parametrize("name", PULLS)
def test_a_pull_may_die_at_every_step(world: Path, tmp_path: Path, name: str) -> None:
    ends = drive(tmp_path, pull_spec(world, tmp_path, name), {"kill": 1}, disk=name in ("in place", "other layout"))
    assert ends >= PULLS[name][2]


@pytest.mark.parametrize(("name", "stride"), [("in place", 9), ("other layout", 47)])
def test_its_recovery_may_die_and_disks_may_fail(world: Path, tmp_path: Path, name: str, stride: int) -> None:
    ways = dict.fromkeys(("twice", "interrupt", "error", "power", "power_twice"), stride)
    assert drive(tmp_path, pull_spec(world, tmp_path, name), ways) >= 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stride"), [("in place", 2), ("every word", 5), ("other layout", 7), ("rollback", 11)]
)
def test_its_recovery_may_die_at_every_step(world: Path, tmp_path: Path, name: str, stride: int) -> None:
    assert drive(tmp_path, pull_spec(world, tmp_path, name), {"twice": stride, "power_twice": 2 * stride}) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("name", PULLS)
def test_a_pull_may_be_interrupted_and_disks_may_fail(world: Path, tmp_path: Path, name: str) -> None:
    drive(tmp_path, pull_spec(world, tmp_path, name), {"interrupt": 2, "error": 3})


@pytest.mark.slow
@pytest.mark.parametrize("name", PULLS)
def test_power_may_be_lost_during_a_pull(world: Path, tmp_path: Path, name: str) -> None:
    assert drive(tmp_path, pull_spec(world, tmp_path, name), {"power": 2}) >= PULLS[name][2] * 5 / 2


def repair_spec(world: Path, tmp_path: Path, target: int) -> dict[str, object]:
    """A pull into a folder of which a disk lost a bit."""
    spec = pull_spec(world, tmp_path, "in place")
    folder = Path(str(spec["template"])) / "out"
    flip(folder / "model-00002-of-00002.safetensors", restore_time=True)
    shutil.copytree(folder, tmp_path / "damaged")
    return {**spec, "target": target, "new": str(world / "pulled" / str(target)), "damaged": str(tmp_path / "damaged")}


@pytest.mark.parametrize("target", [0, 1])
def test_a_repair_may_die(world: Path, tmp_path: Path, target: int) -> None:
    ends = drive(tmp_path, repair_spec(world, tmp_path, target), {"kill": 5, "interrupt": 31, "error": 29})
    assert ends >= 24


@pytest.mark.slow
def test_a_repair_may_die_at_every_step(world: Path, tmp_path: Path) -> None:
    assert drive(tmp_path, repair_spec(world, tmp_path, 1), {"kill": 1, "twice": 11}) >= 120


PULLER = """
import sys
import tensordelta as td
chain = td.open(sys.argv[1], threads=2)
print("ready", flush=True)
while True:
    for version in (0, 1, 2, 3, 4, 5, 2):
        chain.pull(sys.argv[2], version)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_real_process_may_be_killed_at_any_time(world: Path, tmp_path: Path, kills: int) -> None:
    rng = random.Random(kills)
    folder = tmp_path / "out"
    chain = td.open(world / "chain")
    for _ in range(kills):
        python = [sys.executable, "-c", PULLER, str(world / "chain"), str(folder)]
        with subprocess.Popen(python, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        state = td.Checkout(folder).open(chain._reader)
        if state is not None:
            assert td.Checkout(folder).verify(threads=1) == (state.version, [])
            assert contents(folder) == contents(world / "pulled" / str(state.version))
    chain.pull(folder)
    assert contents(folder) == contents(world / "pulled" / "5")


# -- publish -----------------------------------------------------------------------------------------------------------

#: The checkpoints published before, the one published, the arguments, and the one published later.
PUBLISHES: dict[str, tuple[list[int], int, dict[str, object], int]] = {
    "first": ([], 0, {}, 1),
    "delta": ([0], 1, {}, 2),
    "every word": ([2], 3, {}, 1),
    "other layout": ([3], 4, {}, 5),
    "full": ([0], 1, {"full": True}, 2),
    "plain": ([0], 4, {"plain": True}, 5),
    "first plain": ([], 0, {"plain": True}, 1),
    "damaged snapshot": ([0], 1, {}, 2),
}


def publish_spec(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> dict[str, object]:
    before, target, more, following = PUBLISHES[name]
    template = tmp_path / "template"
    template.mkdir()
    monkeypatch.setenv("TENSORDELTA_CACHE", str(template / "cache"))
    if before:
        chain = td.open(template / "chain", create=True)
        for each in before:
            chain.publish(world / "checkpoints" / str(each), layout_change=True)
        if name == "damaged snapshot":
            flip(next(template.glob("cache/*/model-00002-of-00002.safetensors")))
    return {
        "kind": "publish",
        "template": str(template),
        "states": {version: str(world / "checkpoints" / str(each)) for version, each in enumerate([*before, target])},
        "more": more,
        "next": str(world / "checkpoints" / str(following)),
    }


@pytest.mark.parametrize("name", ["first", "delta", "other layout", "plain"])
def test_a_publish_may_die(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert drive(tmp_path, publish_spec(world, tmp_path, monkeypatch, name), {"kill": 19, "power": 37}) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHES)
def test_a_publish_may_die_at_every_step(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ways = {"kill": 1, "interrupt": 7, "error": 7, "power": 11}
    assert drive(tmp_path, publish_spec(world, tmp_path, monkeypatch, name), ways, disk=name == "delta") >= 200


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delta", "other layout"])
def test_the_publish_after_it_may_die(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert drive(tmp_path, publish_spec(world, tmp_path, monkeypatch, name), {"twice": 53}) >= 200
