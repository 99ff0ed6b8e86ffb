"""Ranks of an engine, in processes of their own over gloo: all have the new version, or all keep the old one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from forks import lines

pytest.importorskip("torch", reason="torch is not installed")

import torch

import tensordelta as td

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("rank_process.py")
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def publish(folder: Path, versions: int = 4) -> Path:
    """A chain of a small model; version 1 has codec `replace`, the others `step`. Each lists words of every tensor."""
    torch.manual_seed(0)
    tensors = {
        "matrix": torch.randn(12, 16).bfloat16(),
        "norm": torch.randn(16).bfloat16(),
        "odd": torch.randn(23).bfloat16(),
        "head": torch.randn(9).bfloat16(),
    }
    chain = td.open(folder / "chain", create=True, threads=1)
    chain.publish(tensors)
    for version in range(1, versions):
        for tensor in tensors.values():
            tensor.view(-1).view(torch.int16)[version + 2 :: 4] += 1
        tensors["odd"].view(torch.int16)[20] += 1
        chain.publish(tensors, values="replace" if version == 1 else "step")
    return folder / "chain"


def run(tmp_path: Path, scenario: dict[str, Any], *, ranks: int = 2, lost: int | None = None) -> list[Any]:
    """What became of each step in each rank; of a rank that is lost, None."""
    address, results = publish(tmp_path), tmp_path / "results"
    results.mkdir()
    with ExitStack() as stack:
        processes = []
        for rank in range(ranks):
            errors = stack.enter_context((results / f"errors.{rank}.txt").open("w"))
            command = [
                sys.executable,
                PROGRAM,
                address,
                tmp_path / "meeting",
                rank,
                ranks,
                json.dumps(scenario),
                results,
            ]
            process = subprocess.Popen(list(map(str, command)), env=_ENVIRONMENT, stderr=errors)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for rank, process in enumerate(processes):
            if rank != lost:
                assert process.wait(timeout=240) == 0, (results / f"errors.{rank}.txt").read_text()
        if lost is not None:
            processes[lost].send_signal(signal.SIGKILL)
    return [
        json.loads(told.read_text()) if (told := results / f"{rank}.json").exists() and rank != lost else None
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_follow_a_chain(tmp_path: Path, ranks: int) -> None:
    steps = [{"version": version} for version in (1, 1, 3, 0, 2)]
    told = run(tmp_path, {"steps": steps, "scan_every": 2}, ranks=ranks)
    assert told == [[[version, True, None, "None"] for version in (1, 1, 3, 0, 2)]] * ranks


def test_what_a_rank_has_prepared_is_taken(tmp_path: Path) -> None:
    """Also where another one has prepared something else."""
    told = run(
        tmp_path, {"steps": [{"version": 3, "rank": 0, "what": "wait for ready"}, {"version": 1}], "follow": True}
    )
    assert told == [[[3, True, None, "None"], [1, True, None, "None"]]] * 2


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["prepare fails", "scatter fails"])
def test_all_keep_the_old_version_where_one_fails(tmp_path: Path, rank: int, what: str) -> None:
    told = run(tmp_path, {"steps": [{"version": 2, "rank": rank, "what": what}, {"version": 3}]})
    for each in told:
        (version, exact, error, message), then = each
        assert (version, exact, error) == (0, True, "GroupError")
        assert message.startswith(f"rank {rank}: ")
        assert then == [3, True, None, "None"]


@pytest.mark.parametrize(
    ("rank", "tensor", "at", "version", "error"),
    [(1, "odd", 8, 1, "IntegrityError"), (1, "odd", 4, 2, "WrongBaseError"), (1, "norm", 4, 2, "WrongBaseError")],
    ids=["an owner's, over `replace`", "an owner's, over `step`", "a replica's, over `step`"],
)
def test_a_flipped_listed_word_is_refused_by_all(
    tmp_path: Path, rank: int, tensor: str, at: int, version: int, error: str
) -> None:
    flip = {"version": version, "rank": rank, "what": "flip", "tensor": tensor, "at": at, "mended": True}
    told = run(tmp_path, {"steps": [flip, {"version": 3}]})
    assert [each[0][:3] for each in told] == [[0, True, error]] * 2
    assert [each[1] for each in told] == [[3, True, None, "None"]] * 2


def test_a_flipped_unlisted_word_is_found_by_a_scan(tmp_path: Path) -> None:
    flip = {"version": 1, "rank": 1, "what": "flip", "tensor": "head", "at": 0}
    told = run(tmp_path, {"steps": [flip, {"version": 2}], "scan_every": 1})
    assert [[step[0] for step in each] for each in told] == [[0, 0]] * 2
    assert [[step[2] for step in each] for each in told] == [["WrongBaseError"] * 2] * 2


@pytest.mark.parametrize("key", ["fails_at_start", "wrong_start"])
def test_all_refuse_to_start_where_one_cannot(tmp_path: Path, key: str) -> None:
    told = run(tmp_path, {"steps": [{"version": 1}], key: 1})
    for ((version, _, error, message),) in told:
        assert version is None
        assert (error, message.split(":")[0]) == (
            ("GroupError", "rank 1") if key == "fails_at_start" else ("WrongBaseError", "wrong-base")
        )


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["die", "die in scatter", "hang"])
def test_a_rank_that_is_lost_leaves_the_others_at_the_old_version(tmp_path: Path, rank: int, what: str) -> None:
    told = run(
        tmp_path,
        {"steps": [{"version": 2, "rank": rank, "what": what}, {"version": 1}], "timeout": 5},
        lost=rank,
    )
    steps = told[1 - rank]
    assert [step[:3] for step in steps] == [[0, True, "LostError"]] * 2
    assert "start the engine again" in steps[1][3]


@pytest.mark.parametrize(
    ("call", "expected"),
    [("engine.update(1)", "RuntimeError: the rank belongs to process"), ("engine.close()", "None")],
)
def test_a_rank_belongs_to_one_process(tmp_path: Path, call: str, expected: str) -> None:
    program = f"""
import tensordelta.torch as tdt
from tensordelta.state.group import Alone
chain = td.open(sys.argv[1], threads=1)
mine = tdt.load(chain, 0)
parts = {{name: [tdt.whole(tensor)] for name, tensor in mine.items()}}
engine = tdt.Rank(Alone(), lambda: (chain, tdt.DeviceState(chain.layout(0), parts, group=Alone())), poll=0.05)
forked(lambda: {call})
engine.update(1)
engine.close()
print(engine.version)
"""
    said, version = lines(program, publish(tmp_path))
    assert said.startswith(expected) and version == "1"
