"""What was held of signed chains is remembered for the user, so that no fresh folder is given an older version."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from signed_chains import PUBLIC, SECRET

import tensordelta as td
from tensordelta.cli import main

TRUST = ("--trusted-key", PUBLIC)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A signed chain of versions 0 to 2; its writer is another user."""
    reader = os.environ["TENSORDELTA_CACHE"]
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "writer"))
    chain = td.open(tmp_path / "chain", create=True, threads=1, key=SECRET)
    for step in range(3):
        chain.publish({"w": np.full(100, step, np.float32)})
    monkeypatch.setenv("TENSORDELTA_CACHE", reader)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "chain"


def withhold(chain: Path, version: int) -> None:
    """Show the chain as it was before a version."""
    for path in chain.glob(f"manifests/{version:012d}.json*"):
        path.rename(path.with_name(f".{path.name}"))
    (chain / "latest.json").unlink(missing_ok=True)


def show_again(chain: Path) -> None:
    for path in chain.glob("manifests/.*"):
        path.rename(path.with_name(path.name[1:]))


def reader(chain: Path, **options: object) -> td.Chain:
    return td.open(chain, threads=1, trusted_keys=[PUBLIC], **options)


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_a_fresh_folder(chain: Path) -> None:
    run("pull", chain, "one", *TRUST)
    withhold(chain, 2)
    refused = run("pull", chain, "two", *TRUST, "--json", code=1)
    assert "TD-SIG-005" in refused and "--allow-rollback" in refused
    for command in (("log",), ("show",), ("pull", "two"), ("pull", "one")):
        name, *rest = command
        assert "TD-SIG-005" in run(name, chain, *rest, *TRUST, "--json", code=1)
    found = json.loads(run("verify", chain, *TRUST, "--json", code=1))
    assert [fault["rule"] for fault in found["faults"]] == ["TD-SIG-005"]
    assert "version 1" in run("pull", chain, "three")  # without keys the store is believed

    assert "version 1" in run("pull", chain, "two", "--allow-rollback", *TRUST)
    assert "version 1" in run("pull", chain, "four", *TRUST), "the user went back"
    show_again(chain)
    assert "version 2" in run("pull", chain, "four", *TRUST)


@pytest.mark.parametrize("way", ["load", "prepare", "follow", "follow_folder", "pull"])
def test_a_fresh_state(chain: Path, way: str, tmp_path: Path) -> None:
    reader(chain).load()
    withhold(chain, 2)
    ways = {
        "load": lambda: reader(chain).load(),
        "prepare": lambda: reader(chain).prepare(td.State.empty()),
        "follow": lambda: next(reader(chain).follow(td.State.empty(), timeout=0)),
        "follow_folder": lambda: next(reader(chain).follow_folder(tmp_path / "out", timeout=0)),
        "pull": lambda: reader(chain).pull(tmp_path / "out"),
    }
    with pytest.raises(td.UntrustedError, match="older than 2") as caught:
        ways[way]()
    assert caught.value.rule == "TD-SIG-005"
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_version_that_the_user_names(chain: Path) -> None:
    """Nobody chose it for the user."""
    reader(chain).load()
    assert reader(chain).load(0)["w"][0] == 0
    withhold(chain, 2)
    with pytest.raises(td.UntrustedError):
        reader(chain).load()


def test_a_version_that_was_replaced(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader(chain).load()
    withhold(chain, 2)
    with monkeypatch.context() as other:
        other.setenv("TENSORDELTA_CACHE", str(tmp_path / "writer"))
        td.open(chain, threads=1, key=SECRET).publish({"w": np.full(100, 9, np.float32)})
    with pytest.raises(td.UntrustedError, match="differs") as caught:
        reader(chain).load()
    assert caught.value.rule == "TD-SIG-006"


def test_other_chains_do_not_count(chain: Path, tmp_path: Path) -> None:
    reader(chain).load()
    other = td.open(tmp_path / "other", create=True, threads=1, key=SECRET)
    other.publish({"w": np.zeros(3, np.float32)})
    assert reader(tmp_path / "other").load().version == 0


def test_a_cache_folder_that_cannot_be_used(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "file"))
    assert reader(chain).load().version == 2
    assert "not remembered" in caplog.text and str(tmp_path / "file") in caplog.text


def test_a_record_that_a_loss_of_power_emptied(chain: Path) -> None:
    reader(chain).load()
    (record,) = Path(os.environ["TENSORDELTA_CACHE"], "held", td.open(chain).id).iterdir()
    record.write_bytes(b"")
    assert reader(chain).load().version == 2
    withhold(chain, 2)
    with pytest.raises(td.UntrustedError):
        reader(chain).load()


# -- the id of a chain -------------------------------------------------------------------------------------------------


def test_commands_that_pin_a_chain_id(chain: Path, tmp_path: Path) -> None:
    own = td.open(chain).id
    td.open("other", create=True, threads=1, key=SECRET).publish({"w": np.zeros(3, np.float32)})
    run("pull", chain, "out")
    for command in (
        ("log", chain),
        ("show", chain),
        ("pull", chain, "out"),
        ("verify", chain),
        ("verify", "out"),
        ("plan", chain),
        ("gc", chain, "--keep-last", "9", "--dry-run"),
        ("pin", chain, "0", "eval"),
        ("unpin", chain, "eval"),
        ("shortcut", chain, "0", "2"),
        ("copy", chain, "copy"),
    ):
        run(*command, "--chain-id", own.upper())
        other = [str(each).replace(str(chain), "other") for each in command]
        if command[1] != "out":
            assert own in run(*other, "--chain-id", own, code=1)
    assert "TD-APP-005" in run("verify", "out", "--chain-id", td.open("other").id, "--json", code=1)
    assert "chain id" in run("log", chain, "--chain-id", "mine", code=2)


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666, 0o777])
def test_a_secret_key_that_others_can_write(chain: Path, tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    key.chmod(mode)
    for use in (
        lambda: td.open(chain, key=key),
        lambda: td.open(chain).publish({"w": np.zeros(3)}, key=key),
        lambda: td.open(chain).sign(key),
    ):
        with pytest.raises(td.UntrustedError, match="other users can write") as caught:
            use()
        assert "chmod" in caught.value.advice
    refused = json.loads(run("sign", chain, "--key", key, "--json", code=1).partition("\nerror:")[0])
    assert (refused["ok"], refused["error"], refused["object"]) == (False, "untrusted", str(key))
    key.chmod(0o600)
    assert td.open(chain, key=key).newest() == 2


def test_a_trusted_key_that_others_can_write(chain: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_text(PUBLIC)
    for mode, trusted in ((0o666, False), (0o646, False), (0o664, True), (0o644, True)):
        key.chmod(mode)
        if trusted:
            assert td.open(chain, trusted_keys=[key]).newest() == 2
        else:
            with pytest.raises(td.UntrustedError, match="other users can write"):
                td.open(chain, trusted_keys=[key])
