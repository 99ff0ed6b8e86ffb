"""The command line, as users and scripts see it: through processes, their output and their exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import tensordelta as td
from tensordelta.cli import main

FACTS = [
    "version",
    "base",
    "size",
    "changed",
    "words",
    "density",
    "ratio",
    "seconds",
    "fingerprint",
    "packs",
    "created",
    "annotations",
    "timings",
    "layout_change",
    "left_out",
]
WORDS = 4096 + 100


def environment() -> dict[str, str]:
    package = str(Path(td.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])}


def tensordelta(*arguments: object, folder: Path, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; no failure that a user can cause shows a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "tensordelta", *map(str, arguments)],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == code, done.stderr
    return done


def facts(*arguments: object, folder: Path, code: int = 0) -> dict | list:
    """What a command prints with --json; it prints nothing else to stdout, and nothing to stderr where all is well."""
    done = tensordelta(*arguments, "--json", folder=folder, code=code)
    assert code or done.stderr == ""
    return json.loads(done.stdout)


def weights(step: int) -> dict[str, np.ndarray]:
    """Each step has 10 more words of `a` that differ from step 0's; `b` stays as it is."""
    a = np.arange(1, 4097, dtype=np.float32).reshape(64, 64)
    a.ravel()[: 10 * step] += np.float32(0.5)
    return {"a": a, "b": np.ones(100, np.float16)}


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """A folder with step_0.safetensors to step_2.safetensors."""
    for step in range(3):
        save_file(weights(step), tmp_path / f"step_{step}.safetensors")
    return tmp_path


@pytest.fixture
def chain(steps: Path) -> Path:
    """The same, with a chain of the three steps."""
    opened = td.open(steps / "chain", create=True)
    for step in range(3):
        opened.publish(steps / f"step_{step}.safetensors", annotations={"step": str(step)})
    return steps


def packs(chain: Path, version: int) -> list[Path]:
    return [chain / "chain" / pack.path for pack in td.open(chain / "chain").manifest(version).packs if pack.path]


def in_terminal(arguments: Sequence[str], folder: Path, columns: int) -> list[str]:
    """The lines that a command shows on a terminal of so many columns, without colours."""
    main_end, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tensordelta", *arguments],
        cwd=folder,
        env=environment() | {"COLUMNS": str(columns), "TERM": "xterm"},
        stdout=terminal,
        stderr=terminal,
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(main_end, 65536)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(main_end)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).splitlines()]


def test_publish_log_and_show_tell_the_same_facts(steps: Path) -> None:
    published = [facts("publish", "chain", "step_0.safetensors", "--step", 0, folder=steps)]
    before = {path for path in (steps / "chain").rglob("*") if path.is_file()}
    published.append(
        facts(
            *("publish", "chain", "step_1.safetensors", "--step", 420, "--annotation", "run=a=b", "--threads", 1),
            folder=steps,
        )
    )
    added = {path for path in (steps / "chain").rglob("*") if path.is_file()} - before

    assert [list(each) for each in published] == [FACTS, FACTS]
    first, second = published
    assert (first["version"], first["base"], first["changed"], first["words"]) == (0, None, WORDS, WORDS)
    assert (second["version"], second["base"], second["changed"], second["words"]) == (1, 0, 10, WORDS)
    assert second["density"] == 10 / WORDS
    assert second["size"] == sum(path.stat().st_size for path in added)
    assert second["ratio"] == (4096 * 4 + 100 * 2) / second["size"]
    assert second["seconds"] >= sum(second["timings"].values()) > 0
    assert second["annotations"] == {"step": "420", "run": "a=b"}
    assert second["packs"] == 1
    assert re.fullmatch(r"[0-9a-f]{16}", second["fingerprint"])

    assert facts("log", "chain", folder=steps) == [each | {"seconds": None, "timings": None} for each in published]

    stored = json.loads((steps / "chain/manifests/000000000001.json").read_text())
    assert (stored["fingerprint"], stored["created"]) == (second["fingerprint"], second["created"])
    shown = facts("show", "chain", 1, folder=steps)
    assert shown == stored | {"tensors": 2, "words": WORDS, "bytes": 4096 * 4 + 100 * 2, "layout_change": None}


