"""Routes: the cheapest way by bytes, and around whatever fails."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import gallery
import numpy as np
import pytest
from clocked_store import ClockedStore
from gallery import Builder, as_state, good_chain, manifest_name, open_chain, shortcut_name
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import tensordelta as td
from tensordelta.errors import TensorDeltaError
from tensordelta.format.manifest import Manifest, parse_manifest
from tensordelta.format.names import ShortcutName
from tensordelta.read import routes
from tensordelta.read.listing import Member, Members, member_name
from tensordelta.read.routes import Edge, Held, Planner
from tensordelta.state.state import State

LAYOUT = "1" * 64


def fingerprint_of(version: int) -> str:
    return f"{version:016x}"


def manifest(
    version: int, base: int | None, size: int, *, start: dict[str, object] | None = None, **members: object
) -> Manifest:
    """A manifest of one pack of some size; versions have a fingerprint each. `start` is written as its base."""
    if base is not None and start is None:
        start = {"version": base, "layout": LAYOUT, "fingerprint": fingerprint_of(base)}
    document = {
        "tensordelta": "1.0-rc.1",
        "chain": gallery.CHAIN,
        "version": version,
        "layout": LAYOUT,
        "fingerprint": fingerprint_of(version),
        "base": start,
        "packs": [
            {
                "sha256": "2" * 64,
                "size": size,
                "path": "packs/x",
                "content": "chunks",
                "tensors": [[0, 1]],
                "changed": 1,
            }
        ],
        "features": [],
        "created": gallery.CREATED,
        **members,
    }
    return parse_manifest(gallery.dumps(document), version=version)


class Listing:
    """A listing of manifests and shortcuts; a member may be an error that reading it raises."""

    def __init__(self) -> None:
        self.manifests: dict[int, Manifest | TensorDeltaError] = {}
        self.shortcuts: dict[ShortcutName, Manifest | TensorDeltaError] = {}
        self.read: list[str] = []

    def add(self, version: int, base: int | None, size: int, **members: object) -> Listing:
        self.manifests[version] = manifest(version, base, size, **members)
        return self

    def cut(self, version: int, base: int | None, size: int, tag: str | None = None, **members: object) -> Listing:
        self.shortcuts[ShortcutName(version, base, tag)] = manifest(version, base, size, **members)
        return self

    def planner(self, threads: int = 1) -> Planner:
        def read(member: Member) -> Manifest:
            self.read.append(member_name(member))
            return taken(self.shortcuts[member] if isinstance(member, ShortcutName) else self.manifests[member])

        return Planner(Members(self.manifests, self.shortcuts, read, threads))

    def plan(self, target: int, **how: object) -> list[str]:
        return [edge.name for edge in self.planner().plan(target, **how)]  # type: ignore[arg-type]


def taken(member: Manifest | TensorDeltaError) -> Manifest:
    if isinstance(member, TensorDeltaError):
        raise member
    return member


def broken(name: str) -> td.MalformedError:
    return td.MalformedError("is broken", object=name, rule="TD-JSN-003")


def names(*edges: int | tuple[int, int | None] | tuple[int, int | None, str]) -> list[str]:
    return [manifest_name(edge) if isinstance(edge, int) else shortcut_name(*edge) for edge in edges]


# -- cost -----------------------------------------------------------------------------------------------------------


def test_bytes_decide_and_not_the_number_of_members() -> None:
    listing = Listing().add(0, None, 1000).add(1, 0, 10).add(2, 1, 10).add(3, 2, 10)
    assert listing.cut(3, 0, 31).plan(3) == names(0, 1, 2, 3)
    assert listing.cut(3, 0, 29).plan(3) == names(0, (3, 0))
    assert listing.cut(3, None, 1030).plan(3) == names(0, (3, 0))
    assert listing.cut(3, None, 1028).plan(3) == names((3, None))
    assert listing.cut(2, None, 100).plan(3) == names((2, None), 3)


def test_encodings_of_one_edge_compete() -> None:
    listing = Listing().add(0, None, 1000).add(1, 0, 100)
    assert listing.cut(1, 0, 90, "exp").plan(1) == names(0, (1, 0, "exp"))
    assert listing.cut(1, 0, 80).plan(1) == names(0, (1, 0))
    assert listing.cut(0, None, 999, "b").plan(1) == names((0, None, "b"), (1, 0))


def test_what_is_held_costs_nothing() -> None:
    listing = Listing().add(0, None, 1000).add(1, 0, 10).add(2, 1, 2000).cut(2, None, 1500)
    held = Held(1, fingerprint_of(1), LAYOUT)
    assert listing.plan(2, held=held) == names((2, None)), "a full version may still be cheaper"
    assert listing.cut(2, 1, 1499).plan(2, held=held) == names((2, 1))
    assert listing.plan(1, held=held) == []
    assert listing.plan(0, held=held) == names(0)


def test_a_state_of_several_versions_starts_at_each() -> None:
    """Versions 1 and 4 are one state; the cheaper edge is that from 4, though the reader calls it 1."""
    listing = Listing().add(0, None, 100).add(1, 0, 10).add(2, 1, 10).add(3, 2, 10)
    listing.add(4, 3, 10, fingerprint=fingerprint_of(1))
    base = {"version": 4, "layout": LAYOUT, "fingerprint": fingerprint_of(1)}
    listing.manifests[5] = manifest(5, 4, 10, start=base)
    assert listing.plan(5, held=Held(1, fingerprint_of(1), LAYOUT)) == names(5)
    assert listing.plan(5, held=Held(1, fingerprint_of(1))) == names(2, 3, 4, 5), "without a layout it cannot tell"
    assert listing.plan(5, held=Held(1, fingerprint_of(1), "3" * 64)) == names(2, 3, 4, 5)


def cheapest(listing: Listing, target: int, held: int | None, dropped: Iterable[str]) -> int | None:
    """The least cost by brute force: the cost of each version from what is before it."""
    cost: dict[int | None, int] = {None: 0}
    if held is not None:
        cost[held] = 0
    edges = [Edge(manifest_name(version), taken(each)) for version, each in listing.manifests.items()]
    edges += [
        Edge(shortcut_name(name.version, name.base, name.tag or ""), taken(each))
        for name, each in listing.shortcuts.items()
        if name.version in listing.manifests
    ]
    for edge in sorted(edges, key=lambda each: each.manifest.version):
        to = edge.manifest.version
        if edge.name not in dropped and edge.base in cost and to != held:
            cost[to] = min(cost.get(to, 1 << 60), cost[edge.base] + edge.manifest.size)
    return cost.get(target)


def test_any_graph() -> None:
    """The planner's cost is the least there is; its route joins up; where there is none, none is found."""
    found = none = 0
    for number in range(400):
        rng = random.Random(number)
        versions = sorted(rng.sample(range(30), rng.randint(1, 8)))
        listing = Listing()
        for version in versions:
            older = [None, *(each for each in range(30) if each < version)] if rng.random() < 0.2 else [None]
            older += [each for each in versions if each < version]
            listing.add(version, rng.choice(older), rng.randint(0, 20))
            for _ in range(rng.randint(0, 3)):
                tag = rng.choice([None, "a", "b"])
                listing.cut(version, rng.choice(older), rng.randint(0, 30), tag)
        if rng.random() < 0.3:
            listing.cut(99, rng.choice([None, *versions]), 0)
        members = [*map(manifest_name, listing.manifests)]
        members += [shortcut_name(each.version, each.base, each.tag or "") for each in listing.shortcuts]
        dropped = {name: broken(name) for name in members if rng.random() < 0.15}
        held = rng.choice([None, None, *versions, rng.randint(0, 29)])
        target = rng.choice(versions)
        expected = 0 if held == target else cheapest(listing, target, held, dropped)
        start = None if held is None else Held(held, fingerprint_of(held), rng.choice([None, LAYOUT]))
        if expected is None:
            none += 1
            with pytest.raises(TensorDeltaError) as caught:
                listing.planner().plan(target, held=start, dropped=dropped)
            assert caught.value.name == ("malformed" if dropped else "missing")
            continue
        found += 1
        route = listing.planner().plan(target, held=start, dropped=dropped)
        assert sum(edge.manifest.size for edge in route) == expected, number
        assert not any(edge.name in dropped for edge in route)
        stops = [edge.base for edge in route] + [target]
        assert stops[0] in (None, held) and [edge.manifest.version for edge in route] == stops[1:]
    assert found > 100 and none > 20


