"""`follow_server`, `update_servers` and `vllm-follow`: servers that are late, restarted, left alone, or that refuse."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_server import raising
from vllm_server import VllmRoutes
from wrapped import same, weights

import tensordelta as td
from tensordelta.engines import (
    ServerError,
    ServerSetupError,
    ServerUnavailableError,
    VllmServer,
    follow_server,
    update_servers,
)

POLL = 0.002


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    for step in range(2):
        chain.publish(weights(step))
    return chain


@pytest.fixture
def vllm() -> Iterator[VllmRoutes]:
    with VllmRoutes(weights(0)) as vllm:
        yield vllm


@pytest.fixture
def server(vllm: VllmRoutes, chain: td.Chain) -> VllmServer:
    return VllmServer(vllm.url, chain.address)


def test_a_server_is_kept_at_the_newest_version(chain: td.Chain, vllm: VllmRoutes, server: VllmServer) -> None:
    seen = []
    for served in follow_server(chain, server, poll=POLL, until=4):
        seen.append(served.version)
        assert same(vllm.weights.state, served.version)
        if served.version < 4:
            for step in (served.version + 1, served.version + 2)[: 4 - served.version]:
                chain.publish(weights(step))
    assert seen == [1, 3, 4]
    assert vllm.asked.count("init_weight_transfer_engine") == 1


def test_a_server_that_serves_it_already(chain: td.Chain, server: VllmServer, vllm: VllmRoutes) -> None:
    """Of an earlier driver: it is asked once whether it follows this chain, and is not paused."""
    VllmServer(vllm.url, chain.address).update(1)
    asked = len(vllm.asked)
    (served,) = follow_server(chain, server, poll=POLL, until=1)
    assert (served.version, served.pause) == (1, None)
    assert vllm.asked[asked:] == ["init_weight_transfer_engine"]


def test_a_server_that_starts_late(
    chain: td.Chain, vllm: VllmRoutes, server: VllmServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is waited for, which is said once."""
    vllm.stop()

    def start_when_missed() -> None:
        until = time.monotonic() + 60
        while "waiting for the server" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        vllm.start()

    threading.Thread(target=start_when_missed).start()
    (served,) = follow_server(chain, server, poll=POLL, until=1)
    assert served.version == 1
    assert caplog.text.count("waiting for the server") == 1
    assert same(vllm.weights.state, 1)


def test_a_server_that_is_started_again(chain: td.Chain, vllm: VllmRoutes, server: VllmServer) -> None:
    """It serves old weights then, and is brought forward although nothing was published."""
    seen = []
    for served in follow_server(chain, server, poll=POLL, stop=(stop := threading.Event())):
        assert same(vllm.weights.state, served.version)
        seen.append(served.version)
        if len(seen) == 2:
            stop.set()
            continue
        vllm.stop()
        threading.Timer(0.3, vllm.start).start()
    assert seen == [1, 1]


def test_a_server_that_never_starts(chain: td.Chain, vllm: VllmRoutes, server: VllmServer) -> None:
    vllm.stop()
    with pytest.raises(ServerUnavailableError):
        list(follow_server(chain, server, poll=POLL, timeout=0.1))


def test_a_server_that_cannot_be_driven(chain: td.Chain, vllm: VllmRoutes, server: VllmServer) -> None:
    vllm.developing = False
    with pytest.raises(ServerSetupError, match="VLLM_SERVER_DEV_MODE=1"):
        list(follow_server(chain, server, poll=POLL))


