"""Manifests: their fields, their base and their pack entries (SPEC.md sections 4.3, 4.7 and 4.8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from generate.builder import Builder
from generate.cases import read, reject
from generate.chains.contents import at_the_limits, later_minor
from generate.model import CHAIN, CREATED
from generate.standard import setting, standard, without

AREA = "manifest"


def _bad(
    slug: str,
    rule: str | Sequence[str],
    title: str,
    error: str = "malformed",
    twin: str = "standard-of-two",
    verify: Any = True,
    **how: Any,
) -> None:
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[rule] if isinstance(rule, str) else rule,
        chain=partial(standard, last=False, **how),
        error=error,
        twin=twin,
        verify=verify,
    )


def _good(slug: str, rules: list[str], title: str, **how: Any) -> None:
    read(slug, area=AREA, title=title, requirements=rules, chain=partial(standard, last=False, **how))


# -- fields ------------------------------------------------------------------------------------------------------------

for _member in (
    "tensordelta",
    "chain",
    "version",
    "layout",
    "fingerprint",
    "packs",
    "features",
    "created",
):
    _bad(f"manifest-without-{_member}", "TD-JSN-011", f"A manifest without `{_member}`", manifest=without(_member))
_bad("manifest-without-base", "TD-MAN-002", "A manifest without `base`", manifest=without("base"))

_TYPES: dict[str, tuple[Any, str]] = {
    "version": ("1", "a string"),
    "chain": (None, "null"),
    "layout": (None, "null"),
    "fingerprint": (7, "a number"),
    "base": ([], "an array"),
    "packs": ({}, "an object"),
    "features": ("exponent-order", "a string"),
    "created": (None, "null"),
    "annotations": (None, "null"),
    "files": (None, "null"),
    "tensor-fingerprints": (None, "null"),
}
for _member, (_value, _what) in _TYPES.items():
    _field = _member.replace("-", "_")
    _bad(
        f"manifest-{_member}-of-another-type",
        "TD-JSN-012",
        f"A manifest whose `{_field}` is {_what}",
        manifest=setting(**{_field: _value}),
    )
_bad(
    "manifest-features-of-numbers",
    "TD-JSN-012",
    "A manifest whose features are numbers",
    manifest=setting(features=[1]),
)
_bad("manifest-annotation-null", "TD-JSN-012", "An annotation that is null", manifest=setting(annotations={"x": None}))

_PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "format-major-only": ("The format 1, without a second number", {"tensordelta": "1"}),
    "format-leading-zero": ("The format 1.00, with a leading zero", {"tensordelta": "1.00"}),
    "format-patch": ("The format 1.0.0, with a third number", {"tensordelta": "1.0.0"}),
    "format-newline": ("The format 1.0, followed by a line feed", {"tensordelta": "1.0\n"}),
    "format-digits": ("The format with an Arabic-Indic digit one", {"tensordelta": "\u0661.0"}),
    "chain-upper-case": ("A chain id in upper case", {"chain": CHAIN.upper()}),
    "chain-in-braces": ("A chain id in braces", {"chain": "{" + CHAIN + "}"}),
    "layout-of-63-digits": ("A layout digest of 63 digits", {"layout": "0" * 63}),
    "fingerprint-of-15-digits": ("A fingerprint of 15 digits", {"fingerprint": "0" * 15}),
    "fingerprint-with-a-prefix": ("A fingerprint that begins with 0x", {"fingerprint": "0x" + "0" * 14}),
    "tensor-fingerprints-of-65-digits": ("A digest of 65 digits", {"tensor_fingerprints": "0" * 65}),
    "created-with-an-offset": ("A time with an offset instead of Z", {"created": "2026-11-20T12:00:00+00:00"}),
    "created-in-lower-case": ("A time with t and z in lower case", {"created": "2026-11-20t12:00:00z"}),
    "created-with-a-space": ("A time with a space for T", {"created": "2026-11-20 12:00:00Z"}),
    "created-in-month-13": ("A time in month 13", {"created": "2026-13-20T12:00:00Z"}),
    "created-on-day-0": ("A time on day 0", {"created": "2026-11-00T12:00:00Z"}),
    "created-at-hour-24": ("A time at hour 24", {"created": "2026-11-20T24:00:00Z"}),
    "created-at-second-61": ("A time at second 61", {"created": "2026-11-20T12:00:61Z"}),
    "created-with-10-digits": (
        "A time with ten digits after the point",
        {"created": "2026-11-20T12:00:00.1234567890Z"},
    ),
    "created-with-a-bare-point": ("A time with no digit after the point", {"created": "2026-11-20T12:00:00.Z"}),
    "created-newline": ("A time followed by a line feed", {"created": CREATED + "\n"}),
    "feature-upper-case": ("A feature in upper case", {"features": ["Exponent-Order"]}),
    "feature-empty": ("A feature that is an empty string", {"features": [""]}),
    "feature-with-a-hyphen-first": ("A feature that begins with a hyphen", {"features": ["-x"]}),
    "feature-of-65-characters": ("A feature of 65 characters", {"features": ["f" * 65]}),
}
for _slug, (_title, _members) in _PATTERNS.items():
    _bad(f"pattern-{_slug}", "TD-JSN-015", _title, manifest=setting(**_members))


def _layout_upper_case(document: dict[str, Any]) -> None:
    document["layout"] = document["layout"].upper()


_bad("pattern-layout-upper-case", "TD-JSN-015", "A layout digest in upper case", manifest=_layout_upper_case)

for _slug, _title, _value in (
    ("time-that-names-no-day", "30 February, in a leap second, with nine digits", "2024-02-30T23:59:60.123456789Z"),
    ("time-in-the-year-0", "A time in the year 0000", "0000-12-31T00:00:00.0Z"),
):
    _good(_slug, ["TD-JSN-016"], _title, manifest=setting(created=_value))

# -- versions and features ---------------------------------------------------------------------------------------------

for _format, _what in (("2.0", "a later"), ("0.9", "an earlier"), ("11.0", "a much later"), ("4294967297.0", "an odd")):
    _bad(
        f"format-{_format.replace('.', '-')}",
        "TD-VER-002",
        f"A manifest of format {_format}, {_what} major number",
        "unsupported",
        manifest=setting(tensordelta=_format),
    )
_bad(
    "format-2-and-all-else-different",
    "TD-VER-001",
    "A manifest of format 2.0 in which all else is different as well",
    "unsupported",
    text=lambda _: b'{"tensordelta":"2.0","chain":7,"what":"ever"}',
)
_bad(
    "format-2-at-the-end",
    "TD-VER-001",
    "A manifest whose format 2.0 stands after a field of another type",
    "unsupported",
    text=lambda _: b'{"version":"one","packs":null,"tensordelta":"2.0"}',
)
read(
    "format-1-7",
    area=AREA,
    title="Objects of format 1.7 and 1.99, with fields that this version does not know",
    requirements=["TD-VER-003", "TD-JSN-013", "TD-JSN-014"],
    chain=later_minor,
    needs=["reader-exponent"],
)
read(
    "format-1-7-from-nothing",
    area=AREA,
    title="A full version of format 1.7, its members in another order, with white space and escapes everywhere",
    requirements=["TD-VER-003", "TD-JSN-006"],
    chain=later_minor,
    to=0,
    held=None,
    needs=["reader-exponent"],
)
_good(
    "format-1-far-later",
    ["TD-VER-003"],
    "A manifest whose second number is 10^20",
    manifest=setting(tensordelta="1." + "1" + "0" * 20),
)
_bad("feature-unknown", "TD-MAN-004", "A feature that no version knows", "unsupported", features=["strided-slices"])
_bad(
    "feature-unknown-beside-a-known-one",
    "TD-MAN-004",
    "An unknown feature after one that is known",
    "unsupported",
    features=["exponent-order", "x"],
)
read(
    "feature-not-used",
    area=AREA,
    title="A feature that no chunk uses, listed twice",
    requirements=["TD-MAN-005"],
    chain=lambda: standard(features=["exponent-order", "exponent-order"]),
    needs=["reader-exponent"],
)
reject(
    "feature-used-and-not-listed",
    area=AREA,
    title="A chunk of order exponent without `exponent-order` in `features`",
    requirements=["TD-MAN-006"],
    chain=lambda: standard(plan=lambda plan: plan[0].update(order="exponent")),
    error="malformed",
    twin="standard-exponent",
    needs=["reader-exponent"],
)

# -- annotations -------------------------------------------------------------------------------------------------------

_bad(
    "annotations-65",
    "TD-LIM-004",
    "65 annotations",
    "limit",
    manifest=setting(annotations={f"{i:02d}": "" for i in range(65)}),
)
_bad(
    "annotation-4097-bytes",
    "TD-LIM-001",
    "An annotation of 4097 bytes in 2049 characters",
    "limit",
    manifest=setting(annotations={"k": "é" * 2048}),
)
_bad(
    "annotation-4097-bytes-in-the-key",
    "TD-LIM-001",
    "An annotation whose key alone has 4097 bytes",
    "limit",
    manifest=setting(annotations={"k" * 4097: ""}),
)
_good(
    "annotations-of-4096-bytes",
    ["TD-LIM-005", "TD-LIM-001"],
    "An annotation of 4096 bytes in 2049 characters, and one with a key of 4096 bytes",
    manifest=setting(annotations={"kk": "é" * 2047, "k" * 4096: "", "": ""}),
)
_good(
    "annotations-64",
    ["TD-LIM-005"],
    "64 annotations",
    manifest=setting(annotations={f"{i:02d}": "x" for i in range(64)}),
)

# -- the base ----------------------------------------------------------------------------------------------------------


def _base(**members: Any) -> dict[str, Any]:
    return {"manifest": lambda document: document["base"].update(members)}


_bad("base-is-the-version", "TD-MAN-003", "A manifest whose base is its own version", **_base(version=1))
_bad("base-is-newer", "TD-MAN-003", "A manifest whose base is a newer version", **_base(version=2))
for _member in ("version", "layout", "fingerprint"):
    _bad(
        f"base-without-{_member}",
        "TD-JSN-011",
        f"A base without `{_member}`",
        manifest=lambda document, member=_member: document["base"].pop(member),
    )
_bad("base-layout-null", "TD-JSN-012", "A base whose layout is null", **_base(layout=None))
_bad(
    "base-fingerprint-upper-case",
    "TD-JSN-015",
    "A base whose fingerprint is in upper case",
    **_base(fingerprint="F" * 16),
)
_bad("base-a-number", "TD-JSN-012", "A base that is a number", manifest=setting(base=0))

# -- the fingerprint ---------------------------------------------------------------------------------------------------

_bad(
    "fingerprint-wrong",
    "TD-RDR-007",
    "A delta whose manifest has the fingerprint of another state",
    "integrity",
    manifest=setting(fingerprint="0123456789abcdef"),
    fingerprints=False,
    twin="delta-without-fingerprints",
)
_good(
    "delta-without-fingerprints",
    ["TD-MAN-001"],
    "A delta whose manifest names no fingerprints object",
    fingerprints=False,
)
reject(
    "fingerprint-of-a-full-version-wrong",
    area=AREA,
    title="A full version whose manifest has the fingerprint of another state",
    requirements=["TD-RDR-007"],
    chain=lambda: _two_full(setting(fingerprint="0123456789abcdef")),
    error="integrity",
    twin="full-version-again",
)
read(
    "full-version-again",
    area=AREA,
    title="A second full version, for a reader that holds the first",
    requirements=["TD-FIT-003"],
    chain=lambda: _two_full(lambda _: None),
)


def _two_full(hook: Callable[[dict[str, Any]], Any]) -> Builder:
    states = standard(last=False).models
    builder = Builder()
    builder.full(0, states[0])
    builder.full(1, states[1], hook=hook, fingerprints=False)
    return builder


read(
    "manifest-at-the-limits",
    area=AREA,
    title="64 annotations of 4096 bytes each, a path of 200 characters and the widest shapes in one full version",
    requirements=["TD-LIM-005"],
    chain=at_the_limits,
    to=0,
    held=None,
)
