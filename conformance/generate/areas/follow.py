"""Following a chain that nobody can list (SPEC.md section 10.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from generate.area import area
from generate.builder import Builder, manifest_name, shortcut_name
from generate.graph import graph
from generate.model import FOREIGN
from generate.scenes import Scene, walk

follow = area("follow", level="follow")

TWIN = "follow-to-the-hinted-version"

HINT = "latest.json"


def stem(version: int, base: int | None, tag: str = "") -> str:
    """A shortcut as the hint names it."""
    return shortcut_name(version, base, tag).removeprefix("shortcuts/").removesuffix(".json")


def lost(builder: Builder) -> set[str]:
    """The packs that a manifest or shortcut names, and that do not exist."""
    names: set[str] = set()
    for name, data in builder.objects.items():
        if name.startswith(("manifests/", "shortcuts/")) and data.endswith(b"}"):
            names |= {entry["path"] for entry in json.loads(data)["packs"]}
    return names - builder.objects.keys()


def case(
    slug: str,
    title: str,
    ids: str,
    edges: str,
    hint: int | bytes | None,
    shortcuts: Sequence[str] = (),
    *,
    held: int | None = 0,
    remembered: int | None = -1,
    to: int | None = -1,
    asked: int | None = None,
    error: str = "",
    status: Mapping[str, int] | Callable[[Builder], Mapping[str, int]] | None = None,
    or_failed: bool = False,
    absent: Sequence[str] = (),
    **graph_options: Any,
) -> None:
    """A chain that is served over HTTP, and one read of the newest version.

    Args:
        edges: of `graph`.
        hint: the version that the hint names, or its bytes; None: there is none.
        shortcuts: that it names.
        held: the version held before; None for nothing.
        remembered: the version remembered for it; that of `held` unless given.
        to: the version read; that of the hint unless given; None: nothing new.
        asked: the version that is asked for; None for the newest.
        status: what is answered in place of objects; a function gets the chain.
        or_failed: the reader may end at once with the failure of the store.
        absent: names that may be asked for, although there is no such object; full shortcuts always may be where
            nothing is held.
    """

    def chain() -> Builder:
        builder = graph(edges, **graph_options)
        if isinstance(hint, bytes):
            builder.put(HINT, hint)
        elif hint is not None:
            builder.latest(hint, **({"shortcuts": list(shortcuts)} if shortcuts else {}))
        return builder

    def scene(made: Scene) -> None:
        version = hint if to == -1 else to
        before = None if held is None else (held, held if remembered == -1 else remembered)
        names = set(absent)
        if held is None:
            names |= {shortcut_name(each, None) for each in made.builder.models} - made.builder.objects.keys()
        answers = status(made.builder) if callable(status) else status or {}
        gone = [each for each in (*names, *answers) if each.startswith(("manifests/", "shortcuts/"))]
        names |= lost(made.builder) | {f"retired/{each}" for each in gone}  # where copies may be looked for
        expect: dict[str, Any] = made.after(held, error=error)
        if not error and version is None:
            expect = {"any": [{"state": made.state(held)}, made.after(held, error="missing")]}
        elif not error:
            assert isinstance(version, int)
            expect = made.after(version)
        if or_failed:
            expect = {"any": [expect, made.after(held, error="failed")]}
        serve = {"absent": sorted(names)} | ({"status": dict(answers)} if answers else {})
        made.step("read", made.ask(before, asked), expect, serve=serve)

    follow.play(slug, title, ids, chain, scene, **({"twin": TWIN} if error else {}))


def packs_of(version: int) -> Callable[[Builder], Mapping[str, int]]:
    """The packs of a version are answered with 403."""
    return lambda builder: {entry["path"]: 403 for entry in builder.manifests[version]["packs"]}


def nothing(slug: str, title: str, ids: str, hint: int | bytes | None, **how: Any) -> None:
    """A hint that leads nowhere: what is held stays."""
    case(f"follow-nothing-{slug}", title, ids, "0 -> 1 -> 2", hint, to=None, **({"held": 1} | how))


def hinted(slug: str, title: str, ids: str, edges: str, **how: Any) -> None:
    """A hinted skip delta cannot be used, and the versions' own manifests lead there as well."""
    case(f"follow-past-a-shortcut-{slug}", title, ids, edges, 3, [stem(3, 1)], held=1, **how)


SKIP = shortcut_name(3, 1)
STEPS = "0 -> 1 -> 2 -> 3"


def document(**members: Any) -> bytes:
    """A hint at version 2 with other members."""
    builder = graph("0")
    builder.latest(2, **members)
    return builder.get(HINT)


