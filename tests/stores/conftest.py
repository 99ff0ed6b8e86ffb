"""Real parts for the tests of stores: the Hub's client against a server of this machine, obstore against moto's."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator

# hf-xet reads its settings when it is imported: it tries again here as well, but at once.
os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_XET_CLIENT_RETRY_BASE_DELAY="10ms",
    HF_XET_CLIENT_RETRY_MAX_ATTEMPTS="2",
    HF_XET_CLIENT_RETRY_MAX_DURATION="1s",
)

import pytest
from hub_server import Hub
from places import S3


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


class _Hurried:
    """The module `time` for a client that waits too long for tests."""

    def sleep(self, seconds: float) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


@pytest.fixture
def hub(hub_server: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub, in order and without a bucket; the client's own waits take no time."""
    hub_server.reset()
    monkeypatch.setattr("huggingface_hub.utils._http.time", _Hurried())
    return hub_server


@pytest.fixture
def bucket(hub: Hub) -> str:
    """A bucket of the Hub, empty."""
    name = f"me/bucket-{secrets.token_hex(4)}"
    hub.buckets[name] = {}
    return name


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3(f"http://{host}:{port}")
    finally:
        server.stop()
