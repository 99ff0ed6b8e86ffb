"""latest.json as writers put it: the newest version, and the shortcuts that followers try (SPEC.md section 4.11)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from wrapped import Wrapped, same, weights

import tensordelta as td
from tensordelta.format.names import LATEST, ShortcutName, manifest_name, shortcut_name
from tensordelta.write.hint import put_hint, renew_hint


@pytest.fixture
def store(tmp_path: Path) -> Wrapped:
    return Wrapped(tmp_path / "chain")


@pytest.fixture
def chain(store: Wrapped) -> td.Chain:
    made = td.open(store, create=True)
    for step in range(2):
        made.publish(weights(step))
    return made


def hint(store: Wrapped) -> dict[str, object]:
    found: dict[str, object] = json.loads(store.read(LATEST))
    return found


def test_a_writer_that_knows_its_chain_lists_nothing(store: Wrapped, chain: td.Chain) -> None:
    store.remote = True  # on a disk it looks once more before it commits
    store.counts.clear()
    store.done.clear()
    chain.publish(weights(2))
    assert store.counts["names"] == 0
    kinds = [name.partition("/")[0] for name in store.done]
    assert kinds == ["packs", "fingerprints", "manifests", LATEST]
    assert same(chain.load(), 2)


def test_another_writer_is_noticed_by_its_hint(store: Wrapped, chain: td.Chain, tmp_path: Path) -> None:
    td.open(tmp_path / "chain").publish(weights(7), version=40)
    assert chain.publish(weights(2)).version == 41
    assert same(chain.load(), 2)


def test_another_writer_whose_hint_was_not_put_is_a_conflict(store: Wrapped, chain: td.Chain, tmp_path: Path) -> None:
    own = store.read(LATEST)
    td.open(tmp_path / "chain").publish(weights(7))
    store.put(LATEST, [own])
    with pytest.raises(td.ConflictError):
        chain.publish(weights(2))
    assert chain.publish(weights(3)).version == 3


@pytest.mark.parametrize("data", [None, b"{", b'{"tensordelta":"1.0-rc.1","chain":"x","version":1}'])
def test_without_a_hint_it_lists(store: Wrapped, chain: td.Chain, data: bytes | None) -> None:
    store.delete(LATEST) if data is None else store.put(LATEST, [data])
    chain.shortcut(0, 1)
    store.counts.clear()
    chain.publish(weights(2))
    assert store.counts["names"] > 0
    assert hint(store) == hint(store) | {"version": 2, "shortcuts": ["000000000001-000000000000"]}


def test_shortcuts_come_and_go(store: Wrapped, chain: td.Chain) -> None:
    chain.publish(weights(2))
    chain.shortcut(0, 2)
    chain.shortcut(None, 2)
    assert hint(store)["shortcuts"] == ["000000000002-000000000000", "000000000002-full"]
    chain.publish(weights(3))
    assert hint(store)["shortcuts"] == ["000000000002-000000000000", "000000000002-full"]
    chain.shortcut(None, 3)
    chain.collect(1, grace=0)
    assert store.size(shortcut_name(2, 0)) is None
    assert hint(store)["shortcuts"] == ["000000000003-full"] and hint(store)["version"] == 3


def test_the_newest_of_each_length_are_named(store: Wrapped, chain: td.Chain) -> None:
    names = [ShortcutName(version, version - 8, None) for version in range(8, 2000, 8)]
    names += [ShortcutName(version, version - 64, None) for version in range(64, 2000, 64)]
    names += [ShortcutName(1000, None, None), ShortcutName(1, None, None)]
    put_hint(chain._reader, 1999, names)
    named = hint(store)["shortcuts"]
    assert isinstance(named, list) and len(named) == 64 == len(set(named))
    assert {"000000001000-full", "000000000001-full", "000000001984-000000001976"} <= set(named)
    longest = [each for each in named if int(each[:12]) - int(each[13:].replace("full", "0")) == 64]
    assert len(longest) == 31  # each skip of 64: there are fewer than their share


def test_a_hint_that_was_overtaken_is_put_again(store: Wrapped, chain: td.Chain, tmp_path: Path) -> None:
    other = td.open(tmp_path / "chain")

    def change(names: list[ShortcutName]) -> list[ShortcutName]:
        other.publish(weights(2))  # after the hint was read, before it is put
        return [*names, ShortcutName(1, None, None)]

    renew_hint(chain._reader, change)  # type: ignore[arg-type]
    assert hint(store)["version"] == 2


def test_a_hint_that_cannot_be_put_is_no_failure(store: Wrapped, chain: td.Chain) -> None:
    store.fail("put", LATEST)
    assert chain.publish(weights(2)).version == 2
    assert store.size(manifest_name(2)) is not None
    assert chain.publish(weights(3)).version == 3
