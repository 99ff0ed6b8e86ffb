"""The chunk table and the fields of its entries (SPEC.md section 6.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from generate.builder import Builder, Pack, chunk_pack
from generate.model import Model, tensor
from generate.pair import Part, chain, listed, moved, moved_in, one, turned
from generate.rows import Build, Rows
from generate.standard import replaced, setting, without

ROWS = Rows("chunks", twin="two-chunks")
OLD: Model = {"a": tensor("BF16", (5, 8), 0x3F80), "b": tensor("U8", (20,), 7)}
NEW = moved_in(OLD, a={3: 0x3F81, 4: 0x3F7F, 39: 0x4000}, b={0: 1, 19: 2})
PARTS = (Part([("a", 0, 40)]), Part([("b", 0, 20)], positions="bitmap", values="replace"))
Document = dict[str, Any]


def read(slug: str, title: str, rules: str, **how: Any) -> None:
    """Two chunks; `how` is done to their pack."""
    ROWS.read(slug, title, rules, chain(OLD, NEW, *PARTS, **how))


def fault(slug: str, title: str, rule: str, error: str = "malformed", twin: str = "", **how: Any) -> None:
    """Two chunks; `how` spoils their pack."""
    ROWS.reject(slug, title, rule, chain(OLD, NEW, *PARTS, **how), error, twin)


def on(number: int, **members: Any) -> Callable[[Document], None]:
    """Set members of a chunk's entry."""
    return lambda document: document["chunks"][number].update(members)


def result(how: Callable[[str], Any]) -> Callable[[Document], None]:
    """Change the result of the first chunk."""
    return lambda document: document["chunks"][0].update(result=how(document["chunks"][0]["result"]))


def within(member: bytes) -> Callable[[bytes], bytes]:
    """The table begins with another member."""
    return lambda text: b"{" + member + b"," + text[1:]


def nested(levels: int) -> Any:
    """Arrays in arrays."""
    return json.loads("[" * levels + "]" * levels)


def unknown(document: Document) -> None:
    """Members that the format lacks, in the table and in its chunks."""
    document["note"] = [None, {"codec": "x"}]
    for each in document["chunks"]:
        each |= {"note": {"codec": 1}, "shift": -1}


def all_turned(document: Document) -> None:
    """The members of the table, and of its chunks, in the reverse order."""
    turned(document)
    for each in document["chunks"]:
        turned(each)


# fmt: off
read("two-chunks", "A pack of two chunks, of gaps and steps, and of a bitmap and replaced words", "CHK-023")
read("table-with-unknown-members", "The chunk table and its chunks have members that the format lacks",
    "CHK-017 JSN-013", table=unknown)
read("table-with-any-numbers-in-unknown-members", "Unknown members of the chunk table have numbers of every form",
    "JSN-014", table_text=within(b'"n":[-0,1.0,1e999,-2.5E-3,123456789012345678901234567890]'))
read("table-with-white-space-and-escapes",
    "White space stands around the chunk table and in it, and a member's name is escaped", "JSN-003",
    table_text=lambda text: b"\r\n " + text.replace(b'"layout":', b'"l\\u0061yout" :\t') + b"\n")
read("table-nested-16-levels",
    "The chunk table is nested 16 levels deep, counted without the header around it", "JSN-008 LIM-005",
    table=on(0, deep=nested(13)))
read("table-with-members-in-another-order",
    "The members of the chunk table and its chunks stand in another order", "CHK-017", table=all_turned)
read("table-with-noncharacters", "Noncharacters stand in an unknown member of the chunk table", "JSN-006",
    table_text=within(b'"x":"\\ufffe\\ud83f\\udfff"'))

# -- the table as JSON -------------------------------------------------------------------------------------------------

