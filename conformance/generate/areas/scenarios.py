"""Readers of a chain that changes while they hold a state (SPEC.md sections 4.2, 10 and 13)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from generate.builder import Builder, dumps, manifest_name
from generate.model import CHAIN, FOREIGN, Model, Random, random_tensor, stepped
from generate.scenes import Scene, line, little, move, play, walk
from generate.standard import flipped

AREA = "scenarios"


def _case(
    slug: str,
    title: str,
    requirements: Sequence[str],
    chain: Callable[[], Builder],
    scene: Callable[[Scene], None],
    *,
    level: str = "chain",
    valid: bool = True,
    needs: Sequence[str] = (),
) -> None:
    play(
        slug,
        area=AREA,
        level=level,
        title=title,
        requirements=requirements,
        chain=chain,
        scene=scene,
        valid=valid,
        needs=needs,
    )


def _chain(count: int) -> Builder:
    return line(walk(count))


# -- following ---------------------------------------------------------------------------------------------------------


def _long(count: int) -> Builder:
    """Up to eight versions: deltas, an empty one, other layouts, a state that comes back, a full one, a gap."""
    states = walk(3)
    added = states[2] | {"0.first": random_tensor(Random("scenarios"), "F16", (3,))}
    reshaped = added | {"a.weight": random_tensor(Random("scenarios/1"), "BF16", (2, 12))}
    plan: list[tuple[int, Model, int | None]] = [
        (0, states[0], None),
        (1, states[1], 0),
        (2, states[1], 1),
        (3, states[2], 2),
        (5, added, 3),
        (6, reshaped, 5),
        (7, states[0], 6),
        (20, little(3), None),
    ]
    builder = Builder()
    for version, state, base in plan[:count]:
        if base is None:
            builder.full(version, state)
        else:
            builder.delta(version, state, base)
        builder.latest(version)
    return builder


def _follow(scene: Scene) -> None:
    scene.read(None, 0, held=None)
    for count, newest in ((2, 1), (3, 2), (4, 3), (5, 5), (6, 6), (7, 7), (8, 20)):
        scene.grow(_long(count))
        scene.read(None, newest)


_case(
    "follow-every-version",
    "A reader follows a chain that grows by a version at a time: deltas, an empty one, other layouts, a full version",
    ["TD-OBJ-007", "TD-TRM-001"],
    lambda: _long(1),
    _follow,
)


def _follow_some(scene: Scene) -> None:
    scene.read(None, 1, held=None)
    scene.grow(_long(6))
    scene.read(None, 6)
    scene.read(6, 6)
    scene.grow(_long(8))
    scene.read(7, 7)
    scene.read(None, 20)


_case(
    "follow-with-missed-versions",
    "A reader that missed versions catches up over several deltas at once",
    ["TD-OBJ-007", "TD-RTE-001"],
    lambda: _long(2),
    _follow_some,
)


def _to_and_fro(scene: Scene) -> None:
    scene.read(2, 2, held=None)
    scene.read(0, 0)
    scene.read(3, 3)
    scene.read(1, 1)


_case(
    "to-and-fro",
    "A reader goes to older versions and back, each time with what it holds",
    ["TD-TRM-001", "TD-FIT-003"],
    lambda: _chain(4),
    _to_and_fro,
)


def _with_shortcut() -> Builder:
    builder = _chain(4)
    builder.delta(3, builder.models[3], 0, shortcut="")
    return builder


def _new_shortcut(scene: Scene) -> None:
    """The deltas between are gone when the shortcut appears."""
    scene.read(0, 0, held=None)
    gone = [name for version in (1, 2, 3) for name in scene.builder.pack_names(version)]
    scene.grow(_with_shortcut())
    scene.remove(*gone)
    scene.read(3, 3)


_case(
    "shortcut-that-appears-later",
    "A shortcut appears after the chain was opened, and the packs of the deltas that it spans are gone",
    ["TD-RET-006", "TD-RTE-004"],
    lambda: _chain(4),
    _new_shortcut,
)

# -- restarts ----------------------------------------------------------------------------------------------------------


def _restarted(*, remembered: bool) -> Callable[[Scene], None]:
    def scene(scene: Scene) -> None:
        scene.read(None, 1, held=None)
        scene.restart()
        scene.grow(_chain(3))
        scene.read(None, 2, held=(1, 1 if remembered else None))

    return scene


for slug, known, what in (("with", True, "and its version"), ("without", False, "but not its version")):
    _case(
        f"restart-{slug}-a-version",
        f"A reader is killed, and goes on with the state that it saved {what}",
        ["TD-RDR-005"],
        lambda: _chain(2),
        _restarted(remembered=known),
        level="reader-core",
    )


def _restarted_after_a_fault(scene: Scene) -> None:
    pack = scene.builder.pack_names(1)[0]
    scene.put({pack: flipped(-1)(scene.builder.get(pack))})
    scene.read(1, 0, held=0, error="integrity")
    scene.restart()
    scene.put({pack: scene.builder.get(pack)})
    scene.read(1, 1, held=0)


_case(
    "restart-after-a-fault",
    "A reader is killed after a fault, and reads the version when the pack is whole again",
    ["TD-RDR-001"],
    lambda: _chain(2),
    _restarted_after_a_fault,
    level="reader-core",
)

# -- faults that pass --------------------------------------------------------------------------------------------------


def _mended(scene: Scene) -> None:
    """What was damaged is put again under the same name."""
    pack = scene.builder.pack_names(1)[0]
    scene.read(0, 0, held=None)
    scene.put({pack: flipped(-1)(scene.builder.get(pack))})
    scene.read(1, 0, error="integrity")
    scene.put({pack: scene.builder.get(pack)})
    scene.read(1, 1)


_case(
    "fault-that-is-mended",
    "A pack is damaged and then whole again: the state stays through the fault, and the next read succeeds",
    ["TD-RDR-001", "TD-RTE-004"],
    lambda: _chain(2),
    _mended,
    level="reader-core",
)


def _late(scene: Scene) -> None:
    """A version is asked for before it exists."""
    scene.read(0, 0, held=None)
    scene.read(1, 0, error="missing")
    scene.grow(_chain(2))
    scene.read(1, 1)


_case(
    "version-that-comes-later",
    "A version is asked for before it exists, and again when it does",
    ["TD-OBJ-006", "TD-OBJ-008"],
    lambda: _chain(1),
    _late,
    level="reader-core",
)


def _first(scene: Scene) -> None:
    """A chain without versions, and before that no chain at all."""
    scene.remove("chain.json")
    scene.read(None, None, held=None, error="missing")
    scene.put({"chain.json": scene.builder.get("chain.json")})
    scene.read(None, None, error="missing")
    scene.grow(_chain(1))
    scene.read(None, 0)


_case(
    "first-version-that-comes-later",
    "The newest version is asked for where there is no chain, where there is no version, and where there is one",
    ["TD-OBJ-008", "TD-OBJ-009"],
    Builder,
    _first,
    level="reader-core",
)


def _uncommitted(scene: Scene) -> None:
    """Everything of version 1 but its manifest, as a writer leaves it that was killed before the commit."""
    whole = _chain(2)
    scene.read(None, 0, held=None)
    scene.put({name: data for name, data in whole.objects.items() if name != manifest_name(1)})
    scene.put({".tmp-000000000001.json": whole.get(manifest_name(1)), "manifests/.tmp-1": b"{"})
    scene.read(None, 0)
    scene.read(1, 0, error="missing")
    scene.grow(whole)
    scene.read(None, 1)


_case(
    "version-without-its-manifest",
    "The packs of a version are there before its manifest, which alone makes it exist",
    ["TD-OBJ-006", "TD-OBJ-001"],
    lambda: _chain(1),
    _uncommitted,
    level="reader-core",
)

# -- the hint ----------------------------------------------------------------------------------------------------------


def _hint(version: int, chain: str = CHAIN) -> bytes:
    return dumps({"tensordelta": "1.0", "chain": chain, "version": version})


def _hints(scene: Scene) -> None:
    """`latest.json` is late, goes back, points to nowhere, is garbage, is another chain's, is gone."""
    scene.read(None, 1, held=None)
    scene.grow(_chain(3))
    scene.read(None, 2)
    for data in (_hint(0), _hint(9), b"\xff{", _hint(1, FOREIGN), b"", b" " * 70000):
        scene.put({"latest.json": data})
        scene.read(None, 2)
    scene.remove("latest.json")
    scene.read(None, 2)


