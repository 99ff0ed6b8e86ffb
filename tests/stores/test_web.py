"""A chain behind plain HTTP: what the store asks for, and what it makes of the answers (SPEC.md section 12.5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import QUICK
from web_server import Web
from wrapped import same, weights

import tensordelta as td
from tensordelta.errors import IntegrityError
from tensordelta.stores import NoSuchObject, open_store
from tensordelta.stores.web import WebStore

LARGE = os.urandom(300_000)


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def web(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Web]:
    folder = tmp_path / "chain"
    (folder / "packs").mkdir(parents=True)
    (folder / "packs/large").write_bytes(LARGE)
    (folder / "packs/empty").write_bytes(b"")
    (folder / "latest.json").write_bytes(b"{}")
    with Web(folder, ranges=request.param) as server:
        yield server


def store(web: Web) -> WebStore:
    found = open_store(web.address, options={"retries": QUICK})
    assert isinstance(found, WebStore)
    return found


def test_objects_are_read_whole_and_in_parts(web: Web) -> None:
    reading = store(web)
    assert reading.read("packs/large") == LARGE
    assert reading.read("packs/empty") == b"" and reading.size("packs/empty") == 0
    with reading.open("packs/large") as blob:
        assert blob.size == len(LARGE)
        for offset, length in ((0, 10), (200_000, 100_000), (65_530, 20), (100, 70_000), (5, 0)):
            assert blob.read(offset, length) == LARGE[offset : offset + length]
        with pytest.raises(IntegrityError):
            blob.read(len(LARGE), 1)


@pytest.mark.parametrize("status", [404, 410])
def test_two_statuses_say_that_there_is_no_object(web: Web, status: int) -> None:
    web.faults.add("packs/large", status=status)
    with pytest.raises(NoSuchObject):
        store(web).read("packs/large")
    assert store(web).size("packs/none") is None


@pytest.mark.parametrize("status", [400, 401, 403, 500, 503])
def test_any_other_status_is_a_failure_of_the_store(web: Web, status: int) -> None:
    web.faults.add("packs/large", times=QUICK.attempts, status=status)
    with pytest.raises(td.StoreError, match=f"status {status}"):
        store(web).read("packs/large")


def test_a_passing_failure_is_tried_again(web: Web) -> None:
    web.faults.add("packs/large", status=503)
    web.faults.add("packs/large", drop="before")
    assert store(web).read("packs/large") == LARGE


def test_a_connection_that_the_server_has_closed_is_replaced(web: Web) -> None:
    reading = store(web)
    reading.read("packs/empty")
    web.faults.add("packs/empty", drop="before", times=1)
    assert reading.read("packs/empty") == b""


def test_connections_are_kept(web: Web) -> None:
    reading = store(web)
    for _ in range(20):
        assert reading.read("latest.json") == b"{}"
        assert reading.size("packs/none") is None
    assert web.connections == 1


def test_a_short_answer_is_no_object(web: Web) -> None:
    web.faults.add("latest.json", times=QUICK.attempts, cut=1)
    with pytest.raises(td.StoreError):
        store(web).read("latest.json")
    assert store(web).read("latest.json") == b"{}"


def test_the_hint_is_asked_for_anew_only_where_it_has_changed(web: Web, tmp_path: Path) -> None:
    reading = store(web)
    assert [reading.read("latest.json") for _ in range(3)] == [b"{}"] * 3
    assert web.statuses == {200: 1, 304: 2}
    (tmp_path / "chain/latest.json").write_bytes(b'{"version": 1}')
    assert reading.read("latest.json") == b'{"version": 1}'


def test_a_hint_without_an_entity_tag_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "latest.json").write_bytes(b"{}")
    with Web(tmp_path, tags=False) as web:
        reading = store(web)
        assert [reading.read("latest.json") for _ in range(3)] == [b"{}"] * 3
        assert web.statuses == {200: 3}


def test_redirects_are_followed_five_times(web: Web) -> None:
    steps = [f"packs/step-{number}" for number in range(6)]
    for each, following in zip(steps, [*steps[1:], "packs/large"], strict=True):
        web.elsewhere[each] = f"{web.address}/{following}"
    assert store(web).read("packs/step-1") == LARGE
    with pytest.raises(td.StoreError, match="more than 5 redirects"):
        store(web).read("packs/step-0")


@pytest.mark.parametrize("place", ["http://example.invalid/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_no_redirect_leads_to_plain_http_or_to_files(web: Web, place: str) -> None:
    web.elsewhere["packs/large"] = place
    with pytest.raises(td.StoreError, match="to https alone"):
        store(web).read("packs/large")


def test_headers_are_sent_to_the_roots_own_host_alone(web: Web, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_bytes(b"x")
    heard: list[str | None] = []
    with Web(other) as elsewhere:
        for server in (web, elsewhere):
            handler = server._server.RequestHandlerClass
            send = handler.send_response

            def noting(self: object, status: int, send: object = send) -> None:
                heard.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
                send(self, status)  # type: ignore[operator]

            handler.send_response = noting  # type: ignore[method-assign, assignment]
        web.elsewhere["packs/large"] = f"{elsewhere.address}/x"
        reading = open_store(web.address, options={"headers": {"Authorization": "secret"}})
        assert reading.read("packs/large") == b"x"
    assert heard == ["secret", None]


@pytest.mark.parametrize("address", ["http://example.com/chain", "http://10.0.0.1/x", "https://", "https://u:p@h/x"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError):
        open_store(address)


def test_it_cannot_be_written_to_and_lists_nothing(web: Web) -> None:
    reading = store(web)
    for call in (
        lambda: reading.names("manifests/"),
        lambda: reading.entries(""),
        lambda: reading.put("packs/x", [b""]),
        lambda: reading.create("packs/x", b""),
        lambda: reading.batch(),
        lambda: reading.delete("packs/large"),
    ):
        with pytest.raises(td.StoreError, match="address of the folder or bucket"):
            call()
    assert not web.asked


def test_a_chain_is_loaded_and_followed(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(weights(0))
    with Web(tmp_path / "chain") as web:
        reader = td.open(web.address, store_options={"retries": QUICK})
        state = reader.load()
        assert same(state, 0)
        chain.publish(weights(1))
        update = next(reader.follow(state, poll=0.01, timeout=60))
        update.apply()
        assert same(state, 1)
        with pytest.raises(td.StoreError, match="only read"):
            reader.publish(weights(2))
