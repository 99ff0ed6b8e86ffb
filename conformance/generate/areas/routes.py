"""Which route a reader takes (SPEC.md section 10)."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any

from generate.area import area, blamed
from generate.builder import Builder, manifest_name, of_chunks, shortcut_name
from generate.codecs import Chunk, chunk
from generate.graph import ANOTHER, Chain, graph
from generate.model import Model, Random, Tensor, stepped
from generate.scenes import little, move, twins, walk

routes = area("routes", level="chain")

BEFORE, AFTER, OTHER = twins()
"""The state before, and two states after it that differ in their words alone, not in layout or fingerprint."""

BETWEEN = {"t": Tensor("U16", (12,), BEFORE["t"].words + BEFORE["t"].words.dtype.type(1))}


def taken(
    slug: str, title: str, edges: str, expected: Model, rules: str = "RTE-001", *, to: int = 1, **how: Any
) -> None:
    """A chain whose ways end in different words with one fingerprint, so that the way taken shows.

    Args:
        edges: those of manifests lead to AFTER, those of shortcuts to OTHER.
        expected: AFTER or OTHER.
        how: of `graph`, and of `read`.
    """
    given: dict[str, Any] = {"states": {0: BEFORE, 1: BETWEEN, to: AFTER}, "others": {to: OTHER}}
    given |= {name: how.pop(name) for name in ("states", "at") if name in how}
    routes.read(slug, title, rules, expecting(partial(graph, edges, **given), expected), to=to, verify=None, **how)


def expecting(chain: Chain, expected: Model) -> Chain:
    """The chain; the reader is to read its newest version as this state."""

    def build() -> Builder:
        builder = chain()
        builder.models[max(builder.models)] = expected
        return builder

    return build


def two_packs() -> Builder:
    """The manifest's delta in two packs, of which each is smaller than the shortcut's."""
    builder = Builder()
    builder.full(0, BEFORE)
    layout = builder.layout(AFTER)
    parts = [chunk(BEFORE, AFTER, [("t", 0, 6)]), chunk(BEFORE, AFTER, [("t", 6, 12)])]
    builder.edge(1, AFTER, [of_chunks([part], layout, pad=b" " * 400) for part in parts], base=0)
    whole = sum(entry["size"] for entry in builder.manifests[1]["packs"])
    move(builder, 1, OTHER, 0, size=whole - 1, shortcut="")
    return builder


def same_in_other_bytes() -> Builder:
    """Two full versions of one state, whose layout objects differ in a space; the second has lost its pack."""
    model = little()
    builder = Builder()
    builder.full(0, model)
    move(builder, 1, model, layout=builder.layout(model, text=lambda data: b" " + data))
    builder.remove(builder.pack_names(1)[0])
    return builder


RESHAPED = little() | {"a.weight": Tensor("BF16", (6, 4), little()["a.weight"].words)}
"""A state of the fingerprint of `little()`, in another layout."""


def uncounted(slug: str, title: str, rules: str, **members: Any) -> None:
    """A shortcut without packs, which would be the cheapest edge, is passed over."""
    chain = partial(graph, "0 -> 1, 0 => 1 empty", at={"0 => 1": members})
    routes.read(f"route-past-a-shortcut-{slug}", f"A shortcut {title} is passed over", rules, chain, verify=None)


def of_sizes(*sizes: int) -> Chain:
    """A delta whose packs are said to have such sizes, and do not exist; a full shortcut leads there as well."""

    def change(document: dict[str, Any]) -> None:
        own = document["packs"][0]
        document["packs"] = [
            {**own, "sha256": f"{number:064x}", "path": f"packs/{number}", "size": size}
            for number, size in enumerate(sizes)
        ]

    return partial(graph, "0 -> 1, => 1", at={"0 -> 1": {"hook": change}})


FIRST = shortcut_name(1, 0, "first")
"""The edge that is tried first: its packs have fewer bytes than the manifest's."""


def detour(slug: str, title: str, fault: str, error: str | None, rules: str = "RTE-004", **how: Any) -> None:
    """The first edge, a shortcut, is spoiled; the manifest's own is sound.

    Args:
        fault: words of `graph`.
        error: what a verifier reports of the shortcut or its pack; None: no statement.
        how: of `Builder.edge` and `move`, for the shortcut.
    """

    @cache
    def chain() -> Builder:
        return graph(f"0 -> 1: 2500, 0 => 1.first: 2000 {fault}".strip(), at={"0 => 1.first": how})

    verify = None
    if error is not None:
        packs = [entry["path"] for entry in json.loads(chain().get(FIRST))["packs"]]
        verify = blamed(error, FIRST, *packs)
    title = f"The edge of least cost {title}, and the version's own manifest leads there as well"
    routes.read(f"detour-{slug}", title, rules, chain, verify=verify)