def test_only_what_lies_on_the_way_is_read() -> None:
    listing = Listing()
    for version in range(1000):
        listing.add(version, version - 1 if version % 100 else None, 1)
        listing.cut(version, version - 10, 1) if version >= 10 else None
    assert listing.plan(995, held=Held(990, fingerprint_of(990), LAYOUT)) == names(991, 992, 993, 994, 995)
    assert len(listing.read) < 60, "a reader that is five versions behind reads no thousand manifests"


# -- long chains ----------------------------------------------------------------------------------------------------


def joins_up(route: Sequence[Edge], target: int, held: int | None) -> bool:
    stops = [edge.base for edge in route] + [target]
    return stops[0] in (None, held) and [edge.manifest.version for edge in route] == stops[1:]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Listing, int, int | None, list[str]]:
    """A listing with gaps, bases that are gone, members that cannot be read or disagree; a target; what is held."""
    versions = sorted(draw(st.sets(st.integers(0, 14), min_size=1, max_size=8)))
    listing = Listing()
    size = st.integers(0, 40)
    for version in versions:
        older = [None, *(each for each in versions if each < version)]
        start = st.one_of(st.sampled_from(older), st.sampled_from([None, *range(version)]))
        listing.add(version, draw(start), draw(size))
        for tag in draw(st.lists(st.sampled_from([None, "a"]), max_size=3)):
            wrong = {"fingerprint": "f" * 16} if draw(st.integers(0, 9)) == 0 else {}
            listing.cut(version, draw(start), draw(size), tag, **wrong)
        if draw(st.integers(0, 9)) == 0:
            listing.manifests[version] = broken(manifest_name(version))
    for name in listing.shortcuts:
        if draw(st.integers(0, 9)) == 0:
            listing.shortcuts[name] = broken(shortcut_name(name.version, name.base, name.tag or ""))
    members = [*map(manifest_name, listing.manifests)]
    members += [shortcut_name(each.version, each.base, each.tag or "") for each in listing.shortcuts]
    dropped = draw(st.lists(st.sampled_from(members), max_size=2))
    held = draw(st.one_of(st.none(), st.sampled_from([*versions, *range(14)])))
    return listing, draw(st.sampled_from(versions)), held, dropped


