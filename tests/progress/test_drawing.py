"""How progress looks: on a terminal by rich, in a notebook by tqdm; nowhere else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tensordelta as td
from tensordelta.cli.terminal import counted, duration_text
from tensordelta.progress import Bar, phase, phases

#: Has the work take so long that it is shown: 10 MB a second.
SLOW = """
import sys, time
from tensordelta.progress import phases
phases.PATIENCE, phases.PERIOD = 0.0, 0.05
real = phases.Phase.add
def add(self, count):
    real(self, count)
    time.sleep(count * 1e-7)
phases.Phase.add = add
"""
COMMAND = f"{SLOW}\nfrom tensordelta.cli import main\nmain(sys.argv[1:], prog_name='tensordelta')"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    td.State.from_arrays({f"w.{index}": rng.standard_normal(3 << 20, np.float32) for index in range(3)}).save(
        tmp_path / "0.safetensors"
    )
    return tmp_path


def in_terminal(place: Path, *arguments: str, columns: int = 120) -> str:
    leader, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=place,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm", "COLUMNS": str(columns), "TENSORDELTA_THREADS": "1"},
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
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_terminal_shows_bytes_share_rate_and_the_time_left(place: Path) -> None:
    shown = in_terminal(place, "publish", "run", "0.safetensors")
    assert re.search(r"writing version 0 ━.* \d+% [\d.]+ MB of 37\.7 MB, [\d.]+ MB/s, \d+:\d\d left", shown), shown
    assert "fetched" not in shown and shown.count("published version 0") == 1
    shown = in_terminal(place, "pull", "run", "out", columns=80)
    assert re.search(r"reading version 0 ━.* \d+% [\d.]+ MB, [\d.]+ MB/s, \d+:\d\d left", shown), shown
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= 80
    assert "checking packs" in in_terminal(place, "verify", "run")
    assert re.search(r"copying ━.* MB of ", in_terminal(place, "copy", "run", "copied"))


def test_a_pipe_and_json_show_nothing(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "publish", "run", "0.safetensors"],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "" and "writing version" not in done.stdout
    assert in_terminal(place, "verify", "run", "--json").splitlines()[0] == "{"


def test_what_is_counted_is_said_in_a_few_words() -> None:
    def task(unit: str, done: float, total: float | None, speed: float | None = None) -> Any:
        left = None if total is None or speed is None else (total - done) / speed
        made = {"completed": done, "total": total, "speed": speed, "time_remaining": left, "elapsed": 65.0}
        return SimpleNamespace(fields={"counted": unit}, **made)

    assert counted(task("bytes", 2e6, 8e6, 1e6), wide=True) == "2.00 MB of 8.00 MB, 1.00 MB/s, 0:06 left"
    assert counted(task("bytes", 2e6, 8e6, 1e6), wide=False) == "2.00 MB, 1.00 MB/s, 0:06 left"
    assert counted(task("bytes", 2e6, None), wide=True) == "2.00 MB, 1:05"
    assert counted(task("objects", 3, 12), wide=True) == "3 of 12 objects, 1:05"
    assert counted(task("steps", 3, None), wide=True) == "1:05"
    assert [duration_text(seconds) for seconds in (0.4, 61, 3600, 36_061)] == ["0:00", "1:01", "1:00:00", "10:01:01"]


NOTEBOOK = f"""{SLOW}
import types
import numpy as np
notebook = types.ModuleType("IPython")
notebook.get_ipython = lambda: types.SimpleNamespace(kernel=object(), config={{}})
sys.modules["IPython"] = notebook
import tensordelta as td
td.open("run", create=True).publish({{"w": np.arange(1 << 20, dtype=np.float32)}})
"""


def _notebook(place: Path, **variables: str) -> str:
    python = [sys.executable, "-W", "ignore", "-c", NOTEBOOK]
    done = subprocess.run(python, cwd=place, capture_output=True, text=True, check=True, env=os.environ | variables)
    assert done.stdout == ""
    return done.stderr


def test_a_notebook_shows_it_by_itself(tmp_path: Path) -> None:
    shown = _notebook(tmp_path)
    assert re.search(r"writing version 0: +\d+%\|.*\| [\d.]+M?/4\.19M \[", shown), shown
    assert "own copy: reading version 0" in shown


def test_a_notebook_can_be_kept_quiet(tmp_path: Path) -> None:
    assert _notebook(tmp_path, TQDM_DISABLE="1") == ""


def test_a_script_shows_it_where_it_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(phases, "PATIENCE", 0.0)
    monkeypatch.setattr(phases, "PERIOD", 0.01)
    with Bar() as bar, phase("working", 1000) as work:
        work.add(500)
        while bar._shown is not work:
            pass
    assert "working" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        Bar()
