"""`import --follow`, `export --follow` and `publish --watch`, as processes beside those that write and read."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crossings import CASES, MODELS, PLAIN, exporter, importer, run_of, states, step, tensors_of, unpacked

import tensordelta as td
from tensordelta import bridges
from tensordelta.errors import TensorDeltaError
from tensordelta.stores import FolderStore

TESTS = Path(__file__).parents[1]


@contextmanager
def command(*arguments: object, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A `tensordelta` process; killed at the end if it still runs."""
    package = str(Path(td.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "tensordelta", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": package, "TENSORDELTA_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + 600
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"it ended: {process.communicate()}")
        assert time.monotonic() < until
        time.sleep(0.02)


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """End a process as a user does, between two versions."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


def newest(chain: Path) -> int:
    with suppress(TensorDeltaError, OSError):
        found = td.open(chain).newest()
        return -1 if found is None else found
    return -1


def _copy_in(files: dict[str, bytes], target: Path) -> None:
    """Write a version as its program does: files first, each whole, and what commits it last."""

    def last(name: str) -> bool:
        return name.endswith((".index.json", "manifest.json"))

    for name in sorted(files, key=lambda name: (last(name), name)):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".tmp").write_bytes(files[name])
        os.replace(path.with_name(path.name + ".tmp"), path)
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slime-xor", "skyrl-files", "modelexpress", "trl-5937-gaps"])
def test_an_import_follows_a_folder_that_grows(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = tmp_path / "source"
    source.mkdir()
    base = [] if case.base is None else ["--base", MODELS / case.base[1]]
    arguments = ["import", case.format, "source", "chain", *base, "--follow", "--poll", "0.05", "--json"]
    with command(*arguments, folder=tmp_path) as process:
        for id, path in case.versions:
            mine = {
                each: data
                for each, data in case.files.items()
                if f"step_{id}." in each or f"_v{id}/" in each or each.startswith((f"{id}/", f"delta-{id:0>8}/"))
            }
            assert mine
            _copy_in(mine, source)
            wait(partial(_imported, tmp_path / "chain", id), process)
            assert td.open(tmp_path / "chain").load().equals(td.read_state(MODELS / path))
        out, _ = end(process)
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0]["note"].startswith("not proven")
    assert [line["id"] for line in lines[1:]][-len(case.versions) :] == [id for id, _ in case.versions]


def _imported(chain: Path, id: str) -> bool:
    with suppress(TensorDeltaError):
        return td.open(chain).manifest().annotations["foreign-version"] == id
    return False


@pytest.mark.slow
def test_a_following_import_waits_for_a_version_to_be_committed(tmp_path: Path) -> None:
    """And one that is damaged ends it: nothing of it is published."""
    source = unpacked(CASES["slime-uncommitted"], tmp_path / "source")
    base = MODELS / "models/mixed/000000.safetensors"
    index = "weight_v000003/model.safetensors.index.json"
    arguments = ["import", "slime", "source", "chain", "--base", base, "--follow", "--poll", "0.05"]
    with command(*arguments, folder=tmp_path) as process:
        wait(lambda: newest(tmp_path / "chain") == 2, process)
        time.sleep(0.3)
        assert newest(tmp_path / "chain") == 2 and process.poll() is None
        (source / index).write_bytes(CASES["slime-xor"].files[index])
        wait(lambda: newest(tmp_path / "chain") == 3, process)
        shutil.copytree(source / "weight_v000003", tmp_path / "weight_v000004")
        os.replace(tmp_path / "weight_v000004", source / "weight_v000004")
        assert process.wait(timeout=600) == 1
        _, err = process.communicate()
    assert "says that it is version '000003'" in err and newest(tmp_path / "chain") == 3


def test_a_following_import_gives_up_after_its_timeout(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with command(
        "import", "trl", "source", "chain", "--follow", "--poll", "0.01", "--timeout", "0.2", folder=tmp_path
    ) as process:
        assert process.wait(timeout=600) == 1
        assert "appeared within 0.2 seconds" in process.communicate()[1]
    assert not (tmp_path / "chain").exists()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["slime", "modelexpress", "skyrl", "trl"])
def test_a_follower_of_an_export_sees_versions_whole(format: str, tmp_path: Path) -> None:
    """A reader looks at the place as often as it can, takes what its format calls a version, and finds it whole."""
    run = states(31, 5, tensors_of(format))
    chain = run_of(tmp_path / "chain", run[:1])
    target, back = tmp_path / "out", tmp_path / "back"
    faults: list[BaseException] = []
    looks = [0]
    stop = threading.Event()

    def look() -> None:
        """Everything that is committed can be read, at any moment; of slime, every folder that is there."""
        kind: Any = bridges.new_format(format)
        while not stop.is_set():
            try:
                if target.exists():
                    found = kind.find(FolderStore(target), None, None)
                    assert format in ("trl",) or found.unfinished is None, found.unfinished
                    held = None
                    for number, offer in enumerate(found.offers):
                        held = offer.apply(held)
                        assert held.equals(run[number])
                    looks[0] += 1
            except BaseException as error:
                faults.append(error)
                return
            time.sleep(0.005)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        with command(
            "export", format, "chain", "out", "--follow", "--poll", "0.02", "--json", folder=tmp_path
        ) as process:
            for number, state in enumerate(run[1:], 1):
                chain.publish(state)
                wait(lambda number=number: _exported(target) == number, process)
            out, _ = end(process)
    finally:
        stop.set()
        watcher.join()
    assert not faults and looks[0], faults
    assert [json.loads(line)["version"] for line in out.splitlines()] == list(range(5))
    list(importer(format, target, back).all())
    opened = td.open(back)
    assert all(opened.load(version).equals(state) for version, state in zip(opened.versions(), run, strict=True))


def _exported(target: Path) -> int:
    with suppress(OSError, ValueError):
        return max(json.loads((target / "tensordelta-export.json").read_text())["versions"].values(), default=-1)
    return -1


@pytest.mark.slow
@pytest.mark.parametrize("when", [0.0, 0.3, 0.6, 1.0])
def test_an_export_that_is_killed_goes_on(when: float, tmp_path: Path) -> None:
    run = states(32, 6, PLAIN)
    chain = run_of(tmp_path / "chain", run)
    with command("export", "slime", "chain", "out", "--follow", folder=tmp_path) as process:
        wait(lambda: (tmp_path / "out").exists(), process)
        time.sleep(when * 0.3)
        process.kill()
        process.wait()
    list(exporter("slime", chain, tmp_path / "out").all())
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []
    list(importer("slime", tmp_path / "out", tmp_path / "back").all())
    assert td.open(tmp_path / "back").load(5).equals(run[5])


@pytest.mark.slow
@pytest.mark.parametrize("format", ["trl", "slime", "modelexpress", "skyrl"])
def test_an_export_may_be_killed_at_any_call(format: str, tmp_path: Path) -> None:
    """What is left is gone on with, and nothing of it stays hidden."""
    paths = [*(str(TESTS / each) for each in ("", "bridges")), *sys.path]
    done = subprocess.run(
        [sys.executable, str(TESTS / "bridges" / "killed_export.py"), str(tmp_path), format, "2", "5"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ended = re.fullmatch(r"ended at (\d+) calls\n", done.stdout)
    assert ended is not None and int(ended[1]) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("when", [0.0, 0.1, 0.3])
def test_an_import_that_is_killed_goes_on(when: float, tmp_path: Path) -> None:
    run = states(33, 8, PLAIN)
    list(exporter("slime", run_of(tmp_path / "chain", run), tmp_path / "out").all())
    with command("import", "slime", "out", "back", "--follow", folder=tmp_path) as process:
        wait(lambda: (tmp_path / "back").exists(), process)
        time.sleep(when)
        process.kill()
        process.wait()
    before = newest(tmp_path / "back")
    again = list(importer("slime", tmp_path / "out", tmp_path / "back").all())
    assert [each.published.version for each in again] == list(range(before + 1, 8))
    back = td.open(tmp_path / "back")
    assert all(back.load(number).equals(state) for number, state in enumerate(run))
    assert back.verify(deep=True).ok


# -- publish --watch -----------------------------------------------------------------------------------------------


def _save(state: td.State, folder: Path, marker: str | None = None) -> None:
    """Save a checkpoint as trainers do: two files, one after the other, its index, and a marker last."""
    folder.mkdir(parents=True)
    names = list(state)
    half = len(names) // 2
    index: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        td.State.from_arrays({name: state[name] for name in part}).save(folder / file)
        index |= dict.fromkeys(part, file)
        time.sleep(0.02)
    (folder / "config.json").write_text('{"architectures": ["TestForCausalLM"]}')
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    if marker is not None:
        (folder / marker).touch()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "marker"),
    [
        ("step_{}", "STABLE"),
        ("weight_update_v{}", None),
        ("weight_v{:06d}", None),
        ("checkpoint-{}", "trainer_state.json"),
    ],
)
def test_folders_that_appear_are_published(pattern: str, marker: str | None, tmp_path: Path) -> None:
    """prime-rl's, AReaL's, slime's in full mode, and those of the Trainer of transformers."""
    run = states(41, 3, PLAIN)
    watched = tmp_path / "weights"
    watched.mkdir()
    how = ["--settle", "0.2"] if marker is None else ["--marker", marker]
    with command(
        "publish", "chain", "--watch", "weights", *how, "--poll", "0.02", "--json", folder=tmp_path
    ) as process:
        for number, state in zip((5, 10, 15), run, strict=True):
            _save(state, watched / pattern.format(number), marker)
            wait(lambda number=number: newest(tmp_path / "chain") == number, process)
        out, _ = end(process)
    chain = td.open(tmp_path / "chain")
    assert chain.versions() == [5, 10, 15] and chain.at(step=10) == 10
    assert all(chain.load(number).equals(state) for number, state in zip((5, 10, 15), run, strict=True))
    facts = [json.loads(line) for line in out.splitlines()]  # with notes where the machine was slow to save
    assert [each["id"] for each in facts if "id" in each] == [pattern.format(n) for n in (5, 10, 15)]
    chain.pull(tmp_path / "engine")
    assert td.read_state(tmp_path / "engine").equals(run[2])
    assert (tmp_path / "engine" / "config.json").is_file()
    # And it goes on after the last one.
    _save(step(np.random.default_rng(1), run[2]), watched / pattern.format(20), marker)
    with command("publish", "chain", "--watch", "weights", *how, "--poll", "0.02", folder=tmp_path) as process:
        wait(lambda: newest(tmp_path / "chain") == 20, process)
        end(process)
    assert chain.versions() == [5, 10, 15, 20]


def test_a_checkpoint_without_its_marker_waits(tmp_path: Path) -> None:
    run = states(42, 2, PLAIN)
    _save(run[0], tmp_path / "w" / "step_1", "STABLE")
    _save(run[1], tmp_path / "w" / "step_2")
    watcher = bridges.Watcher(tmp_path / "w", td.open(tmp_path / "chain", create=True), marker="STABLE")
    assert [path.name for path in watcher.ready()] == ["step_1"]
    _save(step(np.random.default_rng(3), run[1]), tmp_path / "w" / "step_3", "STABLE")
    assert [path.name for path in watcher.ready()] == ["step_1"]  # what follows waits for it
    (tmp_path / "w" / "step_2" / "STABLE").touch()
    assert [path.name for path in watcher.ready()] == ["step_1", "step_2", "step_3"]


def test_a_folder_that_still_changes_waits(tmp_path: Path) -> None:
    run = states(43, 1, PLAIN)
    _save(run[0], tmp_path / "w" / "checkpoint-1")
    watcher = bridges.Watcher(tmp_path / "w", td.open(tmp_path / "chain", create=True), settle=0)
    assert watcher.ready() == []  # seen for the first time
    assert [path.name for path in watcher.ready()] == ["checkpoint-1"]
    (tmp_path / "w" / "checkpoint-1" / "optimizer.pt").write_bytes(b"more")
    assert watcher.ready() == []
    assert [path.name for path in watcher.ready()] == ["checkpoint-1"]


def test_a_folder_that_cannot_be_read_yet_waits(tmp_path: Path) -> None:
    """A trainer that pauses between two files: nothing is published, and nothing fails, until the next one begins."""
    run = states(46, 2, PLAIN)
    folder = tmp_path / "w" / "checkpoint-1"
    _save(run[0], folder)
    held = {
        name: (folder / name).read_bytes()
        for name in ("model-00002-of-00002.safetensors", "model.safetensors.index.json")
    }
    for name in held:
        (folder / name).unlink()
    notes: list[str] = []
    chain = td.open(tmp_path / "chain", create=True)
    stop = threading.Event()

    def say(note: str) -> None:
        notes.append(note)
        for name, data in held.items():
            (folder / name).write_bytes(data)

    watcher = bridges.Watcher(tmp_path / "w", chain, settle=0, say=say)
    assert next(watcher.follow(poll=0.001, stop=stop)).id == "checkpoint-1"
    assert len(notes) == 1 and notes[0].startswith("waiting for checkpoint-1, which cannot be read: ")
    assert chain.load().equals(run[0])
    _save(run[1], tmp_path / "w" / "checkpoint-2")
    (tmp_path / "w" / "checkpoint-2" / "model-00002-of-00002.safetensors").unlink()
    _save(run[1], tmp_path / "w" / "checkpoint-3")
    with pytest.raises(td.MissingError):
        next(watcher.follow(poll=0.001, stop=stop))
    assert chain.versions() == [1]


def test_folders_of_two_runs_are_refused(tmp_path: Path) -> None:
    for name in ("checkpoint-1", "step_2", "tmp-checkpoint-3", "run-2026"):
        (tmp_path / "w" / name).mkdir(parents=True)
        if name != "run-2026":
            (tmp_path / "w" / name / "model.safetensors").touch()
    (tmp_path / "w" / "logs").mkdir()
    watcher = bridges.Watcher(tmp_path / "w", td.open(tmp_path / "chain", create=True), marker="x")
    with pytest.raises(td.ConflictError, match="two kinds"):
        watcher.ready()
    (tmp_path / "w" / "step_2" / "model.safetensors").unlink()
    assert watcher.ready() == []
    (tmp_path / "w" / "checkpoint-1" / "x").touch()
    assert [path.name for path in watcher.ready()] == ["checkpoint-1"]


def test_a_checkpoint_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    run = states(44, 2, PLAIN)
    for number, state in enumerate(run, 1):
        _save(state, tmp_path / "w" / f"step_{number}", "STABLE")
    watcher = bridges.Watcher(tmp_path / "w", td.open(tmp_path / "chain", create=True), marker="STABLE")
    first, second = watcher.ready()
    shutil.rmtree(first)
    assert watcher.publish(first) is None
    watched = watcher.publish(second)
    assert watched is not None and watched.published.version == 2


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = states(45, 1, PLAIN)
    _save(run[0], tmp_path / "w" / "step_1", "STABLE")
    shard = tmp_path / "w" / "step_1" / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with command("publish", "chain", "--watch", "w", "--marker", "STABLE", folder=tmp_path) as process:
        assert process.wait(timeout=600) == 1
        assert "is cut off" in process.communicate()[1]
    assert td.open(tmp_path / "chain").versions() == []


def test_a_chain_of_something_else_is_not_watched_into(tmp_path: Path) -> None:
    run_of(tmp_path / "chain", states(1, 1, PLAIN))
    with pytest.raises(td.ConflictError, match="not published from a folder"):
        bridges.Watcher(tmp_path, td.open(tmp_path / "chain"))
