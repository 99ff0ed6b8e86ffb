"""The writer's snapshot: what it is compared with, and rebuilt from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import PRIVATE, contents, flip, save
from two_tensors import ONE, Meddling, read, single

import tensordelta as td
from tensordelta import State
from tensordelta.write.encoder import Comparison
from tensordelta.write.snapshot import snapshot_folder


def rebuilt(caplog: pytest.LogCaptureFixture) -> bool:
    return any("is rebuilt" in record.getMessage() for record in caplog.records)


def snapshot(chain: td.Chain) -> Path:
    return snapshot_folder(chain.id)


def test_the_snapshot_is_the_newest_version(chain: td.Chain, tmp_path: Path) -> None:
    for add in range(3):
        chain.publish({"w": ONE["w"] + add})
        chain.pull(tmp_path / "out")
        assert contents(snapshot(chain)) == contents(tmp_path / "out")


HARM: dict[str, Callable[[Path], object]] = {
    "deleted": shutil.rmtree,
    "emptied": lambda folder: [shutil.rmtree(folder / PRIVATE), (folder / "model.safetensors").unlink()],
    "word": lambda folder: flip(folder / "model.safetensors"),
    "word, same time": lambda folder: flip(folder / "model.safetensors", restore_time=True),
    "header": lambda folder: flip(folder / "model.safetensors", 9, restore_time=True),
    "cut short": lambda folder: os.truncate(folder / "model.safetensors", 20),
    "file removed": lambda folder: (folder / "model.safetensors").unlink(),
    "state": lambda folder: (folder / PRIVATE / "state.json").write_text("x"),
    "state removed": lambda folder: (folder / PRIVATE / "state.json").unlink(),
    "undo": lambda folder: (folder / PRIVATE / "undo").write_text("x"),
    "decision": lambda folder: (folder / PRIVATE / "next.json").write_text("{}"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_snapshot_is_rebuilt(chain: td.Chain, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    chain.publish(ONE)
    chain.publish({"w": ONE["w"] + 1})
    HARM[harm](snapshot(chain))
    again = td.open(chain.address)
    published = again.publish({"w": ONE["w"] + 2})
    assert (published.version, published.base, published.changed) == (2, 1, 8)
    assert rebuilt(caplog) == (harm not in ("deleted", "emptied"))
    assert read(chain) == {"w": [2, 3, 4, 5, 6, 7, 8, 9]}
    assert chain.verify(deep=True).ok
    assert again.publish({"w": ONE["w"] + 3}).base == 2


@pytest.mark.parametrize("harm", ["word, same time", "header", "cut short"])
def test_a_snapshot_damaged_while_it_was_behind(
    chain: td.Chain, harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.publish(ONE)
    with monkeypatch.context() as patch:  # another machine publishes
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))
        td.open(chain.address).publish({"w": ONE["w"] + 1})
    HARM[harm](snapshot(chain))
    assert td.open(chain.address).publish({"w": ONE["w"] + 2}).base == 1
    assert read(chain) == {"w": [2, 3, 4, 5, 6, 7, 8, 9]}
    assert chain.verify(deep=True).ok


def test_two_processes_share_a_snapshot(chain: td.Chain) -> None:
    other = td.open(chain.address)
    chain.publish(ONE)
    for add in range(1, 7):
        writer = (chain, other)[add % 2]
        assert writer.publish({"w": ONE["w"] + add}).base == add - 1
        assert read(chain) == {"w": (ONE["w"] + add).tolist()}
    assert chain.verify(deep=True).ok


def test_a_snapshot_that_is_ahead_of_the_chain(chain: td.Chain, tmp_path: Path) -> None:
    chain.publish(ONE)
    shutil.copytree(chain.address, tmp_path / "backup")
    for add in (1, 2):
        chain.publish({"w": ONE["w"] + add})
    shutil.rmtree(chain.address)
    shutil.move(tmp_path / "backup", chain.address)
    again = td.open(chain.address)
    assert again.publish({"w": ONE["w"] + 7}).base == 0
    assert read(again) == {"w": (ONE["w"] + 7).tolist()}
    assert again.verify(deep=True).ok


@pytest.mark.parametrize("behind", [0, 1])
def test_copies_of_a_chain_that_go_separate_ways(chain: td.Chain, tmp_path: Path, behind: int) -> None:
    # Both have one id, so they share a snapshot folder, in which a version number says nothing.
    chain.publish(ONE)
    shutil.copytree(chain.address, tmp_path / "copy")
    copy = td.open(tmp_path / "copy")
    chain.publish({"w": ONE["w"] + 1})
    copy.publish({"w": ONE["w"] + 5})
    for _ in range(behind):
        copy.publish({"w": ONE["w"] + 6})
    for writer, add in ((td.open(chain.address), 10), (td.open(tmp_path / "copy"), 20), (td.open(chain.address), 30)):
        writer.publish({"w": ONE["w"] + add})
        assert read(writer) == {"w": (ONE["w"] + add).tolist()}
    for each in (chain, copy):
        assert td.open(each.address).verify(deep=True).ok


def test_a_snapshot_that_another_process_uses(chain: td.Chain) -> None:
    chain.publish(ONE)
    other = td.open(chain.address)
    with other._publisher._snapshot.checkout.locked(), pytest.raises(td.ConflictError, match="another process"):
        chain.publish({"w": ONE["w"] + 1})
    assert chain.versions() == [0]
    assert chain.publish({"w": ONE["w"] + 1}).version == 1


def test_no_one_moves_the_snapshot_while_it_is_compared(tmp_path: Path) -> None:
    store = Meddling(tmp_path / "chain")
    chain = td.open(store, create=True)
    chain.publish(ONE)
    other = td.open(tmp_path / "chain")
    faults: list[td.ConflictError] = []

    def publish() -> None:
        with pytest.raises(td.ConflictError) as caught:
            other.publish({"w": ONE["w"] + 5})
        faults.append(caught.value)

    store.once("packs/", publish)
    chain.publish({"w": ONE["w"] + 1}, version=7)
    assert "another process" in faults[0].reason
    assert other.publish({"w": ONE["w"] + 5}).base == 7
    assert chain.verify(deep=True).ok


def test_a_fault_of_the_chain_does_not_cost_the_snapshot(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chain.publish(ONE)
    with monkeypatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))
        td.open(chain.address).publish({"w": ONE["w"] + 1})
    (pack,) = [Path(chain.address, str(entry.path)) for entry in td.open(chain.address).manifest(1).packs]
    whole = pack.read_bytes()
    pack.write_bytes(bytes(len(whole)))
    before = contents(snapshot(chain), private=True)
    with pytest.raises(td.IntegrityError):
        td.open(chain.address).publish({"w": ONE["w"] + 2})
    assert contents(snapshot(chain), private=True) == before and not rebuilt(caplog)
    pack.write_bytes(whole)
    assert td.open(chain.address).publish({"w": ONE["w"] + 2}).base == 1


def test_a_version_of_which_a_pack_is_gone(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one is full: nobody could read a delta to it."""
    chain.publish(ONE)
    chain.publish({"w": ONE["w"] + 1})
    (pack,) = [Path(chain.address, str(entry.path)) for entry in chain.manifest(1).packs]
    pack.unlink()
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))
    assert td.open(chain.address).publish({"w": ONE["w"] + 2}).base is None
    assert any("version 1 cannot be read" in record.getMessage() for record in caplog.records)
    assert td.open(chain.address).load().equals(td.State.from_arrays({"w": ONE["w"] + 2}))


