"""Following a chain that nobody can list: by its hint, GET alone (SPEC.md section 10.2)."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from gallery import MemoryStore
from web_server import Web
from wrapped import same, weights

import tensordelta as td
from tensordelta.cli import main
from tensordelta.format import strict_json
from tensordelta.format.documents import ChainDocument
from tensordelta.format.manifest import Base, Manifest
from tensordelta.format.names import ShortcutName, manifest_name, now, shortcut_name
from tensordelta.live.watch import Watch
from tensordelta.read.documents import Documents
from tensordelta.read.reader import Reader
from tensordelta.read.routes import Held
from tensordelta.read.trail import Trail
from tensordelta.write.hint import put_hint

CHAIN = "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90"


class Shelf(MemoryStore):
    """Manifests without packs, in a store that lists nothing.

    Args:
        newest: the newest version; each one starts from the one before it.
        lengths: a skip delta of each length leads to each version that it divides.
    """

    lists = False

    def __init__(self, newest: int, lengths: Sequence[int]) -> None:
        super().__init__({})
        self.put("chain.json", [strict_json.encode(ChainDocument(strict_json.VERSION, CHAIN, now()))])
        names = [
            ShortcutName(version, version - length, None)
            for length in lengths
            for version in range(length, newest + 1, length)
        ]
        for version in range(newest + 1):
            self._edge(manifest_name(version), version, version - 1 if version else None)
        for name in names:
            self._edge(shortcut_name(*name), name.version, name.base)
        put_hint(Reader(self), newest, names)

    def put(self, name: str, parts: Sequence[bytes]) -> None:
        self.objects[name] = b"".join(parts)

    def _edge(self, name: str, version: int, base: int | None) -> None:
        start = None if base is None else Base(base, "1" * 64, f"{base:016x}")
        manifest = Manifest(strict_json.VERSION, CHAIN, version, "1" * 64, f"{version:016x}", start, [], [], now())
        self.put(name, [manifest.encode()])


@pytest.mark.parametrize(("away", "objects"), [(1, 3), (100, 30), (1000, 104)])
def test_how_many_objects_a_follower_reads_that_was_away(away: int, objects: int) -> None:
    shelf = Shelf(1003, (8, 64))
    documents = Documents(shelf)
    shelf.reads.clear()
    held = Held(1003 - away, f"{1003 - away:016x}", "1" * 64)
    newest = documents.newest()
    assert newest == 1003
    route = Trail(documents, documents.shortcuts()).plan(newest, held=held)
    assert route[0].base == held.version and route[-1].manifest.version == newest
    assert len(set(shelf.reads)) == objects
    assert len(shelf.read("latest.json")) < 2000


# -- a chain of real versions -----------------------------------------------------------------------------------------


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    """Five versions, a skip delta from 1 to 3, and a full shortcut to 3."""
    made = td.open(tmp_path / "chain", create=True)
    for step in range(5):
        made.publish(weights(step))
    made.shortcut(1, 3)
    made.shortcut(None, 3)
    return made


@pytest.fixture
def web(chain: td.Chain) -> Iterator[Web]:
    with Web(Path(chain.address)) as server:
        yield server


def hint(web: Web, of: td.Chain, **changes: object) -> None:
    """Have the server's cache hold another hint."""
    own = json.loads(Path(of.address, "latest.json").read_bytes())
    web.cached["latest.json"] = json.dumps(own | changes).encode()


def edges(web: Web) -> list[str]:
    """The manifests and shortcuts that were asked for, each once."""
    return list(dict.fromkeys(name for name in web.asked if name.startswith(("manifests/", "shortcuts/"))))


def held(chain: td.Chain, version: int) -> td.State:
    return chain.load(version)


def test_the_longest_hinted_edge_comes_first(web: Web, chain: td.Chain) -> None:
    state = held(chain, 1)
    reader = td.open(web.address)
    web.clear()
    update = reader.prepare(state)
    update.apply()
    assert same(state, 4)
    assert update.route == (shortcut_name(3, 1), manifest_name(4))
    names = [manifest_name(1), manifest_name(4), manifest_name(3), shortcut_name(3, 1)]
    assert sorted(edges(web)) == sorted(names)  # the first recognizes the state
    assert reader.plan(4).route == (shortcut_name(3, None), manifest_name(4))


