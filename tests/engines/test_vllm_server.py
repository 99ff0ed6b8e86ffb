"""`VllmServer`: one update, and what can go wrong between the driver and vLLM's routes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_server import Gone, raising
from vllm_server import VllmRoutes
from wrapped import same, weights

import tensordelta as td
from tensordelta.engines import ServerError, ServerSetupError, ServerUnavailableError, VllmServer

UPDATE = ["pause", "start_weight_update", "update_weights", "finish_weight_update", "resume"]


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(3):
        chain.publish(weights(step))
    return chain


@pytest.fixture
def vllm() -> Iterator[VllmRoutes]:
    with VllmRoutes(weights(0)) as vllm:
        yield vllm


@pytest.fixture
def server(vllm: VllmRoutes, chain: td.Chain) -> VllmServer:
    return VllmServer(vllm.url, chain.address, patience=60)


def impatient(vllm: VllmRoutes, chain: td.Chain) -> VllmServer:
    return VllmServer(vllm.url, chain.address, patience=0)


def test_an_update(vllm: VllmRoutes, server: VllmServer, chain: td.Chain) -> None:
    assert server.version() is None
    served = server.update(1)
    assert served.version == 1 == server.version()
    assert served.pause is not None and 0 < served.pause <= served.seconds
    assert same(vllm.weights.state, 1)
    assert vllm.met == [{"chain": chain.address}]
    assert vllm.asked == ["init_weight_transfer_engine", *UPDATE]
    assert not vllm.paused and vllm.dropped == 1

    served = server.update(2)
    assert same(vllm.weights.state, 2)
    assert vllm.asked[6:] == UPDATE
    assert server.update(2).pause is None
    assert len(vllm.asked) == 11
    assert server.checksums() == {"dp0:pp0:pcp0:tp0:a": chain.manifest(2).fingerprint}


def test_the_version_that_the_weights_are_already(vllm: VllmRoutes, server: VllmServer) -> None:
    """A server is started with version 0: the first update names it."""
    assert server.version() is None
    assert server.update(0).version == 0 == server.version()
    assert same(vllm.weights.state, 0)


def test_more_for_the_back_end(
    vllm: VllmRoutes, chain: td.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain's address and what is said besides; a folder as the server can open it, wherever it runs."""
    monkeypatch.chdir(tmp_path)
    VllmServer(f"{vllm.url}/v1/", "chain", options={"follow": False}).update(1)
    assert vllm.met == [{"chain": chain.address, "follow": False}]
    assert VllmServer(vllm.url, "s3://bucket/run").chain == "s3://bucket/run"


def test_an_address_of_no_server() -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        VllmServer("localhost:8000", "chain")


