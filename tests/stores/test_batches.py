"""Batches: what putting one more object costs, counted in calls and not in time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tensordelta.stores import Batch
from tensordelta.stores.cloud import CloudBatch
from tensordelta.stores.hub import HubBatch


class Accepting:
    """Takes whatever a batch sends."""

    address = "accepting"

    def _send(self, *_: object) -> None:
        pass


@contextmanager
def counted() -> Iterator[list[int]]:
    """The number of steps that this thread takes: calls of functions, and turns of generators."""
    steps = [0]

    def count(frame: object, event: str, argument: object) -> None:
        steps[0] += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield steps
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("kind", [CloudBatch, HubBatch])
def test_the_next_object_costs_what_the_first_did(kind: Any) -> None:
    batching: AbstractContextManager[Batch] = kind(Accepting())
    costs: list[int] = []
    with batching as batch:
        for number in range(450):
            with counted() as steps:
                batch.put(f"packs/{number}", [b"x"])
            costs.append(steps[0])
    # A median, since a put that has to wait for room takes a few more.
    first, last = sorted(costs[5:55])[25], sorted(costs[-50:])[25]
    assert last <= 2 * first


class Panic(BaseException):
    """What a client written in another language raises when it fails in a way that it has no name for."""


class Panicking(Accepting):
    def _send(self, *_: object) -> None:
        raise Panic


def test_a_panic_of_the_client_is_not_lost() -> None:
    batching: Any = CloudBatch(Panicking())  # type: ignore[arg-type]
    with pytest.raises(Panic), batching as batch:
        batch.put("packs/1", [b"x"])
