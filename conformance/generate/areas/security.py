"""Sources, places and pinned chains (SPEC.md sections 4.2, 4.8 and 18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from generate.builder import Builder
from generate.cases import read, reject
from generate.model import CHAIN, FOREIGN
from generate.scenes import line, move, walk

AREA = "security"
NOWHERE = "file:///tensordelta/nowhere/pack.safetensors"
"""A source of a scheme that a reader may be allowed, which gives nothing."""
CLOSED = "https://127.0.0.1:9/pack.safetensors"
"""A source on the network."""


def _sources(*sources: str, path: bool = False, stored: bool = False) -> Callable[[], Builder]:
    """The pack of version 1 has sources.

    Args:
        path: whether its entry has a path as well.
        stored: whether its object is under the root.
    """

    def entry(each: dict[str, Any]) -> None:
        each["sources"] = list(sources)
        if not path:
            each["path"] = None

    def chain() -> Builder:
        states = walk(2)
        builder = Builder()
        builder.full(0, states[0])
        move(builder, 1, states[1], 0, entry=entry)
        if not stored:
            builder.remove(f"packs/{builder.manifests[1]['packs'][0]['sha256']}.safetensors")
        return builder

    return chain


def _bytes() -> bytes:
    """The pack of version 1."""
    builder = _sources(path=True, stored=True)()
    return builder.get(builder.pack_names(1)[0])


def _good(
    slug: str,
    title: str,
    requirements: Sequence[str],
    chain: Callable[[], Builder],
    *,
    needs: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    **given: Any,
) -> None:
    read(
        slug,
        area=AREA,
        title=title,
        requirements=requirements,
        chain=chain,
        needs=needs,
        files=files,
        input=given,
        verify=None,
    )


def _bad(
    slug: str,
    title: str,
    requirement: str,
    error: str,
    chain: Callable[[], Builder],
    *,
    needs: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    twin: str = "sources-beside-a-path",
    **given: Any,
) -> None:
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[requirement],
        chain=chain,
        error=error,
        twin=twin,
        needs=needs,
        files=files,
        input=given,
        verify=None,
    )


# -- sources -----------------------------------------------------------------------------------------------------------

_good(
    "sources-beside-a-path",
    "A pack has sources and a path, and lies under the root",
    ["TD-MAN-016"],
    _sources(NOWHERE, CLOSED, path=True, stored=True),
)
_bad(
    "sources-without-a-path",
    "A pack has a source and no path, and the user has allowed no scheme",
    "TD-SEC-003",
    "untrusted",
    _sources(CLOSED),
)
_bad(
    "sources-of-files-without-a-path",
    "A pack has a file of this machine as its source and no path, and the user has allowed no scheme",
    "TD-MAN-016",
    "untrusted",
    _sources(NOWHERE),
)
_bad(
    "sources-and-a-pack-that-no-path-names",
    "A pack has no path, though its bytes lie under the root where a path would have been",
    "TD-MAN-017",
    "untrusted",
    _sources(CLOSED, stored=True),
)
_bad(
    "sources-and-a-path-to-nothing",
    "A pack has a source that is not allowed, and a path under which nothing lies",
    "TD-MAN-014",
    "missing",
    _sources(CLOSED, path=True),
)
_bad(
    "sources-of-an-allowed-scheme-that-give-nothing",
    "The one source has an allowed scheme, and gives nothing",
    "TD-MAN-018",
    "missing",
    _sources(NOWHERE),
    needs=["sources"],
    sources=["file"],
)
_bad(
    "sources-of-another-scheme-than-allowed",
    "The one source has another scheme than the one that is allowed",
    "TD-MAN-017",
    "untrusted",
    _sources(CLOSED),
    needs=["sources"],
    sources=["file"],
)
_bad(
    "sources-without-a-scheme",
    "The sources have no scheme, or have the allowed one in other places than at their beginning",
    "TD-MAN-017",
    "untrusted",
    _sources("file", "/file/pack", "x file://pack", "files:///pack"),
    needs=["sources"],
    sources=["file"],
)
_bad(
    "sources-of-which-one-is-allowed",
    "Of two sources the second has an allowed scheme, and gives nothing",
    "TD-MAN-018",
    "missing",
    _sources(CLOSED, NOWHERE),
    needs=["sources"],
    sources=["file"],
)

# -- places ------------------------------------------------------------------------------------------------------------

_PLACE: dict[str, Any] = {"needs": ["places"], "places": ["place"]}
_good(
    "places-for-a-pack-without-a-path",
    "A pack without a path is found in a folder of the user's, under a name of no meaning",
    ["TD-MAN-015", "TD-MAN-017"],
    _sources(CLOSED),
    files={"place/any name": _bytes()},
    **_PLACE,
)
_good(
    "places-for-a-pack-that-is-gone",
    "A pack that is not under its path is found in a folder of the user's",
    ["TD-MAN-014"],
    _sources(path=True),
    files={"place/x.safetensors": _bytes()},
    **_PLACE,
)
_good(
    "places-with-others-of-the-same-size",
    "A folder of the user's has three files of the pack's size, of which the digest tells the right one",
    ["TD-MAN-015"],
    _sources(CLOSED),
    files={
        "place/1": b"\0" * len(_bytes()),
        "place/2": _bytes(),
        "place/3": _bytes()[:-1] + b"\xff",
    },
    **_PLACE,
)
_good(
    "places-of-two-folders",
    "The first folder of the user's has nothing, the second has the pack",
    ["TD-MAN-015"],
    _sources(CLOSED),
    files={"first/readme": b"nothing", "second/pack": _bytes()},
    needs=["places"],
    places=["first", "second"],
)
_bad(
    "places-with-other-bytes",
    "A folder of the user's has a file of the pack's size under its name, with another byte in it",
    "TD-MAN-017",
    "untrusted",
    _sources(CLOSED),
    files={f"place/{_sources(CLOSED)().manifests[1]['packs'][0]['sha256']}.safetensors": _bytes()[:-1] + b"\xff"},
    twin="places-for-a-pack-without-a-path",
    **_PLACE,
)

# -- pinned chains -----------------------------------------------------------------------------------------------------


def _two() -> Builder:
    return line(walk(2))


for slug, held, what in (("held", 0, "from version 0"), ("nothing-held", None, "from nothing")):
    read(
        f"pinned-with-{slug}",
        area=AREA,
        title=f"The chain has the id that is pinned, and is read {what}",
        requirements=["TD-OBJ-010"],
        chain=_two,
        held=held,
        needs=["pin"],
        input={"pin": CHAIN},
    )
    reject(
        f"pinned-another-with-{slug}",
        area=AREA,
        title=f"The chain has another id than is pinned, and is read {what}",
        requirements=["TD-OBJ-010"],
        chain=_two,
        error="conflict",
        twin=f"pinned-with-{slug}",
        held=held,
        needs=["pin"],
        input={"pin": FOREIGN},
        verify=None,
    )