def usable(listing: Listing) -> Listing:
    """The same without what cannot be read or does not count."""
    found = Listing()
    found.manifests = {version: each for version, each in listing.manifests.items() if isinstance(each, Manifest)}
    for name, each in listing.shortcuts.items():
        own = found.manifests.get(name.version)
        if isinstance(each, Manifest) and isinstance(own, Manifest) and each.fingerprint == own.fingerprint:
            found.shortcuts[name] = each
    return found


@pytest.mark.parametrize("exact", [256, 12, 4, 0])
@given(graph=graphs())
@examples(150)
def test_any_graph_however_little_may_be_read(exact: int, graph: tuple[Listing, int, int | None, list[str]]) -> None:
    """There is a route where there is one. It is of least cost in a chain of few members; nothing is read twice."""
    listing, target, held, names_dropped = graph
    dropped = {name: broken(name) for name in names_dropped}
    start = None if held is None else Held(held, fingerprint_of(held), LAYOUT)
    readable = usable(listing)
    expected = cheapest(readable, target, held, dropped) if target in readable.manifests else None
    if held == target:
        expected = 0
    listing.read.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "EXACT", exact)
        if expected is None:
            with pytest.raises(TensorDeltaError):
                listing.planner().plan(target, held=start, dropped=dropped)
            return
        route = listing.planner().plan(target, held=start, dropped=dropped)
    cost = sum(edge.manifest.size for edge in route)
    assert cost >= expected and (not route or joins_up(route, target, held))
    assert not any(edge.name in names_dropped for edge in route)
    if len(listing.manifests) + len(listing.shortcuts) <= exact:
        assert cost == expected
    assert len(listing.read) == len(set(listing.read))


