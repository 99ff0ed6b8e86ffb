"""Object stores when something goes wrong: obstore against moto's server, behind a proxy that fails on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from faults import ALWAYS, Proxy
from places import QUICK, S3

import tensordelta as td
from tensordelta.format.names import manifest_name
from tensordelta.stores import open_store
from tensordelta.stores.cloud import CloudStore

ONE = {"w": np.arange(60_000, dtype=np.float32)}
TWO = {"w": np.where(np.arange(60_000) % 50 == 0, -1, ONE["w"]).astype(np.float32)}
NAME = "manifests/000000000000.json"


@pytest.fixture
def proxy(s3: S3) -> Iterator[Proxy]:
    with Proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(s3: S3) -> str:
    return s3.bucket()


@pytest.fixture
def store(s3: S3, proxy: Proxy, bucket: str) -> CloudStore:
    """A store behind the proxy; an answer that takes a second is late."""
    options = {**s3.options, "endpoint": proxy.address, "retries": QUICK}
    options["client_options"] = {"allow_http": True, "timeout": timedelta(seconds=1)}
    return open_store(f"s3://{bucket}/run", options=options)


@pytest.fixture
def patient(s3: S3, proxy: Proxy, bucket: str) -> CloudStore:
    """A store behind the proxy for which no answer is late."""
    return open_store(f"s3://{bucket}/run", options={**s3.options, "endpoint": proxy.address, "retries": QUICK})


@pytest.fixture
def direct(s3: S3, bucket: str) -> CloudStore:
    """The same without the proxy: somebody else."""
    return open_store(f"s3://{bucket}/run", options={**s3.options, "retries": QUICK})


@pytest.fixture
def chain(store: CloudStore) -> td.Chain:
    chain = td.open(store, create=True)
    chain.publish(ONE)
    chain.publish(TWO)
    return chain


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows is done on another machine."""
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))


# -- passing faults ----------------------------------------------------------------------------------------------------

FAULTS = [{"status": 500}, {"status": 503}, {"status": 429}, {"drop": "before"}, {"drop": "after"}, {"delay": 1.5}]
REQUESTS = ["PUT", "GET", "list-type=2", "run/packs", "run/manifests/000000000001.json", "run/latest.json"]


