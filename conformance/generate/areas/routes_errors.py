"""Which error is reported when every route fails, or there is none (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from generate.area import blamed
from generate.areas.routes import routes
from generate.builder import Builder, manifest_name, shortcut_name
from generate.graph import Chain, graph
from generate.scenes import line, little, move, walk


def rejected(
    slug: str, title: str, error: str | Sequence[str], twin: str, chain: Chain | str, rules: str, **how: Any
) -> None:
    """A version that no route reaches; there is no statement about a verifier unless a row has one."""
    routes.reject(slug, title, rules, error, twin, chain, **{"verify": None, **how})


def some_error(slug: str, title: str, errors: str, twin: str, chain: Chain | str, **how: Any) -> None:
    """Every edge that counts fails; the error is that of any of them."""
    rejected(f"error-of-{slug}", title, errors.split(), twin, chain, **{"rules": "RTE-005", **how})


def uncounted(edges: str, **members: Any) -> Chain:
    """A full shortcut that does not count, and costs nothing."""
    return partial(graph, edges, at={"=> 1": members})


def spaced_base() -> Builder:
    """The base names a layout object of the same list, but not the one that its own manifest names."""
    builder = graph("0")
    states = walk(2)
    other = builder.layout(states[0], text=lambda data: data + b" ")
    builder.delta(1, states[1], 0, hook=lambda document: document["base"].update(layout=other))
    return builder


def replaced_base() -> Builder:
    """Manifest 0 is another state's by now, and the state held is the one that 1 starts from."""
    builder = line(walk(2))
    builder.objects |= line([little(5)]).objects
    return builder


def no_route(slug: str, title: str, error: str, edges: str, rules: str = "RTE-006") -> None:
    """The manifest of version 1 cannot be used, and 2 is wanted."""
    rejected(f"no-route-past-{slug}", f"The manifest on the way {title}", error, "route-of-three", edges, rules, to=2)


def by_no_shortcut(slug: str, title: str, word: str) -> None:
    """The only edge from nothing is a shortcut that does not count."""
    title = f"The only edge from nothing is a shortcut that {title}"
    chain = f"0 deleted -> 1, => 1 {word}"
    rejected(slug, title, "missing", "route-by-a-full-shortcut-alone", chain, "RTE-006", held=None)


def by_what_is_none(slug: str, title: str, rules: str, *, name: str = "", space: bytes = b"", **members: Any) -> None:
    """The manifest's own pack is gone, and what does not count as a shortcut would lead to the version.

    Args:
        name: of its object, below shortcuts/; that of the edge unless given.
        space: what its layout object has at the end, and the manifest's has not.
    """

    def chain() -> Builder:
        builder = graph("0 -> 1: 2000 gone")
        model = builder.models[1]
        layout = builder.layout(model, text=lambda data: data + space)
        move(builder, 1, model, 0, size=2100, shortcut="a", layout=layout, **members)
        if name:
            builder.put(f"shortcuts/{name}", builder.objects.pop(shortcut_name(1, 0, "a")))
        return builder

    title = f"The pack of the delta is gone, and what would lead to the version {title}"
    rejected(f"no-route-by-{slug}", title, "missing", "route-by-a-shortcut-with-a-tag-alone", chain, rules)


def target(slug: str, title: str, error: str, word: str) -> None:
    """A full shortcut leads to version 1, whose manifest cannot be used."""
    title = f"The target's own manifest {title}, so that no shortcut to it counts, and its error is reported"
    chain = f"0 -> 1 {word}, => 1"
    twin = "route-by-manifest-or-full-shortcut"
    rejected(f"target-whose-manifest-{slug}", title, error, twin, chain, "RTE-005", verify=True)


# fmt: off
# -- the cheapest fails first ------------------------------------------------------------------------------------------
routes.read("route-two-ways", "Two ways from version 0 to 1, of which the manifest's has fewer bytes",
    "RTE-001", "0 -> 1: 2000, 0 => 1: 2500")