def _hinted() -> Builder:
    builder = _chain(2)
    builder.latest(1)
    return builder


_case(
    "hint-that-goes-astray",
    "The hint lags, goes back, points to nowhere, is garbage, is another chain's, is too long, is gone",
    ["TD-OBJ-007", "TD-OBJ-018", "TD-OBJ-019"],
    _hinted,
    _hints,
    level="reader-core",
)

# -- versions that go --------------------------------------------------------------------------------------------------


def _vanished(scene: Scene) -> None:
    """The newest version goes; the state that was read stays what it is."""
    scene.read(None, 2, held=None)
    scene.remove(manifest_name(2))
    scene.read(2, 2, error="missing")
    scene.read(None, 1)


_case(
    "newest-version-that-vanishes",
    "The newest version's manifest is deleted: it is missing, the state stays, and the version before is the newest",
    ["TD-OBJ-006", "TD-OBJ-007"],
    lambda: _chain(3),
    _vanished,
)


def _under_a_plan(scene: Scene) -> None:
    """A version in the middle goes between two reads, and then comes a shortcut."""
    scene.read(0, 0, held=None)
    scene.remove(manifest_name(1))
    scene.read(2, 0, error="missing")
    whole = _chain(3)
    whole.delta(2, whole.models[2], 0, shortcut="")
    scene.put({name: data for name, data in whole.objects.items() if name not in _chain(3).objects})
    scene.read(2, 2)