def in_other_bytes(shortcuts: Sequence[str]) -> bytes:
    """A hint at version 2 with white space, unknown members, and its own members turned round."""
    members = {**json.loads(document(shortcuts=list(shortcuts))), "note": [None, {}], "until": "1e3"}
    return b"\n" + json.dumps(dict(reversed(members.items())), indent=1).encode() + b" \r\n"


# fmt: off
case(TWIN, "The hint names the newest version, and the versions' own manifests lead there from the state held",
    "FOL-001 FOL-004", "0 -> 1 -> 2", 2)
case("follow-from-nothing", "Nothing is held, and the bases lead back to a full version",
    "FOL-001", "0 -> 1 -> 2", 2, held=None)
case("follow-from-a-hinted-full-version", "Nothing is held, the first version is gone, and the hint names a full one",
    "FOL-001", "0 deleted -> 1 -> 2, => 1", 2, [stem(1, None)], held=None, absent=[manifest_name(0)])
case("follow-over-a-hinted-shortcut", "The version's own pack is gone, and the hint names a skip delta",
    "FOL-001", "0 -> 1 -> 2 -> 3 gone, 1 => 3", 3, [stem(3, 1)], held=1)
case("follow-over-a-hinted-shortcut-with-a-tag", "The hint names a shortcut with a tag, the only edge that is whole",
    "FOL-001", "0 -> 1: 2000 gone, 0 => 1.a0: 2100", 1, [stem(1, 0, "a0")])
case("follow-over-two-hinted-shortcuts", "Two skip deltas, the second of which leads from where the first ends",
    "FOL-001", "0 -> 1 gone -> 2 -> 3 gone -> 4, 0 => 2, 2 => 4", 4, [stem(2, 0), stem(4, 2)])
case("follow-not-past-the-hint", "A version newer than the hinted one exists, and is not looked for",
    "FOL-001 FOL-004", "0 -> 1 -> 2", 1)
case("follow-around-an-unknown-feature", "A manifest on the way needs an unknown feature; the hint names a shortcut",
    "FOL-001 RTE-007", "0 -> 1 strided -> 2, 0 => 1", 2, [stem(1, 0)])
case("follow-from-a-version-beside", "The state held is not on the way, so that the route starts from nothing",
    "FOL-001 RTE-004", "0 -> 1, 0 -> 2 -> 3", 3, held=1, absent=[shortcut_name(each, None) for each in (3, 2, 0)])
case("follow-from-a-state-without-a-version", "A state whose version is not remembered",
    "FOL-001", "0 -> 1 -> 2", 2, held=1, remembered=None, absent=[shortcut_name(each, None) for each in range(3)])
case("follow-by-a-full-shortcut-that-nothing-names", "A base is gone, and a full shortcut is found by its name",
    "FOL-001 FOL-004", "0 deleted -> 1 -> 2, => 1", 2, held=None, absent=[manifest_name(0)])
case("follow-although-the-version-held-is-gone", "The version held has lost its manifest, and the next starts from it",
    "FOL-001 RTE-003", "0 deleted -> 1", 1, absent=[manifest_name(0)])

case("follow-to-a-version-that-is-named", "The user names a version, and the hint a newer one",
    "FOL-004", "0 -> 1 -> 2", 2, asked=1, to=1)
case("follow-back-to-a-version-that-is-named", "The user names a version older than the one held",
    "FOL-004", "0 -> 1 -> 2", 2, held=2, asked=1, to=1, absent=[shortcut_name(each, None) for each in (1, 0)])
case("follow-to-a-named-version-that-does-not-exist", "The user names a version without manifest",
    "OBJ-008", "0 -> 1 -> 2", 2, asked=9, error="missing", absent=[manifest_name(9)])
case("follow-without-a-hint-and-with-nothing-held", "There is no hint, and nothing is held",
    "FOL-001 OBJ-018", "0 -> 1", None, held=None, error="missing", absent=[HINT])

nothing("behind", "The hint names a version older than the one held", "FOL-002", 0)
nothing("the-same", "The hint names the version held", "FOL-001", 1)
nothing("ahead", "The hint names a version whose manifest does not exist",
    "FOL-001 OBJ-019", 9, absent=[manifest_name(9)])
nothing("absent", "There is no hint", "FOL-001 OBJ-018", None, absent=[HINT])
nothing("gone-for-good", "The hint is answered with 410", "FOL-003 OBJ-018", 2, status={HINT: 410})
nothing("garbage", "The hint is no JSON", "OBJ-018", b"{")
nothing("foreign", "The hint names another chain", "OBJ-018", document(chain=FOREIGN))
nothing("later-format", "The hint is of a later format", "OBJ-018", document(tensordelta="2.0"))
nothing("no-name", "The hint names a shortcut whose tag has a capital",
    "OBJ-018", document(shortcuts=[f"{stem(2, 0)}.A"]))
