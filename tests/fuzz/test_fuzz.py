"""Every parser on the inputs in the tree, and on what hypothesis makes of them; with bounded memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensordelta as td
from fuzz.corpus import FOLDER, seeds
from fuzz.mutation import mutated
from fuzz.targets import TARGETS, target

ROOT = Path(__file__).parents[2]
_ROOM = 1 << 30
_EXAMPLES = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
)


@pytest.fixture(autouse=True)
def _bounded(_own_cache: Path) -> Iterator[None]:
    """Have an allocation beyond all reason fail."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", TARGETS)
def test_the_inputs_in_the_tree(name: str) -> None:
    assert seeds(name)
    for each in seeds(name):
        TARGETS[name](each)


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_accepted(name: str) -> None:
    """So fuzzing comes to all that a parser does, and starts from the present format."""
    refused = []
    for each in seeds(name):
        try:
            TARGETS[name].__wrapped__(each)  # type: ignore[attr-defined]
        except td.TensorDeltaError as fault:
            refused.append(str(fault))
        else:
            return
    raise AssertionError("\n".join(refused))


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_hypothesis_makes(name: str) -> None:
    inputs = seeds(name)
    changed = st.builds(
        lambda start, seed: mutated(start, inputs, Random(seed)), st.sampled_from(inputs), st.integers(0, 2**64)
    )

    @_EXAMPLES
    @given(changed | st.binary(max_size=300))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


def test_the_inputs_in_the_tree_are_few() -> None:
    found = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) < 200_000
    assert {path.parent.name for path in found} <= TARGETS.keys()


def test_the_program_finds_a_fault_and_says_how_to_repeat_it(tmp_path: Path) -> None:
    start = (
        "import sys, runpy; sys.path[:0] = ['tests', 'conformance']\n"
        "from fuzz import corpus, targets\n"
        "targets.TARGETS['latest'] = lambda data: 1 / 0 if data[:1] != b'{' else None\n"
        "sys.argv[1:] = ['latest', '--plain', '--seconds', '60', '--found', 'found']\n"
        "runpy.run_module('tests.fuzz', run_name='__main__', alter_sys=True)\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *(each for each in sys.path if each)])
    done = subprocess.run(
        [sys.executable, "-c", start],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "ZeroDivisionError" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("repeat: python -m tests.fuzz latest"))
    assert (tmp_path / line.split()[-1]).exists()


def test_a_target_lets_nothing_but_errors_of_data_pass() -> None:
    @target
    def breaks(data: bytes) -> None:
        raise KeyError(data)

    try:
        with pytest.raises(KeyError):
            TARGETS["breaks"](b"")
    finally:
        del TARGETS["breaks"]
