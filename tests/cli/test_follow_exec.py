"""`pull --follow --exec`: what the command gets, and what happens when it fails, hangs or is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wrapped import same, weights

import tensordelta as td


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    chain.publish(weights(0))
    return chain


#: Runs the command line with a grace in seconds, so that a busy machine need not use it up, and with interrupts, which
#: a background job may have been started without.
_COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import tensordelta.__main__ as command
from tensordelta.cli import hook
hook._GRACE = float(sys.argv.pop(1))
command.main()
"""


def follow(folder: Path, command: str, *more: object, patient: bool = False) -> subprocess.Popen[str]:
    """`pull chain engine --follow --exec command`, in a folder."""
    package = str(Path(td.__file__).parents[1])
    arguments = ["chain", "engine", "--follow", "--poll", "0.02", "--exec", command, *map(str, more)]
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, str(600.0 if patient else 5.0), "pull", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": package, "TENSORDELTA_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_what_the_command_gets(chain: td.Chain, tmp_path: Path) -> None:
    """A line of the shell, with the version, and absolute paths; nothing to read."""
    command = (
        'printf "%s|%s|%s\\n" "$TENSORDELTA_VERSION" "$TENSORDELTA_FOLDER" "$TENSORDELTA_CHAIN" | tee "a log"; cat'
    )
    with follow(tmp_path, command, "--to", 0) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    line = f"0|{tmp_path / 'engine'}|{tmp_path / 'chain'}\n"
    assert out.endswith(line)
    assert (tmp_path / "a log").read_text() == line
    assert err == ""


def test_versions_that_come_while_it_runs(chain: td.Chain, tmp_path: Path) -> None:
    """The folder stays as it is until the command ends; then the newest version comes, and none between."""
    command = (
        "echo $TENSORDELTA_VERSION >> began; until test -e go; do sleep 0.02; done; echo $TENSORDELTA_VERSION >> ended"
    )
    with follow(tmp_path, command, "--to", 3) as process:
        wait((tmp_path / "began").exists)
        for step in (1, 2, 3):
            chain.publish(weights(step))
        time.sleep(0.2)  # ten looks, if there were any
        assert same(td.read_state(tmp_path / "engine"), 0)
        assert not (tmp_path / "ended").exists()
        (tmp_path / "go").touch()
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert (tmp_path / "began").read_text() == (tmp_path / "ended").read_text() == "0\n3\n"
    assert same(td.read_state(tmp_path / "engine"), 3)


@pytest.mark.parametrize(
    ("command", "outcome"),
    [("exit 7", "ended with exit code 7"), ("no-such-program", "ended with exit code 127"), ("kill -9 $$", "signal 9")],
)
def test_a_command_that_fails(chain: td.Chain, tmp_path: Path, command: str, outcome: str) -> None:
    """Following goes on; the exit code is of the last run."""
    with follow(tmp_path, f"test $TENSORDELTA_VERSION = 1 || {command}", "--to", 1) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("version 0: ")
        chain.publish(weights(1))
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "the command for version 0 " in err and outcome in err

    with follow(tmp_path, command, "--to", 1) as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "the command for version 1 " in err and outcome in err


#: Starts a process of its own, and waits for ever.
_HANG = "sleep 1000 & echo $! > child.new; mv child.new child; wait"


@pytest.mark.slow
def test_a_command_that_hangs(chain: td.Chain, tmp_path: Path) -> None:
    """It is ended with all that it started, and the next version comes."""
    command = f"test $TENSORDELTA_VERSION = 1 || {{ {_HANG}; }}"
    with follow(tmp_path, command, "--to", 1, "--exec-timeout", 3) as process:
        wait((tmp_path / "child").exists)
        chain.publish(weights(1))
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err == "the command for version 0 was ended after 3 seconds\n"
    assert not runs(int((tmp_path / "child").read_text()))
    assert same(td.read_state(tmp_path / "engine"), 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_runs(chain: td.Chain, tmp_path: Path, number: int) -> None:
    with follow(tmp_path, _HANG) as process:
        wait((tmp_path / "child").exists)
        process.send_signal(number)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert err == "the command for version 0 was ended, since following ends\n"
    assert not runs(int((tmp_path / "child").read_text()))


#: Goes on when it is asked to end.
_DEAF = "trap 'touch heard' TERM; echo $$ > child.new; mv child.new child; while true; do sleep 0.05; done"


def test_a_command_that_does_not_listen(chain: td.Chain, tmp_path: Path) -> None:
    """A second interrupt ends it at once."""
    with follow(tmp_path, _DEAF, patient=True) as process:
        wait((tmp_path / "child").exists)
        process.send_signal(signal.SIGTERM)
        wait((tmp_path / "heard").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert not runs(int((tmp_path / "child").read_text()))


@pytest.mark.slow
def test_a_command_that_does_not_listen_is_killed(chain: td.Chain, tmp_path: Path) -> None:
    with follow(tmp_path, _DEAF, "--exec-timeout", 3, "--to", 0) as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert err.endswith("the command for version 0 was ended after 3 seconds\n")
    assert (tmp_path / "heard").exists()
    assert not runs(int((tmp_path / "child").read_text()))


def test_options_that_go_with_others(chain: td.Chain, tmp_path: Path) -> None:
    package = str(Path(td.__file__).parents[1])
    command = [sys.executable, "-m", "tensordelta", "pull", "chain", "engine", "--follow", "--exec-timeout", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": package}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2
    assert "--exec-timeout goes with --exec" in done.stderr
