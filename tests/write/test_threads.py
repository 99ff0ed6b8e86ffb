"""One chain, several threads: they publish one after another, and read while others publish."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensordelta as td
from tensordelta.checkout.checkout import Checkout

THREADS, ROUNDS = 4, 4
SIZE = 4096


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
