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
    KEYS,
    OTHER_PUBLIC,
    OTHER_SECRET,
    PUBLIC,
    SECOND,
    SECRET,
    SHORTCUT,
    is_member,
    sig,
    sign_all,
    signature_of,
    skipping,
    state,
    store_of,
    trusting,
)

import tensordelta as td
from generate.scenes import line, move, twins, walk
from tensordelta.format.signature import verify
from tensordelta.write.keys import secret_key
from tensordelta.write.signing import Signer

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


def unsigned(store: MemoryStore) -> list[str]:
    """Members without a signature of the first key."""

    def is_signed(name: str) -> bool:
        try:
            verify(store.objects[name], store.objects.get(sig(name), b""), KEYS, object=name)
        except td.TensorDeltaError:
            return False
        return True

    return [name for name in store.objects if is_member(name) and not is_signed(name)]


def publish(chain: td.Chain, *versions: int, **options: Any) -> None:
    for version in versions:
        chain.publish(state(version), version=version, **options)


def test_a_writer_signs_what_it_makes() -> None:
    store = Recording()
    chain = td.open(store, create=True, threads=1, key=SECRET)
    publish(chain, 0, 1)
    made = chain.shortcut(None, 1)
    assert unsigned(store) == [] and len([name for name in store.objects if name.endswith(".sig")]) == 4
    assert made.base is None
    for name in [name for name in store.written if name.endswith(".sig")]:
        assert store.written.index(name) == store.written.index(name[:-4]) + 1, "the signature follows its object"
    assert store.written.index(sig(FIRST)) < len(store.written) - 1 - store.written[::-1].index("latest.json")
    again = trusting(store)
    assert again.verify(deep=True).ok and again.load().equals(state(1))


def test_a_key_for_one_version() -> None:
    store = Recording()
    chain = td.open(store, create=True, threads=1)
    for version in (0, 1):
        chain.publish(state(version), key=SECRET)
    assert unsigned(store) == []
    assert trusting(store).load().equals(state(1))
    chain.publish(state(2))
    assert unsigned(store) == [SECOND]
    assert trusting(store).newest() == 1


def test_a_writer_does_not_build_on_what_nobody_signed() -> None:
    def tries(store: MemoryStore) -> None:
        before = dict(store.objects)
        with pytest.raises(td.UntrustedError) as caught:
            td.open(store, threads=1, key=SECRET).publish(state(2))
        assert caught.value.rule in ("TD-SIG-002", "TD-SIG-003")
        with pytest.raises(td.UntrustedError):
            td.open(store, threads=1).publish(state(2), key=SECRET)
        assert store.objects == before

    plain = MemoryStore(dict(line(walk(2)).objects))
    tries(plain)
    assert td.open(plain, threads=1).sign(SECRET) == ["chain.json", manifest_name(0), FIRST]
    td.open(plain, threads=1, key=SECRET).publish(state(2))
    assert unsigned(plain) == []

    newest = store_of(2)
    newest.objects[sig(FIRST)] = signature_of(newest.objects[FIRST], OTHER_SECRET)
    tries(newest)
    del newest.objects[sig(FIRST)]
    tries(newest)
    # A full version builds on nothing, and does not take the number of what is there.
    assert td.open(newest, threads=1, key=SECRET).publish(state(2), full=True).version == 2
    assert trusting(newest).load().equals(state(2))
    assert sig(FIRST) not in newest.objects


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
    assert trusting(store).newest() == 2
    with pytest.raises(td.UntrustedError):
        trusting(store).load()
    signed = trusting(store).sign(OTHER_SECRET)
    assert signed == ["chain.json", manifest_name(0), FIRST]  # version 2 has its signature
    assert trusting(store, OTHER_PUBLIC).verify(deep=True).ok
    assert trusting(store, PUBLIC, OTHER_PUBLIC).sign(OTHER_SECRET) == []