def test_what_is_prepared_while_the_server_serves(
    vllm: VllmRoutes, server: VllmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused when the last rank can take the version, or a newer one where that is wanted."""
    waits: list[bool] = []
    monkeypatch.setattr("tensordelta.engines.vllm.time.sleep", lambda _: waits.append(vllm.paused))
    vllm.prepared = [[None, None], [0, 0], [1, 0], [1, 1]]
    assert server.update(1).version == 1
    assert waits == [False] * 3
    vllm.prepared = [[2, 2]]
    assert server.update(0, at_most=1).version == 0
    vllm.prepared = [[0, 0], [2, 2]]
    assert server.update(1, at_most=2).version == 2
    assert same(vllm.weights.state, 2)
    assert len(waits) == 4


def test_what_is_never_prepared(vllm: VllmRoutes, chain: td.Chain) -> None:
    """The update is tried all the same, after a while, and at once where ranks do not prepare or cannot be asked."""
    vllm.prepared = [[0]] * 100
    VllmServer(vllm.url, chain.address, lead=0.15).update(1)
    assert same(vllm.weights.state, 1)
    left = len(vllm.prepared)
    assert left < 100
    VllmServer(vllm.url, chain.address, options={"follow": False}).update(2)
    assert same(vllm.weights.state, 2) and len(vllm.prepared) == left
    vllm.fail("collective_rpc", raising(RuntimeError("'Worker' object has no attribute 'tensordelta_prepared'")))
    VllmServer(vllm.url, chain.address).update(1)
    assert same(vllm.weights.state, 1)


# -- servers that cannot be driven -------------------------------------------------------------------------------------


def test_a_server_without_the_routes(vllm: VllmRoutes, server: VllmServer) -> None:
    vllm.developing = False
    with pytest.raises(ServerSetupError, match=r"Not Found\. .*VLLM_SERVER_DEV_MODE=1"):
        server.update(1)


def test_a_server_that_is_not_there(vllm: VllmRoutes, server: VllmServer) -> None:
    vllm.stop()
    with pytest.raises(ServerUnavailableError, match=r"refused.* Check the address"):
        server.update(1)
    vllm.start()
    server.update(1)
    assert same(vllm.weights.state, 1)


def test_a_server_with_a_key(vllm: VllmRoutes, server: VllmServer, chain: td.Chain) -> None:
    vllm.key = "s3cret"
    with pytest.raises(ServerSetupError, match=r"Unauthorized.* API key") as caught:
        server.update(1)
    assert "s3cret" not in str(caught.value)
    VllmServer(vllm.url, chain.address, key="s3cret").update(1)
    assert same(vllm.weights.state, 1)


def test_weights_of_no_version(chain: td.Chain) -> None:
    with VllmRoutes(weights(7)) as vllm:
        server = VllmServer(vllm.url, chain.address)
        with pytest.raises(ServerError, match=r"opening the chain failed: .*no version of the chain"):
            server.update(1)
        assert vllm.asked == ["init_weight_transfer_engine"]
        assert same(vllm.weights.state, 7)


def test_a_server_of_another_chain(vllm: VllmRoutes, server: VllmServer, tmp_path: Path) -> None:
    """Its version 1 is not this chain's, so it is not believed."""
    server.update(1)
    other = td.open(tmp_path / "other", create=True, threads=1)
    for step in (5, 6):
        other.publish(weights(step))
    with pytest.raises(ServerError, match=r"opening the chain failed: .*this engine follows chain"):
        VllmServer(vllm.url, other.address).update(1)
    assert same(vllm.weights.state, 1)


def test_a_server_that_sleeps_is_left_alone(vllm: VllmRoutes, chain: td.Chain) -> None:
    server = impatient(vllm, chain)
    server.update(1)
    vllm.asleep = True
    with pytest.raises(ServerUnavailableError, match=r"asleep, or .* Wake it up, or resume it"):
        server.update(2)
    with pytest.raises(ServerUnavailableError, match="asleep"):
        server.recover()
    with pytest.raises(ServerUnavailableError, match="asleep"):
        impatient(vllm, chain).update(2)
    assert vllm.asked[6:] == []
    vllm.asleep = False
    server.update(2)
    assert same(vllm.weights.state, 2)


# -- updates that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["pause", "start_weight_update", "update_weights", "finish_weight_update"])
def test_an_update_that_fails(vllm: VllmRoutes, server: VllmServer, route: str) -> None:
    """The server is resumed, keeps its version, and the next update works, whatever vLLM left of the session."""
    server.update(1)
    error = RuntimeError("missing: packs/00ff: is not there [TD-OBJ-001]. Check the address.")
    if route == "update_weights":
        vllm.fail(route, lambda: vllm.update_failing(error))
    else:
        vllm.fail(route, raising(error))
    with pytest.raises(ServerError) as caught:
        server.update(2)
    assert type(caught.value) is ServerError
    assert caught.value.operation == "the update to version 2"
    assert f"POST /{route}: " in str(caught.value)
    assert "missing: packs/00ff" in str(caught.value)
    written = route == "finish_weight_update"
    assert ("it serves what it served before", "It has the new weights")[written] in str(caught.value)
    assert not vllm.paused
    assert server.version() == 1

    # A session that could not be ended is open, so that none can begin.
    (VllmServer(server.url, server.chain, patience=0) if written else server).update(2)
    assert same(vllm.weights.state, 2)
    assert not vllm.paused and not vllm.active and vllm.name == "2"


def test_a_server_that_dies_in_an_update(vllm: VllmRoutes, server: VllmServer) -> None:
    server.update(1)

    def die() -> None:
        vllm.stop()
        raise Gone

    vllm.fail("update_weights", die)
    with pytest.raises(ServerError, match="It could not be resumed") as caught:
        server.update(2)
    assert not isinstance(caught.value, ServerUnavailableError)  # it was tried
    vllm.start()
    assert server.version() is None
    server.update(2)  # from the weights that it was started with
    assert vllm.met == [{"chain": server.chain}] * 2
    assert same(vllm.weights.state, 2)


def test_a_server_that_cannot_be_resumed(vllm: VllmRoutes, server: VllmServer) -> None:
    """It has the version, and generates nothing: that is no success."""
    server.update(1)
    vllm.fail("resume", raising(RuntimeError("busy")))
    with pytest.raises(ServerError, match=r"resuming after version 2 failed: .*busy\. It could not be resumed"):
        server.update(2)
    assert vllm.paused and server.version() == 2
    server.resume()
    assert server.update(2).pause is None


def test_an_interrupt_in_an_update(vllm: VllmRoutes, server: VllmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.update(1)

    def interrupted(version: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "update_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.update(2)
    assert not vllm.paused


# -- several drivers ---------------------------------------------------------------------------------------------------


def test_two_drivers_at_once(vllm: VllmRoutes, server: VllmServer, chain: td.Chain) -> None:
    """The second one waits for the first, and finds the version served."""
    other = VllmServer(vllm.url, chain.address)
    other.update(1)
    server.update(1)
    in_update, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        in_update.set()
        assert go_on.wait(60)

    vllm.fail("update_weights", slow)
    first = threading.Thread(target=other.update, args=(2,))
    first.start()
    assert in_update.wait(60)
    seen = threading.Event()
    vllm.fail("is_paused", seen.set)
    found: list[td.engines.Served] = []
    second = threading.Thread(target=lambda: found.append(server.update(2)))
    second.start()
    assert seen.wait(60)
    go_on.set()
    first.join()
    second.join()
    assert found[0].version == 2 and found[0].pause is None
    assert vllm.asked.count("update_weights") == 2
    assert same(vllm.weights.state, 2) and not vllm.paused and not vllm.active


def test_two_drivers_that_begin_at_the_same_moment(vllm: VllmRoutes, server: VllmServer, chain: td.Chain) -> None:
    """Both have seen that nobody is at work."""
    other = VllmServer(vllm.url, chain.address)
    other.update(1)
    server.update(1)

    def resumed_by_another() -> None:
        vllm.paused = False

    vllm.fail("pause", lambda: other.update(2))
    vllm.fail("start_weight_update", lambda: None, resumed_by_another)
    asked = len(vllm.asked)
    server.update(2)
    assert vllm.asked[asked:] == ["pause", *UPDATE, "start_weight_update", "pause", *UPDATE[2:]]
    assert same(vllm.weights.state, 2) and not vllm.paused and not vllm.active


def test_a_driver_that_comes_second(vllm: VllmRoutes, server: VllmServer) -> None:
    """vLLM lets one begin; the other one waits until its version is served."""
    server.update(1)

    def begun_by_another() -> None:
        vllm.active = True

    def ended_by_another() -> None:
        vllm.active = False
        vllm.weights.take(2)
        vllm.name = "2"

    vllm.fail("start_weight_update", begun_by_another)
    vllm.fail("resume", ended_by_another)
    assert server.update(2).pause is None
    assert same(vllm.weights.state, 2) and not vllm.paused and not vllm.active


def test_a_driver_that_another_one_overtakes(vllm: VllmRoutes, server: VllmServer) -> None:
    """Its session is gone when it wants to end it; what counts is what is served."""
    server.update(1)

    def ended_by_another() -> None:
        vllm.active = False
        vllm.name = "2"

    vllm.fail("finish_weight_update", ended_by_another)
    assert server.update(2).version == 2
    assert not vllm.paused


@pytest.mark.parametrize("active", [False, True], ids=["paused", "in a session"])
def test_what_a_killed_driver_leaves(vllm: VllmRoutes, server: VllmServer, chain: td.Chain, active: bool) -> None:
    server.update(1)
    vllm.paused, vllm.active = True, active
    impatient(vllm, chain).update(2)
    assert same(vllm.weights.state, 2)
    assert not vllm.paused and not vllm.active and vllm.name == "2"


def test_a_server_left_paused_after_its_update(vllm: VllmRoutes, server: VllmServer, chain: td.Chain) -> None:
    server.update(1)
    server.recover()
    vllm.paused = True
    server.recover()
    server.recover()
    assert vllm.paused  # another driver may be at work
    left = impatient(vllm, chain)
    left.recover()
    left.recover()
    assert not vllm.paused
