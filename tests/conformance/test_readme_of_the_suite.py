"""conformance/README.md, ADAPTER.md and CASES.md: their commands and snippets do what the text says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tensordelta_conformance import LEVELS, Suite
from tensordelta_conformance.cli import main
from tensordelta_conformance.folder import write_files
from tensordelta_conformance.state import read_state

ROOT = Path(__file__).parent.parent.parent
CONFORMANCE = ROOT / "conformance"
README = (CONFORMANCE / "README.md").read_text(encoding="utf-8")
ADAPTER = (CONFORMANCE / "ADAPTER.md").read_text(encoding="utf-8")
EXAMPLE = "python conformance/examples/reader.py"
FEW = "standard*"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def commands() -> list[str]:
    """The commands of README.md, but those that install and the example."""
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    return [line for line in lines if not line.startswith("pip ") and line != EXAMPLE]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a shell has once the suite and the reference are installed: their commands, and an adapter of one's own."""
    own = f'exec python "{CONFORMANCE}/adapters/reference.py"'
    programs = {
        "python": f'exec "{sys.executable}"',
        "tensordelta-conformance": "exec python -m tensordelta_conformance",
        "my-engine-adapter": own,
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f'#!/bin/sh\n{text} "$@"\n')
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    python_path = os.pathsep.join([str(CONFORMANCE), str(ROOT / "reference")])
    return {**os.environ, "PATH": path, "PYTHONPATH": python_path}


