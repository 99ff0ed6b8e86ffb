"""Damage to the objects of a chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random

from gallery import CHAIN, FOREIGN
from signed_chains import OTHER_SECRET, is_member, sig, signature_of

from .documents import EDITS, edited
from .harms import HARMS
from .worlds import World

Objects = dict[str, bytes]
#: Changes objects in place, and says what was done; an empty text where there was nothing to damage.
Damage = Callable[[Objects, World, Sequence[World], Random], str]

DAMAGES: dict[str, Damage] = {}


def kind_of(name: str) -> str:
    """The kind of an object: its folder, or its name."""
    return name.partition("/")[0]


def choose(objects: Objects, world: World, rng: Random, *, kinds: Sequence[str] = ()) -> str:
    """An object, each kind as likely as any other; in most cases one that is needed to read the newest version."""
    needed = rng.random() < 0.7
    if needed and kinds:
        needed = any(kind_of(name) in kinds for name in world.needed & objects.keys())
    by_kind: dict[str, list[str]] = {}
    for name in sorted(objects.keys() & world.needed if needed else objects):
        by_kind.setdefault(kind_of(name), []).append(name)
    usable = [kind for kind in sorted(by_kind) if not kinds or kind in kinds]
    return rng.choice(by_kind[rng.choice(usable)]) if usable else ""


def _harmed(harm: str) -> Damage:
    def damage(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
        name = choose(objects, world, rng)
        objects[name], what = HARMS[harm](objects[name], rng)
        return f"{name}: {what}"

    return damage


def _edited(edit: str) -> Damage:
    def damage(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
        kinds = ["chain.json", "latest.json", "layouts", "manifests", "manifests", "shortcuts", "signatures"]
        name = choose(objects, world, rng, kinds=kinds)
        objects[name], what = edited(objects[name], EDITS[edit], rng)
        return f"{name}: {what}"

    return damage


for _name in HARMS:
    DAMAGES[_name] = _harmed(_name)
for _name in EDITS:
    DAMAGES[f"JSON: {_name}"] = _edited(_name)


def damage(name: str) -> Callable[[Damage], Damage]:
    """Register a damage."""

    def register(function: Damage) -> Damage:
        DAMAGES[name] = function
        return function

    return register


@damage("object deleted")
def _delete(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    gone = [choose(objects, world, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    for name in gone:
        objects.pop(name, None)
    return ", ".join(gone)


@damage("objects exchanged")
def _exchange(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    first = choose(objects, world, rng)
    alike = [name for name in sorted(objects) if kind_of(name) == kind_of(first) and name != first]
    second = rng.choice(alike) if alike and rng.random() < 0.8 else choose(objects, world, rng)
    objects[first], objects[second] = objects[second], objects[first]
    return f"{first} and {second}"


@damage("another version's object")
def _another_version(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    name = choose(objects, world, rng)
    alike = [each for each in sorted(objects) if kind_of(each) == kind_of(name) and each != name]
    if not alike:
        return ""
    source = rng.choice(alike)
    objects[name] = objects[source]
    if rng.random() < 0.3 and is_member(name) and sig(objects, source) in objects:
        objects[sig(objects, name)] = objects[sig(objects, source)]
    return f"{name} has the bytes of {source}"


@damage("another chain's object")
def _another_chain(objects: Objects, world: World, worlds: Sequence[World], rng: Random) -> str:
    other = rng.choice(worlds)
    name = choose(objects, world, rng)
    alike = [each for each in sorted(other.objects) if kind_of(each) == kind_of(name)]
    if not alike:
        return ""
    source = name if name in alike and rng.random() < 0.8 else rng.choice(alike)
    data = other.objects[source]
    objects[name] = data.replace(CHAIN.encode(), FOREIGN.encode()) if rng.random() < 0.7 else data
    if objects[name] == world.objects[name]:
        return ""
    return f"{name} is {source} of {other.name}"


@damage("another chain in its place")
def _other_run(objects: Objects, world: World, worlds: Sequence[World], rng: Random) -> str:
    """A part of the objects, or all, are those of another run."""
    other = rng.choice(worlds)
    foreign = {name: data.replace(CHAIN.encode(), FOREIGN.encode()) for name, data in other.objects.items()}
    share = rng.choice([1.0, 0.5])
    for name in sorted(foreign):
        if rng.random() < share and (share < 1 or name != "latest.json"):
            objects[name] = foreign[name]
    return f"{other.name}, {share:.0%} of it"


@damage("stray object")
def _stray(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    source = choose(objects, world, rng, kinds=["manifests", "shortcuts", "packs"])
    version, base = rng.randrange(12), rng.randrange(12)
    name = rng.choice(
        [
            f"shortcuts/{version:012d}-{base:012d}.json",
            f"shortcuts/{version:012d}-full.{rng.choice('abc')}.json",
            f"manifests/{version}.json",
            f"manifests/{version:012d}.json.part",
            f"shortcuts/{version:012d}-{base:012d}..json",
            f"manifests/{rng.choice(['x', '٣' * 12, '-00000000001'])}.json",
            "manifests/999999999999.json" if not source.startswith("manifests") else "manifests/1000000000000.json",
        ]
    )
    if name in objects or not source:
        return ""
    objects[name] = rng.choice([objects[source], b"", b"{}"])
    return f"{name} with the bytes of {source}"


@damage("latest.json lies")
def _hint(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    version = rng.choice([0, world.newest - 1, world.newest + 1, 10**12 - 1, 10**12, -1, *world.versions])
    chain = rng.choice([CHAIN, CHAIN, CHAIN, FOREIGN])
    said = json.dumps({"tensordelta": rng.choice(["1.0", "1.0", "2.0"]), "chain": chain, "version": version}).encode()
    objects["latest.json"] = rng.choice([said, said, said, b"", b"\xff" * 100, b" " * 70_000])
    return objects["latest.json"][:120].decode("ascii", "replace")


@damage("signature removed")
def _unsigned(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    name = choose(objects, world, rng, kinds=["signatures"]) if world.signed else ""
    if not name:
        return ""
    del objects[name]
    return name


@damage("signature exchanged")
def _signed_otherwise(objects: Objects, world: World, _: Sequence[World], rng: Random) -> str:
    """The signature of another object, or by another key, or one of each."""
    name = choose(objects, world, rng, kinds=["signatures"]) if world.signed else ""
    if not name:
        return ""
    signed = [each for each in sorted(objects) if is_member(each) and sig(objects, each) == name]
    if not signed:
        return ""
    member, data = signed[0], objects[signed[0]]
    what = rng.choice(["another object's", "another key's", "of other bytes", "another key id"])
    if what == "another object's":
        objects[name] = objects[choose(objects, world, rng, kinds=["signatures"])]
    elif what == "another key's":
        objects[name] = signature_of(member, data, OTHER_SECRET)
    elif what == "of other bytes":
        objects[name] = signature_of(member, data + b" ")
    else:
        objects[sig(objects, member, OTHER_SECRET)] = objects.pop(name)
    return f"{name}: {what}"
