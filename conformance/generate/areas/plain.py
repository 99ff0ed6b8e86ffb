"""Plain packs: the checkpoint shards of other programs (SPEC.md sections 6.1 and 6.4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from generate.builder import Builder, Pack, identity, nothing, plain_pack, ranges, safetensors
from generate.model import DTYPES, Model, Random, ordered, random_tensor, tensor
from generate.pair import chain, turned
from generate.rows import Build, Rows, kebab
from generate.standard import replaced, setting

ROWS = Rows("plain", twin="plain-pack-in-a-delta")
PACK, OFFSETS, UNWANTED = "PCK-014", "PCK-004", "PCK-017"
OLD: Model = {"a": tensor("BF16", (5, 8), 0x3F80), "b": tensor("F32", (4, 3), 0x3F800000), "n": tensor("F16", (0, 2))}
NEW: Model = {**OLD, "b": tensor("F32", (4, 3), range(0x40000000, 0x4000000C))}
KNOWN, OTHER = NEW["b"], tensor("U8", (4,), 9)
SHARD: Model = {"b": KNOWN, "x": OTHER}
"""What the plain pack holds: a tensor of the layout in bytes 0 to 48, and one that the layout lacks in 48 to 52."""
Text = Callable[[bytes], bytes]
Header = dict[str, Any]


def shard(held: Model, new: Model, *, text: Text = identity, pad: bytes | None = None, **how: Any) -> Pack:
    """A plain pack; its header's text without padding is changed by `text`."""
    index = {name: number for number, name in enumerate(ordered(new))}
    known = [index[name] for name in held if name in index] or [1]
    words = sum(len(new[name].words) for name in held if name in index)
    data = plain_pack(held, pad=b"", **how)
    stop = 8 + int.from_bytes(data[:8], "little")
    made = safetensors(text(data[8:stop]), data[stop:], pad=pad)
    return Pack(made, "tensors", ranges(known), words)


def plain(
    *shards: Model,
    old: Model | None = OLD,
    new: Model = NEW,
    pack: Callable[[bytes], bytes] = identity,
    entry: Callable[[dict[str, Any]], Any] = nothing,
    **how: Any,
) -> Build:
    """A delta, or without an old state a full version, of plain packs; what is given is done to each of them."""

    def more(_: Builder, layout: str) -> list[Pack]:
        made = [shard(held, new, **how) for held in shards or (SHARD,)]
        for each in made:
            each.data = pack(each.data)
        return made

    return chain(old, new, more=more, entry=entry)


def valid(slug: str, title: str, rule: str, *shards: Model, **how: Any) -> None:
    """A delta of plain packs."""
    ROWS.read(f"plain-{slug}", title, rule, plain(*shards, **how))


def full(slug: str, title: str, rule: str, *shards: Model, new: Model = NEW, **how: Any) -> None:
    """A full version of plain packs."""
    ROWS.read(f"plain-{slug}", title, rule, plain(*shards, old=None, new=new, **how), full=True)


def fault(
    slug: str, title: str, rules: str, *shards: Model, error: str = "malformed", twin: str = "", **how: Any
) -> None:
    """A delta of plain packs that is spoiled."""
    ROWS.reject(f"plain-{slug}", title, rules, plain(*shards, **how), error, twin)


def on(**members: Any) -> Callable[[Header], None]:
    """Set members of the entry of the tensor that the layout lacks."""
    return lambda header: header["x"].update(members)


def extra(shape: Any = (0,), dtype: str = "U8", offsets: tuple[int, int] = (52, 52)) -> Callable[[Header], None]:
    """Another entry, of no bytes at the buffer's end."""
    return setting(y={"dtype": dtype, "shape": shape, "data_offsets": offsets})


def at(**offsets: list[int]) -> Callable[[Header], None]:
    """Set the offsets of tensors."""

    def move(header: Header) -> None:
        for name, given in offsets.items():
            header[name]["data_offsets"] = given

    return move


def inserted(place: int) -> Callable[[bytes], bytes]:
    """A byte 0 so many bytes before the end of the file."""
    return lambda data: data[: len(data) - place] + b"\0" + data[len(data) - place :]


def first(member: bytes) -> Text:
    """The header begins with another member."""
    return lambda text: b"{" + member + b"," + text[1:]


def within(member: bytes) -> Text:
    """The first entry begins with another member."""
    return replaced(b'{"dtype"', b"{" + member + b',"dtype"')


def deep(levels: int) -> Text:
    """The first entry has arrays in arrays, so many levels of them."""
    return within(b'"deep":' + b"[" * levels + b"]" * levels)


def whole_bytes(dtype: str, shape: list[int], size: int) -> dict[str, Any]:
    """The tensor that the layout lacks has a dtype of less than a byte, and so many bytes."""
    header = on(dtype=dtype, shape=shape, data_offsets=[48, 48 + size])
    return {"header": header, "pack": lambda data: data[: len(data) - 4 + size]}


