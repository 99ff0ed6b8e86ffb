"""The chunk table and the fields of its entries (SPEC.md section 6.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from generate.builder import Builder, Pack, chunk_pack
from generate.cases import read, reject
from generate.model import Model, tensor
from generate.pair import Build, Part, chain, moved, one
from generate.standard import replaced, setting, without

AREA = "chunks"
OLD: Model = {"a": tensor("BF16", (5, 8), 0x3F80), "b": tensor("U8", (20,), 7)}
NEW = moved(moved(OLD, {3: 0x3F81, 4: 0x3F7F, 39: 0x4000}, "a"), {0: 1, 19: 2}, "b")
PARTS = (Part([("a", 0, 40)]), Part([("b", 0, 20)], positions="bitmap", values="replace"))
SPOILED = "two-chunks"


def two(**how: Any) -> Build:
    """The chain of two chunks; what is given is done to its pack."""
    return chain(OLD, NEW, *PARTS, **how)


def fault(slug: str, title: str, rule: str, error: str = "malformed", twin: str = SPOILED, **how: Any) -> None:
    """Register a fault of the chain of two chunks."""
    reject(slug, area=AREA, title=title, requirements=[rule], chain=two(**how), error=error, twin=twin)


def on(number: int, **members: Any) -> Callable[[dict[str, Any]], None]:
    """Set members of a chunk's entry."""
    return lambda document: document["chunks"][number].update(members)


def nested(levels: int) -> Any:
    """Arrays in arrays."""
    return json.loads("[" * levels + "]" * levels)


def _valid() -> None:
    read(
        SPOILED,
        area=AREA,
        title="A pack of two chunks, of gaps and steps, and of a bitmap and replaced words",
        requirements=["TD-CHK-023"],
        chain=two(),
    )

    def unknown(document: dict[str, Any]) -> None:
        document["note"] = [None, {"codec": "x"}]
        for each in document["chunks"]:
            each |= {"note": {"codec": 1}, "shift": -1}

    read(
        "table-with-unknown-members",
        area=AREA,
        title="The chunk table and its chunks have members that the format lacks",
        requirements=["TD-CHK-017", "TD-JSN-013"],
        chain=two(table=unknown),
    )
    read(
        "table-with-any-numbers-in-unknown-members",
        area=AREA,
        title="Unknown members of the chunk table have numbers of every form",
        requirements=["TD-JSN-014"],
        chain=two(table_text=lambda text: b'{"n":[-0,1.0,1e999,-2.5E-3,123456789012345678901234567890],' + text[1:]),
    )
    read(
        "table-of-a-later-minor-version",
        area=AREA,
        title="The chunk table is of format 1.99",
        requirements=["TD-VER-003"],
        chain=two(table=setting(tensordelta="1.99")),
    )
    read(
        "table-with-white-space-and-escapes",
        area=AREA,
        title="White space stands around the chunk table and in it, and a member's name is escaped",
        requirements=["TD-JSN-003"],
        chain=two(table_text=lambda text: b"\r\n " + text.replace(b'"layout":', b'"l\\u0061yout" :\t') + b"\n"),
    )
    read(
        "table-nested-16-levels",
        area=AREA,
        title="The chunk table is nested 16 levels deep, counted without the header around it",
        requirements=["TD-JSN-008", "TD-LIM-005"],
        chain=two(table=on(0, deep=nested(13))),
    )

    def turned(document: dict[str, Any]) -> None:
        members = [*reversed(document.items())]
        document.clear()
        document.update(members)
        document["chunks"] = [dict(reversed(each.items())) for each in document["chunks"]]

    read(
        "table-with-members-in-another-order",
        area=AREA,
        title="The members of the chunk table and its chunks stand in another order",
        requirements=["TD-CHK-017"],
        chain=two(table=turned),
    )
    read(
        "table-with-noncharacters",
        area=AREA,
        title="Noncharacters stand in an unknown member of the chunk table",
        requirements=["TD-JSN-006"],
        chain=two(table_text=lambda text: b'{"x":"\\ufffe\\ud83f\\udfff",' + text[1:]),
    )


