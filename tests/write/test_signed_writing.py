"""Writers with a key: what they sign, and what they refuse to build on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery import CHAIN, Builder, MemoryStore, as_state, manifest_name
from safetensors.numpy import save_file
from signed_chains import (
    ANOTHER,
    FIRST,
    OTHER_PUBLIC,
    OTHER_SECRET,
    PUBLIC,
    SECOND,
    SECRET,
    SHORTCUT,
    is_member,
    sig,
    sign,
    skipping,
    state,
    store_of,
    trusting,
    unsign,
    unsigned,
)

import tensordelta as td
from generate.scenes import line, move, twins, walk

# -- writers -----------------------------------------------------------------------------------------------------------


@dataclass
class Died(Exception):
    name: str


class Recording(MemoryStore):
    """A store that tells in what order objects appear, and that dies before one does."""

    def __init__(self) -> None:
        super().__init__({})
        self.written: list[str] = []
        self.dies_at: Callable[[str], bool] = lambda name: False

    def _write(self, name: str) -> None:
        if self.dies_at(name):
            raise Died(name)
        self.written.append(name)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._write(name)
        super().put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self._write(name)
        return super().create(name, data)


def publish(chain: td.Chain, *versions: int, **options: Any) -> None:
    for version in versions:
        chain.publish(state(version), version=version, **options)


def test_a_writer_signs_what_it_makes() -> None:
    store = Recording()
    chain = td.open(store, create=True, threads=1, key=SECRET)
    publish(chain, 0, 1)
    made = chain.shortcut(None, 1)
    assert unsigned(store.objects) == [] and made.base is None
    for name in [name for name in store.objects if is_member(name)]:
        signature = sig(store.objects, name)
        assert store.written.index(signature) == store.written.index(name) - 1, "the signature comes before its object"
    again = trusting(store)
    assert again.verify(deep=True).ok and again.load().equals(state(1))


def test_a_key_for_one_version() -> None:
    store = Recording()
    chain = td.open(store, create=True, threads=1)
    for version in (0, 1):
        chain.publish(state(version), key=SECRET)
    assert unsigned(store.objects) == []
    assert trusting(store).load().equals(state(1))
    chain.publish(state(2))
    assert unsigned(store.objects) == [SECOND]
    assert trusting(store).newest() == 1


def test_a_writer_does_not_build_on_what_nobody_signed() -> None:
    plain = MemoryStore(dict(line(walk(2)).objects))
    before = dict(plain.objects)
    with pytest.raises(td.UntrustedError) as caught:
        td.open(plain, threads=1, key=SECRET)
    assert (caught.value.object, caught.value.rule) == ("chain.json", "TD-SIG-012") and plain.objects == before
    assert td.open(plain, threads=1).sign(SECRET) == ["chain.json", manifest_name(0), FIRST]
    td.open(plain, threads=1, key=SECRET).publish(state(2))
    assert unsigned(plain.objects) == []


def forged() -> MemoryStore:
    """Version 0 is signed by the first key; 1 and 2, which starts from it, by the second."""
    store = store_of()
    for name in (FIRST, SECOND):
        unsign(store.objects, name)
        sign(store.objects, name, OTHER_SECRET)
    return store


@pytest.mark.parametrize("full", [False, True])
def test_a_writer_goes_on_with_a_greater_number(full: bool) -> None:
    store = forged()
    before = store.objects | {"latest.json": None}
    made = td.open(store, threads=1, key=SECRET).publish(state(2), full=full)
    assert (made.version, made.base) == (3, None if full else 0)
    assert trusting(store).newest() == 3 and trusting(store).load().equals(state(2))
    assert before.items() <= (store.objects | {"latest.json": None}).items()
    for version in (1, 2):  # and takes nobody else's version for its own, even one with these very words
        with pytest.raises(td.UntrustedError) as caught:
            td.open(store, threads=1, key=SECRET).publish(state(version), version=version)
        assert (caught.value.object, caught.value.rule) == (manifest_name(version), "TD-SIG-012")
    assert unsigned(store.objects) == [FIRST, SECOND]


def test_trusted_keys_without_a_key_publish_nothing() -> None:
    chain = trusting(store_of())
    with pytest.raises(ValueError, match="key to sign with"):
        chain.publish(state(2))
    with pytest.raises(ValueError, match="key to sign with"):
        chain.shortcut(0, 2)


def test_one_key_gives_way_to_another() -> None:
    store = store_of(2)
    with pytest.raises(td.UntrustedError):
        td.open(store, threads=1, key=OTHER_SECRET)
    td.open(store, threads=1, key=OTHER_SECRET, trusted_keys=[PUBLIC]).publish(state(2))
    assert trusting(store, PUBLIC, OTHER_PUBLIC).load().equals(state(2))
    assert trusting(store).newest() == 1  # who does not trust the new key stays behind
    before = dict(store.objects)
    signed = trusting(store, PUBLIC, OTHER_PUBLIC).sign(OTHER_SECRET)
    assert signed == ["chain.json", manifest_name(0), FIRST]  # version 2 has its signature
    assert before.items() <= store.objects.items()  # and those of the old key stay
    assert trusting(store, OTHER_PUBLIC).verify(deep=True).ok
    assert trusting(store, PUBLIC, OTHER_PUBLIC).sign(OTHER_SECRET) == []


def test_two_keys_sign_one_version_after_the_other() -> None:
    """A trainer publishes, and somebody else looks and signs: readers who ask for both follow."""
    store = store_of(1)
    trusting(store).sign(OTHER_SECRET)
    both = {"trusted_keys": [PUBLIC, OTHER_PUBLIC], "threshold": 2}
    trainer = td.open(store, threads=1, key=SECRET, **both)
    for version in (1, 2):  # one signature of its base is enough for the trainer
        assert trainer.publish(state(version)).version == version
    reader = trusting(store, PUBLIC, OTHER_PUBLIC, threshold=2)
    assert reader.newest() == trainer.newest() == 0
    assert trusting(store).sign(OTHER_SECRET) == [FIRST, SECOND]
    assert reader.newest() == 2 and reader.load().equals(state(2))


def test_signing_with_trusted_keys_vouches_for_nothing_new() -> None:
    store = store_of()
    unsign(store.objects, FIRST)
    sign(store.objects, FIRST, "11" * 32)
    before = dict(store.objects)
    with pytest.raises(td.UntrustedError) as caught:
        trusting(store).sign(OTHER_SECRET)
    assert caught.value.object == FIRST and store.objects == before
    assert trusting(store).sign(OTHER_SECRET, [0, 2]) == ["chain.json", manifest_name(0), SECOND]


def test_a_broken_signature_is_put_anew() -> None:
    store = store_of()
    store.objects[sig(store.objects, FIRST)] = b"{"
    assert td.open(store, threads=1).sign(SECRET) == [FIRST] and unsigned(store.objects) == []


def test_signing_what_is_there() -> None:
    store = MemoryStore(dict(skipping().objects))
    for name in [name for name in store.objects if name.startswith("signatures/")]:
        del store.objects[name]
    chain = td.open(store, threads=1)
    assert chain.sign(SECRET, [1]) == ["chain.json", FIRST]
    assert chain.sign(SECRET, [2, 2]) == [SECOND, SHORTCUT]
    assert chain.sign(SECRET) == [manifest_name(0)]
    assert chain.sign(SECRET) == [] and unsigned(store.objects) == []
    with pytest.raises(td.MissingError):
        chain.sign(SECRET, [7])


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        (SECOND, lambda data: b"{", "malformed"),
        (SECOND, lambda data: data.replace(CHAIN.encode(), ANOTHER), "conflict"),
        (
            SHORTCUT,
            lambda data: data.replace(b'"fingerprint":"', b'"fingerprint":"0000000000000000","x":"', 1),
            "conflict",
        ),
        ("chain.json", lambda data: data.replace(CHAIN.encode(), ANOTHER), "conflict"),
    ],
)
def test_what_no_reader_accepts_is_not_signed(name: str, change: Callable[[bytes], bytes], error: str) -> None:
    store = skipping()
    chain = td.open(store, threads=1)
    for each in [each for each in store.objects if each.startswith("signatures/")]:
        del store.objects[each]
    store.objects[name] = change(store.objects[name])
    with pytest.raises(td.ERRORS[error]):
        chain.sign(SECRET)
    assert not any(each.startswith("signatures/") for each in store.objects)


@pytest.mark.parametrize("dies_at", ["signatures/", "manifests/", "latest.json"])
@pytest.mark.parametrize("again", ["same version", "next version", "another machine"])
def test_a_writer_that_dies_leaves_nothing_that_stands_in_the_way(dies_at: str, again: str, _own_cache: Path) -> None:
    store = Recording()
    publish(td.open(store, create=True, threads=1, key=SECRET), 0)
    store.dies_at = lambda name: name.startswith(dies_at)
    with pytest.raises(Died):
        publish(td.open(store, threads=1, key=SECRET), 1)
    store.dies_at = lambda name: False
    there = dies_at == "latest.json"
    assert unsigned(store.objects) == [] and trusting(store).newest() == int(there)
    if again == "another machine":
        for path in _own_cache.iterdir():
            shutil.rmtree(path)
    publish(td.open(store, threads=1, key=SECRET), 1 + (again == "next version"))
    assert unsigned(store.objects) == [] and trusting(store).verify(deep=True).ok
    assert trusting(store).newest() == 1 + (again == "next version")


def test_a_writer_that_died_before_it_made_the_chain() -> None:
    store = Recording()
    store.dies_at = lambda name: name == "chain.json"
    with pytest.raises(Died):
        td.open(store, create=True, threads=1, key=SECRET)
    assert [name.partition("/")[0] for name in store.objects] == ["signatures"]
    store.dies_at = lambda name: False
    publish(td.open(store, create=True, threads=1, key=OTHER_SECRET), 0)
    assert unsigned(store.objects, OTHER_SECRET) == []


def test_equal_fingerprints_of_another_key_are_no_success() -> None:
    """Whoever can write to the store lays a version there, of which only the words tell that it is another."""
    before, after, other = twins(2)
    builder = Builder()
    builder.full(0, before)
    for name in ("chain.json", manifest_name(0)):
        sign(builder.objects, name)
    move(builder, 1, after, 0)
    mine = builder.objects[FIRST]
    move(builder, 1, other, 0)
    assert json.loads(mine)["fingerprint"] == json.loads(builder.objects[FIRST])["fingerprint"]
    store = MemoryStore(builder.objects)
    with pytest.raises(td.UntrustedError) as caught:
        td.open(store, threads=1, key=SECRET).publish(as_state(after), version=1)
    assert caught.value.object == FIRST and unsigned(store.objects) == [FIRST]


def test_a_plain_version_is_signed(tmp_path: Path) -> None:
    save_file({"w": np.arange(6, dtype=np.float32)}, tmp_path / "model.safetensors")
    chain = td.open(tmp_path / "chain", create=True, threads=1, key=SECRET)
    for _ in range(2):  # the second time it is there
        chain.publish(tmp_path / "model.safetensors", plain=True, version=0)
    assert trusting(tmp_path / "chain").verify(deep=True).ok
    assert trusting(tmp_path / "chain").load()["w"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_collector_with_keys_counts_what_is_signed(tmp_path: Path) -> None:
    """A full shortcut that nobody signed leads no reader with keys anywhere."""
    folder = tmp_path / "chain"
    publish(td.open(folder, create=True, threads=1, key=SECRET), 0, 1, 2)
    td.open(folder, threads=1).shortcut(None, 2)
    kept = trusting(folder).collect(1, grace=0)
    assert (list(kept.kept), list(kept.supporting), list(kept.dropped)) == ([2], [0, 1], [])
    assert trusting(folder).load().equals(state(2))
    with pytest.raises(td.UntrustedError):  # what is there is not its own success
        td.open(folder, threads=1, key=SECRET).shortcut(None, 2)
    td.open(folder, threads=1).sign(SECRET, [2])
    assert list(trusting(folder).collect(1, grace=0).dropped) == [0, 1]
    assert trusting(folder).load().equals(state(2))
    assert [path.name for path in (folder / "manifests").iterdir() if path.name < "000000000002"] == []
