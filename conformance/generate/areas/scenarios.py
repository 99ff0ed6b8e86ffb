"""Readers of a chain that changes while they hold a state (SPEC.md sections 4.2, 10 and 13)."""

from __future__ import annotations

from functools import partial

from generate.area import area
from generate.builder import Builder, dumps, manifest_name
from generate.graph import graph
from generate.model import CHAIN, FOREIGN, FORMAT, Random, random_tensor, stepped
from generate.scenes import Scene, line, little, move, walk
from generate.standard import flipped

scenarios = area("scenarios", level="chain")
core = area("scenarios", level="reader-core")

# -- chains ------------------------------------------------------------------------------------------------------------


def deltas(count: int) -> Builder:
    """So many versions, each but the first a delta from the one before."""
    return line(walk(count))


def long(count: int) -> Builder:
    """Up to eight versions: deltas, an empty one, other layouts, a state that comes back, a full one, a gap."""
    states = dict(zip((0, 1, 3), walk(3), strict=True))
    states[2] = states[1]
    states[5] = states[3] | {"0.first": random_tensor(Random("scenarios"), "F16", (3,))}
    states[6] = states[5] | {"a.weight": random_tensor(Random("scenarios/1"), "BF16", (2, 12))}
    states |= {7: states[0], 20: little(3)}
    edges = ["0", "0 -> 1", "1 -> 2", "2 -> 3", "3 -> 5", "5 -> 6", "6 -> 7", "20"]
    builder = graph(", ".join(edges[:count]), states)
    builder.latest(max(builder.models))
    return builder


def hinted() -> Builder:
    builder = deltas(2)
    builder.latest(1)
    return builder


def hint(version: int, chain: str = CHAIN) -> bytes:
    return dumps({"tensordelta": FORMAT, "chain": chain, "version": version})


def squashed() -> Builder:
    builder = deltas(6)
    move(builder, 4, builder.models[4], None, shortcut="")
    return builder


def another() -> Builder:
    """A chain of other states under another id."""
    builder = line(walk(3, seed=77))
    for name, data in builder.objects.items():
        if name.endswith(".json"):
            builder.objects[name] = data.replace(CHAIN.encode(), FOREIGN.encode())
    return builder


def damage(scene: Scene) -> Scene:
    """The pack of version 1 is damaged."""
    pack = scene.builder.pack_names(1)[0]
    return scene.put({pack: flipped(-1)(scene.builder.get(pack))})


def mend(scene: Scene) -> Scene:
    """The pack of version 1 is whole again."""
    pack = scene.builder.pack_names(1)[0]
    return scene.put({pack: scene.builder.get(pack)})


# fmt: off
# -- one row each ------------------------------------------------------------------------------------------------------
scenarios.play("follow-with-missed-versions",
    "A reader that missed versions catches up over several deltas at once", "OBJ-007 RTE-001", partial(long, 2),
    lambda scene: scene.read(None, 1, held=None)
    .grow(long(6)).read(None, 6).read(6)
    .grow(long(8)).read(7).read(None, 20))
scenarios.play("to-and-fro", "A reader goes to older versions and back, each time with what it holds",
    "TRM-001 FIT-003", "0 -> 1 -> 2 -> 3", lambda scene: scene.read(2, held=None).read(0).read(3).read(1))
core.play("restart-with-a-version",
    "A reader is killed, and goes on with the state that it saved and its version", "RDR-005", "0 -> 1",
    lambda scene: scene.read(None, 1, held=None).restart().grow(deltas(3)).read(None, 2, held=(1, 1)))
core.play("restart-without-a-version",
    "A reader is killed, and goes on with the state that it saved but not its version", "RDR-005", "0 -> 1",
    lambda scene: scene.read(None, 1, held=None).restart().grow(deltas(3)).read(None, 2, held=(1, None)))
core.play("restart-after-a-fault",
    "A reader is killed after a fault, and reads the version when the pack is whole again", "RDR-001", "0 -> 1",
    lambda scene: mend(damage(scene).read(1, 0, held=0, error="integrity").restart()).read(1, held=0))
core.play("fault-that-is-mended",
    "A pack is damaged and then whole again: the state stays through the fault, and the next read succeeds",
    "RDR-001 RTE-004", "0 -> 1",
    lambda scene: mend(damage(scene.read(0, held=None)).read(1, 0, error="integrity")).read(1))
core.play("version-that-comes-later", "A version is asked for before it exists, and again when it does",
    "OBJ-006 OBJ-008", "0",
    lambda scene: scene.read(0, held=None).read(1, 0, error="missing").grow(deltas(2)).read(1))
core.play("first-version-that-comes-later",
    "The newest version is asked for where there is no chain, where there is no version, and where there is one",
    "OBJ-008 OBJ-009", Builder,
    lambda scene: scene.remove("chain.json").read(None, None, held=None, error="missing")
    .put({"chain.json": scene.builder.get("chain.json")}).read(None, None, error="missing")
    .grow(deltas(1)).read(None, 0))
scenarios.play("newest-version-that-vanishes",
    "The newest version's manifest is deleted: it is missing, the state stays, and the version before is the newest",
    "OBJ-006 OBJ-007", "0 -> 1 -> 2", lambda scene: scene.read(None, 2, held=None)
    .remove(manifest_name(2)).read(2, 2, error="missing").read(None, 1))
