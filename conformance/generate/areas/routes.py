"""Which route a reader takes (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, of_chunks
from generate.cases import read
from generate.codecs import chunk
from generate.model import Model, Random, Tensor, stepped
from generate.scenes import line, little, move, twins, walk

AREA = "routes"

BEFORE, AFTER, OTHER = twins()
"""The state before, and two states after it that only the words tell apart."""


def _taken(slug: str, title: str, *requirements: str, chain: Callable[[], Builder], to: int = 1, **how: Any) -> None:
    """A chain whose ways to the target end in different words with one fingerprint, so that the way shows."""
    read(
        slug,
        area=AREA,
        level="chain",
        title=title,
        requirements=requirements or ("TD-RTE-001",),
        chain=chain,
        to=to,
        verify=None,
        **how,
    )


def _two(own: int, other: int, *, base: int | None = 0, tag: str = "", expected: Model) -> Callable[[], Builder]:
    """Version 1 by its manifest, and by a shortcut, in packs of given sizes."""

    def chain() -> Builder:
        builder = Builder()
        move(builder, 0, BEFORE, size=2000)
        move(builder, 1, AFTER, 0, size=own)
        move(builder, 1, OTHER, base, size=other, shortcut=tag)
        builder.models[1] = expected
        return builder

    return chain


_taken(
    "route-shortcut-cheaper", "The shortcut has fewer bytes than the manifest", chain=_two(1501, 1500, expected=OTHER)
)
_taken(
    "route-manifest-cheaper", "The manifest has fewer bytes than the shortcut", chain=_two(1500, 1501, expected=AFTER)
)
_taken(
    "route-full-cheaper-than-the-delta",
    "A full shortcut has fewer bytes than the delta from the state held",
    chain=_two(1501, 1500, base=None, expected=OTHER),
)
_taken(
    "route-held-costs-nothing",
    "From the state held the delta has fewer bytes than the full shortcut, though not with its base",
    chain=_two(1500, 2500, base=None, expected=AFTER),
)
_taken(
    "route-from-nothing-counts-the-base",
    "With nothing held the full shortcut has fewer bytes than the base and the delta",
    chain=_two(1500, 2500, base=None, expected=OTHER),
    held=None,
)
_taken(
    "route-held-known-by-its-words",
    "A state held without a version is known by layout and fingerprint, and costs nothing as well",
    "TD-RTE-001",
    "TD-RDR-005",
    chain=_two(1500, 2500, base=None, expected=AFTER),
    remembered=None,
)


def _encodings() -> Builder:
    builder = _two(1700, 1650, expected=OTHER)()
    move(builder, 1, AFTER, 0, size=1600, shortcut="a")
    move(builder, 1, OTHER, 0, size=1550, shortcut="0123456789abcdef")
    return builder


_taken(
    "route-cheapest-of-four-encodings",
    "Of a manifest and three shortcuts over one edge the one with the longest tag has the fewest bytes",
    chain=_encodings,
)


def _skip(size: int, expected: Model) -> Callable[[], Builder]:
    """0, 1 and 2, and a skip delta from 0 to 2."""

    def chain() -> Builder:
        builder = Builder()
        middle = {"t": Tensor("U16", (12,), BEFORE["t"].words + BEFORE["t"].words.dtype.type(1))}
        move(builder, 0, BEFORE, size=2000)
        move(builder, 1, middle, 0, size=1500)
        move(builder, 2, AFTER, 1, size=1500)
        move(builder, 2, OTHER, 0, size=size, shortcut="")
        builder.models[2] = expected
        return builder

    return chain


_taken("route-skip-cheaper", "A skip delta has fewer bytes than the two deltas", chain=_skip(2999, OTHER), to=2)
_taken(
    "route-bytes-and-not-edges",
    "Two deltas have fewer bytes than one skip delta",
    chain=_skip(3001, AFTER),
    to=2,
)


def _packs() -> Builder:
    """The manifest's delta in two packs, of which each is smaller than the shortcut's."""
    builder = Builder()
    builder.full(0, BEFORE)
    layout = builder.layout(AFTER)
    parts = [chunk(BEFORE, AFTER, [("t", 0, 6)]), chunk(BEFORE, AFTER, [("t", 6, 12)])]
    builder.edge(1, AFTER, [of_chunks([part], layout, pad=b" " * 400) for part in parts], base=0)
    whole = sum(entry["size"] for entry in builder.manifests[1]["packs"])
    move(builder, 1, OTHER, 0, size=whole - 1, shortcut="")
    builder.models[1] = OTHER
    return builder


_taken("route-all-packs-count", "Two packs have more bytes together than the one pack of the shortcut", chain=_packs)


def _long_manifest() -> Builder:
    builder = Builder()
    builder.full(0, BEFORE)
    move(builder, 1, AFTER, 0, size=1500, annotations={str(number): "-" * 4000 for number in range(3)})
    move(builder, 1, OTHER, 0, size=1501, shortcut="")
    return builder


_taken(
    "route-manifests-do-not-count",
    "The bytes of packs decide, also where the manifest itself has many",
    chain=_long_manifest,
)


def _two_versions_of_one_state() -> Builder:
    """Versions 0 and 2 are one state; version 3 starts from 2, a dearer shortcut from 0."""
    builder = Builder()
    middle = little()
    builder.full(0, BEFORE)
    builder.full(1, middle)
    builder.full(2, BEFORE)
    move(builder, 3, AFTER, 2, size=1500)
    move(builder, 3, OTHER, 0, size=1600, shortcut="")
    return builder


_taken(
    "route-held-is-two-versions",
    "An edge starts at the state held if its base has layout and fingerprint of it, whatever version is remembered",
    "TD-RTE-001",
    "TD-RDR-005",
    chain=_two_versions_of_one_state,
    to=3,
)


# -- what a route may be -----------------------------------------------------------------------------------------------


def _reached(
    slug: str, title: str, *requirements: str, chain: Callable[[], Builder], to: int | None, **how: Any
) -> None:
    read(
        slug,
        area=AREA,
        level="chain",
        title=title,
        requirements=requirements or ("TD-RTE-001",),
        chain=chain,
        to=to,
        **how,
    )


_reached("route-of-twelve-edges", "A route over twelve deltas", chain=lambda: line(walk(13)), to=12)
_reached(
    "route-back-to-an-older-version",
    "A version older than the one held is read from nothing",
    "TD-RTE-001",
    "TD-FIT-003",
    chain=lambda: line(walk(3)),
    held=2,
    to=0,
)


def _branches() -> Builder:
    """1 and 2 both start from 0, and so does 3; a shortcut leads from 2 to 3."""
    states = walk(4)
    builder = Builder()
    builder.full(0, states[0])
    for version in (1, 2, 3):
        builder.delta(version, states[version], 0)
    builder.delta(3, states[3], 2, shortcut="")
    return builder


_reached(
    "route-own-base-is-not-held",
    "The version's own base is older than the state held, and a shortcut starts from what is held",
    chain=_branches,
    held=2,
    to=3,
)


# -- no edge at all ----------------------------------------------------------------------------------------------------


def _gone(builder: Builder, version: int) -> Builder:
    """The packs of a version's own manifest are gone."""
    for name in builder.pack_names(version):
        builder.remove(name)
    return builder