routes.read("route-two-ways-shortcut-first", "Two ways from version 0 to 1, of which the shortcut's has fewer bytes",
    "RTE-001", "0 -> 1: 2000, 0 => 1: 1900")
routes.read("route-full-shortcut-after-the-delta", "A full shortcut to version 1 that has more bytes than the delta",
    "RTE-001", "0 -> 1: 2000, => 1: 2500")
routes.read("route-of-two-edges-and-a-skip-delta", "Two deltas, and a skip delta that has more bytes",
    "RTE-001", "0 -> 1: 1800 -> 2: 1800, 0 => 2: 4000", to=2)
routes.read("route-of-two", "A full version and a delta", "RTE-001", "0 -> 1", level="reader-core")
routes.read("route-of-two-from-nothing", "A full version and a delta, with nothing held",
    "RTE-001", "0 -> 1", held=None, level="reader-core")

some_error("either-of-two", "The pack of one edge is gone, that of the other is altered",
    "missing integrity", "route-two-ways", "0 -> 1: 2000 gone, 0 => 1: 2500 altered")
some_error("either-of-two-the-other-way", "The pack of one edge is altered, that of the other is gone",
    "missing integrity", "route-two-ways", "0 -> 1: 2000 altered, 0 => 1: 2500 gone")
some_error("one-that-was-tried-alone", "The only edge is altered",
    "integrity", "route-of-two", "0 -> 1 altered")
some_error("the-delta-or-the-full-shortcut",
    "The delta from the state held lost its pack, the full shortcut, which costs more, has an altered one",
    "missing integrity", "route-full-shortcut-after-the-delta", "0 -> 1: 2000 gone, => 1: 2500 altered")
some_error("a-feature-or-a-pack", "One edge lists an unknown feature, the pack of the other is gone",
    "unsupported missing", "route-two-ways", "0 -> 1: 2000 strided, 0 => 1: 2500 gone")
some_error("a-base-or-a-pack", "One edge starts from another fingerprint than its base has, the other lost its pack",
    "wrong-base missing", "route-two-ways", "0 -> 1: 2000 wrong-base, 0 => 1: 2500 gone")
some_error("no-shortcut-that-disagrees",
    "A shortcut to another fingerprint than the version's does not count, and its error is not reported",
    "integrity", "route-of-two", "0 -> 1 altered, => 1 empty elsewhere",
    rules="RTE-005 MAN-025", verify=blamed("conflict", shortcut_name(1, None)))
some_error("no-shortcut-that-cannot-be-read",
    "A shortcut that is no JSON was part of no route, and its error is not reported", "integrity",
    "route-of-two", uncounted("0 -> 1 altered, => 1 empty", text=lambda data: data[1:]))
some_error("an-edge-in-the-middle", "The first of two edges lost its pack, and the skip delta has an altered one",
    "missing integrity", "route-of-two-edges-and-a-skip-delta", "0 -> 1: 1800 gone -> 2: 1800, 0 => 2: 4000 altered",
    to=2)

# -- bases that disagree -----------------------------------------------------------------------------------------------
rejected("base-of-another-fingerprint-rebuilt",
    "The base has another fingerprint than its own manifest, with nothing held",
    "wrong-base", "route-of-two-from-nothing", "0 -> 1 wrong-base", "RTE-002", held=None, verify=True)
rejected("base-of-another-fingerprint-held",
    "The base has another fingerprint than its own manifest, with the true base held",
    "wrong-base", "route-of-two", "0 -> 1 wrong-base", "RTE-002", verify=True)
rejected("base-of-another-layout-digest",
    "The base names a layout of the same list under another digest than its own manifest",
    "wrong-base", "route-of-two-from-nothing", spaced_base, "RTE-002", held=None)
rejected("base-that-is-held-but-not-its-manifests",
    "The delta starts from the state held, and the base's own manifest has another fingerprint",
    "wrong-base", "route-of-two", replaced_base, "RTE-002", verify=blamed("wrong-base", manifest_name(1)))

