"""Symbolic links in a folder store (SPEC.md section 12.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from generate.builder import Builder, manifest_name, shortcut_name
from generate.scenes import Scene, line, move, play, twins, walk

AREA = "security"
OUTSIDE = "../../outside/object"
"""From a folder of the chain to a file beside the chain."""


def _two() -> Builder:
    return line(walk(2))


def _pack(builder: Builder) -> str:
    return builder.pack_names(1)[0]


def _layout(builder: Builder) -> str:
    return f"layouts/{builder.manifests[1]['layout']}.json"


def _linked(
    slug: str,
    title: str,
    links: Callable[[Builder], Mapping[str, str]],
    *requirements: str,
    beside: Callable[[Builder], Mapping[str, bytes]] = lambda builder: {},
    error: str | Sequence[str] = (),
    to: int | None = 1,
    state: int = 1,
    chain: Callable[[], Builder] = _two,
    level: str = "reader-core",
    either: str = "",
) -> None:
    """From version 0, version `to` is read after links have appeared.

    Args:
        links: what they lead to, relative to their own folders.
        beside: files beside the chain.
        either: an error that may come instead of the version.
    """

    def scene(scene: Scene) -> None:
        builder = scene.builder
        scene.files |= beside(builder)
        scene.link(links(builder))
        if either:
            scene.either(to, scene.after(state), scene.after(0, error=either), held=0)
        elif error:
            scene.read(to, 0, held=0, error=error)
        else:
            scene.read(to, state, held=0)

    play(
        slug,
        area=AREA,
        level=level,
        title=title,
        requirements=requirements or ["TD-STO-006"],
        chain=chain,
        scene=scene,
        valid=not error,
        twin="link-within-the-root" if error else None,
    )


# -- to a file ---------------------------------------------------------------------------------------------------------


def _elsewhere() -> Builder:
    """The pack lies under another name under the root."""
    builder = _two()
    builder.put("elsewhere/pack", builder.get(_pack(builder)))
    builder.remove(_pack(builder))
    return builder


_linked(
    "link-within-the-root",
    "A pack is a link to a file within the root",
    lambda builder: {_pack(builder): "../elsewhere/pack"},
    "TD-STO-006",
    "TD-MAN-014",
    chain=_elsewhere,
)


def _out(slug: str, title: str, name: Callable[[Builder], str], target: str = OUTSIDE) -> None:
    """An object is a link to a file out of the root that has its bytes."""
    _linked(
        f"link-out-of-the-root-for-{slug}",
        f"{title} is a link to a file out of the root, which has the right bytes",
        lambda builder: {name(builder): target},
        beside=lambda builder: {"outside/object": builder.get(name(builder))},
        error="untrusted",
    )


_out("a-pack", "A pack", _pack)
_out("a-manifest", "A manifest", lambda builder: manifest_name(1))
_out("a-layout", "A layout", _layout)
_out("the-chain-object", "The chain object", lambda builder: "chain.json", "../outside/object")
_linked(
    "link-out-of-the-root-by-a-link-within",
    "A pack is a link within the root to another link, which leads out of the root",
    lambda builder: {_pack(builder): "../elsewhere/pack", "elsewhere/pack": OUTSIDE},
    beside=lambda builder: {"outside/object": builder.get(_pack(builder))},
    error="untrusted",
)


def _second_encoding() -> Builder:
    states = walk(2)
    builder = line(states[:1])
    move(builder, 1, states[1], 0, size=1500)
    move(builder, 1, states[1], 0, size=2000, shortcut="")
    return builder


_linked(
    "link-out-of-the-root-with-a-way-around",
    "The pack of the cheapest edge is a link out of the root, and another edge leads to the version",
    lambda builder: {_pack(builder): OUTSIDE},
    "TD-STO-006",
    "TD-RTE-004",
    beside=lambda builder: {"outside/object": builder.get(_pack(builder))},
    chain=_second_encoding,
    level="chain",
)

# -- to a folder -------------------------------------------------------------------------------------------------------

_linked(
    "link-out-of-the-root-for-the-folder-of-packs",
    "The folder of packs is a link out of the root: it is taken for empty, or reported",
    lambda builder: {"packs": "../outside"},
    beside=lambda builder: {f"outside/{_pack(builder)[6:]}": builder.get(_pack(builder))},
    error=["missing", "untrusted"],
)
BEFORE, AFTER, OTHER = twins(3)


def _without_shortcuts() -> Builder:
    """The version's own edge has more bytes than the shortcut that lies out of the root."""
    builder = Builder()
    builder.full(0, BEFORE)
    move(builder, 1, AFTER, 0, size=1500)
    return builder


def _shortcut(builder: Builder) -> dict[str, bytes]:
    """A shortcut that lies out of the root, and leads to words that no fingerprint tells from the version's."""
    other = _without_shortcuts()
    move(other, 1, OTHER, 0, size=1400, shortcut="")
    name = shortcut_name(1, 0)
    return {f"outside/{name.split('/')[1]}": other.get(name)}


def _with_its_pack() -> Builder:
    builder = _without_shortcuts()
    move(builder, 1, OTHER, 0, size=1400, shortcut="")
    builder.models[1] = AFTER
    builder.remove(shortcut_name(1, 0))
    return builder


_linked(
    "link-out-of-the-root-for-the-folder-of-shortcuts",
    "The folder of shortcuts is a link out of the root: it is taken for empty, or reported, but not followed",
    lambda builder: {"shortcuts": "../outside"},
    beside=_shortcut,
    chain=_with_its_pack,
    level="chain",
    either="untrusted",
)

# -- to nothing: listed, but gone --------------------------------------------------------------------------------------

_linked(
    "link-to-nothing-for-a-pack",
    "A pack is a link within the root to nothing, which is no object",
    lambda builder: {_pack(builder): "../elsewhere/gone"},
    "TD-MAN-014",
    error="missing",
)
_linked(
    "link-to-nothing-for-the-manifest-asked-for",
    "The manifest that was asked for is a link within the root to nothing, so that there is no such version",
    lambda builder: {manifest_name(1): "../elsewhere/gone"},
    "TD-OBJ-008",
    error="missing",
)
_linked(
    "link-to-nothing-above-the-newest-version",
    "A name of a manifest is a link within the root to nothing, so that the version before is the newest",
    lambda builder: {manifest_name(2): "../elsewhere/gone"},
    "TD-OBJ-006",
    "TD-OBJ-007",
    to=None,
)
_linked(
    "link-to-nothing-for-a-shortcut",
    "A name of a shortcut is a link within the root to nothing, and is passed over",
    lambda builder: {shortcut_name(1, None): "../elsewhere/gone"},
    "TD-RTE-004",
    level="chain",
)
_linked(
    "folder-above-the-newest-version",
    "A name of a manifest is a link to a folder, which is no object, so that the version before is the newest",
    lambda builder: {manifest_name(2): "../packs"},
    "TD-OBJ-006",
    to=None,
)