nothing("no-array", "The hint names a shortcut that stands in no array", "OBJ-018", document(shortcuts=stem(2, 0)))
nothing("65-names", "The hint names 65 shortcuts",
    "OBJ-018 LIM-004", document(shortcuts=[stem(each, None) for each in range(65)]))
nothing("65537-bytes", "The hint has 65,537 bytes", "OBJ-018 LIM-004", document().ljust(65_537))
case("follow-64-names", "The hint names 64 shortcuts, of which none exists",
    "FOL-006 LIM-005", "0 -> 1 -> 2", document(shortcuts=[stem(each, 0) for each in range(2, 66)]), to=2,
    absent=[shortcut_name(2, 0)])

case("follow-a-hint-in-other-bytes", "The members of the hint stand in another order, among others that are not known",
    "FOL-001 JSN-013", "0 -> 1 -> 2: 2000 gone, => 2, 0 => 2.0123456789abcdef", in_other_bytes(
        [stem(2, None), stem(2, 0, "0123456789abcdef")]), to=2)
case("follow-a-hint-of-no-shortcuts", "The hint has an empty array of shortcuts",
    "FOL-001", "0 -> 1 -> 2", document(shortcuts=[]), to=2)

hinted("absent", "The hinted shortcut does not exist", "FOL-006", STEPS, absent=[SKIP])
hinted("gone", "The hinted shortcut is answered with 410", "FOL-003", f"{STEPS}, 1 => 3", status={SKIP: 410})
hinted("refused", "The hinted shortcut is answered with 403", "FOL-006", f"{STEPS}, 1 => 3", status={SKIP: 403})
hinted("broken", "The hinted shortcut is no JSON", "FOL-006", f"{STEPS}, 1 => 3 torn")
hinted("of-another-state", "The hinted shortcut leads to another fingerprint than the version's",
    "MAN-025", f"{STEPS}, 1 => 3", at={"1 => 3": {"state": walk(5)[4]}})
hinted("of-another-chain", "The hinted shortcut is of another chain", "OBJ-011", f"{STEPS}, 1 => 3 empty foreign")
hinted("without-pack", "The hinted shortcut has lost its pack", "RTE-004", f"{STEPS}, 1 => 3 gone")
hinted("altered", "The hinted shortcut has a pack of which a bit has changed", "RTE-004", f"{STEPS}, 1 => 3 altered")

case("follow-a-manifest-that-is-refused", "A manifest on the way is answered with 403, which proves no absence",
    "FOL-003", "0 -> 1 -> 2", 2, error="failed", status={manifest_name(1): 403},
    absent=[shortcut_name(2, None), shortcut_name(1, None), shortcut_name(0, None)])
case("follow-past-a-manifest-that-is-refused",
    "A manifest on the way is answered with 403, and a full shortcut that nothing names leads past it",
    "FOL-003 STO-011", "0 -> 1 -> 2, => 2", 2, status={manifest_name(1): 403}, or_failed=True,
    absent=[shortcut_name(1, None), shortcut_name(0, None)])
case("follow-past-a-pack-that-is-refused",
    "The pack of the hinted version is answered with 403, and a full shortcut that nothing names leads there",
    "FOL-003 STO-011", "0 -> 1, => 1", 1, status=packs_of(1), or_failed=True, absent=[shortcut_name(0, None)])
case("follow-a-pack-that-is-refused", "The one pack that leads to the hinted version is answered with 403",
    "FOL-003", "0 -> 1", 1, error="failed", status=packs_of(1),
    absent=[shortcut_name(1, None), shortcut_name(0, None)])
case("follow-a-target-that-is-refused", "The hinted version's manifest is answered with 500, which proves no absence",
    "FOL-003", "0 -> 1 -> 2", 2, error="failed", status={manifest_name(2): 500},
    absent=[shortcut_name(2, None)])
case("follow-no-route", "The base of the hinted version is gone, nothing is held, and no full shortcut exists",
    "FOL-001 RTE-006", "0 deleted -> 1", 1, held=None, error="missing", absent=[manifest_name(0)])
case("follow-an-altered-pack", "The one edge to the hinted version has an altered pack",
    "RTE-005", "0 -> 1 altered", 1, error="integrity", absent=[shortcut_name(1, None), shortcut_name(0, None)])
case("follow-a-broken-manifest", "The hinted version's manifest is no JSON: it exists, and its error is reported",
    "FOL-001", "0 -> 1 torn", 1, error="malformed")
# fmt: on