def long_chain(count: int, *, seed: int = 0, full: Callable[[int], bool] = lambda version: False) -> Listing:
    """Deltas of one version, and skip deltas over 8 and 64, whose sizes vary; full shortcuts where asked for."""
    rng = random.Random(seed)

    def size(span: int) -> int:
        return int(1000 * span**0.75 * rng.uniform(0.8, 1.25))

    listing = Listing().add(0, None, 140_000)
    for version in range(1, count):
        listing.add(version, version - 1, size(1))
        for span in (8, 64):
            if version % span == 0:
                listing.cut(version, version - span, size(span))
        if full(version):
            listing.cut(version, None, int(140_000 * rng.uniform(0.8, 1.25)))
    return listing


def test_a_long_chain_is_planned_on_its_names() -> None:
    """Few objects are read, and the route is no dearer, or hardly, than that of someone who reads everything."""
    every_1000 = long_chain(3001, full=lambda version: version % 1000 == 0)
    for listing, held, most, dearer in [
        (every_1000, None, 120, 1.02),
        (every_1000, 2999, 6, 1.0),
        (every_1000, 2995, 30, 1.0),
        (every_1000, 2900, 256, 1.0),
        (every_1000, 500, 120, 1.02),
        (long_chain(3001, seed=1), None, 300, 1.02),
        (long_chain(3001, seed=2), 1499, 300, 1.02),
    ]:
        listing.read.clear()
        start = None if held is None else Held(held, fingerprint_of(held), LAYOUT)
        route = listing.planner().plan(3000, held=start)
        assert joins_up(route, 3000, held)
        expected = cheapest(listing, 3000, held, ())
        assert expected is not None
        assert sum(edge.manifest.size for edge in route) <= dearer * expected, held
        assert len(listing.read) <= most, held


def test_a_full_version_that_no_name_tells_is_found() -> None:
    """Without shortcuts every manifest may be the one that starts from nothing; only those on the way are read."""
    listing = Listing()
    for version in range(2000):
        listing.add(version, version - 1 if version % 100 else None, 10 if version % 100 else 500)
    assert listing.plan(1950) == names(*range(1900, 1951))
    assert len(listing.read) < 120
    listing.read.clear()
    assert listing.plan(1950, held=Held(1940, fingerprint_of(1940), LAYOUT)) == names(*range(1941, 1951))
    assert len(listing.read) < 80


def test_names_that_promise_too_much() -> None:
    """In a long chain with manifests that start from elsewhere, and shortcuts that cannot be used."""
    listing = long_chain(1000)
    for version in range(2, 1000, 2):
        listing.add(version, version - 2, 1500)
    for name in list(listing.shortcuts):
        if name.version % 128 == 0:
            listing.shortcuts[name] = broken(shortcut_name(name.version, name.base, name.tag or ""))
    listing.manifests[999] = manifest(999, 996, 1100)
    listing.manifests[997] = broken(manifest_name(997))
    listing.manifests[512] = manifest(512, 300, 1500)
    del listing.manifests[510]
    route = listing.planner().plan(999)
    assert joins_up(route, 999, None)
    expected = cheapest(usable(listing), 999, None, ())
    assert expected is not None and sum(edge.manifest.size for edge in route) < 1.3 * expected