def test_one_conditional_request_is_a_look(web: Web, chain: td.Chain) -> None:
    watch = Watch(td.open(web.address)._reader, 4)
    assert watch.look() == []
    web.clear()
    for _ in range(30):
        assert watch.look() == []
    assert web.asked == ["latest.json"] * 30 and web.statuses == {304: 30}
    chain.publish(weights(5))
    assert watch.look() == [5]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"version": 99},
        {"chain": "00000000-0000-0000-0000-000000000000"},
        {"version": "5"},
        {"shortcuts": ["000000000004-full.json"]},
        {"shortcuts": [f"{version:012d}-full" for version in range(65)]},
    ],
    ids=["behind", "far ahead", "of another chain", "malformed", "no name", "too many names"],
)
def test_a_hint_that_names_nothing_newer_changes_nothing(web: Web, chain: td.Chain, changes: dict[str, object]) -> None:
    state = held(chain, 4)
    hint(web, chain, **changes)
    watch = Watch(td.open(web.address)._reader, 4)
    assert watch.look() == []
    with pytest.raises(TimeoutError):
        next(td.open(web.address).follow(state, poll=0, timeout=0))
    assert same(state, 4)


def test_a_hint_may_lie_about_shortcuts(web: Web, chain: td.Chain) -> None:
    """Names of objects that do not exist, and of one that leads to another state."""
    other = json.loads(Path(chain.address, shortcut_name(3, 1)).read_bytes())
    other |= {"version": 4, "base": other["base"] | {"version": 2}}
    Path(chain.address, shortcut_name(4, 2)).write_text(json.dumps(other))
    hint(web, chain, shortcuts=["000000000004-000000000002", "000000000004-000000000001", "000000000009-000000000001"])
    state = held(chain, 1)
    td.open(web.address).prepare(state).apply()
    assert same(state, 4)
    assert shortcut_name(9, 1) not in web.asked  # no version of the route


def test_a_hinted_shortcut_that_cannot_be_had_is_passed_over(web: Web, chain: td.Chain) -> None:
    web.faults.add(shortcut_name(3, 1), times=100, status=403)
    state = held(chain, 1)
    td.open(web.address).prepare(state).apply()
    assert same(state, 4)


def test_a_manifest_that_cannot_be_had_is_a_failure_of_the_store(web: Web, chain: td.Chain) -> None:
    web.faults.add(manifest_name(3), times=100, status=403)
    state = held(chain, 1)
    with pytest.raises(td.StoreError, match="403"):
        td.open(web.address).prepare(state)


def test_an_edge_whose_pack_is_gone_is_left_for_the_next(web: Web, chain: td.Chain) -> None:
    for pack in json.loads(Path(chain.address, shortcut_name(3, 1)).read_bytes())["packs"]:
        Path(chain.address, pack["path"]).unlink()
    state = held(chain, 1)
    update = td.open(web.address).prepare(state)
    assert update.route == tuple(map(manifest_name, (2, 3, 4)))
    update.apply()
    assert same(state, 4)


def retire(chain: td.Chain) -> None:
    """Publish a full version and drop all others, whose objects only their copies hold from then on."""
    two_days_ago = time.time() - 2 * 86_400
    for path in Path(chain.address).rglob("*"):
        os.utime(path, (two_days_ago, two_days_ago))
    writer = td.open(chain.address)
    writer.publish(weights(9), full=True)
    assert writer.collect(1).kept == [5]


@pytest.mark.parametrize("first", [4, 2])
@pytest.mark.parametrize("before", [None, 1])
def test_what_is_dropped_once_the_hint_was_read(web: Web, chain: td.Chain, first: int, before: int | None) -> None:
    """A collector drops what the hint named, and what the walk would read from then on: the copies are read."""
    hint(web, chain, shortcuts=[])
    state = td.State.empty() if before is None else held(chain, before)
    reader = td.open(web.address)
    web.faults.add(manifest_name(first), act=lambda: retire(chain))
    reader.prepare(state, 4).apply()
    assert same(state, 4)
    assert f"retired/{manifest_name(first)}" in web.asked
    assert not list(Path(chain.address).glob("manifests/00000000000[0-4].json"))


