"""Folders that an attacker prepared so that everything in them agrees: files, record, times and fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from folders import PRIVATE, contents, flip
from signed_chains import PUBLIC, SECRET

import tensordelta as td
from tensordelta.checkout.checkout import Checkout
from tensordelta.cli import main
from tensordelta.codecs import fingerprint
from tensordelta.stores.anchored import Folder

SHARD = "model.safetensors"
CONFIG = b'{"a": 1}'
OTHER_CONFIG = b'{"auto_map": {"AutoModel": "evil.Model"}}'


#: Changes of words 100 to 111 of a tensor `w` that leave its fingerprint as it is, found by reducing a lattice.
RELATION = (-4, -3, 7, 5, -34, -5, 19, 14, 14, -7, -24, 2)
WORDS = 128


def words(step: int) -> np.ndarray:
    return np.arange(1000 + step, 1000 + step + WORDS, dtype=np.uint16)


def colliding() -> np.ndarray:
    result = words(0)
    result[100:112] += np.array(RELATION).astype(np.uint16)
    return result


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    """A signed chain of two versions, as its reader without keys opens it."""
    chain = td.open(tmp_path / "chain", create=True, threads=1, key=SECRET)
    for step in range(2):
        chain.publish({"w": words(step)}, files={"config.json": CONFIG})
    return td.open(tmp_path / "chain", threads=1)


def trusting(chain: td.Chain) -> td.Chain:
    return td.open(chain.address, threads=1, trusted_keys=[PUBLIC], allow_rollback=True)


def record(folder: Path, change: Callable[[dict[str, Any]], object] = lambda files: None) -> None:
    """Make the record agree with the files that lie there."""
    path = folder / PRIVATE / "state.json"
    held = json.loads(path.read_bytes())
    change(held["files"])
    for name, file in held["files"].items():
        status = (folder / name).stat()
        times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns, "inode": status.st_ino}
        file.update(size=status.st_size, **times)
        if not file["shard"]:
            file["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_bytes(json.dumps(held, separators=(",", ":"), ensure_ascii=False).encode())


def put_words(folder: Path, put: np.ndarray) -> None:
    data = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(data[: -put.nbytes] + put.tobytes())


def held_words(folder: Path) -> np.ndarray:
    return np.frombuffer((folder / SHARD).read_bytes()[-2 * WORDS :], np.uint16)


def altered_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(OTHER_CONFIG)
    record(folder)


def another_file(folder: Path) -> None:
    (folder / "evil.py").write_bytes(b"import os\n")
    record(folder, lambda files: files.update({"evil.py": files["config.json"].copy()}))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    record(folder, lambda files: files.pop("config.json"))


def renamed_shard(folder: Path) -> None:
    (folder / SHARD).rename(folder / "backup.safetensors")
    record(folder, lambda files: files.update({"backup.safetensors": files.pop(SHARD)}))


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("scan", [None, True])
@pytest.mark.parametrize("prepare", [altered_config, another_file, no_config, renamed_shard])
def test_a_record_of_other_files(
    chain: td.Chain, tmp_path: Path, prepare: Callable[[Path], None], scan: bool | None, keys: bool
) -> None:
    folder = tmp_path / "out"
    chain.pull(folder)
    expected = contents(folder)
    prepare(folder)
    assert contents(folder) != expected
    pulled = (trusting(chain) if keys else chain).pull(folder, scan=scan)
    assert contents(folder) == expected
    (reason,) = pulled.repaired
    assert ("trusted keys" if keys else "other files than version 1") in reason
    assert Checkout(folder).verify(threads=1) == (1, [])
    assert not chain.pull(folder).route


def test_a_shard_of_another_name_beside_weights_of_the_attacker(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    chain.pull(folder)
    renamed_shard(folder)
    td.State.from_arrays({"w": np.full(WORDS, 0x666, np.uint16)}).save(folder / SHARD)
    for scan in (None, True):
        with pytest.raises(td.ConflictError, match="is in the way"):
            chain.pull(folder, scan=scan)


@pytest.mark.parametrize("prepare", [altered_config, another_file, renamed_shard])
def test_a_record_of_other_files_in_a_folder_that_cannot_be_written_to(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Path], None]
) -> None:
    folder = tmp_path / "out"
    chain.pull(folder)
    read_only(monkeypatch)
    assert not chain.pull(folder).route
    prepare(folder)
    with pytest.raises(td.WrongBaseError, match="other files than version 1"):
        chain.pull(folder)


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "lock")

    monkeypatch.setattr(Folder, "open_or_create", refused)


# -- words with the same fingerprint -----------------------------------------------------------------------------------


def test_there_are_other_words_with_the_same_fingerprint() -> None:
    assert fingerprint.scan("w", colliding()) == fingerprint.scan("w", words(0))
    assert not np.array_equal(colliding(), words(0))


@pytest.mark.parametrize("scan", [None, True, False])
@pytest.mark.parametrize("version", [0, 1])
def test_with_keys_fingerprints_prove_nothing(
    chain: td.Chain, tmp_path: Path, scan: bool | None, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    chain.pull(folder, 0)
    put_words(folder, colliding())
    record(folder)
    pulled = trusting(chain).pull(folder, version, scan=scan)
    assert np.array_equal(held_words(folder), words(version))
    assert "a pull of this user with trusted keys" in pulled.repaired[0] and pulled.repaired[0] in caplog.text
    # From then on it is this user's.
    again = trusting(chain)
    assert [again.pull(folder, each, scan=scan).repaired for each in (version, 0, 1)] == [()] * 3
    assert [len(again.pull(folder, each).route) for each in (0, 0, 1, 1)] == [1, 0, 1, 0]


@pytest.mark.parametrize("what", ["words", "record"])
def test_with_keys_a_folder_that_was_changed_since(chain: td.Chain, tmp_path: Path, what: str) -> None:
    """Someone who can write to a folder of this user, such as one that they made and let him pull into."""
    folder = tmp_path / "out"
    reader = trusting(chain)
    reader.pull(folder, 0)
    status = (folder / SHARD).stat()
    put_words(folder, colliding())
    os.utime(folder / SHARD, ns=(status.st_atime_ns, status.st_mtime_ns))
    if what == "record":
        record(folder)
    assert trusting(chain).pull(folder, 0).repaired
    assert np.array_equal(held_words(folder), words(0))
    assert not reader.pull(folder, 0).repaired


def test_with_keys_a_copy_of_ones_own_folder_is_another_folder(chain: td.Chain, tmp_path: Path) -> None:
    reader = trusting(chain)
    reader.pull(tmp_path / "out", 0)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    put_words(tmp_path / "copy", colliding())
    record(tmp_path / "copy")
    assert reader.pull(tmp_path / "copy", 0).repaired
    assert np.array_equal(held_words(tmp_path / "copy"), words(0))


def test_a_pull_without_keys_proves_nothing_to_a_later_one_with_keys(chain: td.Chain, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    reader = trusting(chain)
    reader.pull(folder, 0)
    chain.pull(folder, 1)
    assert reader.pull(folder, 1).repaired
    assert not reader.pull(folder, 1).repaired


def test_with_keys_a_folder_that_cannot_be_written_to(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, opened in ((tmp_path / "own", trusting(chain)), (tmp_path / "other", chain)):
        opened.pull(folder)
    read_only(monkeypatch)
    assert not trusting(chain).pull(tmp_path / "own").route
    with pytest.raises(td.UntrustedError, match="trusted keys") as caught:
        trusting(chain).pull(tmp_path / "other")
    assert caught.value.object == str(tmp_path / "other") and caught.value.rule == "TD-SEC-001"
    assert not chain.pull(tmp_path / "other").route


def test_with_keys_and_without_a_cache_folder(chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process pulled it knows; the next one makes the folder anew."""
    monkeypatch.setenv("TENSORDELTA_CACHE", os.devnull)
    reader = trusting(chain)
    assert [reader.pull(tmp_path / "out", each).repaired for each in (0, 1, 1)] == [()] * 3
    assert trusting(chain).pull(tmp_path / "out", 1).repaired


