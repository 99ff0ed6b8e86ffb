"""Chains of which old objects were deleted (SPEC.md section 13)."""

from __future__ import annotations

import json
from functools import cache

from generate.builder import Builder, manifest_name
from generate.cases import read, reject
from generate.model import Model, Random, random_tensor, stepped
from generate.scenes import line, walk

AREA = "retention"


def _states() -> list[Model]:
    """Five states; from the third on in another layout."""
    states = walk(5)
    added = {"0.first": random_tensor(Random("retention"), "I64", (2,))}
    return [state | (added if version > 2 else {}) for version, state in enumerate(states)]


def _named(builder: Builder) -> set[str]:
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
def _collected(*, delta: bool) -> Builder:
    """Versions 3 and 4, and a full shortcut to 3; all that only 0 to 2 needed is gone, the layout of 2 included.

    Args:
        delta: whether the pack of manifest 3, which starts from 2, is still there.
    """
    builder = line(_states())
    builder.full(3, builder.models[3], shortcut="")
    for version in (0, 1, 2):
        builder.remove(manifest_name(version))
    named = _named(builder)
    builder.objects = {name: data for name, data in builder.objects.items() if name in named}
    if not delta:
        builder.remove(builder.pack_names(3)[0])
    return builder


def _same_layout() -> Builder:
    """1 and 0 have lost their manifests; 2 starts from 1, and a full shortcut costs more."""
    builder = line(walk(3))
    builder.full(2, builder.models[2], shortcut="")
    for version in (0, 1):
        builder.remove(manifest_name(version))
        for name in builder.pack_names(version):
            builder.remove(name)
    return builder


def _unreachable() -> Builder:
    builder = _collected(delta=True)
    made = Builder()
    made.objects = {name: data for name, data in builder.objects.items() if not name.startswith("shortcuts/")}
    made.models, made.manifests = builder.models, builder.manifests
    return made


def _altered_after(builder: Builder) -> Model:
    return stepped(Random("altered"), builder.models[1], 0.1)


def _only_delta() -> Builder:
    builder = _same_layout()
    for name in [name for name in builder.objects if name.startswith("shortcuts/")]:
        builder.remove(name)
    return builder


read(
    "retained-from-nothing",
    area=AREA,
    level="chain",
    title="The chain's start and the own pack of the first version that stays are gone; a full shortcut leads there",
    requirements=["TD-RET-006", "TD-RTE-004"],
    chain=lambda: _collected(delta=False),
    held=None,
    to=4,
)
read(
    "retained-from-a-version-that-is-gone",
    area=AREA,
    level="chain",
    title="The version held has lost its manifest, and the edge that starts from it is still there",
    requirements=["TD-RTE-003"],
    chain=_same_layout,
    held=1,
    to=2,
)
read(
    "retained-from-a-version-that-is-gone-and-not-remembered",
    area=AREA,
    level="chain",
    title="The state held is known by the base of an edge alone: its manifest is gone, and no version is remembered",
    requirements=["TD-RTE-003", "TD-RDR-005"],
    chain=_same_layout,
    held=1,
    remembered=None,
    to=2,
    verify=None,
)


read(
    "retained-from-a-version-whose-layout-is-gone",
    area=AREA,
    level="chain",
    title="The version held has lost its manifest and its layout object; whichever edge the reader can use leads on",
    requirements=["TD-RTE-004", "TD-RET-006"],
    chain=lambda: _collected(delta=True),
    held=2,
    to=4,
    verify=None,
)
read(
    "retained-from-a-version-without-edges",
    area=AREA,
    level="chain",
    title="No edge starts from the version held any more, and a route from nothing takes its place",
    requirements=["TD-RTE-001", "TD-RET-006"],
    chain=lambda: _collected(delta=False),
    held=1,
    to=3,
    verify=None,
)
reject(
    "retained-too-little",
    area=AREA,
    level="chain",
    title="No edge starts from the version held any more, and no route from nothing is left",
    requirements=["TD-RTE-006"],
    chain=_unreachable,
    error="missing",
    twin="retained-from-a-version-without-edges",
    held=1,
    to=3,
    verify=None,
)


reject(
    "held-version-that-is-gone-was-altered",
    area=AREA,
    level="chain",
    title="The version held has lost its manifest, its words are others by now, and only an edge from it is left",
    requirements=["TD-RDR-003"],
    chain=_only_delta,
    error="wrong-base",
    twin="retained-from-a-version-that-is-gone",
    held=1,
    to=2,
    before=_altered_after(line(walk(2))),
    verify=None,
)
