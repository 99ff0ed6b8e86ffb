"""Ctrl-C: one sentence, the exit code 130, and a state that goes on when the command is called again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import tensordelta as td

#: Runs a command, and interrupts it at a call of the system that reads, writes or renames: the number of it is given.
SCRIPT = """
import os, signal, sys
from tensordelta.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have been started without it
left = int(sys.argv[1])
def interrupting(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **options)
    setattr(os, name, call)
for name in ("fsync", "preadv", "pread", "replace", "link", "unlink", "open", "scandir"):
    interrupting(name)
main(sys.argv[2:], prog_name="tensordelta")
"""
WORDS = 60_000


def run(number: int, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(number), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def state(step: int) -> td.State:
    return td.State.from_arrays({"w": np.arange(WORDS, dtype=np.float32) + (np.arange(WORDS) < 10 * step)})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints more than a chain has, a folder that holds its first version, and a chain to collect."""
    root = tmp_path_factory.mktemp("made")
    chain = td.open(root / "run", create=True, threads=1)
    for step in range(5):
        state(step).save(root / f"{step}.safetensors")
        if step < 3:
            chain.publish(root / f"{step}.safetensors", full=step == 2)
    chain.pull(root / "out", 0)
    return root


def is_published(folder: Path) -> bool:
    chain = td.open(folder / "run")
    return chain.verify(deep=True).ok and chain.load() == state(3)


def is_pulled(folder: Path) -> bool:
    return td.read_state(folder / "out") == state(2) and td.Checkout(folder / "out").verify(threads=1)[1] == []


def is_collected(folder: Path) -> bool:
    chain = td.open(folder / "run")
    return chain.versions() == [2] and chain.verify(deep=True).ok and len(list((folder / "run/packs").iterdir())) == 1


def is_copied(folder: Path) -> bool:
    chain = td.open(folder / "copied")
    return chain.versions() == [0, 1, 2] and chain.verify(deep=True).ok


#: A command, and whether all is done.
COMMANDS: dict[str, tuple[list[str], Callable[[Path], bool]]] = {
    "publish": (["publish", "run", "3.safetensors"], is_published),
    "pull": (["pull", "run", "out"], is_pulled),
    "pull-anew": (["pull", "run", "out", "--scan"], is_pulled),
    "verify": (["verify", "run", "--deep"], lambda folder: True),
    "copy": (["copy", "run", "copied"], is_copied),
    "gc": (["gc", "run", "--keep-last", "1", "--grace", "0"], is_collected),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_interrupted_goes_on(name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At one call of the system after another: until the command is done before it."""
    arguments, is_done = COMMANDS[name]
    interrupted = 0
    for number in (2, 5, 9, 14, 20, 27, 35, 44, 60, 90, 150, 300):
        folder = tmp_path / str(number)
        shutil.copytree(made, folder)
        monkeypatch.setenv("TENSORDELTA_CACHE", str(folder / "cache"))
        if name == "pull-anew":
            shutil.rmtree(folder / "out")
        done = run(number, arguments, folder)
        if done.returncode == 0:
            break
        assert (done.returncode, done.stdout) == (130, ""), done.stderr
        assert re.fullmatch(r"interrupted; [a-z][^\n]+\n", done.stderr), done.stderr
        interrupted += 1
        # A version whose manifest was created is there: the same command would publish one more.
        if not (name == "publish" and len(td.open(folder / "run").versions()) == 4):
            again = run(0, arguments, folder)
            assert again.returncode == 0, again.stderr
        assert is_done(folder), number
        shutil.rmtree(folder)
    assert interrupted >= 4


def test_an_interrupt_with_json_is_an_object(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "made")
    done = run(3, ["verify", "run", "--json"], tmp_path / "made")
    assert done.returncode == 130
    assert '"error": "interrupted"' in done.stdout and done.stdout.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals")
def test_an_interrupt_takes_the_progress_away(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "made")
    script = SCRIPT.replace(
        "left = int(", "from tensordelta.progress import phases; phases.PATIENCE = 0.0\nleft = int("
    )
    # It works for a second before it is interrupted, so that there is progress to take away.
    script = script.replace("os.kill(", "import time; time.sleep(1); os.kill(")
    leader, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", script, "9", "verify", "run"],
        cwd=tmp_path / "made",
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(leader)
    assert process.returncode == 130
    text = shown.decode()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()
    assert any("checking" in line for line in lines) and lines[-1].startswith("interrupted; ")
    assert "\x1b[?25h" in text.rpartition("checking")[2], "the cursor is shown again"
