"""Manifests: their fields, their base and their pack entries (SPEC.md sections 4.3, 4.7 and 4.8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, nothing
from generate.chains.contents import at_the_limits, unknown_fields
from generate.edits import Area, members_of
from generate.model import CHAIN, CREATED
from generate.standard import setting, standard_models

case = Area("manifest")
fields = Area("manifest", members_of("manifest"))
base = Area("manifest", members_of("manifest", lambda document: document["base"]))

# -- fields ------------------------------------------------------------------------------------------------------------

for field in ("tensordelta", "chain", "version", "layout", "fingerprint", "packs", "features", "created"):
    fields(f"manifest-without-{field}", "JSN-011", f"A manifest without `{field}`").bad(drop=field)
fields("manifest-without-base", "MAN-002", "A manifest without `base`").bad(drop="base")

TYPES: tuple[tuple[str, Any, str], ...] = (
    ("version", "1", "a string"),
    ("chain", None, "null"),
    ("layout", None, "null"),
    ("fingerprint", 7, "a number"),
    ("base", [], "an array"),
    ("packs", {}, "an object"),
    ("features", "exponent-order", "a string"),
    ("created", None, "null"),
    ("annotations", None, "null"),
    ("files", None, "null"),
    ("tensor_fingerprints", None, "null"),
)
for field, value, what in TYPES:
    slug = f"manifest-{field.replace('_', '-')}-of-another-type"
    fields(slug, "JSN-012", f"A manifest whose `{field}` is {what}").bad(members={field: value})
fields("manifest-features-of-numbers", "JSN-012", "A manifest whose features are numbers").bad(features=[1])
fields("manifest-annotation-null", "JSN-012", "An annotation that is null").bad(annotations={"x": None})

for slug, title, field, text in (
    ("format-major-only", "The format 1, without a second number", "tensordelta", "1"),
    ("format-leading-zero", "The format 1.00, with a leading zero", "tensordelta", "1.00"),
    ("format-patch", "The format 1.0.0, with a third number", "tensordelta", "1.0.0"),
    ("format-newline", "The format 1.0, followed by a line feed", "tensordelta", "1.0\n"),
    ("format-with-an-empty-tag", "The format 1.0-, with an empty tag", "tensordelta", "1.0-"),
    ("format-with-a-tag-in-capitals", "The format 1.0-RC1", "tensordelta", "1.0-RC1"),
    ("format-with-a-tag-of-17", "The format 1.0 with a tag of 17 characters", "tensordelta", "1.0-" + "a" * 17),
    ("format-digits", "The format with an Arabic-Indic digit one", "tensordelta", "\u0661.0"),
    ("chain-upper-case", "A chain id in upper case", "chain", CHAIN.upper()),
    (
        "chain-with-a-hyphen-elsewhere",
        "A chain id whose first hyphen stands a place later",
        "chain",
        CHAIN[:8] + CHAIN[9] + "-" + CHAIN[10:],
    ),
    ("chain-in-braces", "A chain id in braces", "chain", "{" + CHAIN + "}"),
    ("layout-of-63-digits", "A layout digest of 63 digits", "layout", "0" * 63),
    ("fingerprint-of-15-digits", "A fingerprint of 15 digits", "fingerprint", "0" * 15),
    ("fingerprint-with-a-prefix", "A fingerprint that begins with 0x", "fingerprint", "0x" + "0" * 14),
    ("tensor-fingerprints-of-65-digits", "A digest of 65 digits", "tensor_fingerprints", "0" * 65),
    ("created-with-an-offset", "A time with an offset instead of Z", "created", "2026-11-20T12:00:00+00:00"),
    ("created-in-lower-case", "A time with t and z in lower case", "created", "2026-11-20t12:00:00z"),
    ("created-with-a-space", "A time with a space for T", "created", "2026-11-20 12:00:00Z"),
    ("created-with-an-arabic-digit", "A time with an Arabic-Indic digit two", "created", "\u0662" + CREATED[1:]),
    ("created-in-month-13", "A time in month 13", "created", "2026-13-20T12:00:00Z"),
    ("created-on-day-0", "A time on day 0", "created", "2026-11-00T12:00:00Z"),
    ("created-at-hour-24", "A time at hour 24", "created", "2026-11-20T24:00:00Z"),
    ("created-at-second-61", "A time at second 61", "created", "2026-11-20T12:00:61Z"),
    ("created-with-10-digits", "A time with ten digits after the point", "created", "2026-11-20T12:00:00.1234567890Z"),
    ("created-with-a-bare-point", "A time with no digit after the point", "created", "2026-11-20T12:00:00.Z"),
    ("created-newline", "A time followed by a line feed", "created", CREATED + "\n"),
):
    fields(f"pattern-{slug}", "JSN-015", title).bad(members={field: text})
for slug, title, feature in (
    ("feature-upper-case", "A feature in upper case", "Exponent-Order"),
    ("feature-empty", "A feature that is an empty string", ""),
    ("feature-with-a-hyphen-first", "A feature that begins with a hyphen", "-x"),
    ("feature-of-65-characters", "A feature of 65 characters", "f" * 65),
    ("feature-without-a-dot", "A third party's feature without a dot in its owner", "example/x"),
    ("feature-with-two-slashes", "A feature with two slashes", "example.com/x/y"),
    ("feature-without-a-name", "A third party's feature without a name", "example.com/"),
    ("feature-without-an-owner", "A feature that begins with a slash", "/x"),
    ("feature-with-a-dot", "A feature with a dot and no slash", "example.com"),
    ("feature-of-129-characters", "A third party's feature of 129 characters", "a" * 62 + ".b/" + "c" * 64),
    ("feature-owner-in-capitals", "A third party's feature with capitals in its owner", "Example.com/x"),
    ("feature-with-a-name-of-65", "A third party's feature with a name of 65 characters", "a.b/" + "c" * 65),
):
    fields(f"pattern-{slug}", "JSN-015", title).bad(features=[feature])
case("pattern-layout-upper-case", "JSN-015", "A layout digest in upper case").bad(
    manifest=lambda document: document.update(layout=document["layout"].upper())
)

fields("time-that-names-no-day", "JSN-016", "30 February, in a leap second, with nine digits").good(
    created="2024-02-30T23:59:60.123456789Z"
)
fields("time-in-the-year-0", "JSN-016", "A time in the year 0000").good(created="0000-12-31T00:00:00.0Z")

# -- versions and features ---------------------------------------------------------------------------------------------

for number, what in (("2.0", "a later"), ("0.9", "an earlier"), ("11.0", "a much later"), ("4294967297.0", "an odd")):
    fields(f"format-{number.replace('.', '-')}", "VER-002", f"A manifest of format {number}, {what} major number").bad(
        "unsupported", tensordelta=number
    )
for slug, number in (
    ("1-0-without-a-tag", "1.0"),
    ("1-7", "1.7"),
    ("with-a-tag", "1.0-x"),
    ("with-a-tag-of-16", "1.0-" + "0." * 8),
    ("with-a-tag-of-a-later-version", "1.1-beta.2"),
    ("with-the-tag-of-a-later-candidate", "1.0-rc.2"),
    ("with-a-tag-that-begins-alike", "1.0-rc.1.1"),
    ("with-a-tag-that-ends-early", "1.0-rc"),
    ("1-1-with-this-tag", "1.1-rc.1"),
):
    fields(f"format-{slug}", "VER-002", f"A manifest of format {number}, which is not this document's").bad(
        "unsupported", tensordelta=number
    )
case(
    "format-2-and-all-else-different", "VER-001", "A manifest of format 2.0 in which all else is different as well"
).bad("unsupported", text=lambda _: b'{"tensordelta":"2.0","chain":7,"what":"ever"}')
case("format-2-at-the-end", "VER-001", "A manifest whose format 2.0 stands after a field of another type").bad(
    "unsupported", text=lambda _: b'{"version":"one","packs":null,"tensordelta":"2.0"}'
)
unknown = Area("manifest", unknown_fields, common={"needs": ["reader-exponent"]})
unknown(
    "unknown-fields",
    "JSN-013 JSN-014",
    "Objects with fields that this version does not know",
).good()
unknown(
    "unknown-fields-from-nothing",
    "JSN-013 JSN-006",
    "A full version with unknown fields, its members in another order, with white space and escapes everywhere",
).good(to=0, held=None)
fields("format-1-far-later", "VER-002", "A manifest whose second number is 10^20").bad(
    "unsupported", tensordelta="1." + "1" + "0" * 20
)
case("feature-unknown", "MAN-004", "A feature that no version knows").bad("unsupported", features=["strided-slices"])
case("feature-unknown-beside-a-known-one", "MAN-004", "An unknown feature after one that is known").bad(
    "unsupported", features=["exponent-order", "x"]
)
for slug, name in (
    ("of-a-third-party", "example.com/quad-words_2.1"),
    ("of-128-characters", "a" * 60 + ".bc/" + "c" * 64),
):
    case(f"feature-{slug}", "MAN-004", f"A feature that the reader does not know, {name[:16]}").bad(
        "unsupported", features=[name]
    )
case("feature-not-used", "MAN-005", "A feature that no chunk uses, listed twice").good(
    needs=["reader-exponent"], features=["exponent-order", "exponent-order"], last=True
)
case("feature-used-and-not-listed", "MAN-006", "A chunk of order exponent without `exponent-order` in `features`").bad(
    twin="standard-exponent", needs=["reader-exponent"], plan=lambda plan: plan[0].update(order="exponent"), last=True
)

# -- annotations -------------------------------------------------------------------------------------------------------

for slug, rule, title, noted in (
    ("annotations-65", "LIM-004", "65 annotations", {f"{i:02d}": "" for i in range(65)}),
    ("annotation-4097-bytes", "LIM-001", "An annotation of 4097 bytes in 2049 characters", {"k": "é" * 2048}),
    ("annotation-4097-bytes-in-the-key", "LIM-001", "An annotation whose key alone has 4097 bytes", {"k" * 4097: ""}),
):
    fields(slug, rule, title).bad("limit", annotations=noted)
fields(
    "annotations-of-4096-bytes",
    "LIM-005 LIM-001",
    "An annotation of 4096 bytes in 2049 characters, and one with a key of 4096 bytes",
).good(annotations={"kk": "é" * 2047, "k" * 4096: "", "": ""})
fields("annotations-64", "LIM-005", "64 annotations").good(annotations={f"{i:02d}": "x" for i in range(64)})

# -- the base ----------------------------------------------------------------------------------------------------------

base("base-is-the-version", "MAN-003", "A manifest whose base is its own version").bad(version=1)
base("base-is-newer", "MAN-003", "A manifest whose base is a newer version").bad(version=2)
for member in ("version", "layout", "fingerprint"):
    base(f"base-without-{member}", "JSN-011", f"A base without `{member}`").bad(drop=member)
base("base-layout-null", "JSN-012", "A base whose layout is null").bad(layout=None)
base("base-fingerprint-upper-case", "JSN-015", "A base whose fingerprint is in upper case").bad(fingerprint="F" * 16)
fields("version-of-10-12", "MAN-001", "A manifest whose version is 10^12").bad(version=10**12)
fields("base-a-number", "JSN-012", "A base that is a number").bad(base=0)

# -- the fingerprint ---------------------------------------------------------------------------------------------------

OTHER_STATE = setting(fingerprint="0123456789abcdef")
case("fingerprint-wrong", "RDR-007", "A delta whose manifest has the fingerprint of another state").bad(
    "integrity", twin="delta-without-fingerprints", manifest=OTHER_STATE, fingerprints=False
)
case("delta-without-fingerprints", "MAN-001", "A delta whose manifest names no fingerprints object").good(
    fingerprints=False
)


def two_full(manifest: Callable[[dict[str, Any]], Any] = nothing) -> Builder:
    """Two full versions; `manifest` changes the manifest of the second."""
    states = standard_models()
    builder = Builder()
    builder.full(0, states[0])
    builder.full(1, states[1], hook=manifest, fingerprints=False)
    return builder


full = Area("manifest", two_full, "full-version-again")
full(
    "fingerprint-of-a-full-version-wrong",
    "RDR-007",
    "A full version whose manifest has the fingerprint of another state",
).bad("integrity", manifest=OTHER_STATE)
full("full-version-again", "FIT-003", "A second full version, for a reader that holds the first").good()
case(
    "manifest-at-the-limits",
    "LIM-005",
    "64 annotations of 4096 bytes each, a path of 200 characters and the widest shapes in one full version",
).good(chain=at_the_limits, to=0, held=None)
