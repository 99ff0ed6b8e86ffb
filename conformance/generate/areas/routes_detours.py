"""Edges that fail while another route leads to the version (SPEC.md section 10)."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from generate.areas.routes import routes
from generate.builder import Builder, manifest_name, shortcut_name
from generate.codecs import Chunk
from generate.graph import ANOTHER, graph
from generate.model import Random, stepped
from generate.rows import blamed
from generate.scenes import walk

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

# fmt: off
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
detour("chunk-fingerprint", "has a chunk whose fingerprint is wrong", "", "integrity",
    spoil=lambda chunks: chunks[1].entry.update(fingerprint=ANOTHER))
detour("state-fingerprint", "lacks a chunk, so that it leads to another state", "", "integrity",
    spoil=lambda chunks: chunks.pop())
detour("sources", "has a pack without a path, of which no source is allowed", "", None,
    entry=lambda entry: entry.update(path=None, sources=["https://localhost/pack"]))
detour("base", "starts from another fingerprint than its base's own manifest has", "wrong-base", "wrong-base")
detour("size", "has a pack whose size is not that of its entry", "", "integrity",
    entry=lambda entry: entry.update(size=entry["size"] - 1))
# fmt: on

# -- more than one edge ------------------------------------------------------------------------------------------------


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
"""A state that is remembered as version 1, and is another."""

# fmt: off
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
routes.read("shortcut-instead-of-an-unknown-feature-on-the-way",
    "The manifest of a version on the way lists an unknown feature, and a shortcut to it lists none",
    "RTE-007", "0 -> 1 strided -> 2, 0 => 1", to=2, verify=blamed("unsupported", manifest_name(1)))
routes.read("route-from-held-past-an-unreadable-manifest",
    "The base's own manifest is no JSON, which says nothing about a delta from the state held",
    "RTE-002", "0 garbage -> 1", verify=blamed("malformed", manifest_name(0)))
# fmt: on
