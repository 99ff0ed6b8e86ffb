"""Objects of a chain: names, existence, damage, the chain object, the hint, fingerprints objects
(SPEC.md sections 4.1, 4.2, 4.5, 4.11 and 4.12).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from generate.area import blamed
from generate.builder import Builder, digest, dumps, manifest_name
from generate.chains.contents import empty_deltas_and_gaps, no_tensor_fingerprints, shared_objects
from generate.edits import Area, members_of, two_versions
from generate.model import CHAIN, FOREIGN, FORMAT
from generate.standard import flipped, replaced, setting

case = Area("objects")


def put(name: str, data: bytes) -> Callable[[Builder], None]:
    return lambda builder: builder.put(name, data)


# -- packs that are not what was published -----------------------------------------------------------------------------


def pack(builder: Builder, version: int = 1) -> str:
    return builder.pack_names(version)[0]


def altered(how: Callable[[bytes], bytes]) -> Callable[[Builder], None]:
    return lambda builder: builder.change(pack(builder), how)


for slug, title, after in (
    ("pack-truncated", "A pack without its last byte", altered(lambda data: data[:-1])),
    ("pack-longer", "A pack with a byte more", altered(lambda data: data + b"\0")),
    ("pack-altered", "A pack with one bit of its last byte changed", altered(flipped(-1))),
    ("pack-empty", "A pack of no bytes", altered(lambda data: b"")),
):
    case(slug, "MAN-013", title).bad("integrity", after=after)
case("pack-header-altered", "MAN-013", "A pack with another number in its chunk table").bad(
    "integrity", after=altered(replaced(b'changed\\":5', b'changed\\":6'))
)
case("pack-of-another-version", "MAN-013", "A pack's object holds the pack of version 0").bad(
    "integrity", after=lambda builder: builder.put(pack(builder), builder.get(pack(builder, 0)))
)
case("pack-size-wrong", "MAN-013", "A pack entry whose size is one more than the pack's").bad(
    "integrity", entry=lambda entry: entry.update(size=entry["size"] + 1)
)
case("pack-size-one-less", "MAN-013", "A pack entry whose size is one less than the pack's").bad(
    "integrity", entry=lambda entry: entry.update(size=entry["size"] - 1)
)
case(
    "pack-digest-wrong", "MAN-013", "A pack entry whose digest is not the pack's, with the path where the pack lies"
).bad("integrity", entry=setting(sha256="0" * 64))
case("pack-missing", "MAN-014", "A pack that does not exist").bad("missing", after=lambda b: b.remove(pack(b)))
case("pack-of-a-full-version-missing", "MAN-014", "A full version whose only pack does not exist").bad(
    "missing", twin="standard-from-nothing", after=lambda b: b.remove(pack(b, 0)), to=0, held=None
)
case(
    "pack-of-the-base-missing", "MAN-014", "A reader that holds nothing needs the base's pack, which does not exist"
).bad("missing", twin="standard-from-nothing-over-two-edges", after=lambda b: b.remove(pack(b, 0)), held=None)
case("standard-from-nothing", "FIT-003 RDR-001", "A full version read from nothing").good(to=0, held=None)
case(
    "standard-from-nothing-over-two-edges",
    "TRM-001 RTE-001",
    "A delta read from nothing, over the full version before it",
).good(held=None)


def other_paths(builder: Builder) -> None:
    long = "packs/" + "_" * 97 + "/" + "_." * 47 + "_-"
    assert len(long) == 200
    config = builder.manifests[1]["files"][0]["path"]
    for name, path in ((pack(builder), "packs/x/y.z"), (pack(builder, 0), long), (config, "files/any/path-at.all")):
        builder.put(path, builder.get(name))
        builder.remove(name)
        for version in (0, 1):
            builder.change(manifest_name(version), replaced(name.encode(), path.encode(), required=False))


case(
    "pack-under-any-path",
    "PTH-005 LIM-005",
    "Packs and files whose paths have nothing to do with their digests, one of 200 characters",
).good(after=other_paths)
case("pack-under-any-path-from-nothing", "PTH-005 LIM-005", "The same chain, read from its first version on").good(
    after=other_paths, held=None
)
case(
    "pack-named-by-two-manifests",
    "TRM-001",
    "Two deltas, from one state to another and again after going back, share one pack",
).good(chain=shared_objects, to=3, held=2)

# -- which versions there are ------------------------------------------------------------------------------------------

case("newest-version", "OBJ-006 OBJ-007", "The newest version is the highest whose manifest exists").good(
    last=True, to=None
)
case(
    "newest-manifest-unreadable", "JSN-003", "The newest manifest is no JSON, and no older version stands in for it"
).bad(twin="newest-version", last=True, after=put(manifest_name(3), b"{"), to=None)
for slug, title, version in (
    ("version-that-never-was", "A version beyond the newest is asked for", 2),
    ("version-10-12", "10^12 is asked for, which is no version number", 10**12),
    ("version-minus-one", "-1 is asked for, which is no version number", -1),
):
    case(slug, "OBJ-008", title).bad("missing", to=version, verify=None)
case("manifest-missing", "OBJ-006", "All that a version needs is there but its manifest").bad(
    "missing", after=lambda builder: builder.remove(manifest_name(1)), verify=[]
)
case("no-versions", "OBJ-008", "The newest version of a chain without versions is asked for").bad(
    "missing", after=lambda b: [b.remove(manifest_name(version)) for version in (0, 1)], to=None, verify=[]
)
gaps = Area("objects", empty_deltas_and_gaps, "gap-before-a-version", {"held": 4})
gaps("gap-before-a-version", "OBJ-013", "Version 1000 is a delta from version 4, with nothing between").good(to=1000)
gaps("greatest-version", "OBJ-013", "Version 10^12 - 1, which goes back to an older state").good(
    to=999_999_999_999, held=1001
)
gaps("empty-delta", "MAN-007", "A delta without packs, the base fitted and nothing else").good(to=4, held=3)
gaps("version-in-a-gap", "OBJ-008", "A version between two that exist is asked for").bad("missing", to=500, verify=None)
case("chain-missing", "OBJ-009", "A root without `chain.json`").bad("missing", after=lambda b: b.remove("chain.json"))
case("chain-id-replaced", "OBJ-011", "Manifests of another chain than that of `chain.json`").bad(
    "conflict",
    twin="standard-from-nothing-over-two-edges",
    after=lambda builder: builder.change("chain.json", replaced(CHAIN.encode(), FOREIGN.encode())),
    held=None,
    verify=[{"error": ["conflict"], "object": [manifest_name(version)]} for version in (0, 1)],
)
case("manifest-of-a-foreign-chain", "OBJ-011", "A manifest that names another chain than `chain.json`").bad(
    "conflict", manifest=setting(chain=FOREIGN)
)
case("manifest-under-another-number", "OBJ-004", "A copy of version 1's manifest under the name of version 7").bad(
    after=lambda builder: builder.put(manifest_name(7), builder.get(manifest_name(1))), to=7
)

# -- names in a listing ------------------------------------------------------------------------------------------------

EDGE = "shortcuts/000000000001-000000000000"


def strange_manifests(builder: Builder) -> None:
    strange = "1.json 2.json 000000000002.json.sig 000000000002.json.tmp 0000000000002.json .000000000002.json"
    strange += " 00000000000A.json 000000000002.JSON 000000000002.json~ x/000000000002.json 000000000002 latest"
    strange += " 000000000002xjson 00000000000\u0662.json"
    for name in strange.split():
        builder.put(f"manifests/{name}", b"not JSON")
    builder.put("000000000002.json", b"not JSON")


def strange_shortcuts(builder: Builder) -> None:
    for end in (".TAG.json", "..json", ".0123456789abcdefg.json", ".a.b.json", ".a-b.json", ".json.sig"):
        builder.put(f"shortcuts/000000000001-000000000000{end}", b"not JSON")
    for name in "1-.json 1-0.json 1-FULL.json 1.json".split():
        builder.put(f"shortcuts/00000000000{name}", b"not JSON")
    builder.put("shortcuts/x/000000000001-000000000000.json", b"not JSON")
    for name in ("layouts/readme", "packs/.tmp-1", "README.md"):
        builder.put(name, b"")


case(
    "listing-with-names-like-manifests",
    "OBJ-001",
    "Names under manifests/ that do not match the pattern are no versions",
).good(after=strange_manifests, to=None)
case(
    "listing-with-names-like-shortcuts",
    "OBJ-001",
    "Names under shortcuts/ that do not match the pattern are no shortcuts, and other names are nothing at all",
).good(after=strange_shortcuts)

# -- the chain object --------------------------------------------------------------------------------------------------

root = Area("objects", members_of("chain"))
for member in ("tensordelta", "chain", "created"):
    root(f"chain-without-{member}", "OBJ-015", f"`chain.json` without `{member}`").bad(drop=member)
ROOTS: tuple[tuple[str, str, str, Any], ...] = (
    ("chain-upper-case", "A chain id in upper case", "chain", CHAIN.upper()),
    ("chain-id-without-hyphens", "A chain id without hyphens", "chain", CHAIN.replace("-", "")),
    ("chain-id-null", "A chain id that is null", "chain", None),
    ("chain-id-with-a-newline", "A chain id followed by a line feed", "chain", CHAIN + "\n"),
    ("chain-created-a-number", "A time that is a number", "created", 1795176000),
    ("chain-annotation-a-number", "An annotation that is a number", "annotations", {"step": 1}),
    ("chain-grace-of-59-seconds", "A grace period of 59 seconds", "grace", 59),
    ("chain-grace-beyond-2-32", "A grace period of 2^32 + 1 seconds", "grace", 2**32 + 1),
    ("chain-grace-null", "A grace period that is null", "grace", None),
    ("chain-grace-a-string", "A grace period that is a string", "grace", "86400"),
    ("chain-annotations-null", "Annotations that are null", "annotations", None),
)
for slug, title, member, value in ROOTS:
    root(slug, "OBJ-015", title).bad(members={member: value})
root("chain-grace-of-a-minute", "OBJ-015", "A grace period of 60 seconds").good(grace=60)
root("chain-grace-of-2-32", "OBJ-015", "A grace period of 2^32 seconds").good(grace=2**32)
root("chain-annotations-65", "OBJ-015", "65 annotations of `chain.json`").bad(
    "limit", annotations={f"{i:02d}": "" for i in range(65)}
)
root("chain-format-2", "VER-002", "`chain.json` of format 2.0").bad("unsupported", tensordelta="2.0")
case("chain-not-json", "JSN-003", "`chain.json` is no JSON").bad(after=put("chain.json", b"tensordelta"))
case("chain-empty", "JSN-003", "`chain.json` of no bytes").bad(after=put("chain.json", b""))


def padded(builder: Builder, size: int) -> None:
    builder.change("chain.json", lambda data: data.ljust(size))


case("chain-65537-bytes", "LIM-004", "`chain.json` of 65,537 bytes").bad(
    "limit", twin="chain-65536-bytes", after=partial(padded, size=65537)
)
case("chain-65536-bytes", "LIM-005", "`chain.json` of 65,536 bytes").good(after=partial(padded, size=65536))

# -- the hint ----------------------------------------------------------------------------------------------------------


def hint(**members: Any) -> bytes:
    return dumps({"tensordelta": FORMAT, "chain": CHAIN, "version": 1} | members)


def with_hint(data: bytes) -> Builder:
    return two_versions(after=put("latest.json", data))


hinted = Area("objects", with_hint, common={"to": None})
hinted("hint-that-is-right", "OBJ-007", "`latest.json` names the newest version").good(data=hint())
for slug, rule, title, data in (
    ("hint-too-low", "OBJ-007", "`latest.json` names version 0, where version 1 exists", hint(version=0)),
    ("hint-too-high", "OBJ-019", "`latest.json` names version 7, which has no manifest", hint(version=7)),
    ("hint-of-another-chain", "OBJ-018", "`latest.json` names another chain", hint(chain=FOREIGN, version=0)),
    ("hint-of-format-2", "OBJ-018", "`latest.json` has format 2.0", hint(tensordelta="2.0", version=0)),
    ("hint-with-a-string", "OBJ-018", "`latest.json` has its version as a string", hint(version="0")),
    ("hint-that-is-garbage", "OBJ-018", "`latest.json` is no JSON, and no UTF-8 either", b"\xff\xfe not JSON"),
    ("hint-of-65537-bytes", "OBJ-018", "`latest.json` is too long", hint(version=0) + b" " * 65500),
):
    hinted(slug, rule, title).good(data=data)

# -- fingerprints objects: only a verifier has to read them ------------------------------------------------------------


def fingerprints(builder: Builder) -> str:
    return f"fingerprints/{builder.manifests[1]['tensor_fingerprints']}.bin"


def renamed(how: Callable[[bytes], bytes]) -> Callable[[Builder], None]:
    """Changes version 1's fingerprints object and gives it the name of its new digest."""

    def change(builder: Builder) -> None:
        old = builder.manifests[1]["tensor_fingerprints"]
        data = how(builder.get(fingerprints(builder)))
        builder.remove(fingerprints(builder))
        builder.put(f"fingerprints/{digest(data)}.bin", data)
        builder.change(manifest_name(1), replaced(old.encode(), digest(data).encode()))

    return change


