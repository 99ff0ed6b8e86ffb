"""A publisher in the background and its followers, over the wire."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from faults import Faults, Proxy
from hub_server import Hub
from places import QUICK, S3
from wrapped import same, weights

import tensordelta as td
from tensordelta.live.watch import Watch


def check(address: str, options: dict[str, Any], faults: Faults) -> None:
    writer = td.open(address, create=True, store_options=options, threads=2)
    state = td.State.empty()
    with writer.publisher(skip=(2,)) as publisher:
        publisher.submit(weights(0)).result(60)
        reader = td.open(address, store_options=options, threads=2)
        following = reader.follow(state, poll=0.01, timeout=60)
        next(following).apply()
        for step in range(1, 4):
            publisher.submit(weights(step))
        publisher.flush(60)
        update = next(following)
        update.apply()
    assert publisher.trouble is None
    assert same(state, 3)
    late = reader.load(0)
    for each in reader.follow(late, poll=0.01, until=update.version):
        each.apply()
    assert same(late, 3)
    looking = Watch(reader._reader, update.version)
    assert looking.look() == []
    faults.clear()
    for _ in range(9):
        assert looking.look() == []
    assert len(faults.requests) == 9
    assert all(request.startswith("GET ") and request.endswith("latest.json") for request in faults.requests)


def test_in_an_object_store(s3: S3) -> None:
    with Proxy(s3.endpoint) as proxy:
        options = {**s3.options, "endpoint": proxy.address, "retries": QUICK}
        check(f"s3://{s3.bucket()}/run", options, proxy.faults)


def test_in_a_bucket_of_the_hub(hub: Hub, bucket: str) -> None:
    hub.token = "token"
    check(f"hf://buckets/{bucket}/run", {"endpoint": hub.address, "token": "token", "retries": QUICK}, hub.faults)


@pytest.mark.parametrize("times", [2])
def test_a_follower_waits_out_a_store_that_fails(s3: S3, times: int) -> None:
    with Proxy(s3.endpoint) as proxy:
        address = f"s3://{s3.bucket()}/run"
        td.open(address, create=True, store_options=s3.options).publish(weights(0))
        options = {**s3.options, "endpoint": proxy.address, "retries": QUICK}
        options["client_options"] = {"allow_http": True}
        chain = td.open(address, store_options=options)
        proxy.faults.add("latest.json", times=times * QUICK.attempts, status=403)
        state = td.State.empty()
        next(chain.follow(state, poll=0.01, timeout=60)).apply()
        assert same(state, 0)
        assert np.array_equal(chain.load()["b"], weights(0)["b"])