def test_signing_with_trusted_keys_vouches_for_nothing_new() -> None:
    store = store_of()
    store.objects[sig(FIRST)] = signature_of(store.objects[FIRST], "11" * 32)
    before = dict(store.objects)
    with pytest.raises(td.UntrustedError) as caught:
        trusting(store).sign(OTHER_SECRET)
    assert caught.value.object == FIRST and store.objects == before
    assert trusting(store).sign(OTHER_SECRET, [0, 2]) == ["chain.json", manifest_name(0), SECOND]


def test_signing_what_is_there() -> None:
    store = MemoryStore(dict(skipping().objects))
    for name in [name for name in store.objects if name.endswith(".sig")]:
        del store.objects[name]
    chain = td.open(store, threads=1)
    assert chain.sign(SECRET, [1]) == ["chain.json", FIRST]
    assert chain.sign(SECRET, [2, 2]) == [SECOND, SHORTCUT]
    assert chain.sign(SECRET) == [manifest_name(0)]
    assert chain.sign(SECRET) == [] and unsigned(store) == []
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
    for each in [each for each in store.objects if each.endswith(".sig")]:
        del store.objects[each]
    store.objects[name] = change(store.objects[name])
    with pytest.raises(td.ERRORS[error]):
        chain.sign(SECRET)
    assert not any(each.endswith(".sig") for each in store.objects)


@pytest.mark.parametrize("again", ["same version", "next version", "shortcut"])
def test_a_writer_that_died_before_it_signed(again: str) -> None:
    store = Recording()
    publish(td.open(store, create=True, threads=1, key=SECRET), 0)
    store.dies_at = lambda name: name == sig(FIRST)
    with pytest.raises(Died):
        publish(td.open(store, threads=1, key=SECRET), 1)
    store.dies_at = lambda name: False
    assert unsigned(store) == [FIRST] and trusting(store).newest() == 0
    chain = td.open(store, threads=1, key=SECRET)
    if again == "shortcut":
        publish(chain, 2)
        store.dies_at = lambda name: name.startswith("shortcuts/") and name.endswith(".sig")
        with pytest.raises(Died):
            chain.shortcut(0, 2)
        store.dies_at = lambda name: False
        assert unsigned(store) == [SHORTCUT]
        assert td.open(store, threads=1, key=SECRET).shortcut(0, 2).version == 2
    else:
        publish(chain, 1 if again == "same version" else 2)
    assert unsigned(store) == []
    assert trusting(store).verify(deep=True).ok


def test_a_writer_that_died_before_it_signed_the_chain() -> None:
    store = Recording()
    store.dies_at = lambda name: name.endswith(".sig")
    with pytest.raises(Died):
        td.open(store, create=True, threads=1, key=SECRET)
    store.dies_at = lambda name: False
    with pytest.raises(td.UntrustedError):  # another key cannot vouch for it
        td.open(store, create=True, threads=1, key=OTHER_SECRET)
    publish(td.open(store, create=True, threads=1, key=SECRET), 0)
    assert unsigned(store) == []


def forget_everything(cache: Path) -> None:
    """As on another machine."""
    for path in cache.iterdir():
        shutil.rmtree(path)


def test_a_version_found_unsigned_is_signed_if_it_is_this_one(_own_cache: Path) -> None:
    """What a writer that died on another machine left behind."""
    store = Recording()
    publish(td.open(store, create=True, threads=1, key=SECRET), 0)
    publish(td.open(store, threads=1, key=SECRET), 1, annotations={"step": "7"})
    for full in (False, True):
        del store.objects[sig(FIRST)]
        forget_everything(_own_cache)
        chain = td.open(store, threads=1, key=SECRET)
        with pytest.raises(td.UntrustedError):
            chain.publish(state(2))
        with pytest.raises(td.ConflictError):
            chain.publish(state(2), version=1, annotations={"step": "7"}, full=full)
        with pytest.raises(td.UntrustedError) as caught:
            chain.publish(state(1), version=1, annotations={"step": "8"}, full=full)
        assert "annotations" in caught.value.reason
        assert unsigned(store) == [FIRST]
        chain.publish(state(1), version=1, annotations={"step": "7"}, full=full)
        assert unsigned(store) == []
        # And now the same for a full version.
        if not full:
            for name in (FIRST, sig(FIRST)):
                del store.objects[name]
            publish(td.open(store, threads=1, key=SECRET), 1, full=True, annotations={"step": "7"})