def test_a_long_chain_around_what_failed() -> None:
    listing = long_chain(1000, full=lambda version: version in (400, 800))
    first = listing.planner().plan(999)
    assert first[0].name == shortcut_name(800, None)
    lost = {shortcut_name(800, None): broken(shortcut_name(800, None))}
    second = listing.planner().plan(999, dropped=lost)
    assert second[0].name == shortcut_name(400, None) and joins_up(second, 999, None)
    lost |= {shortcut_name(400, None): broken("x"), manifest_name(0): broken("y")}
    with pytest.raises(td.MalformedError) as caught:
        listing.planner().plan(999, dropped=lost)
    assert caught.value.object == shortcut_name(800, None), "the first error is told"


def test_far_away_several_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def counted(work: Callable[[Member], object], members: list[Member], *, threads: int) -> Iterator[object]:
        assert threads == 8
        batches.append(len(members))
        return map(work, members)

    monkeypatch.setattr("tensordelta.read.listing.ordered_map", counted)
    listing = long_chain(1000)
    assert joins_up(listing.planner(threads=8).plan(999), 999, None)
    assert len(batches) < len(listing.read) / 4


def test_far_away_the_way_of_a_reader_that_is_behind_is_read_in_few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read that the search would not come to, and a broken member beside the way is no fault."""
    turns: list[int] = []

    def counted(work: Callable[[Member], object], members: list[Member], *, threads: int) -> Iterator[object]:
        turns.append(len(members))
        return map(work, members)

    monkeypatch.setattr("tensordelta.read.listing.ordered_map", counted)
    listing = Listing().add(0, None, 1000)
    for version in range(1, 101):
        listing.add(version, version - 1, 10)
    planner = listing.planner(threads=8)
    held = Held(20, fingerprint_of(20), LAYOUT)
    assert [edge.name for edge in planner.plan(100, held=held)] == names(*range(21, 101))
    assert len(turns) <= 11
    assert len(listing.read) == len(set(listing.read)) <= 81

    listing.cut(100, 98, 5)
    listing.manifests[99] = broken(manifest_name(99))
    listing.manifests[100] = manifest(100, 98, 10)
    planner = listing.planner(threads=8)
    assert planner.plan(100, held=held)
    assert not planner.faults


# -- what counts ----------------------------------------------------------------------------------------------------


def test_a_shortcut_makes_no_version() -> None:
    listing = Listing().add(0, None, 1).cut(1, 0, 1)
    with pytest.raises(td.MissingError) as caught:
        listing.plan(1)
    assert caught.value.rule == "TD-OBJ-008"


def test_a_route_passes_through_no_version_whose_manifest_is_gone() -> None:
    listing = Listing().add(0, None, 1).add(2, 1, 1).cut(1, 0, 1)
    with pytest.raises(td.MissingError) as caught:
        listing.plan(2)
    assert caught.value.rule == "TD-RTE-006" and "version 1" in caught.value.reason
    assert listing.plan(2, held=Held(1, fingerprint_of(1))) == names(2), "but it may start at one"
    assert listing.cut(2, 0, 9).plan(2) == names(0, (2, 0))


def test_a_base_that_disagrees_with_its_own_manifest() -> None:
    for member, value in (("fingerprint", "f" * 16), ("layout", "f" * 64)):
        base = {"version": 0, "layout": LAYOUT, "fingerprint": fingerprint_of(0), member: value}
        listing = Listing().add(0, None, 1).add(1, 0, 1, start=base)
        with pytest.raises(td.WrongBaseError) as caught:
            listing.plan(1)
        assert caught.value.rule == "TD-RTE-002" and caught.value.object == manifest_name(1)
        held = Held(0, fingerprint_of(0) if member == "layout" else value, LAYOUT)
        with pytest.raises(td.WrongBaseError):
            listing.plan(1, held=held)
        assert listing.cut(1, 0, 50).plan(1) == names(0, (1, 0))


def test_what_fails_in_planning_has_its_place_among_the_errors() -> None:
    """The error of the member that failed first is told, whether planning or following found it out."""
    lost = td.MissingError("is gone", object="packs/x", rule="TD-MAN-014")
    unknown = Listing().add(0, None, 10).add(1, 0, 10, features=["not-known"])
    listing = unknown.cut(1, 0, 20)
    dropped: dict[str, TensorDeltaError] = {}
    assert listing.plan(1, dropped=dropped) == names(0, (1, 0))
    assert list(dropped) == names(1)
    dropped[shortcut_name(1, 0)] = lost
    with pytest.raises(td.UnsupportedError):
        listing.plan(1, dropped=dropped)
    listing = unknown.cut(1, 0, 5)
    dropped = {}
    assert listing.plan(1, dropped=dropped) == names(0, (1, 0))
    assert not dropped, "a member that is not on the route did not fail"
    dropped[shortcut_name(1, 0)] = lost
    with pytest.raises(td.MissingError):
        listing.plan(1, dropped=dropped)


def test_a_base_that_is_not_what_is_held() -> None:
    listing = Listing().add(0, None, 1).add(1, 0, 1)
    with pytest.raises(td.WrongBaseError) as caught:
        listing.plan(1, held=Held(0, "f" * 16))
    assert caught.value.rule == "TD-RDR-003"


@pytest.mark.parametrize("member", ["layout", "fingerprint"])
def test_a_shortcut_that_disagrees_does_not_count(member: str) -> None:
    wrong = {"layout": "f" * 64, "fingerprint": "f" * 16}[member]
    listing = Listing().add(0, None, 100).add(1, 0, 100).cut(1, None, 1, **{member: wrong})
    assert listing.plan(1) == names(0, 1)
    del listing.manifests[0]
    with pytest.raises(td.MissingError) as caught:
        listing.plan(1)
    assert caught.value.rule == "TD-RTE-006"


def test_features_are_of_the_edge() -> None:
    listing = Listing().add(0, None, 1).add(1, 0, 1, features=["not-known"]).add(2, 1, 1)
    with pytest.raises(td.UnsupportedError) as caught:
        listing.plan(2)
    assert caught.value.rule == "TD-MAN-004" and caught.value.object == manifest_name(1)
    assert listing.cut(1, 0, 9).plan(2) == names(0, (1, 0), 2)
    listing.shortcuts.clear()
    assert listing.cut(1, 0, 9, features=["not-known"]).cut(1, None, 20).plan(2) == names((1, None), 2)


# -- which error ----------------------------------------------------------------------------------------------------


def test_a_manifest_on_the_way_that_cannot_be_read_is_the_error() -> None:
    listing = Listing().add(0, None, 1).add(2, 1, 1).add(3, 2, 1)
    listing.manifests[1] = broken(manifest_name(1))
    for target in (1, 2, 3):
        with pytest.raises(td.MalformedError) as caught:
            listing.plan(target)
        assert caught.value.object == manifest_name(1)


def test_a_shortcut_that_cannot_be_read_is_no_error_of_its_version() -> None:
    listing = Listing().add(0, None, 1).add(1, 0, 1)
    listing.shortcuts[ShortcutName(1, None, None)] = broken(shortcut_name(1, None))
    assert listing.plan(1) == names(0, 1)
    del listing.manifests[0]
    with pytest.raises(td.MissingError):
        listing.plan(1)


def test_the_error_of_the_route_first_chosen_is_told() -> None:
    listing = Listing().add(0, None, 1).add(1, 0, 1).cut(1, None, 5, features=["not-known"])
    first = td.IntegrityError("is damaged", object="packs/x", rule="TD-MAN-013")
    second = broken("packs/y")
    with pytest.raises(td.IntegrityError):
        listing.plan(1, dropped={manifest_name(1): first, manifest_name(0): second})


# -- whole chains ---------------------------------------------------------------------------------------------------


def remove_packs(chain: object, named: Mapping[str, object] | Manifest) -> None:
    packs = named["packs"] if isinstance(named, Mapping) else [{"path": each.path} for each in named.packs]
    for entry in packs:  # type: ignore[union-attr]
        chain.store.objects.pop(entry["path"])  # type: ignore[attr-defined]


def test_a_lost_pack_is_gone_around() -> None:
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    whole = chain.prepare(td.State.empty(), 6)
    sizes = [whole.size]
    for _ in range(3):
        state = td.State.empty()
        update = chain.prepare(state, 6)
        update.apply()
        assert state.equals(as_state(builder.models[6]))
        sizes.append(update.size)
        lost = chain.store.objects[update.route[-1]]
        remove_packs(chain, json.loads(lost))
    assert sizes == sorted(sizes), "each way around costs no less than the one before"
    assert len(set(sizes)) > 1


def test_the_held_state_survives_a_detour() -> None:
    """The first route fails at its last member; nothing of it is left in the update that succeeds."""
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    state = chain.load(0)
    cheapest_route = chain.prepare(state, 6).route
    remove_packs(chain, json.loads(chain.store.objects[cheapest_route[-1]]))
    update = chain.prepare(state, 6)
    assert update.route != cheapest_route and cheapest_route[-1] not in update.route
    update.apply()
    assert state.equals(as_state(builder.models[6]))
    update.undo()
    assert state.equals(as_state(builder.models[0]))


def test_the_first_error_surfaces_when_all_ways_are_shut() -> None:
    rng = gallery.Random(1)
    builder = Builder()
    model = gallery.small(rng)
    builder.full(0, model)
    after = gallery.stepped(rng, model, 0.02)
    builder.delta(1, after, 0)
    full = builder.full(1, after, shortcut="")["packs"][0]["path"]
    delta = builder.pack_names(1)[0]
    chain = open_chain(builder)
    own_first = chain.prepare(td.State.empty(), 1).route == (manifest_name(0), manifest_name(1))
    kept = dict(chain.store.objects)
    for lost, damaged in ((full, delta), (delta, full)):
        chain.store.objects.clear()
        chain.store.objects.update(kept)
        chain.store.objects.pop(lost)
        chain.store.objects[damaged] = gallery.flipped(-1)(kept[damaged])
        first = delta if own_first else full
        with pytest.raises(td.MissingError if lost == first else td.IntegrityError) as caught:
            chain.load(1)
        assert caught.value.object == first


def test_a_new_shortcut_is_seen_by_an_open_chain() -> None:
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    objects = chain.store.objects
    later = {name: objects.pop(name) for name in list(objects) if name.startswith("shortcuts/")}
    state = chain.load(2)
    slow = chain.prepare(state, 6)
    assert slow.route == tuple(names(3, 4, 5, 6))
    objects.update(later)
    assert chain.prepare(state, 6).size < slow.size


def test_a_follower_of_a_long_chain_lists_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensordelta.read.reader.EXACT", 8)
    listed: list[str] = []

    class Counting(ClockedStore):
        def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
            for name in super().names(prefix, after):
                listed.append(name)
                yield name

    store = Counting()
    chain = td.open(store, create=True, threads=1)
    words = np.arange(50, dtype=np.uint16)
    states = []
    for _ in range(12):
        words = words + np.uint16(1)
        states.append(words)
        chain.publish({"w": words})
    reading = td.open(store, threads=1)
    state = reading.load(9)
    chain.shortcut(9, 11)
    listed.clear()
    update = reading.prepare(state, 11)
    assert listed == [manifest_name(10), manifest_name(11), shortcut_name(11, 9)]
    assert update.route == (shortcut_name(11, 9),)
    update.apply()
    assert state["w"].tolist() == states[11].tolist()
    listed.clear()
    assert len(reading.prepare(state, 4).route) == 5 and len(listed) == 13, "on the way back it looks at all"

    # What it remembers of older versions may be gone.
    chain.shortcut(None, 11)
    chain.collect(1, grace=0)
    chain.publish({"w": words + np.uint16(1)})
    assert reading.load(12)["w"].tolist() == (words + np.uint16(1)).tolist()
    with pytest.raises(td.MissingError):
        reading.prepare(state, 4)
    stale = State.from_arrays({name: array.copy() for name, array in reading.load(11).items()})
    reading.prepare(stale, 12).apply()
    assert stale["w"].tolist() == (words + np.uint16(1)).tolist()
