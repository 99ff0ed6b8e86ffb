"""Which error comes when no route is left (SPEC.md section 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, manifest_name, shortcut_name
from generate.cases import read
from generate.routing import rejected
from generate.scenes import line, little, move, walk
from generate.standard import flipped

AREA = "routes"
Spoil = Callable[[Builder, dict[str, Any]], Any]


def _ways(size: int, spoil: Spoil | None = None, *, base: int | None = 0, **how: Any) -> Callable[[], Builder]:
    """Version 1 by its manifest, in 2000 bytes, and by a shortcut."""

    def chain() -> Builder:
        states = walk(2)
        builder = Builder()
        builder.full(0, states[0])
        move(builder, 1, states[1], 0, size=2000, **how)
        shortcut = move(builder, 1, states[1], base, size=size, shortcut="")
        if spoil:
            spoil(builder, shortcut)
        return builder

    return chain


def _gone(builder: Builder, _: object = None) -> None:
    """The pack of manifest 1 is gone."""
    builder.remove(builder.pack_names(1)[0])


def _altered(builder: Builder, _: object = None) -> None:
    """The pack of manifest 1 is altered."""
    builder.change(builder.pack_names(1)[0], flipped(-1))


def _other_gone(builder: Builder, shortcut: dict[str, Any]) -> None:
    """The pack of the shortcut is gone."""
    builder.remove(shortcut["packs"][0]["path"])


def _other_altered(builder: Builder, shortcut: dict[str, Any]) -> None:
    """The pack of the shortcut is altered."""
    builder.change(shortcut["packs"][0]["path"], flipped(-1))


def _all(*spoils: Spoil) -> Spoil:
    def spoil(builder: Builder, shortcut: dict[str, Any]) -> None:
        for each in spoils:
            each(builder, shortcut)

    return spoil


for slug, title, size in (
    ("route-two-ways", "Two ways from version 0 to 1, of which the manifest's has fewer bytes", 2500),
    ("route-two-ways-shortcut-first", "Two ways from version 0 to 1, of which the shortcut's has fewer bytes", 1900),
):
    read(slug, area=AREA, level="chain", title=title, requirements=["TD-RTE-001"], chain=_ways(size))
read(
    "route-full-shortcut-after-the-delta",
    area=AREA,
    level="chain",
    title="A full shortcut to version 1 that has more bytes than the delta",
    requirements=["TD-RTE-001"],
    chain=_ways(2500, base=None),
)

# -- the cheapest fails first ------------------------------------------------------------------------------------------

rejected(
    "first-error-is-missing",
    "The pack of the cheapest edge is gone, that of the other is altered",
    "missing",
    _ways(2500, _all(_gone, _other_altered)),
    "route-two-ways",
)
rejected(
    "first-error-is-integrity",
    "The pack of the cheapest edge is altered, that of the other is gone",
    "integrity",
    _ways(2500, _all(_altered, _other_gone)),
    "route-two-ways",
)
rejected(
    "first-error-is-the-shortcuts",
    "The pack of the shortcut, which is the cheapest edge, is altered, and that of the manifest is gone",
    "integrity",
    _ways(1900, _all(_gone, _other_altered)),
    "route-two-ways-shortcut-first",
)
rejected(
    "first-error-is-of-the-edge-from-held",
    "The delta from the state held lost its pack, the full shortcut, which costs more, has an altered one",
    "missing",
    _ways(2500, _all(_gone, _other_altered), base=None),
    "route-full-shortcut-after-the-delta",
)
rejected(
    "first-error-is-of-the-full-shortcut",
    "With nothing held the full shortcut is the cheapest, and is altered; the delta lost its pack",
    "integrity",
    _ways(2100, _all(_gone, _other_altered), base=None),
    "route-full-shortcut-after-the-delta",
    held=None,
)
rejected(
    "first-error-is-a-feature",
    "The cheapest edge lists an unknown feature, the pack of the other is gone",
    "unsupported",
    _ways(2500, _other_gone, features=["strided-slices"]),
    "route-two-ways",
)
rejected(
    "first-error-is-not-a-feature",
    "The pack of the cheapest edge is gone, the other, which costs more, lists an unknown feature",
    "missing",
    _ways(1900, _other_gone, features=["strided-slices"]),
    "route-two-ways-shortcut-first",
)
rejected(
    "first-error-is-wrong-base",
    "The cheapest edge starts from another fingerprint than its base has, the pack of the other is gone",
    "wrong-base",
    _ways(2500, _other_gone, hook=lambda document: document["base"].update(fingerprint="0123456789abcdef")),
    "route-two-ways",
)


def _uncounted(**members: Any) -> Callable[[], Builder]:
    """A full shortcut that does not count, and costs nothing; the pack of manifest 1 is altered."""

    def chain() -> Builder:
        builder = line(walk(2))
        builder.edge(1, builder.models[1], [], shortcut="", **members)
        _altered(builder)
        return builder

    return chain


rejected(
    "first-error-is-not-of-a-shortcut-that-disagrees",
    "A shortcut to another fingerprint than the version's does not count, and its error is not reported",
    "integrity",
    _uncounted(fingerprint="0123456789abcdef"),
    "route-of-two",
    ["TD-RTE-005", "TD-MAN-025"],
    verify=[{"error": ["conflict"], "object": [shortcut_name(1, None)]}],
)
rejected(
    "first-error-is-not-of-a-shortcut-that-cannot-be-read",
    "A shortcut that is no JSON was part of no route, and its error is not reported",
    "integrity",
    _uncounted(text=lambda data: data[1:]),
    "route-of-two",
    ["TD-RTE-005"],
)
read(
    "route-of-two",
    area=AREA,
    title="A full version and a delta",
    requirements=["TD-RTE-001"],
    chain=lambda: line(walk(2)),
)


def _on_the_way(spoil: Callable[[Builder], Any] | None = None) -> Callable[[], Builder]:
    """0, 1 and 2, one after the other, and a skip delta to 2 with more bytes."""

    def chain() -> Builder:
        states = walk(3)
        builder = Builder()
        builder.full(0, states[0])
        move(builder, 1, states[1], 0, size=1800)
        move(builder, 2, states[2], 1, size=1800)
        skip = move(builder, 2, states[2], 0, size=4000, shortcut="")
        if spoil:
            spoil(builder)
            builder.change(skip["packs"][0]["path"], flipped(-1))
        return builder

    return chain


read(
    "route-of-two-edges-and-a-skip-delta",
    area=AREA,
    level="chain",
    title="Two deltas, and a skip delta that has more bytes",
    requirements=["TD-RTE-001"],
    chain=_on_the_way(),
    to=2,
)
rejected(
    "first-error-is-of-the-edge-in-the-middle",
    "The first of two edges lost its pack, and the skip delta has an altered one",
    "missing",
    _on_the_way(_gone),
    "route-of-two-edges-and-a-skip-delta",
    to=2,
)


# -- bases that disagree -----------------------------------------------------------------------------------------------


def _base(**members: Any) -> Callable[[], Builder]:
    """Manifest 1 with another `base`."""

    def chain() -> Builder:
        builder = Builder()
        states = walk(2)
        builder.full(0, states[0])
        builder.delta(1, states[1], 0, hook=lambda document: document["base"].update(members))
        return builder

    return chain


for held, what in ((None, "with nothing held"), (0, "with the true base held")):
    rejected(
        f"base-of-another-fingerprint-{'held' if held == 0 else 'rebuilt'}",
        f"The base has another fingerprint than its own manifest, {what}",
        "wrong-base",
        _base(fingerprint="0123456789abcdef"),
        "route-of-two" if held == 0 else "route-of-two-from-nothing",
        ["TD-RTE-002"],
        held=held,
        verify=True,
    )
read(
    "route-of-two-from-nothing",
    area=AREA,
    title="A full version and a delta, with nothing held",
    requirements=["TD-RTE-001"],
    chain=lambda: line(walk(2)),
    held=None,
)


def _spaced_base() -> Builder:
    """The base names a layout object of the same list, but not the one that its own manifest names."""
    builder = Builder()
    states = walk(2)
    builder.full(0, states[0])
    other = builder.layout(states[0], text=lambda data: data + b" ")
    builder.delta(1, states[1], 0, hook=lambda document: document["base"].update(layout=other))
    return builder


rejected(
    "base-of-another-layout-digest",
    "The base names a layout of the same list under another digest than its own manifest",
    "wrong-base",
    _spaced_base,
    "route-of-two-from-nothing",
    ["TD-RTE-002"],
    held=None,
)


def _replaced_base() -> Builder:
    """Manifest 0 is another state's by now, and the state held is the one that 1 starts from."""
    builder = line(walk(2))
    other = Builder()
    other.full(0, little(5))
    for name, data in other.objects.items():
        builder.put(name, data)
    return builder


rejected(
    "base-that-is-held-but-not-its-manifests",
    "The delta starts from the state held, and the base's own manifest has another fingerprint",
    "wrong-base",
    _replaced_base,
    "route-of-two",
    ["TD-RTE-002"],
    verify=[{"error": ["wrong-base"], "object": [manifest_name(1)]}],
)
