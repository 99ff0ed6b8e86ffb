"""A folder store in which others exchange a folder for a link, or lay what is no object."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensordelta as td
from tensordelta.format.signature import Message
from tensordelta.stores import FolderStore
from tensordelta.write.keys import write_key_pair

NAME = "pins/x.json"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "x.json").write_bytes(b"precious")
    (folder / "other.json").write_bytes(b"precious")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "chain")
    store.put(NAME, [b"mine"])
    return store


def exchanging(monkeypatch: pytest.MonkeyPatch, module: Any, call: str, store: FolderStore, outside: Path) -> list[str]:
    """Have the next call that concerns an object find a link in the place of its folder."""
    real, done = getattr(module, call), []

    def exchanged(*arguments: Any, **more: Any) -> Any:
        if not done and (call in ("token_hex", "scandir") or ".json" in str(arguments[0])):
            done.append(call)
            (store.root / "pins").rename(store.root / "before")
            (store.root / "pins").symlink_to(outside)
        return real(*arguments, **more)

    monkeypatch.setattr(module, call, exchanged)
    return done


USES: dict[str, tuple[Any, str, Callable[[FolderStore], object]]] = {
    "put": (secrets, "token_hex", lambda store: store.put(NAME, [b"new"])),
    "create": (secrets, "token_hex", lambda store: store.create("pins/y.json", b"new")),
    "rename": (os, "replace", lambda store: store.put(NAME, [b"new"])),
    "link": (os, "link", lambda store: store.create("pins/y.json", b"new")),
    "delete": (os, "unlink", lambda store: store.delete(NAME)),
    "remove a temporary file": (os, "unlink", lambda store: store.remove_temporary("pins/x.json")),
}


@pytest.mark.parametrize("use", USES)
def test_a_folder_exchanged_for_a_link_leads_no_change_outside(
    store: FolderStore, outside: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    module, call, act = USES[use]
    done = exchanging(monkeypatch, module, call, store, outside)
    act(store)
    assert done
    assert {each.name: each.read_bytes() for each in outside.iterdir()} == dict.fromkeys(
        ["x.json", "other.json"], b"precious"
    )
    with pytest.raises(td.UntrustedError):
        act(store)


def test_a_folder_exchanged_for_a_link_is_not_read(
    store: FolderStore, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = exchanging(monkeypatch, os, "open", store, outside)
    assert store.read(NAME) == b"mine" and done


def test_a_folder_exchanged_for_a_link_is_not_listed(
    store: FolderStore, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = exchanging(monkeypatch, os, "scandir", store, outside)
    assert list(store.names("pins/")) == [NAME] and done
    with pytest.raises(td.UntrustedError, match="link out of"):
        list(store.entries("pins/"))


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[td.Chain]:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    chain.publish({"w": np.arange(4, dtype=np.uint16)})
    yield chain


def deep(root: Path) -> None:
    (root / "packs").mkdir(exist_ok=True)
    held = os.open(root / "packs", os.O_RDONLY)
    for _ in range(30):
        os.mkdir("a" * 200, dir_fd=held)
        inner = os.open("a" * 200, os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = inner
    os.close(held)


STRAY: dict[str, Callable[[Path], object]] = {
    "a link to itself": lambda root: (root / "manifests/loop").symlink_to("loop"),
    "a manifest that is a link to itself": lambda root: (root / "manifests/000000000007.json").symlink_to(
        "000000000007.json"
    ),
    "a link to a long name": lambda root: (root / "manifests/long").symlink_to("x" * 300),
    "a link through a long name": lambda root: (root / "manifests/long").symlink_to("x" * 300 + "/y"),
    "a folder that is a link to itself": lambda root: (root / "shortcuts").symlink_to("shortcuts"),
    "a deep tree": deep,
}


@pytest.mark.parametrize("stray", STRAY)
def test_what_can_be_no_object_is_passed_over(chain: td.Chain, tmp_path: Path, stray: str) -> None:
    STRAY[stray](tmp_path / "chain")
    again = td.open(chain.address, threads=1)
    assert again.versions() == [0]
    assert again.publish({"w": np.ones(4, np.uint16)}).version == 1
    assert again.verify().ok
    assert td.copy(chain.address, tmp_path / "copy").versions == [0, 1]
    assert again.collect(1, grace=0).kept == [1]


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe or device": os.mkfifo,
    "link": lambda path: path.symlink_to("000000000001.json"),
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_lies_in_the_place_of_a_version_is_named(chain: td.Chain, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "chain/manifests/000000000001.json"
    IN_THE_WAY[kind](path)
    with pytest.raises(td.StoreError, match=f"a {kind} that is no object has this name") as caught:
        chain.publish({"w": np.ones(4, np.uint16)})
    assert str(path) in caught.value.advice and "remove" in caught.value.advice and len(str(caught.value)) < 500
    path.rmdir() if path.is_dir() else path.unlink()
    assert chain.publish({"w": np.ones(4, np.uint16)}).version == 1


@pytest.mark.parametrize("name", ["chain.json", "manifests/000000000000.json"])
def test_a_signature_of_holes_is_not_read(chain: td.Chain, tmp_path: Path, name: str) -> None:
    digest = Message(name, (tmp_path / "chain" / name).read_bytes()).digest
    path = tmp_path / "chain/signatures" / f"{digest}-{'0' * 16}.json"
    path.parent.mkdir()
    path.touch()
    os.truncate(path, 1 << 40)
    assert td.copy(chain.address, tmp_path / "copy").versions == [0]
    assert not (tmp_path / "copy/signatures").exists()


def test_a_manifest_of_holes_is_not_read_to_sign_it(tmp_path: Path) -> None:
    write_key_pair(tmp_path / "key")
    signed = td.open(tmp_path / "signed", create=True, threads=1, key=str(tmp_path / "key"))
    path = tmp_path / "signed/manifests/000000000000.json"
    path.parent.mkdir()
    path.touch()
    os.truncate(path, 1 << 40)
    assert signed.publish({"w": np.ones(4, np.uint16)}, full=True).version == 1