_case(
    "version-in-the-middle-that-vanishes",
    "A version on the way is deleted, so that no route is left, until a skip delta appears",
    ["TD-RTE-006", "TD-RTE-003"],
    lambda: _chain(3),
    _under_a_plan,
)


def _squashed() -> Builder:
    builder = _chain(6)
    move(builder, 4, builder.models[4], None, shortcut="")
    return builder


def _retention(scene: Scene) -> None:
    """The reader holds 1 when everything before 4 is deleted; it goes on over the full shortcut, then over a delta."""
    scene.read(1, 1, held=None)
    old = _chain(4)
    scene.grow(_squashed())
    scene.remove(*(manifest_name(version) for version in range(4)))
    scene.remove(*(name for version in range(4) for name in old.pack_names(version)))
    scene.remove(*_squashed().pack_names(4))
    scene.read(None, 5)


_case(
    "retention-under-a-reader",
    "Everything before a squashed version is deleted under a reader that holds an older one",
    ["TD-RET-006", "TD-RTE-004"],
    lambda: _chain(4),
    _retention,
)


def _one_after_the_other(scene: Scene) -> None:
    """Each version's manifest and pack go as soon as the next one is there."""
    scene.read(None, 0, held=None)
    for count in (2, 3, 4):
        scene.grow(_chain(count))
        scene.remove(manifest_name(count - 2), *scene.builder.pack_names(count - 2))
        scene.read(None, count - 1)


_case(
    "retention-of-the-newest-alone",
    "Each version is deleted when the next one is there, and a reader that holds it goes on from it",
    ["TD-RTE-003", "TD-RDR-005"],
    lambda: _chain(1),
    _one_after_the_other,
)

# -- states that were changed ------------------------------------------------------------------------------------------


def _altered(scene: Scene) -> None:
    """Words held change; a scan sees it when a delta is due; the state is read from nothing."""
    builder = scene.builder
    wrong = stepped(Random("altered"), builder.models[1], 0.05)
    scene.read(1, 1, held=None)
    scene.read(2, wrong, held=(wrong, 1), error="wrong-base")
    scene.read(2, 2, held=None)


_case(
    "state-altered-in-memory",
    "The words held are others than those that were read: a delta from them is refused, and a read from nothing mends",
    ["TD-RDR-003", "TD-RDR-001"],
    lambda: _chain(3),
    _altered,
)

# -- other chains ------------------------------------------------------------------------------------------------------


def _another(identity: str) -> Builder:
    """A chain of other states under another id."""
    builder = line(walk(3, seed=77))
    builder.objects = {
        name: data.replace(CHAIN.encode(), identity.encode()) if name.endswith(".json") else data
        for name, data in builder.objects.items()
    }
    return builder


def _replaced(scene: Scene) -> None:
    """Another run takes the place of the chain."""
    scene.read(1, 1, held=None, pin=CHAIN)
    other = _another(FOREIGN)
    scene.remove(*(name for name in scene.builder.objects if name not in other.objects))
    scene.put(other.objects)
    scene.read(2, 1, error="conflict", pin=CHAIN)
    scene.read(None, 1, error="conflict", pin=CHAIN)


_case(
    "chain-replaced-by-another-run",
    "Another run's chain takes the place of the one that is pinned, and the state held stays",
    ["TD-OBJ-010"],
    lambda: _chain(2),
    _replaced,
    valid=False,
    needs=["pin"],
)


def _mixed(scene: Scene) -> None:
    """The manifest of another run's writer appears in the chain, and its packs with it."""
    other = _another(FOREIGN)
    scene.read(None, 1, held=None)
    named = [name for name in other.objects if name.startswith(("packs/", "layouts/", "fingerprints/"))]
    scene.put({name: other.get(name) for name in [*named, manifest_name(2)]})
    scene.read(None, 1, error="conflict")
    scene.read(1, 1)


_case(
    "manifest-of-another-run",
    "A writer of another chain puts its version into this one: it is refused, and the versions before can be read",
    ["TD-OBJ-011"],
    lambda: _chain(2),
    _mixed,
    valid=False,
    level="reader-core",
)


def _two_chains(scene: Scene) -> None:
    """One reader goes from one chain to the other."""
    other = _another(FOREIGN)
    scene.files |= {f"other/{name}": data for name, data in other.objects.items()}
    scene.read(1, 1, held=None)
    expect = scene.after(other.models[1], version=1)
    scene.step("read", {"chain": "other", "held": None, "to": 1}, expect)
    scene.read(0, 0, held=None)


_case(
    "two-chains-in-turn",
    "A reader drops what it holds and reads another chain, and then the first one again",
    ["TD-TRM-001"],
    lambda: _chain(2),
    _two_chains,
    level="reader-core",
)
