"""Routes: the cheapest way by bytes, and around whatever fails."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import gallery
import numpy as np
import pytest
from gallery import Builder, as_state, good_chain, manifest_name, open_chain, shortcut_name

import tensordelta as td
from tensordelta.errors import TensorDeltaError
from tensordelta.manifest import Manifest, parse_manifest
from tensordelta.objects import ShortcutName
from tensordelta.routes import Edge, Held, Planner

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
        "tensordelta": "1.0",
        "chain": gallery.CHAIN,
        "version": version,
        "layout": LAYOUT,
        "fingerprint": fingerprint_of(version),
        "base": start,
        "packs": [
            {"sha256": "2" * 64, "size": size, "path": "packs/x", "content": "chunks", "tensors": [0, 1], "changed": 1}
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

    def planner(self) -> Planner:
        def read_manifest(version: int) -> Manifest:
            self.read.append(manifest_name(version))
            return taken(self.manifests[version])

        def read_shortcut(name: ShortcutName) -> Manifest:
            self.read.append(shortcut_name(name.version, name.base, name.tag or ""))
            return taken(self.shortcuts[name])

        return Planner(self.manifests, self.shortcuts, read_manifest, read_shortcut)

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


def test_a_manifest_that_cannot_be_read_is_an_error_of_its_own_version_only() -> None:
    listing = Listing().add(0, None, 1).add(2, 1, 1).add(3, 2, 1)
    listing.manifests[1] = broken(manifest_name(1))
    with pytest.raises(td.MalformedError):
        listing.plan(1)
    for target in (2, 3):
        with pytest.raises(td.MissingError) as caught:
            listing.plan(target)
        assert caught.value.rule == "TD-RTE-006"
        assert manifest_name(1) in str(caught.value) and "is broken" in str(caught.value), "the cause is told"


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
        remove_packs(chain, gallery.json.loads(lost))
    assert sizes == sorted(sizes), "each way around costs no less than the one before"
    assert len(set(sizes)) > 1


def test_the_held_state_survives_a_detour() -> None:
    """The first route fails at its last member; nothing of it is left in the update that succeeds."""
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    state = chain.load(0)
    cheapest_route = chain.prepare(state, 6).route
    remove_packs(chain, gallery.json.loads(chain.store.objects[cheapest_route[-1]]))
    update = chain.prepare(state, 6)
    assert update.route != cheapest_route and cheapest_route[-1] not in update.route
    update.apply()
    assert state.equals(as_state(builder.models[6]))
    update.undo()
    assert state.equals(as_state(builder.models[0]))


def test_the_first_error_surfaces_when_all_ways_are_shut() -> None:
    rng = np.random.default_rng(1)
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