def other_bitmap(chunks: list[Chunk]) -> None:
    """One position more than `changed` says; seen when the streams are decoded."""
    stream = chunks[2].streams["bitmap"]
    free = next(bit for bit in range(7) if not stream[0] >> bit & 1)
    chunks[2].streams["bitmap"] = bytes([stream[0] | 1 << free])


BITMAP = {"positions": "bitmap", "values": "replace"}


@cache
def second_fails() -> Builder:
    """The skip delta has more bytes than the two deltas, of which the first drops a tensor."""
    states = walk(3)
    del states[1]["b.bias"]
    return graph("0 -> 1: 1800 -> 2: 1800 altered, 0 => 2: 4000", states)


@cache
def three_fail() -> Builder:
    return graph(
        "0 -> 1: 1700 altered, 0 => 1.lost: 1800 gone, 0 => 1.unknown: 1900, => 1: 2000",
        at={"0 => 1.unknown": {"features": ["not-known"]}},
    )


@cache
def shared_edge_fails() -> Builder:
    """Manifest 1 lies on the two cheapest ways to 3, and fails; the third goes around it."""
    return graph("0 -> 1: 1800 gone -> 2: 1800 -> 3: 1800, 1 => 3: 3700, 0 => 2: 5000")


ALTERED = stepped(Random(9), walk(2)[1], 0.1)
"""A state that is remembered as version 1, and is not that of version 1."""


# fmt: off
taken("route-shortcut-cheaper", "The shortcut has fewer bytes than the manifest",
    "0: 2000 -> 1: 1501, 0 => 1: 1500", OTHER)
taken("route-manifest-cheaper", "The manifest has fewer bytes than the shortcut",
    "0: 2000 -> 1: 1500, 0 => 1: 1501", AFTER)
taken("route-full-cheaper-than-the-delta", "A full shortcut has fewer bytes than the delta from the state held",
    "0: 2000 -> 1: 1501, => 1: 1500", OTHER)
taken("route-held-costs-nothing",
    "From the state held the delta has fewer bytes than the full shortcut, though not with its base",
    "0: 2000 -> 1: 1500, => 1: 2500", AFTER)
taken("route-from-nothing-counts-the-base",
    "With nothing held the full shortcut has fewer bytes than the base and the delta",
    "0: 2000 -> 1: 1500, => 1: 2500", OTHER, held=None)
taken("route-held-known-by-its-words",
    "A state held without a version is known by layout and fingerprint, and costs nothing as well",
    "0: 2000 -> 1: 1500, => 1: 2500", AFTER, "RTE-001 RDR-005", remembered=None)
taken("route-cheapest-of-four-encodings",
    "Of a manifest and three shortcuts over one edge the one with the longest tag has the fewest bytes",
    "0: 2000 -> 1: 1700, 0 => 1: 1650, 0 => 1.a: 1600, 0 => 1.0123456789abcdef: 1550", OTHER,
    at={"0 => 1.a": {"state": AFTER}})
taken("route-skip-cheaper", "A skip delta has fewer bytes than the two deltas",
    "0: 2000 -> 1: 1500 -> 2: 1500, 0 => 2: 2999", OTHER, to=2)
taken("route-bytes-and-not-edges", "Two deltas have fewer bytes than one skip delta",
    "0: 2000 -> 1: 1500 -> 2: 1500, 0 => 2: 3001", AFTER, to=2)
taken("route-manifests-do-not-count", "The bytes of packs decide, also where the manifest itself has many",
    "0 -> 1: 1500, 0 => 1: 1501", AFTER,
    at={"0 -> 1": {"annotations": {str(number): "-" * 4000 for number in range(3)}}})
taken("route-held-is-two-versions",  # versions 0 and 2 are one state
    "An edge starts at the state held if its base has layout and fingerprint of it, whatever version is remembered",
    "0, 1, 2 -> 3: 1500, 0 => 3: 1600", AFTER, "RTE-001 RDR-005", to=3,
    states={0: BEFORE, 1: little(), 2: BEFORE, 3: AFTER})

routes.read("route-all-packs-count", "Two packs have more bytes together than the one pack of the shortcut",
    "RTE-001", expecting(two_packs, OTHER), verify=None)