# -- no route ----------------------------------------------------------------------------------------------------------
routes.read("route-of-three", "A full version and two deltas", "RTE-001", "0 -> 1 -> 2", to=2, level="reader-core")
no_route("a-manifest-that-is-no-json", "is no JSON, so that no route reaches the target",
    "malformed", "0 -> 1 torn -> 2")
no_route("a-manifest-of-a-later-format", "is of a later format, so that no route reaches the target",
    "unsupported", "0 -> 1 later -> 2")
no_route("a-manifest-of-another-chain", "names another chain, so that no route reaches the target",
    "conflict", "0 -> 1 foreign -> 2")
no_route("a-manifest-that-is-gone", "is gone, so that no route reaches the target",
    "missing", "0 -> 1 deleted -> 2", "RTE-006 RTE-003")
no_route("an-unknown-feature", "lists an unknown feature, which counts as the error of a route that was chosen",
    "unsupported", "0 -> 1 strided -> 2", "RTE-005 MAN-004")

routes.read("route-by-a-full-shortcut-alone", "The base's manifest is gone, and a full shortcut is the only way",
    "RTE-001", "0 deleted -> 1, => 1", held=None)
by_no_shortcut("no-route-by-a-shortcut-that-disagrees", "disagrees with the version's fingerprint", "elsewhere")
by_no_shortcut("no-route-by-a-shortcut-that-cannot-be-read", "is no JSON", "torn")
by_no_shortcut("no-route-by-a-shortcut-that-is-of-another-chain", "names another chain", "foreign")

routes.read("route-by-manifest-or-full-shortcut", "A version with a full shortcut beside its manifest",
    "RTE-001", "0 -> 1, => 1")
target("is-no-json", "is no JSON", "malformed", "torn")
target("is-of-a-later-format", "is of a later format", "unsupported", "later")
target("is-of-another-chain", "names another chain", "conflict", "foreign")

# -- shortcuts make no version -----------------------------------------------------------------------------------------
rejected("shortcut-to-a-version-that-is-gone", "The target's manifest is gone, and a shortcut to it is still there",
    "missing", "route-by-manifest-or-full-shortcut", "0 -> 1 deleted, => 1", "MAN-024 OBJ-008")
routes.read("route-around-a-version-that-is-gone",
    "A version on the way has lost its manifest, and a skip delta does without it",
    "RTE-003", "0 -> 1 deleted -> 2, 0 => 1, 0 => 2", to=2, verify=None)
rejected("route-through-a-version-that-is-gone",
    "A version on the way has lost its manifest, and a shortcut to it makes no version of it",
    "missing", "route-around-a-version-that-is-gone", "0 -> 1 deleted -> 2, 0 => 1", "RTE-003 MAN-024", to=2)

# -- what would lead there, if it were a shortcut ----------------------------------------------------------------------
OWN = "000000000001-000000000000"
by_what_is_none("a-name-with-capitals", "has a name whose tag has a capital", "OBJ-001", name=f"{OWN}.A.json")
by_what_is_none("a-name-with-a-long-tag", "has a name whose tag has 17 characters", "OBJ-001",
    name=f"{OWN}.{'a' * 17}.json")
by_what_is_none("a-name-with-two-tags", "has a name with two tags", "OBJ-001", name=f"{OWN}.a.b.json")
by_what_is_none("a-delta-named-as-full", "is a delta under the name of a full shortcut", "OBJ-005",
    name="000000000001-full.json")
by_what_is_none("a-shortcut-with-a-file-that-goes-up", "has a file whose name goes up", "MAN-001 PTH-001",
    files=[{"name": "../x", "size": 0, "sha256": "0" * 64, "path": "files/x"}])
by_what_is_none("a-shortcut-of-another-layout-object", "has another layout object than the manifest, of an equal list",
    "MAN-025", space=b" ")
