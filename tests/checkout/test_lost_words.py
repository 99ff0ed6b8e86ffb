"""Pulled folders of which a disk or a copy lost bits, although no program wrote to their files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkouts import FIRST, SECOND, refused
from folders import INDEX, PRIVATE, all_tensors, contents, flip

import tensordelta as td
from tensordelta.checkout import checkout
from tensordelta.checkout.checkout import Checkout
from tensordelta.checkout.examination import Scan
from tensordelta.write.snapshot import snapshot_folder

COMMAND = [sys.executable, "-m", "tensordelta", "pull", "--json"]


def unseen(folder: Path, **members: object) -> None:
    """Make the record say that the files are as they are now: a test cannot lose a bit without another change time."""
    path = folder / PRIVATE / "state.json"
    record = json.loads(path.read_bytes()) | members
    for name, file in record["files"].items():
        status = (folder / name).stat()
        file.update(mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, inode=status.st_ino)
    path.write_bytes(json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode())


def torn(path: Path) -> None:
    """Eight bytes of a file are those of others."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        there = file.read(8)
        file.seek(-32, os.SEEK_END)
        assert file.read(8) != there
        file.seek(-32, os.SEEK_END)
        file.write(there)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


LOSSES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a word": (lambda folder: flip(folder / SECOND, restore_time=True), SECOND),
    "a word, and another shard": (
        lambda folder: flip(folder / SECOND, restore_time=True) or flip(folder / FIRST, restore_time=True),
        FIRST,
    ),
    "a torn page": (lambda folder: torn(folder / SECOND), SECOND),
    "a header": (lambda folder: flip(folder / FIRST, 40, restore_time=True), FIRST),
    "a header's length": (lambda folder: flip(folder / FIRST, 5, restore_time=True), FIRST),
    "a file": (lambda folder: flip(folder / "config.json", restore_time=True), "config.json"),
    "a file in a folder": (
        lambda folder: flip(folder / "1_Pooling" / "config.json", restore_time=True),
        "1_Pooling/config.json",
    ),
    "the index": (lambda folder: flip(folder / INDEX, restore_time=True), INDEX),
}


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_was_lost_is_made_anew(
    chain: td.Chain, tmp_path: Path, loss: str, seen: bool, target: int, caplog: pytest.LogCaptureFixture
) -> None:
    """By a process that did not pull the folder; `seen` is whether the file system shows another change time."""
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    act, name = LOSSES[loss]
    act(folder)
    if not seen:
        unseen(folder)
        checkout._KNOWN.clear()
    pulled = chain.pull(folder, target)
    assert pulled.version == target and pulled.route
    assert any(name in each for each in pulled.repaired)
    assert any("is rebuilt" in record.getMessage() and name in record.getMessage() for record in caplog.records)
    chain.pull(tmp_path / "fresh", target)
    assert contents(folder) == contents(tmp_path / "fresh")
    assert Checkout(folder).verify(threads=1) == (target, [])
    assert chain.pull(folder, target).repaired == ()


