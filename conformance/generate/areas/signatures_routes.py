"""Signatures where a reader looks for the newest version and plans (SPEC.md section 14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, shortcut_name
from generate.model import Model
from generate.scenes import Scene, State, line, little, move, play, twins, walk
from generate.signing import (
    AREA,
    FIRST,
    SECOND,
    SECOND_VERSION,
    read_signed,
    reject_signed,
    resign,
    signed,
    signed_line,
    trusted,
)

# -- newest, and planning ----------------------------------------------------------------------------------------------


def _unsigned_newest() -> Builder:
    builder = signed(line(walk(3)), SECOND_VERSION)
    del builder.models[2]  # so that 1 is the newest
    return builder


read_signed(
    "unsigned-newest-passed-over",
    "The highest manifest has no signature, so that the one before is the newest version",
    "TD-SIG-004",
    chain=_unsigned_newest,
    to=None,
)
reject_signed(
    "newest-signed-by-another-key",
    "The highest manifest is signed by another key, and is not passed over",
    "TD-SIG-003",
    spoil=resign(FIRST, secret=SECOND),
    to=None,
    twin="signed-newest",
)
read_signed("signed-newest", "The newest of two signed versions", "TD-SIG-004", chain=signed_line, to=None)

BEFORE, AFTER, OTHER = twins(2)


def _shortcut(spoil: Callable[[Builder], Any], expected: Model) -> Callable[[], Builder]:
    """A shortcut of few bytes, which leads to words that no fingerprint tells from the version's."""

    def chain() -> Builder:
        builder = Builder()
        builder.full(0, BEFORE)
        move(builder, 1, AFTER, 0, size=1500)
        move(builder, 1, OTHER, 0, size=1200, shortcut="")
        builder.models[1] = expected
        signed(builder)
        spoil(builder)
        return builder

    return chain


_SHORTCUT = shortcut_name(1, 0)
read_signed(
    "signed-shortcut",
    "A signed shortcut has fewer bytes than the manifest, and is taken",
    "TD-RTE-001",
    "TD-SIG-001",
    chain=_shortcut(lambda builder: None, OTHER),
)
read_signed(
    "unsigned-shortcut-passed-over",
    "A shortcut without signature has fewer bytes than the manifest, and is not taken",
    "TD-SIG-004",
    chain=_shortcut(lambda builder: builder.remove(f"{_SHORTCUT}.sig"), AFTER),
)
read_signed(
    "shortcut-signed-by-another-key",
    "A shortcut signed by another key has fewer bytes than the manifest, and is not taken",
    "TD-SIG-001",
    "TD-SIG-003",
    chain=_shortcut(resign(_SHORTCUT, secret=SECOND), AFTER),
)


def _on_the_way(spoil: Callable[[Builder], Any], *, skip: bool) -> Callable[[], Builder]:
    """0, 1 and 2, and a skip delta if `skip`."""

    def chain() -> Builder:
        states = walk(3)
        builder = line(states)
        if skip:
            move(builder, 2, states[2], 0, size=9000, shortcut="")
        signed(builder)
        spoil(builder)
        return builder

    return chain


def _unsign(builder: Builder) -> None:
    builder.remove(f"{FIRST}.sig")


read_signed(
    "signed-on-the-way",
    "A route over three signed manifests",
    "TD-SIG-001",
    chain=_on_the_way(lambda builder: None, skip=False),
    held=None,
    to=2,
)
read_signed(
    "unsigned-on-the-way-passed-over",
    "A manifest on the way has no signature, and a signed skip delta leads around it",
    "TD-SIG-004",
    chain=_on_the_way(_unsign, skip=True),
    to=2,
)
for slug, title, spoil, rule in (
    ("unsigned-on-the-way", "has no signature", _unsign, "TD-SIG-004"),
    ("on-the-way-signed-by-another-key", "is signed by another key", resign(FIRST, secret=SECOND), "TD-SIG-001"),
):
    reject_signed(
        slug,
        f"A manifest on the way {title}, and no other route reaches the target",
        rule,
        "TD-RTE-006",
        spoil=spoil,
        chain=_on_the_way(spoil, skip=False),
        error="missing",
        twin="signed-on-the-way",
        held=None,
        to=2,
    )


