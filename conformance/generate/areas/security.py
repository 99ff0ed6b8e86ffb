"""Sources, places, pinned chains and symbolic links (SPEC.md sections 4.2, 4.8, 12.2 and 18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from generate.builder import Builder, manifest_name, shortcut_name
from generate.edits import Area
from generate.model import CHAIN, FOREIGN
from generate.scenes import Scene, line, move, twins, walk

NOWHERE = "file:///tensordelta/nowhere/pack.safetensors"
"""A source with a scheme that the user may allow, and with nothing under its address."""
CLOSED = "https://127.0.0.1:9/pack.safetensors"
"""A source on the network."""


def two() -> Builder:
    return line(walk(2))


def pack(builder: Builder) -> str:
    return builder.pack_names(1)[0]


def with_sources(*, sources: Sequence[str] = (CLOSED,), path: bool = False, stored: bool = False) -> Builder:
    """The pack of version 1 has sources.

    Args:
        path: whether its entry has a path as well.
        stored: whether its object is under the root.
    """

    def entry(each: dict[str, Any]) -> None:
        each["sources"] = list(sources)
        if not path:
            each["path"] = None

    states = walk(2)
    builder = Builder()
    builder.full(0, states[0])
    move(builder, 1, states[1], 0, entry=entry)
    if not stored:
        sha256 = builder.manifests[1]["packs"][0]["sha256"]
        for name in [name for name in builder.objects if name.startswith(f"packs/{sha256}")]:
            builder.remove(name)
    return builder


SOURCE_PACK = pack(with_sources(path=True))
SOURCED = with_sources(path=True, stored=True).get(SOURCE_PACK)
"""The bytes of the pack of version 1."""
ALLOWED: dict[str, Any] = {"level": "sources", "input": {"sources": ["file"]}}
"""The user allows sources of one scheme."""
PLACE: dict[str, Any] = {"needs": ["places"], "input": {"places": ["place"]}}
"""The user names a folder in which packs may be found."""

case = Area("security", with_sources, "sources-beside-a-path", {"verify": None})

# -- sources -----------------------------------------------------------------------------------------------------------

case("sources-beside-a-path", "MAN-016", "A pack has sources and a path, and lies under the root").good(
    sources=[NOWHERE, CLOSED], path=True, stored=True
)
case("sources-without-a-path", "SEC-003", "A pack has a source and no path, and the user has allowed no scheme").bad(
    "untrusted"
)
case(
    "sources-of-files-without-a-path",
    "MAN-016",
    "A pack has a file of this machine as its source and no path, and the user has allowed no scheme",
).bad("untrusted", sources=[NOWHERE])
case(
    "sources-and-a-pack-that-no-path-names",
    "MAN-017",
    "A pack has no path, though its bytes lie under the root where a path would have been",
).bad("untrusted", stored=True)
case(
    "sources-and-a-path-to-nothing",
    "MAN-014",
    "A pack has a source that is not allowed, and a path under which nothing lies",
).bad("missing", path=True)
case(
    "sources-of-an-allowed-scheme-that-give-nothing",
    "MAN-018",
    "The one source has an allowed scheme, and gives nothing",
).bad("missing", sources=[NOWHERE], **ALLOWED)
case(
    "sources-of-another-scheme-than-allowed",
    "MAN-017",
    "The one source has another scheme than the one that is allowed",
).bad("untrusted", **ALLOWED)
case(
    "sources-without-a-scheme",
    "MAN-017",
    "The sources have no scheme, or have the allowed one in other places than at their beginning",
).bad("untrusted", sources=["file", "/file/pack", "x file://pack", "files:///pack"], **ALLOWED)
case(
    "sources-of-which-one-is-allowed", "MAN-018", "Of two sources the second has an allowed scheme, and gives nothing"
).bad("missing", sources=[CLOSED, NOWHERE], **ALLOWED)


def served(slug: str, rules: str, title: str, *sources: str, error: str = "", **how: Any) -> None:
    """The pack of version 1 has sources behind plain HTTP, and the user has allowed their scheme."""

    def scene(made: Scene) -> None:
        files = {"pack": SOURCED, "other": altered(SOURCED), "longer": SOURCED + b" "}
        made.files |= {f"elsewhere/{name}": data for name, data in files.items()}
        serve = {"folder": "elsewhere", "absent": ["none"], "status": {"refused": 403}}
        expect = made.after(0, error=error) if error else made.after(1)
        made.step("read", made.ask(0, 1, sources=["http"]), expect, serve=serve)

    places = [f"http://elsewhere.invalid/{each}" for each in sources]
    twin = "sources-that-give-a-pack" if error else None
    chain = partial(with_sources, sources=places, **how)
    case(slug, rules, title).play(scene, twin=twin, chain=chain, level="sources")


def altered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


served("sources-that-give-a-pack", "MAN-015", "A pack without a path is at an allowed source", "pack")
served(
    "sources-beside-a-path-to-nothing",
    "MAN-015",
    "A pack is not under its path, and an allowed source has it",
    "pack",
    path=True,
)
served(
    "sources-of-which-the-last-gives-the-pack",
    "MAN-013 MAN-015",
    "One source has nothing, one refuses, one has other bytes, one has too many, and the last has the pack",
    "none",
    "refused",
    "other",
    "longer",
    "pack",
)
served(
    "sources-that-give-other-bytes",
    "MAN-013",
    "The one source has other bytes of the same number",
    "other",
    error="integrity",
)
served(
    "sources-that-give-too-many-bytes",
    "MAN-013",
    "The one source has the bytes of the pack and one more",
    "longer",
    error="integrity",
)
served("sources-that-have-nothing", "MAN-018", "The one source has nothing", "none", error="missing")
served("sources-that-refuse", "STO-003", "The one source refuses, which proves no absence", "refused", error="failed")

# -- places ------------------------------------------------------------------------------------------------------------

case(
    "places-for-a-pack-without-a-path",
    "MAN-015 MAN-017",
    "A pack without a path is found in a folder of the user's, under a name of no meaning",
).good(files={"place/any name": SOURCED}, **PLACE)
case(
    "places-for-a-pack-that-is-gone", "MAN-014", "A pack that is not under its path is found in a folder of the user's"
).good(sources=[], path=True, files={"place/x.safetensors": SOURCED}, **PLACE)


def altered_under_the_root() -> Builder:
    builder = with_sources(sources=[], path=True, stored=True)
    builder.change(SOURCE_PACK, altered)
    return builder


case(
    "places-for-a-pack-that-is-altered",
    "MAN-015 MAN-013",
    "A pack whose object was altered is found in a folder of the user's",
).good(chain=altered_under_the_root, files={"place/x.safetensors": SOURCED}, **PLACE)
case(
    "places-with-others-of-the-same-size",
    "MAN-015",
    "A folder of the user's has three files of the pack's size, of which the digest tells the right one",
).good(files={"place/1": bytes(len(SOURCED)), "place/2": SOURCED, "place/3": SOURCED[:-1] + b"\xff"}, **PLACE)
case("places-of-two-folders", "MAN-015", "The first folder of the user's has nothing, the second has the pack").good(
    files={"first/readme": b"nothing", "second/pack": SOURCED}, needs=["places"], input={"places": ["first", "second"]}
)
case(
    "places-with-other-bytes",
    "MAN-017",
    "A folder of the user's has a file of the pack's size under its name, with another byte in it",
).bad(
    "untrusted",
    twin="places-for-a-pack-without-a-path",
    files={f"place/{SOURCE_PACK.removeprefix('packs/')}": SOURCED[:-1] + b"\xff"},
    **PLACE,
)

# -- pinned chains -----------------------------------------------------------------------------------------------------

for slug, held, what in (("held", 0, "from version 0"), ("nothing-held", None, "from nothing")):
    pinned = Area("security", two, f"pinned-with-{slug}", {"held": held, "needs": ["pin"]})
    pinned(f"pinned-with-{slug}", "OBJ-010", f"The chain has the id that is pinned, and is read {what}").good(
        input={"pin": CHAIN}
    )
    pinned(
        f"pinned-another-with-{slug}", "OBJ-010", f"The chain has another id than is pinned, and is read {what}"
    ).bad("conflict", input={"pin": FOREIGN}, verify=None)

# -- symbolic links to a file ------------------------------------------------------------------------------------------

TWO = two()
PACK = pack(TWO)
OUTSIDE = "../../outside/object"
"""The path from a folder of the chain to a file next to the chain."""
WITHIN = "link-within-the-root"

link = Area("security", two, common={"level": "reader-core"})


def linked(
    links: Mapping[str, str],
    beside: Mapping[str, bytes] | None = None,
    *,
    error: str | Sequence[str] = (),
    to: int | None = 1,
    either: str = "",
) -> Callable[[Scene], None]:
    """From version 0, version `to` is read after links have appeared.

    Args:
        links: the targets by name, relative to the folder of each link.
        beside: files next to the chain.
        either: an error that is as good an answer as the version.
    """

    def scene(scene: Scene) -> None:
        scene.files |= beside or {}
        scene.link(links)
        if either:
            scene.either(to, scene.after(1), scene.after(0, error=either), held=0)
        else:
            scene.read(to, 0 if error else 1, held=0, error=error)

    return scene


def elsewhere() -> Builder:
    """The pack has another name under the root."""
    builder = two()
    builder.put("elsewhere/pack", builder.get(PACK))
    builder.remove(PACK)
    return builder


link(WITHIN, "STO-006 MAN-014", "A pack is a link to a file within the root").play(
    linked({PACK: "../elsewhere/pack"}), chain=elsewhere
)
for slug, title, name, target in (
    ("a-pack", "A pack", PACK, OUTSIDE),
    ("a-manifest", "A manifest", manifest_name(1), OUTSIDE),
    ("a-layout", "A layout", f"layouts/{TWO.manifests[1]['layout']}.json", OUTSIDE),
    ("the-chain-object", "The chain object", "chain.json", "../outside/object"),
):
    title += " is a link to a file out of the root, which has the right bytes"
    link(f"link-out-of-the-root-for-{slug}", "STO-006", title).play(
        linked({name: target}, {"outside/object": TWO.get(name)}, error="untrusted"), twin=WITHIN
    )
link(
    "link-out-of-the-root-to-a-neighbour",
    "STO-006",
    "A pack is a link to a file in a folder beside the root whose name begins with that of the root",
).play(
    linked({PACK: "../../chain-of-another/pack"}, {"chain-of-another/pack": TWO.get(PACK)}, error="untrusted"),
    twin=WITHIN,
)
link(
    "link-out-of-the-root-by-a-link-within",
    "STO-006",
    "A pack is a link within the root to another link, which leads out of the root",
).play(
    linked(
        {PACK: "../elsewhere/pack", "elsewhere/pack": OUTSIDE}, {"outside/object": TWO.get(PACK)}, error="untrusted"
    ),
    twin=WITHIN,
)


def second_encoding() -> Builder:
    states = walk(2)
    builder = line(states[:1])
    move(builder, 1, states[1], 0, size=1500)
    move(builder, 1, states[1], 0, size=2000, shortcut="")
    return builder


CHEAPEST = pack(second_encoding())
link(
    "link-out-of-the-root-with-a-way-around",
    "STO-006 RTE-004",
    "The pack of the cheapest edge is a link out of the root, and another edge leads to the version",
).play(
    linked({CHEAPEST: OUTSIDE}, {"outside/object": second_encoding().get(CHEAPEST)}),
    chain=second_encoding,
    level="chain",
)

# -- to a folder -------------------------------------------------------------------------------------------------------

link(
    "link-out-of-the-root-for-the-folder-of-packs",
    "STO-006",
    "The folder of packs is a link out of the root: it is taken for empty, or reported",
).play(
    linked({"packs": "../outside"}, {PACK.replace("packs", "outside"): TWO.get(PACK)}, error=["missing", "untrusted"]),
    twin=WITHIN,
)
BEFORE, AFTER, OTHER = twins(3)
SHORTCUT = shortcut_name(1, 0)


def with_shortcut() -> Builder:
    """A shortcut with fewer bytes than the version's own edge, to other words with the same fingerprint."""
    builder = Builder()
    builder.full(0, BEFORE)
    move(builder, 1, AFTER, 0, size=1500)
    move(builder, 1, OTHER, 0, size=1400, shortcut="")
    return builder