# fmt: off
# -- good packs --------------------------------------------------------------------------------------------------------

valid("pack-in-a-delta", "A delta of a plain pack, which has one tensor of the layout and one that the layout lacks",
    "PCK-019")
full("checkpoint", "A full version is a checkpoint of one file, as another program wrote it", PACK,
    {name: NEW[name] for name in "nba"}, metadata={"format": "pt"})
full("checkpoint-of-two-shards", "A full version is a checkpoint of two shards", PACK,
    {"b": KNOWN, "n": NEW["n"]}, {"a": NEW["a"]})
valid("words-equal-to-the-base", "A plain pack has a tensor whose words are those of the base, beside one that changes",
    "MAN-011", {"a": OLD["a"], "b": KNOWN})
ZEROED: Model = {"b": tensor("I32", (3, 4), range(12)), "c": tensor("F64", (2,), [1 << 63, 0x7FF0000000000001])}
valid("tensors-that-fitting-zeroed",
    "A plain pack has a tensor of another dtype and shape than the base's, and a new one", "PCK-019",
    ZEROED, new=OLD | ZEROED)
RNG = Random(950)
EVERY = {f"t.{dtype.lower()}": random_tensor(RNG, dtype, (2, 4)) for dtype in DTYPES}
full("of-every-dtype", "A plain pack has a tensor of each dtype", "WRD-003", EVERY, new=EVERY)
SMALL = {"none": tensor("F32", (3, 0)), "one": tensor("F32", (), 0x7F800001), "two": tensor("U8", (1,) * 9, 8)}
full("scalars-and-no-words", "A plain pack has a scalar, a tensor of nine dimensions and one without words", "LAY-006",
    SMALL, new=SMALL)
NAMES = {"é": tensor("U8", (2,), [1, 2]), "\U00010000": tensor("U8", (2,), [3, 4]), 'q"\\\n': tensor("U8", (1,), 5)}
full("names-beyond-ascii", "Names are compared by their bytes: e and a combining accent is not é", "TRM-003",
    {"e\u0301": tensor("U8", (2,), [6, 7]), **NAMES}, new=NAMES)
valid("names-with-escapes", "The name of a tensor is written with an escape", "TRM-003",
    text=replaced(b'"b"', b'"\\u0062"'))
valid("with-a-table-that-means-nothing", "The metadata of a plain pack have a key tensordelta", PACK,
    metadata={"tensordelta": '{"tensordelta":"2.0"}', "format": "np"})
valid("with-empty-metadata", "The metadata of a plain pack are empty", PACK, metadata={})
valid("header-after-its-object", "White space of all kinds follows the header's object of a plain pack", "PCK-006",
    pad=b"\t\r\n   ")
valid("not-aligned", "The buffer of a plain pack is aligned to nothing", "PCK-006", pad=b" " * 3)
valid("entries-in-reverse", "The entries of a plain pack stand in the reverse of their order in the buffer", "PCK-005",
    header=turned)
valid("entries-with-other-members", "Entries of a plain pack have other members, of any kind", PACK,
    text=lambda text: text.replace(b'{"dtype"', b'{"note":[-0,1e999,{"\\uffff":null}],"shape2":"x","dtype"'))
for slug, text, shape in (
    ("with-a-zero-and-2-53-minus-1", "of shape [2^53 - 1, 0]", [(1 << 53) - 1, 0]),
    ("of-17-dimensions", "of 17 dimensions", [1] * 16 + [0]),
    ("beyond-2-48", "with a dimension 2^49 beside a 0", [0, 1 << 49]),
):
    valid(f"unwanted-tensor-{slug}", f"A plain pack has a tensor {text}, which the layout lacks", UNWANTED,
        header=extra(shape, "F32", (48, 48)))
EMPTY = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
valid("unwanted-names",
    "A plain pack has tensors with no name, and with a name of 2000 bytes, which no layout could have", UNWANTED,
    header=setting(**{"": EMPTY, "x" * 2000: EMPTY}))
valid("nested-16-levels", "An unknown member of an entry is nested so that the header has 16 levels", PACK,
    text=deep(14))

fault("nested-17-levels", "An unknown member of an entry is nested so that the header has 17 levels",
    "JSN-008", error="limit", twin="plain-nested-16-levels", text=deep(15))

# -- tensors -----------------------------------------------------------------------------------------------------------

