"""Buckets of the Hub when something goes wrong: the real client and hf-xet, a server that fails on purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from faults import ALWAYS
from hub_server import Hub
from places import QUICK

import tensordelta as td
from tensordelta.format.names import manifest_name
from tensordelta.stores.hub import HubStore

ONE = {"w": np.arange(60_000, dtype=np.float32)}
TWO = {"w": np.where(np.arange(60_000) % 50 == 0, -1, ONE["w"]).astype(np.float32)}

Make = Callable[..., HubStore]


@pytest.fixture
def store(hub: Hub, bucket: str) -> HubStore:
    return HubStore(bucket, "run", endpoint=hub.address, token="token", retries=QUICK)


@pytest.fixture
def chain(store: HubStore) -> td.Chain:
    """A chain with a full version and a delta."""
    chain = td.open(store, create=True)
    chain.publish(ONE)
    chain.publish(TWO)
    return chain


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows is done on another machine."""
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))


# -- passing faults ----------------------------------------------------------------------------------------------------

ROUTES = ["xet-write-token", "batch", "tree", "paths-info", "xet-read-token", "GET buckets", "HEAD buckets"]


@pytest.mark.slow
@pytest.mark.parametrize("what", [{"status": 429}, {"status": 503}, {"drop": "before"}], ids=["429", "503", "dropped"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_fault_that_passes(
    hub: Hub, store: HubStore, route: str, what: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One fault on any route, of any kind, changes nothing but the number of requests."""
    chain = td.open(store, create=True)
    chain.publish(ONE)
    fault = hub.faults.add(route, **what)
    chain.publish(TWO)
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))
    reader = td.open(store)
    assert reader.load().equals(td.State.from_arrays(TWO)) and reader.verify().ok
    assert fault.times == 0


def test_an_answer_that_is_lost(hub: Hub, store: HubStore) -> None:
    """A batch was done, and nobody said so: it is done again, with the same bytes."""
    chain = td.open(store, create=True)
    fault = hub.faults.add("batch", drop="after", times=2)
    chain.publish(ONE)
    assert fault.times == 0 and chain.versions() == [0] and chain.verify(deep=True).ok


def test_every_answer_to_a_create_is_lost(hub: Hub, store: HubStore) -> None:
    """The object is there: what was put is read back before anybody is told that it failed."""
    fault = hub.faults.add("batch", drop="after", times=100)
    assert store.create("chain.json", b"{}")
    assert fault.times < 100
    hub.faults.clear()
    hub.faults.add("batch", status=503, times=100)
    with pytest.raises(td.StoreError):
        store.create("manifests/000000000000.json", b"{}")


@pytest.mark.parametrize("times", [1, 3])
def test_a_batch_that_is_done_in_part(hub: Hub, store: HubStore, times: int) -> None:
    """The files that the hub refused are put again, and only these."""
    fault = hub.faults.add("batch", failed="packs/", times=times, skip=1)
    chain = td.open(store, create=True)
    chain.publish(ONE)
    assert fault.times == 0 and chain.verify(deep=True).ok
    # chain.json, then packs and the others, packs again, the manifest, and latest.json
    assert hub.faults.count("POST api/buckets") - hub.faults.count("paths-info") == 4 + times


@pytest.mark.parametrize("bent", [lambda data: data[:-1], lambda data: b"x" + data[1:]], ids=["truncated", "altered"])
@pytest.mark.parametrize("name", ["chain.json", "manifests/000000000001.json", "layouts/", "fingerprints/"])
def test_an_object_that_comes_altered_once(
    hub: Hub, chain: td.Chain, name: str, bent: Callable[[bytes], bytes], elsewhere: None
) -> None:
    fault = hub.faults.add(f"/run/{name}", bend=bent)
    reader = td.open(chain._reader.store)
    assert np.array_equal(reader.read(1, "w"), TWO["w"]) and fault.times == 0


def test_a_body_that_is_cut_short(hub: Hub, chain: td.Chain, elsewhere: None) -> None:
    fault = hub.faults.add("/run/manifests/", cut=100)
    assert td.open(chain._reader.store).load().equals(td.State.from_arrays(TWO)) and fault.times == 0


# -- faults that stay --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", [{"status": 503}, {"drop": "before"}, {"status": 401}, {"status": 403}])
@pytest.mark.parametrize("route", ["tree", "paths-info", "GET buckets", "xet-read-token"])
def test_a_read_that_fails_for_good(
    hub: Hub, chain: td.Chain, route: str, what: dict[str, object], elsewhere: None
) -> None:
    """The store's failure is told as it is, never as a missing object, and the state held is as it was."""
    store = chain._reader.store
    state = td.State.from_arrays({"w": ONE["w"].copy()})
    fault = hub.faults.add(route, times=ALWAYS, **what)
    for attempt in (lambda: td.open(store).prepare(state), lambda: td.open(store).load()):
        with pytest.raises(td.StoreError) as caught:
            attempt()
        assert caught.value.address == chain.address and caught.value.address in str(caught.value)
        assert caught.value.operation in ("read", "listing", "look", "download") and caught.value.advice
        assert not isinstance(caught.value, td.TensorDeltaError)
        if what.get("status") in (401, 403) and route != "xet-read-token":
            assert "token" in caught.value.advice
    assert state.equals(td.State.from_arrays(ONE))
    fault.times = 0
    td.open(store).prepare(state).apply()
    assert state.equals(td.State.from_arrays(TWO))


@pytest.mark.parametrize("route", ["xet-write-token", "batch"])
def test_a_write_that_fails_for_good(hub: Hub, chain: td.Chain, route: str) -> None:
    """Nothing is published; once the store is well again, the same call publishes it."""
    fault = hub.faults.add(route, times=ALWAYS, status=503)
    three = {"w": TWO["w"] + 1}
    with pytest.raises(td.StoreError) as caught:
        chain.publish(three)
    assert caught.value.operation == "put" and "packs/" in caught.value.object
    fault.times = 0
    assert chain.versions() == [0, 1]
    assert chain.publish(three).version == 2
    assert chain.verify(deep=True).ok


def test_files_that_are_refused_for_good(hub: Hub, chain: td.Chain) -> None:
    """The error names the files that could not be put, and no others; the manifest was not put."""
    fault = hub.faults.add("batch", failed="packs/", times=ALWAYS)
    with pytest.raises(td.StoreError) as caught:
        chain.publish({"w": TWO["w"] + 1})
    assert caught.value.object.startswith("packs/") and "fingerprints/" not in caught.value.object
    assert "storage is busy" in caught.value.cause
    fault.times = 0
    assert chain.versions() == [0, 1]


def test_a_bucket_that_does_not_exist(hub: Hub) -> None:
    """No bucket is no missing chain: a reader that took it for one would report the wrong thing."""
    for call in (td.open, lambda address, **options: td.open(address, create=True, **options)):
        with pytest.raises(td.StoreError, match="hf buckets create"):
            call("hf://buckets/me/none/run", store_options={"endpoint": hub.address, "retries": QUICK})
    store = HubStore("me/none", endpoint=hub.address, retries=QUICK)
    for operation in (
        lambda: store.read("chain.json"),
        lambda: store.size("chain.json"),
        lambda: list(store.names("")),
        lambda: store.put("chain.json", [b"x"]),
        lambda: store.delete("chain.json"),
    ):
        with pytest.raises(td.StoreError):
            operation()


def test_a_token_that_is_wrong(hub: Hub, chain: td.Chain) -> None:
    hub.token = "another"
    with pytest.raises(td.StoreError, match="token"):
        td.open(chain._reader.store)
    with pytest.raises(td.StoreError, match="token"):
        chain.publish(ONE)


@pytest.mark.parametrize("name", ["packs/", "layouts/", "fingerprints/", "manifests/000000000001.json"])
def test_an_object_that_is_altered_for_good(hub: Hub, bucket: str, chain: td.Chain, name: str, elsewhere: None) -> None:
    """Told as what is wrong with the object, by its name."""
    store = chain._reader.store
    victim = max(each for each in store.names("") if each.startswith(name))
    data = store.read(victim)
    manifest = name.startswith("manifests")
    store.put(victim, [data[:-5] if manifest else data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]])
    reader = td.open(store)
    error = td.MalformedError if manifest else td.IntegrityError
    with pytest.raises(error) as caught:
        reader.read(1, "w")
    assert caught.value.object.startswith(name)
    assert reader.verify().faults[0].object.startswith(name)
    store.put(victim, [data])
    assert td.open(store).verify().ok


def test_a_pack_that_is_cut_short_for_good(chain: td.Chain, elsewhere: None) -> None:
    store = chain._reader.store
    victim = max(store.names("packs/"), key=lambda name: store.size(name) or 0)
    store.put(victim, [store.read(victim)[:-1]])
    with pytest.raises(td.IntegrityError) as caught:
        td.open(store).load()
    assert caught.value.object.startswith(victim) and caught.value.rule == "TD-MAN-013"


# -- listings ----------------------------------------------------------------------------------------------------------


def test_listings_that_lag_and_come_in_any_order(hub: Hub, chain: td.Chain) -> None:
    """A version that is not listed yet is not there yet; nothing else is concluded of it."""
    hub.page, hub.backwards = 2, True
    chain.publish(ONE)
    reader = td.open(chain._reader.store)
    assert reader.versions() == [0, 1, 2]
    state = reader.load(1)
    hub.faults.add("tree/run/manifests", times=2, hide="000000000002")
    assert reader.newest() == 1
    assert reader.prepare(state).route == ()
    update = reader.prepare(state)
    assert update.version == 2
    update.apply()
    assert state.equals(td.State.from_arrays(ONE))


def test_a_listing_that_lags_behind_a_writer(hub: Hub, chain: td.Chain) -> None:
    """A writer that does not see the last version listed does not publish it again as another; its own it knows."""
    hub.faults.add("tree/run/manifests", times=1, hide="000000000001")
    assert chain.publish({"w": TWO["w"] + 1}).version == 2
    hub.faults.clear()
    hub.faults.add("tree/run/manifests", times=1, hide="000000000002")
    other = td.open(chain.address, store_options={"endpoint": hub.address, "token": "token", "retries": QUICK})
    with pytest.raises(td.ConflictError):
        other.publish({"w": TWO["w"] + 2})
    assert other.publish({"w": TWO["w"] + 2}).version == 3 and chain.verify(deep=True).ok


def test_names_that_no_chain_has(hub: Hub, bucket: str, chain: td.Chain) -> None:
    """Whatever else lies there is passed over in listings."""
    files = hub.buckets[bucket]
    some = files["run/chain.json"]
    for name in (
        "run/manifests/",
        "run/manifests//",
        "run/manifests/../x",
        f"run/manifests/{'9' * 5000}.json",
        "run//",
    ):
        files[name] = some
    for name in (
        "run/manifests/\udcff.json",
        "run/manifests/000000000009.json\n",
        "run/shortcuts/x y",
        "runaway/x",
        "",
    ):
        files[name] = some
    reader = td.open(chain._reader.store)
    assert reader.versions() == [0, 1] and reader.verify(deep=True).ok
    assert len(reader.log()) == 2
    assert not any("x" in name for name in chain._reader.store.names("manifests/"))


# -- two writers -------------------------------------------------------------------------------------------------------


class Meddled(HubStore):
    """Somebody else writes right after this writer has put an object."""

    def __init__(self, other: HubStore, name: str, data: bytes, retries: object = QUICK) -> None:
        root = other.address.removeprefix(f"hf://buckets/{other._bucket}/")
        super().__init__(other._bucket, root, endpoint=other._api.endpoint, token="token", retries=QUICK)
        self._other, self._victim, self._theirs = other, name, data

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        super().put(name, parts)
        if name == self._victim:
            self._other.put(name, [self._theirs])


def test_two_writers_one_after_the_other(chain: td.Chain, elsewhere: None) -> None:
    """The name is taken, by another state: `conflict`. The chain stays whole."""
    other = td.open(chain._reader.store)
    assert other.versions() == [0, 1]
    chain.publish({"w": TWO["w"] + 1})
    other._reader.documents.versions = lambda **_: [0, 1]  # it has looked before the first one wrote
    with pytest.raises(td.ConflictError) as caught:
        other.publish({"w": TWO["w"] + 2})
    assert caught.value.rule == "TD-WRT-006"
    assert td.open(chain._reader.store).load(2).equals(td.State.from_arrays({"w": TWO["w"] + 1}))
    assert chain.verify(deep=True).ok


def test_two_writers_at_once(store: HubStore, chain: td.Chain) -> None:
    """Both found the name free. Who does not find its own bytes there in the end learns it by reading back."""
    theirs = json.loads(store.read(manifest_name(1)))
    theirs |= {"version": 2, "base": {"version": 1, "layout": theirs["layout"], "fingerprint": theirs["fingerprint"]}}
    theirs |= {"packs": []}  # the same state again
    meddled = td.open(Meddled(store, manifest_name(2), json.dumps(theirs).encode()))
    with pytest.raises(td.ConflictError) as caught:
        meddled.publish({"w": TWO["w"] + 2})
    assert caught.value.rule == "TD-WRT-006"
    assert td.open(store).load(2).equals(td.State.from_arrays(TWO)) and td.open(store).verify(deep=True).ok


def test_a_second_try_after_a_first_that_succeeded(store: HubStore, chain: td.Chain) -> None:
    """The same version again, from a writer that does not know that it was published: its own success."""
    data = store.read(manifest_name(1))
    store.delete(manifest_name(1))
    again = td.open(Meddled(store, manifest_name(1), data))
    assert again.publish(TWO).version == 1
    assert store.read(manifest_name(1)) == data and chain.verify(deep=True).ok


def test_two_that_make_a_chain_at_once(store: HubStore) -> None:
    theirs = (
        b'{"tensordelta":"1.0-rc.1","chain":"5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90","created":"2026-11-20T12:00:00Z"}'
    )
    chain = td.open(Meddled(store, "chain.json", theirs), create=True)
    assert chain.id == "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90"
    with pytest.raises(td.ConflictError):
        td.open(store, create=True, chain="00000000-0000-4000-8000-000000000000")


def test_a_read_back_that_lags(hub: Hub, store: HubStore) -> None:
    """What was put a moment ago may not be there to read yet."""
    missing = {"X-Error-Code": "EntryNotFound"}
    hub.faults.add("GET buckets", status=404, headers=missing, times=2)
    assert store.create("manifests/000000000000.json", b"{}") is True
    hub.faults.add("GET buckets", status=404, headers=missing, times=ALWAYS)
    with pytest.raises(td.StoreError, match="read back"):
        store.create("manifests/000000000001.json", b"{}")


# -- requests ----------------------------------------------------------------------------------------------------------


def test_how_often_the_hub_is_asked(hub: Hub, chain: td.Chain) -> None:
    """All that the manifest names goes in one batch, then the manifest, then latest.json (TD-STO-007)."""
    hub.batches.clear()
    hub.faults.clear()
    chain.publish({"w": TWO["w"] + 1, "v": np.zeros(9, np.int8)}, files={"config.json": b"{}"}, layout_change=True)
    objects_, manifest, latest = hub.batches
    kinds = {path.split("/")[1] for path in objects_}
    assert kinds == {"packs", "layouts", "fingerprints", "files"}
    assert (manifest, latest) == (["run/manifests/000000000002.json"], ["run/latest.json"])
    # Looked for right before (TD-STO-008), read back right after (TD-STO-009); what was put never comes back.
    kinds = [each.split("/")[-1].split(".")[0] for each in hub.requests]
    at = [index for index, each in enumerate(kinds) if each == "batch"][1]
    assert kinds[at - 2 : at + 2] == ["paths-info", "xet-write-token", "batch", "000000000002"]
    assert not any("/packs/" in each for each in hub.requests)
    hub.faults.clear()
    assert chain._reader.store.read("latest.json").startswith(b"{")
    assert len(hub.requests) == 1  # what a follower does again and again


def test_bytes_that_lie_elsewhere(hub: Hub, chain: td.Chain, elsewhere: None) -> None:
    """The Hub sends readers to another host for the bytes; the token stays at home."""
    hub.elsewhere, hub.token = True, "token"
    assert td.open(chain._reader.store).load().equals(td.State.from_arrays(TWO))
    assert hub.strangers and not any(hub.strangers)


def test_the_terminal_is_the_callers(hub: Hub, store: HubStore, capfd: pytest.CaptureFixture[str]) -> None:
    """The client draws no bars, and its own setting is as it was."""
    from huggingface_hub.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    td.open(store, create=True).publish(ONE)
    td.open(store).load()
    assert are_progress_bars_disabled() == before
    assert capfd.readouterr() == ("", "")


WRITER = """
import sys
import numpy as np
import tensordelta as td
chain = td.open(sys.argv[1], create=True)
for step in range(3):
    chain.publish({"w": np.arange(70_000) + step * int(sys.argv[2])})
print(chain.versions(), chain.verify(deep=True).ok)
"""


@pytest.mark.slow
def test_several_processes(hub: Hub, bucket: str, tmp_path: Path) -> None:
    """Each with a chain of its own in one bucket, at the same time."""
    import os

    hub.processes = True
    with ExitStack() as running:
        processes = []
        for number in range(3):
            environment = os.environ | {
                "HF_ENDPOINT": hub.address,
                "HF_TOKEN": "token",
                "TENSORDELTA_CACHE": str(tmp_path / str(number)),
            }
            command = [sys.executable, "-c", WRITER, f"hf://buckets/{bucket}/{number}", str(number)]
            process = running.enter_context(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            )
            running.callback(process.kill)
            processes.append(process)
        assert [process.communicate(timeout=600)[0] for process in processes] == ["[0, 1, 2] True\n"] * 3


_FORKING = """
import os, threading
from huggingface_hub import get_session
from tensordelta.stores.hub import HubStore
HubStore("me/bucket")
lock = threading.Lock()
type(get_session()).close = lambda session: lock.acquire()
lock.acquire()  # as a thread that makes a request holds it
child = os.fork()
if child == 0:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_a_process_may_fork_while_a_thread_makes_requests() -> None:
    """As trainers do for their data loaders: no lock that the thread holds keeps the child from going on."""
    environment = {**os.environ, "PYTHONPATH": str(Path(td.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", _FORKING]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert output == "7\n"
