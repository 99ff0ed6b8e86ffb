"""`SglangServer`: one update, and what can go wrong between the driver and SGLang's routes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from sglang_server import SglangRoutes
from wrapped import same, weights

import tensordelta as td
from tensordelta.engines import ServerError, ServerSetupError, SglangServer, follow_server

UPDATE = [
    "pause_generation",
    "begin_weight_update",
    "update_weights_from_tensor",
    "end_weight_update",
    "continue_generation",
]


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(3):
        chain.publish(weights(step))
    return chain


@pytest.fixture
def sglang() -> Iterator[SglangRoutes]:
    with SglangRoutes(weights(0), ranks=2) as sglang:
        yield sglang


@pytest.fixture
def server(sglang: SglangRoutes, chain: td.Chain) -> SglangServer:
    return SglangServer(sglang.url, chain.address)


def test_an_update(sglang: SglangRoutes, server: SglangServer) -> None:
    assert server.version() is None
    served = server.update(1)
    assert served.version == 1 == server.version()
    assert served.pause is not None
    assert same(sglang.weights.state, 1)
    assert sglang.asked == ["continue_generation", *UPDATE]
    assert sglang.paused is None and sglang.flushed == 1
    (sent,) = sglang.sent
    assert sent["load_format"] == "tensordelta.sglang.apply"
    assert len(sent["serialized_named_tensors"]) == 2
    assert server.update(1).pause is None
    assert len(sglang.sent) == 1


def test_a_loader_that_fails(sglang: SglangRoutes, server: SglangServer) -> None:
    """With a reply, and without one: SGLang's scheduler does not survive what a loader raises."""
    server.update(1)

    def refused() -> None:
        sglang.active = False  # so that it answers with an error

    sglang.fail("update_weights_from_tensor", refused)
    with pytest.raises(ServerError, match=r"the update to version 2 failed: .*must run between"):
        server.update(2)
    assert sglang.paused is None and server.version() == 1

    with pytest.raises(ServerError, match="the update to version 9 failed: POST /update_weights_from_tensor"):
        server.update(9)
    assert sglang.paused is None and not sglang.active
    server.update(2)
    assert same(sglang.weights.state, 2)


@pytest.mark.parametrize("active", [False, True], ids=["paused", "in a session"])
def test_what_a_killed_driver_leaves(sglang: SglangRoutes, server: SglangServer, chain: td.Chain, active: bool) -> None:
    server.update(1)
    sglang.paused, sglang.active = "retract", active
    left = SglangServer(sglang.url, chain.address, patience=0)
    assert left.update(1).pause is None
    assert sglang.paused is None
    left.update(2)
    assert same(sglang.weights.state, 2)
    assert sglang.paused is None and not sglang.active


def test_a_driver_that_comes_second(sglang: SglangRoutes, server: SglangServer) -> None:
    server.update(1)

    def begun_by_another() -> None:
        sglang.active = True

    def ended_by_another() -> None:
        sglang.active = False
        sglang.weights.take(2)
        sglang.name = "2"

    sglang.fail("begin_weight_update", begun_by_another)
    sglang.fail("continue_generation", ended_by_another)
    assert server.update(2).pause is None
    assert sglang.paused is None and not sglang.active


def test_more_for_the_loader(sglang: SglangRoutes, chain: td.Chain) -> None:
    SglangServer(sglang.url, chain.address, options={"poll": 0.5}).update(1)
    assert sglang.pointers[-1] == {"root": chain.address, "version": 1, "poll": 0.5}


def test_a_server_of_another_kind(sglang: SglangRoutes, chain: td.Chain) -> None:
    with pytest.raises(ServerSetupError, match=r"Not Found.* Check that it is an SGLang server"):
        SglangServer(f"{sglang.url}/other", chain.address).update(1)


def test_following(sglang: SglangRoutes, server: SglangServer, chain: td.Chain) -> None:
    following = follow_server(chain, server, poll=0.002, until=3)
    assert next(following).version == 2
    chain.publish(weights(3))
    assert next(following).version == 3
    assert same(sglang.weights.state, 3)


def test_the_command(sglang: SglangRoutes, chain: td.Chain) -> None:
    arguments = ["sglang-follow", chain.address, "--server", sglang.url, "--to", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tensordelta", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert json.loads(done.stdout)["version"] == 2
    assert done.stderr == ""
    assert same(sglang.weights.state, 2)