# -- a folder that is exchanged ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["names", "make", "has", "folder"])
def test_a_folder_that_is_exchanged_while_it_is_made(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Its parent belongs to an attacker, who puts a link to a folder of the user's in its place."""
    folder, home = tmp_path / "shared" / "out", tmp_path / "home"
    home.mkdir()
    (home / "notes").write_text("mine")
    folder.mkdir(parents=True)
    act = getattr(Folder, after)

    def then_exchanged(*arguments: Any, **options: Any) -> Any:
        result = act(*arguments, **options)
        if not folder.is_symlink():
            folder.rename(tmp_path / "shared" / "moved")
            folder.symlink_to(home)
        return result

    monkeypatch.setattr(Folder, after, then_exchanged)
    chain.pull(folder)
    assert contents(home, private=True) == {"notes": b"mine"}
    assert Checkout(tmp_path / "shared" / "moved").verify(threads=1) == (1, [])


def test_a_folder_that_was_exchanged_before_it_is_opened(
    chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, home = tmp_path / "shared" / "out", tmp_path / "home"
    home.mkdir()
    (home / "notes").write_text("mine")
    folder.mkdir(parents=True)
    mkdir = Path.mkdir

    def then_exchanged(path: Path, *arguments: Any, **options: Any) -> None:
        if path == folder and not folder.is_symlink():
            folder.rmdir()
            folder.symlink_to(home)
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", then_exchanged)
    with pytest.raises(td.ConflictError, match="no pull made them"):
        chain.pull(folder)
    assert contents(home, private=True) == {"notes": b"mine"}


# -- what the command line says ----------------------------------------------------------------------------------------


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == code, done.output
    return done.output


def facts(*arguments: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json", code=code))
    return found


@pytest.fixture
def flipped(chain: td.Chain, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    chain.pull(folder)
    put_words(folder, words(0))
    return folder


def test_verify_of_a_folder_with_a_chain_in_it_checks_both(chain: td.Chain, flipped: Path) -> None:
    shutil.copytree(chain.address, flipped, dirs_exist_ok=True)
    found = facts("verify", flipped, code=1)
    assert (found["ok"], found["versions"]) == (False, [0, 1])
    assert [(fault["error"], fault["object"]) for fault in found["faults"]] == [("wrong-base", str(flipped))]
    put_words(flipped, words(1))
    assert "version 1, a chain of 2 versions, no fault" in " ".join(run("verify", flipped).split())
    flip(next((flipped / "packs").iterdir()))
    assert facts("verify", flipped, code=1)["faults"][0]["rule"] == "TD-MAN-013"


@pytest.mark.parametrize("kind", ["folder", "dead link"])
def test_what_is_no_file_makes_no_chain_of_a_folder(flipped: Path, kind: str) -> None:
    if kind == "folder":
        (flipped / "chain.json").mkdir()
    else:
        (flipped / "chain.json").symlink_to("nowhere")
    assert [fault["error"] for fault in facts("verify", flipped, code=1)["faults"]] == ["wrong-base"]


def test_verify_of_a_pulled_folder_takes_no_keys(chain: td.Chain, tmp_path: Path) -> None:
    chain.pull(tmp_path / "out")
    said = " ".join(run("verify", tmp_path / "out", "--trusted-key", PUBLIC, code=2).replace("│", " ").split())
    assert "the record of a pulled DIR is not signed" in said and "pull --trusted-key" in said


TAKEN = ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "evil.py", "pytorch_model.bin"]


def test_files_that_loaders_take_and_no_pull_made_are_listed(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(2):
        chain.publish({"w": words(step)}, files={"config.json": CONFIG, "1_Pooling/config.json": CONFIG})
    folder = tmp_path / "out"
    assert facts("pull", chain.address, folder, "--to", "0")["left_alone"] == []
    for name in (*TAKEN, "notes", "1_Pooling/model.safetensors", "1_Pooling/\x1b[2J.py"):
        (folder / name).write_bytes(b"x")
    (folder / "more.safetensors").symlink_to("nowhere")
    (folder / "folder.bin").mkdir()
    expected = sorted([*TAKEN, "1_Pooling/model.safetensors", "1_Pooling/\x1b[2J.py", "more.safetensors"])
    before = contents(folder)
    for arguments in (
        ("pull", chain.address, folder, "--to", "0"),
        ("pull", chain.address, folder),
        ("pull", chain.address, folder, "--follow", "--to", "1"),
        ("verify", folder),
    ):
        assert facts(*arguments)["left_alone"] == expected
        said = run(*arguments)
        assert "adapter_config.json" in said and "made by no pull" in " ".join(said.split())
        assert "\x1b" not in said
    assert {name: data for name, data in contents(folder).items() if name != SHARD} == {
        name: data for name, data in before.items() if name != SHARD
    }