def test_a_version_is_published_where_the_snapshot_cannot_follow(
    chain: td.Chain, _own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(_own_cache)
    _own_cache.write_text("no folder")
    assert chain.publish(ONE).version == 0
    assert any("did not follow" in record.getMessage() for record in caplog.records)
    _own_cache.unlink()
    assert chain.publish({"w": ONE["w"] + 1}).base == 0
    assert chain.verify(deep=True).ok


def test_a_newest_version_that_cannot_be_read(chain: td.Chain) -> None:
    chain.publish(ONE)
    Path(chain.address, "manifests", "000000000001.json").write_text('{"tensordelta": "1.0-rc.1"}')
    again = td.open(chain.address)
    with pytest.raises(td.MalformedError):
        again.publish({"w": ONE["w"] + 1})
    assert again.publish({"w": ONE["w"] + 1}, full=True).version == 2
    assert again.publish({"w": ONE["w"] + 2}).base == 2
    assert read(again, 3)["w"][0] == 2


def test_a_state_that_is_the_snapshot_itself(chain: td.Chain) -> None:
    chain.publish(save(snapshot(chain).with_name("first"), single(ONE)))
    published = chain.publish(snapshot(chain) / "model.safetensors")
    assert (published.version, published.changed) == (1, 0)


def test_the_encoder_proves_what_is_published(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    # A snapshot that differs from the version that the manifest names would make a delta that no one can use.
    chain.publish(ONE)
    bases: list[str] = []
    made = Comparison.of_states

    def of_states(base: State | None, *arguments: Any) -> Comparison:
        bases.append("full" if base is None else base.fingerprint())
        return made(base, *arguments)

    monkeypatch.setattr(Comparison, "of_states", of_states)
    chain.publish({"w": ONE["w"] + 1})
    chain.publish({"w": ONE["w"] + 2})
    assert bases == [chain.manifest(version).fingerprint for version in (0, 1)]


OTHER = 65534
#: Added to the words from number 100, these leave the fingerprint of a tensor as it is.
SAME_SUM = [-4, -3, 7, 5, -34, -5, 19, 14, 14, -7, -24, 2]


def poison(chain: td.Chain) -> None:
    """Give the snapshot other words with the same sum, and a record that says nothing of it."""
    folder = snapshot(chain)
    path = folder / "model.safetensors"
    before = path.stat()
    data = bytearray(path.read_bytes())
    words = np.frombuffer(data, "<u2", 12, len(data) - 24)
    words += np.array(SAME_SUM).astype(np.uint16)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    record = folder / PRIVATE / "state.json"
    held = json.loads(record.read_bytes())
    after = path.stat()
    held["files"]["model.safetensors"].update(
        mtime_ns=after.st_mtime_ns, ctime_ns=after.st_ctime_ns, inode=after.st_ino
    )
    record.write_text(json.dumps(held, separators=(",", ":")))


FOREIGN: dict[str, Callable[[Path], object]] = {
    "the private folder is open to others": lambda folder: (folder / PRIVATE).chmod(0o777),
    "the record is open to others": lambda folder: (folder / PRIVATE / "state.json").chmod(0o666),
    "the shard is open to a group": lambda folder: (folder / "model.safetensors").chmod(0o664),
    "the private folder is another user's": lambda folder: os.chown(folder / PRIVATE, OTHER, OTHER),
    "the record is another user's": lambda folder: os.chown(folder / PRIVATE / "state.json", OTHER, OTHER),
    "the shard is another user's": lambda folder: os.chown(folder / "model.safetensors", OTHER, OTHER),
    "a folder of files is another user's": lambda folder: os.chown(folder / "1_Pooling", OTHER, OTHER),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_snapshot_that_others_could_change_is_made_anew(
    tmp_path: Path, foreign: str, caplog: pytest.LogCaptureFixture
) -> None:
    if "another" in foreign and os.geteuid():
        pytest.skip("only root can give files away")
    before = np.arange(1000, 1112, dtype=np.uint16)
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    chain.publish({"w": before}, files={"1_Pooling/config.json": b"{}"})
    poison(chain)
    FOREIGN[foreign](snapshot(chain))
    after = before + np.uint16(1)
    again = td.open(chain.address, threads=1)
    assert again.publish({"w": after}).base == 0
    assert np.array_equal(again.load(1)["w"], after) and again.verify(deep=True).ok
    assert any("other users can write to" in record.getMessage() for record in caplog.records)
    caplog.clear()
    again.publish({"w": after + np.uint16(1)})
    assert not caplog.records


def test_a_snapshot_is_kept_whatever_the_mask_of_modes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = os.umask(0)
    try:
        chain = td.open(tmp_path / "chain", create=True, threads=1)
        for add in range(3):
            chain.publish({"w": ONE["w"] + add}, files={"1_Pooling/config.json": b"%d" % add})
            chain = td.open(chain.address, threads=1)
        chain.shortcut(0, 2, work=tmp_path / "work")
        td.open(chain.address, threads=1).shortcut(None, 2, work=tmp_path / "work")
    finally:
        os.umask(mask)
    assert not caplog.records


def test_a_cache_folder_that_others_could_exchange_is_refused(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    cache = shared / "between" / "cache"
    cache.mkdir(parents=True)
    (tmp_path / "link").symlink_to(cache)
    chain.publish(ONE)
    for named in (cache, tmp_path / "link"):
        monkeypatch.setenv("TENSORDELTA_CACHE", str(named))
        for mode in (0o777, 0o775):
            shared.chmod(mode)
            with pytest.raises(td.UntrustedError, match="other users can rename what is in it") as caught:
                td.open(chain.address).publish({"w": ONE["w"] + 1})
            assert caught.value.object == str(shared) and "TENSORDELTA_CACHE" in caught.value.advice
        if not os.geteuid():
            shared.chmod(0o755)
            os.chown(shared, OTHER, OTHER)
            with pytest.raises(td.UntrustedError, match="above the cache folder"):
                td.open(chain.address).publish({"w": ONE["w"] + 1})
            os.chown(shared, 0, 0)
    assert chain.versions() == [0]
    shared.chmod(0o1777)  # as /tmp
    assert td.open(chain.address).publish({"w": ONE["w"] + 1}).version == 1
