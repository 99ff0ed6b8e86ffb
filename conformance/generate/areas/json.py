"""JSON: what is text of one object, and what is a number (SPEC.md section 4.3), mostly shown on a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from generate.cases import read, reject
from generate.standard import replaced, standard

AREA = "json"


def _bad(
    slug: str,
    rule: str | Sequence[str],
    title: str,
    text: Callable[[bytes], bytes],
    error: str = "malformed",
    **how: Any,
) -> None:
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[rule] if isinstance(rule, str) else rule,
        chain=lambda: standard(text=text, last=False, **how),
        error=error,
        twin="standard-of-two",
    )


def _good(slug: str, rules: list[str], title: str, text: Callable[[bytes], bytes], **how: Any) -> None:
    read(slug, area=AREA, title=title, requirements=rules, chain=lambda: standard(text=text, last=False, **how))


def _first(extra: bytes) -> Callable[[bytes], bytes]:
    """A member more, before all others."""
    return replaced(b"{", b"{" + extra + b",")


def _last(extra: bytes) -> Callable[[bytes], bytes]:
    """Bytes more, after the object."""
    return lambda data: data + extra


# -- the text ----------------------------------------------------------------------------------------------------------

_bad("json-not-utf8", "TD-JSN-001", "A manifest with the byte FF in a string", _first(b'"x":"\xff"'))
_bad(
    "json-encoded-surrogate",
    "TD-JSN-001",
    "A manifest with a surrogate encoded in three bytes, which is no UTF-8",
    _first(b'"x":"\xed\xa0\x80"'),
)
_bad(
    "json-overlong-utf8",
    "TD-JSN-001",
    "A manifest with a solidus encoded in two bytes, which is no UTF-8",
    _first(b'"x":"\xc0\xaf"'),
)
_bad(
    "json-beyond-unicode",
    "TD-JSN-001",
    "A manifest with the encoding of a character beyond U+10FFFF",
    _first(b'"x":"\xf4\x90\x80\x80"'),
)
_bad(
    "json-utf16",
    "TD-JSN-001",
    "A manifest in UTF-16",
    lambda data: b"\xff\xfe" + data.decode().encode("utf-16-le"),
)
_bad(
    "json-byte-order-mark",
    "TD-JSN-002",
    "A manifest that begins with a byte order mark",
    lambda data: b"\xef\xbb\xbf" + data,
)
_bad("json-array", "TD-JSN-003", "A manifest inside an array", lambda data: b"[" + data + b"]")
_bad("json-empty", "TD-JSN-003", "A manifest of no bytes", lambda data: b"")
_bad("json-only-white-space", "TD-JSN-003", "A manifest of white space alone", lambda data: b" \n")
_bad("json-truncated", "TD-JSN-003", "A manifest without its last brace", lambda data: data[:-1])
_bad("json-two-objects", "TD-JSN-003", "A manifest followed by an empty object", _last(b"{}"))
_bad(
    "json-trailing-comma",
    "TD-JSN-003",
    "A manifest with a comma after its last member",
    lambda data: data[:-1] + b",}",
)
_bad("json-comment", "TD-JSN-003", "A manifest followed by a comment", _last(b"//x"))
_bad("json-single-quotes", "TD-JSN-003", "A member name in single quotes", _first(b"'x':1"))
_bad("json-control-character", "TD-JSN-003", "A line feed in a string, not escaped", _first(b'"x":"\n"'))
_bad("json-bad-escape", "TD-JSN-003", "An escape that JSON does not have", _first(b'"x":"\\q"'))
_bad("json-short-escape", "TD-JSN-003", "A \\u escape of three digits", _first(b'"x":"\\u123"'))
_bad("json-literal-upper-case", "TD-JSN-003", "The literal True with a capital letter", _first(b'"x":True'))
_bad("json-leading-zero", "TD-JSN-003", "A number 01 in an unknown field", _first(b'"x":01'))
_bad("json-bare-point", "TD-JSN-003", "A number 1. in an unknown field", _first(b'"x":1.'))
_bad("json-plus-sign", "TD-JSN-003", "A number +1 in an unknown field", _first(b'"x":+1'))
_bad("json-hexadecimal", "TD-JSN-003", "A number 0x1 in an unknown field", _first(b'"x":0x1'))
_bad("json-trailing-nul", "TD-JSN-003", "A manifest followed by a NUL", _last(b"\0"))
_bad("json-form-feed", "TD-JSN-003", "A manifest followed by a form feed, which is no JSON white space", _last(b"\x0c"))
_bad(
    "json-no-break-space",
    "TD-JSN-003",
    "A manifest followed by a no-break space, which is no JSON white space",
    _last("\u00a0".encode()),
)
_bad("json-nan", "TD-JSN-007", "The literal NaN in an unknown field", _first(b'"x":NaN'))
_bad("json-infinity", "TD-JSN-007", "The literal Infinity in an unknown field", _first(b'"x":Infinity'))
_bad("json-minus-infinity", "TD-JSN-007", "The literal -Infinity in an array", _first(b'"x":[-Infinity]'))

_good(
    "json-white-space",
    ["TD-JSN-003"],
    "White space of all four kinds around a manifest and between its tokens",
    lambda data: b"\r\n\t " + json.dumps(json.loads(data), separators=("\n,\r", " :\t")).encode() + b" \t\n\r",
)
_good(
    "json-members-in-another-order",
    ["TD-JSN-013"],
    "The members of a manifest in the reverse of the usual order",
    lambda data: data,
    manifest=lambda document: _reverse(document),
)


def _reverse(document: dict[str, Any]) -> None:
    members = list(document.items())[::-1]
    document.clear()
    document.update(members)


# -- members and strings -----------------------------------------------------------------------------------------------

_bad("json-duplicate-member", "TD-JSN-004", "A manifest with its version twice", _first(b'"version":1'))
_bad(
    "json-duplicate-escaped",
    "TD-JSN-004",
    "A manifest with its version twice, the first time with an escape in the name",
    _first(b'"\\u0076ersion":1'),
)
_bad(
    "json-duplicate-deep",
    "TD-JSN-004",
    "Two equal member names in an object inside an unknown field",
    _first(b'"x":[{"a":1,"b":{"c":1,"c":1}}]'),
)
_bad("json-duplicate-unknown", "TD-JSN-004", "An unknown field twice", _first(b'"x":null,"x":null'))
_bad("json-lone-surrogate", "TD-JSN-005", "An escaped high surrogate alone", _first(b'"x":"\\ud800"'))
_bad(
    "json-lone-surrogates-in-the-wrong-order",
    "TD-JSN-005",
    "An escaped low surrogate before a high one",
    _first(b'"x":["\\udc00\\ud800"]'),
)
_bad("json-lone-surrogate-member", "TD-JSN-005", "An escaped surrogate alone in a member name", _first(b'"\\uDBFFx":1'))
_bad(
    "json-lone-surrogate-before-text",
    "TD-JSN-005",
    "An escaped high surrogate before a character that is no low one",
    _first(b'"x":"\\ud800\\u0041"'),
)

_good(
    "json-escaped-member-name",
    ["TD-JSN-003"],
    "The name of a known field written with an escape",
    replaced(b'"version"', b'"\\u0076ersi\\u006fn"'),
)
_good(
    "json-escaped-known-string",
    ["TD-JSN-003"],
    "A known string written with escapes is the string without them",
    replaced(b'"path":"packs/', b'"path":"p\\u0061cks\\/'),
)
_good(
    "json-surrogate-pair",
    ["TD-JSN-005"],
    "An escaped pair of surrogates, in a string and in a member name",
    _first(b'"\\ud83d\\ude00":"\\uD83D\\uDE00"'),
)
_good(
    "json-noncharacters",
    ["TD-JSN-006"],
    "Unicode noncharacters, escaped and as they are, in strings and member names",
    _first('"\ufdd0":"\\uffff\uffff\U0001ffff","\\ufdd1":1'.encode()),
)
_good(
    "json-names-that-only-look-equal",
    ["TD-JSN-004"],
    "Member names that are equal only after normalisation, or but for case, are two names",
    _first('"é":1,"e\u0301":2,"É":3,"Version":4'.encode()),
)
_good(
    "json-unknown-fields",
    ["TD-JSN-013"],
    "Unknown fields of every JSON type in a manifest",
    _first(b'"x":null,"y":true,"z":"text","colour":{"a":{"a":[]}},"list":[{},[[]],1.5]'),
)
_good(
    "json-unknown-fields-in-entries",
    ["TD-JSN-013"],
    "Unknown fields in the base, a pack entry and a file entry",
    lambda data: data,
    manifest=lambda d: [each.update(x={"codec": 1}) for each in (d["base"], d["packs"][0], d["files"][0])],
)
_good(
    "json-any-number-in-an-unknown-field",
    ["TD-JSN-014"],
    "Numbers in unknown fields that no native type holds, and forms that known fields may not have",
    _first(b'"x":[-0,1.0,-1,1e3,1E+9,1e999,-1e-999,' + b"7" * 400 + b",0.1e-7]"),
)

# -- depth -------------------------------------------------------------------------------------------------------------

_bad(
    "json-too-deep",
    "TD-JSN-008",
    "Arrays of 16 levels inside a manifest make 17",
    _first(b'"x":' + b"[" * 16 + b"]" * 16),
    error="limit",
)
_bad(
    "json-too-deep-mixed",
    "TD-JSN-008",
    "Arrays and objects in turn, of 16 levels inside a manifest, make 17",
    _first(b'"x":' + b'[{"a":' * 8 + b"1" + b"}]" * 8),
    error="limit",
)
_bad(
    "json-far-too-deep",
    ["TD-JSN-008", "TD-ERR-001"],
    "Arrays of 5000 levels, more than many recursive parsers survive",
    _first(b'"x":' + b"[" * 5000 + b"]" * 5000),
    error="limit",
)
_good(
    "json-16-levels",
    ["TD-JSN-008", "TD-LIM-005"],
    "Arrays and objects of 15 levels inside a manifest make 16, which is allowed",
    _first(b'"x":' + b'[{"a":' * 7 + b"[]" + b"}]" * 7),
)
_good(
    "json-brackets-in-a-string",
    ["TD-JSN-008"],
    "Brackets in a string, after an escaped quotation mark, are no levels",
    _first(b'"x":"\\"' + b"[{" * 40 + b'\\\\"'),
)

# -- integers of known fields ------------------------------------------------------------------------------------------

for _name, _literal, _what in (
    ("minus-zero", b"-0", "-0"),
    ("fraction", b"0.0", "0.0"),
    ("exponent", b"0e0", "0e0"),
    ("negative", b"-1", "-1"),
):
    _bad(
        f"json-integer-{_name}",
        "TD-JSN-009",
        f"The base's version 0 is written as {_what}",
        replaced(b'"base":{"version":0,', b'"base":{"version":' + _literal + b","),
    )
for _name, _literal, _what in (
    ("string", b'"0"', "a string"),
    ("boolean", b"false", "false"),
    ("null", b"null", "null"),
    ("array", b"[0]", "an array"),
):
    _bad(
        f"json-integer-{_name}",
        "TD-JSN-012",
        f"The base's version is {_what} instead of an integer",
        replaced(b'"base":{"version":0,', b'"base":{"version":' + _literal + b","),
    )
_bad(
    "json-integer-2-53",
    "TD-JSN-010",
    "A pack entry's `changed` is 2^53",
    replaced(b'"changed":24', b'"changed":9007199254740992'),
)
_bad(
    "json-integer-far-too-great",
    "TD-JSN-010",
    "A pack entry's `changed` has 400 digits",
    replaced(b'"changed":24', b'"changed":' + b"9" * 400),
)
_bad(
    "json-integer-plus-2-64",
    "TD-JSN-010",
    "A pack entry's `changed` is right modulo 2^64 only",
    replaced(b'"changed":24', b'"changed":%d' % (2**64 + 24)),
)
_bad(
    "json-integer-in-an-array",
    "TD-JSN-009",
    "A number in the array of a known field is written as 0.0",
    replaced(b'"tensors":[0,4]', b'"tensors":[0.0,4]'),
)
# -- other objects than manifests --------------------------------------------------------------------------------------


def _bad_object(slug: str, rule: str, title: str, error: str = "malformed", **how: Any) -> None:
    twin = "layout-in-other-bytes" if slug.startswith("json-of-layout") else "standard-of-two"
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[rule],
        chain=lambda: standard(last=False, **how),
        error=error,
        twin=twin,
    )


def _chain_text(how: Callable[[bytes], bytes]) -> dict[str, Any]:
    return {"after": lambda builder: builder.change("chain.json", how)}


_bad_object(
    "json-of-chain-duplicate-member",
    "TD-JSN-004",
    "`chain.json` with an unknown field twice",
    **_chain_text(_first(b'"x":1,"x":1')),
)
_bad_object(
    "json-of-chain-too-deep",
    "TD-JSN-008",
    "`chain.json` with 17 levels",
    error="limit",
    **_chain_text(_first(b'"x":' + b"[" * 16 + b"]" * 16)),
)
_bad_object(
    "json-of-chain-lone-surrogate",
    "TD-JSN-005",
    "`chain.json` with an escaped surrogate alone",
    **_chain_text(_first(b'"x":"\\udead"')),
)
_bad_object(
    "json-of-layout-duplicate-member",
    "TD-JSN-004",
    "A layout with the dtype of a tensor twice",
    layout_text=replaced(b'"dtype":"BF16"', b'"dtype":"BF16","dtype":"BF16"'),
)
_bad_object(
    "json-of-layout-truncated",
    "TD-JSN-003",
    "A layout, named by its digest, without its last brace",
    layout_text=lambda data: data[:-1],
)
_bad_object(
    "json-of-layout-lone-surrogate",
    "TD-JSN-005",
    "A layout with an escaped surrogate alone in an unknown field",
    layout_text=_first(b'"x":"\\ud800"'),
)
_bad_object(
    "json-of-layout-too-deep",
    "TD-JSN-008",
    "A layout with 17 levels: 14 inside an unknown field of a tensor entry",
    error="limit",
    layout_text=replaced(b'{"name"', b'{"x":' + b"[" * 14 + b"]" * 14 + b',"name"'),
)
_bad_object(
    "json-of-layout-integer-fraction",
    "TD-JSN-009",
    "A layout with the dimension 24.0",
    layout_text=replaced(b'"shape":[24]', b'"shape":[24.0]'),
)
_bad_object(
    "json-of-layout-without-format",
    "TD-JSN-011",
    "A layout without `tensordelta`",
    layout=lambda document: document.pop("tensordelta"),
)
