"""Edges that fail while another route leads to the version (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from generate.builder import Builder, shortcut_name
from generate.cases import read, reject
from generate.codecs import Chunk
from generate.model import Random, stepped
from generate.scenes import line, move, walk
from generate.standard import flipped

AREA = "routes"
FIRST = shortcut_name(1, 0, "first")
"""The edge that is tried first: its packs have fewer bytes than the manifest's."""


def _detour(
    slug: str,
    title: str,
    error: str | None,
    *requirements: str,
    after: Callable[[Builder, dict[str, Any]], Any] | None = None,
    **how: Any,
) -> None:
    """The first edge, a shortcut, is spoiled; the manifest's own is sound.

    Args:
        error: what a verifier reports of the shortcut or its pack; None: no statement.
        after: changes the chain; it is given the shortcut.
        how: of `move`.
    """

    @cache
    def made() -> tuple[Builder, list[str]]:
        states = walk(2)
        builder = Builder()
        builder.full(0, states[0])
        move(builder, 1, states[1], 0, size=2500)
        shortcut = move(builder, 1, states[1], 0, size=2000, shortcut="first", **how)
        names = [FIRST, *(entry["path"] for entry in shortcut["packs"] if entry["path"])]
        if after:
            after(builder, shortcut)
        return builder, names

    verify = None if error is None else [{"error": [error], "object": made()[1]}]
    read(
        slug,
        area=AREA,
        level="chain",
        title=f"The edge of least cost {title}, and the version's own manifest leads there as well",
        requirements=requirements or ("TD-RTE-004",),
        chain=lambda: made()[0],
        verify=verify,
    )


def _pack(builder: Builder, shortcut: dict[str, Any]) -> str:
    path: str = shortcut["packs"][0]["path"]
    return path


_detour("detour-pack-gone", "has lost its pack", None, after=lambda b, s: b.remove(_pack(b, s)))
_detour(
    "detour-pack-altered",
    "has a pack of which a bit has changed",
    "integrity",
    after=lambda b, s: b.change(_pack(b, s), flipped(-1)),
)
_detour(
    "detour-pack-header",
    "has a pack whose header is no JSON",
    "malformed",
    hooks={"header_text": lambda text: text[:-1] + b"]"},
)
_detour(
    "detour-feature",
    "lists a feature that is not known",
    "unsupported",
    features=["strided-slices"],
)
_detour(
    "detour-content",
    "has a pack of unknown content",
    "unsupported",
    entry=lambda entry: entry.update(content="sparse-chunks"),
)
_detour(
    "detour-codec",
    "has a chunk of an unknown codec",
    "unsupported",
    hooks={"table": lambda table: table["chunks"][2]["positions"].update(codec="elias-fano")},
)
_detour(
    "detour-bounds",
    "has a slice past the end of its tensor",
    "malformed",
    hooks={"table": lambda table: table["chunks"][0].update(slices=[[0, 0, 25]])},
)


def _other_bitmap(chunks: list[Chunk]) -> None:
    """One position more than `changed` says; seen when the streams are decoded."""
    stream = chunks[2].streams["bitmap"]
    free = next(bit for bit in range(7) if not stream[0] >> bit & 1)
    chunks[2].streams["bitmap"] = bytes([stream[0] | 1 << free])


_detour(
    "detour-stream",
    "has a bitmap with a bit too many",
    "malformed",
    coding={"positions": "bitmap", "values": "replace"},
    spoil=_other_bitmap,
)


def _other_sum(chunks: list[Chunk]) -> None:
    chunks[1].entry["fingerprint"] = "0123456789abcdef"


_detour("detour-chunk-fingerprint", "has a chunk whose fingerprint is wrong", "integrity", spoil=_other_sum)
_detour(
    "detour-state-fingerprint",
    "lacks a chunk, so that it leads to another state",
    "integrity",
    spoil=lambda chunks: chunks.pop(),
)
_detour(
    "detour-sources",
    "has a pack without a path, of which no source is allowed",
    None,
    entry=lambda entry: entry.update(path=None, sources=["https://localhost/pack"]),
)
_detour(
    "detour-base",
    "starts from another fingerprint than its base's own manifest has",
    "wrong-base",
    hook=lambda document: document["base"].update(fingerprint="0123456789abcdef"),
)
_detour(
    "detour-size",
    "has a pack whose size is not that of its entry",
    "integrity",
    entry=lambda entry: entry.update(size=entry["size"] - 1),
)


# -- more than one edge ------------------------------------------------------------------------------------------------


def _second_fails() -> Builder:
    """0, 1 and 2, and a skip delta to 2; the pack of 2 is altered. The skip delta has more bytes than 1 and 2."""
    states = walk(3)
    states[1] = {name: each for name, each in states[1].items() if name != "b.bias"}
    builder = Builder()
    builder.full(0, states[0])
    move(builder, 1, states[1], 0, size=1800)
    move(builder, 2, states[2], 1, size=1800)
    move(builder, 2, states[2], 0, size=4000, shortcut="")
    builder.change(builder.pack_names(2)[0], flipped(-1))
    return builder


read(
    "detour-after-the-first-edge",
    area=AREA,
    level="chain",
    title="The second edge of the cheapest route fails, after the first has dropped a tensor; a skip delta leads there",
    requirements=["TD-RTE-004", "TD-RDR-002"],
    chain=_second_fails,
    to=2,
    verify=[{"error": ["integrity"], "object": _second_fails().pack_names(2)}],
)


