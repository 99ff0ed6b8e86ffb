"""Signed chains on the Hub and on S3."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hub_server import Hub
from places import S3

import tensordelta as td
from tensordelta.format.keys import SecretKey

KEY, OTHER = SecretKey(bytes(range(32))), SecretKey(bytes(range(1, 33)))


@pytest.fixture(params=["hub", "s3"])
def place(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """An address, and `store_options`."""
    if request.param == "hub":
        hub: Hub = request.getfixturevalue("hub")
        hub.token = "secret"
        bucket = request.getfixturevalue("bucket")
        return f"hf://buckets/{bucket}/runs/one", {"endpoint": hub.address, "token": "secret"}
    s3: S3 = request.getfixturevalue("s3")
    return f"s3://{s3.bucket()}/runs/one", dict(s3.options)


def test_a_signed_chain(place: tuple[str, dict[str, Any]]) -> None:
    address, options = place
    chain = td.open(address, create=True, key=KEY, store_options=options)
    words = np.arange(2000, dtype=np.float32)
    for step in range(2):
        words[step] += 1
        chain.publish({"w": words}, annotations={"step": str(step)})
    reader = td.open(address, trusted_keys=[KEY.public], store_options=options)
    assert reader.verify(deep=True).ok and reader.load()["w"].tobytes() == words.tobytes()
    with pytest.raises(td.UntrustedError):
        td.open(address, trusted_keys=[OTHER.public], store_options=options)

    td.open(address, store_options=options).publish({"w": words + 1})
    assert (reader.newest(), td.open(address, store_options=options).newest()) == (1, 2)
    signed = td.open(address, store_options=options).sign(OTHER)
    assert signed == ["chain.json", *(f"manifests/{version:012d}.json" for version in range(3))]
    assert td.open(address, trusted_keys=[OTHER.public], store_options=options).verify(deep=True).ok