# -- what a route may be -----------------------------------------------------------------------------------------------
routes.read("route-of-twelve-edges", "A route over twelve deltas",
    "RTE-001", " -> ".join(map(str, range(13))), to=12)
routes.read("route-back-to-an-older-version", "A version older than the one held is read from nothing",
    "RTE-001 FIT-003", "0 -> 1 -> 2", held=2, to=0)
routes.read("route-own-base-is-not-held",
    "The version's own base is older than the state held, and a shortcut starts from what is held",
    "RTE-001", "0 -> 1, 0 -> 2, 0 -> 3, 2 => 3", held=2, to=3)

# -- no edge at all ----------------------------------------------------------------------------------------------------
routes.read("route-target-is-held", "The state held is the target's, so that no pack is needed, and none is there",
    "RTE-008", "0 -> 1 gone", held=1, verify=None)
routes.read("route-target-is-held-under-another-number",
    "The state held is that of version 0, and version 2 has the same",
    "RTE-008", partial(graph, "0 -> 1 -> 2 gone", [*walk(2), little()]), to=2, verify=None)
routes.read("route-target-is-held-in-a-layout-of-other-bytes",
    "The target's layout object has other bytes and the same list, and its fingerprint is the one held",
    "RTE-008 TRM-002", same_in_other_bytes, verify=None)
routes.read("route-target-is-held-and-needs-a-feature",
    "The target's manifest lists an unknown feature, and its state is held already",
    "RTE-008", "0 -> 1 strided", held=1, verify=blamed("unsupported", manifest_name(1)))
routes.read("route-same-fingerprint-in-another-shape",
    "The target has the fingerprint that is held in another layout, so that it is not held yet",
    "RTE-008", partial(graph, "0 -> 1", [little(), RESHAPED]))

# -- held, remembered wrongly ------------------------------------------------------------------------------------------
routes.read("route-held-under-the-number-of-the-target",
    "The state of version 0 is remembered as version 1, and is not taken for it",
    "RDR-005 RTE-008", "0 -> 1", remembered=1)
routes.read("route-held-is-no-version-of-the-chain",
    "A state that is no version's, held without a version: the route starts from nothing",
    "RTE-001", "0 -> 1", before=stepped(Random(8), little(8)), remembered=None)

# -- shortcuts that do not count ---------------------------------------------------------------------------------------
uncounted("of-another-fingerprint", "without packs to another fingerprint than the version's",
    "MAN-025", fingerprint=ANOTHER)
uncounted("of-another-layout", "without packs to another layout digest than the version's",
    "MAN-025", layout="5" * 64)
uncounted("of-another-chain", "without packs that names another chain",
    "OBJ-011", chain="00000000-3a1e-4b7d-9c64-0d2f6b1e7a90")
uncounted("that-is-no-json", "that is no JSON", "RTE-004", text=lambda data: data[:-1])
uncounted("of-a-later-format", "of a later format", "RTE-004", tensordelta="2.0")
uncounted("for-another-version", "whose version is not that of its name",
    "OBJ-005", hook=lambda document: document.update(version=2))
uncounted("from-another-base", "whose base is not that of its name",
    "OBJ-005", hook=lambda document: document.update(base=None))

# -- edges that fail while another route leads to the version ----------------------------------------------------------
detour("pack-gone", "has lost its pack", "gone", None)
detour("pack-altered", "has a pack of which a bit has changed", "altered", "integrity")
detour("pack-header", "has a pack whose header is no JSON", "", "malformed",
    hooks={"header_text": lambda text: text[:-1] + b"]"})
detour("feature", "lists a feature that is not known", "strided", "unsupported")
detour("content", "has a pack of unknown content", "", "unsupported",
    entry=lambda entry: entry.update(content="sparse-chunks"))
detour("codec", "has a chunk of an unknown codec", "", "unsupported",
    hooks={"table": lambda table: table["chunks"][2]["positions"].update(codec="elias-fano")})
detour("bounds", "has a slice past the end of its tensor", "", "malformed",
    hooks={"table": lambda table: table["chunks"][0].update(slices=[[0, 0, 25]])})
detour("stream", "has a bitmap with a bit too many", "", "malformed", coding=BITMAP, spoil=other_bitmap)
detour("chunk-result", "has a chunk whose result is wrong", "", "wrong-base",
    spoil=lambda chunks: chunks[1].entry.update(result=ANOTHER))
