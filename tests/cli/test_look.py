"""What the command line lists, how it helps, and what shells complete of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import tensordelta as td
from tensordelta.cli import main
from tensordelta.cli.examples import EXAMPLES


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chain of three versions with pins and a shortcut, whose last version has one tensor more."""
    monkeypatch.chdir(tmp_path)
    chain = td.open("run", create=True, threads=1)
    for step in range(3):
        state = {f"layers.{index}.weight": np.full((4, 8), step, np.float32) for index in range(12)}
        if step == 2:
            state["embed"] = np.zeros(5, np.float16)
        chain.publish(state, layout_change=True)
    chain.pin(1, "best")
    chain.pin(1, "evaluation", 3600)
    chain.shortcut(0, 2)
    chain.shortcut(None, 2, tag="x")
    return tmp_path


def said(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and done.stderr == "", done.output
    return done.stdout


def test_ls_lists_the_tensors_of_a_version(place: Path) -> None:
    title, headings, *rows = said("ls", "run@0").splitlines()
    assert title == "version 0 of run: 12 tensors, 1.54 kB" and headings.split() == ["tensor", "dtype", "shape", "size"]
    assert [row.split()[0] for row in rows] == [f"layers.{index}.weight" for index in range(12)], "as people count"
    assert rows[0].split()[1:] == ["F32", "[4,", "8]", "128", "B"]
    assert "13 tensors" in said("ls", "run") and "12 tensors" in said("ls", "run@-2")
    found = json.loads(said("ls", "run@newest", "embed", "--json"))
    assert found == {
        "version": 2,
        "tensors": [{"name": "embed", "dtype": "F16", "shape": [5], "words": 5, "bytes": 10}],
        "words": 5,
        "bytes": 10,
    }


def test_ls_selects_by_pattern(place: Path) -> None:
    def names(*patterns: str) -> list[str]:
        return [each["name"] for each in json.loads(said("ls", "run", *patterns, "--json"))["tensors"]]

    assert names("layers.1.*") == ["layers.1.weight"]
    assert names("layers.1") == ["layers.1.weight", "layers.10.weight", "layers.11.weight"]
    assert names("emb", "layers.[23].*") == ["embed", "layers.2.weight", "layers.3.weight"]
    assert names("nothing") == []
    assert said("ls", "run", "embed").splitlines()[0] == "version 2 of run: 1 tensor of 13, 10 B"


def test_ls_of_a_checkpoint_and_of_a_pulled_folder(place: Path) -> None:
    save_file({"w": np.ones(3, np.float32)}, "w.safetensors")
    assert said("ls", "w.safetensors").splitlines()[0] == "w.safetensors: 1 tensor, 12 B"
    assert json.loads(said("ls", "w.safetensors", "--json"))["version"] is None
    td.open("run").pull("out")
    assert "13 tensors" in said("ls", "out")


def test_log_lists_pins_shortcuts_and_layouts(place: Path) -> None:
    title, headings, *rows = said("log", "run", "--pins", "--shortcuts", "--layout").splitlines()
    assert "3 versions" in title and re.search(r"pins +shortcuts +tensors", headings)
    assert "best, evaluation" in rows[1] and "best" not in rows[0] + rows[2]
    assert "from nothing (x), from 0" in rows[2] and rows[2].endswith("13 (1.55 kB)")
    assert rows[0].endswith("12 (1.54 kB)")
    found = json.loads(said("log", "run", "--pins", "--shortcuts", "--layout", "--json"))
    assert [row["pins"] for row in found] == [[], ["best", "evaluation"], []]
    assert [row["tensors"] for row in found] == [12, 12, 13] and found[2]["bytes"] == 12 * 128 + 10
    assert [each["from"] for each in found[2]["shortcuts"]] == [None, 0] and found[0]["shortcuts"] == []
    assert all((place / "run" / each["object"]).is_file() for each in found[2]["shortcuts"])
    assert not {"pins", "shortcuts", "tensors"} & json.loads(said("log", "run", "--json"))[0].keys()
    assert [(each.version, each.base, each.tag) for each in td.open("run").shortcuts()] == [
        (2, None, "x"),
        (2, 0, None),
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_and_installs_it(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    script = said("completion", shell)
    assert "_TENSORDELTA_COMPLETE" in script and "tensordelta" in script
    shown = said("completion", shell, "--install")
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert path.read_text() == script and str(path) in shown
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(path)], check=True)


def test_a_shell_is_answered(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TENSORDELTA_COMPLETE": "bash_complete"}
        done = subprocess.run(
            [sys.executable, "-m", "tensordelta"],
            cwd=tmp_path,
            env=os.environ | asked,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert completed("tensordelta pu") == ["plain,publish", "plain,pull"]
    assert "plain,--shortcuts" in completed("tensordelta log run --")
    assert completed("tensordelta log r") == ["dir,r"], "the shell completes folders"
    assert completed("tensordelta completion z") == ["plain,zsh"]


def test_help_has_groups_and_says_what_stands_for_what() -> None:
    text = said("--help")
    for heading in (
        "Begin:",
        "Publish:",
        "Look:",
        "Read:",
        "Engines:",
        "Bridges:",
        "Keep:",
        "Sign:",
        "Exit codes:",
        "Environment:",
    ):
        assert re.search(rf"^ *{heading}$", text, re.MULTILINE), heading
    assert "hf://ORG/MODEL[@REVISION]" in text and "..." not in text.partition("Begin:")[2]
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in main.commands)


@pytest.mark.parametrize("name", list(main.commands))
def test_each_command_has_examples_that_are_right(name: str, tmp_path: Path) -> None:
    """Each is parsed as a shell and this command line parse it; what needs nothing but this machine is run."""
    examples = EXAMPLES[name].splitlines()
    shown = said(name, "--help")
    assert examples and all(f"    {example}" in shown for example in examples)
    for example in examples:
        words = shlex.split(example.replace('eval "$(', "").replace(')"', ""))
        assert words[0] == "tensordelta" and words[1] == name
        command = main.commands[name]
        parsed = [word for word in words[2:] if word != "run.key"]
        if "run.key" not in words:
            command.make_context(name, parsed)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for step in range(2):
        save_file(
            {"layers.0.weight": np.arange(4000, dtype=np.float32) + (np.arange(4000) < step)},
            f"step_{step}.safetensors",
        )
    for name in (
        "publish",
        "shortcut",
        "log",
        "ls",
        "show",
        "diff",
        "plan",
        "pull",
        "verify",
        "pin",
        "gc",
        "unpin",
        "copy",
    ):
        for example in EXAMPLES[name].splitlines():
            if not re.search(r"://|--follow|--watch", example):
                said(*shlex.split(example)[1:])
    said("keygen", "run.key")
    td.open("signed", create=True).publish({"w": np.arange(3)})
    said("sign", "signed", "--key", "run.key")