for slug, title, held in (
    ("of-another-dtype", "A tensor of a plain pack is I32, in the layout F32", {"b": KNOWN._replace(dtype="I32")}),
    ("of-another-shape", "A tensor of a plain pack has the shape [3, 4], in the layout [4, 3]",
     {"b": KNOWN._replace(shape=(3, 4))}),
    ("of-another-rank", "A tensor of a plain pack has the shape [12], in the layout [4, 3]",
     {"b": KNOWN._replace(shape=(12,))}),
    ("without-words-of-another-shape", "A tensor without words has another shape in a plain pack than in the layout",
     {"b": KNOWN, "n": tensor("F16", (0, 3))}),
    ("without-words-of-another-dtype", "A tensor without words has another dtype in a plain pack than in the layout",
     {"b": KNOWN, "n": tensor("BF16", (0, 2))}),
):
    fault(f"tensor-{slug}", title, "PCK-015", held)
fault("pack-of-unwanted-tensors", "A second plain pack has no tensor of the layout", "PCK-016", SHARD, {"x": OTHER})
fault("pack-of-no-tensors", "A second plain pack has no tensors", "PCK-016", SHARD, {})
fault("words-altered", "A word of a plain pack is not the one that the manifest's fingerprint counts", "RDR-007",
    {"b": tensor("F32", (4, 3), [*range(0x40000000, 0x4000000B), 5]), "x": OTHER}, error="integrity")
fault("changed-counts-unwanted-words", "Changed counts the words of a tensor that the layout lacks", "MAN-011",
    entry=setting(changed=16))
fault("changed-counts-differences", "Changed counts the words that differ from the base, and not all", "MAN-011",
    {"a": OLD["a"], "b": KNOWN}, twin="plain-words-equal-to-the-base", entry=setting(changed=12))
fault("tensors-of-another", "`tensors` of a plain pack is the index of another tensor", "MAN-030",
    entry=setting(tensors=[[0, 1]]))
fault("pack-named-as-chunks", "The content of a plain pack is said to be chunks", "PCK-010",
    entry=setting(content="chunks"))

# -- entries and metadata ----------------------------------------------------------------------------------------------

fault("dtype-unknown", "A tensor that the layout lacks has the dtype F8_E3M4", "PCK-018",
    error="unsupported", header=on(dtype="F8_E3M4"))
fault("dtype-unknown-of-no-words", "A tensor without words that the layout lacks has the dtype I128", "PCK-018",
    error="unsupported", header=extra(dtype="I128"))
for member in ("dtype", "shape", "data_offsets"):
    fault(f"entry-without-{kebab(member)}", f"A tensor that the layout lacks has no {member}", PACK,
        header=lambda header, member=member: header["x"].pop(member))
wrong: Any
for slug, text, wrong in (
    ("of-fewer-elements", "has one element less than bytes", [3]),
    ("of-more-elements", "has one element more than bytes", [5]),
    ("with-a-string", "has a string in its shape", ["4"]),
    ("with-a-fraction", "has 4.0 in its shape", [4.0]),
    ("with-a-negative-number", "has two negative numbers in its shape", [-2, -2]),
    ("with-true", "has true in its shape", [4, True]),
    ("that-is-a-number", "has a number for a shape", 4),
    ("that-is-null", "has null for a shape", None),
):
    fault(f"shape-{slug}", f"A tensor that the layout lacks {text}", PACK, header=on(shape=wrong))
for slug, text, shape in (
    ("that-wraps-to-0", "[2^32, 2^32], whose product is 0 modulo 2^64", [1 << 32, 1 << 32]),
    ("with-2-53", "[0, 2^53]", [0, 1 << 53]),
):
    fault(f"shape-{slug}", f"A tensor without bytes that the layout lacks has the shape {text}", PACK,
        header=extra(shape))
fault("wanted-tensor-of-fewer-bytes", "A tensor of the layout has a word less in a plain pack than its shape", PACK,
    header=lambda h: (h["b"].update(data_offsets=[0, 44]), h["x"].update(shape=[8], data_offsets=[44, 52])))
valid("unwanted-tensor-of-f4", "A tensor of F4 that the layout lacks has whole bytes", UNWANTED,
    **whole_bytes("F4", [8], 4))
valid("unwanted-tensor-of-f6-e2m3", "A tensor of F6_E2M3 that the layout lacks has whole bytes", UNWANTED,
    **whole_bytes("F6_E2M3", [4], 3))
fault("shape-of-half-a-byte", "A tensor of F4 that the layout lacks has seven elements in four bytes", PACK,
    header=on(dtype="F4", shape=[7]), twin="plain-unwanted-tensor-of-f4")
fault("shape-of-half-a-byte-more", "A tensor of F4 that the layout lacks has seven elements in three bytes", PACK,
    **whole_bytes("F4", [7], 3), twin="plain-unwanted-tensor-of-f4")
for slug, text, wrong in (
    ("null", "null", None),
    ("array", "an array", ["U8", [0], [52, 52]]),
    ("string", "a string", "U8"),
):
    fault(f"entry-{slug}", f"An entry of a plain pack is {text}", PACK, header=setting(y=wrong))
