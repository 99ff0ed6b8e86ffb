"""FSDP2: each rank publishes its own rows, over gloo on the CPU, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import tensordelta as td

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("fsdp_ranks.py")
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


class Run:
    """Runs of ranks over one chain.

    Attributes:
        told: for each rank what became of its steps: versions, and names of errors.
    """

    def __init__(self, folder: Path) -> None:
        self.address = folder / "chain"
        self.results = folder / "results"
        self.results.mkdir()
        self.told: list[Any] = []
        self._folder = folder
        self._runs = 0

    def start(self, ranks: int = 2, *, dies: int | None = None, **options: Any) -> None:
        """Run the ranks to their end. With `dies`, that rank is killed on the way, and the others fail."""
        self._runs += 1
        meeting = self._folder / f"meeting.{self._runs}"
        scenario = json.dumps({"create": self._runs == 1, **options})
        with ExitStack() as stack:
            processes = []
            for rank in range(ranks):
                errors = stack.enter_context((self.results / f"errors.{rank}.txt").open("w"))
                command = [sys.executable, PROGRAM, self.address, meeting, rank, ranks, scenario, self.results]
                process = subprocess.Popen(list(map(str, command)), env=_ENVIRONMENT, stderr=errors)
                processes.append(stack.enter_context(process))
                stack.callback(process.kill)
            for rank, process in enumerate(processes):
                code = process.wait(timeout=240)
                as_expected = code == 0 if dies is None else code == -9 if rank == dies else code != 0
                assert as_expected, (self.results / f"errors.{rank}.txt").read_text()
        self.told = [
            json.loads(told.read_text()) if (told := self.results / f"told.{rank}.json").exists() else None
            for rank in range(ranks)
        ]

    def check(self, steps: dict[int, int]) -> td.Chain:
        """Check that each version is the weights at the submit of its step, and that the chain is sound."""
        chain = td.open(self.address)
        assert {number: int(chain.manifest(number).annotations["step"]) for number in chain.versions()} == steps
        for number, step in steps.items():
            expected, state = np.load(self.results / f"{step}.npz"), chain.load(number)
            assert set(state) == set(expected.files)
            for name in expected.files:
                assert np.array_equal(state[name].view(np.uint16), expected[name]), (number, name)
        assert chain.verify(deep=True).ok
        return chain


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_each_rank_publishes_its_own_rows(run: Run) -> None:
    run.start(steps=4)
    chain = run.check({step: step for step in range(4)})
    assert run.told == [[0, 1, 2, 3]] * 2
    assert [chain.manifest(number).base is None for number in range(4)] == [True, False, False, False]
    # Nothing is gathered: both ranks have put packs, none of which has a whole tensor of several rows.
    assert len(chain.manifest(0).packs) > 1


def test_no_step_is_left_out_when_the_ranks_run_ahead(run: Run) -> None:
    run.start(steps=6, together=True)
    run.check({step: step for step in range(6)})


def test_three_ranks_and_a_parameter_that_is_sharded_by_columns(run: Run) -> None:
    run.start(3, steps=3, by_columns=True)
    run.check({step: step for step in range(3)})


def test_replicas_of_shards(run: Run) -> None:
    run.start(4, steps=3, replicas=True)
    run.check({step: step for step in range(3)})


def test_a_step_that_fails_on_a_rank_fails_on_all_and_is_in_the_next_version(run: Run) -> None:
    fault = {"1": [1, "before", "packs", "fail"], "3": [0, "before", "manifests", "fail"]}
    run.start(steps=6, fault=fault)
    assert run.told == [[0, "StoreError", 1, "StoreError", 2, 3]] * 2
    run.check({0: 0, 1: 2, 2: 4, 3: 5})


def test_the_first_version_may_fail_on_a_rank(run: Run) -> None:
    run.start(steps=3, fault={"0": [1, "before", "packs", "fail"]})
    assert run.told == [["StoreError", 0, 1]] * 2
    run.check({0: 1, 1: 2})


def test_a_commit_that_failed_and_was_done_is_taken_for_done(run: Run) -> None:
    fault = {"0": [0, "after", "manifests", "fail"], "2": [0, "after", "manifests", "fail"]}
    run.start(steps=4, fault=fault)
    assert run.told == [["StoreError", 1, "StoreError", 3]] * 2
    chain = run.check({step: step for step in range(4)})
    assert [chain.manifest(number).base is None for number in range(4)] == [True, False, False, False]


def test_a_layout_that_grows_makes_a_full_version(run: Run) -> None:
    run.start(steps=4, grows=2)
    chain = run.check({step: step for step in range(4)})
    assert [chain.manifest(number).base is None for number in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("dies", [0, 1])
def test_a_rank_dies_and_the_run_is_started_again(run: Run, dies: int) -> None:
    run.start(steps=4, dies=dies, fault={"2": [dies, "before", "packs", "die"]})
    assert run.told[1 - dies][:2] == [0, 1]
    assert td.open(run.address).versions() == [0, 1]
    run.start(steps=5, trained=2)
    assert run.told == [[2, 3, 4]] * 2
    chain = run.check({step: step for step in range(5)})
    assert [chain.manifest(number).base is None for number in range(5)] == [True] + 4 * [False]


def test_a_run_goes_on_with_another_number_of_ranks(run: Run) -> None:
    run.start(2, steps=2)
    run.start(3, steps=4, trained=2)
    chain = run.check({step: step for step in range(4)})
    assert chain.manifest(2).base is not None
