"""A tenth of the damage campaign, and that it finds what it is there to find."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from damage.campaign import campaign
from damage.operations import FAULT
from tensordelta.checkout import examination
from tensordelta.read import packs, proven
from tensordelta.read.prepare import Preparation

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_wrong_comes_of_two_thousand_damages() -> None:
    """In a process of its own, which may take only so much memory."""
    path = os.pathsep.join(each for each in sys.path if each)
    command = [sys.executable, "-m", "tests.damage", "--count", "2000", "--seed", "20261130"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-2].split()
    assert last[0] == "all" and sum(int(each.replace(",", "")) for each in last[1:]) == 2000


def nothing(*_: Any, **__: Any) -> None:
    """A check that finds no fault."""


def believed(open_blob: Callable[[], Any], *, size: int, **_: Any) -> packs.Blob:
    """Bytes that are taken without a look at their digest."""
    with open_blob() as blob:
        return proven.MemoryBlob(blob.read(0, min(size, blob.size)))


GAPS: dict[str, tuple[object, str, object]] = {
    "the new state is not proven": (Preparation, "prove", nothing),
    "digests are not compared": (packs, "prove", believed),
    "words of a folder are not scanned": (examination, "_scan", nothing),
}


@pytest.mark.slow
@pytest.mark.parametrize("gap", GAPS)
def test_the_campaign_finds_that_a_check_is_missing(gap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with campaign(1) as made:
        made.worlds = [each for each in made.worlds if each.name in ("dtypes", "packs", "files", "written-signed")]
        for world in made.worlds:
            assert world.needed and world.clean
        monkeypatch.setattr(*GAPS[gap])
        outcomes = (made.case(number) for number in range(1000))
        wrong = ("has other words", "has other files")
        assert any(each.verdict == FAULT and any(map(each.error.__contains__, wrong)) for each in outcomes)


def test_a_case_is_made_of_its_seed_and_number() -> None:
    with campaign(5) as made:
        first = [str(made.case(number)) for number in range(12)]
        assert [str(made.case(number)) for number in range(12)] == first
        assert made.case(0) != made.case(1)
