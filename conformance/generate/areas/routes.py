"""Which route a reader takes (SPEC.md section 10)."""

from __future__ import annotations

from functools import partial
from typing import Any

from generate.builder import Builder, manifest_name, of_chunks
from generate.codecs import chunk
from generate.graph import ANOTHER, Chain, graph
from generate.model import Model, Random, Tensor, stepped
from generate.rows import area, blamed
from generate.scenes import little, move, twins, walk

routes = area("routes", level="chain")

BEFORE, AFTER, OTHER = twins()
"""The state before, and two states after it that only the words tell apart."""

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
    """The chain, whose newest version is to be read as this state."""

    def build() -> Builder:
        builder = chain()
        builder.models[max(builder.models)] = expected
        return builder

    return build


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
# fmt: on


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


# fmt: off
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
# fmt: on

# -- no edge at all ----------------------------------------------------------------------------------------------------


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

# fmt: off
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
# fmt: on

# -- shortcuts that do not count ---------------------------------------------------------------------------------------


def uncounted(slug: str, title: str, rules: str, **members: Any) -> None:
    """A shortcut without packs, which would be the cheapest edge, is passed over."""
    chain = partial(graph, "0 -> 1, 0 => 1 empty", at={"0 => 1": members})
    routes.read(f"route-past-a-shortcut-{slug}", f"A shortcut {title} is passed over", rules, chain, verify=None)


# fmt: off
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
# fmt: on