def test_pull_brings_a_folder_to_a_version_that_loads(chain: Path) -> None:
    pulled = facts("pull", "chain", "out", "--to", 1, folder=chain)
    assert list(pulled) == ["version", "route", "size", "seconds", "scanned", "repaired", "left_alone", "passed_over"]
    assert pulled["version"] == 1
    assert pulled["route"] == ["manifests/000000000000.json", "manifests/000000000001.json"]
    assert pulled["size"] == sum(path.stat().st_size for version in (0, 1) for path in packs(chain, version))

    shown = tensordelta("pull", "chain", "out", folder=chain).stdout
    assert "pulled version 2 into out" in shown
    loaded, wanted = load_file(chain / "out/model.safetensors"), weights(2)
    assert {name: (each.dtype, each.shape, each.tobytes()) for name, each in loaded.items()} == {
        name: (each.dtype, each.shape, each.tobytes()) for name, each in wanted.items()
    }

    again = facts("pull", "chain", "out", folder=chain)
    assert (again["version"], again["route"], again["size"]) == (2, [], 0)
    assert facts("verify", "out", folder=chain) == {"ok": True, "versions": [2], "faults": [], "left_alone": []}


def test_verify_finds_a_changed_word_in_a_pulled_folder(chain: Path) -> None:
    td.open(chain / "chain").pull(chain / "out")
    shard = chain / "out/model.safetensors"
    status = shard.stat()
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))  # so that nothing but a full scan can tell
    found = facts("verify", "out", folder=chain, code=1)
    assert (found["ok"], found["versions"]) == (False, [2])
    assert [(fault["error"], fault["rule"]) for fault in found["faults"]] == [("wrong-base", "TD-RDR-003")]


def test_pull_leaves_a_folder_alone_that_it_did_not_make(chain: Path) -> None:
    (chain / "mine").mkdir()
    (chain / "mine/notes.txt").write_text("mine")
    done = tensordelta("pull", "chain", "mine", "--json", folder=chain, code=1)
    assert json.loads(done.stdout)["error"] == "conflict"
    assert [path.name for path in (chain / "mine").iterdir()] == ["notes.txt"]


def test_verify_names_what_is_at_fault(chain: Path) -> None:
    assert facts("verify", "chain", "--deep", folder=chain) == {"ok": True, "versions": [0, 1, 2], "faults": []}
    (pack,) = packs(chain, 1)
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)

    found = facts("verify", "chain", folder=chain, code=1)
    assert list(found) == ["ok", "versions", "faults"]
    assert (found["ok"], found["versions"]) == (False, [0, 1, 2])
    (fault,) = found["faults"]
    assert list(fault) == ["error", "object", "rule", "message"]
    assert (fault["error"], fault["object"], fault["rule"]) == ("integrity", f"packs/{pack.name}", "TD-MAN-013")
    assert "TD-MAN-013" in fault["message"]

    shown = tensordelta("verify", "chain", folder=chain, code=1)
    assert "1 fault" in shown.stdout
    for expected in ("integrity", f"packs/{pack.name}", "TD-MAN-013"):
        assert expected in shown.stdout


