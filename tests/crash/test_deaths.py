"""Whatever instant a process dies at, the next one finds the old version or the new one, and goes on.

The deaths are those of the driver, a process of its own for each test: it forks a child for every step at which one may
die, and compares what is left, byte by byte, with what is made by processes that never died.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import contents

import tensordelta as td

from .cases import CASES, PUBLISHES, PULLS, REPAIRS
from .harm import ends

# -- pull --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PULLS)
def test_a_pull_may_die(world: Path, tmp_path: Path, name: str) -> None:
    assert ends(PULLS[name], world, tmp_path, {"kill": 5}) >= PULLS[name].steps / 5


@pytest.mark.slow
@pytest.mark.parametrize("name", PULLS)
def test_a_pull_may_die_at_every_step(world: Path, tmp_path: Path, name: str) -> None:
    disk = name in ("in place", "other layout")
    assert ends(PULLS[name], world, tmp_path, {"kill": 1}, disk=disk) >= PULLS[name].steps


@pytest.mark.parametrize(("name", "stride"), [("in place", 9), ("other layout", 47)])
def test_its_recovery_may_die_and_disks_may_fail(world: Path, tmp_path: Path, name: str, stride: int) -> None:
    ways = dict.fromkeys(("twice", "interrupt", "error", "power", "power_twice"), stride)
    assert ends(PULLS[name], world, tmp_path, ways) >= 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stride"), [("in place", 2), ("every word", 5), ("other layout", 7), ("rollback", 11)]
)
def test_its_recovery_may_die_at_every_step(world: Path, tmp_path: Path, name: str, stride: int) -> None:
    assert ends(PULLS[name], world, tmp_path, {"twice": stride, "power_twice": 2 * stride}) >= 200


@pytest.mark.slow
@pytest.mark.parametrize("name", PULLS)
def test_a_pull_may_be_interrupted_and_disks_may_fail(world: Path, tmp_path: Path, name: str) -> None:
    ends(PULLS[name], world, tmp_path, {"interrupt": 2, "error": 3})


@pytest.mark.slow
@pytest.mark.parametrize("name", PULLS)
def test_power_may_be_lost_during_a_pull(world: Path, tmp_path: Path, name: str) -> None:
    assert ends(PULLS[name], world, tmp_path, {"power": 2}) >= PULLS[name].steps * 5 / 2


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_may_die(world: Path, tmp_path: Path, name: str) -> None:
    assert ends(REPAIRS[name], world, tmp_path, {"kill": 5, "interrupt": 31, "error": 29}) >= 24


@pytest.mark.slow
def test_a_repair_may_die_at_every_step(world: Path, tmp_path: Path) -> None:
    assert ends(REPAIRS["to the next version"], world, tmp_path, {"kill": 1, "twice": 11}) >= 120


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


@pytest.mark.parametrize("name", ["first", "delta", "other layout", "plain"])
def test_a_publish_may_die(world: Path, tmp_path: Path, name: str) -> None:
    assert ends(PUBLISHES[name], world, tmp_path, {"kill": 19, "power": 37}) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHES)
def test_a_publish_may_die_at_more_steps(world: Path, tmp_path: Path, name: str) -> None:
    ways = {"kill": 3, "interrupt": 23, "error": 17, "power": 31}
    assert ends(PUBLISHES[name], world, tmp_path, ways, disk=name == "delta") >= PUBLISHES[name].steps / 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delta", "other layout"])
def test_the_publish_after_it_may_die(world: Path, tmp_path: Path, name: str) -> None:
    assert ends(PUBLISHES[name], world, tmp_path, {"twice": 53}) >= 200


# -- other commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name", "stride"),
    [
        ("publish in the background", "a run", 31),
        ("publish in the background", "shortcuts and collections", 149),
        ("shortcut", "by difference", 59),
        ("shortcut", "in a folder that is kept", 41),
        ("gc", "old versions", 11),
        ("gc", "nothing but garbage", 5),
        ("copy", "whole", 41),
        ("copy", "the rest", 31),
        ("save", "over another", 1),
    ],
)
def test_other_commands_may_die(world: Path, tmp_path: Path, command: str, name: str, stride: int) -> None:
    case = CASES[command][name]
    assert ends(case, world, tmp_path, {"kill": stride}) >= case.steps / stride


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"), [(each, name) for each in ("shortcut", "gc", "copy") for name in CASES[each]]
)
def test_other_commands_may_die_at_more_steps(world: Path, tmp_path: Path, command: str, name: str) -> None:
    ways = {"kill": 29, "interrupt": 97, "error": 61, "power": 113, "twice": 997}
    assert ends(CASES[command][name], world, tmp_path, ways) >= CASES[command][name].steps / 29


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES["publish in the background"])
def test_a_publisher_in_the_background_may_die_at_more_steps(world: Path, tmp_path: Path, name: str) -> None:
    case = CASES["publish in the background"][name]
    assert ends(case, world, tmp_path, {"kill": 61, "error": 211}) >= case.steps / 61