for slug, text, wrong in (
    ("null", "are null", None), ("array", "are an array", []), ("of-a-number", "have a number", {"step": 1}),
    ("of-null", "have a null", {"step": None}), ("of-an-object", "have an object", {"step": {}}),
):
    fault(f"metadata-{slug}", f"The metadata of a plain pack {text}", PACK, header=setting(__metadata__=wrong))

# -- offsets -----------------------------------------------------------------------------------------------------------

fault("with-a-byte-before-its-tensors", "The buffer of a plain pack has a byte before the first tensor", OFFSETS,
    header=at(b=[1, 49], x=[49, 53]), pack=inserted(52))
fault("with-a-byte-between-its-tensors", "The buffer of a plain pack has a byte between two tensors", OFFSETS,
    header=at(x=[49, 53]), pack=inserted(4))
fault("with-a-byte-after-its-tensors", "The buffer of a plain pack has a byte after the last tensor", OFFSETS,
    pack=inserted(0))
fault("with-a-byte-too-few", "The buffer of a plain pack lacks its last byte", OFFSETS, pack=lambda data: data[:-1])
fault("tensors-that-overlap", "A tensor that the layout lacks lies in the bytes of another", OFFSETS,
    header=at(x=[44, 48]), pack=lambda data: data[:-4])
fault("offsets-backwards", "A tensor that the layout lacks ends before it begins", PACK, header=extra(offsets=(52, 48)))
fault("offsets-beyond-2-64", "The offsets of a tensor without bytes are 2^64 + 52, which is 52 modulo 2^64", OFFSETS,
    header=extra(offsets=((1 << 64) + 52, (1 << 64) + 52)))
fault("offsets-fraction", "An offset in a plain pack is written 0.0", PACK, text=replaced(b"[0,48]", b"[0.0,48]"))

# -- the header as JSON, and its length --------------------------------------------------------------------------------

for slug, text, rule, how in (
    ("begins-with-a-space", "begins with a space", "PCK-003", lambda text: b" " + text),
    ("is-an-array", "is an array that holds its object", "PCK-003", lambda text: b"[" + text + b"]"),
    ("is-cut-short", "lacks its last brace", "JSN-003", lambda text: text[:-1]),
    ("has-a-second-object", "has a second object", "JSN-003", lambda text: text + b"{}"),
    ("is-followed-by-nul", "is followed by a byte 0", "JSN-003", lambda text: text + b"\0"),
    ("is-not-utf-8", "has a name that is not UTF-8", "JSN-001", replaced(b'"x"', b'"\xc3\x28"')),
    ("has-an-overlong-slash", "has an overlong form of a slash in a name", "JSN-001", replaced(b'"x"', b'"\xc0\xaf"')),
    ("has-a-lone-surrogate-in-a-name", "has a name of half of a surrogate pair", "JSN-005",
     replaced(b'"x"', b'"\\udc00"')),
    ("has-a-lone-surrogate-in-a-member", "has half of a surrogate pair in an unknown member", "JSN-005",
     within(b'"note":"\\ud83d"')),
    ("has-nan", "has NaN in an unknown member", "JSN-007", within(b'"note":NaN')),
    ("has-infinity", "has -Infinity in an unknown member", "JSN-007", within(b'"note":-Infinity')),
):
    fault(f"header-{slug}", f"The header of a plain pack {text}", f"{PACK} {rule}", text=how)
AGAIN = json.dumps({"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}).encode()
for slug, text, how in (
    ("tensor", "has a tensor of the layout twice, with equal entries", first(b'"b":' + AGAIN)),
    ("tensor-with-an-escape", "has a tensor of the layout twice, once with an escape in its name",
     first(b'"\\u0062":' + AGAIN)),
    ("member", "has a member twice in the entry of a tensor that the layout lacks",
     replaced(b'"shape":[4],', b'"shape":[4],"shape":[4],')),
    ("unknown-member", "has two equal names in an unknown member", within(b'"note":[{"y":1,"y":1}]')),
    ("metadatum", "has a metadatum twice", first(b'"__metadata__":{"format":"pt","format":"pt"}')),
    ("metadata", "has metadata twice", first(b'"__metadata__":{},"__metadata__":{}')),
):
    fault(f"same-{slug}-twice", f"The header of a plain pack {text}", "JSN-004", text=how)
fault("of-7-bytes", "A plain pack has seven bytes", "PCK-001", pack=lambda data: data[:7])
fault("with-a-header-past-its-end", "The header of a plain pack is a byte longer than its file", "PCK-001",
    pack=lambda data: (len(data) - 7).to_bytes(8, "little") + data[8:])
fault("with-a-header-of-100000001-bytes", "The length of the header of a plain pack is 100,000,001", "PCK-002",
    error="limit", pack=lambda data: (100_000_001).to_bytes(8, "little") + data[8:])