def without_shortcut() -> Builder:
    """The shortcut's pack is under the root, but not the shortcut."""
    builder = with_shortcut()
    builder.remove(SHORTCUT)
    return builder


link(
    "link-out-of-the-root-for-the-folder-of-shortcuts",
    "STO-006",
    "The folder of shortcuts is a link out of the root: it is taken for empty, or reported, but not followed",
).play(
    linked(
        {"shortcuts": "../outside"},
        {SHORTCUT.replace("shortcuts", "outside"): with_shortcut().get(SHORTCUT)},
        either="untrusted",
    ),
    chain=without_shortcut,
    level="chain",
)

# -- to nothing: listed, but gone --------------------------------------------------------------------------------------

GONE = "../elsewhere/gone"
link("link-to-nothing-for-a-pack", "MAN-014", "A pack is a link within the root to nothing, which is no object").play(
    linked({PACK: GONE}, error="missing"), twin=WITHIN
)
link(
    "link-to-nothing-for-the-manifest-asked-for",
    "OBJ-008",
    "The manifest that was asked for is a link within the root to nothing, so that there is no such version",
).play(linked({manifest_name(1): GONE}, error="missing"), twin=WITHIN)
link(
    "link-to-nothing-above-the-newest-version",
    "OBJ-006 OBJ-007",
    "A name of a manifest is a link within the root to nothing, so that the version before is the newest",
).play(linked({manifest_name(2): GONE}, to=None))
link(
    "link-to-nothing-for-a-shortcut",
    "RTE-004",
    "A name of a shortcut is a link within the root to nothing, and is passed over",
).play(linked({shortcut_name(1, None): GONE}), level="chain")
link(
    "folder-above-the-newest-version",
    "OBJ-006",
    "A name of a manifest is a link to a folder, which is no object, so that the version before is the newest",
).play(linked({manifest_name(2): "../packs"}, to=None))
