"""Folders that follow a chain, the command that keeps one, and many followers at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from following import POLL
from safetensors.numpy import load_file
from wrapped import weights

import tensordelta as td


def held(folder: Path, step: int) -> bool:
    found = load_file(folder / "model.safetensors")
    return all(np.array_equal(found[name], array) for name, array in weights(step).items())


def test_a_folder_is_kept_at_the_newest_version(writer: td.Chain, chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    chain.pull(folder)
    seen = []
    for pulled in chain.follow_folder(folder, poll=POLL, until=3):
        seen.append((pulled.version, bool(pulled.route)))
        assert held(folder, pulled.version)
        if pulled.version < 3:
            writer.publish(weights(pulled.version + 1))
    assert seen == [(1, False), (2, True), (3, True)]


def command(*arguments: object, **more: object) -> subprocess.Popen[str]:
    package = str(Path(td.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "tensordelta", "pull", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": package, "TENSORDELTA_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_follows_until_it_is_told_to_end(writer: td.Chain, tmp_path: Path, number: int) -> None:
    folder, log = tmp_path / "engine", tmp_path / "log"
    hook = f"echo $TENSORDELTA_VERSION $TENSORDELTA_FOLDER >> {log}; test $TENSORDELTA_VERSION != 1"
    with command(writer.address, folder, "--follow", "--poll", "0.02", "--exec", hook) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("version 1: ")
        writer.publish(weights(2))
        assert process.stdout.readline().startswith("version 2: ")
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out == ""
    assert err == "the command for version 1 ended with exit code 1\n"
    assert held(folder, 2)
    assert log.read_text() == f"1 {folder}\n2 {folder}\n"


def test_the_command_ends_at_a_version_or_when_nothing_comes(writer: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    with command(writer.address, folder, "--follow", "--to", "0", "--json", "--exec", "echo reloaded") as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert json.loads(out)["version"] == 0
    assert held(folder, 0)
    with command(writer.address, folder, "--follow", "--timeout", "0.2", "--poll", "0.05") as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert out.startswith("version 1: ")
    assert "no version after 1 appeared within 0.2 seconds" in err
    with command(writer.address, folder, "--timeout", "5") as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "--follow" in err


# -- many of them ------------------------------------------------------------------------------------------------------

_MEMORY = """
import sys
from pathlib import Path
import tensordelta as td
root, target, until = sys.argv[1:]
chain = td.open(root, threads=1)
state = td.State.empty()
for update in chain.follow(state, poll=0.05, until=int(until)):
    update.apply()
state.save(target)
"""


@pytest.mark.slow
def test_sixteen_followers_of_a_chain_that_is_written_and_collected(tmp_path: Path) -> None:
    """They are killed at random and started again; half of them keep a folder, half hold the state in memory."""
    root, last, rng = tmp_path / "chain", 40, random.Random(4)
    writer = td.open(root, create=True, threads=1)
    writer.publish(weights(0))
    package = str(Path(td.__file__).parents[1])

    def start(number: int) -> subprocess.Popen[bytes]:
        if number % 2:
            arguments = ["-m", "tensordelta", "pull", root, folder(number), "--follow", "--poll", "0.05", "--to", last]
        else:
            arguments = ["-c", _MEMORY, root, tmp_path / f"state-{number}.safetensors", last]
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": package, "TENSORDELTA_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def folder(number: int) -> Path:
        return tmp_path / f"engine-{number}"

    followers = {number: start(number) for number in range(16)}
    kills = 0
    try:
        with writer.publisher(keep=3, grace=0.0, skip=(4,), full_every=4) as publisher:
            for step in range(1, last + 1):
                publisher.submit(weights(step)).result(60)
                time.sleep(0.5)
                number = rng.randrange(16)
                if rng.random() < 0.4 and followers[number].poll() is None:
                    followers[number].kill()
                    followers[number].communicate()
                    followers[number] = start(number)
                    kills += 1
        assert publisher.trouble is None
        assert writer.versions()[0] > 0  # much was collected while they read
        for number, process in followers.items():
            _, err = process.communicate(timeout=240)
            assert process.returncode == 0, (number, err.decode())
    finally:
        for process in followers.values():
            process.kill()
            process.wait()
    assert kills >= 5
    wanted = weights(last)
    for number in range(16):
        path = folder(number) / "model.safetensors" if number % 2 else tmp_path / f"state-{number}.safetensors"
        found = load_file(path)
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in wanted.items()
        }
