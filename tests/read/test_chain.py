"""What a chain answers about its versions: annotations, waiting, events, the log, files."""

from __future__ import annotations

import logging
import threading
import time

import gallery
import pytest
from gallery import Builder, good_chain, open_chain

import tensordelta as td


def test_versions_are_found_by_annotations() -> None:
    rng = gallery.Random(1)
    builder = Builder()
    model = gallery.small(rng)
    builder.full(0, model, annotations={"step": "10", "run": "a"})
    builder.delta(1, model, 0, annotations={"step": "20", "run": "a"})
    builder.delta(2, model, 1, annotations={"step": "20", "run": "b"})
    builder.delta(3, model, 2)
    chain = open_chain(builder)
    assert chain.at(step=20) == 2
    assert chain.at(step="20", run="a") == 1
    assert chain.at(step=10) == 0
    assert chain.at() == 3
    with pytest.raises(td.MissingError):
        chain.at(step=30)


def test_waiting_for_a_version() -> None:
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    objects = chain.store.objects
    later = {version: objects.pop(gallery.manifest_name(version)) for version in (4, 5, 6)}
    assert chain.wait(2, timeout=0) == 2
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="4"):
        chain.wait(timeout=0.05, poll=0.01)
    assert time.monotonic() - started < 5

    def publish() -> None:
        for version, data in later.items():
            time.sleep(0.03)
            objects[gallery.manifest_name(version)] = data

    thread = threading.Thread(target=publish)
    thread.start()
    assert chain.wait(timeout=20, poll=0.005) >= 4
    assert chain.wait(6, timeout=20, poll=0.005) == 6
    thread.join()
    assert chain.newest() == 6


def test_waiting_for_the_first_version() -> None:
    chain = open_chain(Builder())
    assert chain.newest() is None
    with pytest.raises(TimeoutError):
        chain.wait(timeout=0)

    def publish() -> None:
        time.sleep(0.03)
        chain.store.objects.update(good_chain("empty-deltas-and-gaps").objects)

    thread = threading.Thread(target=publish)
    thread.start()
    assert chain.wait(timeout=20, poll=0.005) >= 3
    thread.join()
    assert chain.wait(3, timeout=0) == 3


def test_events_tell_a_callback_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    builder = good_chain("shortcuts")
    seen: list[td.Event] = []
    chain = open_chain(builder, on_event=seen.append)
    state = chain.load(0)
    seen.clear()
    with caplog.at_level(logging.INFO, logger="tensordelta"):
        update = chain.prepare(state, 6)
        kinds = [event.kind for event in seen]
        assert kinds == ["fetched"] * len(update.route) + ["prepared"]
        update.apply()
    assert [event.kind for event in seen][len(kinds) :] == ["applied"]
    assert {event.version for event in seen[-2:]} == {6}
    assert seen[-1].size == seen[-2].size == update.size == sum(each.size for each in seen if each.kind == "fetched")
    assert all(event.seconds >= 0 for event in seen)
    logged = [record.getMessage() for record in caplog.records if record.name == "tensordelta"]
    assert len(logged) == len(seen) and logged[-1].startswith("applied version 6")


def test_the_log_shows_every_version() -> None:
    builder = good_chain("plain")
    rows = open_chain(builder).log()
    assert [row.version for row in rows] == [0, 1, 2, 3]
    assert [row.base for row in rows] == [None, 0, 1, 2]
    assert [row.changed for row in rows] == [
        sum(entry["changed"] for entry in builder.manifests[version]["packs"]) for version in range(4)
    ]
    assert [row.packs for row in rows] == [2, 2, 1, 1]
    named = {name for version in range(4) for name in builder.pack_names(version)}
    stored = sum(
        len(builder.get(name))
        for name in builder.objects
        if name.split("/")[0] in ("manifests", "layouts", "fingerprints", "files") or name in named
    )
    assert sum(row.size for row in rows) == stored


def test_a_manifest_and_its_files() -> None:
    builder = good_chain("files")
    chain = open_chain(builder)
    for version in range(3):
        entries = chain.manifest(version).files
        assert [each.name for each in entries] == [each["name"] for each in builder.manifests[version].get("files", [])]
        for entry in entries:
            blob = chain._reader.packs.file(entry)
            assert bytes(blob.read(0, blob.size)) == builder.get(entry.path)
