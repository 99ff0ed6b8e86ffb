"""Publishing: numbers of versions, what they hold, and two writers of one version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from folders import INDEX, PRIVATE, all_tensors, contents, save
from safetensors.numpy import save_file
from two_tensors import BOTH, ONE, PAIR, TWO, Meddling, lists, read, single

import tensordelta as td
from tensordelta import State


def test_version_numbers_and_gaps(chain: td.Chain) -> None:
    assert chain.publish(ONE, version=3).version == 3
    assert chain.publish({"w": ONE["w"] + 1}).version == 4
    assert chain.publish({"w": ONE["w"] + 2}, version=10).base == 4
    for version in (9, 5, 0, -1):
        with pytest.raises(ValueError, match="not greater than the newest, 10"):
            chain.publish(ONE, version=version)
    for version in (10, 4):
        with pytest.raises(td.ConflictError):
            chain.publish(ONE, version=version)
    with pytest.raises(ValueError, match="out of range"):
        chain.publish(ONE, version=10**12)
    last = chain.publish({"w": ONE["w"] + 3}, version=10**12 - 1)
    assert (last.version, last.base) == (10**12 - 1, 10)
    assert chain.versions() == [3, 4, 10, 10**12 - 1]
    assert [read(chain, version)["w"][0] for version in chain.versions()] == [0, 1, 2, 3]
    with pytest.raises(td.LimitError, match="is the last version that a chain can have") as caught:
        chain.publish(ONE)
    assert (caught.value.object, caught.value.rule) == ("manifests/999999999999.json", "TD-LIM-006")
    with pytest.raises(ValueError, match="out of range"):
        td.open(Path(chain.address).with_name("other"), create=True).publish(ONE, version=-1)


def test_an_empty_delta(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(BOTH)
    chain.pull(tmp_path / "out")
    published = chain.publish(BOTH)
    assert (published.version, published.base, published.changed, published.packs) == (1, 0, 0, 0)
    assert published.size < 1024
    assert chain.manifest(1).fingerprint == chain.manifest(0).fingerprint
    assert chain.pull(tmp_path / "out").version == 1
    assert read(chain, 1) == lists(BOTH)
    assert chain.verify(deep=True).ok


def test_only_tensors_go_or_come(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(BOTH)
    for arrays in (ONE, BOTH, {**BOTH, "z": np.zeros(4, np.int8)}, {"w": ONE["w"].reshape(2, 4)}, {}, TWO):
        chain.publish(arrays, layout_change=True)
        chain.pull(tmp_path / "out")
        assert read(chain) == lists(arrays)
        assert sum(map(len, all_tensors(tmp_path / "out").values())) == len(arrays)
    assert chain.verify(deep=True).ok


def test_full_versions(chain: td.Chain) -> None:
    chain.publish(ONE)
    full = chain.publish({"w": ONE["w"] + 1}, full=True)
    assert (full.base, full.changed) == (None, 8)
    assert chain.publish({"w": ONE["w"] + 2}).base == 1
    Path(chain.address, "manifests", "000000000000.json").unlink()
    assert read(chain) == {"w": [2, 3, 4, 5, 6, 7, 8, 9]}


def test_codecs(chain: td.Chain) -> None:
    rng = np.random.default_rng(5)
    words = rng.normal(size=5000).astype(ml_dtypes.bfloat16)
    states = [words]
    for _ in range(3):
        words = words.copy()
        at = rng.permutation(5000)[:60]
        words.view(np.uint16)[at] += 1
        states.append(words)
    chain.publish({"w": states[0]})
    step = chain.publish({"w": states[1]}, values="step")
    replace = chain.publish({"w": states[2]}, values="replace")
    exponent = chain.publish({"w": states[3]}, order="exponent")
    assert [each.changed for each in (step, replace, exponent)] == [60, 60, 60]
    assert [chain.manifest(version).features for version in range(4)] == [[], [], [], ["exponent-order"]]
    sizes = [chain.manifest(version).size for version in (1, 2)]
    assert sizes[0] < sizes[1]
    for version, each in enumerate(states):
        assert td.open(chain.address).load(version)["w"].tobytes() == each.tobytes()
    assert chain.verify(deep=True).ok


def test_files_are_carried_and_stored_once(chain: td.Chain, tmp_path: Path) -> None:
    files = {"config.json": b"{}" * 500, "tokenizer.json": b"t" * 5000, "copy.json": b"t" * 5000}
    chain.publish(save(tmp_path / "0", single(ONE), files))
    stored = {path: path.stat().st_ino for path in Path(chain.address, "files").iterdir()}
    assert len(stored) == 2
    second = chain.publish(save(tmp_path / "1", single({"w": ONE["w"] + 1}), files))
    assert second.size < 3000
    assert {path: path.stat().st_ino for path in Path(chain.address, "files").iterdir()} == stored
    assert {file.name for file in chain.manifest(1).files} == set(files)
    third = chain.publish(save(tmp_path / "2", single(ONE), {**files, "config.json": b"new", "tokenizer.json": b"{}"}))
    assert third.version == 2
    assert len(list(Path(chain.address, "files").iterdir())) == 4
    for version in (0, 1, 2, 1):
        chain.pull(tmp_path / "out", version)
        assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / str(version) / "config.json").read_bytes()


def test_states_without_files_keep_those_of_the_version_before(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR, {"config.json": b"{}"})
    chain.publish(folder, plain=True)
    chain.pull(tmp_path / "out")
    names = contents(folder).keys()
    save_file({**BOTH, "w": ONE["w"] + 1}, tmp_path / "step.safetensors")
    for state in ({**BOTH, "w": ONE["w"] + 2}, State.from_arrays(BOTH), tmp_path / "step.safetensors"):
        chain.publish(state)
        assert len(chain.pull(tmp_path / "out").route) == 1
        assert contents(tmp_path / "out").keys() == names
        assert (tmp_path / "out" / INDEX).read_bytes() == (folder / INDEX).read_bytes()
    # An index of other tensors would lead loaders astray.
    chain.publish({**BOTH, "new": ONE["w"]}, full=True, layout_change=True)
    chain.pull(tmp_path / "out")
    assert contents(tmp_path / "out").keys() == {"config.json", "model.safetensors"}
    assert len(list(Path(chain.address, "files").iterdir())) == 2


@pytest.mark.parametrize("wrong", [{"values": "steps"}, {"order": "exp"}, {"values": None}])
def test_unknown_codecs_are_refused_before_anything_is_put(chain: td.Chain, wrong: dict[str, str]) -> None:
    chain.publish(ONE)
    with pytest.raises(ValueError, match="not one of"):
        chain.publish({"w": ONE["w"] + 1}, **wrong)
    assert chain.versions() == [0]


def test_a_chain_gets_a_folder_of_its_own(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(ONE)
    chain.pull(tmp_path / "pulled")
    with pytest.raises(td.ConflictError, match="no chain"):
        td.open(tmp_path / "pulled", create=True)
    with pytest.raises(td.ConflictError, match="not a checkpoint"):
        chain.publish(chain.address)
    assert chain.verify(deep=True).ok


def test_a_chain_that_was_replaced_is_not_written_to(chain: td.Chain) -> None:
    chain.publish(ONE)
    shutil.rmtree(chain.address)
    other = td.open(chain.address, create=True)
    other.publish(ONE)
    with pytest.raises(td.ConflictError):
        chain.publish({"w": ONE["w"] + 1})
    assert other.versions() == [0]
    assert other.verify(deep=True).ok


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_no_object(chain: td.Chain, make: Callable[[Path], None]) -> None:
    chain.publish(ONE)
    make(Path(chain.address, "manifests", "000000000009.json"))
    assert td.open(chain.address).newest() == 0
    with pytest.raises(td.MissingError):
        td.open(chain.address).load(9)


def test_links_in_a_pulled_folder_are_not_followed(chain: td.Chain, tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint", PAIR, {"1_Pooling/config.json": b"{}"})
    chain.publish(folder)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "model.safetensors").write_bytes(b"mine")
    out = tmp_path / "out"
    (out / PRIVATE).mkdir(parents=True)
    (out / PRIVATE / "next").symlink_to(precious)
    (out / "1_Pooling").symlink_to(precious)
    with pytest.raises(td.ConflictError):
        chain.pull(out)
    (out / "1_Pooling").unlink()
    chain.pull(out)
    assert contents(precious) == {"model.safetensors": b"mine"}


# -- two writers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def meddled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Meddling, td.Chain, td.Chain]:
    """A store, a chain in it with one version, and the same chain as a writer on another machine has it."""
    store = Meddling(tmp_path / "chain")
    mine = td.open(store, create=True, threads=1)
    mine.publish(ONE)
    other = td.open(tmp_path / "chain", threads=1)
    with monkeypatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "cache of the other"))
        assert str(other._publisher._snapshot.checkout.folder).startswith(str(tmp_path / "cache of the other"))
    return store, mine, other


@pytest.mark.parametrize("full", [False, True])
def test_a_second_writer_of_a_version(meddled: tuple[Meddling, td.Chain, td.Chain], full: bool) -> None:
    store, mine, other = meddled
    store.once("manifests/", lambda: other.publish({"w": ONE["w"] + 5}))
    with pytest.raises(td.ConflictError) as caught:
        mine.publish({"w": ONE["w"] + 1}, full=full)
    assert (caught.value.rule, caught.value.object) == ("TD-WRT-006", "manifests/000000000001.json")
    assert read(mine, 1)["w"][0] == 5
    # Whoever lost goes on from what the other one published.
    again = mine.publish({"w": ONE["w"] + 1})
    assert (again.version, again.base) == (2, 1)
    assert read(mine, 2)["w"][0] == 1
    assert mine.verify(deep=True).ok


def test_another_manifest_with_other_files_or_base(
    meddled: tuple[Meddling, td.Chain, td.Chain], tmp_path: Path
) -> None:
    store, mine, other = meddled
    state = {"w": ONE["w"] + 1}
    store.once("manifests/", lambda: other.publish(state, full=True))
    with pytest.raises(td.ConflictError):
        mine.publish(state)
    with_file = save(tmp_path / "checkpoint", single({"w": ONE["w"] + 2}), {"config.json": b"{}"})
    store.once("manifests/", lambda: other.publish({"w": ONE["w"] + 2}))
    with pytest.raises(td.ConflictError):
        mine.publish(with_file)


def test_the_same_manifest_counts_as_success(meddled: tuple[Meddling, td.Chain, td.Chain]) -> None:
    store, mine, other = meddled
    state = {"w": ONE["w"] + 1}
    store.once("manifests/", lambda: other.publish(state, values="replace", annotations={"by": "other"}))
    published = mine.publish(state, annotations={"by": "me"})
    assert (published.version, published.annotations) == (1, {"by": "other"})
    assert mine.publish({"w": ONE["w"] + 2}).base == 1
    assert mine.verify(deep=True).ok


def test_a_version_is_published_again(tmp_path: Path, chain: td.Chain) -> None:
    """Who does not know whether a version was published publishes it again; nothing changes then."""
    chain.publish(ONE)
    two = {"w": ONE["w"] + 1}
    chain.publish(two, version=1, files={"config.json": b"{}"}, annotations={"by": "the first try"})
    chain.publish({"w": ONE["w"] + 2})
    before = {path: path.read_bytes() for path in Path(chain.address).rglob("*") if path.is_file()}
    again = td.open(chain.address)
    published = again.publish(two, version=1, files={"config.json": b"{}"}, annotations={"by": "the second"})
    assert (published.version, published.base, published.size) == (1, 0, 0)
    assert published.annotations == {"by": "the first try"}
    assert again.publish(ONE, version=0).version == 0
    others = (
        lambda: again.publish({"w": ONE["w"] + 3}, version=1, files={"config.json": b"{}"}),
        lambda: again.publish({"w": two["w"].reshape(2, -1)}, version=1, files={"config.json": b"{}"}),
        lambda: again.publish(two, version=1, files={"config.json": b"{ }"}),
        lambda: again.publish(two, version=1),
        lambda: again.publish(two, version=1, files={"config.json": b"{}"}, full=True),
    )
    for other in others:
        with pytest.raises(td.ConflictError) as caught:
            other()
        assert caught.value.rule == "TD-WRT-006" and caught.value.object == "manifests/000000000001.json"
    assert {path: path.read_bytes() for path in Path(chain.address).rglob("*") if path.is_file()} == before


WRITER = """
import sys
import numpy as np
import tensordelta as td
chain = td.open(sys.argv[1], threads=1)
add = float(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    version = int(line)
    try:
        chain.publish({"w": np.arange(8, dtype=np.float32) + add + version}, version=version)
        print("won", flush=True)
    except (td.ConflictError, ValueError) as fault:
        assert isinstance(fault, td.ConflictError) or "not greater" in str(fault)
        print("lost", flush=True)
"""


def test_two_processes_publish_one_version(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(ONE)
    both = []
    for add in (100, 200):
        env = {**os.environ, "TENSORDELTA_CACHE": str(tmp_path / f"cache {add}")}
        python = [sys.executable, "-c", WRITER, chain.address, str(add)]
        both.append(subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env))

    def say(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()

    def hear(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    assert [hear(process) for process in both] == ["ready", "ready"]
    for version in range(1, 9):
        for process in both:
            say(process, f"{version}\n")
        results = [hear(process) for process in both]
        assert sorted(results) == ["lost", "won"]
        assert read(chain, version)["w"][0] == version + (100 if results[0] == "won" else 200)
    for process in both:
        process.communicate()
        assert process.returncode == 0
    assert chain.versions() == list(range(9))
    assert chain.verify(deep=True).ok