detour("state-fingerprint", "lacks a chunk, so that it leads to another state", "", "integrity",
    spoil=lambda chunks: chunks.pop())
detour("sources", "has a pack without a path, of which no source is allowed", "", None,
    entry=lambda entry: entry.update(path=None, sources=["https://localhost/pack"]))
detour("base", "starts from another fingerprint than its base's own manifest has", "wrong-base", "wrong-base")
detour("size", "has a pack whose size is not that of its entry", "", "integrity",
    entry=lambda entry: entry.update(size=entry["size"] - 1))

# -- more than one edge ------------------------------------------------------------------------------------------------
routes.read("detour-after-the-first-edge",
    "The second edge of the cheapest route fails, after the first has dropped a tensor; a skip delta leads there",
    "RTE-004 RDR-002", second_fails, to=2, verify=blamed("integrity", *second_fails().pack_names(2)))
routes.read("detour-after-three-edges",
    "Three edges fail, each in another way, and the fourth leads to the version from nothing",
    "RTE-004", three_fail,
    verify=blamed("integrity", *three_fail().pack_names(1)) + blamed("unsupported", shortcut_name(1, 0, "unknown")))
routes.read("detour-around-an-edge-of-two-routes",
    "The edge that the two cheapest routes share fails, and the third does without it",
    "RTE-004", shared_edge_fails, to=3,
    verify=blamed("missing", manifest_name(1), *shared_edge_fails().pack_names(1)))

# -- from a state held that is not the base ----------------------------------------------------------------------------
routes.read("detour-held-is-not-the-base",
    "The state remembered as version 1 is another, so that the delta from it fails; a full shortcut leads there",
    "RTE-004 RDR-003", "0 -> 1 -> 2, => 2: 3000", held=1, to=2, before=ALTERED)
routes.reject("route-failed-edge-from-a-rebuilt-base",
    "The delta failed from the state remembered as its base, and is not tried again from that base rebuilt",
    "RTE-004 RDR-003", "wrong-base", "route-to-2-from-1",
    "0 -> 1 -> 2", held=1, to=2, before=ALTERED, verify=None)
routes.read("route-to-2-from-1", "A delta from the version held, in a chain of three",
    "RTE-001", "0 -> 1 -> 2", held=1, to=2, level="reader-core")

# -- a fault of a document that another edge does without --------------------------------------------------------------
routes.read("shortcut-instead-of-an-unknown-feature",
    "The version's manifest lists an unknown feature, and a shortcut to it lists none",
    "RTE-007", "0 -> 1 strided, 0 => 1", verify=blamed("unsupported", manifest_name(1)))
routes.read("shortcut-instead-of-an-unknown-feature-and-content",
    "The version's manifest lists an unknown feature and has packs of unknown content, and a shortcut leads there",
    "RTE-007 MAN-012", partial(graph, "0 -> 1 strided, 0 => 1",
        at={"0 -> 1": {"entry": lambda entry: entry.update(content="strided-chunks")}}),
    verify=blamed("unsupported", manifest_name(1)))
routes.read("shortcut-instead-of-an-unknown-feature-on-the-way",
    "The manifest of a version on the way lists an unknown feature, and a shortcut to it lists none",
    "RTE-007", "0 -> 1 strided -> 2, 0 => 1", to=2, verify=blamed("unsupported", manifest_name(1)))
routes.read("route-from-held-past-an-unreadable-manifest",
    "The base's own manifest is no JSON, which says nothing about a delta from the state held",
    "RTE-002", "0 garbage -> 1", verify=blamed("malformed", manifest_name(0)))

routes.read("route-by-a-shortcut-with-a-tag-alone",
    "The pack of a version's own manifest is gone, and a shortcut with a tag of 16 characters leads there",
    "RTE-004 OBJ-001", "0 -> 1: 2000 gone, 0 => 1.0123456789abcdef: 2100")

# -- sizes at the limits, of which no reader has to get the packs ------------------------------------------------------
routes.read("route-around-packs-of-2-48-bytes",
    "A delta of 256 packs of 2^40 bytes each, which no budget allows and no store has; a full shortcut leads there",
    "LIM-005 RTE-004", of_sizes(*[1 << 40] * 256), verify=None)
routes.reject("route-around-packs-of-2-48-bytes-and-one",
    "The packs of a delta have 2^48 + 1 bytes together, and a shortcut to a version of such a manifest does not count",
    "LIM-004", "limit", "route-around-packs-of-2-48-bytes", of_sizes(*[1 << 40] * 256, 1), verify=None)