def test_what_a_writer_has_read_keeps_it_from_nothing(_own_cache: Path) -> None:
    """Its snapshot goes back to the version before the one that it finds unsigned."""
    store = Recording()
    publish(td.open(store, create=True, threads=1, key=SECRET), 0, 1)
    forget_everything(_own_cache)
    chain = td.open(store, threads=1, key=SECRET)
    assert chain.load().equals(state(1))
    del store.objects[sig(FIRST)]
    publish(chain, 1)
    assert unsigned(store) == []


def test_whoever_creates_what_is_there_signs_it_if_it_is_his_own() -> None:
    """As a coordinator of many writers does, which knows its own manifest by its contents."""
    store = Recording()
    first, again = (Signer(store, secret_key(SECRET)) for _ in range(2))
    store.dies_at = lambda name: name.endswith(".sig")
    with pytest.raises(Died):
        first.create(FIRST, b"mine")
    store.dies_at = lambda name: False
    assert not again.create(FIRST, b"mine, at another time") and unsigned(store) == []
    store.objects[SECOND] = b"another's"
    assert not again.create(SECOND, b"mine") and sig(SECOND) not in store.objects


@pytest.mark.parametrize("forged", [False, True])
def test_equal_fingerprints_are_not_signed_for(forged: bool) -> None:
    """Whoever can write to the store lays a version there, of which only the words tell that it is another."""
    before, after, other = twins(2)
    builder = Builder()
    builder.full(0, before)
    sign_all(builder.objects)
    move(builder, 1, after, 0)
    mine = builder.objects[FIRST]
    move(builder, 1, other, 0)
    assert json.loads(mine)["fingerprint"] == json.loads(builder.objects[FIRST])["fingerprint"]
    if not forged:
        builder.objects[FIRST] = mine
    store = MemoryStore(builder.objects)
    chain = td.open(store, threads=1, key=SECRET)
    if forged:
        with pytest.raises(td.ConflictError) as caught:
            chain.publish(as_state(after), version=1)
        assert caught.value.object == FIRST and sig(FIRST) not in store.objects
    else:
        chain.publish(as_state(after), version=1)
        assert unsigned(store) == []


def test_a_plain_version_is_signed(tmp_path: Path) -> None:
    save_file({"w": np.arange(6, dtype=np.float32)}, tmp_path / "model.safetensors")
    chain = td.open(tmp_path / "chain", create=True, threads=1, key=SECRET)
    for _ in range(2):  # the second time it is there
        chain.publish(tmp_path / "model.safetensors", plain=True, version=0)
    assert trusting(tmp_path / "chain").verify(deep=True).ok
    (tmp_path / "chain/manifests/000000000000.json.sig").unlink()
    chain.publish(tmp_path / "model.safetensors", plain=True, version=0)
    assert trusting(tmp_path / "chain").load()["w"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_collector_with_keys_counts_what_is_signed(tmp_path: Path) -> None:
    """A full shortcut that nobody signed leads no reader with keys anywhere."""
    folder = tmp_path / "chain"
    publish(td.open(folder, create=True, threads=1, key=SECRET), 0, 1, 2)
    td.open(folder, threads=1).shortcut(None, 2)
    kept = trusting(folder).collect(1, grace=0)
    assert (list(kept.kept), list(kept.supporting), list(kept.dropped)) == ([2], [0, 1], [])
    assert trusting(folder).load().equals(state(2))
    with pytest.raises(td.UntrustedError):  # what is there is not the writer's own for all it knows
        td.open(folder, threads=1, key=SECRET).shortcut(None, 2)
    td.open(folder, threads=1).sign(SECRET, [2])
    assert list(trusting(folder).collect(1, grace=0).dropped) == [0, 1]
    assert trusting(folder).load().equals(state(2))
    assert [path.name for path in (folder / "manifests").iterdir() if path.name < "000000000002"] == []
