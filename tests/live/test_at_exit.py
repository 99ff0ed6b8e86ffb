"""Programs that end while steps wait to be published: none is lost without a word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from forks import run

import tensordelta as td

SUBMIT = """
publisher = td.open(sys.argv[1], create=True).publisher(queue=4)
for step in range(3):
    publisher.submit(weights(step), annotations={"step": step})
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("raise ValueError('the trainer fails')", 1),
        ("sys.exit(7)", 7),
        ("raise KeyboardInterrupt", -2),
        ("del publisher", 0),
        ("sys.stderr.close()", 0),
        ("import multiprocessing as m\np = m.get_context('fork').Process(target=print)\np.start()\np.join()", 0),
    ],
    ids=["ends", "raises", "exits", "interrupted", "forgotten", "no stderr", "with a child"],
)
def test_steps_that_wait_are_published(tmp_path: Path, end: str, code: int) -> None:
    done = run(SUBMIT + end, tmp_path / "chain")
    assert done.returncode == code, done.stderr
    if sys.version_info[:3] in ((3, 12, 0), (3, 12, 1)):
        assert end == "sys.stderr.close()" or "could not be published" in done.stderr
        pytest.skip("this Python starts no thread when a program ends, and steps that wait are lost")
    assert "tensordelta:" not in done.stderr
    chain = td.open(tmp_path / "chain")
    assert [chain.manifest(version).annotations["step"] for version in chain.versions()] == ["0", "1", "2"]


def test_a_thread_that_goes_on_when_the_main_thread_has_ended(tmp_path: Path) -> None:
    program = """
publisher = td.open(sys.argv[1], create=True, threads=2).publisher()

def train():
    threading.main_thread().join()
    for step in range(2):
        publisher.submit(weights(step)).result()
    publisher.submit(weights(2))

threading.Thread(target=train).start()
"""
    done = run(program, tmp_path / "chain")
    assert (done.returncode, done.stderr) == (0, "")
    assert td.open(tmp_path / "chain").versions() == [0, 1, 2]


def test_what_cannot_be_published_in_time_is_said(tmp_path: Path) -> None:
    program = """
from tensordelta.live import at_exit
at_exit.PATIENCE = 0.2
go, begun = threading.Event(), threading.Event()

class Slow(td.FolderStore):
    def put(self, name, parts):
        begun.set()
        go.wait()

publisher = td.open(Slow(sys.argv[1]), create=True).publisher(queue=2)
for step in range(2):
    publisher.submit(weights(step), annotations={"step": step})
    begun.wait()
"""
    done = run(program, tmp_path / "chain")
    assert done.returncode == 0
    lost = [line for line in done.stderr.splitlines() if "not published" in line]
    assert len(lost) == 2 and "'step': '0'" in lost[0] and "'step': '1'" in lost[1]
    assert td.open(tmp_path / "chain").id in lost[0]


def test_what_fails_at_the_end_is_said(tmp_path: Path) -> None:
    program = """
import logging
logging.disable(logging.CRITICAL)

class Broken(td.FolderStore):
    def put(self, name, parts):
        raise td.StoreError(self.address, "put", name, "the network is gone")

publisher = td.open(Broken(sys.argv[1]), create=True).publisher()
publisher.submit(weights(0))
"""
    done = run(program, tmp_path / "chain")
    assert "could not be published" in done.stderr and "the network is gone" in done.stderr


def test_what_was_closed_says_nothing(tmp_path: Path) -> None:
    done = run(SUBMIT + "publisher.close()", tmp_path / "chain")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("prepare", ["", "import logging\nlogging.basicConfig()\n"], ids=["no handler", "a handler"])
def test_a_failure_that_standard_error_cannot_take(tmp_path: Path, prepare: str) -> None:
    """The publisher's thread outlives it, and the next call raises what failed."""
    program = """
class Broken(td.FolderStore):
    def put(self, name, parts):
        raise td.StoreError(self.address, "put", name, "the network is gone")

publisher = td.open(Broken(sys.argv[1]), create=True).publisher(queue=2)
sys.stderr.close()
for step in range(2):
    ticket = publisher.submit(weights(step))
    try:
        ticket.result(60)
    except td.StoreError as error:
        print(error.cause)
"""
    done = run(prepare + program, tmp_path / "chain")
    assert done.stdout.splitlines() == ["the network is gone"] * 2
