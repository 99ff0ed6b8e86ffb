"""Chains of which old objects were deleted (SPEC.md section 13)."""

from __future__ import annotations

import json
from functools import cache, partial

from generate.area import area
from generate.builder import Builder, shortcut_name
from generate.graph import graph
from generate.model import Random, random_tensor, stepped
from generate.scenes import walk

retention = area("retention", level="chain")


def named(builder: Builder) -> set[str]:
    """What the chain's manifests and shortcuts name."""
    names = {"chain.json"}
    for name, data in builder.objects.items():
        if name.startswith(("manifests/", "shortcuts/")):
            document = json.loads(data)
            names |= {name, f"layouts/{document['layout']}.json"}
            names |= {f"fingerprints/{document['tensor_fingerprints']}.bin"}
            names |= {entry["path"] for entry in document["packs"]}
    return names


@cache
def collected(*, delta: bool, shortcut: bool = True) -> Builder:
    """Versions 3 and 4, in another layout than those before, and a full shortcut to 3.

    All that only 0, 1 and 2 needed is gone, the layout of 2 included.

    Args:
        delta: whether the pack of manifest 3, which starts from 2, is still there.
        shortcut: whether the shortcut is still there.
    """
    added = {"0.first": random_tensor(Random("retention"), "I64", (2,))}
    states = [state | (added if version > 2 else {}) for version, state in enumerate(walk(5))]
    pack = "" if delta else " gone"
    builder = graph(f"0 deleted -> 1 deleted -> 2 deleted -> 3{pack} -> 4, => 3", states)
    kept = named(builder)
    builder.objects = {name: data for name, data in builder.objects.items() if name in kept}
    if not shortcut:
        builder.remove(shortcut_name(3, None))
    return builder


# A full shortcut costs more than the edge from the version held, which has lost its manifest.
EDGE_FROM_HELD = "0 gone deleted -> 1 gone deleted -> 2, => 2"

# fmt: off
retention.read("retained-from-nothing",
    "The chain's start and the own pack of the first version that stays are gone; a full shortcut leads there",
    "RET-006 RTE-004", partial(collected, delta=False), held=None, to=4)
retention.read("retained-from-a-version-that-is-gone",
    "The version held has lost its manifest, and the edge that starts from it is still there",
    "RTE-003", EDGE_FROM_HELD, held=1, to=2)
retention.read("retained-from-a-version-that-is-gone-and-not-remembered",
    "The state held is known by the base of an edge alone: its manifest is gone, and no version is remembered",
    "RTE-003 RDR-005", EDGE_FROM_HELD, held=1, remembered=None, to=2, verify=None)
retention.read("retained-from-a-version-whose-layout-is-gone",
    "The version held has lost its manifest and its layout object; whichever edge the reader can use leads on",
    "RTE-004 RET-006", partial(collected, delta=True), held=2, to=4, verify=None)
retention.read("retained-from-a-version-without-edges",
    "No edge starts from the version held any more, and a route from nothing takes its place",
    "RTE-001 RET-006", partial(collected, delta=False), held=1, to=3, verify=None)
retention.reject("retained-too-little",
    "No edge starts from the version held any more, and no route from nothing is left",
    "RTE-006", "missing", "retained-from-a-version-without-edges",
    partial(collected, delta=True, shortcut=False), held=1, to=3, verify=None)
retention.reject("held-version-that-is-gone-was-altered",
    "The version held has lost its manifest, its words are others by now, and only an edge from it is left",
    "RDR-003", "wrong-base", "retained-from-a-version-that-is-gone", f"{EDGE_FROM_HELD} deleted",
    held=1, to=2, before=stepped(Random("altered"), walk(2)[1], 0.1), verify=None)
# fmt: on