fault("table-cut-short", "The chunk table is cut short", "JSN-003", table_text=lambda text: text[:-1])
fault("table-empty", "The chunk table is the empty string", "JSN-003", table_text=lambda _: b"")
fault("table-array", "The chunk table is an array that holds it", "JSN-003", table_text=lambda text: b"[" + text + b"]")
fault("table-twice", "The chunk table is followed by another object", "JSN-003", table_text=lambda text: text + b"{}")
fault("table-with-a-comma", "A comma stands before the chunk table's last brace", "JSN-003",
    table_text=lambda text: text[:-1] + b",}")
fault("table-with-a-byte-order-mark", "The chunk table begins with a byte order mark", "JSN-002",
    table_text=lambda text: b"\xef\xbb\xbf" + text)
fault("table-with-a-lone-surrogate", "A string in the chunk table has half of a surrogate pair", "JSN-005",
    table_text=within(b'"x":"\\udfff"'))
fault("table-with-nan", "An unknown member of the chunk table is NaN", "JSN-007", table_text=within(b'"x":NaN'))
fault("table-with-two-equal-names", "A chunk has two members changed, of which the last is right", "JSN-004",
    table_text=replaced(b'"dtype"', b'"changed":1,"dtype"'))
fault("table-with-two-names-equal-unescaped",
    "A chunk has a member changed beside one whose name is the same with an escape", "JSN-004",
    table_text=replaced(b'"dtype"', b'"ch\\u0061nged":1,"dtype"'))
fault("table-with-two-equal-unknown-names", "An unknown member of a chunk has two equal names in it", "JSN-004",
    table_text=replaced(b'"dtype"', b'"x":{"y":1,"y":1},"dtype"'))
fault("table-nested-17-levels", "The chunk table is nested 17 levels deep", "JSN-008",
    "limit", "table-nested-16-levels", table=on(0, deep=nested(14)))

# -- fields ------------------------------------------------------------------------------------------------------------

fault("table-of-format-2", "The chunk table is of format 2.0", "VER-002",
    "unsupported", table=setting(tensordelta="2.0"))
fault("table-without-format", "The chunk table does not say its format", "JSN-011", table=without("tensordelta"))
fault("table-format-1-99", "The chunk table is of format 1.99", "VER-002", "unsupported",
    table=setting(tensordelta="1.99"))
fault("table-format-of-the-drafts", "The chunk table is of format 1.0, that of the drafts", "VER-002", "unsupported",
    table=setting(tensordelta="1.0"))
fault("table-format-without-minor", "The format of the chunk table is 1", "JSN-015", table=setting(tensordelta="1"))
fault("table-of-another-layout", "The layout of the chunk table is not the manifest's", "CHK-003",
    table=setting(layout="0" * 64))
fault("table-without-layout", "The chunk table has no layout", "JSN-011", table=without("layout"))
fault("table-layout-too-short", "The layout of the chunk table has 63 digits", "JSN-015",
    table=lambda t: t.update(layout=t["layout"][:63]))
fault("table-layout-in-upper-case", "The layout of the chunk table is in upper case", "JSN-015",
    table=lambda t: t.update(layout=t["layout"].upper()))
fault("table-without-chunks", "The chunk table has no member chunks", "JSN-011", table=without("chunks"))
fault("table-of-an-object-of-chunks", "The chunks are an object", "JSN-012",
    table=lambda t: t.update(chunks={"0": t["chunks"][0]}))
fault("table-with-null-for-a-chunk", "A chunk is null", "JSN-012", table=lambda t: t["chunks"].append(None))
# A pack of no chunks names no tensor, so that no `tensors` would be right for it either.
fault("table-of-no-chunks", "A second pack has a chunk table without chunks", "CHK-001",
    more=lambda _, layout: [Pack(chunk_pack([], layout), "chunks", [(0, 1)], 0)])
for member in ("dtype", "slices", "changed", "order", "positions", "values", "compression", "result"):
    fault(f"chunk-without-{member}", f"A chunk has no {member}", "JSN-011",
        table=lambda document, member=member: document["chunks"][1].pop(member))
