"""Copies of chains: what arrives is proven and whole, at every moment, and a copy that broke off is gone on with."""

from __future__ import annotations

import json
import shutil
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from folders import flip
from gallery import GOOD, MemoryBlob, MemoryStore

import tensordelta as td
from tensordelta.cli import main
from tensordelta.errors import MissingError
from tensordelta.format.names import manifest_name, shortcut_name
from tensordelta.format.signature import Message
from tensordelta.write.keys import secret_key

VERSIONS = 6


def states() -> list[td.State]:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 5000, np.uint16)
    found = []
    for version in range(VERSIONS):
        found.append(td.State.from_arrays({"w": words.copy(), "version": np.array([version], np.int64)}))
        words[rng.integers(0, 5000, 50)] += 1
    return found


STATES = states()


class Store(MemoryStore):
    """Notes what is done to it, and dies at a change.

    Attributes:
        changes: names of the objects that were put or created, in order.
        dies_at: changes that still happen; None for all.
        bend: changes what is read of an object, once for each time it is named.
    """

    def __init__(self, objects: dict[str, bytes] | None = None, *, remote: bool = False) -> None:
        super().__init__(dict(objects or {}))
        self.remote = remote
        self.changes: list[str] = []
        self.dies_at: int | None = None
        self.bend: list[str] = []
        self._lock = threading.Lock()

    def _change(self, name: str) -> None:
        with self._lock:
            if self.dies_at is not None and len(self.changes) >= self.dies_at:
                raise KeyboardInterrupt
            self.changes.append(name)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        data = b"".join(parts)
        self._change(name)
        self.objects[name] = data

    def create(self, name: str, data: bytes) -> bool:
        self._change(name)
        return super().create(name, data)

    def open(self, name: str) -> MemoryBlob:
        data = self._get(name)
        if name in self.bend:
            self.bend.remove(name)
            data = data[:-1] + bytes([data[-1] ^ 1])
        return MemoryBlob(self, name, data)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Versions 0 to 5, of which 2 is full and has files, and shortcuts to 3 from nothing and to 5 from 2."""
    monkeypatch.setenv("TENSORDELTA_CACHE", str(tmp_path / "writer"))
    store = Store()
    chain = td.open(store, create=True, threads=1)
    for version, state in enumerate(STATES):
        chain.publish(state, full=version == 2, files={"config.json": b"%d" % version} if version == 2 else None)
    chain.shortcut(None, 3)
    chain.shortcut(2, 5)
    chain.pin(4, "mine")
    store.changes.clear()
    return store


def check(store: MemoryStore, versions: Iterable[int]) -> None:
    """A chain of these versions that a verifier finds whole, each equal to what was published."""
    chain = td.open(store, threads=1)
    assert chain.versions() == sorted(versions)
    assert chain.verify(deep=True).faults == []
    for version in versions:
        assert chain.load(version).equals(STATES[version])


def expected(source: MemoryStore) -> dict[str, bytes]:
    return {name: data for name, data in source.objects.items() if not name.startswith("pins/")}


# -- a whole chain -----------------------------------------------------------------------------------------------------


def test_a_whole_chain(source: Store) -> None:
    """The same objects, byte by byte, each version after what it names, in order, and the hint last."""
    source.objects["notes.txt"] = source.objects["packs/mine"] = b"nothing of the chain"
    target = Store()
    copied = td.copy(source, target)
    del source.objects["notes.txt"], source.objects["packs/mine"]
    assert target.objects == expected(source)
    check(target, range(VERSIONS))
    assert target.changes[0] == "chain.json" and target.changes[-1] == "latest.json"
    manifests = [name for name in target.changes if name.startswith("manifests/")]
    assert manifests == sorted(manifests) and len(manifests) == VERSIONS
    for member in (name for name in target.changes if name.startswith(("manifests/", "shortcuts/"))):
        manifest = json.loads(target.objects[member])
        named = [pack["path"] for pack in manifest["packs"]] + [f"layouts/{manifest['layout']}.json"]
        named += [file["path"] for file in manifest.get("files", [])]
        named += [f"fingerprints/{manifest['tensor_fingerprints']}.bin"]
        if member.startswith("shortcuts/"):
            named.append(manifest_name(manifest["version"]))
        assert all(target.changes.index(name) < target.changes.index(member) for name in named)
    assert copied.versions == list(range(VERSIONS)) and copied.supporting == [] and copied.shortcuts == 2
    assert copied.put == len(target.changes) - 1 and copied.there == 0
    assert copied.size == sum(len(data) for name, data in target.objects.items() if name != "latest.json")


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_chains_of_every_kind(good: object) -> None:
    """Whatever a reader accepts can be copied; the copy has what the chain has, and reads as it does."""
    source, target = Store(good.build().objects), Store()
    chain = td.open(source, threads=1, allow_sources=["x"])
    before = chain.verify(deep=True)
    try:
        td.copy(source, target)
    except td.TensorDeltaError as fault:  # a reader goes around what is damaged; a copy of it is not made
        assert fault.object in {each.object.partition(" ")[0] for each in before.faults}
        return
    after = td.open(target, threads=1, allow_sources=["x"])
    assert after.versions() == chain.versions()
    assert {str(fault) for fault in after.verify(deep=True).faults} <= {str(fault) for fault in before.faults}
    for version in chain.versions():
        assert after.manifest(version) == chain.manifest(version)
    assert set(target.objects) <= set(source.objects) | {"latest.json"}


def test_a_chain_without_versions(source: Store) -> None:
    empty, target = Store({"chain.json": source.objects["chain.json"]}), Store()
    assert td.copy(empty, target).versions == []
    assert target.objects == empty.objects


def test_progress(source: Store) -> None:
    told: list[tuple[int, int]] = []
    td.copy(source, Store(), progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and {total for _, total in told} == {told[-1][0]}


# -- a range -----------------------------------------------------------------------------------------------------------

RANGES = {
    "from a full version": (range(2, 4), {2, 3}, set()),
    "a full shortcut": (range(3, 5), {3, 4}, set()),
    "over a shortcut": (range(5, 6), {5}, {2}),
    "from the first delta": (range(1, 2), {1}, {0}),
    "single versions": ({0, 3}, {0, 3}, set()),
    "more than there are": (range(4, 10**12), {4, 5}, {3}),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_range(source: Store, name: str) -> None:
    """It can be read by itself: with a full shortcut, or with the versions on the cheapest route."""
    versions, wanted, supporting = RANGES[name]
    target = Store()
    copied = td.copy(source, target, versions)
    assert (set(copied.versions), set(copied.supporting)) == (wanted, supporting)
    check(target, wanted | supporting)
    assert json.loads(target.objects["latest.json"])["version"] == max(wanted)
    assert set(target.objects) <= set(source.objects)


def test_ranges_one_after_the_other(source: Store) -> None:
    """A delta to what the copy has already needs nothing else; older versions may follow newer ones."""
    target = Store()
    td.copy(source, target, range(3, 4))
    assert td.copy(source, target, range(4, 6)).supporting == []
    check(target, range(3, 6))
    td.copy(source, target, range(3))
    assert json.loads(target.objects["latest.json"])["version"] == 5
    td.copy(source, target)
    assert target.objects == expected(source)


@pytest.mark.parametrize("versions", [range(10, 20), (), range(0)])
def test_a_range_without_versions(source: Store, versions: Iterable[int]) -> None:
    target = Store()
    with pytest.raises(MissingError) as caught:
        td.copy(source, target, versions)
    assert caught.value.rule == "TD-OBJ-008" and not target.objects


def test_a_version_that_no_route_reaches(source: Store) -> None:
    del source.objects[manifest_name(0)]
    target = Store()
    with pytest.raises(MissingError):
        td.copy(source, target, range(1, 2))
    assert not target.objects


def test_a_collected_chain(source: Store) -> None:
    """Packs that retention took are no obstacle where another edge leads to their version."""
    chain = td.open(source)
    (pack,) = chain.manifest(3).packs
    del source.objects[pack.path]
    target = Store()
    td.copy(source, target)
    assert target.objects == expected(source)
    check(target, range(VERSIONS))
    with pytest.raises(MissingError):
        (gone,) = chain.manifest(1).packs
        del source.objects[gone.path]
        td.copy(source, Store())


def test_shortcuts_that_are_left_out(source: Store) -> None:
    """What is of no use to a reader stays behind, and is named."""
    full, skip = shortcut_name(3, None), shortcut_name(5, 2)
    source.objects[full] = source.objects[full].replace(b'"fingerprint":"', b'"fingerprint":"0', 1)
    (pack,) = json.loads(source.objects[skip])["packs"]
    del source.objects[pack["path"]]
    target = Store()
    assert td.copy(source, target).left_out == [full, skip]
    check(target, range(VERSIONS))


def test_an_edge_from_another_base_is_no_way(source: Store) -> None:
    """As for a reader: the version is rebuilt over other edges, and the versions on that route are copied."""
    skip = shortcut_name(5, 2)
    value = json.loads(source.objects[skip])
    digits = value["base"]["fingerprint"]
    value["base"]["fingerprint"] = ("1" if digits[0] == "0" else "0") + digits[1:]
    source.objects[skip] = json.dumps(value).encode()
    target = Store()
    assert td.copy(source, target, {2, 5}).supporting == [3, 4]
    for version in (2, 3, 4, 5):
        assert td.open(target, threads=1).load(version).equals(STATES[version])


# -- faults ------------------------------------------------------------------------------------------------------------

#: Which object is altered or gone, and the rules that this breaks.
KINDS = {
    "packs/": ("TD-MAN-013", None),
    "layouts/": ("TD-LAY-008", "TD-LAY-009"),
    "fingerprints/": ("TD-FPR-001", "TD-FPR-010"),
    "files/": ("TD-MAN-022", "TD-MAN-029"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["altered", "cut", "gone"])
def test_an_object_that_is_wrong(source: Store, kind: str, damage: str) -> None:
    """Named, by its rule; it never gets into the copy, and nothing there names it."""
    if (kind, damage) == ("packs/", "gone"):
        pytest.skip("see test_a_collected_chain")
    victim = next(name for name in reversed(source.objects) if name.startswith(kind))
    data = source.objects[victim]
    if damage == "gone":
        del source.objects[victim]
    else:
        source.objects[victim] = data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1])
    target = Store()
    with pytest.raises(MissingError if damage == "gone" else td.IntegrityError) as caught:
        td.copy(source, target)
    assert caught.value.object == victim and caught.value.rule == KINDS[kind][damage == "gone"]
    assert victim not in target.objects
    digest = victim.partition("/")[2].partition(".")[0].encode()
    assert not any(digest in data for name, data in target.objects.items() if name.startswith("manifests/"))
    check(target, td.open(target).versions())
    source.objects[victim] = data
    td.copy(source, target)
    assert target.objects == expected(source)


@pytest.mark.parametrize("remote", [False, True])
def test_an_object_that_comes_altered_once(source: Store, remote: bool) -> None:
    source.remote = remote
    for kind in KINDS:
        source.bend.append(next(name for name in source.objects if name.startswith(kind)))
    target = Store()
    if remote:
        td.copy(source, target)
        assert target.objects == expected(source) and not source.bend
    else:
        with pytest.raises(td.IntegrityError):
            td.copy(source, target)


def test_a_manifest_that_changes_meanwhile(source: Store) -> None:
    """What was planned on is what arrives."""
    name = manifest_name(5)
    target = Store()
    take = target.create

    def create(other: str, data: bytes) -> bool:
        if other == manifest_name(4):
            source.objects[name] = source.objects[name].replace(b'"size":', b'"size": 1')
        return take(other, data)

    target.create = create
    with pytest.raises(td.TensorDeltaError) as caught:
        td.copy(source, target)
    assert caught.value.object == name and name not in target.objects


@pytest.mark.parametrize("versions", [None, range(3, 6)], ids=["all", "a range"])
def test_a_copy_may_die_at_any_change(source: Store, versions: range | None) -> None:
    """What is there is a chain; the next call brings the rest, and puts nothing again of a version that is there."""
    whole = Store()
    total = td.copy(source, whole, versions).put + 1
    for dies_at in range(total):
        target = Store()
        target.dies_at = dies_at
        with pytest.raises(KeyboardInterrupt):
            td.copy(source, target, versions)
        there = set()
        if "chain.json" in target.objects:
            chain = td.open(target, threads=1)
            for version in chain.versions():
                # The shortcut that makes the first version of a range whole comes right after its manifest.
                if target.changes[-1] != manifest_name(3) or versions is None:
                    assert chain.load(version).equals(STATES[version])
                there |= {pack.path for pack in chain.manifest(version).packs}
        target.dies_at = None
        target.changes.clear()
        copied = td.copy(source, target, versions)
        assert target.objects == whole.objects
        assert not there & set(target.changes)
        assert copied.put + copied.there == total - 1


# -- what is there -----------------------------------------------------------------------------------------------------


def test_again(source: Store) -> None:
    """A copy that is there is proven, not made again; what was damaged is mended."""
    target = Store()
    td.copy(source, target)
    wanted = dict(target.objects)
    target.changes.clear()
    copied = td.copy(source, target)
    assert copied.put == copied.size == 0 and target.changes == ["latest.json"]
    pack, other = sorted(name for name in target.objects if name.startswith("packs/"))[:2]
    target.objects[pack] = target.objects[pack][:-1] + bytes([target.objects[pack][-1] ^ 1])
    target.objects[other] = target.objects[other][:-1]
    for quick, mended in ((True, [other]), (False, [pack])):
        target.changes.clear()
        assert td.copy(source, target, quick=quick).put == 1
        assert target.changes == [*mended, "latest.json"]
    assert target.objects == wanted


def test_quick_reads_no_pack_of_the_copy(source: Store) -> None:
    target = Store()
    td.copy(source, target)
    target.fetched.clear()
    td.copy(source, target, quick=True)
    assert not any(name.startswith("packs/") for name in target.fetched)


def test_what_no_manifest_names_is_put_again(source: Store) -> None:
    """A collector may be about to take it."""
    target = Store()
    target.dies_at = 3
    with pytest.raises(KeyboardInterrupt):
        td.copy(source, target)
    left = {name for name in target.objects if name != "chain.json"}
    target.dies_at = None
    target.changes.clear()
    td.copy(source, target)
    assert left and left <= set(target.changes)


def test_something_else_is_there(source: Store) -> None:
    def refused(target: Store, rule: str, object: str) -> None:
        before = dict(target.objects)
        with pytest.raises(td.ConflictError) as caught:
            td.copy(source, target)
        assert (caught.value.rule, caught.value.object) == (rule, object)
        assert target.objects == before

    another = Store()
    td.open(another, create=True)
    refused(another, "TD-OBJ-010", "chain.json")
    refused(Store({"model.safetensors": b"x"}), "TD-STO-010", "memory")

    ahead = Store()
    td.copy(source, ahead, range(5))
    td.open(ahead).publish(STATES[0])
    refused(ahead, "TD-WRT-006", manifest_name(5))


def test_the_same_version_made_again(source: Store) -> None:
    """A manifest that says the same in other bytes is the version (SPEC.md section 11.2), and stays."""
    target = Store()
    td.copy(source, target)
    name = manifest_name(4)
    target.objects[name] = target.objects[name].replace(b'"created":"20', b'"created":"19')
    mine = target.objects[name]
    td.copy(source, target)
    assert target.objects[name] == mine
    check(target, range(VERSIONS))


# -- signatures --------------------------------------------------------------------------------------------------------


def test_signatures(source: Store) -> None:
    """They come before what they sign; with trusted keys, nothing is copied without one."""
    key = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    with pytest.raises(td.UntrustedError):
        td.copy(source, Store(), trusted_keys=[public])
    td.open(source).sign(key, range(5))
    plain, signed = Store(), Store()
    td.copy(source, plain)
    assert plain.objects == expected(source)
    copied = td.copy(source, signed, trusted_keys=[public])
    assert copied.versions == list(range(5))
    for store in (plain, signed):
        assert td.open(store, trusted_keys=[public]).load().equals(STATES[4])
        for name in store.changes:
            if name == "chain.json" or name.startswith(("manifests/", "shortcuts/")):
                signature = Message(name, store.read(name)).signature_name(secret_key(key).public)
                assert signature in store.objects or "000000000005" in name
                assert signature not in store.objects or store.changes.index(signature) < store.changes.index(name)
    assert not any("000000000005" in name for name in signed.objects)
    source.objects[manifest_name(2)] += b" "  # and now it is not signed
    assert td.copy(source, Store(), trusted_keys=[public]).versions == [0, 1, 3, 4]
    with pytest.raises(td.MissingError):
        td.copy(source, Store(), [2], trusted_keys=[public])


# -- memory and threads ------------------------------------------------------------------------------------------------


def test_objects_run_side_by_side(source: Store) -> None:
    """Objects of a version wait for one another only as long as it takes to fill a few threads."""
    meeting = threading.Barrier(3)
    opened = source.open

    def open_(name: str) -> MemoryBlob:
        if name.startswith(("packs/", "layouts/", "fingerprints/")) and not met.is_set():
            meeting.wait(timeout=60)
            met.set()
        return opened(name)

    met = threading.Event()
    source.open = open_
    td.copy(source, Store())
    assert met.is_set()


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A pack of 32 MiB passes through a few parts of it."""
    words = np.random.default_rng(0).integers(0, 1 << 32, 8 << 20, np.uint32)
    td.open(tmp_path / "a", create=True).publish({"w": words})
    del words
    tracemalloc.start()
    try:
        td.copy(tmp_path / "a", tmp_path / "b")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert td.open(tmp_path / "b").verify().ok


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(source: Store, tmp_path: Path) -> Path:
    td.copy(source, tmp_path / "a")
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["copy", str(folder / "a"), str(folder / "b"), *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_command(folder: Path) -> None:
    assert "versions       2 (3 to 4)" in run(folder, "--from", "3", "--to", "4")
    facts = json.loads(run(folder, "--json"))
    assert facts["versions"] == list(range(VERSIONS)) and facts["there"] > 0 and facts["put"] > 0
    assert "put            0 objects" in run(folder, "--quick")
    assert td.open(folder / "b").verify(deep=True).ok
    shutil.rmtree(folder / "b")
    flip(next((folder / "a" / "packs").iterdir()))
    assert '"error": "integrity"' in run(folder, "--json", code=1)


@pytest.mark.parametrize("arguments", [("--from", "4", "--to", "3"), ("--from", "x"), ("--trusted-key", "zz")])
def test_wrong_usage(folder: Path, arguments: tuple[str, ...]) -> None:
    run(folder, *arguments, code=2)
    assert not (folder / "b").exists()
