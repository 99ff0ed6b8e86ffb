"""Commands with keys, and what happens without the package for signatures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from signed_chains import PUBLIC, SECRET

import tensordelta as td
from tensordelta.cli import main
from tensordelta.format.signature import Message
from tensordelta.write.keys import public_key, secret_key, write_key_pair

# -- the extra ---------------------------------------------------------------------------------------------------------


def test_without_the_package_for_signatures(tmp_path: Path) -> None:
    td.open(tmp_path / "chain", create=True, threads=1, key=SECRET).publish({"w": np.zeros(3, np.float32)})
    script = """
import sys
sys.modules["cryptography"] = None
import tensordelta as td
from tensordelta.cli import main
assert td.open("chain").load()["w"].tolist() == [0, 0, 0]
for options in ({"trusted_keys": [%r]}, {"key": %r}):
    try:
        td.open("chain", **options)
    except ImportError as error:
        print(error)
main(["log", "chain", "--trusted-key", %r])
"""
    package = str(Path(td.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script % (PUBLIC, SECRET, PUBLIC)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=600,
    )
    says = "signatures need the package cryptography: pip install 'tensordelta[sign]'"
    assert done.stdout == f"{says}\n{says}\n" and done.stderr == f"Error: {says}.\n" and done.returncode == 1


def test_cryptography_is_imported_when_keys_are_used_only() -> None:
    script = "import sys, tensordelta.cli, tensordelta.write.keys; print('cryptography' in sys.modules)"
    package = str(Path(td.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


# -- the command line --------------------------------------------------------------------------------------------------


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def facts(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two keys, and three steps."""
    monkeypatch.chdir(tmp_path)
    for name in ("key", "other"):
        write_key_pair(tmp_path / name)
    for step in range(3):
        words = np.arange(40, dtype=np.float32)
        words[:step] += 1
        save_file({"w": words}, f"{step}.safetensors")
    return tmp_path


def test_keygen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = facts("keygen", "key")
    assert (made["secret"], made["public"]) == ("key", "key.pub")
    assert public_key("key.pub") == public_key(made["key"]) and public_key("key.pub").id == made["keyid"]
    shown = run("keygen", "second")
    assert public_key("second.pub").raw.hex() in shown and secret_key("second").raw.hex() not in shown
    assert "File exists" in run("keygen", "key", code=1)


def signature(name: str) -> Path:
    """Where the first key's signature of an object of the chain lies."""
    return Path("chain", Message(name, Path("chain", name).read_bytes()).signature_name(public_key("key.pub")))


def test_a_signed_chain_by_commands(place: Path) -> None:
    for step in range(3):
        run("publish", "chain", f"{step}.safetensors", "--key", "key")
    trust = ("--trusted-key", "key.pub")
    assert [row["version"] for row in facts("log", "chain", *trust)] == [0, 1, 2]
    assert facts("show", "chain", *trust, "--max-age", "3600")["version"] == 2
    assert facts("verify", "chain", "--deep", *trust)["ok"]
    both = (*trust, "--trusted-key", "other.pub", "--threshold", "2")
    assert "0 of the 2" in run("log", "chain", *both, code=1) or "1 of the 2" in run("log", "chain", *both, code=1)
    assert facts("plan", "chain", "--from", "1", *trust)["base"] == 1
    assert facts("pull", "chain", "out", "--trusted-key", "other.pub", *trust)["version"] == 2
    assert load_file("out/model.safetensors")["w"].tolist()[:3] == [1, 2, 2]
    older = run("pull", "chain", "out", "--to", "1", *trust, code=1)
    assert older.startswith("error: version 1 is older than 2, ") and "--allow-rollback" in older
    assert "TD-SIG-005" in run("pull", "chain", "out", "--to", "1", *trust, "--json", code=1)
    assert facts("pull", "chain", "out", "--to", "1", "--allow-rollback", *trust)["version"] == 1

    signature("manifests/000000000002.json").unlink()
    assert facts("pull", "chain", "out", *trust)["version"] == 1
    hexadecimal = public_key("key.pub").raw.hex()
    assert "TD-SIG-012" in run("show", "chain", "2", "--trusted-key", hexadecimal, "--json", code=1)
    assert "TD-SIG-012" in run("verify", "chain", *trust, code=1)
    for command in ("log", "verify", "show"):
        assert "chain.json" in run(command, "chain", "--trusted-key", "other.pub", code=1)
    assert facts("verify", "chain")["ok"]
    signed = facts("sign", "chain", "--key", "key")
    assert signed == {"keyid": public_key("key.pub").id, "signed": ["manifests/000000000002.json"]}
    assert "nothing to do" in run("sign", "chain", "--key", "key")
    assert facts("pull", "chain", "out", *trust)["version"] == 2


def test_the_age_by_commands(place: Path) -> None:
    run("publish", "chain", "0.safetensors", "--key", "key")
    time.sleep(0.01)
    for command in (["log", "chain"], ["show", "chain"], ["pull", "chain", "out"], ["verify", "chain"]):
        assert "TD-SIG-008" in run(*command, "--trusted-key", "key.pub", "--max-age", "0", "--json", code=1)
        run(*command, "--trusted-key", "key.pub", "--max-age", "1000")


def test_signing_by_commands(place: Path) -> None:
    for step in range(3):
        run("publish", "chain", f"{step}.safetensors")
    refused = run("publish", "chain", "0.safetensors", "--key", "key", code=1)
    assert refused.startswith("error: chain.json is not signed by a trusted key. ") and "tensordelta sign" in refused
    assert facts("sign", "chain", "--key", "key", "--version", "0", "--version", "1")["signed"] == [
        "chain.json",
        "manifests/000000000000.json",
        "manifests/000000000001.json",
    ]
    assert "signed 1 object" in run("sign", "chain", "--key", "key")
    run("shortcut", "chain", "full", "2", "--key", "key")
    assert signature("shortcuts/000000000002-full.json").exists()
    assert len(facts("sign", "chain", "--key", "other", "--trusted-key", "key.pub")["signed"]) == 5
    run("publish", "chain", "0.safetensors", "--key", "key", "--trusted-key", "other.pub")
    assert facts(
        "gc", "chain", "--keep-last", "1", "--grace", "0", "--trusted-key", "key.pub", "--trusted-key", "other.pub"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["publish", "chain", "0.safetensors", "--key", "nowhere"], "nowhere"),
        (["publish", "chain", "0.safetensors", "--key", "key.pub"], "public key"),
        (["publish", "chain", "0.safetensors", "--key", SECRET], "No such file"),
        (["publish", "chain", "0.safetensors", "--trusted-key", "key.pub"], "--key"),
        (["log", "chain", "--trusted-key", "key"], "secret key"),
        (["log", "chain", "--trusted-key", "0.safetensors"], "hex digits"),
        (["log", "chain", "--max-age", "5"], "trusted keys"),
        (["pull", "chain", "out", "--allow-rollback"], "trusted keys"),
        (["sign", "chain"], "--key"),
    ],
    ids=lambda each: " ".join(each[-2:]) if isinstance(each, list) else None,
)
def test_wrong_usage(arguments: list[str], says: str, place: Path) -> None:
    before = sorted(place.iterdir())
    assert says in run(*arguments, code=2)
    assert sorted(place.iterdir()) == before