def test_errors_of_the_data_are_a_sentence_and_an_advice(chain: Path) -> None:
    """The rule of SPEC.md is for implementers, who have --json."""
    whole = (chain / "step_0.safetensors").read_bytes()
    (chain / "short.safetensors").write_bytes(whole[:-1])
    done = tensordelta("publish", "new", "short.safetensors", folder=chain, code=1)
    assert done.stdout == ""
    assert re.fullmatch(r"error: short.safetensors is cut off: [^.]+\. [^.]+\.\n", done.stderr)
    assert "TD-" not in done.stderr
    assert not (chain / "new").exists(), "what cannot be read makes no chain"

    done = tensordelta("show", "chain", 7, "--json", folder=chain, code=1)
    error = json.loads(done.stdout)
    assert list(error) == ["ok", "faults", "error", "object", "rule", "message"]
    assert error["ok"] is False and error["faults"] == [{name: error[name] for name in list(error)[2:]}]
    assert (error["error"], error["object"]) == ("missing", "manifests/000000000007.json")
    assert error["rule"] == "TD-OBJ-008"
    assert done.stderr.startswith("error: there is no version 7 in chain. ")

    done = tensordelta("log", "nowhere", folder=chain, code=1)
    assert done.stderr.startswith("error: there is no chain at nowhere. ")
    assert not (chain / "nowhere").exists()


def test_errors_of_the_machine_take_one_line(chain: Path) -> None:
    done = tensordelta("publish", "step_0.safetensors/chain", "step_0.safetensors", folder=chain, code=1)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "step_0.safetensors" in done.stderr
    assert "Not a directory" in done.stderr


def test_output_into_a_pipe_is_plain_and_complete(steps: Path) -> None:
    long = "x" * 150
    options = ["--annotation", f"note={long}", "--annotation", "evil=\x1b[31m\n"]
    colours = {"COLUMNS": "40", "TERM": "xterm-256color"}
    published = tensordelta("publish", "chain", "step_0.safetensors", *options, folder=steps, **colours).stdout
    log = tensordelta("log", "chain", folder=steps, **colours).stdout
    show = tensordelta("show", "chain", folder=steps, **colours).stdout
    for shown in (published, log, show):
        assert "\x1b" not in shown
        assert "…" not in shown
        assert f"note={long}" in shown
        assert r"evil=\x1b[31m\n" in shown
    (pack,) = packs(steps, 0)
    assert pack.name in show
    assert "F32" in show
    assert "4,096" in show


