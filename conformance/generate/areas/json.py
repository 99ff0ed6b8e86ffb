"""JSON (SPEC.md section 4.3): the text of one object, its members, strings and numbers; mostly in a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from generate.builder import Builder
from generate.edits import Area
from generate.standard import replaced

case = Area("json")


def first(extra: bytes) -> Callable[[bytes], bytes]:
    """Adds a member before all others."""
    return replaced(b"{", b"{" + extra + b",")


def last(extra: bytes) -> Callable[[bytes], bytes]:
    """Adds bytes after the object."""
    return lambda data: data + extra


# -- the text ----------------------------------------------------------------------------------------------------------

case("json-not-utf8", "JSN-001", "A manifest with the byte FF in a string").bad(text=first(b'"x":"\xff"'))
case("json-encoded-surrogate", "JSN-001", "A manifest with a surrogate encoded in three bytes, which is no UTF-8").bad(
    text=first(b'"x":"\xed\xa0\x80"')
)
case("json-overlong-utf8", "JSN-001", "A manifest with a solidus encoded in two bytes, which is no UTF-8").bad(
    text=first(b'"x":"\xc0\xaf"')
)
case("json-beyond-unicode", "JSN-001", "A manifest with the encoding of a character beyond U+10FFFF").bad(
    text=first(b'"x":"\xf4\x90\x80\x80"')
)
case(
    "json-encoded-surrogates", "JSN-001", "A manifest with a pair of surrogates, each encoded in three bytes: no UTF-8"
).bad(text=first(b'"x":"\xed\xa0\xbd\xed\xb8\x80"'))
case("json-overlong-nul", "JSN-001", "A manifest with a NUL encoded in two bytes, which is no UTF-8").bad(
    text=first(b'"x":"\xc0\x80"')
)
case("json-utf16", "JSN-001", "A manifest in UTF-16").bad(
    text=lambda data: b"\xff\xfe" + data.decode().encode("utf-16-le")
)
case("json-byte-order-mark", "JSN-002", "A manifest that begins with a byte order mark").bad(
    text=lambda data: b"\xef\xbb\xbf" + data
)
for slug, title, text in (
    ("json-array", "A manifest inside an array", lambda data: b"[" + data + b"]"),
    ("json-empty", "A manifest of no bytes", lambda data: b""),
    ("json-only-white-space", "A manifest of white space alone", lambda data: b" \n"),
    ("json-truncated", "A manifest without its last brace", lambda data: data[:-1]),
    ("json-two-objects", "A manifest followed by an empty object", last(b"{}")),
    ("json-trailing-comma", "A manifest with a comma after its last member", lambda data: data[:-1] + b",}"),
    ("json-comment", "A manifest followed by a comment", last(b"//x")),
    ("json-comment-between", "A comment between stars, before the first member", replaced(b"{", b"{/*x*/")),
    ("json-single-quotes", "A member name in single quotes", first(b"'x':1")),
    ("json-control-character", "A line feed in a string, not escaped", first(b'"x":"\n"')),
    ("json-bad-escape", "An escape that JSON does not have", first(b'"x":"\\q"')),
    ("json-short-escape", "A \\u escape of three digits", first(b'"x":"\\u123"')),
    ("json-literal-upper-case", "The literal True with a capital letter", first(b'"x":True')),
    ("json-leading-zero", "A number 01 in an unknown field", first(b'"x":01')),
    ("json-bare-point", "A number 1. in an unknown field", first(b'"x":1.')),
    ("json-plus-sign", "A number +1 in an unknown field", first(b'"x":+1')),
    ("json-hexadecimal", "A number 0x1 in an unknown field", first(b'"x":0x1')),
    ("json-trailing-nul", "A manifest followed by a NUL", last(b"\0")),
    ("json-form-feed", "A manifest followed by a form feed, which is no JSON white space", last(b"\x0c")),
):
    case(slug, "JSN-003", title).bad(text=text)
case("json-no-break-space", "JSN-003", "A manifest followed by a no-break space, which is no JSON white space").bad(
    text=last("\u00a0".encode())
)
case("json-nan", "JSN-007", "The literal NaN in an unknown field").bad(text=first(b'"x":NaN'))
case("json-infinity", "JSN-007", "The literal Infinity in an unknown field").bad(text=first(b'"x":Infinity'))
case("json-minus-infinity", "JSN-007", "The literal -Infinity in an array").bad(text=first(b'"x":[-Infinity]'))

case("json-white-space", "JSN-003", "White space of all four kinds around a manifest and between its tokens").good(
    text=lambda data: b"\r\n\t " + json.dumps(json.loads(data), separators=("\n,\r", " :\t")).encode() + b" \t\n\r"
)


def reverse(document: dict[str, Any]) -> None:
    members = list(document.items())[::-1]
    document.clear()
    document.update(members)


case("json-members-in-another-order", "JSN-013", "The members of a manifest in the reverse of the usual order").good(
    manifest=reverse
)

# -- members and strings -----------------------------------------------------------------------------------------------

case("json-duplicate-member", "JSN-004", "A manifest with its version twice").bad(text=first(b'"version":1'))
case(
    "json-duplicate-escaped", "JSN-004", "A manifest with its version twice, the first time with an escape in the name"
).bad(text=first(b'"\\u0076ersion":1'))
case("json-duplicate-deep", "JSN-004", "Two equal member names in an object inside an unknown field").bad(
    text=first(b'"x":[{"a":1,"b":{"c":1,"c":1}}]')
)
case("json-duplicate-unknown", "JSN-004", "An unknown field twice").bad(text=first(b'"x":null,"x":null'))
case("json-lone-surrogate", "JSN-005", "An escaped high surrogate alone").bad(text=first(b'"x":"\\ud800"'))
case("json-lone-surrogates-in-the-wrong-order", "JSN-005", "An escaped low surrogate before a high one").bad(
    text=first(b'"x":["\\udc00\\ud800"]')
)
case("json-lone-surrogate-member", "JSN-005", "An escaped surrogate alone in a member name").bad(
    text=first(b'"\\uDBFFx":1')
)
case(
    "json-lone-surrogate-before-text", "JSN-005", "An escaped high surrogate before a character that is no low one"
).bad(text=first(b'"x":"\\ud800\\u0041"'))

case("json-escaped-member-name", "JSN-003", "The name of a known field written with an escape").good(
    text=replaced(b'"version"', b'"\\u0076ersi\\u006fn"')
)
case("json-escaped-known-string", "JSN-003", "A known string written with escapes is the string without them").good(
    text=replaced(b'"path":"packs/', b'"path":"p\\u0061cks\\/')
)
case("json-surrogate-pair", "JSN-005", "An escaped pair of surrogates, in a string and in a member name").good(
    text=first(b'"\\ud83d\\ude00":"\\uD83D\\uDE00"')
)
case(
    "json-noncharacters", "JSN-006", "Unicode noncharacters, escaped and as they are, in strings and member names"
).good(text=first('"\ufdd0":"\\uffff\uffff\U0001ffff","\\ufdd1":1'.encode()))
case(
    "json-names-that-only-look-equal",
    "JSN-004",
    "Member names that are equal only after normalisation, or but for case, are two names",
).good(text=first('"é":1,"e\u0301":2,"É":3,"Version":4'.encode()))
case("json-unknown-fields", "JSN-013", "Unknown fields of every JSON type in a manifest").good(
    text=first(b'"x":null,"y":true,"z":"text","colour":{"a":{"a":[]}},"list":[{},[[]],1.5]')
)
case("json-unknown-fields-in-entries", "JSN-013", "Unknown fields in the base, a pack entry and a file entry").good(
    manifest=lambda d: [each.update(x={"codec": 1}) for each in (d["base"], d["packs"][0], d["files"][0])]
)
case(
    "json-any-number-in-an-unknown-field",
    "JSN-014",
    "Numbers in unknown fields that no native type holds, and forms that known fields may not have",
).good(text=first(b'"x":[-0,1.0,-1,1e3,1E+9,1e999,-1e-999,' + b"7" * 400 + b",0.1e-7]"))

# -- depth -------------------------------------------------------------------------------------------------------------

case("json-too-deep", "JSN-008", "Arrays of 16 levels inside a manifest make 17").bad(
    "limit", text=first(b'"x":' + b"[" * 16 + b"]" * 16)
)
case("json-too-deep-mixed", "JSN-008", "Arrays and objects in turn, of 16 levels inside a manifest, make 17").bad(
    "limit", text=first(b'"x":' + b'[{"a":' * 8 + b"1" + b"}]" * 8)
)
case("json-far-too-deep", "JSN-008 ERR-001", "Arrays of 5000 levels, more than many recursive parsers survive").bad(
    "limit", text=first(b'"x":' + b"[" * 5000 + b"]" * 5000)
)
case(
    "json-16-levels", "JSN-008 LIM-005", "Arrays and objects of 15 levels inside a manifest make 16, which is allowed"
).good(text=first(b'"x":' + b'[{"a":' * 7 + b"[]" + b"}]" * 7))
case(
    "json-brackets-in-a-string", "JSN-008", "Brackets in a string, after an escaped quotation mark, are no levels"
).good(text=first(b'"x":"\\"' + b"[{" * 40 + b'\\\\"'))

# -- integers of known fields ------------------------------------------------------------------------------------------

for slug, rule, literal, title in (
    ("json-integer-minus-zero", "JSN-009", b"-0", "The base's version 0 is written as -0"),
    ("json-integer-fraction", "JSN-009", b"0.0", "The base's version 0 is written as 0.0"),
    ("json-integer-exponent", "JSN-009", b"0e0", "The base's version 0 is written as 0e0"),
    ("json-integer-negative", "JSN-009", b"-1", "The base's version 0 is written as -1"),
    ("json-integer-string", "JSN-012", b'"0"', "The base's version is a string instead of an integer"),
    ("json-integer-boolean", "JSN-012", b"false", "The base's version is false instead of an integer"),
    ("json-integer-null", "JSN-012", b"null", "The base's version is null instead of an integer"),
    ("json-integer-array", "JSN-012", b"[0]", "The base's version is an array instead of an integer"),
):
    case(slug, rule, title).bad(text=replaced(b'"base":{"version":0,', b'"base":{"version":' + literal + b","))
for slug, title, literal in (
    ("json-integer-2-53", "A pack entry's `changed` is 2^53", b"9007199254740992"),
    ("json-integer-far-too-great", "A pack entry's `changed` has 400 digits", b"9" * 400),
    ("json-integer-plus-2-64", "A pack entry's `changed` is right modulo 2^64 only", b"%d" % (2**64 + 24)),
):
    case(slug, "JSN-010", title).bad(text=replaced(b'"changed":24', b'"changed":' + literal))
case("json-integer-in-an-array", "JSN-009", "A number in the array of a known field is written as 0.0").bad(
    text=replaced(b'"tensors":[[0,4]]', b'"tensors":[[0.0,4]]')
)

# -- other objects than manifests --------------------------------------------------------------------------------------


def in_chain(extra: bytes) -> Callable[[Builder], None]:
    """Adds a member to `chain.json`."""
    return lambda builder: builder.change("chain.json", first(extra))


case("json-of-chain-duplicate-member", "JSN-004", "`chain.json` with an unknown field twice").bad(
    after=in_chain(b'"x":1,"x":1')
)
case("json-of-chain-too-deep", "JSN-008", "`chain.json` with 17 levels").bad(
    "limit", after=in_chain(b'"x":' + b"[" * 16 + b"]" * 16)
)
case("json-of-chain-lone-surrogate", "JSN-005", "`chain.json` with an escaped surrogate alone").bad(
    after=in_chain(b'"x":"\\udead"')
)

of_layout = Area("json", twin="layout-in-other-bytes")
of_layout("json-of-layout-duplicate-member", "JSN-004", "A layout with the dtype of a tensor twice").bad(
    layout_text=replaced(b'"dtype":"BF16"', b'"dtype":"BF16","dtype":"BF16"')
)
of_layout("json-of-layout-truncated", "JSN-003", "A layout, named by its digest, without its last brace").bad(
    layout_text=lambda data: data[:-1]
)
of_layout(
    "json-of-layout-lone-surrogate", "JSN-005", "A layout with an escaped surrogate alone in an unknown field"
).bad(layout_text=first(b'"x":"\\ud800"'))
of_layout(
    "json-of-layout-too-deep", "JSN-008", "A layout with 17 levels: 14 inside an unknown field of a tensor entry"
).bad("limit", layout_text=replaced(b'{"name"', b'{"x":' + b"[" * 14 + b"]" * 14 + b',"name"'))
of_layout("json-of-layout-integer-fraction", "JSN-009", "A layout with the dimension 24.0").bad(
    layout_text=replaced(b'"shape":[24]', b'"shape":[24.0]')
)
of_layout("json-of-layout-without-format", "JSN-011", "A layout without `tensordelta`").bad(
    layout=lambda document: document.pop("tensordelta")
)