def test_the_command_scans_and_says_what_it_repaired(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    flip(folder / SECOND, restore_time=True)
    unseen(folder)
    pulls = [subprocess.run([*COMMAND, chain.address, folder], capture_output=True, text=True) for _ in range(2)]
    assert [each.returncode for each in pulls] == [0, 0]
    first, second = (json.loads(each.stdout) for each in pulls)
    assert first["repaired"] == [f"1 tensors of {SECOND} have other words (head)"] and second["repaired"] == []
    assert first["scanned"] == second["scanned"] == 30 * 4 * 2 + 6 * 4 + 4 * 30 * 4
    assert "is rebuilt" in pulls[0].stderr and pulls[1].stderr == ""
    assert all_tensors(folder) == all_tensors(tmp_path / "checkpoints" / "1")


def test_later_pulls_of_a_process_scan_where_they_are_asked_to(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    flip(folder / SECOND, restore_time=True)
    unseen(folder)
    assert chain.pull(folder, 0).scanned == 0
    followed = list(chain.follow_folder(folder, until=1, scan=True))
    assert [bool(each.repaired) for each in followed] == [True]
    assert all_tensors(folder) == all_tensors(tmp_path / "checkpoints" / "1")


def matched(folder: Path, chain: td.Chain) -> None:
    """The record is made to match the words that are there, so that nothing in the folder tells of the loss."""
    words = [td.read_state(folder)[tensor.name] for tensor in chain.layout(0).tensors]
    state = td.State.from_arrays(
        {tensor.name: each for tensor, each in zip(chain.layout(0).tensors, words, strict=True)}
    )
    unseen(folder, sums=state.sums(threads=1).astype("<u8").tobytes().hex())


@pytest.mark.parametrize("scan", [None, True])
def test_a_record_that_matches_the_lost_words(chain: td.Chain, tmp_path: Path, scan: bool | None) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    flip(folder / SECOND, restore_time=True)
    matched(folder, chain)
    assert Checkout(folder).verify(threads=1) == (0, [])
    assert "record was altered" in refused(td.WrongBaseError, chain, folder, 0).advice
    pulled = chain.pull(folder, 1, scan=scan)
    assert pulled.repaired == ("the folder's record is not that of version 0",)
    assert all_tensors(folder) == all_tensors(tmp_path / "checkpoints" / "1")
    assert Checkout(folder).verify(threads=1) == (1, [])


def test_a_flipped_sum_in_the_record(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    sums = json.loads((folder / PRIVATE / "state.json").read_bytes())["sums"]
    unseen(folder, sums=("1" if sums[0] == "0" else "0") + sums[1:])
    assert chain.pull(folder, 1, scan=True).repaired
    assert all_tensors(folder) == all_tensors(tmp_path / "checkpoints" / "1")


@pytest.mark.parametrize("target", [0, 1])
def test_words_that_the_disk_cannot_read(
    chain: td.Chain, tmp_path: Path, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    lost, read = (folder / SECOND).stat().st_ino, os.preadv

    def fails(descriptor: int, *arguments: object) -> int:
        if os.fstat(descriptor).st_ino == lost:
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, *arguments)

    monkeypatch.setattr(os, "preadv", fails)
    pulled = chain.pull(folder, target, scan=True)
    assert pulled.repaired == (f"{SECOND} cannot be read: Input/output error",)
    assert all_tensors(folder) == all_tensors(tmp_path / "checkpoints" / str(target))


def test_a_repair_that_fails_changes_nothing(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    flip(folder / SECOND, restore_time=True)
    for pack in (tmp_path / "chain" / "packs").iterdir():
        pack.rename(tmp_path / pack.name)
    before = contents(folder, private=True)
    with pytest.raises(td.MissingError):
        td.open(tmp_path / "chain").pull(folder)
    assert contents(folder, private=True) == before
    for pack in tmp_path.glob("*.safetensors"):
        pack.rename(tmp_path / "chain" / "packs" / pack.name)
    assert td.open(tmp_path / "chain").pull(folder).repaired


def test_a_copy_by_hard_links_keeps_what_it_has(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "out", 0)
    flip(tmp_path / "out" / SECOND, restore_time=True)
    shutil.copytree(tmp_path / "out", tmp_path / "kept", copy_function=os.link)
    before = contents(tmp_path / "kept")
    assert chain.pull(tmp_path / "out").repaired
    assert contents(tmp_path / "kept") == before


def test_scans_of_a_part_reach_every_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins where the last one ended; the first of a process begins anywhere."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    chain.publish({f"{number}": np.arange(100 * number, dtype=np.uint16) for number in range(1, 6)})
    folder = tmp_path / "out"
    chain.pull(folder)
    scan = Scan(1, first=3)
    monkeypatch.setattr(Scan, "brief", lambda: scan)
    scanned = []
    for _ in range(10):
        checkout._KNOWN.clear()
        scanned.append(chain.pull(folder).scanned // 200)
    assert scanned == [4, 5, 1, 2, 3] * 2
    flip(folder / "model.safetensors", restore_time=True)
    unseen(folder)
    for _ in range(5):
        checkout._KNOWN.clear()
        pulled = chain.pull(folder)
        if pulled.repaired:
            break
    assert pulled.repaired and Checkout(folder).verify(threads=1) == (0, [])


def test_a_scan_may_be_bounded_by_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    chain.publish({f"{number}": np.ones(100, np.uint16) for number in range(8)})
    folder = tmp_path / "out"
    chain.pull(folder)
    for scan, expected in ((Scan(1, share=0.5), 4), (Scan(600, share=0.01), 3), (Scan(1, seconds=1000), 8)):
        monkeypatch.setattr(Scan, "brief", lambda scan=scan: scan)
        checkout._KNOWN.clear()
        assert chain.pull(folder).scanned == expected * 200


def test_the_default_reads_all_of_a_folder_below_4_gib() -> None:
    class Tensor:
        nbytes = (4 << 30) // 8

    class Held:
        tensors = [Tensor()] * 16

    scan = Scan.brief()
    scan._seconds = 0  # as if half a minute had passed
    assert len(list(scan.until_enough(Held(), range(16)))) == 8  # type: ignore[arg-type]


def test_a_snapshot_that_lost_words_while_its_writer_runs(tmp_path: Path) -> None:
    """Else a delta would be made of them, and every reader would get wrong words."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    words = np.arange(1000, dtype=np.uint16)
    chain.publish({"w": words})
    chain.publish({"w": words + 1})
    for more in (2, 3):
        folder = snapshot_folder(chain.id)
        flip(folder / "model.safetensors", restore_time=True)
        unseen(folder)
        chain.publish({"w": words + more})
        assert chain.load()["w"].tolist() == (words + more).tolist()
    assert chain.verify(deep=True).ok