def test_log_has_a_line_for_each_version(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    for step in range(30):
        chain.publish(
            {"w": np.arange(1000, dtype=np.float32) + (np.arange(1000) < step)}, annotations={"step": str(step)}
        )
    title, headings, *rows = tensordelta("log", "chain", folder=tmp_path).stdout.splitlines()
    assert "30 versions" in title
    assert headings.split()[:4] == ["version", "base", "changed", "density"]
    assert [row.split()[0] for row in rows] == [str(version) for version in range(30)]
    assert [row.split()[1] for row in rows] == ["full", *map(str, range(29))]
    assert [row.split()[-1] for row in rows] == [f"step={step}" for step in range(30)]
    assert len({row.index(f"step={step}") for step, row in enumerate(rows)}) == 1, "columns are aligned"

    listed = json.loads(tensordelta("log", "chain", "--json", folder=tmp_path).stdout)
    assert [row["version"] for row in listed] == list(range(30))


def test_a_terminal_is_never_overrun(chain: Path) -> None:
    (pack,) = packs(chain, 1)
    for columns in (80, 120):
        log = in_terminal(["log", "chain"], chain, columns)
        assert max(map(len, log)) <= columns
        assert ("created" in log[1]) == (columns == 120)
        assert any("step=2" in line for line in log)
    assert "wider terminals show as well: created" in in_terminal(["log", "chain"], chain, 80)[-1]
    show = in_terminal(["show", "chain", "1"], chain, 80)
    assert max(map(len, show)) <= 80
    assert any(f"packs/{pack.name[:12]}" in line for line in show)
    pack.unlink()
    error = in_terminal(["pull", "chain", "out", "--to", "1"], chain, 80)
    assert max(map(len, error)) <= 80
    assert error[0].startswith("error:")
    assert pack.name in "".join(error), "folded, not cut off"


def test_diff_counts_words_by_tensor(steps: Path) -> None:
    save_file(weights(1) | {"c": np.zeros(8, np.float32)}, steps / "grown.safetensors")
    found = facts("diff", "step_0.safetensors", "grown.safetensors", folder=steps)
    totals = ["changed", "words", "density", "bytes", "size", "ratio", "bits_per_change"]
    assert list(found) == [*totals, "old", "new", "tensors"]
    assert (found["changed"], found["words"], found["bytes"]) == (10, WORDS + 8, 4096 * 4 + 100 * 2 + 8 * 4)
    assert found["bits_per_change"] == found["size"] * 8 / 10
    a, b, c = found["tensors"]
    assert a == {
        "name": "a",
        "dtype": "F32",
        "shape": [64, 64],
        "words": 4096,
        "changed": 10,
        "density": 10 / 4096,
        "status": "kept",
    }
    assert (b["name"], b["changed"], b["status"]) == ("b", 0, "kept")
    assert (c["name"], c["changed"], c["status"]) == ("c", 0, "added")
    shown = tensordelta("diff", "step_0.safetensors", "step_1.safetensors", folder=steps).stdout
    assert "1 of 2 tensors differ" in shown


def test_diff_of_versions(chain: Path) -> None:
    """Versions by number, from the end and by name, of one chain, of two, and beside a checkpoint."""
    found = facts("diff", "chain@0", "chain@2", folder=chain)
    assert found["changed"] == 20 and [each["name"] for each in found["tensors"]] == ["a", "b"]
    assert (found["old"], found["new"], found["size"]) == ("version 0", "version 2", None)
    assert facts("diff", "chain@-2", "chain@newest", folder=chain)["size"] == td.open(chain / "chain").manifest(2).size
    assert facts("diff", "chain@1", "chain", folder=chain)["changed"] == 10
    assert facts("diff", "chain@1", "step_1.safetensors", folder=chain)["changed"] == 0
    assert facts("diff", "step_0.safetensors", "chain@2", folder=chain)["changed"] == 20
    tensordelta("copy", "chain", "other", folder=chain)
    assert facts("diff", "chain@1", "other@2", folder=chain)["changed"] == 10
    shown = tensordelta("diff", "chain@1", "chain@2", folder=chain).stdout
    assert shown.startswith("from version 1 to version 2: 1 of 2 tensors differ; as a delta ")


def test_diff_names_what_is_not_there(chain: Path) -> None:
    assert facts("diff", "chain@0", "chain@9", folder=chain, code=1)["error"] == "missing"
    assert "no chain" in tensordelta("diff", "nothing@0", "chain@1", folder=chain, code=1).stderr
    (chain / "step@1").symlink_to("step_1.safetensors")
    assert facts("diff", "step@1", "chain@1", folder=chain)["changed"] == 0


def test_long_tables_end_on_a_terminal_alone(tmp_path: Path) -> None:
    opened = td.open(tmp_path / "run", create=True)
    for version in range(45):
        opened.publish({f"layers.{index}": np.full(2, version + index) for index in range(50)})
    for command, more in ((["log", "run"], "… 25 more"), (["diff", "run@1", "run@2"], "… 30 more")):
        assert any(more in line for line in in_terminal(command, tmp_path, 100)), command
        whole = in_terminal([*command, "--all"], tmp_path, 100)
        assert not any("more" in line for line in whole) and len(whole) > 45
        assert "more" not in tensordelta(*command, folder=tmp_path).stdout


def test_packs_can_come_from_elsewhere(steps: Path) -> None:
    source = "hf://someone/model@0123456789abcdef0123456789abcdef01234567"
    published = facts(
        "publish", "chain", "step_0.safetensors", "--plain", "--source", source, "--packs-from", ".", folder=steps
    )
    assert (published["base"], published["packs"]) == (None, 1)
    assert not list((steps / "chain").glob("packs/*"))

    done = tensordelta("pull", "chain", "out", "--json", folder=steps, code=1)
    assert json.loads(done.stdout)["error"] == "untrusted"
    assert "--allow-source" in done.stderr
    tensordelta("pull", "chain", "out", "--packs-from", ".", folder=steps)
    assert load_file(steps / "out/model.safetensors")["a"].tobytes() == weights(0)["a"].tobytes()


def test_order_and_values_reach_the_pack(steps: Path) -> None:
    for step, options in enumerate([[], ["--order", "exponent"], ["--values", "replace"]]):
        tensordelta("publish", "chain", f"step_{step}.safetensors", *options, folder=steps)
    opened = td.open(steps / "chain")
    assert [opened.manifest(version).features for version in range(3)] == [[], ["exponent-order"], []]
    assert b"replace" in packs(steps, 2)[0].read_bytes()
    assert opened.load()["a"].tobytes() == weights(2)["a"].tobytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish", "new", "CHECKPOINT", "--order", "exponent", "--values", "replace"],
        ["publish", "new", "CHECKPOINT", "--source", "hf://a/b@c"],
        ["publish", "new", "CHECKPOINT", "--plain", "--source", "hf://a/b"],
        ["publish", "new", "CHECKPOINT", "--plain", "--order", "exponent"],
        ["publish", "new", "CHECKPOINT", "--step", "-1"],
        ["publish", "new", "CHECKPOINT", "--annotation", "novalue"],
        ["publish", "new", "CHECKPOINT", "--annotation", "step=1", "--step", "2"],
        ["publish", "new", "CHECKPOINT", "--threads", "0"],
        ["publish", "new", "CHECKPOINT", "--allow-source", "hf://"],
        ["publish", "new", "CHECKPOINT", "--packs-from", "nowhere"],
        ["publish", "ftp://host/new", "CHECKPOINT"],
        ["publish", "hf://org/model", "CHECKPOINT"],
        ["pull", "new", "out", "--to", "-1"],
        ["pull", "new", "CHECKPOINT"],
        ["show", "new", "one"],
        ["log"],
        ["fetch", "new"],
        ["demo", "--steps", "0"],
    ],
)
def test_wrong_usage_exits_with_2_and_touches_nothing(
    arguments: list[str], steps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(steps)
    before = sorted(steps.iterdir())
    done = CliRunner().invoke(main, ["step_0.safetensors" if each == "CHECKPOINT" else each for each in arguments])
    assert done.exit_code == 2
    assert done.output.startswith("Usage: ")
    assert sorted(steps.iterdir()) == before


def test_wrong_usage_in_a_process(steps: Path) -> None:
    done = tensordelta("publish", "new", "step_0.safetensors", folder=steps, code=2, TENSORDELTA_THREADS="many")
    assert "TENSORDELTA_THREADS is 'many'" in done.stderr
    assert not (steps / "new").exists()


def test_interrupted_quietly(tmp_path: Path) -> None:
    script = """
import os, signal, time
from tensordelta import cli, opening
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have been started without it
def interrupted(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
opening.open = interrupted
cli.main(["verify", "chain"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, timeout=600
    )
    assert (done.returncode, done.stdout) == (130, b"")
    assert done.stderr.startswith(b"interrupted") and done.stderr.count(b"\n") == 1


def test_a_closed_pipe_is_no_error_message(chain: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tensordelta", "log", "chain"],
        cwd=chain,
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=600,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_starting_imports_no_more_than_is_needed() -> None:
    script = """
import sys
import tensordelta
unwanted = {"click", "huggingface_hub", "matplotlib", "rich", "safetensors"} & sys.modules.keys()
import tensordelta.cli
unwanted |= {"huggingface_hub", "matplotlib", "rich.progress", "tensordelta.demo"} & sys.modules.keys()
print(sorted(unwanted))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=600
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("absent", ["click", "rich"])
def test_without_the_extra_the_command_says_what_to_install(absent: str) -> None:
    script = f"""
import sys
sys.modules[{absent!r}] = None
import tensordelta as td
from tensordelta.__main__ import main
td.State.from_arrays({{}})
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=600
    )
    says = "the command line needs click and rich: pip install 'tensordelta[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says)


def test_version(tmp_path: Path) -> None:
    assert td.__version__ in tensordelta("--version", folder=tmp_path).stdout
