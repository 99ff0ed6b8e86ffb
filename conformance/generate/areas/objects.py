"""Objects of a chain: names, existence, damage, the chain object, the hint, fingerprints objects
(SPEC.md sections 4.1, 4.2, 4.5, 4.11 and 4.12).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from generate.builder import Builder, manifest_name
from generate.cases import read, reject
from generate.chains.contents import empty_deltas_and_gaps, shared_objects
from generate.model import CHAIN, FOREIGN
from generate.spoiled import bad, good
from generate.standard import flipped, replaced, setting, standard, without

AREA = "objects"


_bad = partial(bad, AREA)
_good = partial(good, AREA)


def _first(builder: Builder) -> str:
    return builder.pack_names(1)[0]


# -- packs that are not what was published -----------------------------------------------------------------------------

_bad(
    "pack-truncated",
    "TD-MAN-013",
    "A pack without its last byte",
    "integrity",
    lambda b: b.change(_first(b), lambda d: d[:-1]),
)
_bad(
    "pack-longer",
    "TD-MAN-013",
    "A pack with a byte more",
    "integrity",
    lambda b: b.change(_first(b), lambda d: d + b"\0"),
)
_bad(
    "pack-altered",
    "TD-MAN-013",
    "A pack with one bit of its last byte changed",
    "integrity",
    lambda b: b.change(_first(b), flipped(-1)),
)
_bad(
    "pack-header-altered",
    "TD-MAN-013",
    "A pack with another number in its chunk table",
    "integrity",
    lambda b: b.change(_first(b), replaced(b'changed\\":5', b'changed\\":6')),
)
_bad("pack-empty", "TD-MAN-013", "A pack of no bytes", "integrity", lambda b: b.put(_first(b), b""))
_bad(
    "pack-of-another-version",
    "TD-MAN-013",
    "A pack's object holds the pack of version 0",
    "integrity",
    lambda b: b.put(_first(b), b.get(b.pack_names(0)[0])),
)
_bad(
    "pack-size-wrong",
    "TD-MAN-013",
    "A pack entry whose size is one more than the pack's",
    "integrity",
    how={"entry": lambda e: e.update(size=e["size"] + 1)},
)
_bad(
    "pack-size-one-less",
    "TD-MAN-013",
    "A pack entry whose size is one less than the pack's",
    "integrity",
    how={"entry": lambda e: e.update(size=e["size"] - 1)},
)
_bad(
    "pack-digest-wrong",
    "TD-MAN-013",
    "A pack entry whose digest is not the pack's, with the path where the pack lies",
    "integrity",
    how={"entry": lambda e: e.update(sha256="0" * 64)},
)
_bad("pack-missing", "TD-MAN-014", "A pack that does not exist", "missing", lambda b: b.remove(_first(b)))
_bad(
    "pack-of-a-full-version-missing",
    "TD-MAN-014",
    "A full version whose only pack does not exist",
    "missing",
    lambda b: b.remove(b.pack_names(0)[0]),
    to=0,
    held=None,
    twin="standard-from-nothing",
)
_bad(
    "pack-of-the-base-missing",
    "TD-MAN-014",
    "A reader that holds nothing needs the base's pack, which does not exist",
    "missing",
    lambda b: b.remove(b.pack_names(0)[0]),
    to=1,
    held=None,
    twin="standard-from-nothing-over-two-edges",
)
read(
    "standard-from-nothing",
    area=AREA,
    title="A full version read from nothing",
    requirements=["TD-FIT-003", "TD-RDR-001"],
    chain=lambda: standard(last=False),
    to=0,
    held=None,
)
read(
    "standard-from-nothing-over-two-edges",
    area=AREA,
    title="A delta read from nothing, over the full version before it",
    requirements=["TD-TRM-001", "TD-RTE-001"],
    chain=lambda: standard(last=False),
    held=None,
)
read(
    "pack-under-any-path",
    area=AREA,
    title="Packs and files whose paths have nothing to do with their digests, one of 200 characters",
    requirements=["TD-PTH-005", "TD-LIM-005"],
    chain=lambda: _paths(),
)


def _paths() -> Builder:
    long = "packs/" + "-" * 97 + "/" + "_." * 48
    assert len(long) == 200

    def after(builder: Builder) -> None:
        for name, path in ((_first(builder), "packs/x/y.z"), (builder.pack_names(0)[0], long)):
            builder.put(path, builder.get(name))
            builder.remove(name)
            for version in (0, 1):
                builder.change(manifest_name(version), replaced(name.encode(), path.encode(), required=False))
        config = builder.manifests[1]["files"][0]["path"]
        builder.put("files/any/path-at.all", builder.get(config))
        builder.remove(config)
        builder.change(manifest_name(1), replaced(config.encode(), b"files/any/path-at.all"))

    return standard(last=False, after=after)


read(
    "pack-named-by-two-manifests",
    area=AREA,
    title="Two deltas, from one state to another and again after going back, share one pack",
    requirements=["TD-TRM-001"],
    chain=shared_objects,
    to=3,
    held=2,
)

# -- which versions there are ------------------------------------------------------------------------------------------

read(
    "newest-version",
    area=AREA,
    title="The newest version is the highest whose manifest exists",
    requirements=["TD-OBJ-006", "TD-OBJ-007"],
    chain=standard,
    to=None,
)
_bad(
    "newest-manifest-unreadable",
    "TD-JSN-003",
    "The newest manifest is no JSON, and no older version stands in for it",
    "malformed",
    lambda b: b.put(manifest_name(3), b"{"),
    how={"last": True},
    to=None,
    twin="newest-version",
)
_bad(
    "version-that-never-was",
    "TD-OBJ-008",
    "A version beyond the newest is asked for",
    "missing",
    to=2,
    verify=None,
)
_bad(
    "version-10-12",
    "TD-OBJ-008",
    "10^12 is asked for, which is no version number",
    "missing",
    to=10**12,
    verify=None,
)
_bad(
    "version-minus-one",
    "TD-OBJ-008",
    "-1 is asked for, which is no version number",
    "missing",
    to=-1,
    verify=None,
)
_bad(
    "manifest-missing",
    "TD-OBJ-006",
    "All that a version needs is there but its manifest",
    "missing",
    lambda b: b.remove(manifest_name(1)),
    verify=[],
)
_bad(
    "no-versions",
    "TD-OBJ-008",
    "The newest version of a chain without versions is asked for",
    "missing",
    lambda b: [b.objects.pop(manifest_name(version)) for version in (0, 1)],
    to=None,
    verify=[],
)
for _slug, _rule, _to, _held, _title in (
    ("gap-before-a-version", "TD-OBJ-013", 1000, 4, "Version 1000 is a delta from version 4, with nothing between"),
    ("greatest-version", "TD-OBJ-013", 999_999_999_999, 1001, "Version 10^12 - 1, which goes back to an older state"),
    ("empty-delta", "TD-MAN-007", 4, 3, "A delta without packs, the base fitted and nothing else"),
):
    read(
        _slug,
        area=AREA,
        title=_title,
        requirements=[_rule],
        chain=empty_deltas_and_gaps,
        to=_to,
        held=_held,
    )
reject(
    "version-in-a-gap",
    area=AREA,
    title="A version between two that exist is asked for",
    requirements=["TD-OBJ-008"],
    chain=empty_deltas_and_gaps,
    error="missing",
    twin="gap-before-a-version",
    to=500,
    held=4,
    verify=None,
)
_bad(
    "chain-missing",
    "TD-OBJ-009",
    "A root without `chain.json`",
    "missing",
    lambda b: b.remove("chain.json"),
)
_bad(
    "chain-id-replaced",
    "TD-OBJ-011",
    "Manifests of another chain than that of `chain.json`",
    "conflict",
    lambda b: b.change("chain.json", replaced(CHAIN.encode(), FOREIGN.encode())),
    held=None,
    twin="standard-from-nothing-over-two-edges",
    verify=[
        {"error": ["conflict"], "object": [manifest_name(0)]},
        {"error": ["conflict"], "object": [manifest_name(1)]},
    ],
)
_bad(
    "manifest-of-a-foreign-chain",
    "TD-OBJ-011",
    "A manifest that names another chain than `chain.json`",
    "conflict",
    how={"manifest": setting(chain=FOREIGN)},
)
_bad(
    "manifest-under-another-number",
    "TD-OBJ-004",
    "A copy of version 1's manifest under the name of version 7",
    "malformed",
    lambda b: b.put(manifest_name(7), b.get(manifest_name(1))),
    to=7,
)

# -- names in a listing ------------------------------------------------------------------------------------------------


def _strange_manifests(builder: Builder) -> None:
    for name in (
        "1.json",
        "2.json",
        "000000000002.json.sig",
        "000000000002.json.tmp",
        "0000000000002.json",
        ".000000000002.json",
        "00000000000A.json",
        "000000000002.JSON",
        "000000000002.json~",
        "x/000000000002.json",
        "000000000002",
        "latest",
    ):
        builder.put(f"manifests/{name}", b"not JSON")
    builder.put("000000000002.json", b"not JSON")


_good(
    "listing-with-names-like-manifests",
    ["TD-OBJ-001"],
    "Names under manifests/ that do not match the pattern are no versions",
    _strange_manifests,
    to=None,
)


def _strange_shortcuts(builder: Builder) -> None:
    edge = "000000000001-000000000000"
    for name in (
        f"{edge}.TAG.json",
        f"{edge}..json",
        f"{edge}.0123456789abcdefg.json",
        f"{edge}.a.b.json",
        f"{edge}.a-b.json",
        "000000000001-.json",
        "000000000001-0.json",
        "000000000001-FULL.json",
        "000000000001.json",
        f"x/{edge}.json",
        f"{edge}.json.sig",
    ):
        builder.put(f"shortcuts/{name}", b"not JSON")
    builder.put("layouts/readme", b"")
    builder.put("packs/.tmp-1", b"")
    builder.put("README.md", b"")


_good(
    "listing-with-names-like-shortcuts",
    ["TD-OBJ-001"],
    "Names under shortcuts/ that do not match the pattern are no shortcuts, and other names are nothing at all",
    _strange_shortcuts,
)

# -- the chain object --------------------------------------------------------------------------------------------------


def _bad_chain(slug: str, title: str, how: Callable[[dict[str, Any]], Any], error: str = "malformed") -> None:
    _bad(slug, "TD-OBJ-015", title, error, how={"chain": how})


for _member in ("tensordelta", "chain", "created"):
    _bad_chain(f"chain-without-{_member}", f"`chain.json` without `{_member}`", without(_member))
_bad_chain("chain-upper-case", "A chain id in upper case", setting(chain=CHAIN.upper()))
_bad_chain("chain-id-without-hyphens", "A chain id without hyphens", setting(chain=CHAIN.replace("-", "")))
_bad_chain("chain-id-null", "A chain id that is null", setting(chain=None))
_bad_chain("chain-id-with-a-newline", "A chain id followed by a line feed", setting(chain=CHAIN + "\n"))
_bad_chain("chain-created-a-number", "A time that is a number", setting(created=1795176000))
_bad_chain("chain-annotation-a-number", "An annotation that is a number", setting(annotations={"step": 1}))
_bad_chain("chain-annotations-null", "Annotations that are null", setting(annotations=None))
_bad_chain(
    "chain-annotations-65",
    "65 annotations of `chain.json`",
    setting(annotations={f"{i:02d}": "" for i in range(65)}),
    "limit",
)
_bad(
    "chain-format-2",
    "TD-VER-002",
    "`chain.json` of format 2.0",
    "unsupported",
    how={"chain": setting(tensordelta="2.0")},
)
_bad(
    "chain-not-json",
    "TD-JSN-003",
    "`chain.json` is no JSON",
    "malformed",
    lambda b: b.put("chain.json", b"tensordelta"),
)
_bad("chain-empty", "TD-JSN-003", "`chain.json` of no bytes", "malformed", lambda b: b.put("chain.json", b""))


def _padded(size: int) -> Callable[[Builder], Any]:
    return lambda builder: builder.change("chain.json", lambda data: data + b" " * (size - len(data)))


_bad(
    "chain-65537-bytes", "TD-LIM-004", "`chain.json` of 65,537 bytes", "limit", _padded(65537), twin="chain-65536-bytes"
)
_good("chain-65536-bytes", ["TD-LIM-005"], "`chain.json` of 65,536 bytes", _padded(65536))