@pytest.mark.parametrize("refusals", [3, 4])
def test_a_version_that_is_refused(
    chain: td.Chain, vllm: VllmRoutes, server: VllmServer, refusals: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.update(0)
    error = RuntimeError("unsupported: the layout changed")
    vllm.fail("update_weights", *[lambda: vllm.update_failing(error)] * refusals)
    following = follow_server(chain, server, poll=POLL, until=1)
    if refusals < 4:
        assert [served.version for served in following] == [1]
        assert caplog.text.count("the layout changed") == refusals
    else:
        with pytest.raises(ServerError, match=r"the update to version 1 failed: .*the layout changed"):
            list(following)
        assert server.version() == 0
        assert same(vllm.weights.state, 0)
    assert not vllm.paused


def test_a_newer_version_is_tried_as_often(chain: td.Chain, vllm: VllmRoutes, server: VllmServer) -> None:
    server.update(0)
    left = itertools.count(6, -1)

    def fault() -> None:
        if next(left) == 4:  # it was refused three times
            chain.publish(weights(2))
        vllm.update_failing(RuntimeError("no"))

    vllm.fail("update_weights", *[fault] * 6)
    assert [served.version for served in follow_server(chain, server, poll=POLL, until=2)] == [2]


def test_a_server_that_a_killed_driver_left_paused(chain: td.Chain, vllm: VllmRoutes) -> None:
    """It serves the newest version, so nothing but the pause is left to mend."""
    VllmServer(vllm.url, chain.address).update(1)
    vllm.paused = True
    resumed = threading.Event()
    vllm.fail("resume", resumed.set)
    server = VllmServer(vllm.url, chain.address, patience=0)
    following = follow_server(chain, server, poll=POLL, until=2)
    assert next(following).pause is None
    threading.Thread(target=lambda: resumed.wait(60) and chain.publish(weights(2))).start()
    assert next(following).version == 2
    assert resumed.is_set() and not vllm.paused


def test_another_chain_in_its_place(chain: td.Chain, vllm: VllmRoutes, server: VllmServer) -> None:
    """An error of the data ends it, as it ends every follower."""
    following = follow_server(chain, server, poll=POLL)
    next(following)
    (Path(chain.address) / "latest.json").unlink()
    document = Path(chain.address) / "chain.json"
    document.chmod(0o600)
    document.write_text(document.read_text().replace(chain.id, "00000000-0000-4000-8000-000000000000"))
    with pytest.raises(td.ConflictError):
        next(following)
    assert not vllm.paused


# -- several servers ---------------------------------------------------------------------------------------------------


def test_servers_are_updated_at_once(chain: td.Chain, vllm: VllmRoutes, server: VllmServer) -> None:
    with VllmRoutes(weights(0)) as second:
        both = threading.Barrier(2)
        for each in (vllm, second):
            each.fail("update_weights", lambda: both.wait(60))
        found = update_servers([server, VllmServer(second.url, chain.address)], 1)
        assert [served.version for served in found] == [1, 1]
        assert same(vllm.weights.state, 1) and same(second.weights.state, 1)


def test_one_server_that_fails(
    chain: td.Chain, vllm: VllmRoutes, server: VllmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are served; a fault that passes is none."""
    monkeypatch.setattr("tensordelta.engines.drive._AGAIN", 0.01)
    with VllmRoutes(weights(0)) as second:
        other = VllmServer(second.url, chain.address)
        vllm.fail("start_weight_update", *[raising(RuntimeError("not now"))] * 2)
        update_servers([server, other], 1)
        assert same(vllm.weights.state, 1) and same(second.weights.state, 1)

        chain.publish(weights(2))
        vllm.stop()
        with pytest.raises(ServerUnavailableError, match=server.url):
            update_servers([server, other], 2, within=0.05)
        assert same(second.weights.state, 2)
        second.developing = False
        with pytest.raises(ServerSetupError):
            update_servers([other], 2)


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    package = str(Path(td.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "tensordelta", "vllm-follow", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": package, "TENSORDELTA_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, code: int, **variables: str) -> tuple[str, str]:
    with command(*arguments, **variables) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_follows_until_a_signal(chain: td.Chain, vllm: VllmRoutes, number: int) -> None:
    with command(chain.address, "--server", vllm.url, "--poll", 0.02) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("version 1: served after a pause of 0.")
        chain.publish(weights(2))
        assert process.stdout.readline().startswith("version 2: served after a pause of 0.")
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
    assert (process.returncode, out, err) == (0, "", "")
    assert same(vllm.weights.state, 2) and vllm.name == "2"


def test_the_command_ends_at_a_version(chain: td.Chain, vllm: VllmRoutes) -> None:
    vllm.key = "s3cret"
    arguments = (chain.address, "--server", vllm.url, "--to", 1)
    out, err = run(*arguments, "--json", code=0, TENSORDELTA_SERVER_KEY="s3cret")
    facts = json.loads(out)
    assert facts["version"] == 1 and 0 < facts["pause"] <= facts["seconds"]
    assert err == ""
    assert run(*arguments, code=0, TENSORDELTA_SERVER_KEY="s3cret") == ("version 1: served already\n", "")
    _, err = run(*arguments, code=1)
    assert "Unauthorized. Give the server's API key." in err


def test_what_the_command_says_when_it_cannot(chain: td.Chain, vllm: VllmRoutes, tmp_path: Path) -> None:
    _, err = run(chain.address, "--server", "localhost:8000", code=2)
    assert "http://HOST:PORT" in err
    _, err = run(tmp_path / "nothing", "--server", vllm.url, code=1)
    assert "there is no chain at " in err
    _, err = run(chain.address, "--server", vllm.url, "--timeout", 0.1, "--poll", 0.02, code=1)
    assert "no version after 1 appeared within 0.1 seconds" in err
    vllm.developing = False
    _, err = run(chain.address, "--server", vllm.url, code=1)
    assert err.startswith("error: ") and err.endswith("without which it has no routes for new weights.\n")


def test_the_chain_as_the_server_opens_it(chain: td.Chain, vllm: VllmRoutes, tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to(tmp_path)
    server = ("--server", vllm.url, "--engine-chain", tmp_path / "mount" / "chain")
    run(chain.address, *server, "--engine-options", '{"poll": 0.5}', "--to", 1, code=0)
    assert vllm.met == [{"chain": str(tmp_path / "mount" / "chain"), "poll": 0.5}]
    _, err = run(chain.address, *server, "--engine-options", "[1]", code=2)
    assert "no JSON object" in err
    assert same(vllm.weights.state, 1)