def _forged_base() -> Builder:
    """An unsigned manifest of version 1 that has another state; 2 starts from the true one."""
    builder = line(walk(3))
    other = line([little(), little(7)])
    builder.put(FIRST, other.get(FIRST))
    return signed(builder, FIRST)


read_signed(
    "unsigned-base-that-disagrees",
    "The base's own manifest is without signature and has another fingerprint, which says nothing about signed edges",
    "TD-SIG-004",
    chain=_forged_base,
    held=1,
    to=2,
)

# -- back, and changed versions ----------------------------------------------------------------------------------------


def _keyed(scene: Scene, to: int | None, state: State, **how: Any) -> None:
    scene.read(to, state, keys=trusted(), **how)


def _scene(
    slug: str,
    title: str,
    *requirements: str,
    scene: Callable[[Scene], None],
    chain: Callable[[], Builder] = lambda: signed_line(3),
    valid: bool = False,
) -> None:
    play(
        slug,
        area=AREA,
        level="signed",
        title=title,
        requirements=requirements,
        chain=chain,
        scene=scene,
        valid=valid,
        twin=None if valid else "read-signed-versions-in-order",
    )


def _in_order(scene: Scene) -> None:
    _keyed(scene, 0, 0, held=None)
    _keyed(scene, 1, 1)
    _keyed(scene, 1, 1)
    _keyed(scene, None, 2)


_scene(
    "read-signed-versions-in-order",
    "Signed versions are read one after the other, one of them twice",
    "TD-SIG-005",
    "TD-SIG-006",
    scene=_in_order,
    valid=True,
)
reject_signed(
    "older-than-the-version-held",
    "A version older than the one held is asked for",
    "TD-SIG-005",
    spoil=lambda builder: None,
    held=1,
    to=0,
)


def _back(scene: Scene) -> None:
    _keyed(scene, 2, 2, held=None)
    _keyed(scene, 1, 2, error="untrusted")
    _keyed(scene, 1, 1, back=True)


_scene(
    "older-than-a-version-read-before",
    "A version older than the one read before is asked for, and then asked for again by a user who allows it",
    "TD-SIG-005",
    scene=_back,
)


def _rolled_back(scene: Scene) -> None:
    _keyed(scene, None, 2, held=None)
    scene.remove(SECOND_VERSION, f"{SECOND_VERSION}.sig")
    _keyed(scene, None, 2, error="untrusted")


_scene(
    "newest-older-than-before",
    "The manifest of the version read before is gone, so that the newest is an older one",
    "TD-SIG-005",
    scene=_rolled_back,
)


def _replaced(other: Callable[[Model], Model]) -> Callable[[Scene], None]:
    """Version 1 is published anew, with another state, and signed."""

    def scene(scene: Scene) -> None:
        _keyed(scene, 1, 1, held=None)
        states = walk(2)
        anew = signed(line([states[0], other(states[1])]))
        scene.put({name: data for name, data in anew.objects.items() if scene.builder.objects.get(name) != data})
        _keyed(scene, 1, 1, error="untrusted")

    return scene


_scene(
    "version-read-before-has-another-fingerprint",
    "The manifest of a version that was read before is another now, signed, with another fingerprint",
    "TD-SIG-006",
    scene=_replaced(lambda model: little(9)),
)
_scene(
    "version-read-before-has-another-layout",
    "The manifest of a version that was read before is another now, signed, with the same words in another shape",
    "TD-SIG-006",
    scene=_replaced(lambda model: model | {"a.weight": model["a.weight"]._replace(shape=(6, 4))}),
)
