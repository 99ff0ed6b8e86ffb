"""Looks for newer versions: what one costs, what it finds, and how long a follower waits for the next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from following import POLL, other_chain
from wrapped import Wrapped, same, weights

import tensordelta as td
from tensordelta.format.names import LATEST, manifest_name
from tensordelta.live.watch import Pace, Watch


def watch(chain: td.Chain, floor: int | None) -> Watch:
    return Watch(chain._reader, floor)


def latest(chain: td.Chain, version: object, chain_id: str | None = None) -> bytes:
    return json.dumps({"tensordelta": "1.0-rc.1", "chain": chain_id or chain.id, "version": version}).encode()


def test_a_look_that_finds_nothing_is_one_small_read(chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    looks = []
    for _ in range(21):
        store.counts.clear()
        assert looking.look() == []
        looks.append((store.counts["open"], store.counts["names"], store.counts.total()))
    listing = (2, 1, 3)  # latest.json, chain.json, and the manifests
    assert looks == [listing, *[(1, 0, 1)] * 9, listing, *[(1, 0, 1)] * 9, listing]


def test_a_listing_leaves_out_what_is_known(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    names: list[str] = []
    listed = store.names

    def spy(prefix: str, after: str | None = None) -> Iterator[str]:
        found = list(listed(prefix, after))
        names.extend(found)
        return iter(found)

    store.names = spy  # type: ignore[method-assign]
    writer.publish(weights(2))
    assert watch(chain, 1).look() == [2]
    assert names == [manifest_name(2)]


def test_news_is_found_at_once(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    assert looking.look() == []
    writer.publish(weights(2))
    writer.publish(weights(3))
    assert looking.look() == [2, 3]
    looking.floor = 3
    store.counts.clear()
    assert looking.look() == []
    assert store.counts.total() == 1


HINTS: dict[str, Callable[[td.Chain], bytes | None]] = {
    "absent": lambda chain: None,
    "no JSON": lambda chain: b'{"tensordelta": "1.0-rc.1", "chain',
    "empty": lambda chain: b"",
    "not UTF-8": lambda chain: b"\xff\xfe",
    "huge": lambda chain: latest(chain, 1) + b" " * (1 << 17),
    "text for a version": lambda chain: latest(chain, "2"),
    "of another chain": lambda chain: latest(chain, 2, "00000000-0000-0000-0000-000000000000"),
    "of a later format": lambda chain: latest(chain, 2).replace(b"1.0", b"2.0"),
    "behind": lambda chain: latest(chain, 0),
    "far ahead": lambda chain: latest(chain, 10**11),
}


@pytest.mark.parametrize("hint", HINTS.values(), ids=HINTS)
def test_whatever_latest_json_says_changes_nothing(
    writer: td.Chain, chain: td.Chain, store: Wrapped, hint: Callable[[td.Chain], bytes | None]
) -> None:
    def spoil() -> None:
        data = hint(chain)
        store.delete(LATEST) if data is None else store.put(LATEST, [data])

    looking = watch(chain, 1)
    spoil()
    for _ in range(3):  # the first of which lists anyway
        assert looking.look() == []
    writer.publish(weights(2))
    spoil()
    assert looking.look() == [2]
    state = chain.load(0)
    for update in chain.follow(state, poll=POLL, until=2):
        assert update.version == 2
        update.apply()
    assert same(state, 2)


def test_a_stuck_hint_is_found_out_by_a_listing(writer: td.Chain, chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    stuck = store.read(LATEST)
    assert looking.look() == []
    writer.publish(weights(2))
    store.put(LATEST, [stuck])
    assert [looking.look() for _ in range(10)] == [[]] * 9 + [[2]]


def test_a_hint_before_the_listing_is_believed_if_the_manifest_is_there(
    writer: td.Chain, chain: td.Chain, store: Wrapped
) -> None:
    writer.publish(weights(2))
    listed = store.names
    store.names = lambda prefix, after=None: (n for n in listed(prefix, after) if n != manifest_name(2))  # type: ignore[method-assign]
    assert watch(chain, 1).look() == [2]


def test_another_chain_in_its_place_is_a_conflict(chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    assert looking.look() == []
    other_chain(store.root)
    with pytest.raises(td.ConflictError):  # at once, because of latest.json
        looking.look()


def test_another_chain_without_a_version_is_a_conflict_before_long(chain: td.Chain, store: Wrapped) -> None:
    looking = watch(chain, 1)
    looking.look()
    hint = store.read(LATEST)
    shutil.rmtree(store.root)
    td.open(store.root, create=True)
    store.put(LATEST, [hint])
    with pytest.raises(td.ConflictError):
        for _ in range(10):
            assert looking.look() == []


def test_a_chain_that_was_removed_is_missing(chain: td.Chain, store: Wrapped) -> None:
    shutil.rmtree(store.root)
    with pytest.raises(td.MissingError):
        next(chain.follow(chain_state(), poll=POLL))


def chain_state() -> td.State:
    return td.State.from_arrays({name: np.zeros_like(array) for name, array in weights(0).items()})


def test_waits_grow_while_nothing_comes_and_more_while_the_store_fails() -> None:
    pace = Pace(1.0)
    idle = [pace.idle() for _ in range(12)]
    assert 0.9 <= idle[0] <= 1.0
    assert all(3.6 <= wait <= 4.0 for wait in idle[8:])
    pace.news()
    assert pace.idle() <= 1.0
    failed = [pace.failed() for _ in range(9)]
    assert failed[0] <= 1.0
    assert 15.0 <= failed[-1] <= 30.0
    assert pace.idle() <= 4.0
    assert pace.failed() <= 1.0  # an answer ended the row of failures
    rare = Pace(100.0)
    assert [50.0 <= rare.failed() <= 100.0 for _ in range(3)] == [True] * 3
