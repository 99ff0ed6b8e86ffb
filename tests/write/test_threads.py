"""One chain, several threads: they publish one after another; reads, shortcuts and drafts need not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import tensordelta as td
from tensordelta.checkout.checkout import Checkout

THREADS, ROUNDS = 4, 4
SIZE = 4096
#: A secret key of RFC 8032, section 7.1, and its public key.
KEY = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def together(works: list[Callable[[], object]]) -> None:
    """Do these at once; the first error of one of them is raised."""
    start = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def weights(number: int) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(number).integers(0, 9, SIZE).astype(np.uint16)}


def test_threads_that_publish_on_one_chain(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    published: dict[int, int] = {}

    def publish(thread: int) -> Callable[[], None]:
        def work() -> None:
            for number in range(thread * ROUNDS, (thread + 1) * ROUNDS):
                done = chain.publish(weights(number), annotations={"number": str(number)}, full=number % 3 == 0)
                published[done.version] = number

        return work

    together([publish(thread) for thread in range(THREADS)])
    assert chain.versions() == sorted(published) == list(range(THREADS * ROUNDS))
    assert sorted(published.values()) == list(range(THREADS * ROUNDS))
    again = td.open(chain.address)
    assert again.verify(deep=True).ok
    for version, number in published.items():
        assert again.load(version).equals(td.State.from_arrays(weights(number)))
        assert again.manifest(version).annotations == {"number": str(number)}


def test_a_publisher_beside_publish(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    with chain.publisher(queue=ROUNDS) as publisher:

        def submit() -> None:
            for number in range(ROUNDS):
                publisher.submit(weights(number)).result()

        together([submit, lambda: [chain.publish(weights(number)) for number in range(ROUNDS)]])
    assert chain.versions() == list(range(2 * ROUNDS))
    assert td.open(chain.address).verify(deep=True).ok


def test_threads_that_read_while_others_publish(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    for number in range(3):
        chain.publish(weights(number))
    state = chain.load(0)

    def read() -> None:
        for number in range(3):
            assert chain.load(number).equals(td.State.from_arrays(weights(number)))
            assert chain.prepare(state, number).version == number

    together([read, read, lambda: [chain.publish(weights(number)) for number in range(3, 6)]])
    assert chain.verify(deep=True).ok


def test_a_publish_with_a_key_beside_others(tmp_path: Path) -> None:
    """Publishers of other keys have readers and snapshots of their own, but share the folder that these lie in."""
    chain = td.open(tmp_path / "chain", create=True, key=KEY)

    def publish(**options: str) -> Callable[[], object]:
        return lambda: [chain.publish(weights(number), full=number == 2, **options) for number in range(ROUNDS)]

    together([publish(), publish(key=KEY), publish(), publish(key=KEY)])
    assert chain.versions() == list(range(4 * ROUNDS))
    trusted = td.open(chain.address, trusted_keys=[PUBLIC])
    assert trusted.versions() == chain.versions() and trusted.verify(deep=True).ok


def test_shortcuts_beside_versions(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    for number in range(3):
        chain.publish(weights(number))
    save_file(weights(9), tmp_path / "model.safetensors")
    made: list[td.Published] = []

    def plain() -> None:
        for _ in range(ROUNDS):
            chain.publish(tmp_path / "model.safetensors", plain=True, source="hf://org/model@0123abc")
            chain.publish(weights(3))

    together([lambda: made.append(chain.shortcut(0, 2)), lambda: made.append(chain.shortcut(0, 2)), plain])
    assert made[0].created == made[1].created
    chain.shortcut(None, 1)
    chain.publish(weights(4), full=True)
    again = td.open(chain.address, pack_folders=[tmp_path])
    assert again.verify(deep=True).ok
    assert again.versions() == list(range(4 + 2 * ROUNDS))


def test_threads_that_share_a_draft(tmp_path: Path) -> None:
    """They encode shards at once; of several commits one creates the version, and all succeed."""
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(weights(0))
    draft = chain.draft()
    old, new, part = weights(0)["w"], weights(1)["w"], SIZE // THREADS
    found: list[dict[str, object]] = []
    done: list[td.Published] = []

    def encode(start: int) -> Callable[[], None]:
        mine, before = ({"w": td.Slice(words[start : start + part], start)} for words in (new, old))
        return lambda: found.append(draft.encode(mine, before))

    together([encode(start) for start in range(0, SIZE, part)])
    together([lambda: done.append(draft.commit(found))] * THREADS)
    assert {each.created for each in done} == {chain.manifest(1).created} and chain.versions() == [0, 1]
    assert td.open(chain.address).load().equals(td.State.from_arrays(weights(1)))


def test_a_draft_beside_a_publish(tmp_path: Path) -> None:
    """One of them gets the number; the other is refused, or publishes the next version."""
    chain = td.open(tmp_path / "chain", create=True)
    for number in range(4 * ROUNDS):
        chain.publish(weights(number))
        draft = chain.draft()
        found = [draft.encode(weights(number + 1), weights(number))]
        expected = draft.version + 1
        try:
            together([partial(draft.commit, found), partial(chain.publish, weights(50 + number))])
        except td.ConflictError as error:
            assert error.rule == "TD-WRT-006"
            expected = draft.version
        assert chain.newest() == expected
    assert td.open(chain.address).verify(deep=True).ok


def test_a_folder_is_one_threads_at_a_time(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(weights(0))
    checkout = Checkout(tmp_path / "out")
    refused: list[td.ConflictError] = []

    def other() -> None:
        with pytest.raises(td.ConflictError) as caught:
            checkout.pull(chain._reader)
        refused.append(caught.value)

    with checkout.locked(), checkout.locked():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread is working on it" in refused[0].reason
    assert checkout.pull(chain._reader).version == 0


def test_a_listener_may_publish(tmp_path: Path) -> None:
    more = iter([weights(1)])

    def listener(event: td.Event) -> None:
        if event.kind == "published":
            for each in more:
                chain.publish(each)

    chain = td.open(tmp_path / "chain", create=True, on_event=listener)
    chain.publish(weights(0))
    assert chain.versions() == [0, 1]
    assert chain.publish(weights(2)).base == 1
    assert td.open(chain.address).verify(deep=True).ok