def shell(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the repository, and takes what the commands write."""
    place = tmp_path / "repository"
    place.mkdir()
    for name in ("conformance", "pyproject.toml"):
        (place / name).symlink_to(ROOT / name)
    return place


@pytest.mark.parametrize("command", commands())
def test_a_command(command: str, folder: Path, environment: dict[str, str]) -> None:
    if " node " in command.replace('"', " ") and shutil.which("node") is None:
        pytest.skip("there is no Node here")
    shown = command if " run " not in command or "--only" in command else f"{command} --only '{FEW}'"
    out = shell(shown.replace("gap-*", FEW), folder, environment)
    assert out
    if " run " in command:
        told = " ".join(out.split())
        assert re.search(r": (\d+) of \1 chosen checks pass; a part of the suite claims no level$", told), out
    assert (folder / "out").is_dir() == ("out" in command.split())
    if "--report" in command:
        assert {path.name for path in (folder / "out").iterdir()} == {"report.html", "junit.xml", "report.json"}


def test_nothing_is_left_out() -> None:
    assert len(commands()) >= 7
    assert EXAMPLE in README
    inline = re.findall(r"`python (conformance/\S+)`", README)
    assert inline and all((ROOT / path).exists() for path in inline)


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A few cases in place of all."""
    for case in Suite.find().select(only=[f"chains/*/{FEW}"]):
        write_files(case.files, tmp_path / "vectors" / case.path)
    suite = Suite(tmp_path / "vectors")
    monkeypatch.setattr(Suite, "find", lambda root=None: suite)
    return suite


def test_the_reader_in_python(
    few: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(blocks(README, "python")[0], {})
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("my-engine 0.3 does not conform to tensordelta 1.0-rc.1: reader-core (")
    assert "standard " in told[1] and told[1].endswith("rejected as malformed")
    assert json.loads(Path("out/report.json").read_text())["adapter"]["name"] == "my-engine"


ENGINE = """
import sys
sys.path.insert(0, {examples!r})
from reader import read as my_read
"""


@pytest.mark.slow
def test_the_plugin(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "my_engine.py").write_text(ENGINE.format(examples=str(CONFORMANCE / "examples")))
    (tmp_path / "test_mine.py").write_text(blocks(README, "python")[1])
    command = "python -m pytest -q -p no:cacheprovider -p tensordelta_conformance.pytest_plugin -c /dev/null "
    out = shell(f"{command} --rootdir . -k 'standard-zstd or unknown-fields' test_mine.py", tmp_path, environment)
    assert re.search(r"3 passed, 2 skipped", out), out


@pytest.mark.slow
def test_from_nothing_to_a_verdict(tmp_path: Path) -> None:
    """The first two commands, in an environment of their own."""
    assert blocks(README, "sh")[0].splitlines() == ["pip install ./conformance", EXAMPLE]
    venv.create(tmp_path / "venv", with_pip=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["PATH"] = f"{tmp_path}/venv/bin{os.pathsep}{clean['PATH']}"
    shell("pip install --quiet ./conformance", ROOT, clean)
    verdict = re.search(r"<!-- verdict -->\n```\n(.*?)```", README, re.S)
    assert verdict is not None
    assert without_numbers(shell(EXAMPLE, ROOT, clean)) == without_numbers(verdict[1])


def without_numbers(text: str) -> str:
    return re.sub(r"\b\d+\b(?!\.)", "N", text)


# -- what the text lists -----------------------------------------------------------------------------------------------


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    offered = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.M))
    told = set(re.findall(r"^\| `(--[a-z-]+)", README, re.M))
    assert offered == told


def test_levels_and_numbers() -> None:
    assert ", ".join(f"`{level}`" for level in LEVELS) in README
    told = re.search(r"some ([\d,]+) cases on disk", README)
    assert told is not None
    assert abs(int(told[1].replace(",", "")) - len(Suite.find().cases)) <= 100


def test_the_case_of_the_text() -> None:
    text = (CONFORMANCE / "CASES.md").read_text(encoding="utf-8")
    shown = json.loads("".join(re.findall(r"^    (.*\n)", text[: text.index("## Steps")], re.M)))
    assert shown == json.loads(Suite.find().cases[shown["id"]].files["case.json"])


def test_the_document_of_the_text() -> None:
    text = (CONFORMANCE / "CASES.md").read_text(encoding="utf-8")
    (shown,) = blocks(text, "")
    first = json.loads((CONFORMANCE / "vectors" / "positions" / "invalid.json").read_bytes())["cases"][0]
    for value in (first["case"]["id"], first["case"]["title"], first["like"]):
        assert f'": "{value}"' in shown
    assert '"expected.safetensors": null' in shown and first["files"]["expected.safetensors"] is None


# -- the skeletons of ADAPTER.md ---------------------------------------------------------------------------------------

READER = '''
from pathlib import Path

class Rejection(Exception):
    @property
    def name(self):
        return self.args[0]

class Reader:
    """Finds the state of a case beside its chain."""
    held = None
    def take_state(self, path, version):
        self.held = Path(path).read_bytes()
    def drop_state(self):
        self.held = None
    def holds(self):
        return self.held is not None
    def save_state(self, path):
        Path(path).write_bytes(self.held)
    def read(self, chain, to):
        expected = Path(chain).parent / "expected.safetensors"
        if not expected.exists():
            raise Rejection("malformed", "there is no such state")
        self.held = expected.read_bytes()
        return to
'''


@pytest.fixture
def skeleton(tmp_path: Path) -> str:
    """The command of the skeleton in Python, around a reader."""
    (tmp_path / "my_engine.py").write_text(READER)
    (tmp_path / "adapter.py").write_text(blocks(ADAPTER, "python")[0])
    return f"{sys.executable} {tmp_path}/adapter.py"


def test_the_skeleton_in_python(skeleton: str, environment: dict[str, str], tmp_path: Path) -> None:
    cases = "gap-of-* gaps-end-with-255 gaps-all-255"
    command = f"tensordelta-conformance run --adapter '{skeleton}' --only {cases}"
    told = " ".join(shell(command, tmp_path, environment).split())
    assert re.search(r"mine 0: (\d+) of \1 chosen checks pass", told)


def test_one_request_by_hand(skeleton: str, environment: dict[str, str], tmp_path: Path) -> None:
    told = re.search(r"^    (\{\"id\": 1, \"op\": \"read\".*)$", ADAPTER, re.M)
    unpack = re.search(r"`(tensordelta-conformance show .*? --unpack) /tmp`", ADAPTER)
    assert told is not None and unpack is not None
    shell(f"{unpack[1]} {tmp_path}", tmp_path, environment)
    request = told[1].replace("/tmp/", f"{tmp_path}/")
    answer = shell(f"{skeleton} <<'END'\n{request}\nEND", tmp_path, environment)
    assert json.loads(answer) == {"id": 1, "ok": True, "version": 1}
    held = read_state(tmp_path / "out.safetensors")
    assert held == read_state(tmp_path / "gap-of-255" / "expected.safetensors")
