"""Trying again: how often, how long between, and what no store tries twice."""

from __future__ import annotations

import pickle

import pytest

import tensordelta as td
from tensordelta.stores import Retries, open_store
from tensordelta.stores.cloud import CloudStore


class Flaky:
    """Fails so many times, then succeeds."""

    def __init__(self, times: int) -> None:
        self.times, self.calls = times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise ConnectionError(f"failure {self.calls}")
        return "done"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("tensordelta.stores.retries.time.sleep", waits.append)
    return waits


def test_waits_grow_to_a_bound(waits: list[float]) -> None:
    work = Flaky(6)
    assert Retries(7, first=1.0, longest=8.0).call(work, passing=lambda error: True, what="work") == "done"
    assert work.calls == 7 and len(waits) == 6
    for wait, longest in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert longest / 2 <= wait <= longest


def test_many_that_failed_together_do_not_come_back_together(waits: list[float]) -> None:
    for _ in range(20):
        Retries(2, first=1.0).call(Flaky(1), passing=lambda error: True, what="work")
    assert len({round(wait, 6) for wait in waits}) > 10


def test_the_last_failure_is_told(waits: list[float]) -> None:
    work = Flaky(9)
    with pytest.raises(ConnectionError, match="failure 3"):
        Retries(3).call(work, passing=lambda error: True, what="work")
    assert work.calls == 3 and len(waits) == 2


def test_what_does_not_pass_is_not_tried_again(waits: list[float]) -> None:
    work = Flaky(1)
    with pytest.raises(ConnectionError):
        Retries().call(work, passing=lambda error: False, what="work")
    assert work.calls == 1 and waits == []


def test_a_store_error_says_what_and_where() -> None:
    """It is an `OSError`, none of the closed set, survives a way between processes, and tells what to do."""
    error = td.StoreError("s3://bucket/run", "read", "chain.json", "status 503")
    again = pickle.loads(pickle.dumps(error))
    for each in (error, again):
        assert isinstance(each, OSError) and not isinstance(each, td.TensorDeltaError)
        assert (each.address, each.operation, each.object) == ("s3://bucket/run", "read", "chain.json")
        assert each.cause == "status 503" and each.advice
        assert str(each) == f"s3://bucket/run: read of chain.json failed: status 503. {each.advice}"
    assert "store-error" not in td.ERRORS and len(td.ERRORS) == 8


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("s3://bucket/run/one", {"region": "eu-west-1", "skip_signature": True}),
        ("gs://bucket/run/one", {"skip_signature": True}),
        ("az://container/run/one", {"account_name": "me", "skip_signature": True}),
    ],
)
def test_addresses_of_object_stores(address: str, options: dict[str, object]) -> None:
    """Each kind is taken as obstore takes it, with the prefix as the root; nothing is asked of the network yet."""
    store = open_store(address, options=options)
    assert isinstance(store, CloudStore) and store.address == address
    assert store._store.prefix == "run/one"
