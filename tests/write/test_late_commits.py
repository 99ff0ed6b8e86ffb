"""A publish that takes longer than a collector's grace period says so, and the next one is read by everybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensordelta as td
from tensordelta.format.names import MANIFESTS, SHORTCUTS, manifest_name


class Slow(td.FolderStore):
    """A folder whose writer is stopped before, or after, it creates an object under a prefix."""

    def __init__(self, root: Path, prefix: str) -> None:
        super().__init__(root)
        self.prefix = prefix
        self.before: Callable[[], object] = lambda: None
        self.amid: Callable[[], object] = lambda: None

    def size(self, name: str) -> int | None:
        if name.startswith("layouts/"):  # the first object that is looked for before the commit
            before, self.before = self.before, lambda: None
            before()
        return super().size(name)

    def create(self, name: str, data: bytes) -> bool:
        if name.startswith(self.prefix):
            self.amid()
        return super().create(name, data)


def state(step: int) -> dict[str, np.ndarray]:
    words = np.arange(1000, dtype=np.uint16)
    words[step] += 7
    return {"w": words}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(2):
        chain.publish(state(step))
    return tmp_path / "chain"


def collect(root: Path) -> None:
    td.open(root, threads=1).collect(2, grace=0)


def test_what_a_collector_took_is_missed(root: Path) -> None:
    store = Slow(root, MANIFESTS)
    store.before = lambda: collect(root)
    with pytest.raises(td.MissingError, match="grace period") as caught:
        td.open(store, threads=1).publish(state(2))
    assert caught.value.rule == "TD-OBJ-012" and caught.value.object.startswith("packs/")
    chain = td.open(root, threads=1)
    assert chain.versions() == [0, 1] and chain.verify(deep=True).ok
    assert chain.publish(state(2)).version == 2
    assert chain.load().equals(td.State.from_arrays(state(2)))


@pytest.mark.parametrize("same", [True, False], ids=["same writer", "other machine"])
def test_what_a_collector_took_amid_the_creation(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """The version stays, since a manifest is never replaced by another one; the next one does without it."""
    store = Slow(root, MANIFESTS)
    chain = td.open(store, threads=1)
    store.amid = lambda: collect(root)
    with pytest.raises(td.MissingError, match=r"cannot be read.*the next version is full") as caught:
        chain.publish(state(2), files={"config.json": b"{}"})
    assert caught.value.rule == "TD-OBJ-012" and caught.value.object.startswith(("packs/", "files/"))
    store.amid = lambda: None
    assert td.open(root).versions() == [0, 1, 2]
    assert td.open(root)._reader.documents.hint().version == 1, "nobody is led to it"
    if not same:
        monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "another machine's"))
        chain = td.open(root, threads=1)
    made = chain.publish(state(3))
    assert (made.version, made.base) == (3, None)
    assert chain.publish(state(4)).base == 3
    assert td.open(root).load().equals(td.State.from_arrays(state(4)))
    td.open(root).pull(tmp_path / "pulled")


@pytest.mark.parametrize("when", ["before", "amid"])
def test_a_shortcut_misses_it_as_well(root: Path, when: str) -> None:
    store = Slow(root, SHORTCUTS)
    setattr(store, when, lambda: collect(root))
    with pytest.raises(td.MissingError, match="grace period"):
        td.open(store, threads=1).shortcut(None, 1)
    chain = td.open(root, threads=1)
    assert len(list(chain._reader.store.names(SHORTCUTS))) == (when == "amid")
    assert chain.load().equals(td.State.from_arrays(state(1))), "by the other route"


def test_a_number_that_was_dropped_is_not_used_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = Slow(root, "nothing")
    chain = td.open(store, threads=1)
    put = td.FolderStore.put

    def others(self: td.FolderStore, name: str, parts: object) -> None:
        put(self, name, parts)  # type: ignore[arg-type]
        if self is store and name.startswith("packs/"):
            monkeypatch.setattr(td.FolderStore, "put", put)
            monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "other cache"))
            other = td.open(root, threads=1)
            for step in (3, 4):
                other.publish(state(step), full=True)
            other.collect(1, grace=0)

    monkeypatch.setattr(td.FolderStore, "put", others)
    with pytest.raises(td.ConflictError, match="version 3 was published meanwhile") as caught:
        chain.publish(state(2))
    assert (caught.value.object, caught.value.rule) == (manifest_name(2), "TD-OBJ-014")
    assert td.open(root).versions() == [3]
