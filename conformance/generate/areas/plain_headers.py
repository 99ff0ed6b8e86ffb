"""The text of a plain pack's header, its length, and its offsets (SPEC.md sections 6.1 and 6.4)."""

from __future__ import annotations

import json
from collections.abc import Callable

from generate.areas.plain import Header, fault
from generate.standard import replaced


def _offsets() -> None:
    def at(**offsets: list[int]) -> Callable[[Header], None]:
        def move(header: Header) -> None:
            for name, given in offsets.items():
                header[name]["data_offsets"] = given

        return move

    rule = "TD-PCK-004"
    fault(
        "plain-with-a-byte-before-its-tensors",
        "The buffer of a plain pack has a byte before the first tensor",
        rule,
        header=at(b=[1, 49], x=[49, 53]),
        pack=lambda data: data[:-52] + b"\0" + data[-52:],
    )
    fault(
        "plain-with-a-byte-between-its-tensors",
        "The buffer of a plain pack has a byte between two tensors",
        rule,
        header=at(x=[49, 53]),
        pack=lambda data: data[:-4] + b"\0" + data[-4:],
    )
    fault(
        "plain-with-a-byte-after-its-tensors",
        "The buffer of a plain pack has a byte after the last tensor",
        rule,
        pack=lambda data: data + b"\0",
    )
    fault(
        "plain-with-a-byte-too-few", "The buffer of a plain pack lacks its last byte", rule, pack=lambda data: data[:-1]
    )
    fault(
        "plain-tensors-that-overlap",
        "A tensor that the layout lacks lies in the bytes of another",
        rule,
        header=at(x=[44, 48]),
        pack=lambda data: data[:-4],
    )
    fault(
        "plain-offsets-backwards",
        "A tensor that the layout lacks ends before it begins",
        "TD-PCK-014",
        header=lambda h: h.update(y={"dtype": "U8", "shape": [0], "data_offsets": [52, 48]}),
    )
    fault(
        "plain-offsets-beyond-2-64",
        "The offsets of a tensor without bytes are 2^64 + 52, which is 52 modulo 2^64",
        rule,
        header=lambda h: h.update(y={"dtype": "U8", "shape": [0], "data_offsets": [(1 << 64) + 52] * 2}),
    )
    fault(
        "plain-offsets-fraction",
        "An offset in a plain pack is written 0.0",
        "TD-PCK-014",
        text=replaced(b"[0,48]", b"[0.0,48]"),
    )


def _texts() -> None:
    """The header as JSON, and its length."""
    for slug, title, rule, text in (
        ("begins-with-a-space", "begins with a space", "TD-PCK-003", lambda text: b" " + text),
        ("is-an-array", "is an array that holds its object", "TD-PCK-003", lambda text: b"[" + text + b"]"),
        ("is-cut-short", "lacks its last brace", "TD-JSN-003", lambda text: text[:-1]),
        ("has-a-second-object", "has a second object", "TD-JSN-003", lambda text: text + b"{}"),
        ("is-followed-by-nul", "is followed by a byte 0", "TD-JSN-003", lambda text: text + b"\0"),
        ("is-not-utf-8", "has a name that is not UTF-8", "TD-JSN-001", replaced(b'"x"', b'"\xc3\x28"')),
        (
            "has-an-overlong-slash",
            "has an overlong form of a slash in a name",
            "TD-JSN-001",
            replaced(b'"x"', b'"\xc0\xaf"'),
        ),
        (
            "has-a-lone-surrogate-in-a-name",
            "has a name of half of a surrogate pair",
            "TD-JSN-005",
            replaced(b'"x"', b'"\\udc00"'),
        ),
        (
            "has-a-lone-surrogate-in-a-member",
            "has half of a surrogate pair in an unknown member",
            "TD-JSN-005",
            replaced(b'{"dtype"', b'{"note":"\\ud83d","dtype"'),
        ),
        ("has-nan", "has NaN in an unknown member", "TD-JSN-007", replaced(b'{"dtype"', b'{"note":NaN,"dtype"')),
        (
            "has-infinity",
            "has -Infinity in an unknown member",
            "TD-JSN-007",
            replaced(b'{"dtype"', b'{"note":-Infinity,"dtype"'),
        ),
    ):
        fault(f"plain-header-{slug}", f"The header of a plain pack {title}", ("TD-PCK-014", rule), text=text)
    again = json.dumps({"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}).encode()
    for slug, title, text in (
        (
            "tensor",
            "has a tensor of the layout twice, with equal entries",
            lambda text: b'{"b":' + again + b"," + text[1:],
        ),
        (
            "tensor-with-an-escape",
            "has a tensor of the layout twice, once with an escape in its name",
            lambda text: b'{"\\u0062":' + again + b"," + text[1:],
        ),
        (
            "member",
            "has a member twice in the entry of a tensor that the layout lacks",
            replaced(b'"shape":[4],', b'"shape":[4],"shape":[4],'),
        ),
        (
            "unknown-member",
            "has two equal names in an unknown member",
            replaced(b'{"dtype"', b'{"note":[{"y":1,"y":1}],"dtype"'),
        ),
        (
            "metadatum",
            "has a metadatum twice",
            lambda text: b'{"__metadata__":{"format":"pt","format":"pt"},' + text[1:],
        ),
        ("metadata", "has metadata twice", lambda text: b'{"__metadata__":{},"__metadata__":{},' + text[1:]),
    ):
        fault(f"plain-same-{slug}-twice", f"The header of a plain pack {title}", "TD-PCK-021", text=text)
    for slug, title, rule, error, pack in (
        ("of-7-bytes", "A plain pack has seven bytes", "TD-PCK-001", "malformed", lambda data: data[:7]),
        (
            "with-a-header-past-its-end",
            "The header of a plain pack is a byte longer than its file",
            "TD-PCK-001",
            "malformed",
            lambda data: (len(data) - 7).to_bytes(8, "little") + data[8:],
        ),
        (
            "with-a-header-of-100000001-bytes",
            "The length of the header of a plain pack is 100,000,001",
            "TD-PCK-002",
            "limit",
            lambda data: (100_000_001).to_bytes(8, "little") + data[8:],
        ),
    ):
        fault(f"plain-{slug}", title, rule, error, pack=pack)


_offsets()
_texts()