def _three_fail() -> tuple[Builder, list[dict[str, Any]]]:
    states = walk(2)
    builder = Builder()
    builder.full(0, states[0])
    move(builder, 1, states[1], 0, size=1700)
    lost = move(builder, 1, states[1], 0, size=1800, shortcut="lost")
    unknown = shortcut_name(1, 0, "unknown")
    move(builder, 1, states[1], 0, size=1900, shortcut="unknown", features=["not-known"])
    move(builder, 1, states[1], None, size=2000, shortcut="")
    builder.change(builder.pack_names(1)[0], flipped(-1))
    builder.remove(lost["packs"][0]["path"])
    return builder, [
        {"error": ["integrity"], "object": builder.pack_names(1)},
        {"error": ["unsupported"], "object": [unknown]},
    ]


read(
    "detour-after-three-edges",
    area=AREA,
    level="chain",
    title="Three edges fail, each in another way, and the fourth leads to the version from nothing",
    requirements=["TD-RTE-004"],
    chain=lambda: _three_fail()[0],
    verify=_three_fail()[1],
)


def _shared() -> Builder:
    """Manifest 1 lies on the two cheapest ways to 3, and fails; the third goes around it."""
    states = walk(4)
    builder = Builder()
    builder.full(0, states[0])
    move(builder, 1, states[1], 0, size=1800)
    move(builder, 2, states[2], 1, size=1800)
    move(builder, 3, states[3], 2, size=1800)
    move(builder, 3, states[3], 1, size=3700, shortcut="")
    move(builder, 2, states[2], 0, size=5000, shortcut="")
    builder.remove(builder.pack_names(1)[0])
    return builder


read(
    "detour-around-an-edge-of-two-routes",
    area=AREA,
    level="chain",
    title="The edge that the two cheapest routes share fails, and the third does without it",
    requirements=["TD-RTE-004"],
    chain=_shared,
    to=3,
    verify=[{"error": ["missing"], "object": ["manifests/000000000001.json", *_shared().pack_names(1)]}],
)


# -- from a state held that is not the base ----------------------------------------------------------------------------


def _full_as_well() -> Builder:
    states = walk(3)
    builder = line(states)
    move(builder, 2, states[2], None, size=3000, shortcut="")
    return builder


read(
    "detour-held-is-not-the-base",
    area=AREA,
    level="chain",
    title="The state remembered as version 1 is another, so that the delta from it fails; a full shortcut leads there",
    requirements=["TD-RTE-004", "TD-RDR-003"],
    chain=_full_as_well,
    held=1,
    to=2,
    before=stepped(Random(9), walk(2)[1], 0.1),
)
reject(
    "route-failed-edge-from-a-rebuilt-base",
    area=AREA,
    level="chain",
    title="The delta failed from the state remembered as its base, and is not tried again from that base rebuilt",
    requirements=["TD-RTE-004", "TD-RDR-003"],
    chain=lambda: line(walk(3)),
    error="wrong-base",
    twin="route-to-2-from-1",
    held=1,
    to=2,
    before=stepped(Random(9), walk(2)[1], 0.1),
    verify=None,
)
read(
    "route-to-2-from-1",
    area=AREA,
    title="A delta from the version held, in a chain of three",
    requirements=["TD-RTE-001"],
    chain=lambda: line(walk(3)),
    held=1,
    to=2,
)


# -- features ----------------------------------------------------------------------------------------------------------


def _unknown_feature(version: int, *, count: int) -> Callable[[], Builder]:
    """A version's own manifest lists a feature that is not known; a shortcut over the same edge does not."""

    def chain() -> Builder:
        states = walk(count)
        builder = Builder()
        builder.full(0, states[0])
        for number in range(1, count):
            features = ["strided-slices"] if number == version else []
            builder.delta(number, states[number], number - 1, features=features)
        builder.delta(version, states[version], version - 1, shortcut="")
        return builder

    return chain


_UNKNOWN = [{"error": ["unsupported"], "object": ["manifests/000000000001.json"]}]
read(
    "shortcut-instead-of-an-unknown-feature",
    area=AREA,
    level="chain",
    title="The version's manifest lists an unknown feature, and a shortcut to it lists none",
    requirements=["TD-RTE-007"],
    chain=_unknown_feature(1, count=2),
    verify=_UNKNOWN,
)
read(
    "shortcut-instead-of-an-unknown-feature-on-the-way",
    area=AREA,
    level="chain",
    title="The manifest of a version on the way lists an unknown feature, and a shortcut to it lists none",
    requirements=["TD-RTE-007"],
    chain=_unknown_feature(1, count=3),
    to=2,
    verify=_UNKNOWN,
)


# -- what lies about its base ------------------------------------------------------------------------------------------


def _unreadable_base() -> Builder:
    """Version 0's own manifest is garbage, and 1 starts from it."""
    builder = line(walk(2))
    builder.put("manifests/000000000000.json", b"{")
    return builder


read(
    "route-from-held-past-an-unreadable-manifest",
    area=AREA,
    level="chain",
    title="The base's own manifest is no JSON, which says nothing about a delta from the state held",
    requirements=["TD-RTE-002"],
    chain=_unreadable_base,
    verify=[{"error": ["malformed"], "object": ["manifests/000000000000.json"]}],
)