def _texts() -> None:
    """The table as JSON."""
    texts: list[tuple[str, str, str, Callable[[bytes], bytes]]] = [
        ("cut-short", "The chunk table is cut short", "TD-JSN-003", lambda text: text[:-1]),
        ("empty", "The chunk table is the empty string", "TD-JSN-003", lambda _: b""),
        ("array", "The chunk table is an array that holds it", "TD-JSN-003", lambda text: b"[" + text + b"]"),
        ("twice", "The chunk table is followed by another object", "TD-JSN-003", lambda text: text + b"{}"),
        (
            "with-a-comma",
            "A comma stands before the chunk table's last brace",
            "TD-JSN-003",
            lambda text: text[:-1] + b",}",
        ),
        (
            "with-a-byte-order-mark",
            "The chunk table begins with a byte order mark",
            "TD-JSN-002",
            lambda text: b"\xef\xbb\xbf" + text,
        ),
        (
            "with-a-lone-surrogate",
            "A string in the chunk table has half of a surrogate pair",
            "TD-JSN-005",
            lambda text: b'{"x":"\\udfff",' + text[1:],
        ),
        ("with-nan", "An unknown member of the chunk table is NaN", "TD-JSN-007", lambda text: b'{"x":NaN,' + text[1:]),
        (
            "with-two-equal-names",
            "A chunk has two members changed, of which the last is right",
            "TD-JSN-004",
            replaced(b'"dtype"', b'"changed":1,"dtype"'),
        ),
        (
            "with-two-names-equal-unescaped",
            "A chunk has a member changed beside one whose name is the same with an escape",
            "TD-JSN-004",
            replaced(b'"dtype"', b'"ch\\u0061nged":1,"dtype"'),
        ),
        (
            "with-two-equal-unknown-names",
            "An unknown member of a chunk has two equal names in it",
            "TD-JSN-004",
            replaced(b'"dtype"', b'"x":{"y":1,"y":1},"dtype"'),
        ),
    ]
    for slug, title, rule, text in texts:
        fault(f"table-{slug}", title, rule, table_text=text)
    fault(
        "table-nested-17-levels",
        "The chunk table is nested 17 levels deep",
        "TD-JSN-008",
        "limit",
        twin="table-nested-16-levels",
        table=on(0, deep=nested(14)),
    )


def _fields() -> None:
    fault(
        "table-of-format-2",
        "The chunk table is of format 2.0",
        "TD-VER-002",
        "unsupported",
        table=setting(tensordelta="2.0"),
    )
    fault("table-without-format", "The chunk table does not say its format", "TD-JSN-011", table=without("tensordelta"))
    fault(
        "table-format-without-minor", "The format of the chunk table is 1", "TD-JSN-015", table=setting(tensordelta="1")
    )
    fault(
        "table-of-another-layout",
        "The layout of the chunk table is not the manifest's",
        "TD-CHK-003",
        table=setting(layout="0" * 64),
    )
    fault("table-without-layout", "The chunk table has no layout", "TD-JSN-011", table=without("layout"))
    fault(
        "table-layout-too-short",
        "The layout of the chunk table has 63 digits",
        "TD-JSN-015",
        table=lambda t: t.update(layout=t["layout"][:63]),
    )
    fault(
        "table-layout-in-upper-case",
        "The layout of the chunk table is in upper case",
        "TD-JSN-015",
        table=lambda t: t.update(layout=t["layout"].upper()),
    )
    fault("table-without-chunks", "The chunk table has no member chunks", "TD-JSN-011", table=without("chunks"))
    fault(
        "table-of-an-object-of-chunks",
        "The chunks are an object",
        "TD-JSN-012",
        table=lambda t: t.update(chunks={"0": t["chunks"][0]}),
    )
    fault("table-with-null-for-a-chunk", "A chunk is null", "TD-JSN-012", table=lambda t: t["chunks"].append(None))
    for member in ("dtype", "slices", "changed", "order", "positions", "values", "compression", "fingerprint"):
        fault(
            f"chunk-without-{member}",
            f"A chunk has no {member}",
            "TD-JSN-011",
            table=lambda document, member=member: document["chunks"][1].pop(member),
        )
    fault("chunk-dtype-unknown", "The dtype of a chunk is I128", "TD-CHK-010", "unsupported", table=on(0, dtype="I128"))
    fault(
        "chunk-dtype-in-lower-case",
        "The dtype of a chunk is bf16",
        "TD-CHK-010",
        "unsupported",
        table=on(0, dtype="bf16"),
    )
    fault("chunk-dtype-null", "The dtype of a chunk is null", "TD-JSN-012", table=on(0, dtype=None))
    fault(
        "chunk-dtype-of-the-same-width",
        "The dtype of a chunk is F16, that of its tensor BF16",
        "TD-CHK-009",
        table=on(0, dtype="F16"),
    )
    fault(
        "chunk-fingerprint-in-upper-case",
        "The fingerprint of a chunk is in upper case",
        "TD-JSN-015",
        table=lambda t: t["chunks"][0].update(fingerprint=t["chunks"][0]["fingerprint"].upper()),
    )
    fault(
        "chunk-fingerprint-a-number",
        "The fingerprint of a chunk is a number",
        "TD-JSN-012",
        table=lambda t: t["chunks"][0].update(fingerprint=int(t["chunks"][0]["fingerprint"], 16) >> 12),
    )
    for slug, title, rule, value in (
        ("fraction", "Changed is written 3.0", "TD-JSN-009", b"3.0"),
        ("exponent", "Changed is written 3e0", "TD-JSN-009", b"3e0"),
        ("string", "Changed is a string", "TD-JSN-012", b'"3"'),
        ("null", "Changed is null", "TD-JSN-012", b"null"),
        ("beyond-2-53", "Changed is 2^53", "TD-JSN-010", b"9007199254740992"),
    ):
        fault(f"chunk-changed-{slug}", title, rule, table_text=replaced(b'"changed":3', b'"changed":' + value))


