"""Files that another process truncates or rewrites while they are read: an error, never a signal or a torn version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from descriptors import opened_below
from folders import flip, save
from two_tensors import BOTH, ONE, Meddling, lists, read, single

import tensordelta as td

#: Runs in a process of its own, which a signal may end. The file has 32 MiB, and loses all but its first page.
TRUNCATED = """
import os, sys
from pathlib import Path
import numpy as np
import tensordelta as td
from two_tensors import Meddling

root, way = Path(sys.argv[1]), sys.argv[2]
path = root / "model" / "model.safetensors"
path.parent.mkdir()
words = np.arange(1 << 23, dtype=np.float32)
td.State.from_arrays({"w": words}).save(path)
store = Meddling(root / "chain")
chain = td.open(store, create=True, threads=2)
if "delta" in way:
    chain.publish({"w": words + 1})
state = td.read_state(path)

def truncate():
    os.truncate(path, 4096)

def submit():
    with chain.publisher(skip=()) as publisher:
        publisher.submit(state)

def meddled(work):
    store.once("layouts/" if "full" in way or "plain" in way else "packs/", truncate)
    work()
    truncate()

ways = {
    "a full version of a folder": lambda: meddled(lambda: chain.publish(path.parent)),
    "a full version of a state": lambda: meddled(lambda: chain.publish(state)),
    "a plain version": lambda: meddled(lambda: chain.publish(path.parent, plain=True)),
    "a delta": lambda: (truncate(), chain.publish(state)),
    "in the background": lambda: (truncate(), submit()),
    "a difference": lambda: (truncate(), td.diff({"w": words}, state)),
    "a fingerprint": lambda: (truncate(), state.fingerprint()),
    "a copy": lambda: (truncate(), state.copy()),
    "a file": lambda: (truncate(), state.save(root / "other.safetensors")),
    "equality": lambda: (truncate(), state == td.State.from_arrays({"w": words})),
    "an array": lambda: (truncate(), state["w"]),
}
try:
    ways[way]()
except td.IntegrityError as fault:
    assert fault.object.startswith(str(path.parent)), fault
    assert "report it" not in str(fault) and "restore it" not in str(fault), fault
    print("refused, versions", chain.versions(), [each.name for each in root.iterdir() if each.suffix])
"""


@pytest.mark.parametrize(
    "way",
    [
        *("a full version of a folder", "a full version of a state", "a plain version", "a delta", "in the background"),
        *("a difference", "a fingerprint", "a copy", "a file", "equality", "an array"),
    ],
)
def test_a_file_that_is_truncated_is_an_error(tmp_path: Path, way: str) -> None:
    package, tests = Path(td.__file__).parents[1], Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATED, str(tmp_path), way],
        env=os.environ | {"PYTHONPATH": f"{package}:{tests}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == f"refused, versions {[0] if way == 'a delta' else []} []\n"


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_a_file_that_is_rewritten_meanwhile_makes_no_version(tmp_path: Path, full: bool, read_first: bool) -> None:
    store = Meddling(tmp_path / "chain")
    chain = td.open(store, create=True)
    chain.publish({**BOTH, "w": ONE["w"] + 1})
    folder = save(tmp_path / "model", single(BOTH))
    store.once("packs/", lambda: flip(folder / "model.safetensors"))
    with pytest.raises(td.IntegrityError, match="changed while"):
        chain.publish(td.read_state(folder) if read_first else folder, full=full)
    assert chain.versions() == [0]
    assert chain.publish(folder).version == 1 and chain.verify(deep=True).ok


def test_a_file_that_another_one_replaces_is_read_as_it_was(tmp_path: Path) -> None:
    """How trainers save: the new file takes the name, and the old one stays whole for those who have opened it."""
    store = Meddling(tmp_path / "chain")
    chain = td.open(store, create=True)
    folder = save(tmp_path / "model", single(BOTH))
    store.once("packs/", lambda: td.State.from_arrays(ONE).save(folder / "model.safetensors"))
    chain.publish(folder)
    assert read(chain) == lists(BOTH)


def test_a_state_of_files_holds_one_descriptor_for_each(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", {f"{index}.safetensors": {str(index): ONE["w"]} for index in range(20)})
    state = td.read_state(folder)
    state.fingerprint()
    assert opened_below(folder) == 20
    del state
    assert opened_below(folder) == 0


def test_words_are_read_in_parts(tmp_path: Path) -> None:
    """A tensor larger than what is read at a time, at an odd place in its file, in all that reads it."""
    words = np.arange(5 << 20, dtype=np.uint32)
    state = td.State.from_arrays({"a": np.ones(3, np.uint8), "w": words, "empty": np.zeros((0, 2), np.uint16)})
    state.save(tmp_path / "x.safetensors")
    found = td.read_state(tmp_path / "x.safetensors")
    assert found.fingerprint() == state.fingerprint() and found == state and found.copy() == state
    found.save(tmp_path / "y.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()
    assert td.diff(state, found).changed == td.diff(found, state).changed == 0
    words[-1] += 1
    assert found != state and td.diff(found, state).changed == 1