scenarios.play("version-in-the-middle-that-vanishes",
    "A version on the way is deleted, so that no route is left, until a skip delta appears",
    "RTE-006 RTE-003", "0 -> 1 -> 2", lambda scene: scene.read(0, held=None)
    .remove(manifest_name(1)).read(2, 0, error="missing").grow(graph("0 -> 1 -> 2, 0 => 2")).read(2))
# fmt: on

# -- one function each -------------------------------------------------------------------------------------------------


@scenarios.scene("OBJ-007 TRM-001", partial(long, 1))
def follow_every_version(scene: Scene) -> None:
    """A reader follows a chain that grows by a version at a time:
    deltas, an empty one, other layouts, a full version"""
    scene.read(None, 0, held=None)
    for count, newest in ((2, 1), (3, 2), (4, 3), (5, 5), (6, 6), (7, 7), (8, 20)):
        scene.grow(long(count)).read(None, newest)


@scenarios.scene("RET-006 RTE-004", "0 -> 1 -> 2 -> 3")
def shortcut_that_appears_later(scene: Scene) -> None:
    """A shortcut appears after the chain was opened, and the packs of the deltas that it spans are gone"""
    gone = [name for version in (1, 2, 3) for name in scene.builder.pack_names(version)]
    scene.read(0, held=None).grow(graph("0 -> 1 -> 2 -> 3, 0 => 3")).remove(*gone).read(3)


@core.scene("OBJ-006 OBJ-001", "0")
def version_without_its_manifest(scene: Scene) -> None:
    """The packs of a version are there before its manifest, which alone makes it exist"""
    # What a writer leaves that was killed before the commit.
    whole = deltas(2)
    scene.read(None, 0, held=None)
    scene.put({name: data for name, data in whole.objects.items() if name != manifest_name(1)})
    scene.put({".tmp-000000000001.json": whole.get(manifest_name(1)), "manifests/.tmp-1": b"{"})
    scene.read(None, 0).read(1, 0, error="missing").grow(whole).read(None, 1)


@core.scene("OBJ-007 OBJ-018 OBJ-019", hinted)
def hint_that_goes_astray(scene: Scene) -> None:
    """The hint lags, goes back, points to nowhere, is garbage, is another chain's, is too long, is gone"""
    scene.read(None, 1, held=None).grow(deltas(3)).read(None, 2)
    for data in (hint(0), hint(9), b"\xff{", hint(1, FOREIGN), b"", b" " * 70000):
        scene.put({"latest.json": data}).read(None, 2)
    scene.remove("latest.json").read(None, 2)


@scenarios.scene("RET-006 RTE-004", "0 -> 1 -> 2 -> 3")
def retention_under_a_reader(scene: Scene) -> None:
    """Everything before a squashed version is deleted under a reader that holds an older one"""
    # The reader continues over the full shortcut, then over a delta.
    gone = [name for version in range(4) for name in scene.builder.pack_names(version)]
    scene.read(1, held=None).grow(squashed()).remove(*map(manifest_name, range(4))).remove(*gone)
    scene.remove(*squashed().pack_names(4)).read(None, 5)


@scenarios.scene("RTE-003 RDR-005", "0")
def retention_of_the_newest_alone(scene: Scene) -> None:
    """Each version is deleted when the next one is there, and a reader that holds it goes on from it"""
    scene.read(None, 0, held=None)
    for count in (2, 3, 4):
        scene.grow(deltas(count)).remove(manifest_name(count - 2), *scene.builder.pack_names(count - 2))
        scene.read(None, count - 1)


@scenarios.scene("RDR-003 RDR-001", "0 -> 1 -> 2")
def state_altered_in_memory(scene: Scene) -> None:
    """The words held are others than those that were read:
    a delta from them is refused, and a read from nothing mends"""
    wrong = stepped(Random("altered"), scene.builder.models[1], 0.05)
    scene.read(1, held=None).read(2, wrong, held=(wrong, 1), error="wrong-base").read(2, held=None)


@scenarios.scene("OBJ-010", "0 -> 1", valid=False, needs=["pin"])
def chain_replaced_by_another_run(scene: Scene) -> None:
    """Another run's chain takes the place of the one that is pinned, and the state held stays"""
    other = another().objects
    scene.read(1, held=None, pin=CHAIN)
    scene.remove(*(name for name in scene.builder.objects if name not in other)).put(other)
    scene.read(2, 1, error="conflict", pin=CHAIN).read(None, 1, error="conflict", pin=CHAIN)


@core.scene("OBJ-011", "0 -> 1", valid=False)
def manifest_of_another_run(scene: Scene) -> None:
    """A writer of another chain puts its version into this one:
    it is refused, and the versions before can be read"""
    named = ("packs/", "layouts/", "fingerprints/", manifest_name(2))
    scene.read(None, 1, held=None)
    scene.put({name: data for name, data in another().objects.items() if name.startswith(named)})
    scene.read(None, 1, error="conflict").read(1)


@core.scene("TRM-001", "0 -> 1")
def two_chains_in_turn(scene: Scene) -> None:
    """A reader drops what it holds and reads another chain, and then the first one again"""
    other = another()
    scene.files |= {f"other/{name}": data for name, data in other.objects.items()}
    asked = {"chain": "other", "held": None, "to": 1}
    scene.read(1, held=None).step("read", asked, scene.after(other.models[1], version=1)).read(0, held=None)