def _changed() -> None:
    old = one("U8", 30)
    new = moved(old, {3: 1, 9: 1})
    gap = Part()
    read(
        "chunk-of-two-listed-words",
        area=AREA,
        title="A chunk of 30 words of which two are listed",
        requirements=["TD-CHK-011"],
        chain=chain(old, new, gap),
    )
    for count, text in ((3, "one more"), (1, "one less")):
        reject(
            f"chunk-changed-{text.replace(' ', '-')}",
            area=AREA,
            title=f"Changed is {text} than the streams list, and so is the manifest's",
            requirements=["TD-CHK-019"],
            chain=chain(old, new, replace(gap, entry={"changed": count})),
            error="malformed",
            twin="chunk-of-two-listed-words",
        )
    every = moved(old, dict.fromkeys(range(30), 1))
    read(
        "chunk-of-all-words-listed",
        area=AREA,
        title="Changed is n, with gaps",
        requirements=["TD-CHK-011"],
        chain=chain(old, every, gap),
    )
    reject(
        "chunk-changed-more-than-n",
        area=AREA,
        title="Changed is n + 1, and the streams have one word more",
        requirements=["TD-CHK-011"],
        chain=chain(
            old, every, replace(gap, streams={"gaps": bytes(31), "codes": b"\x55" * 7 + b"\x15"}, entry={"changed": 31})
        ),
        error="malformed",
        twin="chunk-of-all-words-listed",
    )
    # Nothing is listed, and every sum agrees with that; only `changed` is not allowed.
    both: Model = {"a": tensor("U8", (30,)), "b": tensor("U8", (30,), 5)}
    after = moved(both, {3: 1}, "a")
    more = moved(after, {7: 6}, "b")
    parts = [Part([("a", 0, 30)]), Part([("b", 0, 30)], positions="bitmap")]
    read(
        "chunk-of-one-listed-word",
        area=AREA,
        title="The second of two chunks lists one word, by a bitmap",
        requirements=["TD-CHK-011"],
        chain=chain(both, more, *parts),
    )
    none = replace(
        parts[1],
        new=more,
        streams={"bitmap": bytes(4), "codes": b""},
        entry={"changed": 0, "fingerprint": "0" * 16},
    )
    reject(
        "chunk-changed-0",
        area=AREA,
        title="The second of two chunks lists no word: its bitmap is all zeros",
        requirements=["TD-CHK-011"],
        chain=chain(both, after, parts[0], none),
        error="malformed",
        twin="chunk-of-one-listed-word",
    )


def _counts() -> None:
    """A pack of no chunks names no tensor, so that no `tensors` would be right for it either."""
    fault(
        "table-of-no-chunks",
        "A second pack has a chunk table without chunks",
        "TD-CHK-001",
        more=lambda _, layout: [Pack(chunk_pack([], layout), "chunks", (0, 1), 0)],
    )


def _wide(n: int) -> Builder:
    """A full version of a tensor of 2^27 + 1 words, of which the chunk has n."""
    new = moved(one("U8", (1 << 27) + 1), {3: 1})
    return chain(None, new, Part([("w", 0, 4)], entry={"slices": [[0, 0, n]]}))()


def _limits() -> None:
    read(
        "chunk-of-2-27-words",
        area=AREA,
        title="A chunk has 2^27 words",
        requirements=["TD-LIM-005", "TD-CHK-016"],
        chain=lambda: _wide(1 << 27),
        to=0,
        held=None,
        flags=["huge"],
    )
    reject(
        "chunk-of-2-27-words-and-one",
        area=AREA,
        title="A chunk has 2^27 + 1 words",
        requirements=["TD-CHK-016"],
        chain=lambda: _wide((1 << 27) + 1),
        error="limit",
        twin="chunk-of-2-27-words",
        to=0,
        held=None,
    )


_valid()
_texts()
_fields()
_changed()
_counts()
_limits()