_reached(
    "route-target-is-held",
    "The state held is the target's, so that no pack is needed, and none is there",
    "TD-RTE-008",
    chain=lambda: _gone(line(walk(2)), 1),
    held=1,
    to=1,
    verify=None,
)


def _came_back() -> Builder:
    states = walk(2)
    return _gone(line([states[0], states[1], states[0]]), 2)


_reached(
    "route-target-is-held-under-another-number",
    "The state held is that of version 0, and version 2 has the same",
    "TD-RTE-008",
    chain=_came_back,
    to=2,
    verify=None,
)


def _same_in_other_bytes() -> Builder:
    """Two full versions of one state, whose layout objects differ in a space."""
    model = little()
    builder = Builder()
    builder.full(0, model)
    move(builder, 1, model, layout=builder.layout(model, text=lambda data: b" " + data))
    return _gone(builder, 1)


_reached(
    "route-target-is-held-in-a-layout-of-other-bytes",
    "The target's layout object has other bytes and the same list, and its fingerprint is the one held",
    "TD-RTE-008",
    "TD-TRM-002",
    chain=_same_in_other_bytes,
    verify=None,
    to=1,
)


def _feature_of_held() -> Builder:
    builder = Builder()
    states = walk(2)
    builder.full(0, states[0])
    builder.delta(1, states[1], 0, features=["strided-slices"])
    return builder


