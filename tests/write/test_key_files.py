"""The files of keys: what is no small regular file of this user's own is refused before it is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from signed_chains import PUBLIC, SECRET

import tensordelta as td
from tensordelta.write.keys import public_key, secret_key

READ: dict[str, Callable[[Path], object]] = {"secret": secret_key, "public": public_key}
TEXTS = {"secret": SECRET, "public": PUBLIC}


def key_file(tmp_path: Path, kind: str = "secret", mode: int = 0o600) -> Path:
    path = tmp_path / f"{kind}.key"
    path.write_text(TEXTS[kind])
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o604, 0o640, 0o440])
def test_a_secret_key_that_others_can_read(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, mode=mode)
    with pytest.raises(td.UntrustedError, match="other users can read it") as caught:
        secret_key(path)
    assert f"chmod 600 {path}" in caught.value.advice and SECRET not in str(caught.value)
    path.chmod(0o400)
    assert secret_key(path) == secret_key(SECRET)


@pytest.mark.parametrize("kind", READ)
def test_a_key_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = key_file(tmp_path, kind)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(td.UntrustedError, match="another user owns it"):
        READ[kind](path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of root's")
def test_a_key_that_root_hands_to_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path, mode=0o440)
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert secret_key(path) == secret_key(SECRET)
    path.chmod(0o444)
    with pytest.raises(td.UntrustedError, match="other users can read it"):
        secret_key(path)


@pytest.mark.parametrize("kind", READ)
def test_a_file_that_is_too_large_for_a_key_is_not_read(tmp_path: Path, kind: str) -> None:
    path = key_file(tmp_path, kind)
    os.truncate(path, 1 << 40)
    with pytest.raises(ValueError, match="at most 16384 bytes"):
        READ[kind](path)


@pytest.mark.parametrize("place", ["pipe", "/dev/zero"])
@pytest.mark.parametrize("kind", READ)
def test_a_key_that_is_no_regular_file(tmp_path: Path, kind: str, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / place
    code = "import resource, sys; from pathlib import Path\n"
    code += "resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))\n"
    code += f"from tensordelta.write.keys import {kind}_key; {kind}_key(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=300)
    assert "IrregularError" in done.stderr and "is no regular file, and a key is in one" in done.stderr