@pytest.mark.slow
@pytest.mark.parametrize("what", FAULTS, ids=["500", "503", "429", "dropped", "lost", "late"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_fault_that_passes(
    proxy: Proxy,
    store: CloudStore,
    request_: str,
    what: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One fault of any kind with any request changes nothing but the number of requests."""
    chain = td.open(store, create=True)
    chain.publish(ONE)
    writing = proxy.faults.add(request_, **what)
    chain.publish(TWO)
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "elsewhere"))
    reading = proxy.faults.add(request_, **what)
    reader = td.open(store)
    assert reader.load().equals(td.State.from_arrays(TWO)) and reader.verify().ok
    assert writing.times == 0
    assert (reading.times == 0) == (request_ not in ("PUT", "run/latest.json"))
    assert store.read("latest.json").endswith(b'"version":1}')


@pytest.mark.parametrize("what", [{"cut": 1000}, {"bend": lambda body: body[:1000]}], ids=["cut", "short"])
def test_a_pack_that_comes_short(proxy: Proxy, chain: td.Chain, what: dict[str, object], elsewhere: None) -> None:
    """Fewer bytes than the object has, with a length that says so or not."""
    fault = proxy.faults.add("GET", times=2, skip=4, **what)
    assert td.open(chain._reader.store).load().equals(td.State.from_arrays(TWO))
    assert fault.times == 0


def test_a_pack_that_comes_altered(proxy: Proxy, chain: td.Chain, elsewhere: None) -> None:
    """Bytes that another node of the store had wrong: fetched again, since their digest tells."""
    fault = proxy.faults.add("run/packs/", bend=lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    assert td.open(chain._reader.store).load().equals(td.State.from_arrays(TWO))
    assert fault.times == 0


# -- create ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [{"drop": "after"}, {"delay": 1.5}], ids=["lost", "late"])
def test_a_create_whose_answer_is_lost(proxy: Proxy, store: CloudStore, what: dict[str, object]) -> None:
    """It succeeded, nobody said so, and the second try found the name taken: by this very call (TD-STO-002)."""
    proxy.faults.add("PUT", **what)
    assert store.create(NAME, b"mine") is True
    assert store.read(NAME) == b"mine"
    proxy.faults.add("PUT", **what)
    assert store.create(NAME, b"mine again") is False


def test_a_create_that_may_have_failed_while_another_succeeded(
    proxy: Proxy, store: CloudStore, direct: CloudStore
) -> None:
    proxy.faults.add("PUT", drop="before", act=lambda: direct.create(NAME, b"theirs"))
    assert store.create(NAME, b"mine") is False
    assert direct.read(NAME) == b"theirs"


def test_a_create_whose_every_answer_is_lost(proxy: Proxy, store: CloudStore, direct: CloudStore) -> None:
    """What is there in the end decides."""
    proxy.faults.add("PUT", drop="after", times=ALWAYS)
    assert store.create(NAME, b"mine") is True
    proxy.faults.clear()
    proxy.faults.add("PUT", drop="before", times=ALWAYS)
    with pytest.raises(td.StoreError) as caught:
        store.create("manifests/000000000001.json", b"mine")
    assert caught.value.operation == "create" and direct.size("manifests/000000000001.json") is None


@pytest.mark.parametrize("theirs", [None, b"theirs", b"mine"])
def test_a_create_while_another_request_is_under_way(
    proxy: Proxy, store: CloudStore, direct: CloudStore, theirs: bytes | None
) -> None:
    """409 says nothing yet: the writer tries again (SPEC.md section 12.3)."""
    proxy.faults.add("PUT", status=409, act=lambda: theirs is None or direct.create(NAME, theirs))
    assert store.create(NAME, b"mine") is (theirs is None)
    assert direct.read(NAME) == (theirs or b"mine")


def test_two_writers(chain: td.Chain, direct: CloudStore, proxy: Proxy, elsewhere: None) -> None:
    """Another writer's manifest appears right before this one's: `conflict`, and the chain stays whole."""
    other = td.open(direct)
    state = {"w": TWO["w"] + 1}
    proxy.faults.add(f"run/{manifest_name(2)}", act=lambda: other.publish(state))
    with pytest.raises(td.ConflictError) as caught:
        chain.publish({"w": TWO["w"] + 2})
    assert caught.value.rule == "TD-WRT-006"
    assert td.open(direct).load(2).equals(td.State.from_arrays(state)) and td.open(direct).verify(deep=True).ok


# -- faults that stay --------------------------------------------------------------------------------------------------

STAYING = [{"status": 503}, {"drop": "before"}, {"status": 403}, {"cut": 0}]


@pytest.mark.slow
@pytest.mark.parametrize("what", STAYING, ids=["503", "dropped", "403", "cut"])
@pytest.mark.parametrize("request_", ["run/chain.json", "list-type=2", "run/manifests/000000000001.json", "run/packs"])
def test_a_read_that_fails_for_good(
    proxy: Proxy, chain: td.Chain, request_: str, what: dict[str, object], elsewhere: None
) -> None:
    """The store's failure is told as it is, never as a missing object, and the state held is as it was."""
    store = chain._reader.store
    state = td.State.from_arrays({"w": ONE["w"].copy()})
    fault = proxy.faults.add(request_, times=ALWAYS, **what)
    for attempt in (lambda: td.open(store).prepare(state), lambda: td.open(store).load()):
        proxy.faults.requests.clear()
        with pytest.raises(td.StoreError) as caught:
            attempt()
        assert caught.value.address == store.address and caught.value.operation in ("read", "listing")
        if what.get("status") == 403:
            assert "credentials" in caught.value.advice
            assert proxy.faults.count("GET") <= 12  # no permission now is none in a second
    assert state.equals(td.State.from_arrays(ONE))
    fault.times = 0
    td.open(store).prepare(state).apply()
    assert state.equals(td.State.from_arrays(TWO))


@pytest.mark.parametrize("prefix", ["packs/", "manifests/"])
def test_a_write_that_fails_for_good(proxy: Proxy, chain: td.Chain, prefix: str, direct: CloudStore) -> None:
    """Nothing is published; once the store is well again, the same call publishes it."""
    fault = proxy.faults.add(f"run/{prefix}", times=ALWAYS, status=503)
    three = {"w": TWO["w"] + 1}
    with pytest.raises(td.StoreError) as caught:
        chain.publish(three)
    assert caught.value.object.startswith(prefix)
    assert td.open(direct).versions() == [0, 1]
    fault.times = 0
    assert chain.publish(three).version == 2 and chain.verify(deep=True).ok


def test_latest_is_a_hint(proxy: Proxy, chain: td.Chain, direct: CloudStore, caplog: pytest.LogCaptureFixture) -> None:
    """The version exists when its manifest does; whoever published it is not told that it failed."""
    fault = proxy.faults.add("PUT", times=ALWAYS, status=503, skip=0)
    fault.match = "run/latest.json"
    assert chain.publish({"w": TWO["w"] + 1}).version == 2
    assert "version 2 is published, but latest.json was not put" in caplog.text
    assert td.open(direct).versions() == [0, 1, 2]
    fault.times = 0
    assert chain.publish({"w": TWO["w"] + 2}).version == 3 and chain.verify(deep=True).ok


def test_several_objects_that_fail(proxy: Proxy, store: CloudStore) -> None:
    """The error of a batch names them all."""
    proxy.faults.add("run/packs/bad", times=ALWAYS, status=503)
    with pytest.raises(td.StoreError) as caught, store.batch() as batch:
        for name in ("packs/bad1", "packs/good", "packs/bad2"):
            batch.put(name, [b"x"])
    assert caught.value.object == "packs/bad1, packs/bad2"
    assert store.read("packs/good") == b"x"


def test_an_answer_404_that_names_no_object(proxy: Proxy, store: CloudStore) -> None:
    """Not every server says what it has not; then a listing tells. One that is no object store has none."""
    store.put("packs/there", [b"x"])
    for name in ("packs/absent", "absent"):
        proxy.faults.clear()
        proxy.faults.add(f"run/{name}", times=ALWAYS, status=404)
        assert store.size(name) is None
        store.delete(name)
        with pytest.raises(td.MissingError):
            store.read(name)
    proxy.faults.add("run/packs/there", times=ALWAYS, status=404)
    with pytest.raises(td.StoreError, match="404"):
        store.read("packs/there")
    proxy.faults.add("", times=ALWAYS, status=404)
    for operation in (
        lambda: store.read("absent"),
        lambda: store.size("absent"),
        lambda: list(store.names("")),
        lambda: list(store.entries("packs/")),
        lambda: store.delete("absent"),
        lambda: store.put("absent", [b"x"]),
        lambda: store.create("absent", b"x"),
        lambda: td.open(store),
        lambda: td.open(store, create=True),
    ):
        with pytest.raises(td.StoreError, match="404"):
            operation()


def test_a_bucket_that_does_not_exist(s3: S3) -> None:
    """No bucket is no missing chain."""
    options = {**s3.options, "retries": QUICK}
    for create in (False, True):
        with pytest.raises(td.StoreError, match="Make the bucket first"):
            td.open("s3://no-such-bucket/run", create=create, store_options=options)
    store = open_store("s3://no-such-bucket/run", options=options)
    for operation in (
        lambda: store.read("chain.json"),
        lambda: store.size("chain.json"),
        lambda: list(store.names("")),
        lambda: store.put("chain.json", [b"x"]),
        lambda: store.create("chain.json", b"x"),
    ):
        with pytest.raises(td.StoreError, match="no-such-bucket"):
            operation()


@pytest.mark.parametrize("option", [{"endpoimt": "x"}, {"timeout": "7s"}, {"client_options": {"timeout": "soon"}}])
def test_options_that_do_not_exist(option: dict[str, object], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="s3://bucket"):
        open_store("s3://bucket/run", options=option)


def test_options_of_the_environment(s3: S3, proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As obstore reads them, those of its HTTP client included; those given come first."""
    for name, value in (s3.environment | {"AWS_TIMEOUT": "300ms", "AWS_ENDPOINT": proxy.address}).items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{bucket}/run", options={"retries": QUICK})
    store.put("chain.json", [b"{}"])
    fault = proxy.faults.add("chain.json", delay=0.6)
    assert store.read("chain.json") == b"{}"
    assert proxy.faults.count("GET") == 2 and fault.times == 0
    longer = open_store(f"s3://{bucket}/run", options={"client_options": {"timeout": "20s"}, "retries": QUICK})
    proxy.faults.clear()
    proxy.faults.add("chain.json", delay=0.6)
    assert longer.read("chain.json") == b"{}" and proxy.faults.count("GET") == 1


# -- listings ----------------------------------------------------------------------------------------------------------


def test_a_listing_whose_second_page_fails(proxy: Proxy, store: CloudStore, direct: CloudStore) -> None:
    """It goes on where it was, and gives every name once."""
    names = [f"manifests/{version:012d}.json" for version in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: direct.put(name, [b"{}"]), names))
    fault = proxy.faults.add("continuation-token", status=503)
    assert list(store.names("manifests/")) == names and fault.times == 0
    proxy.faults.clear()
    assert list(store.names("manifests/", names[-3])) == names[-2:]
    assert len(proxy.faults.requests) == 1  # what a follower pays for a listing from a known version on


def test_names_that_no_chain_has(s3: S3, bucket: str, chain: td.Chain) -> None:
    """Whatever else lies there is passed over in listings."""
    for name in ("", f"{'9' * 900}.json", "000000000009.json ", "ü", "%2e%2e", "a/b c", "\U0001f600"):
        for prefix in ("run/manifests/", "run/shortcuts/", "run/", "runaway/"):
            s3.client().put_object(Bucket=bucket, Key=prefix + name, Body=b"x")
    reader = td.open(chain._reader.store)
    assert reader.versions() == [0, 1] and reader.verify(deep=True).ok and len(reader.log()) == 2


@pytest.mark.parametrize("name", ["run/manifests//x", "run/manifests/../x", "run/manifests/a\x01b"])
def test_a_name_that_obstore_refuses(s3: S3, bucket: str, chain: td.Chain, name: str) -> None:
    """obstore gives no listing with such a name in it. That is said, with the name; it is not taken for an end."""
    s3.client().put_object(Bucket=bucket, Key=name, Body=b"x")
    with pytest.raises(td.StoreError, match="Remove the object") as caught:
        td.open(chain._reader.store).versions()
    assert repr(name)[1:-1].replace("\\x01", "\x01") in caught.value.cause


# -- transfers ---------------------------------------------------------------------------------------------------------


def test_downloads_run_side_by_side(proxy: Proxy, patient: CloudStore, tmp_path: Path, elsewhere: None) -> None:
    """Packs of a long route are fetched several at once, no more than eight, and told as events."""
    chain = td.open(patient, create=True)
    state = {"w": np.arange(40_000, dtype=np.int32)}
    rng = np.random.default_rng(0)
    for _ in range(12):
        chain.publish(state)
        state["w"] = rng.integers(0, 1 << 30, 40_000, np.int32)
    events: list[td.Event] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "third"))
        reader = td.open(patient, on_event=events.append)
        proxy.most = 0
        proxy.faults.add("run/packs", times=ALWAYS, delay=0.3)
        loaded = reader.load()
    assert loaded.equals(chain.load(11))
    assert 3 <= proxy.most <= 9  # eight, while the reader itself asks for a layout
    progress = [event for event in events if event.kind == "downloading"]
    assert progress and all(event.size <= (event.total or 0) for event in progress)
    assert [event.size for event in progress] == sorted(event.size for event in progress)


@pytest.mark.parametrize("memory", [1 << 20, 1 << 30])
def test_bytes_in_flight_follow_the_memory_budget(
    proxy: Proxy, store: CloudStore, memory: int, tmp_path: Path, elsewhere: None
) -> None:
    """Parts of one large pack come side by side, each so small that all of them fit an eighth of the budget."""
    weights = {"w": np.random.default_rng(0).integers(0, 1 << 32, 700_000, np.uint32)}
    td.open(store, create=True).publish(weights)
    ranges: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORDELTA_CACHE", str(tmp_path / "third"))
        proxy.faults.add("run/packs", times=ALWAYS, bend=lambda body: ranges.append(len(body)) or body)
        reader = td.open(store, memory=memory)
        if memory > 2 * weights["w"].nbytes:
            assert reader.load().equals(td.State.from_arrays(weights))
        else:
            with pytest.raises(td.LimitError):
                reader.load()
    assert max(ranges) <= max(memory // 64, 1 << 16) + 1


def test_parts_of_an_upload(proxy: Proxy, store: CloudStore) -> None:
    """A large object goes up in parts; one that fails is sent again alone, and never leaves half an object."""
    data = np.random.default_rng(0).bytes(20 << 20)
    fault = proxy.faults.add("partNumber=2", status=503)
    store.put("packs/large", [data])
    assert fault.times == 0 and store.read("packs/large") == data
    assert proxy.faults.count("PUT") == 4  # three parts, one of them twice
    proxy.faults.add("partNumber=2", status=400, times=ALWAYS)
    with pytest.raises(td.StoreError):
        store.put("packs/other", [data])
    assert store.size("packs/other") is None


def test_an_interrupted_reader(proxy: Proxy, chain: td.Chain, elsewhere: None) -> None:
    """Control-C while packs come: the read ends at once, and leaves no file under way behind."""
    proxy.faults.add("run/packs", times=ALWAYS, delay=0.5)

    def interrupt(event: td.Event) -> None:
        if event.kind == "downloading":
            raise KeyboardInterrupt

    reader = td.open(chain._reader.store, on_event=interrupt)
    with pytest.raises(KeyboardInterrupt):
        reader.load()
    assert not list(reader._reader.packs.cache.folder.glob(".part-*"))
    assert not any(thread.name.startswith("tensordelta-downloads") for thread in threading.enumerate())
