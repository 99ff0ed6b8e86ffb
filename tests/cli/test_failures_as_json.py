"""Commands that fail, as scripts see it: with --json one object whatever fails; and streams that are closed or full."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tensordelta as td
from tensordelta.cli import main

PACKAGE = str(Path(td.__file__).parents[1])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chain of three versions, a folder that holds the newest, and two checkpoints."""
    monkeypatch.chdir(tmp_path)
    chain = td.open("chain", create=True, threads=1)
    for step in range(3):
        state = td.State.from_arrays({"w": np.arange(2000, dtype=np.float32) + (np.arange(2000) < step)})
        state.save(f"{step}.safetensors")
        chain.publish(state)
    chain.pull("out")
    return tmp_path


def failure(*arguments: object) -> dict[str, object]:
    """The one object that a failing command prints."""
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.exit_code, done.output
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout.splitlines()[-1] if "--follow" in arguments else done.stdout)
    assert found["ok"] is False and found["faults"], done.stdout
    for fault in found["faults"]:
        assert list(fault) == ["error", "object", "rule", "message"] and fault["message"]
    return found


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("log nowhere", "missing"),
        ("show chain 7", "missing"),
        ("show chain seven", "usage"),
        ("verify nowhere", "missing"),
        ("verify", "usage"),
        ("verify chain --no-such-option", "usage"),
        ("no-such-command", "usage"),
        ("--no-such-option", "usage"),
        ("demo", "usage"),
        ("pull chain 0.safetensors", "usage"),
        ("pull chain chain", "conflict"),
        ("pull chain 0.safetensors/out", "machine"),
        ("pull chain out --follow --timeout 0 --poll 0.01", "machine"),
        ("pull nowhere out --follow", "missing"),
        ("pull chain out --exec true", "usage"),
        ("pull chain out --chain-id 00000000-0000-4000-8000-000000000000", "conflict"),
        ("vllm-follow nowhere --server http://127.0.0.1:9", "missing"),
        ("vllm-follow chain --server nonsense", "usage"),
        ("vllm-follow chain --server http://127.0.0.1:9 --engine-options []", "usage"),
        ("vllm-follow chain --server http://127.0.0.1:9 --timeout 0 --poll 0.01", "server"),
        ("sglang-follow chain --server http://127.0.0.1:9 --chain-id 00000000-0000-4000-8000-000000000000", "conflict"),
        ("publish chain nowhere.safetensors", "missing"),
        ("publish nobody://chain 0.safetensors", "usage"),
        ("publish 0.safetensors/chain 0.safetensors", "machine"),
        ("publish chain 0.safetensors --key nowhere", "usage"),
        ("diff nowhere 0.safetensors", "missing"),
        ("plan chain --to 9", "missing"),
        ("shortcut chain 2 1", "usage"),
        ("gc chain", "usage"),
        ("pin chain 9 name", "missing"),
        ("unpin chain name", "missing"),
        ("copy nowhere copy", "missing"),
        ("copy chain out", "conflict"),
        ("keygen 0.safetensors", "machine"),
        ("sign chain --key nowhere", "usage"),
        ("log s3://bucket/chain --trusted-key nowhere", "usage"),
    ],
)
def test_whatever_fails_is_one_object(place: Path, command: str, error: str) -> None:
    found = failure(*command.split())
    assert found["error"] == found["faults"][0]["error"] == error


