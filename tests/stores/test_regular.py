"""Opening regular files only, also on systems without /proc or O_PATH."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from descriptors import opened_below

from tensordelta.stores import regular
from tensordelta.stores.regular import IrregularError, open_regular

SYSTEMS = ["Linux", "no /proc", "no O_PATH"]


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system, which may lack something."""
    if request.param == "no /proc":
        real = os.open

        def opened(path: Any, *arguments: Any, **more: Any) -> int:
            if str(path).startswith("/proc/"):
                raise FileNotFoundError(path)
            return real(path, *arguments, **more)

        monkeypatch.setattr(os, "open", opened)
    elif request.param == "no O_PATH":
        monkeypatch.setattr(regular, "_PATH", None)
    return str(request.param)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # such a name may have a hundred letters only


KINDS: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("file"),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "pipe": lambda path: os.mkfifo(path),
    "socket": bound,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_refused(system: str, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"data")
    KINDS[kind](tmp_path / "other")
    folder = os.open(tmp_path, os.O_RDONLY)
    before = opened_below(tmp_path)
    for flags in (os.O_RDONLY, os.O_RDWR):
        with pytest.raises(IrregularError):
            open_regular("other", flags, dir_fd=folder)
    assert opened_below(tmp_path) == before
    os.close(folder)


def test_a_regular_file_is_opened(system: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    before = opened_below(tmp_path)
    for descriptor in (
        open_regular(tmp_path / "file", os.O_RDWR),
        open_regular(tmp_path / "link", follow=True),
    ):
        assert os.read(descriptor, 10) == b"data"
        os.close(descriptor)
    assert opened_below(tmp_path) == before
    for name in ("absent", "file/below"):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            open_regular(tmp_path / name)


def test_a_file_that_is_replaced_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without /proc, where the name is looked up again."""
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "other").write_bytes(b"other")
    real = os.open

    def opened(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path).startswith("/proc/"):
            (tmp_path / "other").replace(tmp_path / "file")
            raise FileNotFoundError(path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(IrregularError, match="was replaced"):
        open_regular(tmp_path / "file")