_reached(
    "route-target-is-held-and-needs-a-feature",
    "The target's manifest lists an unknown feature, and its state is held already",
    "TD-RTE-008",
    chain=_feature_of_held,
    held=1,
    to=1,
    verify=[{"error": ["unsupported"], "object": ["manifests/000000000001.json"]}],
)


def _same_words_in_another_shape() -> Builder:
    """Reshaped, with the same words: the fingerprint does not tell."""
    model = little()
    return line([model, model | {"a.weight": Tensor("BF16", (6, 4), model["a.weight"].words)}])


_reached(
    "route-same-fingerprint-in-another-shape",
    "The target has the fingerprint that is held in another layout, so that it is not held yet",
    "TD-RTE-008",
    chain=_same_words_in_another_shape,
    to=1,
)


# -- held, remembered wrongly ------------------------------------------------------------------------------------------

_reached(
    "route-held-under-the-number-of-the-target",
    "The state of version 0 is remembered as version 1, and is not taken for it",
    "TD-RDR-005",
    "TD-RTE-008",
    chain=lambda: line(walk(2)),
    remembered=1,
    to=1,
)
_reached(
    "route-held-is-no-version-of-the-chain",
    "A state that is no version's, held without a version: the route starts from nothing",
    "TD-RTE-001",
    chain=lambda: line(walk(2)),
    before=stepped(Random(8), little(8)),
    remembered=None,
    to=1,
)


# -- shortcuts that do not count ---------------------------------------------------------------------------------------


def _uncounted(slug: str, title: str, requirement: str, **members: Any) -> None:
    """A shortcut that costs nothing and is passed over."""

    def chain() -> Builder:
        builder = line(walk(2))
        builder.edge(1, builder.models[1], [], base=0, shortcut="", **members)
        return builder

    _reached(slug, title, requirement, chain=chain, to=1, verify=None)


_uncounted(
    "route-past-a-shortcut-of-another-fingerprint",
    "A shortcut without packs to another fingerprint than the version's is passed over",
    "TD-MAN-025",
    fingerprint="0123456789abcdef",
)
_uncounted(
    "route-past-a-shortcut-of-another-layout",
    "A shortcut without packs to another layout digest than the version's is passed over",
    "TD-MAN-025",
    layout="5" * 64,
)
_uncounted(
    "route-past-a-shortcut-of-another-chain",
    "A shortcut without packs that names another chain is passed over",
    "TD-OBJ-011",
    chain="00000000-3a1e-4b7d-9c64-0d2f6b1e7a90",
)
_uncounted(
    "route-past-a-shortcut-that-is-no-json",
    "A shortcut that is no JSON is passed over",
    "TD-RTE-004",
    text=lambda data: data[:-1],
)
_uncounted(
    "route-past-a-shortcut-of-a-later-format",
    "A shortcut of a later format is passed over",
    "TD-RTE-004",
    tensordelta="2.0",
)
_uncounted(
    "route-past-a-shortcut-for-another-version",
    "A shortcut whose version is not that of its name is passed over",
    "TD-OBJ-005",
    hook=lambda document: document.update(version=2),
)
_uncounted(
    "route-past-a-shortcut-from-another-base",
    "A shortcut whose base is not that of its name is passed over",
    "TD-OBJ-005",
    hook=lambda document: document.update(base=None),
)