@pytest.mark.parametrize(
    "error", [RuntimeError("a defect"), MemoryError(), RecursionError("too deep"), ValueError("x")]
)
def test_a_defect_is_one_object_as_well(place: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(td.Chain, "log", fail)
    done = CliRunner().invoke(main, ["log", "chain", "--json"])
    assert done.exception is error and json.loads(done.stdout)["ok"] is False
    monkeypatch.setattr(td.Chain, "log", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    done = CliRunner().invoke(main, ["log", "chain", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["error"]) == (130, "interrupted")


def test_a_damaged_chain_is_one_object(place: Path) -> None:
    """Any object may be damaged, chain.json included: what a command prints is JSON, and says whether all is well."""
    objects = sorted(path for path in Path("chain").rglob("*") if path.is_file() and not path.name.startswith("."))
    rng = random.Random(0)
    for number in range(60):
        path = objects[number % len(objects)]
        data = bytearray(path.read_bytes())
        match number // len(objects) % 4:
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                del data[rng.randrange(len(data)) :]
            case 2:
                data = bytearray(rng.randbytes(rng.randrange(200)))
            case _:
                data = bytearray()
        shutil.copytree("chain", "damaged")
        Path("damaged", *path.parts[1:]).write_bytes(data)
        for command in (["verify", "damaged"], ["log", "damaged"], ["pull", "damaged", f"out-{number}"]):
            done = CliRunner().invoke(main, [*command, "--json"])
            assert "Traceback" not in done.stderr and isinstance(done.exception, SystemExit | None)
            found = json.loads(done.stdout)
            if done.exit_code:
                assert found["ok"] is False and found["faults"], path
            else:
                assert command[0] != "verify" or path.name == "latest.json", path
        shutil.rmtree("damaged")
        shutil.rmtree(f"out-{number}", ignore_errors=True)


def test_without_click_it_is_one_object(place: Path) -> None:
    program = "import sys; sys.modules['click'] = None; from tensordelta.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "log", "chain", "--json"],
        env=os.environ | {"PYTHONPATH": PACKAGE},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1 and json.loads(done.stdout)["ok"] is False and "tensordelta[cli]" in done.stderr


# -- streams -----------------------------------------------------------------------------------------------------------


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run `tensordelta` as a shell does, with what follows `|` or `>`."""
    line = command.replace("tensordelta", f"{sys.executable} -m tensordelta")
    environment = os.environ | {"PYTHONPATH": PACKAGE}
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=600)


def test_a_command_that_fails_is_the_last_object(place: Path) -> None:
    done = shell("tensordelta pull chain new --follow --to 2 --exec 'echo said; exit 3' --json")
    pulled, failed = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, pulled["version"]) == (1, 2)
    assert (failed["ok"], failed["error"], failed["object"]) == (False, "command", "echo said; exit 3")
    assert failed["message"] == "the command for version 2 ended with exit code 3"
    assert failed["faults"] == [{name: failed[name] for name in ("error", "object", "rule", "message")}]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("log chain", 0),
        ("show chain --json", 0),
        ("publish chain 1.safetensors", 0),
        ("pull chain new", 0),
        ("pull chain new --follow --to 2 --exec 'echo done'", 0),
        ("pull chain new --follow --to 2 --exec 'echo done' --json", 0),
        ("verify chain --deep", 0),
        ("log nowhere", 1),
        ("log nowhere --json", 1),
        ("log", 2),
    ],
)
def test_closed_streams(place: Path, closed: str, command: str, code: int) -> None:
    done = shell(f"tensordelta {command} {closed}")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    if ">&-" not in closed.replace("2>&-", "") and not code:
        assert done.stdout
    assert td.open("chain").verify().ok, "nothing was printed into a file of the chain"
    if "new" in command:
        assert td.read_state("new").equals(td.open("chain").load())


@pytest.mark.parametrize(
    ("command", "code"),
    [("log chain > /dev/full", 1), ("log nowhere --json > /dev/full", 1), ("log nowhere 2> /dev/full", 1)],
)
def test_full_streams(place: Path, command: str, code: int) -> None:
    done = shell(f"tensordelta {command}")
    assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_nobody_reads_what_failed(place: Path) -> None:
    done = shell("(sleep 0.2; tensordelta log nowhere --json; echo $? >&2) | true")
    assert done.stderr.splitlines()[-1] in ("1", "141") and "Exception" not in done.stderr