def test_what_the_hint_names_is_found_among_the_copies(web: Web, chain: td.Chain) -> None:
    """A shortcut, too."""
    hint(web, chain)
    state = held(chain, 1)
    reader = td.open(web.address)
    web.faults.add(manifest_name(4), act=lambda: retire(chain))
    update = reader.prepare(state)
    assert update.route == (shortcut_name(3, 1), manifest_name(4))
    update.apply()
    assert same(state, 4)


def test_a_full_shortcut_is_tried_by_name_where_a_base_is_gone(web: Web, chain: td.Chain) -> None:
    hint(web, chain, shortcuts=[])
    web.cached[manifest_name(0)] = None
    reader = td.open(web.address)
    web.clear()
    assert same(reader.load(), 4)
    assert not any(web._body(name) for name in edges(web) if name.startswith("shortcuts/") and "3-full" not in name)


def test_a_state_of_no_version_is_read_from_nothing(web: Web, chain: td.Chain) -> None:
    state = td.State.from_arrays(weights(17))
    td.open(web.address).prepare(state).apply()
    assert same(state, 4)


def test_a_state_without_a_remembered_version_is_known_by_its_words(web: Web, chain: td.Chain) -> None:
    state = td.State.from_arrays(weights(3))
    assert td.open(web.address).prepare(state).route == (manifest_name(4),)


def test_no_route_is_the_error_of_what_cannot_be_read(web: Web, chain: td.Chain) -> None:
    hint(web, chain, shortcuts=[])
    web.cached[shortcut_name(3, None)] = None
    web.cached[manifest_name(2)] = b"{"
    with pytest.raises(td.MalformedError, match=manifest_name(2)):
        td.open(web.address).load()


def test_the_cache_may_be_behind_or_lack_what_the_hint_names(web: Web, chain: td.Chain) -> None:
    """Each of a chain's objects in turn is as the cache had it a version ago; a reader ends at a version, or waits."""
    behind = {path.relative_to(chain.address).as_posix() for path in Path(chain.address).rglob("*") if path.is_file()}
    old = {name: Path(chain.address, name).read_bytes() for name in ("latest.json",)}
    state = held(chain, 4)
    chain.publish(weights(5))
    new = {p.relative_to(chain.address).as_posix() for p in Path(chain.address).rglob("*") if p.is_file()} - behind
    for name in [*sorted(new), "latest.json"]:
        web.cached = {name: old.get(name)}
        reader = td.open(web.address)
        shutil.rmtree(td.stores.cache_root() / "packs", ignore_errors=True)
        try:
            update = next(reader.follow(state, poll=0, timeout=0))
        except (TimeoutError, td.MissingError):
            assert same(state, 4)
        else:
            assert update.version == 5
    web.cached = {}
    next(td.open(web.address).follow(state, poll=0, timeout=60)).apply()
    assert same(state, 5)


def test_one_by_one(web: Web, chain: td.Chain) -> None:
    state = held(chain, 1)
    for update in td.open(web.address).follow(state, poll=0, until=4, one_by_one=True):
        update.apply()
        assert state.version is not None and same(state, state.version)
    assert state.version == 4


# -- commands ---------------------------------------------------------------------------------------------------------


def test_commands_over_http(web: Web, chain: td.Chain, tmp_path: Path) -> None:
    def run(*arguments: str) -> object:
        done = CliRunner().invoke(main, [*arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert run("pull", web.address, str(tmp_path / "engine"))["version"] == 4  # type: ignore[index]
    assert [row["version"] for row in run("log", web.address)] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]
    assert run("show", web.address, "3")["base"]["version"] == 2  # type: ignore[index]
    assert run("verify", web.address, "--deep")["faults"] == []  # type: ignore[index]
    done = CliRunner().invoke(main, ["copy", web.address, str(tmp_path / "copy")])
    assert done.exit_code != 0 and "lists nothing" in done.output