def folded(data: bytes) -> bytes:
    """Puts the sum of the last two numbers in their place, and keeps the salt after them."""
    last = sum(int.from_bytes(data[at : at + 8], "little") for at in (len(data) - 24, len(data) - 16))
    return data[:-24] + (last % 2**64).to_bytes(8, "little") + data[-8:]


def balanced(data: bytes) -> bytes:
    """Takes the salt from the last number."""
    last, salt = (int.from_bytes(data[at : at + 8], "little") for at in (len(data) - 16, len(data) - 8))
    return data[:-16] + ((last - salt) % 2**64).to_bytes(8, "little") + data[-8:]


unseen = Area("objects", common={"role": "verifier"})
unseen("fingerprints-altered", "FPR-001", "A fingerprints object whose digest is not the one that names it").bad(
    "integrity", after=lambda builder: builder.change(fingerprints(builder), flipped(0))
)
unseen(
    "fingerprints-of-too-few",
    "FPR-002",
    "A fingerprints object with a number less than the layout has tensors, the sum made right",
).bad(after=renamed(folded))
unseen("fingerprints-of-too-many", "FPR-002", "A fingerprints object with a zero more than the layout has tensors").bad(
    after=renamed(lambda data: data + bytes(8))
)
unseen("fingerprints-without-a-salt", "FPR-002", "A fingerprints object that ends with the last number").bad(
    after=renamed(lambda data: data[:-8])
)
unseen(
    "fingerprints-salt-in-the-sum",
    "FPR-005 FPR-003",
    "The last number of a fingerprints object is wrong by what its salt is, so that the sum of all is right",
).bad("integrity", after=renamed(balanced))
unseen(
    "fingerprints-sum-wrong", "FPR-005 FPR-003", "A fingerprints object whose sum is not the manifest's fingerprint"
).bad("integrity", after=renamed(flipped(9)))
unseen(
    "pack-altered-above-a-broken-manifest",
    "ERR-002 ERR-003",
    "A pack that was altered belongs to an edge from a version whose manifest is no JSON",
).bad(
    "integrity",
    twin="newest-version",
    last=True,
    after=lambda builder: (builder.change(pack(builder, 2), flipped(-1)), builder.put(manifest_name(1), b"{")),
    verify=blamed("malformed", manifest_name(1)) + blamed("integrity", pack(two_versions(last=True), 2)),
)
unseen("fingerprints-missing", "ERR-002", "A fingerprints object that a manifest names and that does not exist").bad(
    "missing", after=lambda builder: builder.remove(fingerprints(builder))
)
case("fingerprints-absent", "MAN-001", "Manifests without `tensor_fingerprints`").good(
    chain=no_tensor_fingerprints, to=2, held=1
)
