"""Versions that no route reaches (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, manifest_name
from generate.cases import read
from generate.model import FOREIGN
from generate.routing import rejected
from generate.scenes import line, walk

AREA = "routes"


# -- no route ----------------------------------------------------------------------------------------------------------


def _three(spoil: Callable[[Builder], Any] | None = None, **how: Any) -> Callable[[], Builder]:
    """0, 1 and 2; `how` is of manifest 1."""

    def chain() -> Builder:
        states = walk(3)
        builder = Builder()
        builder.full(0, states[0])
        builder.delta(1, states[1], 0, **how)
        builder.delta(2, states[2], 1)
        if spoil:
            spoil(builder)
        return builder

    return chain


read(
    "route-of-three",
    area=AREA,
    title="A full version and two deltas",
    requirements=["TD-RTE-001"],
    chain=_three(),
    to=2,
)


def _unreached(slug: str, title: str, error: str, chain: Callable[[], Builder], *requirements: str) -> None:
    rejected(slug, title, error, chain, "route-of-three", requirements or ["TD-RTE-006"], to=2, verify=None)


_unreached(
    "no-route-past-a-manifest-that-is-no-json",
    "The manifest on the way is no JSON, so that no route reaches the target",
    "missing",
    _three(text=lambda data: data[:-1]),
)
_unreached(
    "no-route-past-a-manifest-of-a-later-format",
    "The manifest on the way is of a later format, so that no route reaches the target",
    "missing",
    _three(tensordelta="2.0"),
)
_unreached(
    "no-route-past-a-manifest-of-another-chain",
    "The manifest on the way names another chain, so that no route reaches the target",
    "missing",
    _three(chain=FOREIGN),
)
_unreached(
    "no-route-past-a-manifest-that-is-gone",
    "The manifest on the way is gone, so that no route reaches the target",
    "missing",
    _three(lambda builder: builder.remove(manifest_name(1))),
    "TD-RTE-006",
    "TD-RTE-003",
)
_unreached(
    "no-route-past-an-unknown-feature",
    "The manifest on the way lists an unknown feature, which counts as the error of a route that was chosen",
    "unsupported",
    _three(features=["strided-slices"]),
    "TD-RTE-005",
    "TD-MAN-004",
)


def _without_start(**members: Any) -> Callable[[], Builder]:
    """Manifest 0 is gone; a full shortcut leads to 1."""

    def chain() -> Builder:
        builder = line(walk(2))
        builder.full(1, builder.models[1], shortcut="", **members)
        builder.remove(manifest_name(0))
        return builder

    return chain


read(
    "route-by-a-full-shortcut-alone",
    area=AREA,
    level="chain",
    title="The base's manifest is gone, and a full shortcut is the only way",
    requirements=["TD-RTE-001"],
    chain=_without_start(),
    held=None,
)
for slug, title, members in (
    ("disagrees", "disagrees with the version's fingerprint", {"fingerprint": "0123456789abcdef"}),
    ("cannot-be-read", "is no JSON", {"text": lambda data: data[:-1]}),
    ("is-of-another-chain", "names another chain", {"chain": FOREIGN}),
):
    rejected(
        f"no-route-by-a-shortcut-that-{slug}",
        f"The only edge from nothing is a shortcut that {title}",
        "missing",
        _without_start(**members),
        "route-by-a-full-shortcut-alone",
        ["TD-RTE-006"],
        held=None,
    )

# -- the target's own manifest -----------------------------------------------------------------------------------------


def _own(**how: Any) -> Callable[[], Builder]:
    """A full shortcut leads to version 1, whatever is wrong with its manifest."""

    def chain() -> Builder:
        states = walk(2)
        builder = Builder()
        builder.full(0, states[0])
        builder.delta(1, states[1], 0, **how)
        builder.full(1, states[1], shortcut="")
        return builder

    return chain


read(
    "route-by-manifest-or-full-shortcut",
    area=AREA,
    level="chain",
    title="A version with a full shortcut beside its manifest",
    requirements=["TD-RTE-001"],
    chain=_own(),
)
for slug, title, error, members in (
    ("is-no-json", "is no JSON", "malformed", {"text": lambda data: data[:-1]}),
    ("is-of-a-later-format", "is of a later format", "unsupported", {"tensordelta": "2.0"}),
    ("is-of-another-chain", "names another chain", "conflict", {"chain": FOREIGN}),
):
    rejected(
        f"target-whose-manifest-{slug}",
        f"The target's own manifest {title}, so that no shortcut to it counts, and its error is reported",
        error,
        _own(**members),
        "route-by-manifest-or-full-shortcut",
        ["TD-RTE-005"],
        verify=True,
    )

# -- shortcuts make no version -----------------------------------------------------------------------------------------

rejected(
    "shortcut-to-a-version-that-is-gone",
    "The target's manifest is gone, and a shortcut to it is still there",
    "missing",
    lambda: _drop(_own()(), manifest_name(1)),
    "route-by-manifest-or-full-shortcut",
    ["TD-MAN-024", "TD-OBJ-008"],
)


def _drop(builder: Builder, *names: str) -> Builder:
    for name in names:
        builder.remove(name)
    return builder


def _through_the_gone(skip: bool) -> Callable[[], Builder]:
    """Version 1 has lost its manifest, and a shortcut still leads to it; 2 starts from 1."""

    def chain() -> Builder:
        states = walk(3)
        builder = line(states)
        builder.delta(1, states[1], 0, shortcut="")
        if skip:
            builder.delta(2, states[2], 0, shortcut="")
        return _drop(builder, manifest_name(1))

    return chain


read(
    "route-around-a-version-that-is-gone",
    area=AREA,
    level="chain",
    title="A version on the way has lost its manifest, and a skip delta does without it",
    requirements=["TD-RTE-003"],
    chain=_through_the_gone(True),
    to=2,
    verify=None,
)
rejected(
    "route-through-a-version-that-is-gone",
    "A version on the way has lost its manifest, and a shortcut to it makes no version of it",
    "missing",
    _through_the_gone(False),
    "route-around-a-version-that-is-gone",
    ["TD-RTE-003", "TD-MAN-024"],
    to=2,
)