fault("chunk-dtype-unknown", "The dtype of a chunk is I128", "CHK-010", "unsupported", table=on(0, dtype="I128"))
fault("chunk-dtype-in-lower-case", "The dtype of a chunk is bf16", "CHK-010", "unsupported", table=on(0, dtype="bf16"))
fault("chunk-dtype-null", "The dtype of a chunk is null", "JSN-012", table=on(0, dtype=None))
fault("chunk-dtype-of-the-same-width", "The dtype of a chunk is F16, that of its tensor BF16", "CHK-009",
    table=on(0, dtype="F16"))
fault("chunk-result-in-upper-case", "The result of a chunk is in upper case", "JSN-015",
    table=result(str.upper))
fault("chunk-result-a-number", "The result of a chunk is a number", "JSN-012",
    table=result(lambda digits: int(digits, 16) >> 12))
for slug, title, rule, value in (
    ("fraction", "Changed is written 3.0", "JSN-009", b"3.0"),
    ("exponent", "Changed is written 3e0", "JSN-009", b"3e0"),
    ("string", "Changed is a string", "JSN-012", b'"3"'),
    ("null", "Changed is null", "JSN-012", b"null"),
    ("beyond-2-53", "Changed is 2^53", "JSN-010", b"9007199254740992"),
):
    fault(f"chunk-changed-{slug}", title, rule, table_text=replaced(b'"changed":3', b'"changed":' + value))

# -- changed -----------------------------------------------------------------------------------------------------------

ROWS.read("chunk-of-two-listed-words", "A chunk of 30 words of which two are listed", "CHK-011",
    listed(30, [3, 9], Part()))
for count, text in ((3, "one more"), (1, "one less")):
    ROWS.reject(f"chunk-changed-{text.replace(' ', '-')}",
        f"Changed is {text} than the streams list, and so is the manifest's", "CHK-019",
        listed(30, [3, 9], Part(entry={"changed": count})), twin="chunk-of-two-listed-words")
ROWS.read("chunk-of-all-words-listed", "Changed is n, with gaps", "CHK-011", listed(30, range(30), Part()))
ROWS.reject("chunk-changed-more-than-n", "Changed is n + 1, and the streams have one word more", "CHK-011",
    listed(30, range(30), Part(streams={"gaps": bytes(31), "codes": "55" * 7 + "15"}, entry={"changed": 31})),
    twin="chunk-of-all-words-listed")
# Nothing is listed, and every sum agrees with that; only `changed` is not allowed.
BOTH: Model = {"a": tensor("U8", (30,)), "b": tensor("U8", (30,), 5)}
MORE = moved_in(BOTH, a={3: 1}, b={7: 6})
FIRST, SECOND = Part([("a", 0, 30)]), Part([("b", 0, 30)], positions="bitmap")
NONE = replace(SECOND, new=MORE, streams={"bitmap": bytes(4), "codes": b""},
    entry={"changed": 0, "result": "0" * 16})
ROWS.read("chunk-of-one-listed-word", "The second of two chunks lists one word, by a bitmap", "CHK-011",
    chain(BOTH, MORE, FIRST, SECOND))
ROWS.reject("chunk-changed-0", "The second of two chunks lists no word: its bitmap is all zeros", "CHK-011",
    chain(BOTH, moved(BOTH, {3: 1}, "a"), FIRST, NONE), twin="chunk-of-one-listed-word")

# -- limits ------------------------------------------------------------------------------------------------------------


def wide(n: int) -> Build:
    """A full version of a tensor of 2^27 + 1 words, of which the chunk has n."""
    def build() -> Builder:
        new = moved(one("U8", (1 << 27) + 1), {3: 1})
        return chain(None, new, Part([("w", 0, 4)], entry={"slices": [[0, 0, n]]}))()

    return build


ROWS.read("chunk-of-2-27-words", "A chunk has 2^27 words", "LIM-005 CHK-016", wide(1 << 27), full=True, flags=["huge"])
ROWS.reject("chunk-of-2-27-words-and-one", "A chunk has 2^27 + 1 words", "CHK-016",
    wide((1 << 27) + 1), "limit", "chunk-of-2-27-words", full=True)
