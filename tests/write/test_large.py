"""Large states: threads agree, memory stays bounded, and a tensor may pass 2^31 words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import all_tensors

import tensordelta as td


def test_many_words_are_applied_and_taken_back_by_several_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    old = {name: rng.integers(0, 256, 1 << 20, np.uint8) for name in "abc"}
    new = {name: array + np.uint8(1) if name == "a" else array.copy() for name, array in old.items()}
    new["b"][::3] += 1
    chain = td.open(tmp_path / "chain", create=True, threads=3)
    chain.publish(old)
    chain.publish(new)
    held = {name: array.copy() for name, array in old.items()}
    update = chain.prepare(held, 1)
    assert update.changed > 1 << 20
    update.apply()
    assert all(np.array_equal(held[name], new[name]) for name in "abc")
    update.undo()
    assert all(np.array_equal(held[name], old[name]) for name in "abc")


def test_threads_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**16, 3_000_000).astype(np.uint16)
    names = []
    for threads in (1, 4):
        chain = td.open(tmp_path / str(threads), create=True, threads=threads)
        chain.publish({"w": words})
        more = words.copy()
        more[::97] += 1
        chain.publish({"w": more})
        names.append(sorted(path.name.partition("-")[0] for path in Path(chain.address, "packs").iterdir()))
        chain.pull(tmp_path / f"out {threads}")
    assert names[0] == names[1]
    assert all_tensors(tmp_path / "out 1") == all_tensors(tmp_path / "out 4")


WATCHED = """
import sys, threading, time
import tensordelta as td
peak = 0
def watch():
    global peak
    while True:
        with open("/proc/self/status") as file:
            peak = max(peak, *(int(line.split()[1]) for line in file if line.startswith("RssAnon")))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
chain = td.open(sys.argv[2], create=True, threads=2)
result = chain.publish(sys.argv[3]) if sys.argv[1] == "publish" else chain.pull(sys.argv[3])
time.sleep(0.01)
print(result.version, peak * 1024)
"""


def anonymous_memory(*arguments: object) -> int:
    """Do something in a process of its own; gives the most memory that it had of its own, in bytes."""
    done = subprocess.run([sys.executable, "-c", WATCHED, *map(str, arguments)], capture_output=True, check=True)
    return int(done.stdout.split()[1])


def blank(path: Path, dtype: str, words: int, itemsize: int) -> tuple[Path, int]:
    """A file of one tensor of zero words that takes no room on the disk; gives also where the words begin."""
    entry = {"dtype": dtype, "shape": [words], "data_offsets": [0, words * itemsize]}
    header = json.dumps({"w": entry}).encode()
    header += b" " * (-len(header) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + words * itemsize)
    return path, 8 + len(header)


@pytest.mark.slow
def test_memory_stays_small_for_a_large_checkpoint(tmp_path: Path) -> None:
    mib = 1 << 20
    rng = np.random.default_rng(0)
    words = 64 * mib
    paths = [blank(tmp_path / "checkpoint" / f"{name}.safetensors", "BF16", words, 2) for name in "abcd"]
    for name, (path, _) in zip("abcd", paths, strict=True):
        path.write_bytes(path.read_bytes().replace(b'"w"', f'"{name}"'.encode(), 1))
    maps = [np.memmap(path, np.uint16, "r+", offset=start, shape=words) for path, start in paths]
    for each in maps:
        for start in range(0, words, 8 * mib):
            each[start : start + 8 * mib] = rng.integers(0, 1 << 16, 8 * mib, np.uint16)
        each.flush()
    used = {"publish, full": anonymous_memory("publish", tmp_path / "chain", tmp_path / "checkpoint")}
    used["pull, full"] = anonymous_memory("pull", tmp_path / "chain", tmp_path / "out")
    changes = 0
    for each in maps:
        at = np.unique(rng.integers(0, words, words // 100))
        each[at] += 1
        changes += len(at)
        each.flush()
    used["publish, delta"] = anonymous_memory("publish", tmp_path / "chain", tmp_path / "checkpoint")
    used["pull, delta"] = anonymous_memory("pull", tmp_path / "chain", tmp_path / "out")
    print({name: f"{size / mib:.0f} MiB" for name, size in used.items()})
    for what, size in used.items():
        assert size < 400 * mib + (16 * changes if what == "pull, delta" else 0), used
    for each, name in zip(maps, "abcd", strict=True):
        pulled = np.memmap(tmp_path / "out" / f"{name}.safetensors", np.uint8, "r")
        start = 8 + int.from_bytes(bytes(pulled[:8]), "little")
        for at in range(0, words, 8 * mib):
            end = start + 2 * (at + 8 * mib)
            assert np.array_equal(pulled[start + 2 * at : end].view(np.uint16), each[at : at + 8 * mib])


@pytest.mark.slow
def test_a_tensor_of_more_than_2_to_the_31_words(chain: td.Chain, tmp_path: Path) -> None:
    words = (1 << 31) + 5000
    path, start = blank(tmp_path / "huge" / "model.safetensors", "U8", words, 1)
    expected: dict[int, int] = {}
    for places in ([0, 70_000, (1 << 31) - 1, words - 1], [1, 1 << 31, (1 << 31) + 1, words - 1]):
        with path.open("r+b") as file:
            for place in places:
                expected[place] = expected.get(place, 0) + 3
                file.seek(start + place)
                file.write(bytes([expected[place]]))
        assert chain.publish(path).changed == 4
        chain.pull(tmp_path / "out")
        with (tmp_path / "out" / "model.safetensors").open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
            pulled = np.memmap(file, np.uint8, "r", offset=begin, shape=words)
            found = {int(at): int(pulled[at]) for at in np.flatnonzero(pulled)}
        assert found == expected
