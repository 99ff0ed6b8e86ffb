"""A bucket of the Hub through its S3 gateway: a store with create-if-absent (SPEC.md sections 12.3 and 12.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from places import QUICK
from s3_gateway import Gateway
from wrapped import same, weights

import tensordelta as td

ADDRESS = "s3://bucket/run-1"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        yield server


def options(gateway: Gateway) -> dict[str, Any]:
    return {
        "endpoint": gateway.endpoint,
        "virtual_hosted_style_request": False,
        "region": "us-east-1",
        "access_key_id": "HFAK",
        "secret_access_key": "secret",
        "client_options": {"allow_http": True},
        "retries": QUICK,
    }


def test_a_chain_is_written_and_read_over_redirects(gateway: Gateway) -> None:
    chain = td.open(ADDRESS, create=True, store_options=options(gateway))
    for step in range(3):
        chain.publish(weights(step))
    reader = td.open(ADDRESS, store_options=options(gateway))
    assert reader.versions() == [0, 1, 2]
    assert same(reader.load(), 2)
    assert gateway.redirects and not reader.verify(deep=True).faults
    manifests = [f"bucket/run-1/manifests/{version:012d}.json" for version in range(3)]
    assert [name for name in gateway.conditional if "manifests" in name] == manifests


def test_of_two_writers_one_is_refused(gateway: Gateway) -> None:
    first = td.open(ADDRESS, create=True, store_options=options(gateway))
    first.publish(weights(0))
    first.publish(weights(1), version=1)
    second = td.open(ADDRESS, store_options=options(gateway))
    with pytest.raises(td.ConflictError):
        second.publish(weights(2), version=1)
    assert same(second.load(1), 1)
